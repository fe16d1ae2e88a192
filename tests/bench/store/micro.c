/* micro: the small costs under the large ones. Medians of the rounds; every loop is bounded by count or time. */
#include "bench.h"

#include "base/crc32c.h"
#include "cheetah/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_BYTES (64u << 20)
#define LOOP_BYTES (UINT64_C(1) << 30)
#define SYNC_FILE_BYTES (64u << 20)
#define MAX_SYNCS 20000u
#define COUNTS 200000u

static void line(const char *what, double v, const char *unit)
{
    (void)printf("%-56s %10.3f %s\n", what, v, unit);
}

static double crc_rate(const uint8_t *mem, size_t size)
{
    volatile uint32_t sink = 0; /* keeps the calls */
    uint64_t n = LOOP_BYTES / 2 / size;
    double start = now_s();
    for (uint64_t i = 0; i < n; i++)
        sink = cht_crc32c(sink, mem + (i * size) % (1u << 20), size);
    return (double)(n * size) / (now_s() - start) / 1e9;
}

static double copy_rate(uint8_t *mem)
{
    uint64_t n = LOOP_BYTES * 4 / (MEMORY_BYTES / 2);
    volatile uint8_t sink;
    double start = now_s();
    for (uint64_t i = 0; i < n; i++) {
        memcpy(mem + MEMORY_BYTES / 2, mem, MEMORY_BYTES / 2);
        sink = mem[MEMORY_BYTES / 2 + i];
    }
    (void)sink;
    return (double)(n * (MEMORY_BYTES / 2)) / (now_s() - start) / 1e9;
}

static void micro_memory(const struct conf *c)
{
    double r[3][MAX_ROUNDS];
    uint8_t *mem = malloc(MEMORY_BYTES);
    if (mem == NULL)
        die("no memory");
    memset(mem, 0x5a, MEMORY_BYTES);
    for (unsigned i = 0; i < c->rounds; i++) {
        r[0][i] = crc_rate(mem, 64);
        r[1][i] = crc_rate(mem, 4096);
        r[2][i] = copy_rate(mem);
    }
    free(mem);
    line("crc32c, 64 B, each call needs the one before", median(r[0], c->rounds), "GB/s");
    line("crc32c, 4 KiB", median(r[1], c->rounds), "GB/s");
    line("memcpy, 32 MiB", median(r[2], c->rounds), "GB/s");
}

/* ---- latencies ----------------------------------------------------------------------------------------------- */

struct latency {
    double p50[MAX_ROUNDS], p99[MAX_ROUNDS];
};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void latency_of(double *us, size_t n, struct latency *l, unsigned round)
{
    if (n == 0)
        die("nothing was measured");
    qsort(us, n, sizeof *us, compare);
    l->p50[round] = us[n / 2];
    l->p99[round] = us[n * 99 / 100];
}

static void latency_print(const struct conf *c, const char *what, const struct latency *l)
{
    char text[80];
    (void)snprintf(text, sizeof text, "%s, median", what);
    line(text, median(l->p50, c->rounds), "us");
    (void)snprintf(text, sizeof text, "%s, p99", what);
    line(text, median(l->p99, c->rounds), "us");
}

/* A file written once with zeros and synced, then overwritten in place from its start. */
static int sync_file(const char *path)
{
    static uint8_t zeros[1u << 20];
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        die("%s: %s", path, strerror(errno));
    for (size_t at = 0; at < SYNC_FILE_BYTES; at += sizeof zeros) {
        if (pwrite(fd, zeros, sizeof zeros, (off_t)at) != (ssize_t)sizeof zeros)
            die("%s: %s", path, strerror(errno));
    }
    if (fsync(fd) != 0)
        die("%s: %s", path, strerror(errno));
    return fd;
}

static void bare_syncs(const struct conf *c, int fd, size_t size, double *us, struct latency *l,
                       unsigned round)
{
    static uint8_t block[4096];
    size_t n = 0;
    double start = now_s();
    for (double t = start; n < MAX_SYNCS && t - start < c->seconds; n++) {
        off_t at = (off_t)(n * size % SYNC_FILE_BYTES);
        block[0]++;
        if (pwrite(fd, block, size, at) != (ssize_t)size || fdatasync(fd) != 0)
            die("the bare loop: %s", strerror(errno));
        double after = now_s();
        us[n] = (after - t) * 1e6;
        t = after;
    }
    latency_of(us, n, l, round);
}

static void commits(const struct conf *c, void *db, double *us, struct latency *l, unsigned round)
{
    size_t n = 0;
    double start = now_s();
    for (double t = start; n < MAX_SYNCS && t - start < c->seconds; n++) {
        struct pair p;
        data_pair(c, (UINT64_C(1) << 50) + ((uint64_t)round << 32) + n, 0, &p);
        peer_cheetah.put(db, &p, 1);
        double after = now_s();
        us[n] = (after - t) * 1e6;
        t = after;
    }
    latency_of(us, n, l, round);
}

static void micro_commits(const struct conf *c, void *db, double *us)
{
    static struct latency l[3];
    char path[600];
    (void)snprintf(path, sizeof path, "%s/sync_file", c->dir);
    int fd = sync_file(path);
    for (unsigned i = 0; i < c->rounds; i++) {
        bare_syncs(c, fd, 4096, us, &l[0], i);
        bare_syncs(c, fd, 128, us, &l[1], i);
        commits(c, db, us, &l[2], i);
    }
    if (close(fd) != 0)
        die("%s: %s", path, strerror(errno));
    latency_print(c, "pwrite 4 KiB + fdatasync, preallocated file", &l[0]);
    latency_print(c, "pwrite 128 B + fdatasync, preallocated file", &l[1]);
    latency_print(c, "durable commit of one upsert, one thread", &l[2]);
}

/* ---- counts -------------------------------------------------------------------------------------------------- */

static double count_us(const struct conf *c, struct cht_store *s, size_t random_bytes)
{
    double start = now_s();
    for (unsigned i = 0; i < COUNTS; i++) {
        uint8_t name[NAME_SIZE];
        uint64_t pairs = 0;
        struct cht_err err = {0};
        data_name(c, mix64(i) % c->pairs, name);
        if (cht_store_count(s, (struct cht_str){name, 4 + random_bytes}, &pairs, &err) != CHT_OK)
            die("cheetah: count: %s", err.msg);
        if (pairs == 0)
            die("cheetah: count: a prefix of a name has no pairs");
    }
    return (now_s() - start) / COUNTS * 1e6;
}

static void micro_counts(const struct conf *c, struct cht_store *s)
{
    static double r[3][MAX_ROUNDS];
    static const size_t bytes[3] = {0, 1, 2};
    for (unsigned i = 0; i < c->rounds; i++) {
        for (size_t k = 0; k < 3; k++)
            r[k][i] = count_us(c, s, bytes[k]);
    }
    line("count under \"ctx:\" (all pairs)", median(r[0], c->rounds), "us");
    line("count under \"ctx:\" and one byte (1/256 of them)", median(r[1], c->rounds), "us");
    line("count under \"ctx:\" and two bytes (1/65536)", median(r[2], c->rounds), "us");
}

void micro(const struct conf *c)
{
    char dir[600];
    static struct pair batch[BATCH];
    double *us = malloc(MAX_SYNCS * sizeof *us);
    if (us == NULL)
        die("no memory");
    micro_memory(c);
    (void)snprintf(dir, sizeof dir, "%s/micro", c->dir);
    make_dir(dir);
    void *db = peer_cheetah.open(c, dir);
    for (uint64_t i = 0; i < c->pairs; i += BATCH) {
        for (size_t n = 0; n < BATCH; n++)
            data_pair(c, i + n, 0, &batch[n]);
        peer_cheetah.put(db, batch, BATCH);
    }
    micro_counts(c, peer_cheetah_store(db));
    micro_commits(c, db, us);
    peer_cheetah.close(db);
    free(us);
}
