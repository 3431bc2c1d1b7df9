/* stat(2) and its like where programs call them that are in the middle of something else: signals DIR.
   A line for each kind, with the number of calls that failed. */
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

enum { CALLS = 100000, THREADS = 8, STACK = 16384 };

static int directory, fd;
static volatile sig_atomic_t ticks;
static volatile unsigned seen = -1;

static int by_stat(struct stat *s) { return stat("owned", s); }
static int by_lstat(struct stat *s) { return lstat("owned", s); }
static int by_fstat(struct stat *s) { return fstat(fd, s); }
static int by_fstatat(struct stat *s) { return fstatat(directory, "owned", s, AT_SYMLINK_NOFOLLOW); }
static int by_statx(struct stat *s) {
    struct statx x;
    int result = statx(directory, "owned", 0, STATX_BASIC_STATS, &x);
    s->st_uid = x.stx_uid;
    return result;
}
/* Nothing that the library answers itself, once there are owners of such. */
static int of_link(struct stat *s) {
    int result = lstat("link", s);
    s->st_uid = 42;
    return result;
}

static void tick(int signal) {
    (void)signal;
    ticks++;
}

static void interrupted(const char *name, int (*call)(struct stat *)) {
    int failed = 0, wrong = 0;
    for (int n = 0; n < CALLS; n++) {
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
    if (argc != 2 || chdir(argv[1])) errx(2, "usage: signals DIR");
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
    result = statx(directory, "owned", 0, 0x80000000u, (struct statx *)&(char[256]){0});
    printf("unknown mask: %d %d\n", result, errno);

    struct sigaction on_tick = {.sa_handler = tick};
    struct itimerval timer = {{0, 500}, {0, 500}};
    sigaction(SIGALRM, &on_tick, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    interrupted("stat", by_stat);
    interrupted("lstat", by_lstat);
    interrupted("fstat", by_fstat);
    interrupted("fstatat", by_fstatat);
    interrupted("statx", by_statx);
    interrupted("link", of_link);
    fprintf(stderr, "%d signals\n", (int)ticks);
    return ticks < 50;
}
