/* Prints the owner of each FILE by every function that tells it. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef OLD
extern int __xstat(int, const char *, struct stat *), __lxstat(int, const char *, struct stat *);
extern int __fxstat(int, int, struct stat *), __fxstatat(int, int, const char *, struct stat *, int);
#define stat(path, found) __xstat(1, path, found)
#define lstat(path, found) __lxstat(1, path, found)
#define fstat(fd, found) __fxstat(1, fd, found)
#define fstatat(directory, path, found, flags) __fxstatat(1, directory, path, found, flags)
#endif

static void show(int result, const struct stat *found) {
    if (result) printf("error");
    else printf("%u:%u", found->st_uid, found->st_gid);
}

int main(int argc, char **argv) {
    int here = open(".", O_RDONLY);
    for (int n = 1; n < argc; n++) {
        struct stat found;
        int fd = open(argv[n], O_RDONLY), result;
        result = stat(argv[n], &found), show(result, &found), putchar(' ');
        result = lstat(argv[n], &found), show(result, &found), putchar(' ');
        result = fstat(fd, &found), show(result, &found), putchar(' ');
        result = fstatat(here, argv[n], &found, 0), show(result, &found), putchar(' ');
        result = fstatat(fd, "", &found, AT_EMPTY_PATH), show(result, &found), putchar('\n');
        close(fd);
    }
    return 0;
}
