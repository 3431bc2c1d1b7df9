/* Gets the page of facts as the preloaded library does, and takes all permissions from its file. */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HELLO (0x15b1dacce1e470ul + 1)

int main(void) {
    unsigned long words[2] = {0, 0};
    long fd = syscall(SYS_newfstatat, -1, words, 0, 0, 0, HELLO);
    if (fd < 0 || words[1] != HELLO || fchmod(fd, 0) != 0) {
        perror("page");
        return 1;
    }
    return 0;
}
