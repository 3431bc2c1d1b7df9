/* What a program of either word size sees of owners and ids; a 32-bit one asks more by its first system calls. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <unistd.h>

static void show(const char *name)
{
    struct stat found;
    if (lstat(name, &found)) {
        printf("%s %s\n", name, strerror(errno));
        return;
    }
    printf("%s %o %u:%u", name, found.st_mode, found.st_uid, found.st_gid);
    if (S_ISCHR(found.st_mode))
        printf(" %u:%u", major(found.st_rdev), minor(found.st_rdev));
    printf(" %lld %u\n", (long long)found.st_size, (unsigned)found.st_nlink);
}

int main(void)
{
    gid_t groups[3] = {9, 70000, 8}, seen[8];
    uid_t real, effective, saved;
    struct rlimit limit;
    setvbuf(stdout, 0, _IONBF, 0);
    chdir("/work");
    chmod(".", 0777);
    umask(0);
    close(open("f", O_CREAT | O_RDWR, 0644));
    chown("f", 70000, 80000);
    show("f");
    symlink("f", "l");
    lchown("l", 5, 6);
    show("l");
    mknod("n", S_IFCHR | 0600, makedev(1, 3));
    show("n");
    printf("setgroups %d\n", setgroups(3, groups));
    int count = getgroups(8, seen);
    for (int i = 0; i < count; i++)
        printf("group %u\n", seen[i]);
#ifndef __LP64__
    unsigned short old[32], list[8];
    syscall(106, "f", old);
    unsigned uid = old[6], gid = old[7];
    long changed = syscall(182, "f", 12, 0xffff);
#endif
    printf("setresgid %d\n", setresgid(33, 34, 35));
    printf("setresuid %d\n", setresuid(70001, 70001, 33));
    getresuid(&real, &effective, &saved);
    printf("%u %u %u %u\n", real, effective, saved, getegid());
    close(open("u", O_CREAT | O_RDWR, 0640));
    show("u");
    printf("chown %d %s\n", chown("l", 1, 1), strerror(errno));
    struct timeval times[2] = {{1, 0}, {2, 0}};
    printf("utimes %d\n", utimes("f", times));
    getrlimit(RLIMIT_LOCKS, &limit);
    printf("unlimited %d\n", limit.rlim_cur == RLIM_INFINITY);
#ifndef __LP64__
    printf("--\nstat %u:%u\nchown %ld\nf 100644 ", uid, gid, changed);
    struct stat found;
    stat("f", &found);
    printf("%u:%u\ngetuid %ld\n", found.st_uid, found.st_gid, syscall(24));
    count = syscall(80, 8, list);
    printf("getgroups");
    for (int i = 0; i < count; i++)
        printf(" %u", list[i]);
    printf("\n");
#endif
}
