// Restricts itself by landlock(7) to reading below /usr, /etc and the like, and executes a program.

#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int count, char **words)
{
    const __u64 readable = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_READ_FILE |
                           LANDLOCK_ACCESS_FS_READ_DIR;
    const char *places[] = {"/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc"};
    struct landlock_ruleset_attr all = {.handled_access_fs = readable};
    int rules = syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0);
    for (size_t n = 0; n < sizeof places / sizeof *places; n++) {
        struct landlock_path_beneath_attr below = {.allowed_access = readable};
        below.parent_fd = open(places[n], O_PATH);
        syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &below, 0);
    }
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (rules < 0 || syscall(SYS_landlock_restrict_self, rules, 0) != 0) {
        perror("landlock");
        return 1;
    }
    if (count > 1)
        execvp(words[1], words + 1);
    perror(words[1]);
    return 1;
}
