//! x86-64: syscall(2), asm/unistd_64.h.

use core::arch::asm;

pub(in crate::library) mod number {
    pub(in crate::library) const CLOSE: usize = 3;
    pub(in crate::library) const FSTAT: usize = 5;
    pub(in crate::library) const MMAP: usize = 9;
    pub(in crate::library) const MUNMAP: usize = 11;
    pub(in crate::library) const GETXATTR: usize = 191;
    pub(in crate::library) const LGETXATTR: usize = 192;
    pub(in crate::library) const FGETXATTR: usize = 193;
    pub(in crate::library) const LISTXATTR: usize = 194;
    pub(in crate::library) const LLISTXATTR: usize = 195;
    pub(in crate::library) const FLISTXATTR: usize = 196;
    pub(in crate::library) const NEWFSTATAT: usize = 262;
    pub(in crate::library) const STATX: usize = 332;
    pub(in crate::library) const GETXATTRAT: usize = 464;
}

/// One system call, whatever it does.
pub(in crate::library) fn call(number: usize, arguments: [usize; 6]) -> isize {
    let [a, b, c, d, e, f] = arguments;
    let result;
    // SAFETY: the instruction changes the registers that are named, and memory as the call says;
    // what that means for memory is for the caller to know, who passes on what programs ask for.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") a,
            in("rsi") b,
            in("rdx") c,
            in("r10") d,
            in("r8") e,
            in("r9") f,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}
