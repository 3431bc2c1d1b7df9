/*
 * How far a process reaches by way of other processes' links in a procfs.
 *
 *   reach victim NAME CAPABILITIES DIRECTORY [MARK]   waits to be looked at: comm NAME; "all" or "none" of its
 *                                              capabilities; working directory, fd 5 and fd 6 (a file) in DIRECTORY
 *   reach hidden NAME CAPABILITIES DIRECTORY   the same, not dumpable
 *   reach mounted LINKS OF TEXT                changes what such links lead to, mounted in /hpm
 *   reach PROCFS OUTSIDE WHO COMM...           tries every call through every link of every process in PROCFS that
 *                                              bears one of the names COMM; prints `COMM LINK CALL RESULT`
 *
 * With LANDLOCK in the environment it restricts itself first.
 * With OF=TEXT in the environment only processes with TEXT in their arguments count.
 * WHO is "root" (who has changed its group, where that can be done) or "user" (33). OUTSIDE is a directory of the host.
 * A RESULT is an errno, `done` or, of calls that the kernel alone cannot do with one mapped id, `reached`.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int victim(int hidden, const char *name, const char *capabilities, const char *directory)
{
	prctl(PR_SET_NAME, name);
	if (chdir(directory)) return 1;
	dup2(open(".", O_RDONLY | O_DIRECTORY), 5);
	dup2(open("file", O_RDWR), 6);
	if (!strcmp(capabilities, "none")) {
		struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
		struct __user_cap_data_struct data[2] = {{0}, {0}};
		if (syscall(SYS_capset, &header, data)) return 1;
	}
	prctl(PR_SET_DUMPABLE, !hidden);
	/* Whoever waits for it knows that it is ready. */
	puts("ready"), fflush(stdout);
	for (;;) pause();
}

/* ---- calls: 0, or -1 with errno; what they make they remove again */

static int closed(int fd) { return fd < 0 ? -1 : close(fd); }

static int removed(int result, const char *path, int flags)
{
	int error = errno;
	if (!result) unlinkat(AT_FDCWD, path, flags);
	errno = error;
	return result;
}

static int do_stat(const char *p) { struct stat s; return stat(p, &s); }
static int do_lstat(const char *p) { struct stat s; return lstat(p, &s); }
static int do_statx(const char *p) { struct statx s; return statx(AT_FDCWD, p, 0, 0, &s); }
static int do_access(const char *p) { return access(p, F_OK); }
static int do_access_write(const char *p) { return access(p, W_OK); }
static int do_readlink(const char *p) { char b[PATH_MAX]; return readlink(p, b, sizeof b) < 0 ? -1 : 0; }
static int do_getxattr(const char *p) { char b[64]; return getxattr(p, "user.absent", b, sizeof b) < 0 ? -1 : 0; }
static int do_gethidden(const char *p) { char b[64]; return getxattr(p, "user.rootlesscontainers", b, sizeof b) < 0 ? -1 : 0; }
static int do_listxattr(const char *p) { return listxattr(p, NULL, 0) < 0 ? -1 : 0; }
static int do_read(const char *p) { return closed(open(p, O_RDONLY | O_NONBLOCK)); }
static int do_path(const char *p) { return closed(open(p, O_PATH)); }
static int do_chdir(const char *p) { int r = chdir(p), e = errno; if (chdir("/tmp")) abort(); errno = e; return r; }
static int do_exec(const char *p)
{
	int status;
	pid_t child = fork();
	if (!child) {
		char *arguments[] = {"none", NULL};
		execv(p, arguments);
		_exit(errno);
	}
	waitpid(child, &status, 0);
	/* A program that has been executed ends with 99 for want of arguments. */
	errno = WEXITSTATUS(status);
	return errno == 99 ? 0 : -1;
}

static int do_create(const char *p) { return removed(closed(open(p, O_CREAT | O_EXCL | O_WRONLY, 0600)), p, 0); }
static int do_create_any(const char *p) { return removed(closed(open(p, O_CREAT | O_RDWR, 0600)), p, 0); }
static int do_open_create(const char *p) { return closed(open(p, O_CREAT | O_RDWR, 0600)); }
static int do_creat(const char *p) { return removed(closed(creat(p, 0600)), p, 0); }
static int do_mkdir(const char *p) { return removed(mkdir(p, 0700), p, AT_REMOVEDIR); }
static int do_fifo(const char *p) { return removed(mknod(p, S_IFIFO | 0600, 0), p, 0); }
static int do_node(const char *p) { return removed(mknod(p, S_IFREG | 0600, 0), p, 0); }
static int do_device(const char *p) { return removed(mknod(p, S_IFCHR | 0600, makedev(1, 3)), p, 0); }
static int do_symlink(const char *p) { return removed(symlink("x", p), p, 0); }
static int do_link(const char *p) { return removed(link("/tmp/plain", p), p, 0); }
static int do_rename(const char *p)
{
	closed(open("/tmp/moved", O_CREAT | O_WRONLY, 0600));
	return removed(rename("/tmp/moved", p), p, 0);
}
static int do_bind(const char *p)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0), result, error;
	if (strlen(p) >= sizeof address.sun_path) return close(fd), errno = ENAMETOOLONG, -1;
	strcpy(address.sun_path, p);
	result = bind(fd, (struct sockaddr *)&address, sizeof address);
	error = errno, close(fd), errno = error;
	return removed(result, p, 0);
}
/* A link of the container's own that leads to where the path is. */
static int do_create_through(const char *p)
{
	unlink("/tmp/through");
	if (symlink(p, "/tmp/through")) abort();
	return removed(closed(open("/tmp/through", O_CREAT | O_RDWR, 0600)), p, 0);
}

static int do_unnamed(const char *p) { return closed(open(p, O_TMPFILE | O_RDWR, 0600)); }
static int do_chmod(const char *p) { return chmod(p, 0777); }
static int do_chmod_group(const char *p) { return chmod(p, 02777); }
static int do_chown(const char *p) { return chown(p, 0, 0); }
static int do_chown_other(const char *p) { int r = chown(p, 7, 8); if (!r) chown(p, 0, 0); return r; }
static int do_lchown(const char *p) { return lchown(p, 0, 0); }
static int do_times(const char *p) { return utimes(p, NULL); }
static int do_setxattr(const char *p) { int r = setxattr(p, "user.t", "x", 1, 0); if (!r) removexattr(p, "user.t"); return r; }
static int do_trusted(const char *p) { int r = setxattr(p, "trusted.t", "x", 1, 0); if (!r) removexattr(p, "trusted.t"); return r; }
static int do_list(const char *p)
{
	/* Version 2; user::rwx, user:5:rwx, group::rwx, mask::rwx, other::rwx. */
	static const unsigned char list[] =
		"\2\0\0\0" "\1\0\7\0\377\377\377\377" "\2\0\7\0\5\0\0\0" "\4\0\7\0\377\377\377\377"
		"\20\0\7\0\377\377\377\377" "\40\0\7\0\377\377\377\377";
	int r = setxattr(p, "system.posix_acl_access", list, sizeof list - 1, 0);
	if (!r) removexattr(p, "system.posix_acl_access");
	return r;
}
static int do_removexattr(const char *p) { return removexattr(p, "user.absent"); }
static int do_truncate(const char *p) { return truncate(p, 0); }
static int do_mount(const char *p) { int r = mount("none", p, "devpts", 0, "gid=5,newinstance"), e = errno; if (!r) umount2(p, MNT_DETACH); errno = e; return r; }

struct call { const char *name; int (*call)(const char *); int beyond_kernel; };

/* Of what the link leads to. */
static const struct call OF_LINK[] = {
	{"stat", do_stat}, {"lstat", do_lstat}, {"statx", do_statx}, {"access", do_access}, {"access-write", do_access_write},
	{"readlink", do_readlink}, {"getxattr", do_getxattr}, {"gethidden", do_gethidden}, {"listxattr", do_listxattr},
	{"read", do_read}, {"path", do_path}, {"chdir", do_chdir}, {"exec", do_exec},
	{"chmod", do_chmod}, {"chmod-group", do_chmod_group}, {"chown", do_chown}, {"chown-other", do_chown_other, 1},
	{"lchown", do_lchown}, {"times", do_times}, {"setxattr", do_setxattr}, {"trusted", do_trusted, 1},
	{"list", do_list, 1}, {"removexattr", do_removexattr}, {"open-create", do_open_create},
	{"unnamed", do_unnamed}, {"mount", do_mount, 1},
};
/* Of a name that is free behind the link. */
static const struct call OF_FREE[] = {
	{"create", do_create}, {"create-any", do_create_any}, {"creat", do_creat}, {"mkdir", do_mkdir}, {"fifo", do_fifo},
	{"node", do_node}, {"device", do_device, 1}, {"symlink", do_symlink}, {"link", do_link}, {"rename", do_rename},
	{"bind", do_bind}, {"through", do_create_through},
};
/* Of a file behind the link. */
static const struct call OF_FILE[] = {
	{"stat", do_stat}, {"read", do_read}, {"chmod", do_chmod}, {"chown", do_chown}, {"chown-other", do_chown_other, 1},
	{"setxattr", do_setxattr}, {"trusted", do_trusted, 1}, {"times", do_times}, {"truncate", do_truncate},
	{"open-create", do_open_create},
};

/* Of a file with an owner of its own behind the link. */
static const struct call OF_OWNED[] = {
	{"stat", do_stat}, {"lstat", do_lstat}, {"statx", do_statx}, {"access", do_access}, {"read", do_read},
	{"getxattr", do_getxattr}, {"times", do_times}, {"open-create", do_open_create},
};

static void try(const char *who, const char *link, const char *path, const struct call *calls, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		/* A file that was there must stay: it is not ours to remove. */
		int result = calls[i].call(path), error = errno;
		const char *text = result ? strerrorname_np(error) : "done";
		if (calls[i].beyond_kernel && (!result || error == EINVAL || error == EPERM || error == EOPNOTSUPP || error == ENOTDIR)) text = "reached";
		printf("%s %s %s %s\n", who, link, calls[i].name, text ? text : "?");
	}
}
#define TRY(who, link, path, calls) try(who, link, path, calls, sizeof(calls) / sizeof *(calls))

static void through(const char *who, const char *process, const char *link, const char *outside)
{
	char path[PATH_MAX * 2], name[300];
	snprintf(path, sizeof path, "%s/%s", process, link);
	/* What is open here may be removed by no call of ours. */
	int is_directory = strncmp(link, "ns/", 3) && strcmp(link, "exe") && strncmp(link, "map_files/", 10) && strcmp(link, "fd/6");
	TRY(who, link, path, OF_LINK);
	if (!is_directory) return;
	snprintf(name, sizeof name, "%s+new", link);
	snprintf(path, sizeof path, "%s/%s/new", process, link);
	TRY(who, name, path, OF_FREE);
	snprintf(name, sizeof name, "%s+file", link);
	snprintf(path, sizeof path, "%s/%s/file", process, link);
	TRY(who, name, path, OF_FILE);
	snprintf(name, sizeof name, "%s+owned", link);
	snprintf(path, sizeof path, "%s/%s/owned", process, link);
	TRY(who, name, path, OF_OWNED);
	snprintf(name, sizeof name, "%s+outside", link);
	snprintf(path, sizeof path, "%s/%s%s/new", process, link, outside);
	TRY(who, name, path, OF_FREE);
	snprintf(name, sizeof name, "%s+outside-file", link);
	snprintf(path, sizeof path, "%s/%s%s/file", process, link, outside);
	TRY(who, name, path, OF_FILE);
	snprintf(name, sizeof name, "%s+outside-owned", link);
	snprintf(path, sizeof path, "%s/%s%s/owned", process, link, outside);
	TRY(who, name, path, OF_OWNED);
}

static void all_of(const char *who, const char *procfs, const char *pid, const char *outside)
{
	static const char *const LINKS[] = {
		"root", "cwd", "exe", "fd/5", "fd/6", "ns/mnt", "ns/user", "ns/pid", "ns/net", "ns/cgroup",
	};
	char process[PATH_MAX], link[300], path[PATH_MAX * 2];
	snprintf(process, sizeof process, "%s/%s", procfs, pid);
	for (size_t i = 0; i < sizeof LINKS / sizeof *LINKS; i++) through(who, process, LINKS[i], outside);
	snprintf(link, sizeof link, "task/%s/cwd", pid);
	snprintf(path, sizeof path, "%s/%s", process, link);
	TRY(who, "task/cwd", path, OF_LINK);
	/* The whole way from a descriptor of the process's directory. */
	int here = open(process, O_PATH), result = openat(here, "root", O_PATH);
	printf("%s dirfd path %s\n", who, result < 0 ? strerrorname_np(errno) : "done");
	close(here), closed(result);
	snprintf(path, sizeof path, "%s/map_files", process);
	DIR *maps = opendir(path);
	if (!maps) printf("%s map_files list %s\n", who, strerrorname_np(errno));
	for (struct dirent *entry; maps && (entry = readdir(maps));)
		if (entry->d_name[0] != '.') {
			snprintf(path, sizeof path, "%s/map_files/%s", process, entry->d_name);
			TRY(who, "map_files", path, OF_LINK);
			break;
		}
	if (maps) closedir(maps);
}

/* Whether the process has $OF in its arguments, where that is set: there may be others of its name. */
static int is_ours(const char *procfs, const char *pid)
{
	static char path[PATH_MAX], arguments[1 << 16];
	const char *mark = getenv("OF");
	if (!mark) return 1;
	snprintf(path, sizeof path, "%s/%s/cmdline", procfs, pid);
	int fd = open(path, O_RDONLY);
	ssize_t length = fd < 0 ? -1 : read(fd, arguments, sizeof arguments);
	closed(fd);
	return length > 0 && memmem(arguments, length, mark, strlen(mark));
}

/* Landlock: what a restricted process may not trace it may not look into either. */
static int restrict_self(void)
{
	struct landlock_ruleset_attr rules = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_BLOCK};
	int ruleset = syscall(SYS_landlock_create_ruleset, &rules, sizeof rules.handled_access_fs, 0);
	return ruleset < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_landlock_restrict_self, ruleset, 0);
}

/*
 * Mounts links of text on a file of procfs, and goes through them. To whoever follows for us they mean himself.
 */
static int mounted(void)
{
	static const char *const TEXTS[] = {"/hpm/self/exe", "/hpm/thread-self/exe", "/proc/self/exe"};
	for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
		unlink("/tmp/text");
		if (symlink(TEXTS[i], "/tmp/text")) return perror("symlink"), 1;
		int tree = syscall(SYS_open_tree, AT_FDCWD, "/tmp/text", 1 | O_CLOEXEC | AT_SYMLINK_NOFOLLOW);
		if (tree < 0) return perror("open_tree"), 1;
		/* From an empty path; onto the file itself. */
		if (syscall(SYS_move_mount, tree, "", AT_FDCWD, "/hpm/uptime", 4)) return perror("move_mount"), 1;
		if (chown("/hpm/uptime", 7, 8)) {}
		if (chmod("/hpm/uptime", 0777)) {}
		if (setxattr("/hpm/uptime", "trusted.t", "x", 1, 0)) {}
		umount2("/hpm/uptime", MNT_DETACH | UMOUNT_NOFOLLOW);
	}
	return 0;
}

int main(int count, char **arguments)
{
	if (count < 5) return 99;
	if (!strcmp(arguments[1], "victim")) return victim(0, arguments[2], arguments[3], arguments[4]);
	if (!strcmp(arguments[1], "hidden")) return victim(1, arguments[2], arguments[3], arguments[4]);
	if (!strcmp(arguments[1], "mounted")) return mounted();
	const char *procfs = arguments[1], *outside = arguments[2];
	umask(0);
	closed(open("/tmp/plain", O_CREAT | O_WRONLY, 0600));
	/* With another group than the kernel's a worker creates. */
	if (setgid(5)) {}
	if (!strcmp(arguments[3], "user") && setuid(33)) {}
	if (getenv("LANDLOCK") && restrict_self()) return perror("landlock"), 1;
	setvbuf(stdout, NULL, _IOLBF, 0);
	char own[300] = "", link[300];
	snprintf(link, sizeof link, "%s/self", procfs);
	if (readlink(link, own, sizeof own - 1) < 0) return perror(link), 1;
	DIR *processes = opendir(procfs);
	if (!processes) return perror(procfs), 1;
	for (struct dirent *entry; (entry = readdir(processes));) {
		char path[PATH_MAX], comm[64] = "";
		if (entry->d_name[0] < '0' || entry->d_name[0] > '9') continue;
		snprintf(path, sizeof path, "%s/%s/comm", procfs, entry->d_name);
		int fd = open(path, O_RDONLY);
		if (fd < 0 || read(fd, comm, sizeof comm - 1) <= 0) { closed(fd); continue; }
		close(fd);
		comm[strcspn(comm, "\n")] = 0;
		if (!is_ours(procfs, entry->d_name)) continue;
		if (!strcmp(entry->d_name, own)) all_of("self", procfs, entry->d_name, outside);
		for (int i = 4; i < count; i++)
			if (!strcmp(comm, arguments[i])) all_of(comm, procfs, entry->d_name, outside);
	}
	return 0;
}
