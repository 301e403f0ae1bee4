// Appends a byte to the file that it is given and says "ok" or what the error is: itself, a child
// by fork, the program again in a child by vfork, or a thread.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void *append(void *path) {
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    ssize_t done = write(fd, "x", 1);
    puts(done == 1 ? "ok" : errno == ENOSPC ? "full" : strerror(errno));
    fflush(stdout);
    return NULL;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    if (!strcmp(argv[2], "self")) {
        append(argv[1]);
    } else if (!strcmp(argv[2], "thread")) {
        pthread_t thread;
        pthread_create(&thread, NULL, append, argv[1]);
        pthread_join(thread, NULL);
    } else if (!strcmp(argv[2], "fork")) {
        if (fork() == 0) {
            append(argv[1]);
            _exit(0);
        }
        wait(NULL);
    } else {
        if (vfork() == 0) {
            execl(argv[0], argv[0], argv[1], "self", (char *)NULL);
            _exit(127);
        }
        wait(NULL);
    }
    return 0;
}
