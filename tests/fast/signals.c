/* stat(2) and its like where programs call them that are in the middle of something else:
   signals DIR CALLS CREATIONS, so many of each kind. A line for each kind, with the number of calls that failed. */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 8, STACK = 16384 };

static int directory, fd;
static volatile sig_atomic_t ticks;
static volatile unsigned seen = -1;

static int by_stat(struct stat *s) { return stat("owned", s); }
static int by_lstat(struct stat *s) { return lstat("owned", s); }
static int by_fstat(struct stat *s) { return fstat(fd, s); }
static int by_fstatat(struct stat *s) { return fstatat(directory, "owned", s, AT_SYMLINK_NOFOLLOW); }
static int by_statx(struct stat *s) {
#ifdef STATX_BASIC_STATS
    struct statx x;
    int result = statx(directory, "owned", 0, STATX_BASIC_STATS, &x);
    s->st_uid = x.stx_uid;
    return result;
#else
    return stat("owned", s);
#endif
}
/* Nothing that the library answers itself, once there are owners of such. */
static int of_link(struct stat *s) {
    int result = lstat("link", s);
    s->st_uid = 42;
    return result;
}

/* Calls that change something. */
static int by_chown(struct stat *s) { return chown("owned", 42, 43) || stat("owned", s); }
static int by_fchown(struct stat *s) { return fchown(fd, 42, 43) || fstat(fd, s); }
static int by_chmod(struct stat *s) { return fchmodat(directory, "owned", 0640, 0) || fstat(fd, s); }
static int by_utimens(struct stat *s) { return futimens(fd, NULL) || fstat(fd, s); }
static int by_access(struct stat *s) { return access("owned", R_OK) || faccessat(directory, "owned", W_OK, AT_EACCESS) || fstat(fd, s); }
/* That root leaves the worker: the other id stays. */
static int by_one_id(struct stat *s) { return chown("owned", 42, -1) || fstat(fd, s); }
/* Calls that create something. */
static int show(const char *name, struct stat *s, int (*owner)(const char *, uid_t, gid_t)) {
    return owner(name, 42, 43) || lstat(name, s) || remove(name);
}
static int by_mkdir(struct stat *s) { return mkdir("new", 0755) || show("new", s, chown); }
static int by_symlink(struct stat *s) { return symlink("x", "new") || (s->st_uid = 42, unlink("new")); }
static int by_mkfifo(struct stat *s) { return mkfifo("new", 0600) || (s->st_uid = 42, unlink("new")); }
static int by_open(struct stat *s) {
    int new = open("new", O_CREAT | O_EXCL | O_WRONLY, 0600);
    return new < 0 || close(new) || show("new", s, chown);
}
/* Not O_EXCL: could wait for the other end of a fifo. */
static int by_creat(struct stat *s) {
    int new = creat("new", 0600);
    return new < 0 || close(new) || (s->st_uid = 42, unlink("new"));
}
/* In a directory that hands down its group: the worker creates it. */
static int by_inheriting(struct stat *s) {
    int new = open("hands-down/new", O_CREAT | O_WRONLY, 0600);
    if (new < 0 || fstat(new, s) || close(new)) return -1;
    s->st_uid = s->st_gid == 43 ? 42 : 0;
    return unlink("hands-down/new");
}
static int by_ids(struct stat *s) {
    uid_t real = 1, effective = 1, saved = 1;
    s->st_uid = getuid() + geteuid() + getgid() + getegid() + 42;
    if (getresuid(&real, &effective, &saved) || getgroups(0, NULL) < 0) return -1;
    s->st_uid += real + effective + saved;
    return 0;
}

static void tick(int signal) {
    (void)signal;
    ticks++;
}

static void interrupted(const char *name, int calls, int (*call)(struct stat *)) {
    int failed = 0, wrong = 0;
    for (int n = 0; n < calls; n++) {
        struct stat found;
        if (call(&found)) failed++;
        else if (found.st_uid != 42) wrong++;
    }
    printf("%s: %d failed, %d wrong\n", name, failed, wrong);
}

static void in_handler(int signal) {
    (void)signal;
    struct stat found;
    int saved = errno;
    errno = 77;
    if (!by_stat(&found) && errno == 77) seen = found.st_uid;
    if (stat("missing", &found) != -1 || errno != ENOENT) seen = -2;
    errno = saved;
}

static pthread_barrier_t barrier;

static void *first_call(void *result) {
    struct stat found;
    pthread_barrier_wait(&barrier);
    *(unsigned *)result = by_lstat(&found) ? -1u : found.st_uid;
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 4 || chdir(argv[1])) errx(2, "usage: signals DIR CALLS CREATIONS");
    int calls = atoi(argv[2]), creations = atoi(argv[3]);
    directory = open(".", O_RDONLY | O_DIRECTORY);
    fd = open("owned", O_RDONLY);

    /* Threads that all call for the first time. */
    pthread_t threads[THREADS];
    unsigned uids[THREADS], right = 0;
    pthread_barrier_init(&barrier, NULL, THREADS);
    for (int n = 0; n < THREADS; n++) pthread_create(&threads[n], NULL, first_call, &uids[n]);
    for (int n = 0; n < THREADS; n++) {
        pthread_join(threads[n], NULL);
        right += uids[n] == 42;
    }
    printf("threads: %u right\n", right);

    /* The lowest number is free again. */
    int next = dup(0);
    printf("next descriptor: %d\n", next - fd);
    close(next);

    if (!vfork()) {
        struct stat found;
        _exit(by_stat(&found) || found.st_uid != 42);
    }
    int status;
    wait(&status);
    printf("vfork: %d\n", status);

    stack_t stack = {.ss_sp = malloc(STACK), .ss_size = STACK};
    struct sigaction action = {.sa_handler = in_handler, .sa_flags = SA_ONSTACK};
    if (sigaltstack(&stack, NULL) || sigaction(SIGUSR1, &action, NULL)) err(1, "sigaltstack");
    raise(SIGUSR1);
    printf("signal handler: %u\n", seen);

    errno = 0;
    struct stat found;
    int result = stat((char *)1, &found);
    printf("bad path: %d %d\n", result, errno);
    result = stat("owned", (struct stat *)1);
    printf("bad buffer: %d %d\n", result, errno);
    void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    result = fstat(fd, page);
    printf("read-only buffer: %d %d\n", result, errno);
    result = fstatat(directory, "owned", &found, 0x40000000);
    printf("unknown flag: %d %d\n", result, errno);
#ifdef STATX_BASIC_STATS
    result = statx(directory, "owned", 0, 0x80000000u, (struct statx *)&(char[256]){0});
#endif
    printf("unknown mask: %d %d\n", result, errno);

    struct sigaction on_tick = {.sa_handler = tick};
    struct itimerval timer = {{0, 500}, {0, 500}};
    sigaction(SIGALRM, &on_tick, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    interrupted("stat", calls, by_stat);
    interrupted("lstat", calls, by_lstat);
    interrupted("fstat", calls, by_fstat);
    interrupted("fstatat", calls, by_fstatat);
    interrupted("statx", calls, by_statx);
    interrupted("link", calls, of_link);
    interrupted("chown", calls, by_chown);
    interrupted("fchown", calls, by_fchown);
    interrupted("one id", calls, by_one_id);
    interrupted("chmod", calls, by_chmod);
    interrupted("utimensat", calls, by_utimens);
    interrupted("access", calls, by_access);
    interrupted("ids", calls, by_ids);
    interrupted("mkdir", creations, by_mkdir);
    interrupted("symlink", creations, by_symlink);
    interrupted("mkfifo", creations, by_mkfifo);
    interrupted("open", creations, by_open);
    interrupted("creat", creations, by_creat);
    interrupted("inheriting", creations, by_inheriting);
    fprintf(stderr, "%d signals\n", (int)ticks);
    return ticks < calls / 10000;
}
