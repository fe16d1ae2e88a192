/* wal_seg: the segment files of the log and the list of them: headers, creating, reusing, deleting (wal_int.h). The format is
 * drawn in wal.h; the steps S1 to S5 of a new segment are told in wal.c.
 */
#include "store/wal_int.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/invariant.h"
#include "store/pagefile.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHT_KEPT_MAX 512u /* segments; opening a log reads the header of each */

static const char magic[8] = "CHEETAHL";

/* Fills in what the header says. Another version or another database refuses to open; damage is judged by the replay,
 * which knows what is needed. */
static enum cht_rc parse_header(const struct cht_wal *w, const char *path, const uint8_t *h, size_t n,
                                struct cht_wal_seg *seg, struct cht_err *err)
{
    static const uint8_t zeros[CHT_WAL_HEADER];
    seg->first_seq = seg->origin = seg->prev = 0;
    seg->state = CHT_WAL_BLANK;
    if (n < CHT_WAL_HEADER || memcmp(h, zeros, CHT_WAL_HEADER) == 0)
        return CHT_OK;
    seg->state = CHT_WAL_BAD;
    if (memcmp(h, magic, 8) != 0 || cht_get32(h + 508) != cht_crc32c(0, h, 508))
        return CHT_OK;
    if (cht_get32(h + 8) != CHT_FORMAT_VERSION)
        return CHT_FAIL(err, CHT_VERSION, "%s: format version %u, this program knows %u", path,
                        cht_get32(h + 8), CHT_FORMAT_VERSION);
    if (memcmp(h + 16, w->uuid, 16) != 0)
        return CHT_FAIL(err, CHT_SHARD_MISPLACED, "%s: belongs to another database", path);
    if (cht_get32(h + 12) != CHT_WAL_HEADER || cht_get64(h + 48) == 0)
        return CHT_OK;
    seg->state = CHT_WAL_STALE;
    if (cht_get64(h + 32) != seg->number)
        return CHT_OK;
    seg->state = CHT_WAL_VALID;
    seg->seed = cht_crc32c(0, h + 40, 8);
    seg->first_seq = cht_get64(h + 48);
    seg->origin = cht_get64(h + 56);
    seg->prev = cht_get64(h + 64);
    return CHT_OK;
}

static enum cht_rc load_header(struct cht_wal *w, struct cht_wal_seg *seg, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    uint8_t h[CHT_WAL_HEADER];
    struct cht_file *f = NULL;
    size_t got = 0;
    enum cht_rc rc = cht_wal_path(w, seg->number, path, sizeof path, err);
    if (rc == CHT_OK)
        rc = cht_io_open(w->io, path, CHT_OPEN_RDONLY, &f, err);
    if (rc == CHT_OK)
        rc = w->io->ops->size(f, &seg->size, err);
    if (rc == CHT_OK)
        rc = cht_file_read_some(f, h, sizeof h, 0, &got, err);
    if (rc == CHT_OK)
        rc = parse_header(w, path, h, got, seg, err);
    if (rc == CHT_OK && seg->state == CHT_WAL_VALID && !w->read_only) {
        cht_wal_note(w, seg);
        cht_file_close(w->found);
        w->found = f;
        return CHT_OK;
    }
    cht_file_close(f);
    return rc;
}

struct listing {
    struct cht_wal *w;
    enum cht_rc rc;
    struct cht_err err;
};

/* Takes the files that are named as segments are; others are none of the log's business. */
static void note_file(void *ctx, const char *name, enum cht_io_kind kind)
{
    struct listing *l = ctx;
    if (kind == CHT_IO_FOLDER || l->rc != CHT_OK || strlen(name) != 20 || strcmp(name + 16, ".log") != 0)
        return;
    if (strspn(name, "0123456789abcdef") != 16)
        return;
    l->rc = cht_wal_grow_list(l->w, &l->err);
    if (l->rc == CHT_OK)
        l->w->segs[l->w->nsegs++] = (struct cht_wal_seg){.number = strtoull(name, NULL, 16)};
}

static int by_number(const void *a, const void *b)
{
    const struct cht_wal_seg *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

/* S3. The salt differs in effect from that of the segment's last life, so that no old record can match it. */
static enum cht_rc write_header(struct cht_wal *w, struct cht_file *f, struct cht_wal_seg *seg,
                                struct cht_err *err)
{
    uint8_t h[CHT_WAL_HEADER];
    uint32_t old = seg->seed;
    uint64_t salt;
    do {
        cht_os_random(&salt, sizeof salt);
        seg->seed = cht_wal_put_header(h, &(struct cht_wal_begin){.uuid = w->uuid,
                                                                  .number = seg->number,
                                                                  .first_seq = seg->first_seq,
                                                                  .origin = seg->origin,
                                                                  .prev = seg->prev,
                                                                  .salt = salt});
    } while (seg->seed == old);
    atomic_fetch_add_explicit(&w->written, sizeof h, memory_order_relaxed);
    return cht_file_write(f, h, sizeof h, 0, err);
}

/* S4. A header that was not taken for a passing reason is not there: it is one sector. */
static enum cht_rc seal_segment(struct cht_wal *w, struct cht_file *f, struct cht_wal_seg *seg, bool *sealed,
                                struct cht_err *err)
{
    enum cht_rc rc = write_header(w, f, seg, err);
    *sealed = !cht_rc_passing(rc);
    return rc == CHT_OK ? cht_file_sync(f, err) : rc;
}

/* -------------------------------------------------------------------------------------------------------- */

uint32_t cht_wal_put_header(uint8_t header[CHT_WAL_HEAD], const struct cht_wal_begin *b)
{
    memset(header, 0, CHT_WAL_HEAD);
    memcpy(header, magic, 8);
    cht_put32(header + 8, CHT_FORMAT_VERSION);
    cht_put32(header + 12, CHT_WAL_HEAD);
    memcpy(header + 16, b->uuid, 16);
    cht_put64(header + 32, b->number);
    cht_put64(header + 40, b->salt);
    cht_put64(header + 48, b->first_seq);
    cht_put64(header + 56, b->origin);
    cht_put64(header + 64, b->prev);
    cht_put32(header + 508, cht_crc32c(0, header, 508));
    return cht_crc32c(0, header + 40, 8);
}

bool cht_wal_take_header(const uint8_t header[CHT_WAL_HEAD], struct cht_wal_begin *out, uint32_t *seed)
{
    if (memcmp(header, magic, 8) != 0 || cht_get32(header + 508) != cht_crc32c(0, header, 508) ||
        cht_get32(header + 8) != CHT_FORMAT_VERSION || cht_get32(header + 12) != CHT_WAL_HEAD)
        return false;
    *out = (struct cht_wal_begin){.uuid = header + 16,
                                  .number = cht_get64(header + 32),
                                  .first_seq = cht_get64(header + 48),
                                  .origin = cht_get64(header + 56),
                                  .prev = cht_get64(header + 64),
                                  .salt = cht_get64(header + 40)};
    *seed = cht_crc32c(0, header + 40, 8);
    return true;
}

enum cht_rc cht_wal_path(const struct cht_wal *w, uint64_t number, char *out, size_t cap, struct cht_err *err)
{
    char name[32];
    (void)snprintf(name, sizeof name, "%016" PRIx64 ".log", number); /* 20 characters */
    return cht_path_join(out, cap, w->dir, name, err);
}

enum cht_rc cht_wal_grow_list(struct cht_wal *w, struct cht_err *err)
{
    if (w->nsegs < w->cap)
        return CHT_OK;
    size_t cap = w->cap == 0 ? 16 : w->cap * 2;
    struct cht_wal_seg *v = cht_realloc(w->segs, cap * sizeof *v);
    if (v == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory for the list of segments", w->dir);
    w->segs = v;
    w->cap = cap;
    return CHT_OK;
}

enum cht_rc cht_wal_load_list(struct cht_wal *w, struct cht_err *err)
{
    struct listing l = {.w = w, .rc = CHT_OK};
    enum cht_rc rc = w->io->ops->list(w->io, w->dir, note_file, &l, err);
    if (rc == CHT_OK && l.rc != CHT_OK)
        return CHT_FAIL(err, l.rc, "%s", l.err.msg);
    if (w->nsegs > 1)
        qsort(w->segs, w->nsegs, sizeof *w->segs, by_number);
    size_t n = 0;
    for (size_t i = 0; i < w->nsegs && rc == CHT_OK; i++) {
        w->segs[n] = w->segs[i];
        rc = load_header(w, &w->segs[n], err);
        if (rc == CHT_NO_FILE && w->read_only) /* its writer has given it up since it was listed */
            rc = CHT_OK;
        else
            n++;
    }
    w->nsegs = rc == CHT_OK ? n : w->nsegs;
    cht_wal_sum_locked(w);
    return rc;
}

void cht_wal_note(const struct cht_wal *w, struct cht_wal_seg *seg)
{
    char path[CHT_PATH_MAX];
    if (cht_wal_path(w, seg->number, path, sizeof path, NULL) != CHT_OK ||
        cht_io_note(w->io, path, &seg->id, NULL) != CHT_OK)
        seg->id = (struct cht_io_id){0};
}

enum cht_rc cht_wal_same_locked(const struct cht_wal *w, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    if (w->nsegs == 0)
        return CHT_OK;
    const struct cht_wal_seg *last = &w->segs[w->nsegs - 1];
    enum cht_rc rc = cht_wal_path(w, last->number, path, sizeof path, err);
    return rc == CHT_OK ? cht_io_same(w->io, path, last->id, err) : rc;
}

void cht_wal_sum_locked(struct cht_wal *w)
{
    uint64_t n = w->leftover;
    for (size_t i = 0; i < w->nsegs; i++)
        n += w->segs[i].size;
    atomic_store_explicit(&w->bytes, n, memory_order_relaxed);
}

/* K1 in wal_kept.c. */
size_t cht_wal_chain_locked(const struct cht_wal *w)
{
    uint64_t origin = atomic_load_explicit(&w->origin, memory_order_relaxed);
    size_t i = w->nsegs;
    if (origin == 0 || i == 0 || w->segs[i - 1].origin != origin)
        return w->nsegs;
    for (size_t j = --i; j-- > 0;) {
        const struct cht_wal_seg *s = &w->segs[j];
        if (s->state != CHT_WAL_VALID || s->origin != origin)
            break;
        if (cht_wal_empty_locked(w, j))
            continue;
        if (s->first_seq != w->segs[i].prev)
            break;
        i = j;
    }
    return i;
}

size_t cht_wal_kept_locked(const struct cht_wal *w, size_t n)
{
    size_t m = n, start = w->keep > 0 && n > 0 ? cht_wal_chain_locked(w) : w->nsegs;
    uint64_t left = w->keep;
    while (m > start && n - m < CHT_KEPT_MAX && w->segs[m - 1].size <= left)
        left -= w->segs[--m].size;
    return m;
}

void cht_wal_link_locked(const struct cht_wal *w, struct cht_wal_seg *seg)
{
    seg->origin = atomic_load_explicit(&w->origin, memory_order_relaxed);
    seg->prev = 0;
    if (seg->origin == 0 || w->nsegs == 0 || w->segs[w->nsegs - 1].origin != seg->origin)
        return;
    const struct cht_wal_seg *last = &w->segs[w->nsegs - 1];
    seg->prev = last->first_seq == seg->first_seq ? last->prev : last->first_seq;
}

size_t cht_wal_unneeded_locked(const struct cht_wal *w)
{
    size_t n = 0;
    while (n + 1 < w->nsegs && w->segs[n + 1].first_seq <= w->trimmed + 1 && w->segs[n].number < w->held)
        n++;
    return cht_wal_kept_locked(w, n);
}

void cht_wal_remove_locked(struct cht_wal *w, size_t i)
{
    memmove(w->segs + i, w->segs + i + 1, (w->nsegs - i - 1) * sizeof *w->segs);
    w->nsegs--;
}

size_t cht_wal_victims_locked(struct cht_wal *w, unsigned keep, uint64_t **out)
{
    size_t spare = 0, gone = 0, at = 0, n = cht_wal_unneeded_locked(w);
    for (size_t i = 0; i < n; i++)
        spare += w->segs[i].size == w->segment_bytes;
    uint64_t *victims = *out = n == 0 ? NULL : cht_malloc(n * sizeof *victims);
    for (size_t i = 0; i < n && victims != NULL; i++) {
        bool fits = w->segs[at].size == w->segment_bytes;
        if (fits && spare <= keep) {
            at++;
            continue;
        }
        spare -= fits;
        victims[gone++] = w->segs[at].number;
        cht_wal_remove_locked(w, at);
    }
    return gone;
}

enum cht_rc cht_wal_create_segment(struct cht_wal *w, struct cht_wal_seg *seg, struct cht_file **f,
                                   bool *sealed, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    *sealed = false;
    *f = NULL;
    enum cht_rc rc = cht_wal_path(w, seg->number, path, sizeof path, err);
    /* Where nothing was ever made nothing can be left. */
    unsigned first = w->nsegs == 0 && !w->remains ? CHT_OPEN_EXCL : 0;
    if (rc == CHT_OK)
        rc = cht_io_open(w->io, path, CHT_OPEN_CREATE | CHT_OPEN_NOLINK | first, f, err);
    if (rc != CHT_OK)
        return rc;
    rc = w->io->ops->truncate(*f, 0, err);
    if (rc == CHT_OK)
        rc = w->io->ops->allocate(*f, 0, seg->size, err);
    if (rc == CHT_OK) {
        rc = w->io->ops->sync_dir(w->io, w->dir, err);
        *sealed = rc == CHT_IO;
    }
    if (rc == CHT_OK)
        rc = seal_segment(w, *f, seg, sealed, err);
    if (rc == CHT_OK)
        return CHT_OK;
    cht_file_close(*f);
    *f = NULL;
    if (*sealed || w->io->ops->unlink(w->io, path, NULL) != CHT_OK)
        w->remains = true; /* it is ignored by a replay and overwritten */
    return rc;
}

enum cht_rc cht_wal_reuse_locked(struct cht_wal *w, struct cht_wal_seg *seg, struct cht_file **f,
                                 bool *sealed, struct cht_err *err)
{
    const struct cht_wal_seg old = w->segs[0];
    char from[CHT_PATH_MAX], to[CHT_PATH_MAX];
    *sealed = false;
    *f = NULL;
    enum cht_rc rc = cht_wal_path(w, old.number, from, sizeof from, err);
    if (rc == CHT_OK)
        rc = cht_wal_path(w, seg->number, to, sizeof to, err);
    if (rc == CHT_OK)
        rc = w->io->ops->rename(w->io, from, to, err);
    if (rc != CHT_OK)
        return rc;
    cht_wal_remove_locked(w, 0);
    seg->seed = old.seed;
    rc = cht_io_open(w->io, to, 0, f, err); /* by its new name, which is what messages should say */
    if (rc != CHT_OK) {
        (void)w->io->ops->unlink(w->io, to, NULL); /* what stays is ignored by a replay and overwritten */
        return rc;
    }
    rc = w->io->ops->sync_dir(w->io, w->dir, err);
    *sealed = rc == CHT_IO;
    if (rc == CHT_OK)
        rc = seal_segment(w, *f, seg, sealed, err);
    if (rc == CHT_OK)
        return CHT_OK;
    cht_file_close(*f);
    *f = NULL;
    if (!*sealed)
        (void)w->io->ops->unlink(w->io, to, NULL); /* as above */
    return rc;
}

enum cht_rc cht_wal_delete_segment(struct cht_wal *w, uint64_t number, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    enum cht_rc rc = cht_wal_path(w, number, path, sizeof path, err);
    if (rc == CHT_OK)
        rc = w->io->ops->unlink(w->io, path, err);
    return rc == CHT_NO_FILE ? CHT_OK : rc;
}

bool cht_wal_give_up_locked(struct cht_wal *w)
{
    uint64_t keep = w->keep, *victims;
    if (cht_wal_same_locked(w, NULL) != CHT_OK)
        return false;
    w->keep = 0;
    size_t n = cht_wal_victims_locked(w, 0, &victims);
    for (size_t i = 0; i < n; i++)
        (void)cht_wal_delete_segment(w, victims[i],
                                     NULL); /* what stays is not needed, and goes with the next trim */
    cht_free(victims);
    w->keep = keep;
    cht_wal_sum_locked(w);
    return n > 0;
}

enum cht_rc cht_wal_hold(struct cht_wal *w, uint64_t from, struct cht_wal_piece **out, size_t *n,
                         struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    cht_mutex_lock(&w->mu);
    CHT_INVARIANT(w->held == UINT64_MAX && from >= w->trimmed);
    size_t start = w->nsegs;
    for (size_t i = 0; i < w->nsegs; i++) {
        if (w->segs[i].first_seq <= from + 1)
            start = i;
    }
    *n = w->nsegs - start;
    *out = cht_malloc((*n + 1) * sizeof **out);
    if (*out == NULL) {
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a backup");
    } else {
        if (*n > 0)
            w->held = w->segs[start].number;
        for (size_t i = 0; i < *n; i++)
            (*out)[i] = (struct cht_wal_piece){w->segs[start + i].number, w->segs[start + i].size};
        if (*n > 0 && w->file != NULL) /* after pos: nothing yet, or an older life */
            (*out)[*n - 1].bytes = w->pos;
    }
    cht_mutex_unlock(&w->mu);
    return rc;
}

void cht_wal_release(struct cht_wal *w)
{
    cht_mutex_lock(&w->mu);
    w->held = UINT64_MAX;
    cht_mutex_unlock(&w->mu);
}

enum cht_rc cht_wal_open_segment(struct cht_wal *w, uint64_t number, struct cht_file **out,
                                 struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    enum cht_rc rc = cht_wal_path(w, number, path, sizeof path, err);
    return rc == CHT_OK ? cht_io_open(w->io, path, CHT_OPEN_RDONLY, out, err) : rc;
}
