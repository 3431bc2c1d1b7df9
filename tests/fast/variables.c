/* Executes PROGRAM several times, with the library in unusual environments: variables PROGRAM. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MANY = 20000, LONG = 600 };

static char *named(const char *others) {
    char *text;
    if (asprintf(&text, "LD_PRELOAD=%s%s", others, getenv("LD_PRELOAD")) < 0) exit(2);
    return text;
}

static void execute(char *program, char **environment) {
    char *words[] = {program, NULL};
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        execve(program, words, environment);
        _exit(9);
    }
    waitpid(child, &status, 0);
    printf("%d\n", status);
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    char *ours = named(""), *other = "LD_PRELOAD=libc.so.6";
    /* The last one counts. */
    execute(argv[1], (char *[]){other, ours, NULL});
    execute(argv[1], (char *[]){ours, other, ours, NULL});
    char **many = calloc(MANY + 2, sizeof *many);
    for (int n = 0; n < MANY; n++) many[n] = "X=1";
    many[MANY] = ours;
    execute(argv[1], many);
    char *list = calloc(LONG + 1, sizeof "libc.so.6:");
    for (int n = 0; n < LONG; n++) strcat(list, "libc.so.6:");
    execute(argv[1], (char *[]){named(list), NULL});
    return 0;
}
