/* reads: the store's calls on RADOS that read, and the table of all of them. Each waits for the cluster, but for the calls named _soon (soon.h). */
#include "base/alloc.h"
#include "store/rados/backup.h"
#include "store/rados/commit.h"
#include "store/rados/ends.h"
#include "store/rados/figures.h"
#include "store/rados/follow.h"
#include "store/rados/scan.h"
#include "store/rados/soon.h"

#include <string.h>

static enum cht_rc get(struct cht_store *s, uint64_t key, struct cht_buf *out, uint32_t *size,
                       struct cht_wait *w, struct cht_err *err)
{
    struct cht_op op = {.kind = CHT_OP_READ, .key = key, .buf = out};
    enum cht_rc rc = cht_soon_read(cht_rdb(s), &op, w, err);
    if (rc == CHT_OK && size != NULL)
        *size = op.size;
    return rc;
}

static enum cht_rc pair(struct cht_store *s, struct cht_str name, uint64_t *key, struct cht_wait *w,
                        struct cht_err *err)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_READ, .name = name};
    enum cht_rc rc = cht_soon_read(cht_rdb(s), &op, w, err);
    if (rc == CHT_OK)
        *key = op.key;
    return rc;
}

static enum cht_rc pair_value(struct cht_store *s, struct cht_str name, struct cht_pair_value *pv,
                              struct cht_wait *w, struct cht_err *err)
{
    struct cht_op op = {.kind = CHT_OP_PAIR_READ, .name = name, .with_values = !pv->mapping, .buf = pv->out};
    enum cht_rc rc = cht_soon_read(cht_rdb(s), &op, w, err);
    pv->key = rc == CHT_OK || rc == CHT_CORRUPT ? op.key : 0;
    pv->size = rc == CHT_OK ? op.size : 0;
    pv->ends = rc == CHT_OK || rc == CHT_CORRUPT ? op.ends : 0;
    return rc;
}

static enum cht_rc pair_values(struct cht_store *s, struct cht_pair_read *r, size_t n, struct cht_buf *out,
                               struct cht_wait *w, struct cht_err *err)
{
    return cht_soon_pair_values(cht_rdb(s), r, n, out, w, err);
}

static void forget(struct cht_store *s, struct cht_wait *w)
{
    (void)s;
    cht_soon_forget(w);
}

static enum cht_rc lock(struct cht_store *s, const char *name, struct cht_err *err)
{
    return cht_guard_take(cht_rdb(s), name, err);
}

static void unlock(struct cht_store *s, const char *name) { cht_guard_give(cht_rdb(s), name); }

static enum cht_rc locks_kept(struct cht_store *s, struct cht_err *err)
{
    return cht_guards_kept(cht_rdb(s), err);
}

static bool enter(struct cht_store *s, struct cht_wait *w)
{
    (void)s;
    (void)w;
    return true;
}

static void leave(struct cht_store *s) { (void)s; }

static size_t prefetch(struct cht_store *s, const struct cht_hint *h, size_t n)
{
    (void)s;
    (void)h;
    (void)n;
    return 0;
}

static enum cht_rc count(struct cht_store *s, struct cht_str prefix, uint64_t *pairs, struct cht_wait *w,
                         struct cht_err *err)
{
    return cht_soon_count(cht_rdb(s), prefix, pairs, w, err);
}

/* ---- values in pieces: held in memory ------------------------------------------------------------------------------ */

struct whole {
    struct cht_value base; /* first */
    struct cht_buf bytes;
};

static void value_close(struct cht_value *v)
{
    cht_buf_free(&((struct whole *)(void *)v)->bytes);
    cht_free(v);
}

static enum cht_rc value_open(struct cht_store *s, uint64_t key, struct cht_value **out, uint32_t *size,
                              struct cht_wait *w, struct cht_err *err)
{
    struct whole *v = cht_calloc(1, sizeof *v);
    if (v == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a value handle");
    v->base.store = s;
    enum cht_rc rc = get(s, key, &v->bytes, size, w, err);
    if (rc != CHT_OK) {
        value_close(&v->base);
        return rc;
    }
    *out = &v->base;
    return CHT_OK;
}

static enum cht_rc value_read(struct cht_value *value, uint32_t offset, void *buf, size_t n, size_t *got,
                              struct cht_err *err)
{
    const struct whole *v = (const struct whole *)(const void *)value;
    (void)err;
    *got = offset < v->bytes.len ? v->bytes.len - offset : 0;
    *got = *got < n ? *got : n;
    if (*got > 0)
        memcpy(buf, v->bytes.data + offset, *got);
    return CHT_OK;
}

/* ---- service ------------------------------------------------------------------------------------------------------- */

static enum cht_rc checkpoint(struct cht_store *s, struct cht_err *err)
{
    struct cht_rdb *db = cht_rdb(s); /* what is acknowledged is where it belongs */
    return cht_cut_trim(db, err);
}

static enum cht_rc stats(struct cht_store *s, struct cht_store_stats *out, struct cht_err *err)
{
    return cht_figures_stats(cht_rdb(s), out, err);
}

static void stats_ask(struct cht_store *s) { cht_figures_ask(cht_rdb(s)); }

static bool stats_kept(struct cht_store *s, struct cht_store_stats *out, uint64_t *asked)
{
    return cht_figures_kept(cht_rdb(s), out, asked);
}

static enum cht_rc shards(struct cht_store *s, void (*fn)(void *, const struct cht_shard_stat *), void *ctx,
                          struct cht_err *err)
{
    struct cht_rdb *db = cht_rdb(s);
    struct cht_shard_counts *c;
    char where[200];
    enum cht_rc rc = cht_figures_totals(db, &c, err);
    const struct cht_map *m = cht_rdb_map(db);
    for (unsigned i = cht_map_next(m, 0); i < CHT_MAP_MAX && rc == CHT_OK; i = cht_map_next(m, i + 1)) {
        (void)snprintf(where, sizeof where, "%s/%s/s.%u", db->env->pool, db->uuid, i);
        fn(ctx, &(struct cht_shard_stat){.shard = i,
                                         .dir = where,
                                         .pairs = c[i].pairs,
                                         .values = c[i].values,
                                         .value_bytes = c[i].value_bytes});
    }
    cht_free(c);
    return rc;
}

static enum cht_rc not_here(const char *what, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_NOT_SUPPORTED, "%s: the data lies in a Ceph cluster", what);
}

static enum cht_rc shape(struct cht_store *s, struct cht_shape_stat *out, struct cht_err *err)
{
    (void)s;
    *out = (struct cht_shape_stat){0};
    return not_here("there are no tries to look at", err);
}

static enum cht_rc lengths(struct cht_store *s, void (*fn)(void *, const struct cht_length_stat *), void *ctx,
                           struct cht_err *err)
{
    (void)s;
    (void)fn;
    (void)ctx;
    return not_here("there is no catalogue of lengths", err);
}

static enum cht_rc scrub(struct cht_store *s, struct cht_scrub *sc, struct cht_err *err)
{
    (void)s;
    sc->bytes = sc->bad = 0;
    return not_here("the OSDs scrub", err);
}

static struct cht_watches *watches(struct cht_store *s) { return cht_rdb(s)->seen.watches; }

/* Nobody tells what other servers write: it is asked for. */
static bool settle(struct cht_store *s, bool wait)
{
    uint64_t removed;
    bool good = wait;
    if (wait && cht_seen_look(cht_rdb(s))) {
        good = cht_ends_purge(cht_rdb(s), &removed, NULL) == CHT_OK;
        if (good)
            (void)cht_seen_look(cht_rdb(s)); /* V7 */
    }
    if (wait && !good) /* pairs that have ended may be in answers that are kept */
        cht_watches_report(cht_rdb(s)->seen.watches, NULL, true);
    return good;
}

/* ------------------------------------------------------------------------------------------------------------------ */

const struct cht_store_ops cht_rdb_ops = {
    .remote = true,
    .get = get,
    .pair = pair,
    .pair_value = pair_value,
    .pair_values = pair_values,
    .forget = forget,
    .lock = lock,
    .unlock = unlock,
    .locks_kept = locks_kept,
    .settle = settle,
    .enter = enter,
    .leave = leave,
    .prefetch = prefetch,
    .count = count,
    .children = cht_rscan_children,
    .value_open = value_open,
    .value_read = value_read,
    .value_close = value_close,
    .commit = cht_rcommit_run,
    .submit = cht_rcommit_submit,
    .checkpoint = checkpoint,
    .stats = stats,
    .stats_ask = stats_ask,
    .stats_kept = stats_kept,
    .shape = shape,
    .lengths = lengths,
    .shards = shards,
    .scrub = scrub,
    .scan_open = cht_rscan_open,
    .scan_next = cht_rscan_next,
    .scan_exhausted = cht_rscan_exhausted,
    .scan_cancel = cht_rscan_cancel,
    .scan_close = cht_rscan_close,
    .scan_memory = cht_rscan_memory,
    .sweep = cht_rscan_sweep,
    .watches = watches,
    .changes_open = cht_rchanges_open,
    .changes_range = cht_rchanges_range,
    .backup_open = cht_rbackup_open,
};
