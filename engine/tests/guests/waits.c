/* Waits for an hour in every way that it knows and says how long that took, by clocks of its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { HOUR = 3600 };

static long long at(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static long long began, began_wall;

static void begin(void) {
    began = at(CLOCK_MONOTONIC);
    began_wall = at(CLOCK_REALTIME);
}

/* Every clock has moved by as many whole hours. */
static void end(const char *how, int result) {
    struct timespec raw;
    struct timeval day;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &raw);
    gettimeofday(&day, NULL);
    long long hour = HOUR * 1000000000LL;
    printf("%s %d: %lld %lld %lld %lld %lld\n", how, result, (at(CLOCK_MONOTONIC) - began) / hour,
           (raw.tv_sec * 1000000000LL + raw.tv_nsec - began) / hour, (at(CLOCK_REALTIME) - began_wall) / hour,
           (day.tv_sec * 1000000000LL + day.tv_usec * 1000LL + 1000 - began_wall) / hour,
           (time(NULL) * 1000000000LL + 1000000000LL - began_wall) / hour);
}

static struct timespec in_an_hour(clockid_t clock) {
    struct timespec then;
    clock_gettime(clock, &then);
    then.tv_sec += HOUR;
    return then;
}

static void all(void) {
    struct timespec hour = {HOUR, 0}, then;
    struct timeval hour_too = {HOUR, 0};
    struct epoll_event event;
    uint64_t times;
    int pipes[2], made = pipe(pipes), epoll = epoll_create1(0);
    struct pollfd reads = {pipes[0], POLLIN, 0};
    sem_t sem;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t cond;
    pthread_condattr_t monotonic;
    sem_init(&sem, 0, made);
    begin(); end("nanosleep", nanosleep(&hour, NULL));
    begin(); then = in_an_hour(CLOCK_MONOTONIC);
    end("clock_nanosleep", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &then, NULL));
    begin(); then = in_an_hour(CLOCK_REALTIME);
    end("clock_nanosleep of the day", clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &then, NULL));
    begin(); end("poll", poll(&reads, 1, HOUR * 1000));
    begin(); end("ppoll", ppoll(&reads, 1, &hour, NULL));
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pipes[0], &set);
    begin(); end("select", select(pipes[0] + 1, &set, NULL, NULL, &hour_too));
    event.events = EPOLLIN;
    epoll_ctl(epoll, EPOLL_CTL_ADD, pipes[0], &event);
    begin(); end("epoll_wait", epoll_wait(epoll, &event, 1, HOUR * 1000));
    begin(); then = in_an_hour(CLOCK_REALTIME); end("sem_timedwait", sem_timedwait(&sem, &then));
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&cond, &monotonic);
    pthread_mutex_lock(&mutex);
    begin(); then = in_an_hour(CLOCK_MONOTONIC);
    end("pthread_cond_timedwait", pthread_cond_timedwait(&cond, &mutex, &then) == ETIMEDOUT);
    int timer = timerfd_create(CLOCK_MONOTONIC, 0);
    struct itimerspec rings = {{0, 0}, {HOUR, 0}};
    begin(); timerfd_settime(timer, 0, &rings, NULL);
    end("timerfd", read(timer, &times, sizeof times));
    begin(); rings.it_value = in_an_hour(CLOCK_MONOTONIC);
    timerfd_settime(timer, TFD_TIMER_ABSTIME, &rings, NULL);
    end("timerfd at an instant", read(timer, &times, sizeof times));
}

static void *nap(void *hours) {
    struct timespec time = {(intptr_t)hours * HOUR, 0};
    nanosleep(&time, NULL);
    printf("%ld\n", (long)(intptr_t)hours);
    return NULL;
}

/* Three threads that wait in different ways; a fourth looks whether a clock goes backwards. */
static sem_t over;
static void *watch(void *none) {
    long long last = 0, backwards = 0;
    while (sem_trywait(&over) != 0) {
        long long now = at(CLOCK_MONOTONIC);
        backwards += now < last;
        last = now;
        struct timespec hour = {HOUR / 4, 0};
        nanosleep(&hour, NULL);
    }
    printf("backwards %lld\n", backwards);
    return none;
}

static void order(void) {
    pthread_t naps[3], watcher;
    sem_init(&over, 0, 0);
    intptr_t hours[3] = {3, 1, 2};
    pthread_create(&watcher, NULL, watch, NULL);
    for (int i = 0; i < 3; i++) pthread_create(&naps[i], NULL, nap, (void *)hours[i]);
    for (int i = 0; i < 3; i++) pthread_join(naps[i], NULL);
    sem_post(&over);
    pthread_join(watcher, NULL);
}

/* What comes from outside wins over the time. */
static void input(void) {
    char byte;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in here = {AF_INET, htons(7000), {htonl(INADDR_LOOPBACK)}, {0}};
    bind(listener, (struct sockaddr *)&here, sizeof here);
    listen(listener, 1);
    printf("listens\n");
    struct pollfd waits = {listener, POLLIN, 0};
    begin(); end("poll", poll(&waits, 1, HOUR * 1000));
    waits.fd = accept(listener, NULL, NULL);
    int epoll = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {.u64 = 7}};
    epoll_ctl(epoll, EPOLL_CTL_ADD, waits.fd, &event);
    event.data.u64 = 0;
    begin(); end("epoll_wait", epoll_wait(epoll, &event, 1, HOUR * 1000));
    printf("event %d %ld byte %zd\n", event.events == EPOLLIN, (long)event.data.u64, read(waits.fd, &byte, 1));
}

static void ring(int signal) { (void)signal; }

/* A signal ends a wait; a timer that sends one cannot be held. */
static void signals(void) {
    struct sigaction action = {.sa_handler = ring, .sa_flags = SA_RESTART};
    struct timespec hour = {HOUR, 0}, left;
    sigaction(SIGUSR1, &action, NULL);
    printf("waits\n");
    begin(); end("nanosleep", nanosleep(&hour, &left) == -1 && errno == EINTR && left.tv_sec >= HOUR - 60);
    alarm(0);
    printf("sets an alarm\n");
}

int main(int count, char **words) {
    const char *word = count > 1 ? words[1] : "all";
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!strcmp(word, "order")) order();
    else if (!strcmp(word, "input")) input();
    else if (!strcmp(word, "signals")) signals();
    else all();
    return 0;
}
