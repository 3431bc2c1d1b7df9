//! The calls of the probe. On an architecture that lacks one of them, it fails with ENOSYS, for the
//! oracle, too.

use super::Syscall;

macro_rules! every_architecture {
    ($($constant:ident $name:ident $number:ident;)*) => {$(
        pub(crate) const $constant: Syscall = Syscall { name: stringify!($name), number: libc::$number };
    )*};
}

macro_rules! x86_only {
    ($($constant:ident $name:ident $number:ident;)*) => {$(
        #[cfg(target_arch = "x86_64")]
        pub(crate) const $constant: Syscall = Syscall { name: stringify!($name), number: libc::$number };
        #[cfg(not(target_arch = "x86_64"))]
        pub(crate) const $constant: Syscall = Syscall { name: stringify!($name), number: -1 };
    )*};
}

x86_only! {
    CHOWN chown SYS_chown;
    LCHOWN lchown SYS_lchown;
    STAT stat SYS_stat;
    LSTAT lstat SYS_lstat;
    OPEN open SYS_open;
    CREAT creat SYS_creat;
    MKDIR mkdir SYS_mkdir;
    MKNOD mknod SYS_mknod;
    SYMLINK symlink SYS_symlink;
    CHMOD chmod SYS_chmod;
    ACCESS access SYS_access;
    UTIME utime SYS_utime;
    UTIMES utimes SYS_utimes;
    READLINK readlink SYS_readlink;
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
