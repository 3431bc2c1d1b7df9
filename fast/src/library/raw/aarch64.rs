//! aarch64: syscall(2), asm-generic/unistd.h.

use core::arch::asm;

use crate::library::file::{AT_FDCWD, AT_SYMLINK_NOFOLLOW};

pub(in crate::library) mod number {
    pub(in crate::library) const SETXATTR: usize = 5;
    pub(in crate::library) const LSETXATTR: usize = 6;
    pub(in crate::library) const FSETXATTR: usize = 7;
    pub(in crate::library) const GETXATTR: usize = 8;
    pub(in crate::library) const LGETXATTR: usize = 9;
    pub(in crate::library) const FGETXATTR: usize = 10;
    pub(in crate::library) const LISTXATTR: usize = 11;
    pub(in crate::library) const LLISTXATTR: usize = 12;
    pub(in crate::library) const FLISTXATTR: usize = 13;
    pub(in crate::library) const REMOVEXATTR: usize = 14;
    pub(in crate::library) const LREMOVEXATTR: usize = 15;
    pub(in crate::library) const FREMOVEXATTR: usize = 16;
    pub(in crate::library) const DUP3: usize = 24;
    pub(in crate::library) const MKNODAT: usize = 33;
    pub(in crate::library) const MKDIRAT: usize = 34;
    pub(in crate::library) const UNLINKAT: usize = 35;
    pub(in crate::library) const SYMLINKAT: usize = 36;
    pub(in crate::library) const LINKAT: usize = 37;
    pub(in crate::library) const RENAMEAT: usize = 38;
    pub(in crate::library) const TRUNCATE: usize = 45;
    pub(in crate::library) const FACCESSAT: usize = 48;
    pub(in crate::library) const CHDIR: usize = 49;
    pub(in crate::library) const FCHDIR: usize = 50;
    pub(in crate::library) const FCHMOD: usize = 52;
    pub(in crate::library) const FCHMODAT: usize = 53;
    pub(in crate::library) const FCHOWNAT: usize = 54;
    pub(in crate::library) const FCHOWN: usize = 55;
    pub(in crate::library) const OPENAT: usize = 56;
    pub(in crate::library) const CLOSE: usize = 57;
    pub(in crate::library) const READLINKAT: usize = 78;
    pub(in crate::library) const NEWFSTATAT: usize = 79;
    pub(in crate::library) const FSTAT: usize = 80;
    pub(in crate::library) const UTIMENSAT: usize = 88;
    pub(in crate::library) const CAPGET: usize = 90;
    pub(in crate::library) const CLOCK_GETTIME: usize = 113;
    pub(in crate::library) const RT_SIGPROCMASK: usize = 135;
    pub(in crate::library) const GETRESUID: usize = 148;
    pub(in crate::library) const GETRESGID: usize = 150;
    pub(in crate::library) const GETGROUPS: usize = 158;
    pub(in crate::library) const GETRLIMIT: usize = 163;
    pub(in crate::library) const GETPID: usize = 172;
    pub(in crate::library) const GETUID: usize = 174;
    pub(in crate::library) const GETEUID: usize = 175;
    pub(in crate::library) const GETGID: usize = 176;
    pub(in crate::library) const GETEGID: usize = 177;
    pub(in crate::library) const SEMTIMEDOP: usize = 192;
    pub(in crate::library) const SEMOP: usize = 193;
    pub(in crate::library) const SENDMSG: usize = 211;
    pub(in crate::library) const RECVMSG: usize = 212;
    pub(in crate::library) const MUNMAP: usize = 215;
    pub(in crate::library) const MMAP: usize = 222;
    pub(in crate::library) const RECVMMSG: usize = 243;
    pub(in crate::library) const SENDMMSG: usize = 269;
    pub(in crate::library) const RENAMEAT2: usize = 276;
    pub(in crate::library) const STATX: usize = 291;
    pub(in crate::library) const FACCESSAT2: usize = 439;
    pub(in crate::library) const GETXATTRAT: usize = 464;

    // Calls that this architecture lacks: [`call`](super::call) makes another one instead. The
    // kernel has no calls of these numbers.
    const LACKING: usize = 1 << 16;
    pub(in crate::library) const STAT: usize = LACKING;
    pub(in crate::library) const LSTAT: usize = LACKING + 1;
    pub(in crate::library) const ACCESS: usize = LACKING + 2;
    pub(in crate::library) const RENAME: usize = LACKING + 3;
    pub(in crate::library) const MKDIR: usize = LACKING + 4;
    pub(in crate::library) const RMDIR: usize = LACKING + 5;
    pub(in crate::library) const CREAT: usize = LACKING + 6;
    pub(in crate::library) const LINK: usize = LACKING + 7;
    pub(in crate::library) const UNLINK: usize = LACKING + 8;
    pub(in crate::library) const SYMLINK: usize = LACKING + 9;
    pub(in crate::library) const READLINK: usize = LACKING + 10;
    pub(in crate::library) const CHMOD: usize = LACKING + 11;
    pub(in crate::library) const CHOWN: usize = LACKING + 12;
    pub(in crate::library) const LCHOWN: usize = LACKING + 13;
}

/// Flags of open(2) that have other values elsewhere: asm/fcntl.h.
pub(in crate::library) mod flag {
    use core::ffi::c_int;

    pub(in crate::library) const O_DIRECTORY: c_int = 0o40_000;
    pub(in crate::library) const O_NOFOLLOW: c_int = 0o100_000;
}

/// `struct stat`, as the kernel and all C libraries have it: asm-generic/stat.h.
#[repr(C)]
#[derive(Clone, Copy)]
pub(in crate::library) struct Stat {
    pub(in crate::library) dev: u64,
    pub(in crate::library) ino: u64,
    pub(in crate::library) mode: u32,
    nlink: u32,
    pub(in crate::library) uid: u32,
    pub(in crate::library) gid: u32,
    pub(in crate::library) rdev: u64,
    pad: u64,
    size: i64,
    block_size: [i32; 2],
    blocks: i64,
    atime: [i64; 2],
    mtime: [i64; 2],
    pub(in crate::library) ctime: [i64; 2],
    unused: [i32; 2],
}

const _: () = assert!(size_of::<Stat>() == 128);

/// The call that does what is asked for, as a C library of this architecture makes it.
#[inline(always)]
fn existing(number: usize, [a, b, c, d, e, mark]: [usize; 6]) -> (usize, [usize; 6]) {
    use super::int;

    const AT_REMOVEDIR: usize = 0x200;
    const O_CREAT_WRONLY_TRUNC: usize = 0o100 | 0o1 | 0o1000;
    let (here, itself) = (int(AT_FDCWD), int(AT_SYMLINK_NOFOLLOW));
    let (number, [a, b, c, d, e]) = match number {
        number::STAT => (number::NEWFSTATAT, [here, a, b, 0, 0]),
        number::LSTAT => (number::NEWFSTATAT, [here, a, b, itself, 0]),
        number::ACCESS => (number::FACCESSAT, [here, a, b, 0, 0]),
        number::RENAME => (number::RENAMEAT, [here, a, here, b, 0]),
        number::MKDIR => (number::MKDIRAT, [here, a, b, 0, 0]),
        number::RMDIR => (number::UNLINKAT, [here, a, AT_REMOVEDIR, 0, 0]),
        number::CREAT => (number::OPENAT, [here, a, O_CREAT_WRONLY_TRUNC, b, 0]),
        number::LINK => (number::LINKAT, [here, a, here, b, 0]),
        number::UNLINK => (number::UNLINKAT, [here, a, 0, 0, 0]),
        number::SYMLINK => (number::SYMLINKAT, [a, here, b, 0, 0]),
        number::READLINK => (number::READLINKAT, [here, a, b, c, 0]),
        number::CHMOD => (number::FCHMODAT, [here, a, b, 0, 0]),
        number::CHOWN => (number::FCHOWNAT, [here, a, b, c, 0]),
        number::LCHOWN => (number::FCHOWNAT, [here, a, b, c, itself]),
        _ => (number, [a, b, c, d, e]),
    };
    (number, [a, b, c, d, e, mark])
}

/// One system call, whatever it does.
///
/// Afterwards, the register that may have had a mark is cleared: the next call of the program,
/// inside the C library for instance, may have fewer arguments, and would leave it as it is. The
/// one of the first argument has the result.
pub(in crate::library) fn call(number: usize, arguments: [usize; 6]) -> isize {
    let (number, [a, b, c, d, e, f]) = existing(number, arguments);
    let result;
    // SAFETY: the instruction changes the registers that are named, and memory as the call says;
    // what that means for memory is for the caller to know, who passes on what programs ask for.
    unsafe {
        asm!(
            "svc 0",
            "mov x5, xzr",
            in("x8") number,
            inlateout("x0") a => result,
            in("x1") b,
            in("x2") c,
            in("x3") d,
            in("x4") e,
            inlateout("x5") f => _,
            options(nostack),
        );
    }
    result
}

/// Clears the register of the sixth argument, as [`call`] does.
pub(in crate::library) fn clear_mark() {
    // SAFETY: it changes one register, which is named.
    unsafe { asm!("mov x5, xzr", lateout("x5") _, options(nomem, nostack)) };
}

/// Whether valgrind(1) executes the program. It examines each call, and would complain about those
/// that only this library makes. (valgrind.h: `RUNNING_ON_VALGRIND`)
pub(in crate::library) fn is_under_valgrind() -> bool {
    let question = [0x1001u64, 0, 0, 0, 0, 0];
    let answer: u64;
    // SAFETY: rotated by 128 bits in all, `x12` is what it was; the last instruction changes
    // nothing. Valgrind knows these instructions, and writes its answer to `x3`.
    unsafe {
        asm!(
            "ror x12, x12, #3",
            "ror x12, x12, #13",
            "ror x12, x12, #51",
            "ror x12, x12, #61",
            "orr x10, x10, x10",
            in("x4") question.as_ptr(),
            inlateout("x3") 0u64 => answer,
            inlateout("x12") 0u64 => _,
            options(nostack),
        );
    }
    answer != 0
}
