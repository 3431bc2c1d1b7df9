/* As a user, restricts itself by landlock(7) to the directory that is its argument, and creates files of all sorts there:
 * each belongs to it, and it may change what belongs to it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void say(const char *what, int result) {
    printf("%s: %s\n", what, result < 0 ? strerror(errno) : "done");
    fflush(stdout);
}

static void show(const char *path) {
    struct stat found;
    if (lstat(path, &found))
        say(path, -1);
    else
        printf("%s %o %d:%d\n", path, found.st_mode, found.st_uid, found.st_gid);
    fflush(stdout);
}

static void restrict_to(const char *directory) {
    struct landlock_ruleset_attr all = {.handled_access_fs = 0x1fff};
    struct landlock_path_beneath_attr below = {.allowed_access = 0x1fff};
    int rules = syscall(SYS_landlock_create_ruleset, &all, sizeof all, 0);
    below.parent_fd = open(directory, O_PATH | O_CLOEXEC);
    if (rules < 0 || below.parent_fd < 0 || syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &below, 0) ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_landlock_restrict_self, rules, 0)) {
        perror("landlock");
        exit(1);
    }
}

int main(int argc, char **argv) {
    int fd;
    if (argc != 2 || chdir(argv[1]))
        return 1;
    restrict_to(".");
    fd = open("file", O_CREAT | O_RDWR, 0640);
    say("open", fd);
    say("fchmod", fchmod(fd, 04711));
    say("fchown", fchown(fd, getuid(), getgid()));
    say("fchown to root", fchown(fd, 0, 0));
    say("futimens", futimens(fd, NULL));
    show("file");
    say("open again", open("file", O_CREAT | O_RDWR, 0640));
    say("exclusive", open("file", O_CREAT | O_EXCL | O_RDWR, 0640));
    say("mkdir", mkdir("directory", 0750));
    say("in it", open("directory/file", O_CREAT | O_WRONLY, 0600));
    say("symlink", symlink("file", "link"));
    say("mkfifo", mkfifo("fifo", 0622));
    say("rename", rename("directory/file", "directory/other"));
    show("directory"); show("directory/other"); show("link"); show("fifo");
    say("in root's", open("roots/file", O_CREAT | O_WRONLY, 0600));
    say("in a group's", open("groups/file", O_CREAT | O_WRONLY, 0600));
    show("groups/file");
    say("outside", open("/tmp/outside", O_CREAT | O_WRONLY, 0600));
    /* Nothing notices this one before the end. */
    say("last", open("last", O_CREAT | O_WRONLY, 0600) < 0 ? -1 : 0);
    return 0;
}
