/*
 * meanwhile open|mkdir DIRECTORY OTHER
 *
 * Creates DIRECTORY/new, with another group than the kernel's, in a FUSE file system of its own that does not answer that one
 * request. Prints `creating`, waits for /work/go, lets the path say OTHER, which is there, and has the request fail. Whoever
 * takes up the call now finds OTHER. Prints the call's errno, or `done`.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

static char path[4096];
static const char *other;

static DIR *work;

static int has_go(void)
{
	struct dirent *entry;
	rewinddir(work);
	while ((entry = readdir(work)))
		if (!strcmp(entry->d_name, "go")) return 1;
	return 0;
}

static void answer(int device, uint64_t unique, int error, const void *body, size_t length)
{
	char bytes[1024];
	struct fuse_out_header header = {sizeof header + length, error, unique};
	memcpy(bytes, &header, sizeof header);
	memcpy(bytes + sizeof header, body, length);
	if (write(device, bytes, header.len) < 0) perror("answer");
}

static void *serve(void *argument)
{
	static char request[1 << 17];
	int device = *(int *)argument;
	while (read(device, request, sizeof request) > 0) {
		struct fuse_in_header *header = (struct fuse_in_header *)request;
		switch (header->opcode) {
		case FUSE_INIT: {
			struct fuse_init_out init = {.major = 7, .minor = 31, .max_readahead = 4096, .max_write = 4096};
			answer(device, header->unique, 0, &init, sizeof init);
			break;
		}
		case FUSE_GETATTR: {
			struct fuse_attr_out attributes = {.attr_valid = 1000};
			attributes.attr = (struct fuse_attr){.ino = 1, .mode = S_IFDIR | 0777, .nlink = 2, .blksize = 4096};
			answer(device, header->unique, 0, &attributes, sizeof attributes);
			break;
		}
		case FUSE_STATFS: {
			struct fuse_statfs_out statfs = {.st = {.bsize = 4096, .namelen = 255}};
			answer(device, header->unique, 0, &statfs, sizeof statfs);
			break;
		}
		case FUSE_LOOKUP:
			answer(device, header->unique, -ENOENT, NULL, 0);
			break;
		case FUSE_CREATE:
		case FUSE_MKDIR:
			puts("creating"), fflush(stdout);
			/* By calls that are not notified: there is no worker now. */
			while (!has_go()) usleep(1000);
			strcpy(path, other);
			answer(device, header->unique, -EIO, NULL, 0);
			break;
		case FUSE_FORGET:
		case FUSE_INTERRUPT:
			break;
		default:
			answer(device, header->unique, -ENOSYS, NULL, 0);
		}
	}
	return NULL;
}

int main(int count, char **arguments)
{
	char options[128];
	pthread_t server;
	if (count != 4) return 99;
	int device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (!(work = opendir("/work"))) return perror("opendir"), 1;
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device);
	if (device < 0 || mount("meanwhile", arguments[2], "fuse", MS_NOSUID | MS_NODEV, options)) return perror("mount"), 1;
	if (pthread_create(&server, NULL, serve, &device)) return 1;
	if (setgid(5)) return perror("setgid"), 1;
	other = arguments[3];
	snprintf(path, sizeof path, "%s/new", arguments[2]);
	int result = strcmp(arguments[1], "open") ? mkdir(path, 0700) : open(path, O_CREAT | O_EXCL | O_RDWR, 0600);
	puts(result < 0 ? strerrorname_np(errno) : "done");
	return 0;
}
