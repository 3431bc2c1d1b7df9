/*
 * A static program that makes, changes and removes inodes of all types at random, and writes down what came of each call.
 * Usage: churn SEED LOG [attributes|objects]     in an empty directory
 * It does a hundred things for each byte that it reads, and answers with a byte; with `attributes` it makes and removes only those,
 * with `objects` only System V IPC objects.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { DIRECTORIES = 3, NAMES = 12, AT_ONCE = 100 };

static uint64_t state;
static unsigned first_kind, kinds = 18;

/* xorshift64* */
static unsigned below(unsigned bound)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * 0x2545f4914f6cdd1d >> 32) % bound;
}

static unsigned id(void)
{
    static const unsigned ids[] = { 0, 1, 33, 999, 65534, 70000, 2097151, 4294967294u, -1u };
    return ids[below(sizeof ids / sizeof *ids)];
}

static const char *name(char *buffer)
{
    sprintf(buffer, "d%u/n%u", below(DIRECTORIES), below(NAMES));
    return buffer;
}

static int carries_attributes(const char *path)
{
    struct stat file;
    return lstat(path, &file) == 0 && (S_ISREG(file.st_mode) || S_ISDIR(file.st_mode));
}

/* struct posix_acl_xattr_header and its entries: the owner, a user, the group, the mask, others. */
static size_t list_of(unsigned user, unsigned char *acl)
{
    const uint32_t words[] = { 2, 7 << 16 | 1, -1u, 6 << 16 | 2, user, 5 << 16 | 4, -1u, 7 << 16 | 0x10, -1u, 4 << 16 | 0x20, -1u };
    memcpy(acl, words, sizeof words);
    return sizeof words;
}

/* One thing; `path` is where. */
static int change(const char *path, const char *other, const char **what)
{
    static const char *const ATTRIBUTES[] = { "user.a", "trusted.a", "trusted.b", "security.a" };
    unsigned kind = first_kind + below(kinds), uid = id(), gid = id(), number = below(1 << 20), major = 1 + below(4095);
    const char *attribute = ATTRIBUTES[below(4)];
    unsigned char acl[64];
    int fd;

#define IS(this) (*what = this)
    switch (kind) {
    case 0:
        IS("open");
        fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
        return fd < 0 ? fd : close(fd);
    case 1: IS("mkdir"); return mkdir(path, 0755);
    case 2: IS("symlink"); return symlink(strchr(other, '/') + 1, path);
    case 3: IS("mkfifo"); return mknod(path, S_IFIFO | 0640, 0);
    case 4: IS("mknod c"); return mknod(path, S_IFCHR | 0660, makedev(major, number));
    case 5: IS("mknod b"); return mknod(path, S_IFBLK | 0600, makedev(major, number));
    case 6: IS("mknod s"); return mknod(path, S_IFSOCK | 0755, 0);
    case 7: case 8: case 9: IS("lchown"); return lchown(path, uid, gid);
    case 10: IS("chown"); return chown(path, uid, gid);
    case 11: IS("chmod"); return chmod(path, number & 07777);
    case 12: case 13: IS("rename"); return rename(path, other);
    case 14: IS("link"); return link(path, other);
    case 15: IS("unlink"); return remove(path);
    default:
        /* The kernel has no user attributes on the others. */
        if (!carries_attributes(path)) {
            IS("lchown");
            return lchown(path, uid, gid);
        }
    }
    switch (kind) {
    case 16: IS("setxattr"); return lsetxattr(path, attribute, &number, number % 4, 0);
    case 17: IS("acl"); return lsetxattr(path, "system.posix_acl_access", acl, list_of(uid == -1u ? 70001 : uid, acl), 0);
    /* What cannot be done a second time. */
    case 18: case 19: case 20: IS("setxattr, new"); return lsetxattr(path, attribute, &number, 4, XATTR_CREATE);
    case 21: case 22: IS("removexattr"); return lremovexattr(path, attribute);
    default: IS("removexattr"); return lremovexattr(path, "system.posix_acl_access");
    }
}

/* One thing that somebody does to one of a few objects, and what the object is afterwards. */
static void change_object(FILE *log)
{
    static const unsigned people[] = { 0, 33, 999 };
    unsigned key = 1 + below(6), uid = people[below(3)], action = below(8), to_uid = id(), to_gid = id(), mode = below(01000);
    union { struct shmid_ds shm; struct semid_ds sem; struct msqid_ds msg; struct ipc_perm all; } object;
    int result = 0, object_id;

    seteuid(0);
    if (key < 3)
        object_id = shmget(key, 0, 0);
    else
        object_id = key < 5 ? semget(key, 0, 0) : msgget(key, 0);
#define CONTROL(command) (key < 3 ? shmctl(object_id, command, &object.shm) \
        : key < 5 ? semctl(object_id, 0, command, &object.sem) : msgctl(object_id, command, &object.msg))
    memset(&object, 0, sizeof object);
    CONTROL(IPC_STAT);
    seteuid(uid);
    if (action < 3) {
        int flags = IPC_CREAT | (action ? IPC_EXCL : 0) | mode;
        result = key < 3 ? shmget(key, 100, flags) : key < 5 ? semget(key, 2, flags) : msgget(key, flags);
        if (result > 0)
            result = 0;
    } else if (action < 5) {
        object.all.uid = to_uid;
        object.all.gid = to_gid;
        object.all.mode = mode;
        result = CONTROL(IPC_SET);
    } else if (action < 6) {
        result = CONTROL(IPC_RMID);
    } else if (key >= 3 && key < 5) {
        struct sembuf add = { below(2), 1, IPC_NOWAIT };
        result = semop(object_id, &add, 1);
    }
    fprintf(log, "%u %u of %u: %s\n", action, key, uid, result ? strerrorname_np(errno) : "done");
    seteuid(0);
    object_id = key < 3 ? shmget(key, 0, 0) : key < 5 ? semget(key, 0, 0) : msgget(key, 0);
    if (CONTROL(IPC_STAT) == 0)
        fprintf(log, "    %u:%u %u:%u %o\n", object.all.uid, object.all.gid, object.all.cuid, object.all.cgid, object.all.mode);
    if (key >= 3 && key < 5)
        fprintf(log, "    %d %d\n", semctl(object_id, 0, GETVAL), semctl(object_id, 1, GETVAL));
}

int main(int count, char **words)
{
    char token, path[32], other[32];
    FILE *log = count > 2 ? fopen(words[2], "w") : NULL;
    if (!log)
        return 2;
    state = strtoull(words[1], NULL, 10) | 1;
    umask(022);
    for (unsigned n = 0; n < DIRECTORIES; n++) {
        sprintf(path, "d%u", n);
        if (mkdir(path, 0755))
            return 2;
    }
    /* What is made there takes its group: everything, not only devices, is made by who answers the calls. */
    if (chown("d1", 0, 70000) || chmod("d1", 02775))
        return 2;
    int of_objects = count > 3 && !strcmp(words[3], "objects");
    if (count > 3 && !of_objects) {
        first_kind = 16;
        kinds = 8;
        for (unsigned n = 0; n < DIRECTORIES * NAMES; n++) {
            sprintf(path, "d%u/n%u", n / NAMES, n % NAMES);
            close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
        }
    }
    while (read(0, &token, 1) == 1) {
        for (int n = 0; n < AT_ONCE; n++) {
            const char *what = "";
            struct stat file;
            if (of_objects) {
                change_object(log);
                continue;
            }
            name(path);
            name(other);
            int result = change(path, other, &what);
            fprintf(log, "%s %s %s: %s\n", what, path, other, result ? strerrorname_np(errno) : "done");
            if (lstat(path, &file) == 0)
                fprintf(log, "    %o %u:%u %u %u:%u\n", file.st_mode, file.st_uid, file.st_gid, (unsigned)file.st_nlink,
                        major(file.st_rdev), minor(file.st_rdev));
        }
        fflush(log);
        if (write(1, &token, 1) != 1)
            return 2;
    }
    return 0;
}
