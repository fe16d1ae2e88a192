/* tell: L rows become changes that are told. See follow.h. */
#include "store/rados/follow.h"

#include "base/alloc.h"
#include "store/rados/pages.h"

#include <inttypes.h>
#include <string.h>

#define STEP_ROWS 4096u /* for one call */
#define PAGE_ROWS 1024u /* of all shards, if they are short */
#define PAGE_MIN 16u    /* of a shard */
#define ROW_MAX (CHT_ROW_CHANGED_NAME + CHT_ROW_CHANGED_SIZE)
#define GROWTH 4u /* from one page to the next: what comes may be longer */

struct cursor { /* of one shard */
    bool there;
    struct cht_page page;
    size_t at;
    struct cht_buf after; /* owned */
};
struct telling { /* one call */
    struct cht_rfollower *f;
    uint64_t upto;
    const struct cht_map *map;
    struct cursor *cursors; /* owned: CHT_MAP_MAX */
    bool (*each)(void *ctx, const struct cht_change *change);
    void *ctx;
    bool
        held; /* `change`, of this generation, is to be told yet: only the last of a generation has its number */
    uint64_t generation;
    struct cht_change change;
    uint8_t name[CHT_NAME_MAX];
};

static enum cht_rc gone(const struct cht_rfollower *f, uint64_t oldest, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_GONE, "changes after %" PRIu64 " are told, not after %" PRIu64, oldest,
                    f->position);
}

/* CH4: what was read before this was all there. */
static enum cht_rc still_there(const struct telling *t, struct cht_err *err)
{
    uint64_t oldest;
    enum cht_rc rc = cht_cut_oldest(t->f->db, &oldest, err);
    return rc == CHT_OK && oldest > t->f->position ? gone(t->f, oldest, err) : rc;
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

/* Where a shard is to be read from: after this row. */
static enum cht_rc begin_at(const struct telling *t, unsigned shard, struct cursor *c, struct cht_err *err)
{
    const struct cht_rfollower *f = t->f;
    bool within = f->generation > f->position;
    uint64_t from = within && shard < f->shard ? f->generation + 1 : within ? f->generation : f->position + 1;
    if (within && shard == f->shard) {
        enum cht_rc rc = cht_buf_reserve(&c->after, f->row.len, err);
        if (rc == CHT_OK)
            memcpy(c->after.data, f->row.data, f->row.len);
        return rc;
    }
    enum cht_rc rc = cht_buf_reserve(&c->after, CHT_ROW_GENERATION + 1, err);
    if (rc == CHT_OK) {
        cht_row_of_generation(c->after.data, 'L', from);
        c->after.data[CHT_ROW_GENERATION] = 0;
    }
    return rc;
}

/* OSDs count rows only: how long those are that are asked for is what those before were. */
static void learn_size(struct cht_rfollower *f, size_t rows, size_t bytes)
{
    if (rows == 0)
        return;
    unsigned mean = (unsigned)(bytes / rows) + 1,
             least = (f->row_bytes != 0 ? f->row_bytes : ROW_MAX) / GROWTH;
    f->row_bytes = mean > least ? mean : least;
}

static size_t size_of(const struct cht_page *page)
{
    size_t bytes = 0;
    for (size_t i = 0; i < page->n; i++)
        bytes += page->rows[i].name.n + page->rows[i].value.n;
    return bytes;
}

static struct cht_raw_wanted wanted(const struct telling *t, unsigned shard)
{
    return (struct cht_raw_wanted){shard, (const char *)t->cursors[shard].after.data, "L",
                                   cht_rtell_rows(t->f->row_bytes, t->map->shards)};
}

/* The first pages of all shards, by a map that is no older than they are: a shard that was made since has no rows of generations that were closed
 * before. *stale: again. */
static enum cht_rc first_pages(struct telling *t, bool *stale, struct cht_err *err)
{
    struct cht_page_asked *asked = cht_calloc(CHT_MAP_MAX, sizeof *asked);
    enum cht_rc rc = asked == NULL ? CHT_FAIL(err, CHT_NO_MEMORY, "no memory for changes") : CHT_OK;
    const struct cht_map *m = t->map = cht_rdb_map(t->f->db);
    *stale = false;
    size_t rows = 0, bytes = 0;
    unsigned begun = 0;
    for (unsigned i = cht_map_next(m, 0); i < CHT_MAP_MAX && rc == CHT_OK; i = cht_map_next(m, i + 1)) {
        rc = begin_at(t, i, &t->cursors[i], err);
        if (rc != CHT_OK)
            break;
        struct cht_raw_wanted w = wanted(t, i);
        cht_page_ask(t->f->db, &w, &asked[i]);
        begun = i + 1;
    }
    for (unsigned i = cht_map_next(m, 0); i < begun; i = cht_map_next(m, i + 1)) {
        struct cht_epoch e = {0};
        struct cht_err why = {0};
        struct cursor *c = &t->cursors[i];
        enum cht_rc one = cht_page_answer(t->f->db, &asked[i], &e, &c->page, &why);
        c->there = true;
        rows += c->page.n;
        bytes += size_of(&c->page);
        *stale = *stale || e.epoch > cht_map_epoch(m, i);
        if (one != CHT_OK && rc == CHT_OK) {
            rc = one;
            *err = why;
        }
    }
    learn_size(t->f, rows, bytes);
    cht_free(asked);
    return rc;
}

static void forget_pages(struct telling *t)
{
    for (unsigned i = 0; i < CHT_MAP_MAX; i++) {
        cht_page_free(&t->cursors[i].page);
        cht_buf_free(&t->cursors[i].after);
        t->cursors[i] = (struct cursor){0};
    }
}

static enum cht_rc begin(struct telling *t, struct cht_err *err)
{
    struct cht_rdb *db = t->f->db;
    bool stale = true;
    t->cursors = cht_calloc(CHT_MAP_MAX, sizeof *t->cursors);
    enum cht_rc rc = t->cursors == NULL ? CHT_FAIL(err, CHT_NO_MEMORY, "no memory for changes") : CHT_OK;
    while (rc == CHT_OK && stale) {
        forget_pages(t);
        rc = first_pages(t, &stale, err);
        if (rc == CHT_OK && stale && t->map == cht_rdb_map(db))
            rc = cht_rdb_reload(db, err);
    }
    return rc == CHT_OK ? still_there(t, err) : rc;
}

/* The page after this one. Rows of closed generations stay where they are, however shards are divided. */
static enum cht_rc turn(struct telling *t, unsigned shard, struct cht_err *err)
{
    struct cursor *c = &t->cursors[shard];
    enum cht_rc rc = cht_page_last(&c->page, &c->after, err);
    if (rc != CHT_OK)
        return rc;
    struct cht_raw_wanted w = wanted(t, shard);
    cht_page_free(&c->page);
    c->at = 0;
    rc = cht_page_raw(t->f->db, &w, &c->page, err);
    learn_size(t->f, c->page.n, size_of(&c->page));
    return rc == CHT_OK ? still_there(t, err) : rc;
}

/* The shard whose row is next; CHT_MAP_MAX: that was all. */
static enum cht_rc lowest(struct telling *t, unsigned *out, struct cht_err *err)
{
    uint64_t least = t->upto + 1;
    *out = CHT_MAP_MAX;
    for (unsigned i = 0; i < t->map->top; i++) {
        struct cursor *c = &t->cursors[i];
        if (c->there && c->at == c->page.n && c->page.more) {
            enum cht_rc rc = turn(t, i, err);
            if (rc != CHT_OK)
                return rc;
        }
        if (!c->there || c->at == c->page.n)
            continue;
        uint64_t g = cht_row_generation(c->page.rows[c->at].name);
        if (g < least) {
            least = g;
            *out = i;
        }
    }
    return CHT_OK;
}

/* ---- telling ------------------------------------------------------------------------------------------------------- */

/* The change that is held. False: enough. */
static bool tell_held(struct telling *t, bool more)
{
    if (!t->held)
        return true;
    t->held = false;
    t->change.number = more ? t->generation - 1 : t->generation;
    t->change.more = more;
    if (!more && t->f->position < t->generation)
        t->f->position = t->generation;
    return t->each(t->ctx, &t->change);
}

static bool begins(struct cht_str name, const uint8_t *p, size_t n)
{
    return name.n >= n && (n == 0 || memcmp(name.p, p, n) == 0);
}

/* The row becomes the change that is held, if it concerns the prefix: *mine. name: as t->name. */
static enum cht_rc to_change(const struct telling *t, const struct cht_changed *row, uint8_t *name,
                             struct cht_change *out, bool *mine, struct cht_err *err)
{
    if (row->row.p[0] == CHT_ROW_CHANGED_VALUE) {
        *mine = t->f->len == 0;
        *out = (struct cht_change){.kind = row->there ? CHT_CHANGE_VALUE_SET : CHT_CHANGE_VALUE_DEL,
                                   .key = row->key};
        return CHT_OK;
    }
    uint8_t text[CHT_ROW_NAME_MAX];
    size_t n = cht_row_unescape(text, row->row.p + 1, row->row.n - 1);
    if (n == SIZE_MAX || n > CHT_NAME_MAX)
        return CHT_FAIL(err, CHT_CORRUPT, "database %s: the row of a change cannot be read", t->f->db->name);
    *mine = begins((struct cht_str){text, n}, t->f->prefix, t->f->len);
    if (*mine)
        memcpy(name, text, n);
    *out = (struct cht_change){.kind = row->there ? CHT_CHANGE_PAIR_SET : CHT_CHANGE_PAIR_DEL,
                               .key = row->there ? row->key : 0,
                               .name = {name, n}};
    return CHT_OK;
}

/* It has been dealt with. */
static enum cht_rc pass(struct telling *t, unsigned shard, struct cht_err *err)
{
    struct cht_rfollower *f = t->f;
    struct cursor *c = &t->cursors[shard];
    struct cht_str name = c->page.rows[c->at].name;
    enum cht_rc rc = cht_buf_reserve(&f->row, name.n + 1, err);
    if (rc != CHT_OK)
        return rc;
    memcpy(f->row.data, name.p, name.n);
    f->row.data[name.n] = 0;
    f->row.len = name.n + 1;
    f->shard = shard;
    f->generation = cht_row_generation(name);
    if (f->position < f->generation - 1)
        f->position = f->generation - 1;
    c->at++;
    return CHT_OK;
}

/* *enough: the row was not taken, it comes again. */
static enum cht_rc take(struct telling *t, unsigned shard, bool *enough, struct cht_err *err)
{
    const struct cht_page_row *row = &t->cursors[shard].page.rows[t->cursors[shard].at];
    uint8_t name[CHT_NAME_MAX];
    struct cht_changed changed;
    struct cht_change change;
    bool mine = false;
    if (!cht_row_changed_read(row->name, row->value, &changed))
        return CHT_FAIL(err, CHT_CORRUPT, "database %s: the row of a change in shard %u cannot be read",
                        t->f->db->name, shard);
    enum cht_rc rc = to_change(t, &changed, name, &change, &mine, err);
    if (rc == CHT_OK && mine && !tell_held(t, t->generation == changed.generation)) {
        *enough = true;
        return CHT_OK;
    }
    if (rc == CHT_OK)
        rc = pass(t, shard, err);
    if (rc != CHT_OK || !mine)
        return rc;
    t->held = true;
    t->generation = changed.generation;
    t->change = change;
    if (change.name.n > 0)
        memcpy(t->name, name, change.name.n);
    t->change.name.p = t->name;
    return CHT_OK;
}

static enum cht_rc tell(struct telling *t, struct cht_err *err)
{
    unsigned shard = 0;
    bool enough = false;
    enum cht_rc rc = begin(t, err);
    for (unsigned i = 0; i < STEP_ROWS && rc == CHT_OK && !enough; i++) {
        rc = lowest(t, &shard, err);
        if (rc != CHT_OK || shard == CHT_MAP_MAX)
            break;
        rc = take(t, shard, &enough, err);
    }
    bool all = rc == CHT_OK && !enough && shard == CHT_MAP_MAX;
    (void)tell_held(t, !all && t->f->generation == t->generation); /* not the last of it, perhaps */
    if (all)
        t->f->position = t->upto;
    if (t->cursors != NULL)
        forget_pages(t);
    cht_free(t->cursors);
    return all ? CHT_PENDING : rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

unsigned cht_rtell_rows(unsigned row_bytes, unsigned shards)
{
    unsigned size = row_bytes != 0 && row_bytes < ROW_MAX ? row_bytes : ROW_MAX;
    unsigned most = PAGE_ROWS / shards > PAGE_MIN ? PAGE_ROWS / shards : PAGE_MIN;
    unsigned fit = CHT_RTELL_BYTES / (size * shards);
    fit = fit > 0 ? fit : 1;
    return fit < most ? fit : most;
}

enum cht_rc cht_rtell(struct cht_changes *base, bool (*each)(void *ctx, const struct cht_change *change),
                      void *ctx, struct cht_err *err)
{
    struct cht_rfollower *f = cht_rfollower(base);
    struct telling t = {.f = f, .each = each, .ctx = ctx};
    enum cht_rc rc = CHT_OK;
    if (atomic_load(&f->db->told.newest) <= f->position)
        rc = cht_cut_look(f->db, NULL, err);
    t.upto = atomic_load(&f->db->told.newest);
    if (rc == CHT_OK && t.upto <= f->position)
        return CHT_PENDING;
    return rc == CHT_OK ? tell(&t, err) : rc;
}
