/* sweep: see cheetah/sweep.h: shard after shard, in the calling thread. */
#include "base/alloc.h"
#include "store/rados/scan.h"
#include "store/rados/stream.h"

#include <string.h>

/* A long value, which a batch does not carry. */
static enum cht_rc take_long(struct cht_rdb *db, struct cht_entry *e, struct cht_buf *long_value,
                             struct cht_err *err)
{
    enum cht_rc rc = cht_store_get(&db->base, e->key, long_value, NULL, err);
    e->flags &= ~CHT_ENTRY_LARGE;
    if (rc == CHT_OK) {
        e->value = long_value->data;
        e->size = e->value_len = (uint32_t)long_value->len;
    } else if (rc == CHT_KEY_NOT_FOUND) {
        e->flags |= CHT_ENTRY_DANGLING;
        e->size = 0;
    } else if (rc == CHT_CORRUPT) {
        e->flags |= CHT_ENTRY_CORRUPT;
    } else {
        return rc;
    }
    return CHT_OK;
}

/* Shows a batch: short values together, each long one by itself. */
static enum cht_rc show(struct cht_rdb *db, const struct cht_sweep_config *cfg, struct cht_stream_batch *b,
                        bool *enough, struct cht_err *err)
{
    struct cht_buf long_value = {0};
    enum cht_rc rc = CHT_OK;
    size_t from = 0;
    for (size_t i = 0; i < b->n && !*enough && rc == CHT_OK; i++) {
        struct cht_entry *e = &b->entries[i];
        if (!cfg->names)
            e->name = NULL;
        if (cfg->sizes || (e->flags & CHT_ENTRY_LARGE) == 0)
            continue;
        if (i > from)
            *enough = !cfg->visit(cfg->ctx, b->entries + from, i - from);
        from = i + 1;
        if (!*enough)
            rc = take_long(db, e, &long_value, err);
        if (!*enough && rc == CHT_OK)
            *enough = !cfg->visit(cfg->ctx, e, 1);
    }
    if (b->n > from && !*enough && rc == CHT_OK)
        *enough = !cfg->visit(cfg->ctx, b->entries + from, b->n - from);
    cht_buf_free(&long_value);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_rscan_sweep(struct cht_store *s, const struct cht_sweep_config *cfg, struct cht_err *err)
{
    struct cht_rdb *db = cht_rdb(s);
    struct cht_scan_config scan = {.kind = CHT_SCAN_PAIRS,
                                   .prefix = cfg->prefix,
                                   .after = cfg->after,
                                   .until = cfg->until,
                                   .values = true};
    struct cht_rscan_config c;
    bool enough = false;
    enum cht_rc rc = cht_rscan_config(db, &scan, &c, err);
    for (unsigned i = cht_map_next(c.map, 0); i < CHT_MAP_MAX && rc == CHT_OK && !enough;
         i = cht_map_next(c.map, i + 1)) {
        struct cht_rstream stream;
        bool last = false;
        cht_rstream_init(&stream, &c, i, 0);
        while (rc == CHT_OK && !last && !enough) {
            struct cht_stream_batch *b;
            rc = cht_rstream_next(&stream, &b, err);
            if (rc != CHT_OK)
                break;
            last = b->last;
            rc = show(db, cfg, b, &enough, err);
            cht_stream_batch_free(b);
        }
        cht_rstream_fini(&stream);
    }
    cht_rscan_config_free(&c);
    return rc;
}
