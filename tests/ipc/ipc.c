/* What programs of either word size may do with System V IPC objects of each other; the state of an object is shown by 64-bit ones. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *said(long result)
{
    return result == -1 ? strerrorname_np(errno) : "ok";
}

static void use(const char *who, int shm, int sem, int msg)
{
    struct sembuf add = { 0, 1, IPC_NOWAIT }, zero = { 1, 0, IPC_NOWAIT };
    struct { long type; char text[4]; } message = { 1, "abc" };
    void *address = shmat(shm, NULL, 0);
    printf("%s: shmat %s", who, said((long)address));
    printf(", to read %s", said((long)shmat(shm, NULL, SHM_RDONLY)));
    printf(", semop %s", said(semop(sem, &add, 1)));
    printf(" %s", said(semop(sem, &zero, 1)));
    printf(", GETVAL %s", said(semctl(sem, 0, GETVAL)));
    printf(", SETVAL %s", said(semctl(sem, 0, SETVAL, 5)));
    printf(", msgsnd %s", said(msgsnd(msg, &message, 4, IPC_NOWAIT)));
    printf(", msgrcv %s\n", said(msgrcv(msg, &message, 4, 0, IPC_NOWAIT)));
    printf("  get %s", said(shmget(7, 100, 0600)));
    printf(" %s", said(semget(7, 2, 0060)));
    printf(" %s\n", said(msgget(7, IPC_CREAT | IPC_EXCL)));
}

static void be(uid_t uid, void (*act)(const char *, int, int, int), const char *who, int shm, int sem, int msg)
{
    pid_t child = fork();
    if (!child) {
        if (uid && (setresgid(uid, uid, uid) || setresuid(uid, uid, uid)))
            _exit(2);
        act(who, shm, sem, msg);
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

static void change(const char *who, int shm, int sem, int msg)
{
    struct shmid_ds of_shm = { .shm_perm = { .uid = 34, .gid = 70000, .mode = 0640 } };
    struct semid_ds of_sem = { .sem_perm = { .uid = 34, .gid = 70000, .mode = 0640 } };
    struct msqid_ds of_msg = { .msg_perm = { .uid = 34, .gid = 70000, .mode = 0640 }, .msg_qbytes = 1000 };
    printf("%s: set %s", who, said(shmctl(shm, IPC_SET, &of_shm)));
    printf(" %s", said(semctl(sem, 0, IPC_SET, &of_sem)));
    printf(" %s\n", said(msgctl(msg, IPC_SET, &of_msg)));
}

static void show(const char *who, int shm, int sem, int msg)
{
    struct shmid_ds of_shm = { 0 };
    struct semid_ds of_sem = { 0 };
    struct msqid_ds of_msg = { 0 };
    printf("%s: state %s", who, said(shmctl(shm, IPC_STAT, &of_shm)));
    printf(" %s", said(semctl(sem, 0, IPC_STAT, &of_sem)));
    printf(" %s\n", said(msgctl(msg, IPC_STAT, &of_msg)));
#ifdef __LP64__
#define SHOW(perm) printf("  %u:%u %u:%u %o\n", perm.uid, perm.gid, perm.cuid, perm.cgid, perm.mode)
    SHOW(of_shm.shm_perm);
    SHOW(of_sem.sem_perm);
    SHOW(of_msg.msg_perm);
#endif
    printf("  %zu %lu %lu\n", of_shm.shm_segsz, (unsigned long)of_sem.sem_nsems, (unsigned long)of_msg.msg_qbytes);
}

static void make(const char *who, int shm, int sem, int msg)
{
    printf("%s: make %s", who, said(shmget(7, 100, IPC_CREAT | IPC_EXCL | shm)));
    printf(" %s", said(semget(7, 2, IPC_CREAT | IPC_EXCL | sem)));
    printf(" %s\n", said(msgget(7, IPC_CREAT | IPC_EXCL | msg)));
}

static void drop(const char *who, int shm, int sem, int msg)
{
    printf("%s: remove %s", who, said(shmctl(shm, IPC_RMID, NULL)));
    printf(" %s", said(semctl(sem, 0, IPC_RMID)));
    printf(" %s\n", said(msgctl(msg, IPC_RMID, NULL)));
}

int main(void)
{
    int shm, sem, msg;
    setvbuf(stdout, NULL, _IONBF, 0);
    be(33, make, "33", 0600, 0600, 0600);
    shm = shmget(7, 0, 0), sem = semget(7, 0, 0), msg = msgget(7, 0);
    be(33, use, "33", shm, sem, msg);
    be(34, use, "34", shm, sem, msg);
    be(34, change, "34", shm, sem, msg);
    be(34, drop, "34", shm, sem, msg);
    be(0, show, "root", shm, sem, msg);
    be(33, change, "33", shm, sem, msg);
    be(34, use, "34", shm, sem, msg);
    be(35, use, "35", shm, sem, msg);
    be(34, show, "34", shm, sem, msg);
    be(34, drop, "34", shm, sem, msg);
    be(34, drop, "34", shm, sem, msg);
    return 0;
}
