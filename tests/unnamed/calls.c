/* Calls that libseccomp may have no names for, by number: what each answers, for a file with a fake owner. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { fchmodat2 = 452, setxattrat = 463, getxattrat, listxattrat, removexattrat };
#define X32 0x40000000

struct arguments {
    uint64_t value;
    uint32_t size, flags;
};

static void call(const char *name, int number, long d, long e, long f)
{
    errno = 0;
    long result = syscall(number, AT_FDCWD, "f", 0L, d, e, f);
    printf("%s %s\n", name, result < 0 ? strerror(errno) : "got by");
}

static void calls(int bit)
{
    static char value[64] = "\x08\x07\x10\x07", list[256];
    struct arguments arguments = {(uintptr_t)value, 4, 0};
    const char *name = "user.rootlesscontainers";
    call("setxattrat", bit | setxattrat, (long)name, (long)&arguments, sizeof arguments);
    call("removexattrat", bit | removexattrat, (long)name, 0, 0);
    arguments.size = sizeof value;
    call("getxattrat", bit | getxattrat, (long)name, (long)&arguments, sizeof arguments);
    errno = 0;
    syscall(bit | listxattrat, AT_FDCWD, "f", 0L, (long)list, sizeof list, 0);
    int is_listed = memmem(list, sizeof list, name, strlen(name)) != 0;
    printf("listxattrat %s\n", is_listed ? "got by" : strerror(errno));
    /* Clears nothing of the owner, whoever answers it. */
    syscall(bit | fchmodat2, AT_FDCWD, "f", 0600, 0);
}

int main(void)
{
    struct stat found;
    chdir("/work");
    unlink("f");
    close(open("f", O_CREAT | O_RDWR, 0644));
    if (chown("f", 42, 43))
        perror("chown");
    calls(0);
#ifdef __x86_64__
    calls(X32);
#endif
    /* What the C library does where fchmodat2 is missing. */
    if (fchmodat(AT_FDCWD, "f", 0640, 0))
        perror("fchmodat");
    stat("f", &found);
    printf("%u:%u %o\n", found.st_uid, found.st_gid, found.st_mode & 0777);
}
