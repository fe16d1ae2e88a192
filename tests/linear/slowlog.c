/* slowlog: for LD_PRELOAD: makes the writes and syncs of a log slow, each by a random time of SLOWLOG_LEAST_US up to SLOWLOG_WRITE_US
 * or SLOWLOG_SYNC_US microseconds, so that what happens between a change in memory and its record on the disk is seen. While there is a
 * file of the name SLOWLOG_HOLD its writes wait, and the first that does makes a file of that name with ".held" after it.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long limit_us(const char *name)
{
    const char *s = getenv(name);
    return s != NULL ? strtol(s, NULL, 10) : 0;
}

static int of_log(int fd)
{
    char link[64], path[1024];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0)
        return 0;
    path[n] = 0;
    return strstr(path, "/log/") != NULL;
}

static void be_held(int fd)
{
    char held[1024];
    const char *name = getenv("SLOWLOG_HOLD");
    if (name == NULL || access(name, F_OK) != 0 || !of_log(fd))
        return;
    (void)snprintf(held, sizeof held, "%s.held", name);
    int made = open(held, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (made >= 0)
        (void)close(made);
    while (access(name, F_OK) == 0)
        (void)usleep(1000);
}

static void be_slow(int fd, const char *name)
{
    static __thread unsigned seed;
    long most = limit_us(name);
    if (most <= 0 || !of_log(fd))
        return;
    if (seed == 0)
        seed = (unsigned)getpid() ^ (unsigned)(uintptr_t)&seed;
    long least = limit_us("SLOWLOG_LEAST_US");
    (void)usleep((useconds_t)(least < most ? least + rand_r(&seed) % (most - least) : most));
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t off)
{
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "pwrite");
    be_held(fd);
    be_slow(fd, "SLOWLOG_WRITE_US");
    return real(fd, p, n, off);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off_t off) { return pwrite(fd, p, n, off); }

int fdatasync(int fd)
{
    static int (*real)(int);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "fdatasync");
    be_slow(fd, "SLOWLOG_SYNC_US");
    return real(fd);
}
