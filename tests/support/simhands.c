/* simhands: what an operator does to a simulated disk, copies and digests. Declared in simdisk.h. */
#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "support/simdisk_int.h"

/* Holes stay holes. */
static void copy_file(int from, int to)
{
    static const uint8_t zeros[4096];
    struct stat st;
    uint8_t b[4096];
    assert(fstat(from, &st) == 0 && ftruncate(to, st.st_size) == 0);
    for (off_t at = 0; at < st.st_size;) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0)
            break;
        at = data / 4096 * 4096;
        ssize_t n = pread(from, b, sizeof b, at);
        assert(n > 0);
        if (memcmp(b, zeros, (size_t)n) != 0)
            assert(pwrite(to, b, (size_t)n, at) == n);
        at += n;
    }
}

struct simdisk *simdisk_clone(const struct simdisk *d)
{
    struct simdisk *c = simdisk_new();
    names_copy(&c->names, &d->names);
    for (size_t i = 0; i < d->inodes; i++)
        copy_file(d->fds[i], (sim_new_inode(c), c->fds[i]));
    return c;
}

void simdisk_chmod(struct simdisk *d, const char *path, unsigned mode)
{
    struct entry *e = names_find(&d->names, path);
    assert(e != NULL);
    e->mode = mode;
}

void simdisk_link(struct simdisk *d, const char *path, const char *target)
{
    assert(names_find(&d->names, path) == NULL);
    names_add(&d->names, path, -2);
    names_find(&d->names, path)->target = strdup(target);
}

void simdisk_put(struct simdisk *d, const char *path, const void *data, size_t n)
{
    struct cht_file *f;
    assert(cht_io_open(&d->io, path, CHT_OPEN_CREATE, &f, NULL) == CHT_OK);
    assert(d->io.ops->truncate(f, 0, NULL) == CHT_OK && cht_file_write(f, data, n, 0, NULL) == CHT_OK);
    assert(cht_file_sync(f, NULL) == CHT_OK);
    cht_file_close(f);
}

void simdisk_mount(struct simdisk *d, const char *path, bool mounted)
{
    int i = 0;
    while (i < SIM_MOUNTS && d->names.mounts[i].path != NULL && strcmp(d->names.mounts[i].path, path) != 0)
        i++;
    assert(i < SIM_MOUNTS);
    if (d->names.mounts[i].path == NULL)
        d->names.mounts[i].path = strdup(path);
    d->names.mounts[i].mounted = mounted;
}

static bool ends_so(const char *path, const char *end)
{
    size_t n = strlen(path), m = end != NULL ? strlen(end) : 0;
    return m > 0 && n >= m && strcmp(path + n - m, end) == 0;
}

static uint32_t file_crc(int fd)
{
    struct stat st;
    uint32_t crc = 0;
    assert(fstat(fd, &st) == 0);
    crc = cht_crc32c(crc, &st.st_size, sizeof st.st_size);
    if (st.st_size == 0)
        return crc;
    void *p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    assert(p != MAP_FAILED);
    crc = cht_crc32c(crc, p, (size_t)st.st_size);
    (void)munmap(p, (size_t)st.st_size);
    return crc;
}

uint64_t simdisk_digest(const struct simdisk *d, const char *under, const char *skip)
{
    uint64_t sum = 0; /* in no order */
    for (size_t i = 0; i < d->names.n; i++) {
        const struct entry *e = &d->names.v[i];
        if (strncmp(e->path, under, strlen(under)) != 0 || ends_so(e->path, skip))
            continue;
        uint32_t name = cht_crc32c((uint32_t)e->fs, e->path, strlen(e->path));
        uint32_t what = cht_crc32c(e->mode, &e->inode, e->inode < 0 ? sizeof e->inode : 0);
        if (e->target != NULL)
            what = cht_crc32c(what, e->target, strlen(e->target));
        if (e->inode >= 0)
            what ^= file_crc(d->fds[e->inode]);
        sum += ((uint64_t)name << 32 | what) * UINT64_C(0x9E3779B97F4A7C15);
    }
    return sum;
}
