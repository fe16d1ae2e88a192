/* pages: see pages.h. */
#include "store/rados/pages.h"

#include "base/alloc.h"
#include "os/code.h"
#include "store/rados/txn.h"

#include <string.h>

static int answer_of(struct cht_page_asked *a)
{
    int r = cht_call_wait(&a->call);
    if (r == 0 && a->rows_rc < 0)
        r = a->rows_rc;
    return r == 0 && a->state_rc < 0 ? a->state_rc : r;
}

static int ask(struct cht_rdb *db, const struct cht_raw_wanted *want, struct cht_page_asked *a)
{
    cht_page_ask(db, want, a);
    return answer_of(a);
}

static void end_answer(struct cht_page_asked *a)
{
    if (a->rows != NULL)
        rados_omap_get_end(a->rows);
    if (a->state != NULL)
        rados_omap_get_end(a->state);
}

/* *divided: some rows are another shard's. */
static bool take_state(struct cht_page_asked *a, struct cht_epoch *e, bool *divided)
{
    char *k = NULL, *v = NULL;
    size_t kn = 0, vn = 0;
    bool good = false;
    *divided = false;
    while (rados_omap_get_next2(a->state, &k, &v, &kn, &vn) == 0 && k != NULL) {
        if (kn == 1 && k[0] == 'E')
            good = cht_row_epoch_read((const uint8_t *)v, vn, e);
        else
            *divided = true;
    }
    return good;
}

static enum cht_rc add(struct cht_buf *b, struct cht_str s, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    if (b->len + s.n > b->cap)
        rc = cht_buf_reserve(b, (b->len + s.n) * 2, err);
    if (rc == CHT_OK && b->data != NULL && s.n > 0) {
        memcpy(b->data + b->len, s.p, s.n);
        b->len += s.n;
    }
    return rc;
}

/* The bytes do not move any more. */
static void point(struct cht_page *p, const struct cht_buf *bytes)
{
    p->bytes = bytes->data;
    p->size = bytes->len;
    for (size_t i = 0, at = 0; i < p->n; i++) {
        p->rows[i].name.p = p->bytes + at;
        p->rows[i].value.p = p->bytes + at + p->rows[i].name.n;
        at += p->rows[i].name.n + p->rows[i].value.n;
    }
}

static enum cht_rc take_rows(struct cht_page_asked *a, struct cht_page *out, struct cht_err *err)
{
    char *k = NULL, *v = NULL;
    size_t kn = 0, vn = 0, cap = rados_omap_iter_size(a->rows);
    struct cht_buf bytes = {0};
    enum cht_rc rc = CHT_OK;
    out->rows = cht_calloc(cap + 1, sizeof *out->rows);
    if (out->rows == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu rows", cap);
    while (rc == CHT_OK && out->n < cap && rados_omap_get_next2(a->rows, &k, &v, &kn, &vn) == 0 &&
           k != NULL) {
        rc = add(&bytes, (struct cht_str){(const uint8_t *)k, kn}, err);
        if (rc == CHT_OK)
            rc = add(&bytes, (struct cht_str){(const uint8_t *)v, vn}, err);
        if (rc == CHT_OK)
            out->rows[out->n++] = (struct cht_page_row){{NULL, kn}, {NULL, vn}};
    }
    point(out, &bytes);
    out->more = a->more != 0 && out->n > 0;
    return rc;
}

/* Leaves out the rows that are another shard's. */
static enum cht_rc sift(const struct cht_map *m, unsigned shard, struct cht_page *p, struct cht_err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        uint32_t bucket;
        if (!cht_row_bucket_of(p->rows[i].name, &bucket))
            return CHT_FAIL(err, CHT_CORRUPT, "shard %u: the name of a row cannot be read", shard);
        if (cht_map_locate(m, bucket) == shard)
            p->rows[n++] = p->rows[i];
    }
    p->n = n;
    return CHT_OK;
}

enum answered { GOOD, AGAIN, STALE };

/* What E says about an answer: it can be used, it is to be asked again, or the map is old. */
static enum cht_rc judge(struct cht_rdb *db, const struct cht_map *m, unsigned shard,
                         const struct cht_epoch *e, enum answered *out, struct cht_err *err)
{
    uint32_t expected = cht_map_epoch(m, shard);
    bool again = false;
    cht_rdb_learn(db, e);
    *out = e->epoch > expected ? STALE : GOOD;
    if (*out == STALE)
        return CHT_OK;
    if (e->epoch < expected && e->lock == 0)
        return CHT_FAIL(err, CHT_CORRUPT, "database %s: shard %u is older than the map of the shards",
                        db->name, shard);
    enum cht_rc rc = CHT_OK;
    if (e->lock != 0)
        rc = cht_txn_settle(db, shard, e, e->epoch < expected, &again, err);
    *out = again ? AGAIN : GOOD;
    return rc;
}

/* One shard's page by this map. If all of its rows are another's and there are more, those that follow. */
static enum cht_rc read_shard(struct cht_rdb *db, const struct cht_map *m, const struct cht_raw_wanted *want,
                              struct cht_page *out, bool *stale, struct cht_err *err)
{
    struct cht_raw_wanted w = *want;
    struct cht_buf after = {0};
    enum cht_rc rc = CHT_OK;
    enum answered how = AGAIN;
    *out = (struct cht_page){0};
    *stale = false;
    while (rc == CHT_OK && how == AGAIN) {
        struct cht_page_asked a;
        struct cht_epoch e = {0};
        bool divided = false;
        cht_page_free(out);
        int r = ask(db, &w, &a);
        if (r < 0)
            rc = cht_rdb_rc(db, r, "shard", err);
        else if (!take_state(&a, &e, &divided))
            rc = CHT_FAIL(err, CHT_CORRUPT, "database %s: shard %u has no epoch", db->name, w.shard);
        if (rc == CHT_OK)
            rc = judge(db, m, w.shard, &e, &how, err);
        if (rc == CHT_OK && how == GOOD)
            rc = take_rows(&a, out, err);
        end_answer(&a);
        if (rc != CHT_OK || how != GOOD || !divided)
            continue;
        if (out->more)
            rc = cht_page_last(out, &after, err);
        if (rc == CHT_OK)
            rc = sift(m, w.shard, out, err);
        if (rc == CHT_OK && out->n == 0 && out->more) {
            w.after = (const char *)after.data;
            how = AGAIN;
        }
    }
    *stale = how == STALE;
    cht_buf_free(&after);
    return rc;
}

/* ---- a class that is several shards ---------------------------------------------------------------------------------- */

static int order(struct cht_str a, struct cht_str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n > 0 ? memcmp(a.p, b.p, n) : 0;
    return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

static size_t first_of(const struct cht_page *p, const size_t *at, size_t n)
{
    size_t best = n;
    for (size_t i = 0; i < n; i++) {
        if (at[i] < p[i].n && (best == n || order(p[i].rows[at[i]].name, p[best].rows[at[best]].name) < 0))
            best = i;
    }
    return best;
}

/* In order, up to where the first of them ends that has more. */
static enum cht_rc merge(const struct cht_page *p, size_t n, struct cht_page *out, struct cht_err *err)
{
    size_t at[CHT_MAP_MAX] = {0}, rows = 1;
    struct cht_buf bytes = {0};
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < n; i++)
        rows += p[i].n;
    out->rows = cht_calloc(rows, sizeof *out->rows);
    if (out->rows == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu rows", rows);
    for (size_t i; rc == CHT_OK && !out->more && (i = first_of(p, at, n)) < n;) {
        const struct cht_page_row *r = &p[i].rows[at[i]++];
        rc = add(&bytes, r->name, err);
        if (rc == CHT_OK)
            rc = add(&bytes, r->value, err);
        if (rc == CHT_OK)
            out->rows[out->n++] = (struct cht_page_row){{NULL, r->name.n}, {NULL, r->value.n}};
        out->more = at[i] == p[i].n && p[i].more;
    }
    point(out, &bytes);
    return rc;
}

static enum cht_rc read_class(struct cht_rdb *db, const struct cht_map *m, const struct cht_page_wanted *want,
                              struct cht_page *out, bool *stale, struct cht_err *err)
{
    struct cht_page *p = cht_calloc(m->shards, sizeof *p);
    size_t n = 0;
    enum cht_rc rc = p == NULL ? CHT_FAIL(err, CHT_NO_MEMORY, "no memory for pages") : CHT_OK;
    *stale = false;
    for (unsigned s = cht_map_next(m, 0); s < CHT_MAP_MAX && rc == CHT_OK && !*stale;
         s = cht_map_next(m, s + 1)) {
        if (cht_map_in_class(s, want->shard, want->level))
            rc = read_shard(db, m, &(struct cht_raw_wanted){s, want->after, want->prefix, want->rows},
                            &p[n++], stale, err);
    }
    if (rc == CHT_OK && !*stale && n == 1) {
        *out = p[0];
        p[0] = (struct cht_page){0};
    } else if (rc == CHT_OK && !*stale) {
        rc = merge(p, n, out, err);
    }
    for (size_t i = 0; i < n; i++)
        cht_page_free(&p[i]);
    cht_free(p);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

void cht_page_free(struct cht_page *p)
{
    cht_free(p->rows);
    cht_free(p->bytes);
    *p = (struct cht_page){0};
}

enum cht_rc cht_page_last(const struct cht_page *p, struct cht_buf *out, struct cht_err *err)
{
    const struct cht_str *last = &p->rows[p->n - 1].name;
    enum cht_rc rc = cht_buf_reserve(out, last->n + 1, err);
    if (rc != CHT_OK || out->data == NULL)
        return rc;
    memcpy(out->data, last->p, last->n);
    out->data[last->n] = 0;
    out->len = last->n;
    return CHT_OK;
}

void cht_page_ask(struct cht_rdb *db, const struct cht_raw_wanted *want, struct cht_page_asked *a)
{
    static const char *const names[] = {"D", "E"};
    static const size_t lens[] = {1, 1};
    char object[CHT_LINK_OBJECT_MAX];
    *a = (struct cht_page_asked){.call = cht_call_read()};
    cht_rdb_shard_name(object, want->shard);
    rados_read_op_omap_get_vals_by_keys2(a->call.r, names, 2, lens, &a->state, &a->state_rc);
    rados_read_op_omap_get_vals2(a->call.r, want->after, want->prefix, want->rows, &a->rows, &a->more,
                                 &a->rows_rc);
    cht_call_start(&a->call, db->io, object);
}

enum cht_rc cht_page_answer(struct cht_rdb *db, struct cht_page_asked *a, struct cht_epoch *e,
                            struct cht_page *out, struct cht_err *err)
{
    bool divided;
    *e = (struct cht_epoch){0};
    *out = (struct cht_page){0};
    int r = answer_of(a);
    if (r == 0 && a->state != NULL)
        (void)take_state(a, e, &divided); /* else it is 0 */
    enum cht_rc rc = r < 0 ? cht_rdb_rc(db, r, "shard", err) : take_rows(a, out, err);
    end_answer(a);
    return rc;
}

enum cht_rc cht_page_raw(struct cht_rdb *db, const struct cht_raw_wanted *want, struct cht_page *out,
                         struct cht_err *err)
{
    struct cht_page_asked a;
    *out = (struct cht_page){0};
    int r = ask(db, want, &a);
    enum cht_rc rc = r < 0 ? cht_rdb_rc(db, r, "shard", err) : take_rows(&a, out, err);
    end_answer(&a);
    return rc;
}

enum cht_rc cht_page_read(struct cht_rdb *db, const struct cht_page_wanted *want, struct cht_page *out,
                          struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    bool stale = true;
    *out = (struct cht_page){0};
    while (rc == CHT_OK && stale) {
        const struct cht_map *m = cht_rdb_map(db);
        cht_page_free(out);
        rc = read_class(db, m, want, out, &stale, err);
        if (rc == CHT_OK && stale && m == cht_rdb_map(db))
            rc = cht_rdb_reload(db, err);
    }
    return rc;
}

struct each {
    struct cht_rdb *db;
    bool raw; /* of a shard as it is, not of a class */
    struct cht_page_wanted want;
    struct cht_raw_wanted raw_want;
};

static enum cht_rc each(struct each *e, cht_page_fn *fn, void *ctx, struct cht_err *err)
{
    struct cht_buf after = {0};
    enum cht_rc rc = CHT_OK;
    bool more = true;
    while (rc == CHT_OK && more) {
        struct cht_page page;
        rc = e->raw ? cht_page_raw(e->db, &e->raw_want, &page, err)
                    : cht_page_read(e->db, &e->want, &page, err);
        if (rc == CHT_OK)
            rc = fn(ctx, &page, err);
        more = page.more && page.n > 0;
        if (rc == CHT_OK && more)
            rc = cht_page_last(&page, &after, err);
        if (rc == CHT_OK && more)
            e->want.after = e->raw_want.after = (const char *)after.data;
        cht_page_free(&page);
    }
    cht_buf_free(&after);
    return rc;
}

enum cht_rc cht_page_each(struct cht_rdb *db, const struct cht_page_wanted *want, cht_page_fn *fn, void *ctx,
                          struct cht_err *err)
{
    return each(&(struct each){.db = db, .want = *want}, fn, ctx, err);
}

enum cht_rc cht_page_each_raw(struct cht_rdb *db, const struct cht_raw_wanted *want, cht_page_fn *fn,
                              void *ctx, struct cht_err *err)
{
    return each(&(struct each){.db = db, .raw = true, .raw_want = *want}, fn, ctx, err);
}
