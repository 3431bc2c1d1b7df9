// What threads can do with functions that the library replaces: one has file descriptors of its own,
// others are cancelled while they open a fifo.

#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NUMBER = 9 };

static void show(const char *what, int result, const struct stat *found)
{
    printf("%s: %d, %d:%d\n", what, result, (int)found->st_uid, (int)found->st_gid);
}

static void *with_descriptors_of_its_own(void *unused)
{
    struct stat found = {0};
    unshare(CLONE_FILES);
    dup2(open("mine", O_RDONLY | O_DIRECTORY), NUMBER);
    int result = fchownat(NUMBER, "file", 11, 12, 0);
    fstatat(NUMBER, "file", &found, 0);
    show("the thread's file", result, &found);
    return unused;
}

static void cleaned(void *unused)
{
    (void)unused;
    puts("cleaned up");
}

static void *opens(void *flags)
{
    pthread_cleanup_push(cleaned, NULL);
    printf("opened %d\n", open("fifo", *(int *)flags, 0644));
    pthread_cleanup_pop(0);
    return NULL;
}

// Whether a thread of this process waits for the other end of the fifo.
static int waits(void)
{
    char path[64], text[64] = "";
    for (int thread = getpid() + 1; thread < getpid() + 1000; thread++) {
        snprintf(path, sizeof path, "/proc/self/task/%d/wchan", thread);
        FILE *file = fopen(path, "r");
        if (!file)
            continue;
        int is_it = fgets(text, sizeof text, file) && text[0] != '0';
        fclose(file);
        if (is_it)
            return 1;
    }
    return 0;
}

int main(void)
{
    struct stat found;
    pthread_t thread;
    mkdir("others", 0755);
    mkdir("mine", 0755);
    close(open("others/file", O_CREAT | O_WRONLY, 0644));
    close(open("mine/file", O_CREAT | O_WRONLY, 0644));
    dup2(open("others", O_RDONLY | O_DIRECTORY), NUMBER);
    pthread_create(&thread, NULL, with_descriptors_of_its_own, NULL);
    pthread_join(thread, NULL);
    show("others/file", stat("others/file", &found), &found);
    show("mine/file", stat("mine/file", &found), &found);

    int flags[] = {O_WRONLY, O_WRONLY | O_CREAT};
    mkfifo("fifo", 0644);
    for (int n = 0; n < 2; n++) {
        void *result;
        pthread_create(&thread, NULL, opens, &flags[n]);
        for (int tries = 0; tries < 200 && !waits(); tries++)
            usleep(10000);
        pthread_cancel(thread);
        // Ends the wait of a thread that was not cancelled.
        close(open("fifo", O_RDONLY | O_NONBLOCK));
        pthread_join(thread, &result);
        puts(result == PTHREAD_CANCELED ? "cancelled" : "not cancelled");
    }
    unlink("fifo");
    return 0;
}
