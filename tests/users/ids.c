/*
 * A static program that becomes other users and tells what it, its threads and its children see of that.
 * Usage: ids            as root
 *        ids shown      only tells
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void show(const char *who)
{
    unsigned r, e, s, groups[64];
    syscall(SYS_getresuid, &r, &e, &s);
    printf("%s: uid %u %u %u fs %d, ", who, r, e, s, (int)syscall(SYS_setfsuid, -1));
    syscall(SYS_getresgid, &r, &e, &s);
    printf("gid %u %u %u fs %d, groups", r, e, s, (int)syscall(SYS_setfsgid, -1));
    long count = syscall(SYS_getgroups, 64, groups);
    for (long n = 0; n < count; n++)
        printf(" %u", groups[n]);
    printf(", %u %u %u %u\n", getuid(), geteuid(), getgid(), getegid());
}

static void show_error(const char *call, int result)
{
    printf("%s: %s\n", call, result < 0 ? strerror(errno) : "done");
}

static void show_owner(const char *path)
{
    struct stat file;
    unlink(path);
    close(open(path, O_CREAT | O_EXCL | O_WRONLY, 0666));
    stat(path, &file);
    printf("%s: %u:%u %o\n", path, file.st_uid, file.st_gid, file.st_mode);
    unlink(path);
}

static void in_child(const char *who)
{
    pid_t child = fork();
    if (child == 0) {
        show(who);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static pthread_barrier_t meet;

/* libc has all threads follow, the bare call does not. */
static void *thread(void *unused)
{
    (void)unused;
    syscall(SYS_setresgid, 7, 8, 9);
    syscall(SYS_setresuid, 4, 5, 0);
    show("the thread alone");
    in_child("its child");
    pthread_barrier_wait(&meet);
    pthread_barrier_wait(&meet);
    syscall(SYS_setresuid, 0, 0, 0);
    pthread_barrier_wait(&meet);
    pthread_barrier_wait(&meet);
    show("the thread that followed");
    show_owner("/tmp/of-the-thread");
    return NULL;
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1) {
        show(argv[1]);
        show_owner("/tmp/after-exec");
        return 0;
    }
    show("at first");
    pthread_t other;
    pthread_barrier_init(&meet, NULL, 2);
    pthread_create(&other, NULL, thread, NULL);
    pthread_barrier_wait(&meet);
    show("the other thread");
    in_child("its child");
    pthread_barrier_wait(&meet);
    pthread_barrier_wait(&meet);
    gid_t groups[] = {100000, 4, 24, 4294967294};
    show_error("setgroups", setgroups(4, groups));
    show_error("setresgid", setresgid(1001, 1002, 1003));
    show_error("setresuid", setresuid(2001, 2002, 2003));
    show("after libc's calls");
    pthread_barrier_wait(&meet);
    pthread_join(other, NULL);
    in_child("a child");
    show_owner("/tmp/of-main");
    show_error("seteuid(2003)", seteuid(2003));
    show("with the saved id");
    show_error("setuid(0)", setuid(0));
    show_error("setgid(0)", setgid(0));
    show_error("setgroups", setgroups(0, NULL));
    show_error("setreuid(2001, 2001)", setreuid(2001, 2001));
    show_error("seteuid(2002)", seteuid(2002));
    show_error("chown to somebody else", chown("/bin", 2001, -1));
    pid_t child = vfork();
    if (child == 0)
        _exit(execl("/proc/self/exe", "ids", "after vfork and exec", NULL));
    waitpid(child, NULL, 0);
    execl("/proc/self/exe", "ids", "after exec", NULL);
    return 1;
}
