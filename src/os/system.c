/* system: what this process may use of the machine, and random bytes. */
#include "os/io.h"
#include "os/net.h"

#include "base/clock.h"
#include "base/literal.h"
#include "base/rng.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#define PAGE ((size_t)4096)
#define HUGE_MIN ((size_t)4 << 20)

/* A file with one number; UINT64_MAX if it is missing or says "max". */
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

/* The least limit on the way from a group up to the root of its hierarchy. Cuts `group` up on the way. */
static uint64_t least_limit(const char *root, char *group, const char *file)
{
    char path[1200];
    uint64_t least = UINT64_MAX;
    for (;;) {
        /* a path cut short names no file and so no limit */
        (void)snprintf(path, sizeof path, "%s%s/%s", root, group, file);
        uint64_t v = read_limit(path);
        least = v < least ? v : least;
        char *slash = strrchr(group, '/');
        if (slash == NULL)
            return least;
        *slash = 0;
    }
}

/* Both generations of control groups; in a container the path may name a group outside of it, so the root counts too. */
static uint64_t cgroup_limit(void)
{
    static const char v1_root[] = "/sys/fs/cgroup/memory", v1_file[] = "memory.limit_in_bytes";
    static const char v2_root[] = "/sys/fs/cgroup", v2_file[] = "memory.max";
    char line[1024], none[1] = "";
    uint64_t v1 = least_limit(v1_root, none, v1_file), v2 = least_limit(v2_root, none, v2_file);
    uint64_t least = v1 < v2 ? v1 : v2;
    FILE *f = fopen("/proc/self/cgroup", "re");
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        line[strcspn(line, "\n")] = 0;
        char *v1_group = strstr(line, ":memory:/");
        uint64_t v = UINT64_MAX;
        if (CHT_BEGINS(line, "0::/"))
            v = least_limit(v2_root, line + 3, v2_file);
        else if (v1_group != NULL)
            v = least_limit(v1_root, v1_group + 8, v1_file);
        least = v < least ? v : least;
    }
    if (f != NULL)
        (void)fclose(f); /* opened for reading */
    return least;
}

uint64_t cht_os_memory(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    uint64_t n = pages > 0 && size > 0 ? (uint64_t)pages * (uint64_t)size : UINT64_C(1) << 30;
    uint64_t limit = cgroup_limit();
    return limit < n ? limit : n;
}

void cht_os_huge_pages(void *p, size_t n)
{
    size_t skip = -(uintptr_t)p & (PAGE - 1); /* to the first whole page */
    if (n >= HUGE_MIN)
        (void)madvise((uint8_t *)p + skip, (n - skip) & ~(PAGE - 1),
                      MADV_HUGEPAGE); /* advice: small ones do, too */
}

unsigned cht_os_cores(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (unsigned)n : 1;
}

uint64_t cht_os_maps(void)
{
    unsigned long long n = 0;
    FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
    bool got =
        f != NULL && fscanf(f, "%llu", &n) == 1 && n > 0; /* NOLINT(cert-err34-c): a number of the kernel's */
    if (f != NULL)
        (void)fclose(f);    /* opened for reading */
    return got ? n : 65530; /* what it is unless set */
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
        if (got < 0 && errno == EINTR)
            continue;
        struct cht_rng r; /* a kernel without it: unique is enough here, secret is not asked for */
        cht_rng_seed(&r, cht_now_ns() ^ (uint64_t)(uintptr_t)buf ^ (uint64_t)getpid() << 32);
        for (; n > 0; n--)
            *p++ = (uint8_t)cht_rng_next(&r);
    }
}
