// What `shift` preloads into programs that are linked to libc: a wait until a moment of the wall clock is the
// kernel's to end, and the kernel's clock was not moved. SHIFT_SECONDS says by how much the program's was.
// Only the condition variables of POSIX and C11; moments of the monotonic clock are small and left alone.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <threads.h>
#include <time.h>

static struct timespec moment(const struct timespec *until) {
    struct timespec real = *until;
    const char *seconds = getenv("SHIFT_SECONDS");
    // Less than 30 years: no wall clock says that.
    if (seconds && until->tv_sec > 946080000) real.tv_sec -= atol(seconds);
    return real;
}

int pthread_cond_timedwait(pthread_cond_t *condition, pthread_mutex_t *mutex, const struct timespec *until) {
    int (*wait)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    *(void **)&wait = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    struct timespec real = moment(until);
    return wait(condition, mutex, &real);
}

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
    int (*wait)(cnd_t *, mtx_t *, const struct timespec *);
    *(void **)&wait = dlsym(RTLD_NEXT, "cnd_timedwait");
    struct timespec real = moment(until);
    return wait(condition, mutex, &real);
}
