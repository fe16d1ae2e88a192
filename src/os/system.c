/* system: what this process may use of the machine, and random bytes. */
#include "os/io.h"

#include "base/clock.h"
#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

/* A file with one number; UINT64_MAX where it is missing or says "max". */
static uint64_t read_limit(const char *path)
{
    FILE *f = fopen(path, "re");
    char line[64];
    if (f == NULL)
        return UINT64_MAX;
    char *got = fgets(line, sizeof line, f), *end = line;
    (void)fclose(f); /* opened for reading */
    unsigned long long v = got != NULL ? strtoull(line, &end, 10) : 0;
    return end == line ? UINT64_MAX : v;
}

/* The least limit on the way from this process's cgroup (v2) up to the root. */
static uint64_t cgroup2_limit(void)
{
    FILE *f = fopen("/proc/self/cgroup", "re");
    char line[1024], path[1200];
    uint64_t least = UINT64_MAX;
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "0::/", 4) != 0)
            continue;
        line[strcspn(line, "\n")] = 0;
        char *group = line + 3;
        for (;;) {
            (void)snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.max", strcmp(group, "/") == 0 ? "" : group);
            uint64_t v = read_limit(path);
            least = v < least ? v : least;
            char *slash = strrchr(group, '/');
            if (slash == NULL || slash == group)
                break;
            *slash = 0;
        }
    }
    if (f != NULL)
        (void)fclose(f); /* opened for reading */
    return least;
}

uint64_t cht_os_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    uint64_t n = pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : UINT64_C(1) << 30;
    uint64_t limits[] = {cgroup2_limit(), read_limit("/sys/fs/cgroup/memory.max"),
                         read_limit("/sys/fs/cgroup/memory/memory.limit_in_bytes")};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        n = limits[i] < n ? limits[i] : n;
    return n;
}

unsigned cht_os_cores(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (unsigned)n : 1;
}

void cht_os_random(void *buf, size_t n)
{
    uint8_t *p = buf;
    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);
        if (got > 0) {
            p += got;
            n -= (size_t)got;
            continue;
        }
        struct cht_rng r; /* a kernel without it: unique is enough here, secret is not asked for */
        cht_rng_seed(&r, cht_now_ns() ^ (uint64_t)(uintptr_t)buf ^ (uint64_t)getpid() << 32);
        for (; n > 0; n--)
            *p++ = (uint8_t)cht_rng_next(&r);
    }
}
