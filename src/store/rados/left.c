/* left: what crashes left is removed. See care.h.
 *
 * The times of objects are those of other machines' clocks. They only say what is worth a look: a long value is removed if this process has seen in
 * two sweeps, so long after one another by its own clock, that no row names it. A commit is over by then.
 */
#include "store/rados/care.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "os/code.h"
#include "store/rados/exec.h"
#include "store/rados/pages.h"
#include "store/rados/split.h"
#include "store/rados/txn_int.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

struct left {
    const struct cht_rdb *db;
    uint64_t *v; /* owned: numbers of long values, ascending; 0: named by a row */
    size_t n, cap;
};

static int by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static enum cht_rc note(struct left *l, uint64_t number, struct cht_err *err)
{
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 64 : l->cap * 2;
        uint64_t *v = cht_realloc(l->v, cap * sizeof *v);
        if (v == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for objects that were left");
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = number;
    return CHT_OK;
}

static bool is_old(struct cht_rdb *db, const char *object, uint64_t seconds)
{
    uint64_t size;
    time_t when;
    uint64_t now = cht_wall_ns() / 1000000000;
    return rados_stat(db->io, object, &size, &when) == 0 && now >= (uint64_t)when + seconds;
}

/* Old objects: transactions are ended, long values noted. */
static enum cht_rc list(struct cht_rdb *db, uint64_t seconds, struct left *l, uint64_t *removed,
                        struct cht_err *err)
{
    rados_list_ctx_t ctx;
    const char *name;
    enum cht_rc rc = CHT_OK;
    int r = rados_nobjects_list_open(db->io, &ctx);
    if (r < 0)
        return cht_rdb_answer(db, r, db->uuid, err);
    while (rc == CHT_OK && (r = rados_nobjects_list_next(ctx, &name, NULL, NULL)) == 0) {
        char *end = NULL;
        rc = cht_rdb_closes(db, err);
        bool ours = (name[0] == 'v' || name[0] == 't') && name[1] == '.' && strlen(name) == 18;
        uint64_t number = ours ? strtoull(name + 2, &end, 16) : 0;
        if (rc != CHT_OK || number == 0 || *end != 0 || !is_old(db, name, seconds))
            continue;
        if (name[0] == 'v') {
            rc = note(l, number, err);
        } else {
            rc = cht_txn_end_old(db, number, err);
            *removed += rc == CHT_OK;
        }
    }
    rados_nobjects_list_close(ctx);
    return r < 0 && cht_os_code(r) != CHT_OS_NOT_THERE ? cht_rdb_answer(db, r, db->uuid, err) : rc;
}

static enum cht_rc take_out(void *ctx, const struct cht_page *page, struct cht_err *err)
{
    struct left *l = ctx;
    for (size_t i = 0; i < page->n; i++) {
        struct cht_row row;
        if (!cht_row_read(page->rows[i].value.p, page->rows[i].value.n, &row) || row.flags != CHT_ROW_PARTS)
            continue;
        uint64_t number = cht_get64(row.body.p);
        uint64_t *at = l->n > 0 ? bsearch(&number, l->v, l->n, sizeof *l->v, by_number) : NULL;
        for (size_t k = at != NULL ? (size_t)(at - l->v) : l->n; k < l->n && l->v[k] == number; k++) {
            memmove(l->v + k, l->v + k + 1, (l->n - k - 1) * sizeof *l->v);
            l->n--;
        }
    }
    return cht_rdb_closes(l->db, err);
}

/* Takes out the numbers that a row names. A value moves from a P row to a K row, never back: so the P rows come first. */
static enum cht_rc named(struct cht_rdb *db, struct left *l, struct cht_err *err)
{
    static const char *const kinds[] = {"P", "K"};
    const struct cht_map *m = cht_rdb_map(db);
    enum cht_rc rc = CHT_OK;
    for (unsigned k = 0; k < 2; k++) {
        for (unsigned s = cht_map_next(m, 0); s < CHT_MAP_MAX && rc == CHT_OK && l->n > 0;
             s = cht_map_next(m, s + 1)) {
            const struct cht_page_wanted w = {s, m->level[s], "", kinds[k], 256};
            rc = cht_page_each(db, &w, take_out, l, err);
        }
    }
    return rc;
}

/* ---- counters that are zero ------------------------------------------------------------------------------------------ */

struct zeros {
    struct cht_rdb *db;
    const struct cht_map *map;
    unsigned shard;
    uint64_t *removed;
};

static enum cht_rc zero_page(void *ctx, const struct cht_page *page, struct cht_err *err)
{
    const struct zeros *z = ctx;
    struct cht_call call = cht_call_write();
    char object[CHT_LINK_OBJECT_MAX];
    size_t n = 0;
    cht_txn_free(&call, z->db, cht_map_epoch(z->map, z->shard));
    for (size_t i = 0; i < page->n; i++) {
        const struct cht_page_row *row = &page->rows[i];
        if (row->name.n < 2 || row->value.n != 1 || row->value.p[0] != '0')
            continue;
        cht_call_compare(&call, row->name, row->value);
        cht_call_remove(&call, row->name);
        n++;
    }
    if (n == 0) {
        rados_release_write_op(call.w);
        return cht_rdb_closes(z->db, err);
    }
    cht_rdb_shard_name(object, z->shard);
    int r = cht_call_run(&call, z->db->io, object);
    if (cht_os_code(r) == CHT_OS_CANCELED)
        return cht_rdb_closes(z->db,
                              err); /* one of them counts again, or the shard is locked: the next time */
    *z->removed += r == 0 ? n : 0;
    enum cht_rc rc = cht_rdb_rc(z->db, r, object, err);
    return rc == CHT_OK ? cht_rdb_closes(z->db, err) : rc;
}

static enum cht_rc zeros(struct cht_rdb *db, uint64_t *removed, struct cht_err *err)
{
    const struct cht_map *m = cht_rdb_map(db);
    enum cht_rc rc = CHT_OK;
    for (unsigned s = cht_map_next(m, 0); s < CHT_MAP_MAX && rc == CHT_OK; s = cht_map_next(m, s + 1)) {
        struct zeros z = {db, m, s, removed};
        rc = cht_page_each_raw(db, &(struct cht_raw_wanted){s, "", "C", 256}, zero_page, &z, err);
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

/* Removes what was seen long enough ago, too; the others are remembered. */
static enum cht_rc remove_seen(struct cht_rdb *db, uint64_t seconds, const struct left *l, uint64_t *removed,
                               struct cht_err *err)
{
    uint64_t now = cht_now_ns();
    size_t n = 0, was = 0;
    struct cht_left *seen = cht_calloc(l->n + 1, sizeof *seen);
    if (seen == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for objects that were left");
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < l->n; i++) { /* both are in order */
        while (was < db->lefts && db->left[was].number < l->v[i])
            was++;
        bool again = was < db->lefts && db->left[was].number == l->v[i];
        uint64_t since = again ? db->left[was].since : now;
        rc = cht_rdb_closes(db, err);
        if (rc == CHT_OK && again && now - since >= seconds * UINT64_C(1000000000)) {
            cht_rdb_step(db, "left-remove");
            cht_parts_remove(db, l->v[i]);
            ++*removed;
        } else {
            seen[n++] = (struct cht_left){l->v[i], since};
        }
    }
    cht_free(db->left);
    db->left = seen;
    db->lefts = n;
    return rc;
}

enum cht_rc cht_left_sweep(struct cht_rdb *db, uint64_t seconds, uint64_t *removed, struct cht_err *err)
{
    struct left l = {.db = db};
    *removed = 0;
    enum cht_rc rc = list(db, seconds, &l, removed, err);
    if (rc == CHT_OK && l.n > 0) {
        qsort(l.v, l.n, sizeof *l.v, by_number);
        rc = named(db, &l, err);
    }
    if (rc == CHT_OK)
        rc = remove_seen(db, seconds, &l, removed, err);
    cht_free(l.v);
    return rc == CHT_OK ? zeros(db, removed, err) : rc;
}
