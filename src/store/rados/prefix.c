/* prefix: see prefix.h. */
#include "store/rados/prefix.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "store/rados/exec.h"
#include "store/rados/pages.h"
#include "store/rados/txn.h"

#include <string.h>

#define DELETE_ROWS 500u

static char *prefix_row(char kind, struct cht_str prefix)
{
    uint8_t *p = cht_malloc(2 * prefix.n + 2);
    if (p != NULL)
        p[cht_row_of_name(p, kind, prefix)] = 0;
    return (char *)p;
}

static enum cht_rc no_memory(struct cht_err *err)
{
    return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a prefix");
}

/* ---- deleting ------------------------------------------------------------------------------------------------------ */

/* The pairs of one page, as one transaction: their values may lie in other shards. What is gone meanwhile does not count. */
static enum cht_rc delete_names(const struct cht_fences *fences, struct cht_rdb *db, struct cht_exec_op *ops,
                                size_t n, struct cht_op *sum, struct cht_err *err)
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
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        if (ops[i].op->rc == CHT_OK) {
            sum->pairs++;
            sum->values += ops[i].op->values;
        } else if (ops[i].op->rc != CHT_PAIR_NOT_FOUND) {
            rc = ops[i].op->rc;
        }
    }
    return rc;
}

static enum cht_rc delete_page(const struct cht_fences *fences, struct cht_rdb *db,
                               const struct cht_page *page, struct cht_op *sum, struct cht_err *err)
{
    struct cht_op *ops = cht_calloc(page->n + 1, sizeof *ops);
    struct cht_exec_op *run = cht_calloc(page->n + 1, sizeof *run);
    uint8_t *names = cht_malloc(page->size + 1);
    enum cht_rc rc = ops == NULL || run == NULL || names == NULL ? no_memory(err) : CHT_OK;
    size_t at = 0;
    for (size_t i = 0; i < page->n && rc == CHT_OK; i++) {
        size_t n = cht_row_unescape(names + at, page->rows[i].name.p + 1, page->rows[i].name.n - 1);
        if (n == SIZE_MAX) {
            rc = CHT_FAIL(err, CHT_CORRUPT, "database %s: the row of a name cannot be read", db->name);
            break;
        }
        ops[i] = (struct cht_op){
            .kind = CHT_OP_PAIR_DEL, .name = {names + at, n}, .with_values = sum->with_values};
        run[i].op = &ops[i];
        at += n;
    }
    if (rc == CHT_OK && page->n > 0)
        rc = delete_names(fences, db, run, page->n, sum, err);
    cht_free(names);
    cht_free(run);
    cht_free(ops);
    return rc;
}

/* ---- counting ------------------------------------------------------------------------------------------------------ */

/* Rows of every shard, by name; fn is called for each shard and row. */
static enum cht_rc every_shard(struct cht_rdb *db, const struct cht_str *rows, size_t n,
                               void (*fn)(void *ctx, unsigned shard, size_t row, int64_t number), void *ctx,
                               struct cht_err *err)
{
    struct cht_rowset set;
    struct cht_str value;
    size_t at;
    enum cht_rc rc = CHT_PENDING;
    cht_rowset_init(&set, db, -1);
    while (rc == CHT_PENDING) { /* all rows are known, or none */
        cht_rowset_restart(&set);
        rc = CHT_OK;
        for (unsigned s = cht_map_next(set.map, 0); s < CHT_MAP_MAX; s = cht_map_next(set.map, s + 1)) {
            for (size_t i = 0; i < n; i++) {
                enum cht_rc one = cht_rowset_get(&set, s, rows[i], &value, &at);
                if (one == CHT_OK)
                    fn(ctx, s, i, cht_row_number(value));
                rc = one == CHT_OK || rc == CHT_NO_MEMORY ? rc : one;
            }
        }
        if (rc == CHT_PENDING) {
            enum cht_rc got = cht_rowset_fetch(&set, false, err);
            rc = got == CHT_OK ? CHT_PENDING : got;
        }
    }
    cht_rowset_fini(&set);
    return rc == CHT_NO_MEMORY ? no_memory(err) : rc;
}

static void add_up(void *ctx, unsigned shard, size_t row, int64_t number)
{
    (void)shard;
    (void)row;
    *(uint64_t *)ctx += number > 0 ? (uint64_t)number : 0;
}

static void put_total(void *ctx, unsigned shard, size_t row, int64_t number)
{
    struct cht_shard_counts *c = (struct cht_shard_counts *)ctx + shard;
    if (row < 2)
        *(row == 0 ? &c->pairs : &c->values) = number > 0 ? (uint64_t)number : 0;
    else /* the two parts of one number; one of them may be negative */
        c->value_bytes += (uint64_t)(row == 2 ? number : number * 65536);
}

static enum cht_rc count_rows(struct cht_rdb *db, const char *prefix, uint64_t *pairs, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    const struct cht_map *m = cht_rdb_map(db);
    for (unsigned s = cht_map_next(m, 0); s < CHT_MAP_MAX && rc == CHT_OK; s = cht_map_next(m, s + 1)) {
        char *after = NULL;
        bool more = true;
        while (rc == CHT_OK && more) {
            struct cht_page page;
            rc = cht_page_read(db,
                               &(struct cht_page_wanted){s, m->level[s], after != NULL ? after : "", prefix,
                                                         CHT_PAGE_ROWS_MAX},
                               &page, err);
            more = page.more && page.n > 0;
            *pairs += rc == CHT_OK ? page.n : 0;
            cht_free(after);
            after = NULL;
            if (rc == CHT_OK && more) {
                const struct cht_str *last = &page.rows[page.n - 1].name;
                after = cht_malloc(last->n + 1);
                if (after == NULL)
                    rc = no_memory(err);
                else
                    ((char *)memcpy(after, last->p, last->n))[last->n] = 0;
            }
            cht_page_free(&page);
        }
        cht_free(after);
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_prefix_delete(struct cht_rdb *db, const struct cht_fences *fences, struct cht_op *op,
                              struct cht_err *err)
{
    op->pairs = op->values = 0;
    if (op->name.n > CHT_NAME_MAX)
        return CHT_FAIL(err, CHT_INVALID_PAIR, "a prefix of %zu bytes", op->name.n);
    char *prefix = prefix_row('P', op->name);
    enum cht_rc rc = prefix == NULL ? no_memory(err) : CHT_OK;
    const struct cht_map *m = cht_rdb_map(db);
    for (unsigned s = cht_map_next(m, 0); s < CHT_MAP_MAX && rc == CHT_OK; s = cht_map_next(m, s + 1)) {
        bool more = true;
        while (rc == CHT_OK && more) { /* what was deleted is gone: the next page is the first again */
            struct cht_page page;
            rc = cht_page_read(db, &(struct cht_page_wanted){s, m->level[s], "", prefix, DELETE_ROWS}, &page,
                               err);
            more = page.more && page.n > 0;
            if (rc == CHT_OK)
                rc = delete_page(fences, db, &page, op, err);
            cht_page_free(&page);
        }
    }
    cht_free(prefix);
    return rc;
}

enum cht_rc cht_prefix_count(struct cht_rdb *db, struct cht_str prefix, uint64_t *pairs, struct cht_err *err)
{
    *pairs = 0;
    char *row = prefix_row(cht_row_is_counted(prefix) ? 'C' : 'P', prefix);
    if (row == NULL)
        return no_memory(err);
    struct cht_str text = {(const uint8_t *)row, strlen(row)};
    enum cht_rc rc = cht_row_is_counted(prefix) ? every_shard(db, &text, 1, add_up, pairs, err)
                                                : count_rows(db, row, pairs, err);
    cht_free(row);
    return rc;
}

enum cht_rc cht_prefix_totals(struct cht_rdb *db, struct cht_shard_counts *out, struct cht_err *err)
{
    const struct cht_str rows[] = {CHT_ROW_TEXT("C"), CHT_ROW_TEXT("Nv"), CHT_ROW_TEXT("Nb"),
                                   CHT_ROW_TEXT("Nq")};
    return every_shard(db, rows, 4, put_total, out, err);
}
