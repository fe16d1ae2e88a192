/* ends: see ends.h. */
#include "store/rados/ends.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "store/rados/pages.h"
#include "store/rados/txn.h"

#include <string.h>

#define FIRST_ROWS 8u /* most of the time none has ended */
#define PURGE_ROWS 500u

struct purge {
    struct cht_rdb *db;
    uint64_t now, removed;
};

static enum cht_rc no_memory(struct cht_err *err)
{
    return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for pairs that have ended");
}

/* The names of a page that have ended. A row that cannot be read is passed over: others' ends do not wait for it, and a check finds it. False: there
 * is one that has not ended. */
static bool take_names(const struct purge *p, const struct cht_page *page, uint8_t *names, struct cht_op *ops,
                       size_t *n)
{
    size_t at = 0;
    *n = 0;
    for (size_t i = 0; i < page->n; i++) {
        struct cht_str escaped;
        uint64_t ends = cht_row_end(page->rows[i].name, &escaped);
        size_t len = ends != 0 ? cht_row_unescape(names + at, escaped.p, escaped.n) : SIZE_MAX;
        if (len == SIZE_MAX)
            continue;
        if (ends > p->now)
            return false;
        ops[(*n)++] = (struct cht_op){.kind = CHT_OP_PURGE, .name = {names + at, len}};
        at += len;
    }
    return true;
}

static enum cht_rc purge_page(struct purge *p, const struct cht_page *page, bool *all, struct cht_err *err)
{
    const struct cht_fences none = {.n = 0};
    struct cht_op *ops = cht_calloc(page->n + 1, sizeof *ops);
    struct cht_exec_op *run = cht_calloc(page->n + 1, sizeof *run);
    uint8_t *names = cht_malloc(page->size + 1);
    size_t n = 0;
    enum cht_rc rc = ops == NULL || run == NULL || names == NULL ? no_memory(err) : CHT_OK;
    *all = rc == CHT_OK && take_names(p, page, names, ops, &n);
    for (size_t i = 0; i < n && rc == CHT_OK; i++)
        run[i].op = &ops[i];
    if (n > 0 && rc == CHT_OK)
        rc = cht_ends_commit(p->db, &none, run, n, err);
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        p->removed += ops[i].rc == CHT_OK && ops[i].pairs > 0;
        rc = ops[i].rc;
    }
    cht_free(names);
    cht_free(run);
    cht_free(ops);
    return rc;
}

static enum cht_rc purge_shard(struct purge *p, const struct cht_map *m, unsigned shard, struct cht_err *err)
{
    struct cht_buf after = {0};
    enum cht_rc rc = CHT_OK;
    unsigned rows = FIRST_ROWS;
    bool more = true;
    while (rc == CHT_OK && more) {
        struct cht_page page;
        bool all = false;
        const char *from = after.data != NULL ? (const char *)after.data : "";
        rc = cht_page_read(p->db, &(struct cht_page_wanted){shard, m->level[shard], from, "T", rows}, &page,
                           err);
        if (rc == CHT_OK)
            rc = purge_page(p, &page, &all, err);
        more = rc == CHT_OK && all && page.more && page.n > 0;
        if (more)
            rc = cht_page_last(&page, &after, err);
        cht_page_free(&page);
        cht_rdb_step(p->db, "purge-page");
        if (rc == CHT_OK)
            rc = cht_rdb_closes(p->db, err);
        rows = PURGE_ROWS;
    }
    cht_buf_free(&after);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_ends_commit(struct cht_rdb *db, const struct cht_fences *fences, struct cht_exec_op *ops,
                            size_t n, struct cht_err *err)
{
    struct cht_rowset set;
    struct cht_exec x = {.db = db, .set = &set, .err = err};
    bool refused = true;
    enum cht_rc rc = CHT_OK;
    cht_rowset_init(&set, db, -1);
    while (rc == CHT_OK && refused) {
        cht_rowset_restart(&set);
        for (size_t i = 0; i < n; i++)
            if (cht_exec_run(&x, &ops[i]) == CHT_PENDING)
                rc = CHT_PENDING;
        if (rc == CHT_OK)
            rc = cht_fences_look_all(fences, &set, err);
        if (rc == CHT_PENDING) {
            rc = cht_rowset_fetch(&set, true, err);
            continue;
        }
        if (rc == CHT_OK)
            rc = cht_txn_commit(&set, &refused, err);
        if (rc == CHT_OK && refused) {
            cht_sleep_ns(UINT64_C(1000000) << (set.tries < 6 ? set.tries : 6));
            set.tries++;
            cht_rowset_renew(&set);
        }
    }
    if (rc == CHT_OK)
        cht_parts_sweep(&set);
    cht_rowset_fini(&set);
    return rc;
}

enum cht_rc cht_ends_purge(struct cht_rdb *db, uint64_t *removed, struct cht_err *err)
{
    struct purge p = {.db = db, .now = cht_wall_ns() / 1000000};
    const struct cht_map *m = cht_rdb_map(db);
    enum cht_rc rc = CHT_OK;
    for (unsigned s = cht_map_next(m, 0); s < CHT_MAP_MAX && rc == CHT_OK; s = cht_map_next(m, s + 1))
        rc = purge_shard(&p, m, s, err);
    *removed = p.removed;
    atomic_fetch_add_explicit(&db->ended, p.removed, memory_order_relaxed);
    return rc;
}
