/* snapshot: see snapshot.h. */
#include "store/snapshot.h"

#include "base/alloc.h"
#include "base/invariant.h"

#include <string.h>

static const uint8_t zeros[CHT_PAGE];

/* The space goes back at once, it may be the last: whoever reads looks at `failed` after it has read. */
static void fail(struct cht_snapshot *s, const struct cht_err *err)
{
    cht_mutex_lock(&s->mu);
    bool first = !s->failed;
    if (first)
        s->why = *err;
    s->failed = true;
    cht_mutex_unlock(&s->mu);
    if (first)
        (void)s->side->io->ops->truncate(s->side, 0, NULL); /* else it goes when the backup is closed */
}

static enum cht_rc check_failed(struct cht_snapshot *s, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    cht_mutex_lock(&s->mu);
    if (s->failed)
        rc = cht_err_set(err, s->why.code, s->why.sys, __FILE__, __LINE__, "%s", s->why.msg);
    cht_mutex_unlock(&s->mu);
    return rc;
}

/* W1 for n <= 64 pages that begin at `at` in the line: a bit for each that must be saved. */
static uint64_t wanted(struct cht_snapshot *s, uint64_t at, unsigned n)
{
    uint64_t bits = 0;
    cht_mutex_lock(&s->mu);
    for (unsigned i = 0; i < n && !s->failed; i++) {
        if (at + i >= s->cursor && !cht_bit(s->saved, at + i))
            bits |= UINT64_C(1) << i;
    }
    cht_mutex_unlock(&s->mu);
    return bits;
}

/* W2 and W3. */
static enum cht_rc put_aside(struct cht_snapshot *s, uint64_t at, unsigned n, uint64_t bits,
                             const uint8_t *old, struct cht_err *err)
{
    unsigned count = 0;
    for (unsigned i = 0, run; i < n; i += run) {
        run = 1;
        if ((bits >> i & 1) == 0 || memcmp(old + (size_t)i * CHT_PAGE, zeros, CHT_PAGE) == 0)
            continue; /* what is not written reads as zeros */
        while (i + run < n && (bits >> (i + run) & 1) != 0)
            run++;
        enum cht_rc rc = cht_file_write(s->side, old + (size_t)i * CHT_PAGE, (size_t)run * CHT_PAGE,
                                        (at + i) * CHT_PAGE, err);
        if (rc != CHT_OK)
            return rc;
    }
    cht_mutex_lock(&s->mu);
    for (unsigned i = 0; i < n; i++) {
        if ((bits >> i & 1) == 0)
            continue;
        cht_bit_set(s->saved, at + i);
        count++;
    }
    cht_mutex_unlock(&s->mu);
    atomic_fetch_add_explicit(&s->aside, count, memory_order_relaxed);
    return CHT_OK;
}

/* The side file ends with the last page that was not zeros. */
static enum cht_rc read_aside(struct cht_snapshot *s, uint64_t at, unsigned n, uint8_t *buf,
                              struct cht_err *err)
{
    size_t got = 0, want = (size_t)n * CHT_PAGE;
    enum cht_rc rc = cht_file_read_some(s->side, buf, want, at * CHT_PAGE, &got, err);
    if (rc == CHT_OK)
        memset(buf + got, 0, want - got);
    return rc;
}

/* R1 to R3; `move` the cursor or not. */
static enum cht_rc read_pages(struct cht_snapshot *s, struct cht_pagefile *pf, uint64_t first, unsigned n,
                              bool move, uint8_t *buf, struct cht_err *err)
{
    uint64_t at = pf->snap_base + first, bits = 0;
    enum cht_rc rc = cht_file_read(pf->file, buf, (size_t)n * CHT_PAGE, first * CHT_PAGE, err);
    if (rc != CHT_OK)
        return rc;
    cht_mutex_lock(&s->mu);
    CHT_INVARIANT(move ? at == s->cursor : at >= s->cursor);
    for (unsigned i = 0; i < n; i++)
        bits |= (uint64_t)cht_bit(s->saved, at + i) << i;
    if (move)
        s->cursor = at + n;
    cht_mutex_unlock(&s->mu);
    for (unsigned i = 0, run; i < n && rc == CHT_OK; i += run) {
        for (run = 0; i + run < n && (bits >> (i + run) & 1) != 0; run++)
            ;
        if (run > 0)
            rc = read_aside(s, at + i, run, buf + (size_t)i * CHT_PAGE, err);
        else
            run = 1;
    }
    return rc == CHT_OK ? check_failed(s, err) : rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_snapshot_new(struct cht_io *io, const char *dir, struct cht_snapshot **out,
                             struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    struct cht_snapshot *s = cht_calloc(1, sizeof *s);
    if (s == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a backup");
    enum cht_rc rc = cht_mutex_init(&s->mu, err);
    if (rc != CHT_OK) {
        cht_free(s);
        return rc;
    }
    rc = cht_path_join(path, sizeof path, dir, "backup.tmp", err);
    if (rc == CHT_OK)
        rc = cht_io_open(io, path, CHT_OPEN_CREATE | CHT_OPEN_NOLINK, &s->side, err);
    if (rc == CHT_OK)
        rc = io->ops->unlink(io, path, err);
    if (rc == CHT_OK) /* one that a crash left between the two */
        rc = io->ops->truncate(s->side, 0, err);
    if (rc != CHT_OK) {
        cht_snapshot_free(s);
        return rc;
    }
    *out = s;
    return CHT_OK;
}

void cht_snapshot_free(struct cht_snapshot *s)
{
    if (s == NULL)
        return;
    cht_file_close(s->side);
    cht_mutex_fini(&s->mu);
    cht_free(s->pages);
    cht_free(s->saved);
    cht_free(s);
}

enum cht_rc cht_snapshot_attach(struct cht_snapshot *s, struct cht_shard *shards, unsigned nshards,
                                struct cht_err *err)
{
    s->pages = cht_calloc((size_t)nshards * CHT_PF_KINDS, sizeof *s->pages);
    if (s->pages == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a backup");
    s->shards = shards;
    s->nshards = nshards;
    for (unsigned i = 0; i < nshards; i++) {
        for (int k = 0; k < CHT_PF_KINDS; k++) {
            s->pages[i * CHT_PF_KINDS + (unsigned)k] = shards[i].pf[k]->home_pages;
            s->total += shards[i].pf[k]->home_pages;
        }
    }
    s->saved = cht_calloc((size_t)(s->total / 64 + 1), sizeof *s->saved);
    if (s->saved == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a backup");
    uint64_t base = 0;
    for (unsigned i = 0; i < nshards; i++) {
        for (int k = 0; k < CHT_PF_KINDS; k++) {
            struct cht_pagefile *pf = shards[i].pf[k];
            pf->snap = s;
            pf->snap_base = base;
            pf->snap_pages = pf->home_pages;
            base += pf->home_pages;
        }
    }
    return CHT_OK;
}

void cht_snapshot_detach(struct cht_snapshot *s)
{
    for (unsigned i = 0; i < s->nshards; i++) {
        for (int k = 0; k < CHT_PF_KINDS; k++)
            s->shards[i].pf[k]->snap = NULL;
    }
}

uint64_t cht_snapshot_pages(const struct cht_snapshot *s, unsigned shard, enum cht_pf_kind kind)
{
    return s->pages[shard * CHT_PF_KINDS + (unsigned)kind];
}

enum cht_rc cht_snapshot_read(struct cht_snapshot *s, unsigned shard, enum cht_pf_kind kind, uint64_t first,
                              unsigned n, uint8_t *buf, struct cht_err *err)
{
    return read_pages(s, s->shards[shard].pf[kind], first, n, true, buf, err);
}

enum cht_rc cht_snapshot_peek(struct cht_snapshot *s, unsigned shard, enum cht_pf_kind kind, uint64_t page,
                              uint8_t *buf, struct cht_err *err)
{
    return read_pages(s, s->shards[shard].pf[kind], page, 1, false, buf, err);
}

void cht_snapshot_save(struct cht_pagefile *pf, uint64_t first, uint64_t n, const uint8_t *old)
{
    struct cht_snapshot *s = pf->snap;
    if (s == NULL || first >= pf->snap_pages)
        return;
    uint64_t end = first + n < pf->snap_pages ? first + n : pf->snap_pages;
    uint8_t *buf = NULL;
    struct cht_err err = {0};
    enum cht_rc rc = CHT_OK;
    for (uint64_t p = first; p < end && rc == CHT_OK; p += CHT_SNAPSHOT_STEP) {
        unsigned some = end - p < CHT_SNAPSHOT_STEP ? (unsigned)(end - p) : CHT_SNAPSHOT_STEP;
        uint64_t bits = wanted(s, pf->snap_base + p, some);
        if (bits == 0)
            continue;
        const uint8_t *from = old != NULL ? old + (p - first) * CHT_PAGE : NULL;
        if (from == NULL && buf == NULL) {
            buf = cht_malloc(CHT_SNAPSHOT_STEP * CHT_PAGE);
            if (buf == NULL)
                rc = CHT_FAIL(&err, CHT_NO_MEMORY, "no memory for the old pages of a backup");
        }
        if (rc == CHT_OK && from == NULL) {
            rc = cht_file_read(pf->file, buf, (size_t)some * CHT_PAGE, p * CHT_PAGE, &err);
            from = buf;
        }
        if (rc == CHT_OK)
            rc = put_aside(s, pf->snap_base + p, some, bits, from, &err);
    }
    cht_free(buf);
    if (rc != CHT_OK)
        fail(s, &err);
}
