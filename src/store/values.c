/* values: put, delete and find by key; large values; the walk by key; the checkpoint hooks (formats and invariants in
 * values_format.h).
 *
 * The common changes (a slot of an extent that has some free, a value of the same length) obtain every page first and
 * then cannot fail. The rare ones (a new extent, the first slot given back, ...) change many records: they run under an undo
 * of the files, unless the caller has one open, whose rollback then covers them.
 */
#include "base/alloc.h"
#include "base/crc32c.h"
#include "base/prefetch.h"
#include "cheetah/store.h"
#include "store/values_format.h"

static enum cht_rc code(const struct cht_err *e, struct cht_err *err)
{
    if (err != NULL)
        *err = *e;
    return e->code;
}

/* ---- undo ---------------------------------------------------------------------------------------------------- */

static bool begin(struct cht_values *v)
{
    if (v->values->undo_open)
        return false;
    cht_pf_undo_begin(v->keys);
    cht_pf_undo_begin(v->values);
    cht_pf_undo_begin(v->recycle);
    cht_pf_undo_begin(v->values->sums);
    return true;
}

static void finish(struct cht_values *v, bool mine, bool good)
{
    struct cht_pagefile *files[] = {v->keys, v->values, v->recycle, v->values->sums};
    for (size_t i = 0; mine && i < 4; i++) {
        if (good)
            cht_pf_undo_end(files[i]);
        else
            cht_pf_undo_rollback(files[i]);
    }
}

/* ---- entries ------------------------------------------------------------------------------------------------- */

static uint64_t entry_off(uint64_t local) { return CHT_PAGE + local * CHT_ENTRY; }

static const uint8_t *header(const struct cht_values *v)
{
    return v->keys->fast.base; /* page 0 was verified at open */
}

/* The header was good when it was read; is it still? */
static enum cht_rc header_there(struct cht_values *v, struct cht_err *err)
{
    return cht_pf_lost(v->keys, 0) ? cht_pf_say_lost(v->keys, 0, err) : CHT_OK;
}

/* The entry of a key; *e NULL if the file does not reach that far. */
static enum cht_rc read_entry(struct cht_values *v, uint64_t key, const uint8_t **e, struct cht_err *err)
{
    uint64_t off = entry_off(cht_key_local(key, v->shards));
    *e = NULL;
    if (cht_key_local(key, v->shards) >= cht_get64(header(v) + CHT_KEYS_NEXT))
        return header_there(v, err);
    const uint8_t *p = cht_page_read(v->keys, off / CHT_PAGE, err);
    if (p == NULL)
        return CHT_CORRUPT;
    *e = p + off % CHT_PAGE;
    return CHT_OK;
}

/* Obtains entry and header for writing, growing the file. */
static enum cht_rc ready_entry(struct cht_values *v, uint64_t key, struct cht_err *err)
{
    struct cht_err e = {0};
    uint64_t page = entry_off(cht_key_local(key, v->shards)) / CHT_PAGE, first;
    if (page >= cht_pf_pages(v->keys)) {
        enum cht_rc rc = cht_pf_extend(v->keys, page + 1 - cht_pf_pages(v->keys), &first, err);
        if (rc != CHT_OK)
            return rc;
    }
    if (cht_page_write(v->keys, 0, &e) == NULL || cht_page_write(v->keys, page, &e) == NULL)
        return code(&e, err);
    return CHT_OK;
}

static uint8_t *sure_entry(struct cht_values *v, uint64_t key)
{
    uint64_t off = entry_off(cht_key_local(key, v->shards));
    return cht_page_sure(v->keys, off / CHT_PAGE) + off % CHT_PAGE;
}

/* Writes an entry that ready_entry has obtained, and the counters. old_len 0: the key had no value. */
static void set_entry(struct cht_values *v, uint64_t key, unsigned state, uint64_t off, uint32_t len,
                      uint32_t crc, uint32_t old_len)
{
    uint8_t *e = sure_entry(v, key), *h = cht_page_sure(v->keys, 0);
    cht_put48(e, off);
    cht_put16(e + 6, (uint16_t)state);
    cht_put32(e + 8, len);
    cht_put32(e + 12, crc);
    uint64_t local = cht_key_local(key, v->shards);
    if (local >= cht_get64(h + CHT_KEYS_NEXT))
        cht_put64(h + CHT_KEYS_NEXT, local + 1);
    cht_put64(h + CHT_KEYS_LIVE, cht_get64(h + CHT_KEYS_LIVE) + (len > 0) - (old_len > 0));
    cht_put64(h + CHT_KEYS_BYTES, cht_get64(h + CHT_KEYS_BYTES) + len - old_len);
}

/* Place and length of the value a key has now; len 0: none. */
static enum cht_rc current(struct cht_values *v, uint64_t key, struct cht_value_ref *ref, struct cht_err *err)
{
    *ref = (struct cht_value_ref){0, 0, 0};
    enum cht_rc rc = cht_values_find(v, key, ref, err);
    return rc == CHT_KEY_NOT_FOUND ? CHT_OK : rc;
}

static enum cht_rc write_bytes(struct cht_values *v, uint64_t off, const void *p, uint32_t len,
                               struct cht_err *err)
{
    struct cht_err e = {0};
    uint8_t *d = cht_pf_write_range(v->values, off, len, &e);
    if (d == NULL)
        return code(&e, err);
    memcpy(d, p, len);
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_values_format(struct cht_values *v, struct cht_err *err)
{
    struct cht_err e = {0};
    uint8_t *h = cht_page_write(v->keys, 0, &e);
    if (h == NULL || cht_page_write(v->values, 0, &e) == NULL || cht_page_write(v->recycle, 0, &e) == NULL)
        return code(&e, err);
    cht_put64(h + CHT_KEYS_NEXT, v->shard == 0 ? 1 : 0); /* key 0 is none */
    return CHT_OK;
}

uint32_t cht_value_crc(uint64_t key, const void *p, size_t n) { return cht_crc32c_keyed(key, p, n); }

static __attribute__((noinline)) enum cht_rc leads_out(const struct cht_values *v, uint64_t key,
                                                       struct cht_err *err)
{
    return CHT_DAMAGED(err, "%s: offset %llu: the entry of key %llu leads out of the file",
                       cht_pf_path(v->keys), (unsigned long long)entry_off(cht_key_local(key, v->shards)),
                       (unsigned long long)key);
}

enum cht_rc cht_values_find(struct cht_values *v, uint64_t key, struct cht_value_ref *ref,
                            struct cht_err *err)
{
    const uint8_t *e;
    enum cht_rc rc = read_entry(v, key, &e, err);
    if (rc != CHT_OK)
        return rc;
    if (e == NULL)
        return CHT_KEY_NOT_FOUND;
    uint64_t place = cht_get64(e), rest = cht_get64(e + 8); /* all of it, before the page is asked about */
    if (__builtin_expect(cht_pf_losses(v->keys) != 0, 0)) {
        uint64_t page = entry_off(cht_key_local(key, v->shards)) / CHT_PAGE;
        if (cht_pf_lost(v->keys, page))
            return cht_pf_say_lost(v->keys, page, err);
    }
    if (place >> 48 != CHT_ENTRY_LIVE)
        return CHT_KEY_NOT_FOUND;
    ref->off = place & UINT64_C(0xffffffffffff);
    ref->len = (uint32_t)rest;
    ref->crc = (uint32_t)(rest >> 32);
    if (ref->len == 0 || ref->len > CHT_VALUE_MAX || ref->off < CHT_PAGE ||
        cht_pf_range(v->values, ref->off, ref->len) == NULL)
        return leads_out(v, key, err);
    return CHT_OK;
}

enum cht_rc cht_values_view(struct cht_values *v, uint64_t key, const struct cht_value_ref *ref,
                            const uint8_t **p, struct cht_err *err)
{
    *p = cht_pf_range(v->values, ref->off, ref->len);
    if (*p == NULL || cht_value_crc(key, *p, ref->len) != ref->crc)
        return CHT_DAMAGED(err, "%s: offset %llu: the value of key %llu does not match its checksum",
                           cht_pf_path(v->values), (unsigned long long)ref->off, (unsigned long long)key);
    return CHT_OK;
}

void cht_values_entries_soon(const struct cht_values *v, uint64_t key, uint64_t n)
{
    cht_pf_soon(v->keys, entry_off(cht_key_local(key, v->shards)), n * CHT_ENTRY);
}

void cht_values_prefetch_entry(const struct cht_values *v, uint64_t key)
{
    uint64_t off = entry_off(cht_key_local(key, v->shards));
    if (off < v->keys->fast.pages * CHT_PAGE)
        cht_prefetch(v->keys->fast.base + off);
}

void cht_values_prefetch_value(const struct cht_values *v, const struct cht_value_ref *ref)
{
    const uint8_t *p = v->values->fast.base + ref->off;
    cht_prefetch(p);
    if (ref->len > 0)
        cht_prefetch(p + (ref->len < 128 ? ref->len - 1 : 127));
}

uint64_t cht_values_next_key(const struct cht_values *v)
{
    uint64_t local = cht_get64(header(v) + CHT_KEYS_NEXT);
    if (cht_pf_lost(v->keys, 0))
        return 0;
    return local > CHT_KEY_MAX ? UINT64_MAX : local * v->shards + v->shard;
}

enum cht_rc cht_values_attach(struct cht_values *v, struct cht_err *err)
{
    uint64_t next = cht_get64(header(v) + CHT_KEYS_NEXT), live = cht_values_live(v);
    if (next < (v->shard == 0) ||
        next > (cht_pf_pages(v->keys) - 1) * (CHT_PAGE / CHT_ENTRY) + (v->shard == 0) || live > next)
        return CHT_DAMAGED(err, "%s: offset %u: %llu keys given out, %llu live, do not fit the file",
                           cht_pf_path(v->keys), CHT_KEYS_NEXT, (unsigned long long)next,
                           (unsigned long long)live);
    return header_there(v, err);
}

enum cht_rc cht_values_say_lost(const struct cht_values *v, const struct cht_value_ref *ref,
                                struct cht_err *err)
{
    return CHT_DAMAGED(err, "%s: offset %llu: the value was lost while it was read", cht_pf_path(v->values),
                       (unsigned long long)ref->off);
}

uint64_t cht_values_live(const struct cht_values *v) { return cht_get64(header(v) + CHT_KEYS_LIVE); }

uint64_t cht_values_bytes(const struct cht_values *v) { return cht_get64(header(v) + CHT_KEYS_BYTES); }

/* A value moves to a new slot: slot, bytes, entry, old slot. Under an undo or after the fast calls said yes. */
static enum cht_rc move_value(struct cht_values *v, uint64_t key, const void *p, uint32_t len,
                              const struct cht_value_ref *old, struct cht_err *err)
{
    uint64_t off;
    enum cht_rc rc = cht_slot_alloc(v, len, &off, err);
    if (rc == CHT_OK)
        rc = write_bytes(v, off, p, len, err);
    if (rc == CHT_OK && old->len > 0)
        rc = cht_slot_free(v, old->off, old->len, err);
    if (rc == CHT_OK)
        set_entry(v, key, CHT_ENTRY_LIVE, off, len, cht_value_crc(key, p, len), old->len);
    return rc;
}

enum cht_rc cht_values_put(struct cht_values *v, uint64_t key, const void *p, uint32_t len,
                           struct cht_err *err)
{
    struct cht_value_ref old;
    enum cht_rc rc = current(v, key, &old, err);
    if (rc == CHT_OK)
        rc = ready_entry(v, key, err);
    if (rc != CHT_OK)
        return rc;
    if (old.len == len) { /* in place */
        rc = write_bytes(v, old.off, p, len, err);
        if (rc == CHT_OK)
            set_entry(v, key, CHT_ENTRY_LIVE, old.off, len, cht_value_crc(key, p, len), old.len);
        if (rc != CHT_CORRUPT)
            return rc; /* a damaged page is left alone: the value gets another place */
    }
    bool fast, free_fast = true;
    rc = cht_slot_alloc_fast(v, len, &fast, err);
    if (rc == CHT_OK && fast && old.len > 0)
        rc = cht_slot_free_fast(v, old.off, old.len, &free_fast, err);
    if (rc != CHT_OK)
        return rc;
    bool mine = fast && free_fast ? false : begin(v);
    if (mine)
        rc = ready_entry(v, key, err); /* again: with images */
    if (rc == CHT_OK)
        rc = move_value(v, key, p, len, &old, err);
    finish(v, mine, rc == CHT_OK);
    return rc;
}

enum cht_rc cht_values_del(struct cht_values *v, uint64_t key, struct cht_err *err)
{
    struct cht_value_ref old;
    enum cht_rc rc = cht_values_find(v, key, &old, err);
    if (rc == CHT_OK)
        rc = ready_entry(v, key, err);
    if (rc != CHT_OK)
        return rc;
    bool fast;
    rc = cht_slot_free_fast(v, old.off, old.len, &fast, err);
    if (rc != CHT_OK)
        return rc;
    bool mine = fast ? false : begin(v);
    if (mine)
        rc = ready_entry(v, key, err); /* again: with images */
    if (rc == CHT_OK)
        rc = cht_slot_free(v, old.off, old.len, err);
    if (rc == CHT_OK)
        set_entry(v, key, CHT_ENTRY_DELETED, 0, 0, 0, old.len);
    finish(v, mine, rc == CHT_OK);
    return rc;
}

/* ---- large values -------------------------------------------------------------------------------------------- */

enum cht_rc cht_values_large_reserve(struct cht_values *v, uint32_t len, struct cht_large *l,
                                     struct cht_err *err)
{
    struct cht_err e = {0};
    uint32_t pages = (uint32_t)(((uint64_t)len + CHT_PAGE - 1) / CHT_PAGE), cls = 0;
    *l = (struct cht_large){.len = len};
    l->sums = cht_malloc(pages * sizeof *l->sums);
    if (l->sums == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a value of %u bytes", len);
    bool mine = begin(v);
    enum cht_rc rc = cht_extent_alloc(v, pages * CHT_PAGE_GRANULES, true, &l->extent, err);
    uint8_t *x = rc == CHT_OK ? cht_record_write(v, l->extent, &e) : NULL;
    if (rc == CHT_OK && x == NULL)
        rc = code(&e, err);
    if (x != NULL) {
        l->off = (uint64_t)cht_get32(x + CHT_EX_START) * CHT_GRANULE;
        cht_put32(x + CHT_EX_LENGTH, len);
        cht_put32(x + CHT_EX_SLOTS, 1);
        cht_put32(x + CHT_EX_USED, 1);
        cht_put32(x + CHT_EX_BUMP, 1);
        rc = cht_class_of(v, len, true, &cls, err);
    }
    if (rc == CHT_OK)
        rc = cht_class_add_extent(v, cls, 1, err);
    uint8_t *c = rc == CHT_OK ? cht_record_write(v, cls, &e) : NULL;
    if (rc == CHT_OK && c == NULL)
        rc = code(&e, err);
    if (c != NULL)
        cht_put64(c + CHT_CL_LIVE, cht_get64(c + CHT_CL_LIVE) + 1);
    if (rc == CHT_OK)
        rc = cht_pf_direct_prepare(v->values, l->off / CHT_PAGE, pages, err);
    finish(v, mine, rc == CHT_OK);
    if (rc != CHT_OK) {
        cht_free(l->sums);
        l->sums = NULL;
    }
    return rc;
}

enum cht_rc cht_values_large_write(struct cht_values *v, struct cht_large *l, const void *p,
                                   struct cht_err *err)
{
    return cht_pf_direct_write(v->values, l->off / CHT_PAGE, p, l->len, l->sums, err);
}

enum cht_rc cht_values_large_put(struct cht_values *v, uint64_t key, struct cht_large *l, uint32_t crc,
                                 struct cht_err *err)
{
    struct cht_value_ref old;
    uint64_t pages = ((uint64_t)l->len + CHT_PAGE - 1) / CHT_PAGE;
    enum cht_rc rc = current(v, key, &old, err);
    if (rc == CHT_OK)
        rc = ready_entry(v, key, err);
    if (rc != CHT_OK)
        return rc;
    bool mine = begin(v);
    if (mine)
        rc = ready_entry(v, key, err); /* again: with images */
    if (rc == CHT_OK)
        rc = cht_pf_direct_done(v->values, l->off / CHT_PAGE, pages, l->sums, err);
    if (rc == CHT_OK && old.len > 0)
        rc = cht_slot_free(v, old.off, old.len, err);
    if (rc == CHT_OK)
        set_entry(v, key, CHT_ENTRY_LIVE, l->off, l->len, crc, old.len);
    finish(v, mine, rc == CHT_OK);
    if (rc == CHT_OK) {
        cht_free(l->sums);
        l->sums = NULL;
    }
    return rc;
}

void cht_values_large_abandon(struct cht_values *v, struct cht_large *l)
{
    struct cht_err ignored = {
        0}; /* the extent then waits for nothing and is only lost space, which check would tell */
    bool mine = begin(v);
    enum cht_rc rc = cht_slot_free(v, l->off, l->len, &ignored);
    finish(v, mine, rc == CHT_OK);
    cht_free(l->sums);
    l->sums = NULL;
}

/* ---- walking and checkpoints --------------------------------------------------------------------------------- */

enum cht_rc cht_values_next(struct cht_values *v, uint64_t key, uint32_t length, uint64_t *found,
                            struct cht_value_ref *ref, struct cht_err *err)
{
    uint64_t local = key <= v->shard ? 0 : (key - v->shard + v->shards - 1) / v->shards,
             end = cht_get64(header(v) + CHT_KEYS_NEXT);
    while (local < end) {
        uint64_t page = entry_off(local) / CHT_PAGE,
                 stop = (page * CHT_PAGE) / CHT_ENTRY; /* first local of the next page */
        if (cht_pf_known_zeros(v->keys, page)) {       /* dead keys only */
            local = stop;
            continue;
        }
        const uint8_t *p = cht_page_read(v->keys, page, err);
        if (p == NULL)
            return CHT_CORRUPT;
        stop = stop < end ? stop : end;
        for (; local < stop; local++) {
            const uint8_t *e = p + entry_off(local) % CHT_PAGE;
            if (cht_get16(e + 6) != CHT_ENTRY_LIVE || (length != 0 && cht_get32(e + 8) != length))
                continue;
            *found = local * v->shards + v->shard;
            return cht_values_find(v, *found, ref, err);
        }
        if (cht_pf_lost(v->keys, page))
            return cht_pf_say_lost(v->keys, page, err);
    }
    return header_there(v, err) == CHT_OK ? CHT_KEY_NOT_FOUND : CHT_CORRUPT;
}

bool cht_values_dead_page(const struct cht_values *v, uint64_t page, const uint8_t *copy)
{
    if (page == 0 || page * (CHT_PAGE / CHT_ENTRY) > cht_get64(header(v) + CHT_KEYS_NEXT))
        return false;
    for (unsigned at = 0; at < CHT_PAGE; at += CHT_ENTRY) {
        if (cht_get16(copy + at + 6) == CHT_ENTRY_LIVE)
            return false;
    }
    return true;
}

/* Puts an extent that is in no list into the second list of pending ones. */
static enum cht_rc pend(struct cht_values *v, uint32_t ref, struct cht_err *err)
{
    struct cht_err e = {0};
    uint8_t *r = cht_record_write(v, ref, &e);
    if (r == NULL)
        return code(&e, err);
    r[CHT_EX_STATE] = CHT_EXT_PENDING_B;
    return cht_extent_link(v, 0, CHT_RC_PENDING_B, ref, err);
}

/* Moves every extent of a pending list: to the other list, or to the free ones. */
static enum cht_rc drain(struct cht_values *v, unsigned from, bool to_free, struct cht_err *err)
{
    for (;;) {
        const uint8_t *h = cht_page_read(v->recycle, 0, err);
        uint32_t ref = h == NULL ? 0 : cht_get32(h + from);
        if (ref == 0)
            return h == NULL ? CHT_CORRUPT : CHT_OK;
        const uint8_t *x = cht_extent(v, ref, err);
        if (x == NULL)
            return CHT_CORRUPT;
        if (x[CHT_EX_STATE] !=
            (from == CHT_RC_PENDING_A ? CHT_EXT_PENDING_A : CHT_EXT_PENDING_B)) /* also a circle */
            return CHT_DAMAGED(err, "%s: offset %llu: an extent in the list of pending ones is not pending",
                               cht_pf_path(v->recycle), (unsigned long long)ref * 64);
        bool mine = begin(v);
        enum cht_rc rc = cht_extent_unlink(v, 0, from, ref, err);
        if (rc == CHT_OK)
            rc = to_free ? cht_extent_free(v, ref, err) : pend(v, ref, err);
        finish(v, mine, rc == CHT_OK);
        if (rc != CHT_OK)
            return rc;
    }
}

enum cht_rc cht_values_checkpoint_freeze(struct cht_values *v, struct cht_err *err)
{
    return drain(v, CHT_RC_PENDING_A, false, err);
}

enum cht_rc cht_values_checkpoint_complete(struct cht_values *v, bool pinned, struct cht_err *err)
{
    return pinned ? CHT_OK : drain(v, CHT_RC_PENDING_B, true, err);
}

enum cht_rc cht_values_recovered(struct cht_values *v, struct cht_err *err)
{
    enum cht_rc rc = drain(v, CHT_RC_PENDING_A, true, err);
    if (rc == CHT_OK)
        rc = drain(v, CHT_RC_PENDING_B, true, err);
    uint64_t limit = cht_pf_pages(v->values) * CHT_PAGE_GRANULES;
    for (unsigned at = CHT_RC_FREE; at < CHT_RC_FREE + 128 && rc == CHT_OK; at += 4) {
        const uint8_t *h = cht_page_read(v->recycle, 0, err);
        uint32_t ref = h == NULL ? 0 : cht_get32(h + at);
        while (ref != 0 && rc == CHT_OK) {
            const uint8_t *r = cht_extent(v, ref, err);
            if (r == NULL || limit-- == 0)
                return r == NULL ? CHT_CORRUPT
                                 : CHT_DAMAGED(err, "%s: a list of free extents is a circle",
                                               cht_pf_path(v->recycle));
            uint64_t s = cht_get32(r + CHT_EX_START), end = s + cht_get32(r + CHT_EX_GRANULES);
            uint64_t first = (s + CHT_PAGE_GRANULES - 1) / CHT_PAGE_GRANULES, last = end / CHT_PAGE_GRANULES;
            ref = cht_get32(r + CHT_EX_NEXT);
            if (first < last)
                rc = cht_pf_release(v->values, first, last - first, err);
        }
    }
    return rc;
}

enum cht_rc cht_values_lengths(struct cht_values *v, void (*fn)(void *ctx, const struct cht_length_stat *),
                               void *ctx, struct cht_err *err)
{
    uint32_t key = 0, ref;
    for (;; key++) {
        enum cht_rc rc = cht_radix_next(v->recycle, CHT_RC_LENGTHS, &key, &ref, err);
        if (rc != CHT_OK)
            return rc == CHT_KEY_NOT_FOUND ? CHT_OK : rc;
        const uint8_t *c = cht_record(v, ref, err);
        if (c == NULL)
            return CHT_CORRUPT;
        if (cht_get32(c + CHT_CL_LENGTH) != key + 1) /* also: a table that hangs in several places */
            return CHT_DAMAGED(err, "%s: offset %llu: the record of another length", cht_pf_path(v->recycle),
                               (unsigned long long)ref * 64);
        struct cht_length_stat st = {key + 1, cht_get64(c + CHT_CL_LIVE), cht_get64(c + CHT_CL_SLOTS),
                                     cht_get64(c + CHT_CL_EXTENTS)};
        fn(ctx, &st);
    }
}
