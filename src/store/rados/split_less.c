/* split_less: the counters of a shard that is divided, less those of the new one (S7). See split.h. */
#include "store/rados/split.h"

#include "base/alloc.h"
#include "store/rados/pages.h"

#include <inttypes.h>
#include <string.h>

struct less_row {
    size_t at, name, number; /* in bytes: the name, then the number; number 0: the row is removed */
};
struct less { /* counters of the first shard are to be less by those of the other */
    struct cht_rdb *db;
    const char *from; /* the first's object */
    struct cht_buf bytes;
    struct less_row *rows; /* owned */
    size_t n, cap;
    size_t weight;               /* of the counters of the other, in an operation */
    const struct cht_page *page; /* of the other */
    size_t at;
    bool no_memory;
};

static bool less_room(struct less *l, size_t bytes)
{
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 256 : l->cap * 2;
        struct less_row *rows = cht_realloc(l->rows, cap * sizeof *rows);
        if (rows == NULL)
            return false;
        l->rows = rows;
        l->cap = cap;
    }
    return l->bytes.len + bytes <= l->bytes.cap ||
           cht_buf_reserve(&l->bytes, (l->bytes.len + bytes) * 2, NULL) == CHT_OK;
}

/* Rows come in the order in which they were asked for, some may be missing. */
static void take_less(void *ctx, struct cht_str row, struct cht_str value)
{
    struct less *l = ctx;
    while (l->at < l->page->n &&
           (l->page->rows[l->at].name.n != row.n || memcmp(l->page->rows[l->at].name.p, row.p, row.n) != 0))
        l->at++;
    if (l->at == l->page->n)
        return;
    char text[24] = "";
    int64_t left = cht_row_number(value) - cht_row_number(l->page->rows[l->at++].value);
    size_t n = left == 0 ? 0 : (size_t)snprintf(text, sizeof text, "%" PRId64, left); /* it fits */
    if (!less_room(l, row.n + n)) {
        l->no_memory = true;
        return;
    }
    l->rows[l->n++] = (struct less_row){l->bytes.len, row.n, n};
    memcpy(l->bytes.data + l->bytes.len, row.p, row.n);
    memcpy(l->bytes.data + l->bytes.len + row.n, text, n);
    l->bytes.len += row.n + n;
}

static enum cht_rc less_page(void *ctx, const struct cht_page *page, struct cht_err *err)
{
    struct less *l = ctx;
    struct cht_rdb *db = l->db;
    const char **names = cht_calloc(page->n + 1, sizeof *names);
    size_t *lens = cht_calloc(page->n + 1, sizeof *lens);
    l->no_memory = names == NULL || lens == NULL;
    l->page = page;
    l->at = 0;
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < page->n && !l->no_memory; i++) {
        names[i] = (const char *)page->rows[i].name.p;
        lens[i] = page->rows[i].name.n;
    }
    if (!l->no_memory && page->n > 0)
        rc = cht_rdb_rc(
            db, cht_link_rows(db->io, l->from, &(struct cht_rows_wanted){names, lens, page->n}, take_less, l),
            l->from, err);
    cht_free(names);
    cht_free(lens);
    l->page = NULL;
    if (rc == CHT_OK && l->no_memory)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for counters");
    return rc;
}

static enum cht_rc weigh_page(void *ctx, const struct cht_page *page, struct cht_err *err)
{
    struct less *l = ctx;
    (void)err;
    for (size_t i = 0; i < page->n; i++)
        l->weight += page->rows[i].name.n + 64;
    return CHT_OK;
}

/* fn for each page of the counters of the other shard. */
static enum cht_rc every_counter(struct less *l, unsigned other, cht_page_fn *fn, struct cht_err *err)
{
    static const char *const kinds[] = {"C", "N"};
    enum cht_rc rc = CHT_OK;
    for (unsigned k = 0; k < 2 && rc == CHT_OK; k++)
        rc = cht_page_each_raw(l->db, &(struct cht_raw_wanted){other, "", kinds[k], CHT_PAGE_ROWS_MAX}, fn, l,
                               err);
    return rc;
}

/* All rows in two steps of the operation, however many: a message has 16 bits for the number of its steps. */
static enum cht_rc add_less(const struct less *l, struct cht_call *call, struct cht_err *err)
{
    size_t sets = 0, gone = l->n; /* those that go are filled in from the end */
    const char **names = cht_calloc(2 * (l->n + 1), sizeof *names); /* and numbers */
    size_t *lens = cht_calloc(2 * (l->n + 1), sizeof *lens);
    if (names == NULL || lens == NULL) {
        cht_free(names);
        cht_free(lens);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for counters");
    }
    const char **numbers = names + l->n + 1;
    size_t *number_lens = lens + l->n + 1;
    for (size_t i = 0; i < l->n; i++) {
        const struct less_row *r = &l->rows[i];
        size_t at = r->number > 0 ? sets++ : --gone;
        names[at] = (const char *)l->bytes.data + r->at;
        lens[at] = r->name;
        numbers[at] = names[at] + r->name;
        number_lens[at] = r->number;
    }
    if (sets > 0)
        rados_write_op_omap_set2(call->w, names, numbers, lens, number_lens, sets);
    if (gone < l->n)
        rados_write_op_omap_rm_keys2(call->w, names + gone, lens + gone, l->n - gone);
    cht_free(names);
    cht_free(lens);
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_split_weigh(struct cht_rdb *db, unsigned other, struct cht_err *err)
{
    struct less l = {.db = db};
    enum cht_rc rc = every_counter(&l, other, weigh_page, err);
    if (rc == CHT_OK && l.weight > CHT_ROWSET_WRITE_MAX)
        rc = CHT_FAIL(err, CHT_BATCH_TOO_LARGE,
                      "the counters of shard %u have more than %zu MiB: it is not divided", other,
                      CHT_ROWSET_WRITE_MAX >> 20);
    return rc;
}

enum cht_rc cht_split_less(struct cht_rdb *db, const char *from, unsigned other, struct cht_call *call,
                           struct cht_err *err)
{
    struct less l = {.db = db, .from = from};
    enum cht_rc rc = every_counter(&l, other, less_page, err);
    if (rc == CHT_OK)
        rc = add_less(&l, call, err);
    cht_buf_free(&l.bytes);
    cht_free(l.rows);
    return rc;
}
