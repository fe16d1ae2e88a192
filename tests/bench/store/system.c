/* system: clocks, /proc, folders, memory limits. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

_Noreturn void die(const char *fmt, ...)
{
    va_list ap;
    (void)fprintf(stderr, "bench_store: ");
    va_start(ap, fmt);
    (void)vfprintf(stderr, fmt, ap);
    va_end(ap);
    (void)fprintf(stderr, "\n");
    _exit(1);
}

double now_s(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_MONOTONIC, &t) != 0)
        die("clock_gettime: %s", strerror(errno));
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

double cpu_s(void)
{
    struct timespec t;
    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) != 0)
        die("clock_gettime: %s", strerror(errno));
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The number after `field` in a file of /proc. */
static uint64_t proc_field(const char *path, const char *field)
{
    char line[256];
    FILE *f = fopen(path, "re");
    if (f == NULL)
        die("%s: %s", path, strerror(errno));
    size_t n = strlen(field);
    while (fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, field, n) == 0) {
            (void)fclose(f);
            return strtoull(line + n, NULL, 10);
        }
    }
    die("%s: no %s", path, field);
}

uint64_t proc_read_bytes(void) { return proc_field("/proc/self/io", "read_bytes:"); }

uint64_t proc_anon_bytes(void) { return proc_field("/proc/self/status", "RssAnon:") * 1024; }

void written_now(const char *dir, struct written *w)
{
    char path[64];
    struct stat st;
    unsigned long long sectors = 0;
    w->calls = proc_field("/proc/self/io", "wchar:");
    w->pages = proc_field("/proc/self/io", "write_bytes:");
    if (stat(dir, &st) != 0)
        die("%s: %s", dir, strerror(errno));
    (void)snprintf(path, sizeof path, "/sys/dev/block/%u:%u/stat", major(st.st_dev), minor(st.st_dev));
    FILE *f = fopen(path, "re"); /* missing where the file system has no device of its own: then 0 */
    if (f != NULL) {
        if (fscanf(f, "%*u %*u %*u %*u %*u %*u %llu", &sectors) != 1)
            sectors = 0;
        (void)fclose(f);
    }
    w->device = sectors * 512;
}

/* nftw takes no context. */
static uint64_t walk_blocks, walk_apparent;

static int walk_usage(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)path;
    (void)ftw;
    if (type == FTW_F) {
        walk_blocks += (uint64_t)st->st_blocks * 512;
        walk_apparent += (uint64_t)st->st_size;
    } else if (type == FTW_D) {
        walk_blocks += (uint64_t)st->st_blocks * 512;
    }
    return 0;
}

void disk_usage(const char *dir, uint64_t *blocks, uint64_t *apparent)
{
    walk_blocks = walk_apparent = 0;
    if (nftw(dir, walk_usage, 16, FTW_PHYS) != 0)
        die("%s: %s", dir, strerror(errno));
    *blocks = walk_blocks;
    *apparent = walk_apparent;
}

static int walk_drop(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)ftw;
    if (type != FTW_F)
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    int rc = fdatasync(fd);
    if (rc == 0)
        rc = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    (void)close(fd);
    return rc == 0 ? 0 : -1;
}

void drop_cache(const char *dir)
{
    if (nftw(dir, walk_drop, 16, FTW_PHYS) != 0)
        die("%s: dropping the cache: %s", dir, strerror(errno));
}

static int walk_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

void remove_tree(const char *dir)
{
    if (nftw(dir, walk_remove, 16, FTW_PHYS | FTW_DEPTH) != 0 && errno != ENOENT)
        die("removing %s: %s", dir, strerror(errno));
}

void make_dir(const char *dir)
{
    if (mkdir(dir, 0755) != 0 && errno != EEXIST)
        die("mkdir %s: %s", dir, strerror(errno));
}

/* ---- memory limit -------------------------------------------------------------------------------------------- */

static bool write_number(const char *dir, const char *file, uint64_t v)
{
    char path[600];
    char text[24];
    int n = snprintf(path, sizeof path, "%s/%s", dir, file);
    int m = snprintf(text, sizeof text, "%llu", (unsigned long long)v);
    if (n < 0 || (size_t)n >= sizeof path || m < 0)
        return false;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool ok = write(fd, text, (size_t)m) == (ssize_t)m;
    return close(fd) == 0 && ok;
}

bool enter_limit(const struct conf *c, uint64_t bytes, char *how, size_t n)
{
    if (c->cgroup == NULL) {
        (void)snprintf(how, n, "no --cgroup: the limit is told to cheetah only, dirty_bytes = limit / 4");
        return false;
    }
    if (!write_number(c->cgroup, "memory.max", bytes) &&
        !write_number(c->cgroup, "memory.limit_in_bytes", bytes))
        die("--cgroup %s: cannot set its memory limit: %s", c->cgroup, strerror(errno));
    if (!write_number(c->cgroup, "cgroup.procs", (uint64_t)getpid()))
        die("--cgroup %s: cannot enter it: %s", c->cgroup, strerror(errno));
    (void)snprintf(how, n, "every peer under the limit of the cgroup %s", c->cgroup);
    return true;
}
