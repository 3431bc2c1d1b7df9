/*
 * A static program that asks for extended attributes in all ways, with buffers of all sizes, and tells what comes back.
 * Usage: attributes [-a] values FILE            values of all sizes, and all flags
 *        attributes [-a] names FILE             names of all lengths, and odd ones
 *        attributes [-a] hidden FILE NAME...    names that are not to be there
 * With -a it makes the calls whose names end in "at".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Linux 6.13 */
enum { setxattrat = 463, getxattrat, listxattrat, removexattrat };

struct xattr_args {
    uint64_t value;
    uint32_t size, flags;
};

/* How a file is named. */
enum way { BY_PATH, AS_LINK, BY_FD, AT, LINK_AT, FD_AT };
static const char *const WAYS[] = { "path", "link", "fd", "at", "link at", "fd at" };

static enum way way;
static const char *file;
static char room[70000], given[70000];

static int open_file(void)
{
    int fd = open(file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        perror(file);
        exit(1);
    }
    return fd;
}

/* Calls `number` for the file, or for a descriptor of it. */
static long call(long number, uintptr_t a, uintptr_t b, uintptr_t c, uintptr_t d)
{
    if (way != BY_FD)
        return syscall(number, file, a, b, c, d);
    int fd = open_file();
    long result = syscall(number, fd, a, b, c, d);
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

static long call_at(long number, uintptr_t a, uintptr_t b, uintptr_t c)
{
    if (way != FD_AT)
        return syscall(number, AT_FDCWD, file, way == LINK_AT ? AT_SYMLINK_NOFOLLOW : 0, a, b, c);
    int fd = open_file();
    long result = syscall(number, fd, "", AT_EMPTY_PATH, a, b, c);
    int error = errno;
    close(fd);
    errno = error;
    return result;
}

static long get(const char *name, void *value, size_t size)
{
    static const long NUMBERS[] = { SYS_getxattr, SYS_lgetxattr, SYS_fgetxattr };
    struct xattr_args arguments = { (uintptr_t)value, size, 0 };
    if (way >= AT)
        return call_at(getxattrat, (uintptr_t)name, (uintptr_t)&arguments, sizeof arguments);
    return call(NUMBERS[way], (uintptr_t)name, (uintptr_t)value, size, 0);
}

static long list(char *names, size_t size)
{
    static const long NUMBERS[] = { SYS_listxattr, SYS_llistxattr, SYS_flistxattr };
    if (way >= AT)
        return call_at(listxattrat, (uintptr_t)names, size, 0);
    return call(NUMBERS[way], (uintptr_t)names, size, 0, 0);
}

static long set(const char *name, const void *value, size_t size, int flags)
{
    static const long NUMBERS[] = { SYS_setxattr, SYS_lsetxattr, SYS_fsetxattr };
    struct xattr_args arguments = { (uintptr_t)value, size, flags };
    if (way >= AT)
        return call_at(setxattrat, (uintptr_t)name, (uintptr_t)&arguments, sizeof arguments);
    return call(NUMBERS[way], (uintptr_t)name, (uintptr_t)value, size, flags);
}

/* remove() is stdio's. */
static long take(const char *name)
{
    static const long NUMBERS[] = { SYS_removexattr, SYS_lremovexattr, SYS_fremovexattr };
    if (way >= AT)
        return call_at(removexattrat, (uintptr_t)name, 0, 0);
    return call(NUMBERS[way], (uintptr_t)name, 0, 0, 0);
}

/* What was done, and what came of it. */
#define TELL(result, ...)                                                                             \
    do {                                                                                              \
        long got = (result);                                                                          \
        int error = errno;                                                                            \
        printf("%s, %s: ", file, WAYS[way]);                                                          \
        printf(__VA_ARGS__);                                                                          \
        if (got < 0)                                                                                  \
            printf(": %s\n", strerrorname_np(error));                                                 \
        else                                                                                          \
            printf(": %ld\n", got);                                                                   \
    } while (0)

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names in order: in which one they come is nobody's promise. */
static void list_all(void)
{
    char *names[1000];
    int count = 0;
    long length = list(NULL, 0);
    TELL(length, "list 0");
    if (length < 0)
        return;
    TELL(list(room, 1), "list 1");
    if (length)
        TELL(list(room, length - 1), "list short");
    memset(room, 'x', sizeof room);
    TELL(list(room, length), "list exactly, then %c", room[length]);
    TELL(list(room, length + 1), "list one more, then %c", room[length + 1]);
    TELL(list(room, sizeof room), "list, then %c", room[length + 1]);
    TELL(list((char *)8, 0), "list to a bad pointer, of no size");
    if (length)
        TELL(list((char *)8, 5000), "list to a bad pointer");
    length = list(room, sizeof room);
    for (char *name = room; name < room + length && count < 1000; name += strlen(name) + 1)
        names[count++] = name;
    qsort(names, count, sizeof *names, by_name);
    for (int n = 0; n < count; n++)
        printf("    %.40s %zu\n", names[n], strlen(names[n]));
}

static void get_all(const char *name)
{
    long length = get(name, NULL, 0);
    TELL(length, "get %.40s 0", name);
    if (length > 1)
        TELL(get(name, room, 1), "get %.40s 1", name);
    if (length > 0) {
        TELL(get(name, room, length - 1), "get %.40s short", name);
        TELL(get(name, (void *)8, 5000), "get %.40s to a bad pointer", name);
        memset(room, 'x', sizeof room);
        TELL(get(name, room, length), "get %.40s exactly", name);
        printf("    %s, then %c\n", memcmp(room, given, length) ? "other bytes" : "the same bytes", room[length]);
    }
    TELL(get(name, room, 65536), "get %.40s 65536", name);
    TELL(get(name, room, sizeof room), "get %.40s more", name);
    TELL(get(name, (void *)8, 0), "get %.40s to a bad pointer, of no size", name);
}

static void change_values(const char *prefix)
{
    static const size_t SIZES[] = { 0, 1, 5, 255, 256, 257, 1000, 2000, 65536, 65537 };
    char name[300];
    snprintf(name, sizeof name, "%sname", prefix);
    TELL(set(name, given, 3, XATTR_REPLACE), "replace %s", name);
    TELL(set(name, given, 3, XATTR_CREATE), "create %s", name);
    TELL(set(name, given, 3, XATTR_CREATE), "create %s again", name);
    TELL(set(name, given, 4, XATTR_REPLACE), "replace %s", name);
    TELL(set(name, given, 4, XATTR_CREATE | XATTR_REPLACE), "create and replace %s", name);
    TELL(set(name, given, 4, 4), "set %s with another flag", name);
    TELL(set(name, (void *)8, 4, 0), "set %s from a bad pointer", name);
    TELL(set(name, NULL, 4, 0), "set %s from nowhere", name);
    get_all(name);
    TELL(set(name, NULL, 0, 0), "set %s to nothing", name);
    get_all(name);
    for (size_t n = 0; n < sizeof SIZES / sizeof *SIZES; n++) {
        TELL(set(name, given, SIZES[n], 0), "set %s %zu", name, SIZES[n]);
        get_all(name);
    }
    list_all();
    TELL(take(name), "remove %s", name);
    TELL(take(name), "remove %s again", name);
    get_all(name);
    for (int n = 0; n < 12; n++) {
        snprintf(name, sizeof name, "%smany%d", prefix, n);
        set(name, given, 3, 0);
    }
    list_all();
    for (int n = 0; n < 12; n += 2) {
        snprintf(name, sizeof name, "%smany%d", prefix, n);
        take(name);
    }
    list_all();
}

static void change_names(const char *prefix)
{
    char name[300];
    /* Longer ones of root's find no room where they are kept. */
    size_t longest = strcmp(prefix, "user.") ? 239 : 256;
    for (size_t length = 230; length <= longest; length++) {
        memset(name, 'n', sizeof name);
        memcpy(name, prefix, strlen(prefix));
        name[length] = 0;
        TELL(set(name, given, 2, 0), "set a name of %zu", length);
        TELL(get(name, room, 2), "get a name of %zu", length);
        TELL(get(name, room, 1), "get a name of %zu short", length);
        TELL(list(NULL, 0), "list 0");
        TELL(take(name), "remove a name of %zu", length);
    }
    /* Only the prefix, and nothing but its beginning. */
    snprintf(name, sizeof name, "%s", prefix);
    for (int n = 0; n < 2; n++) {
        TELL(set(name, given, 2, 0), "set %s", name);
        TELL(get(name, room, 2), "get %s", name);
        TELL(take(name), "remove %s", name);
        name[strlen(name) - 1] = 0;
    }
}

static void change_hidden(const char *name)
{
    for (int flags = 0; flags <= 2; flags++)
        TELL(set(name, "\x08\x05\x10\x06", 4, flags), "set %s %d", name, flags);
    TELL(set(name, NULL, 0, 0), "set %s to nothing", name);
    TELL(get(name, NULL, 0), "get %s 0", name);
    TELL(get(name, room, 1), "get %s 1", name);
    TELL(get(name, room, sizeof room), "get %s", name);
    TELL(take(name), "remove %s", name);
}

int main(int count, char **words)
{
    static const char *const PREFIXES[] = { "user.", "trusted.", "security." };
    int at = count > 1 && !strcmp(words[1], "-a");
    words += at;
    count -= at;
    if (count < 3)
        return 2;
    const char *what = words[1];
    file = words[2];
    for (size_t n = 0; n < sizeof given; n++)
        given[n] = n * 31 + n / 256;
    for (way = at ? AT : BY_PATH; way <= (at ? FD_AT : BY_FD); way++) {
        for (int n = 0; n < 3; n++) {
            if (!strcmp(what, "values"))
                change_values(PREFIXES[n]);
            if (!strcmp(what, "names"))
                change_names(PREFIXES[n]);
        }
        for (int n = 3; n < count; n++)
            change_hidden(words[n]);
        if (!strcmp(what, "names")) {
            TELL(get("", room, 9), "get no name");
            TELL(set("", room, 9, 0), "set no name");
            TELL(get((char *)8, room, 9), "get a bad pointer's name");
            TELL(set((char *)8, room, 9, 0), "set a bad pointer's name");
            TELL(take((char *)8), "remove a bad pointer's name");
        }
        list_all();
    }
    return 0;
}
