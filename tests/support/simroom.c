/* simroom: how full a simulated disk is; see simdisk.h. */
#include <sys/stat.h>
#include <errno.h>
#include <unistd.h>

#include "support/simdisk_int.h"

#define PAGE UINT64_C(4096)

static uint64_t used(const struct simdisk *d)
{
    uint64_t n = 0;
    for (size_t i = 0; i < d->names.n; i++) {
        struct stat st;
        if (d->names.v[i].inode >= 0 && fstat(d->fds[d->names.v[i].inode], &st) == 0)
            n += (uint64_t)st.st_blocks * 512;
    }
    return n;
}

/* ------------------------------------------------------------------------------------------------------------ */

uint64_t sim_missing(int fd, uint64_t off, uint64_t len)
{
    uint64_t end = (off + len + PAGE - 1) & ~(PAGE - 1), n = 0;
    off &= ~(PAGE - 1);
    while (off < end) {
        off_t data = lseek(fd, (off_t)off, SEEK_DATA);
        uint64_t from = data < 0 ? end : (uint64_t)data & ~(PAGE - 1);
        n += (from < end ? from : end) - off;
        if (from >= end)
            break;
        off_t hole = lseek(fd, (off_t)from, SEEK_HOLE);
        off = hole < 0 ? end : ((uint64_t)hole + PAGE - 1) & ~(PAGE - 1);
    }
    return n;
}

int sim_room(const struct simdisk *d, int fd, uint64_t off, uint64_t len)
{
    uint64_t more = d->capacity == 0 ? 0 : sim_missing(fd, off, len);
    return more == 0 || used(d) + more <= d->capacity ? 0 : ENOSPC;
}

void simdisk_capacity(struct simdisk *d, uint64_t bytes)
{
    pthread_mutex_lock(&d->mu);
    d->capacity = bytes;
    pthread_mutex_unlock(&d->mu);
}

uint64_t simdisk_used(struct simdisk *d)
{
    pthread_mutex_lock(&d->mu);
    uint64_t n = used(d);
    pthread_mutex_unlock(&d->mu);
    return n;
}
