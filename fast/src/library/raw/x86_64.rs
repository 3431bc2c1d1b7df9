//! x86-64: syscall(2), asm/unistd_64.h.

use core::arch::asm;

pub(in crate::library) mod number {
    pub(in crate::library) const CLOSE: usize = 3;
    pub(in crate::library) const STAT: usize = 4;
    pub(in crate::library) const FSTAT: usize = 5;
    pub(in crate::library) const LSTAT: usize = 6;
    pub(in crate::library) const MMAP: usize = 9;
    pub(in crate::library) const MUNMAP: usize = 11;
    pub(in crate::library) const RT_SIGPROCMASK: usize = 14;
    pub(in crate::library) const ACCESS: usize = 21;
    pub(in crate::library) const GETPID: usize = 39;
    pub(in crate::library) const SENDMSG: usize = 46;
    pub(in crate::library) const RECVMSG: usize = 47;
    pub(in crate::library) const SEMOP: usize = 65;
    pub(in crate::library) const TRUNCATE: usize = 76;
    pub(in crate::library) const CHDIR: usize = 80;
    pub(in crate::library) const FCHDIR: usize = 81;
    pub(in crate::library) const RENAME: usize = 82;
    pub(in crate::library) const MKDIR: usize = 83;
    pub(in crate::library) const RMDIR: usize = 84;
    pub(in crate::library) const CREAT: usize = 85;
    pub(in crate::library) const LINK: usize = 86;
    pub(in crate::library) const UNLINK: usize = 87;
    pub(in crate::library) const SYMLINK: usize = 88;
    pub(in crate::library) const READLINK: usize = 89;
    pub(in crate::library) const CHMOD: usize = 90;
    pub(in crate::library) const FCHMOD: usize = 91;
    pub(in crate::library) const CHOWN: usize = 92;
    pub(in crate::library) const FCHOWN: usize = 93;
    pub(in crate::library) const LCHOWN: usize = 94;
    pub(in crate::library) const GETRLIMIT: usize = 97;
    pub(in crate::library) const GETUID: usize = 102;
    pub(in crate::library) const GETGID: usize = 104;
    pub(in crate::library) const GETEUID: usize = 107;
    pub(in crate::library) const GETEGID: usize = 108;
    pub(in crate::library) const GETGROUPS: usize = 115;
    pub(in crate::library) const GETRESUID: usize = 118;
    pub(in crate::library) const GETRESGID: usize = 120;
    pub(in crate::library) const CAPGET: usize = 125;
    pub(in crate::library) const SETXATTR: usize = 188;
    pub(in crate::library) const LSETXATTR: usize = 189;
    pub(in crate::library) const FSETXATTR: usize = 190;
    pub(in crate::library) const GETXATTR: usize = 191;
    pub(in crate::library) const LGETXATTR: usize = 192;
    pub(in crate::library) const FGETXATTR: usize = 193;
    pub(in crate::library) const LISTXATTR: usize = 194;
    pub(in crate::library) const LLISTXATTR: usize = 195;
    pub(in crate::library) const FLISTXATTR: usize = 196;
    pub(in crate::library) const REMOVEXATTR: usize = 197;
    pub(in crate::library) const LREMOVEXATTR: usize = 198;
    pub(in crate::library) const FREMOVEXATTR: usize = 199;
    pub(in crate::library) const SEMTIMEDOP: usize = 220;
    pub(in crate::library) const CLOCK_GETTIME: usize = 228;
    pub(in crate::library) const OPENAT: usize = 257;
    pub(in crate::library) const MKDIRAT: usize = 258;
    pub(in crate::library) const MKNODAT: usize = 259;
    pub(in crate::library) const FCHOWNAT: usize = 260;
    pub(in crate::library) const NEWFSTATAT: usize = 262;
    pub(in crate::library) const UNLINKAT: usize = 263;
    pub(in crate::library) const RENAMEAT: usize = 264;
    pub(in crate::library) const LINKAT: usize = 265;
    pub(in crate::library) const SYMLINKAT: usize = 266;
    pub(in crate::library) const READLINKAT: usize = 267;
    pub(in crate::library) const FCHMODAT: usize = 268;
    pub(in crate::library) const FACCESSAT: usize = 269;
    pub(in crate::library) const UTIMENSAT: usize = 280;
    pub(in crate::library) const DUP3: usize = 292;
    pub(in crate::library) const RECVMMSG: usize = 299;
    pub(in crate::library) const SENDMMSG: usize = 307;
    pub(in crate::library) const RENAMEAT2: usize = 316;
    pub(in crate::library) const STATX: usize = 332;
    pub(in crate::library) const FACCESSAT2: usize = 439;
    pub(in crate::library) const GETXATTRAT: usize = 464;
}

/// Flags of open(2) that have other values elsewhere: asm-generic/fcntl.h.
pub(in crate::library) mod flag {
    use core::ffi::c_int;

    pub(in crate::library) const O_DIRECTORY: c_int = 0o200_000;
    pub(in crate::library) const O_NOFOLLOW: c_int = 0o400_000;
}

/// `struct stat`, as the kernel and all C libraries have it: asm/stat.h.
#[repr(C)]
#[derive(Clone, Copy)]
pub(in crate::library) struct Stat {
    pub(in crate::library) dev: u64,
    pub(in crate::library) ino: u64,
    nlink: u64,
    pub(in crate::library) mode: u32,
    pub(in crate::library) uid: u32,
    pub(in crate::library) gid: u32,
    pad: u32,
    pub(in crate::library) rdev: u64,
    size: i64,
    block_size: i64,
    blocks: i64,
    atime: [i64; 2],
    mtime: [i64; 2],
    pub(in crate::library) ctime: [i64; 2],
    unused: [i64; 3],
}

const _: () = assert!(size_of::<Stat>() == 144);

/// One system call, whatever it does.
///
/// Afterwards, the registers that may have had a mark are cleared: the next call of the program,
/// inside the C library for instance, may have fewer arguments, and would leave them as they are.
pub(in crate::library) fn call(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: the instruction changes the registers that are named, and memory as the call says;
    // what that means for memory is for the caller to know, who passes on what programs ask for.
    unsafe {
        asm!(
            "syscall",
            "xor r9d, r9d",
            "xor edi, edi",
            inlateout("rax") number => result,
            inlateout("rdi") a => _,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            inlateout("r9") f => _,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

/// Clears the register of the sixth argument, as [`call`] does.
pub(in crate::library) fn clear_mark() {
    // SAFETY: it changes one register, which is named.
    unsafe { asm!("xor r9d, r9d", lateout("r9") _, options(nomem, nostack)) };
}

/// Whether valgrind(1) executes the program. It examines each call, and would complain about those
/// that only this library makes. (valgrind.h: `RUNNING_ON_VALGRIND`)
pub(in crate::library) fn is_under_valgrind() -> bool {
    let question = [0x1001u64, 0, 0, 0, 0, 0];
    let answer: u64;
    // SAFETY: rotated by 128 bits in all, `rdi` is what it was; the exchange changes nothing.
    // Valgrind knows these instructions, and writes its answer to `rdx`.
    unsafe {
        asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") question.as_ptr(),
            inlateout("rdx") 0u64 => answer,
            inlateout("rdi") 0u64 => _,
            options(nostack),
        );
    }
    answer != 0
}
