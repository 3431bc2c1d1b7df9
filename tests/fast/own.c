/* A library that somebody preloads: every file belongs to 4711. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/stat.h>

int statx(int directory, const char *path, int flags, unsigned mask, struct statx *found) {
    int (*next)(int, const char *, int, unsigned, struct statx *) = dlsym(RTLD_NEXT, "statx");
    int result = next(directory, path, flags, mask, found);
    found->stx_uid = 4711;
    return result;
}
