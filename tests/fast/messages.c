// Messages with credentials between root and a user; waits that a signal interrupts, and that are cancelled; and addresses that
// are none, at which musl looks itself.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int ends[2];

static void claim(pid_t pid, uid_t uid, gid_t gid)
{
    char control[CMSG_SPACE(sizeof(struct ucred))] = "", byte = 'x';
    struct iovec part = { &byte, 1 };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    struct ucred credentials = { pid, uid, gid };
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_CREDENTIALS;
    header->cmsg_len = CMSG_LEN(sizeof credentials);
    memcpy(CMSG_DATA(header), &credentials, sizeof credentials);
    ssize_t sent = sendmsg(ends[0], &message, 0);
    printf("claim %u:%u: %s\n", uid, gid, sent < 0 ? strerror(errno) : "sent");
}

static ssize_t receive(struct ucred *credentials)
{
    char control[100], byte;
    struct iovec part = { &byte, 1 };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
    ssize_t received = recvmsg(ends[1], &message, 0);
    struct cmsghdr *header = received < 0 ? NULL : CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_type == SCM_CREDENTIALS)
        memcpy(credentials, CMSG_DATA(header), sizeof *credentials);
    return received;
}

static void show(pid_t pid)
{
    struct ucred credentials = { 0, 77, 77 };
    receive(&credentials);
    printf("from %s %u:%u\n", credentials.pid == pid ? "the sender" : "another", credentials.uid, credentials.gid);
}

static void clean(void *what)
{
    printf("%s\n", (char *)what);
}

static void *wait_for_ever(void *unused)
{
    struct ucred credentials;
    pthread_cleanup_push(clean, "cleaned up");
    receive(&credentials);
    pthread_cleanup_pop(0);
    return unused;
}

static void caught(int signal)
{
    (void)signal;
}

int main(void)
{
    struct sigaction action = { .sa_handler = caught };
    struct ucred credentials;
    pthread_t thread;
    void *result;
    int one = 1, told[2];
    setvbuf(stdout, NULL, _IONBF, 0);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, ends);
    setsockopt(ends[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one);
    claim(getpid(), 0, 0);
    show(getpid());
    claim(getpid(), 5, 6);
    show(getpid());
    pipe(told);
    pid_t child = fork();
    if (!child) {
        setresgid(43, 43, 43);
        setresuid(42, 42, 42);
        claim(getpid(), 42, 43);
        claim(getpid(), 0, 0);
        claim(getppid(), 42, 43);
        write(ends[0], "y", 1);
        write(told[1], "y", 1);
        pause();
    }
    read(told[0], &one, 1);
    show(child);
    show(child);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    sigaction(SIGALRM, &action, NULL);
    ualarm(50000, 0);
    printf("interrupted: %d", (int)receive(&credentials));
    printf(" %s\n", strerror(errno));
    pthread_create(&thread, NULL, wait_for_ever, NULL);
    usleep(50000);
    pthread_cancel(thread);
    pthread_join(thread, &result);
    puts(result == PTHREAD_CANCELED ? "cancelled" : "not cancelled");
#ifdef __GLIBC__
    one = sendmsg(ends[0], NULL, 0);
    printf("no message: %d %s\n", one, strerror(errno));
    one = sendmsg(ends[0], (void *)4096, 0);
    printf("no address: %d %s\n", one, strerror(errno));
#endif
    return 0;
}
