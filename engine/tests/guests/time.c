/* Prints what a C program sees of the wall clock and of randomness, one way a line. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void bytes(const char *name, const unsigned char *from, int len) {
    printf("%s ", name);
    for (int i = 0; i < len; i++) printf("%02x", from[i]);
    printf("\n");
}

static long long monotonic(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(void) {
    struct timespec spec;
    struct timeval val;
    setvbuf(stdout, NULL, _IOLBF, 0);
    clock_gettime(CLOCK_REALTIME, &spec);
    printf("clock_gettime %lld.%09ld\n", (long long)spec.tv_sec, spec.tv_nsec);
    clock_gettime(CLOCK_REALTIME_COARSE, &spec);
    printf("coarse %lld.%09ld\n", (long long)spec.tv_sec, spec.tv_nsec);
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &spec);
    printf("syscall %lld.%09ld\n", (long long)spec.tv_sec, spec.tv_nsec);
    gettimeofday(&val, NULL);
    printf("gettimeofday %lld.%06ld\n", (long long)val.tv_sec, (long)val.tv_usec);
    printf("time %lld %lld\n", (long long)time(NULL), (long long)syscall(SYS_time, NULL));

    unsigned char random[16];
    bytes("AT_RANDOM", (unsigned char *)getauxval(AT_RANDOM), 16);
    getrandom(random, sizeof random, 0);
    bytes("getrandom", random, sizeof random);
    int device = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    ssize_t got = read(device, random, sizeof random);
    bytes("urandom", random, (int)got);

    /* An instant of the wall clock: the kernel must wait for it, and not for one that is long gone. */
    sem_t never;
    sem_init(&never, 0, 0);
    for (int attempt = 0; attempt < 2; attempt++) {
        clock_gettime(CLOCK_REALTIME, &spec);
        spec.tv_nsec += 50 * 1000 * 1000;
        long long began = monotonic();
        int result = sem_timedwait(&never, &spec);
        printf("sem_timedwait %s %s\n", result < 0 && errno == ETIMEDOUT ? "timed out" : "woke",
               monotonic() - began >= 50 * 1000 * 1000 ? "after its time" : "too soon");
    }
    clock_gettime(CLOCK_REALTIME, &spec);
    spec.tv_nsec += 50 * 1000 * 1000;
    long long began = monotonic();
    clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &spec, NULL);
    printf("clock_nanosleep %s\n", monotonic() - began >= 50 * 1000 * 1000 ? "after its time" : "too soon");

    /* A child that executes nothing keeps the clock, and sees it move. */
    pid_t child = fork();
    if (child == 0) {
        time_t first = time(NULL);
        printf("child %lld\n", (long long)first);
        while (time(NULL) == first) usleep(1000);
        printf("child %lld\n", (long long)time(NULL));
        _exit(0);
    }
    time_t first = time(NULL);
    printf("parent\n");
    while (time(NULL) == first) usleep(1000);
    waitpid(child, NULL, 0);
    printf("parent %lld\n", (long long)time(NULL));
    return 0;
}
