/* trim: changes that are no longer kept. See cut.h, CH4. */
#include "store/rados/cut.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "os/code.h"
#include "store/rados/pages.h"

#include <stdlib.h>
#include <string.h>

struct generation {
    uint64_t number, bytes;
};
struct sums {             /* what the first M rows of all shards say */
    struct generation *v; /* owned */
    size_t n, cap;
    uint64_t upto; /* all there is of generations up to this one is here */
};

static int by_number(const void *a, const void *b)
{
    const struct generation *x = a, *y = b;
    return (x->number > y->number) - (x->number < y->number);
}

static enum cht_rc take_sums(struct sums *s, const struct cht_page *page, struct cht_err *err)
{
    if (s->cap - s->n < page->n) {
        size_t cap = s->n + page->n + s->cap / 2;
        struct generation *v = cht_realloc(s->v, cap * sizeof *v);
        if (v == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for generations of changes");
        s->v = v;
        s->cap = cap;
    }
    for (size_t i = 0; i < page->n; i++) {
        int64_t bytes = cht_row_number(page->rows[i].value);
        s->v[s->n++] =
            (struct generation){cht_row_generation(page->rows[i].name), bytes > 0 ? (uint64_t)bytes : 0};
    }
    uint64_t last = page->more && page->n > 0 ? cht_row_generation(page->rows[page->n - 1].name) : s->upto;
    s->upto = last < s->upto ? last : s->upto;
    return CHT_OK;
}

/* The last of the oldest generations that have this many bytes together; 0: there are none. *more: there may be others after it that are too much. */
static uint64_t too_much(struct sums *s, uint64_t bytes, bool *more)
{
    uint64_t sum = 0, last = 0;
    *more = false;
    if (s->n > 0)
        qsort(s->v, s->n, sizeof *s->v, by_number);
    for (size_t i = 0; i < s->n; i++) {
        if (s->v[i].number != last && sum >= bytes)
            return last;
        if (s->v[i].number > s->upto)
            break;
        last = s->v[i].number;
        sum += s->v[i].bytes;
    }
    *more = sum < bytes && s->upto != UINT64_MAX;
    return last;
}

/* Changes up to this one are not told any more. *oldest: nor those up to there. */
static enum cht_rc raise_oldest(struct cht_rdb *db, uint64_t upto, uint64_t *oldest, struct cht_err *err)
{
    for (;;) {
        enum cht_rc rc = cht_cut_oldest(db, oldest, err);
        if (rc != CHT_OK || *oldest >= upto)
            return rc;
        uint8_t was[8], now[8];
        struct cht_call call = cht_call_write();
        call.force = true; /* it makes room */
        cht_put64(was, *oldest);
        cht_put64(now, upto);
        cht_call_compare(&call, CHT_ROW_TEXT("changes"), (struct cht_str){was, sizeof was});
        cht_call_set(&call, CHT_ROW_TEXT("changes"), (struct cht_str){now, sizeof now});
        int r = cht_call_run(&call, db->io, "h");
        if (r < 0 && cht_os_code(r) != CHT_OS_CANCELED)
            return cht_rdb_rc(db, r, "h", err);
    }
}

static void remove_range(struct cht_call *call, char kind, uint64_t upto)
{
    uint8_t from[CHT_ROW_GENERATION], to[CHT_ROW_GENERATION];
    cht_row_of_generation(from, kind, 0);
    cht_row_of_generation(to, kind, upto + 1);
    rados_write_op_omap_rm_range2(call->w, (const char *)from, sizeof from, (const char *)to, sizeof to);
}

/* The generations of a page of M rows, which are the lowest, with their L rows and their part of Nl. If the first is as it was they all are: whoever
 * removes some begins with the lowest. *more: others may be left. */
static enum cht_rc remove_page(struct cht_rdb *db, unsigned shard, const struct cht_page *page, uint64_t upto,
                               bool *more, struct cht_err *err)
{
    int64_t bytes = 0;
    uint64_t last = 0;
    size_t n = 0;
    char object[CHT_LINK_OBJECT_MAX];
    for (; n < page->n && cht_row_generation(page->rows[n].name) <= upto; n++) {
        last = cht_row_generation(page->rows[n].name);
        bytes += cht_row_number(page->rows[n].value);
    }
    *more = n > 0 && n == page->n && page->more;
    if (n == 0)
        return CHT_OK;
    struct cht_call call = cht_call_write();
    call.force = true;
    cht_rdb_shard_name(object, shard);
    cht_call_compare(&call, page->rows[0].name, page->rows[0].value);
    if (n > 1) /* of a generation that is open, perhaps: there may be more of it by now */
        cht_call_compare(&call, page->rows[n - 1].name, page->rows[n - 1].value);
    remove_range(&call, 'L', last);
    remove_range(&call, 'M', last);
    enum cht_rc rc = cht_call_add(&call, CHT_ROW_TEXT("Nl"), -bytes, err);
    if (rc != CHT_OK) {
        rados_release_write_op(call.w);
        return rc;
    }
    int r = cht_call_run(&call, db->io, object);
    return cht_os_code(r) == CHT_OS_CANCELED ? CHT_OK : cht_rdb_rc(db, r, object, err);
}

static enum cht_rc remove_upto(struct cht_rdb *db, unsigned shard, uint64_t upto, struct cht_err *err)
{
    bool more = true;
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK && more) { /* what was removed is gone: the next page is the first again */
        struct cht_page page;
        rc = cht_page_raw(db, &(struct cht_raw_wanted){shard, "", "M", CHT_PAGE_ROWS_MAX}, &page, err);
        if (rc == CHT_OK)
            rc = remove_page(db, shard, &page, upto, &more, err);
        cht_page_free(&page);
        cht_rdb_step(db, "trim-shard");
        if (rc == CHT_OK && more)
            rc = cht_rdb_closes(db, err);
    }
    return rc;
}

static enum cht_rc sum_up(struct cht_rdb *db, const struct cht_map *m, struct sums *s, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (unsigned i = cht_map_next(m, 0); i < CHT_MAP_MAX && rc == CHT_OK; i = cht_map_next(m, i + 1)) {
        struct cht_page page;
        rc = cht_page_raw(db, &(struct cht_raw_wanted){i, "", "M", CHT_PAGE_ROWS_MAX}, &page, err);
        if (rc == CHT_OK)
            rc = take_sums(s, &page, err);
        cht_page_free(&page);
    }
    return rc;
}

static enum cht_rc remove_all(struct cht_rdb *db, uint64_t upto, struct cht_err *err)
{
    const struct cht_map *m = cht_rdb_map(db);
    enum cht_rc rc = CHT_OK;
    for (unsigned i = cht_map_next(m, 0); i < CHT_MAP_MAX && rc == CHT_OK; i = cht_map_next(m, i + 1))
        rc = remove_upto(db, i, upto, err);
    return rc;
}

/* The oldest generations that have this many bytes, as far as a page of each shard reaches. */
static enum cht_rc trim_some(struct cht_rdb *db, uint64_t bytes, bool *more, struct cht_err *err)
{
    struct sums s = {.upto = UINT64_MAX};
    uint64_t oldest = 0;
    const struct cht_map *m = cht_rdb_map(db);
    enum cht_rc rc = sum_up(db, m, &s, err);
    uint64_t upto = rc == CHT_OK ? too_much(&s, bytes, more) : 0, newest = atomic_load(&db->told.newest);
    cht_free(s.v);
    if (rc == CHT_OK && upto > newest) { /* the one that is open is too much by itself */
        rc = cht_cut(db, err);
        newest = atomic_load(&db->told.newest);
        upto = upto < newest ? upto : newest;
    }
    cht_rdb_step(db, "trim");
    if (rc == CHT_OK && upto > 0)
        rc = raise_oldest(db, upto, &oldest, err);
    if (rc == CHT_OK && upto > 0)
        rc = remove_all(db, oldest > upto ? oldest : upto, err); /* what another has left, too */
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_cut_trim(struct cht_rdb *db, struct cht_err *err)
{
    uint64_t bytes = db->env->cfg.changes_bytes == CHT_CHANGES_NONE ? 0 : db->env->cfg.changes_bytes;
    bool more = true;
    if (atomic_load(&db->format) < CHT_RDB_FORMAT_CHANGES && cht_rdb_generation(db) == 0)
        return CHT_OK;
    enum cht_rc rc = cht_cut_look(db, NULL, err);
    uint64_t generation = cht_rdb_generation(db);
    if (rc == CHT_OK && generation != 0 && !cht_rdb_keeps(db, generation)) /* CH9 */
        return atomic_load(&db->told.bytes) > 0 ? remove_all(db, atomic_load(&db->told.oldest), err) : CHT_OK;
    while (rc == CHT_OK && more && atomic_load(&db->told.bytes) > bytes) {
        more = false;
        rc = trim_some(db, atomic_load(&db->told.bytes) - bytes, &more, err);
        if (rc == CHT_OK)
            rc = cht_cut_look(db, NULL, err);
    }
    return rc;
}
