/* prefix: see prefix.h. */
#include "store/rados/prefix.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "store/rados/ends.h"
#include "store/rados/pages.h"

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

/* The pairs of one page, as one transaction: their values may lie in other shards. What is gone meanwhile does not count, nor what has ended. */
static enum cht_rc delete_names(const struct cht_fences *fences, struct cht_rdb *db, struct cht_exec_op *ops,
                                size_t n, struct cht_op *sum, struct cht_err *err)
{
    enum cht_rc rc = cht_ends_commit(db, fences, ops, n, err);
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        const struct cht_op *op = ops[i].op;
        if (op->rc == CHT_OK && op->kind == CHT_OP_PAIR_DEL) {
            sum->pairs++;
            sum->values += op->values;
        } else if (op->rc != CHT_OK && op->rc != CHT_PAIR_NOT_FOUND) {
            rc = op->rc;
        }
    }
    return rc;
}

static bool has_ended(const struct cht_page_row *row)
{
    struct cht_row r;
    return cht_row_read(row->value.p, row->value.n, &r) && r.ends != 0 && r.ends <= cht_wall_ns() / 1000000;
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
        if (has_ended(&page->rows[i]))
            ops[i].kind = CHT_OP_PURGE;
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

struct sums {
    uint64_t of[2]; /* pairs, and those that end */
};

static void add_up(void *ctx, unsigned shard, size_t row, int64_t number)
{
    (void)shard;
    ((struct sums *)ctx)->of[row] += number > 0 ? (uint64_t)number : 0;
}

static void put_total(void *ctx, unsigned shard, size_t row, int64_t number)
{
    struct cht_shard_counts *c = (struct cht_shard_counts *)ctx + shard;
    uint64_t *const counters[] = {[0] = &c->pairs, [1] = &c->values, [4] = &c->ending};
    if (row < 2 || row == 4)
        *counters[row] = number > 0 ? (uint64_t)number : 0;
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
            for (size_t i = 0; i < page.n && rc == CHT_OK; i++)
                *pairs += !has_ended(&page.rows[i]);
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
    bool counted = cht_row_is_counted(prefix);
    uint64_t removed = 1;
    *pairs = 0;
    char *row = prefix_row(counted ? 'C' : 'P', prefix);
    if (row == NULL)
        return no_memory(err);
    const struct cht_str rows[] = {{(const uint8_t *)row, strlen(row)}, CHT_ROW_TEXT("Ne")};
    enum cht_rc rc = counted ? CHT_OK : count_rows(db, row, pairs, err);
    while (counted && rc == CHT_OK && removed > 0) { /* what has ended goes first, and is not counted */
        struct sums sums = {{0}};
        removed = 0;
        rc = every_shard(db, rows, 2, add_up, &sums, err);
        if (rc == CHT_OK && sums.of[1] > 0)
            rc = cht_ends_purge(db, &removed, err);
        *pairs = sums.of[0];
    }
    cht_free(row);
    return rc;
}

enum cht_rc cht_prefix_totals(struct cht_rdb *db, struct cht_shard_counts *out, struct cht_err *err)
{
    const struct cht_str rows[] = {CHT_ROW_TEXT("C"), CHT_ROW_TEXT("Nv"), CHT_ROW_TEXT("Nb"),
                                   CHT_ROW_TEXT("Nq"), CHT_ROW_TEXT("Ne")};
    return every_shard(db, rows, 5, put_total, out, err);
}
