//! The calls of the probe. On an architecture that lacks one of them, another one is made in its
//! place, as by the C library there.

use libc::c_long;

use super::Syscall;

macro_rules! every_architecture {
    ($($constant:ident $name:ident $number:ident;)*) => {$(
        pub(crate) const $constant: Syscall = Syscall { name: stringify!($name), number: libc::$number };
    )*};
}

/// Calls of x86 that newer architectures lack.
pub(super) mod number {
    #[cfg(target_arch = "x86_64")]
    pub(crate) use libc::{
        SYS_access as ACCESS, SYS_chmod as CHMOD, SYS_chown as CHOWN, SYS_creat as CREAT,
        SYS_lchown as LCHOWN, SYS_lstat as LSTAT, SYS_mkdir as MKDIR, SYS_mknod as MKNOD,
        SYS_open as OPEN, SYS_readlink as READLINK, SYS_stat as STAT, SYS_symlink as SYMLINK,
        SYS_utime as UTIME, SYS_utimes as UTIMES,
    };

    /// Stand for them: no call has such a number.
    #[cfg(not(target_arch = "x86_64"))]
    mod lacking {
        use libc::c_long;

        pub(crate) const ACCESS: c_long = -2;
        pub(crate) const CHMOD: c_long = -3;
        pub(crate) const CHOWN: c_long = -4;
        pub(crate) const CREAT: c_long = -5;
        pub(crate) const LCHOWN: c_long = -6;
        pub(crate) const LSTAT: c_long = -7;
        pub(crate) const MKDIR: c_long = -8;
        pub(crate) const MKNOD: c_long = -9;
        pub(crate) const OPEN: c_long = -10;
        pub(crate) const READLINK: c_long = -11;
        pub(crate) const STAT: c_long = -12;
        pub(crate) const SYMLINK: c_long = -13;
        pub(crate) const UTIME: c_long = -14;
        pub(crate) const UTIMES: c_long = -15;
    }
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) use lacking::*;
}

macro_rules! x86_only {
    ($($constant:ident $name:ident;)*) => {$(
        pub(crate) const $constant: Syscall = Syscall { name: stringify!($name), number: number::$constant };
    )*};
}

x86_only! {
    CHOWN chown;
    LCHOWN lchown;
    STAT stat;
    LSTAT lstat;
    OPEN open;
    CREAT creat;
    MKDIR mkdir;
    MKNOD mknod;
    SYMLINK symlink;
    CHMOD chmod;
    ACCESS access;
    UTIME utime;
    UTIMES utimes;
    READLINK readlink;
}

every_architecture! {
    FCHOWN fchown SYS_fchown;
    FCHOWNAT fchownat SYS_fchownat;
    FSTAT fstat SYS_fstat;
    NEWFSTATAT newfstatat SYS_newfstatat;
    STATX statx SYS_statx;
    FCHMOD fchmod SYS_fchmod;
    FCHMODAT fchmodat SYS_fchmodat;
    LINKAT linkat SYS_linkat;
    RENAMEAT2 renameat2 SYS_renameat2;
    UNLINKAT unlinkat SYS_unlinkat;
    READLINKAT readlinkat SYS_readlinkat;
    STATFS statfs SYS_statfs;
    MKDIRAT mkdirat SYS_mkdirat;
    SYMLINKAT symlinkat SYS_symlinkat;
    MKNODAT mknodat SYS_mknodat;
    OPENAT openat SYS_openat;
    CLOSE close SYS_close;
    DUP3 dup3 SYS_dup3;
    TRUNCATE truncate SYS_truncate;
    FTRUNCATE ftruncate SYS_ftruncate;
    WRITE write SYS_write;
    READ read SYS_read;
    CHDIR chdir SYS_chdir;
    FCHDIR fchdir SYS_fchdir;
    CHROOT chroot SYS_chroot;
    UMASK umask SYS_umask;
    SOCKET socket SYS_socket;
    BIND bind SYS_bind;
    EVENTFD2 eventfd2 SYS_eventfd2;
    MEMFD_CREATE memfd_create SYS_memfd_create;
    SETXATTR setxattr SYS_setxattr;
    GETXATTR getxattr SYS_getxattr;
    INOTIFY_INIT1 inotify_init1 SYS_inotify_init1;
    INOTIFY_ADD_WATCH inotify_add_watch SYS_inotify_add_watch;
    UNSHARE unshare SYS_unshare;
    MOUNT mount SYS_mount;
    UMOUNT2 umount2 SYS_umount2;
    PIVOT_ROOT pivot_root SYS_pivot_root;
    SETUID setuid SYS_setuid;
    SETGID setgid SYS_setgid;
    SETREUID setreuid SYS_setreuid;
    SETREGID setregid SYS_setregid;
    SETRESUID setresuid SYS_setresuid;
    SETRESGID setresgid SYS_setresgid;
    SETFSUID setfsuid SYS_setfsuid;
    SETFSGID setfsgid SYS_setfsgid;
    SETGROUPS setgroups SYS_setgroups;
    GETUID getuid SYS_getuid;
    GETEUID geteuid SYS_geteuid;
    GETGID getgid SYS_getgid;
    GETEGID getegid SYS_getegid;
    GETRESUID getresuid SYS_getresuid;
    GETRESGID getresgid SYS_getresgid;
    GETGROUPS getgroups SYS_getgroups;
    CAPGET capget SYS_capget;
    CAPSET capset SYS_capset;
    PRCTL prctl SYS_prctl;
    EXECVE execve SYS_execve;
    EXECVEAT execveat SYS_execveat;
    OPENAT2 openat2 SYS_openat2;
    FCNTL fcntl SYS_fcntl;
    IOCTL ioctl SYS_ioctl;
    SHMGET shmget SYS_shmget;
    SHMAT shmat SYS_shmat;
    SHMDT shmdt SYS_shmdt;
    SHMCTL shmctl SYS_shmctl;
    SEMGET semget SYS_semget;
    SEMOP semop SYS_semop;
    SEMTIMEDOP semtimedop SYS_semtimedop;
    SEMCTL semctl SYS_semctl;
    MSGGET msgget SYS_msgget;
    MSGSND msgsnd SYS_msgsnd;
    MSGRCV msgrcv SYS_msgrcv;
    MSGCTL msgctl SYS_msgctl;
    LSEEK lseek SYS_lseek;
    GETSOCKNAME getsockname SYS_getsockname;
    LISTEN listen SYS_listen;
    CONNECT connect SYS_connect;
    ACCEPT4 accept4 SYS_accept4;
    PIPE2 pipe2 SYS_pipe2;
    SOCKETPAIR socketpair SYS_socketpair;
    SETSOCKOPT setsockopt SYS_setsockopt;
    GETSOCKOPT getsockopt SYS_getsockopt;
    GETRLIMIT getrlimit SYS_getrlimit;
    SETRLIMIT setrlimit SYS_setrlimit;
    PRLIMIT64 prlimit64 SYS_prlimit64;
    FACCESSAT faccessat SYS_faccessat;
    FACCESSAT2 faccessat2 SYS_faccessat2;
    UTIMENSAT utimensat SYS_utimensat;
    FSETXATTR fsetxattr SYS_fsetxattr;
    REMOVEXATTR removexattr SYS_removexattr;
    KILL kill SYS_kill;
    RT_SIGQUEUEINFO rt_sigqueueinfo SYS_rt_sigqueueinfo;
    RT_TGSIGQUEUEINFO rt_tgsigqueueinfo SYS_rt_tgsigqueueinfo;
    OPEN_BY_HANDLE_AT open_by_handle_at SYS_open_by_handle_at;
    PIDFD_OPEN pidfd_open SYS_pidfd_open;
    PIDFD_SEND_SIGNAL pidfd_send_signal SYS_pidfd_send_signal;
    PIDFD_GETFD pidfd_getfd SYS_pidfd_getfd;
    SETSID setsid SYS_setsid;
    SETPGID setpgid SYS_setpgid;
    GETPRIORITY getpriority SYS_getpriority;
    SETPRIORITY setpriority SYS_setpriority;
    IOPRIO_SET ioprio_set SYS_ioprio_set;
    SCHED_SETAFFINITY sched_setaffinity SYS_sched_setaffinity;
    SCHED_SETSCHEDULER sched_setscheduler SYS_sched_setscheduler;
    SCHED_SETPARAM sched_setparam SYS_sched_setparam;
    SCHED_SETATTR sched_setattr SYS_sched_setattr;
    PTRACE ptrace SYS_ptrace;
    PROCESS_VM_READV process_vm_readv SYS_process_vm_readv;
    PROCESS_VM_WRITEV process_vm_writev SYS_process_vm_writev;
    SETNS setns SYS_setns;
    OPEN_TREE open_tree SYS_open_tree;
    MOVE_MOUNT move_mount SYS_move_mount;
    FSOPEN fsopen SYS_fsopen;
    FSCONFIG fsconfig SYS_fsconfig;
    FSMOUNT fsmount SYS_fsmount;
    SETHOSTNAME sethostname SYS_sethostname;
    SETDOMAINNAME setdomainname SYS_setdomainname;
    REBOOT reboot SYS_reboot;
}

/// The call to make, with its arguments.
#[cfg(target_arch = "x86_64")]
pub(super) fn existing(
    number: c_long,
    words: [i64; 6],
    _: &mut [libc::timespec; 2],
) -> (c_long, [i64; 6]) {
    (number, words)
}

/// The call to make, with its arguments; `times` is where they have their times.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn existing(
    number: c_long,
    words: [i64; 6],
    times: &mut [libc::timespec; 2],
) -> (c_long, [i64; 6]) {
    use libc::{
        AT_FDCWD, AT_SYMLINK_NOFOLLOW, O_CREAT, O_TRUNC, O_WRONLY, SYS_faccessat, SYS_fchmodat,
        SYS_fchownat, SYS_mkdirat, SYS_mknodat, SYS_newfstatat, SYS_openat, SYS_readlinkat,
        SYS_symlinkat, SYS_utimensat,
    };

    const HERE: i64 = AT_FDCWD as i64;
    const ITSELF: i64 = AT_SYMLINK_NOFOLLOW as i64;
    const CREATE: i64 = (O_CREAT | O_WRONLY | O_TRUNC) as i64;
    let [a, b, c, ..] = words;
    match number {
        number::ACCESS => (SYS_faccessat, [HERE, a, b, 0, 0, 0]),
        number::CHMOD => (SYS_fchmodat, [HERE, a, b, 0, 0, 0]),
        number::CHOWN => (SYS_fchownat, [HERE, a, b, c, 0, 0]),
        number::CREAT => (SYS_openat, [HERE, a, CREATE, b, 0, 0]),
        number::LCHOWN => (SYS_fchownat, [HERE, a, b, c, ITSELF, 0]),
        number::LSTAT => (SYS_newfstatat, [HERE, a, b, ITSELF, 0, 0]),
        number::MKDIR => (SYS_mkdirat, [HERE, a, b, 0, 0, 0]),
        number::MKNOD => (SYS_mknodat, [HERE, a, b, c, 0, 0]),
        number::OPEN => (SYS_openat, [HERE, a, b, c, 0, 0]),
        number::READLINK => (SYS_readlinkat, [HERE, a, b, c, 0, 0]),
        number::STAT => (SYS_newfstatat, [HERE, a, b, 0, 0, 0]),
        number::SYMLINK => (SYS_symlinkat, [a, HERE, b, 0, 0, 0]),
        number::UTIME | number::UTIMES => {
            let times = super::times_of(b, number == number::UTIME, times);
            (SYS_utimensat, [HERE, a, times, 0, 0, 0])
        }
        _ => (number, words),
    }
}
