/* Loads a filter that kills for every call that only a preloaded library would make, and stats FILE before and after:
   filters HOW WHEN FILE [COMMAND...]. HOW is prctl, seccomp or thread (one thread of two has it); with WHEN = late the
   process has called stat(2) before. Prints the owner once for each look, and becomes COMMAND. */
#define _GNU_SOURCE
#include <err.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define KILL_ON(number) \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS)

static struct sock_filter instructions[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    KILL_ON(SYS_getxattr), KILL_ON(SYS_lgetxattr), KILL_ON(SYS_fgetxattr), KILL_ON(464),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};
static struct sock_fprog program = {sizeof instructions / sizeof *instructions, instructions};
static const char *how, *file;

static void look(void) {
    struct stat found;
    if (stat(file, &found)) err(1, "stat");
    printf("%u:%u\n", found.st_uid, found.st_gid);
    int fd = fileno(stdin);
    if (fstat(fd, &found)) err(1, "fstat");
    fflush(stdout);
}

static void load(void) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) err(1, "no_new_privs");
    if (!strcmp(how, "prctl")) {
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) err(1, "prctl");
    } else if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program)) {
        err(1, "seccomp");
    }
}

static pthread_barrier_t barrier;

static void *filtered(void *unused) {
    load();
    pthread_barrier_wait(&barrier);
    /* Meanwhile the other one, which has no filter, asks anew. */
    pthread_barrier_wait(&barrier);
    look();
    return unused;
}

int main(int argc, char **argv) {
    if (argc < 4) errx(2, "usage: filters HOW WHEN FILE [COMMAND...]");
    how = argv[1], file = argv[3];
    if (!strcmp(argv[2], "late")) look();
    if (!strcmp(how, "thread")) {
        pthread_t thread;
        pthread_barrier_init(&barrier, NULL, 2);
        if (pthread_create(&thread, NULL, filtered, NULL)) errx(1, "pthread_create");
        pthread_barrier_wait(&barrier);
        look();
        pthread_barrier_wait(&barrier);
        pthread_join(thread, NULL);
    } else {
        load();
        look();
        look();
    }
    if (argc > 4) {
        execvp(argv[4], argv + 4);
        err(1, "%s", argv[4]);
    }
    return 0;
}
