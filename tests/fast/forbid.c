/* Forbids one system call after the other by a filter, and says of each function which of them end
   the program: forbid [early]. With "early", it has called one of the functions before. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static const int numbers[] = {
#ifdef SYS_stat
    SYS_stat, SYS_lstat, SYS_open, SYS_creat, SYS_mkdir, SYS_mknod, SYS_symlink, SYS_chmod,
    SYS_chown, SYS_lchown, SYS_access,
#endif
    SYS_fstat, SYS_newfstatat, SYS_statx, SYS_openat, SYS_mkdirat, SYS_mknodat, SYS_symlinkat,
    SYS_fchmod, SYS_fchmodat, SYS_fchown, SYS_fchownat, SYS_faccessat, SYS_faccessat2, SYS_utimensat, SYS_getuid, SYS_geteuid, SYS_getgroups,
    SYS_getxattr, SYS_lgetxattr, SYS_fgetxattr, SYS_listxattr, SYS_getrlimit, SYS_capget,
    SYS_readlinkat, SYS_mmap, SYS_clock_gettime,
};

static struct stat found;
static struct statx more;

#define FUNCTIONS(X) \
    X(stat(".", &found)) \
    X(lstat(".", &found)) \
    X(fstat(0, &found)) \
    X(fstatat(AT_FDCWD, ".", &found, AT_SYMLINK_NOFOLLOW)) \
    X(statx(AT_FDCWD, ".", 0, STATX_BASIC_STATS, &more)) \
    X(open("new", O_CREAT | O_WRONLY, 0600)) \
    X(openat(AT_FDCWD, "new", O_CREAT | O_WRONLY, 0600)) \
    X(creat("new", 0600)) \
    X(mkdir("new", 0700)) \
    X(mkdirat(AT_FDCWD, "new", 0700)) \
    X(mkfifo("new", 0600)) \
    X(mkfifoat(AT_FDCWD, "new", 0600)) \
    X(symlink("text", "new")) \
    X(symlinkat("text", AT_FDCWD, "new")) \
    X(chmod(".", 0755)) \
    X(fchmod(3, 0755)) \
    X(fchmodat(AT_FDCWD, ".", 0755, 0)) \
    X(chown(".", 5, 6)) \
    X(lchown(".", 5, 6)) \
    X(fchown(3, 5, 6)) \
    X(fchownat(AT_FDCWD, ".", 5, 6, 0)) \
    X(access(".", R_OK)) \
    X(faccessat(AT_FDCWD, ".", R_OK, 0)) \
    X(faccessat(AT_FDCWD, ".", R_OK, AT_EACCESS)) \
    X(utimensat(AT_FDCWD, ".", NULL, 0)) \
    X(futimens(3, NULL)) \
    X(getuid()) \
    X(getgroups(0, NULL)) \
    X(getxattr(".", "user.x", NULL, 0)) \
    X(lgetxattr(".", "user.x", NULL, 0)) \
    X(fgetxattr(3, "user.x", NULL, 0)) \
    X(listxattr(".", NULL, 0))

#define NAME(call) #call,
static const char *names[] = {FUNCTIONS(NAME)};

static int call(size_t function) {
    size_t n = 0;
#define CALL(call) if (n++ == function) return (int)call;
    FUNCTIONS(CALL)
    return -1;
}

static void forbid(int number) {
    struct sock_filter lines[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof lines / sizeof *lines, lines};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) perror("filter");
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) stat(".", &found);
    dup2(open(".", O_RDONLY), 3);
    for (size_t function = 0; function < sizeof names / sizeof *names; function++) {
        printf("%s:", names[function]);
        for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++) {
            int status = 0;
            fflush(stdout);
            pid_t child = fork();
            if (child == 0) {
                forbid(numbers[n]);
                syscall(SYS_exit_group, call(function) == -1);
            }
            waitpid(child, &status, 0);
            if (WIFSIGNALED(status)) printf(" %d", numbers[n]);
            if (unlinkat(AT_FDCWD, "new", 0)) unlinkat(AT_FDCWD, "new", AT_REMOVEDIR);
        }
        printf("\n");
    }
    return 0;
}
