/* Prints the owner of FILE, and whether it has the attribute of owners, by calls that carry the
   marks of the preloaded library: mark FILE. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAGIC 0x15b1dacce1e470ul
#define HELLO (MAGIC + 1)

int main(int argc, char **argv) {
    struct stat found = {0};
    char value[64];
    if (argc != 2) return 2;
    if (syscall(SYS_newfstatat, AT_FDCWD, argv[1], &found, 0, 0, MAGIC)) return 1;
    printf("%u\n", found.st_uid);
    long length = syscall(SYS_getxattr, argv[1], "user.rootlesscontainers", value, sizeof value, 0, MAGIC);
    printf("%s\n", length < 0 ? "hidden" : "seen");
    if (syscall(SYS_newfstatat, AT_FDCWD, argv[1], &found, 0, 0, HELLO)) return 1;
    printf("%u\n", found.st_uid);
    return 0;
}
