/* Prints what a program finds of the variables that ld.so(8) ignores in those that gain something; with an argument, it
 * executes itself again, as the real user with "back", or by vfork(2) with "vfork". */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void show(const char *who) {
    static const char *const names[] = {"LD_PRELOAD", "LD_LIBRARY_PATH", "LD_DEBUG", "TMPDIR", "GCONV_PATH", "OTHER"};
    printf("%s: uid %d euid %d:", who, getuid(), geteuid());
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i]);
        /* The fast path's library is not the user's. */
        if (value && !strstr(value, "libasan"))
            printf(" %s=%s", names[i], value);
    }
    printf("\n");
    fflush(stdout);
}

int main(int argc, char **argv) {
    show(argc > 1 ? argv[1] : "it");
    if (argc > 2 && !strcmp(argv[1], "back")) {
        if (setresuid(getuid(), getuid(), getuid()))
            return 1;
        execve(argv[2], argv + 2, environ);
    }
    if (argc > 2 && !strcmp(argv[1], "vfork")) {
        for (int i = 0; i < 2; i++) {
            pid_t child = vfork();
            if (child == 0) {
                execve(argv[2 + i], (char *[]){argv[2 + i], "child", 0}, environ);
                _exit(1);
            }
            waitpid(child, 0, 0);
        }
        show("parent");
    }
    return 0;
}
