/* stream: see stream.h. */
#include "store/rados/stream.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "store/rados/pages.h"

#include <string.h>

#define FIRST_ROWS 128u
#define STEP_LEAST 64u

static char *row_text(char kind, struct cht_str name)
{
    uint8_t *p = cht_malloc(2 * name.n + 2);
    if (p != NULL)
        p[cht_row_of_name(p, kind, name)] = 0;
    return (char *)p;
}

static char *copy_text(struct cht_str s)
{
    char *p = cht_malloc(s.n + 1);
    if (p != NULL) {
        memcpy(p, s.p, s.n);
        p[s.n] = 0;
    }
    return p;
}

static int compare(struct cht_str a, const char *b)
{
    size_t bn = strlen(b), n = a.n < bn ? a.n : bn;
    int c = memcmp(a.p, b, n);
    return c != 0 ? c : (a.n > bn) - (a.n < bn);
}

/* ---- entries ------------------------------------------------------------------------------------------------------- */

static enum cht_rc no_memory(struct cht_err *err)
{
    return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a batch of a scan");
}

/* What the row says by itself. *elsewhere: its value is under its key, or in the row of a name. */
static enum cht_rc begin_entry(const struct cht_rscan_config *c, const struct cht_page_row *row,
                               struct cht_stream_batch *b, struct cht_row *r, struct cht_err *err)
{
    struct cht_entry *e = &b->entries[b->n];
    *e = (struct cht_entry){.count = 1};
    if (!cht_row_read(row->value.p, row->value.n, r))
        return CHT_FAIL(err, CHT_CORRUPT, "database %s: a row cannot be read", c->db->name);
    e->key = r->key;
    if (c->kind == CHT_SCAN_VALUES)
        return CHT_OK;
    uint8_t *name = cht_rowset_alloc(&b->arena, row->name.n);
    if (name == NULL)
        return no_memory(err);
    size_t n = cht_row_unescape(name, row->name.p + 1, row->name.n - 1);
    if (n == SIZE_MAX || n > CHT_NAME_MAX)
        return CHT_FAIL(err, CHT_CORRUPT, "database %s: the row of a name cannot be read", c->db->name);
    e->name = name;
    e->name_len = (uint32_t)n;
    return CHT_OK;
}

static enum cht_rc show_value(struct cht_stream_batch *b, struct cht_entry *e, const struct cht_row *r,
                              struct cht_err *err)
{
    e->size = r->len;
    if (r->flags == CHT_ROW_PARTS || r->len > CHT_SCAN_INLINE_MAX) {
        e->flags |= CHT_ENTRY_LARGE;
        return CHT_OK;
    }
    if (cht_row_crc(r->key, r->body) != r->crc) {
        e->flags |= CHT_ENTRY_CORRUPT;
        return CHT_OK;
    }
    uint8_t *p = cht_rowset_alloc(&b->arena, r->len);
    if (p == NULL)
        return no_memory(err);
    memcpy(p, r->body.p, r->len);
    e->value = p;
    e->value_len = r->len;
    return CHT_OK;
}

/* The values of entries whose own row has none. */
static enum cht_rc look_elsewhere(const struct cht_rscan_config *c, struct cht_stream_batch *b,
                                  struct cht_err *err)
{
    struct cht_rowset set;
    struct cht_exec x = {.db = c->db, .set = &set, .now = cht_wall_ns() / 1000000, .err = err};
    enum cht_rc rc = CHT_PENDING;
    cht_rowset_init(&set, c->db, -1);
    while (rc == CHT_PENDING) {
        cht_rowset_restart(&set);
        rc = CHT_OK;
        for (size_t i = 0; i < b->n && (rc == CHT_OK || rc == CHT_PENDING); i++) {
            struct cht_entry *e = &b->entries[i];
            struct cht_exec_value v;
            if ((e->flags & CHT_ENTRY_DANGLING) == 0)
                continue;
            enum cht_rc one = cht_exec_find(&x, e->key, &v);
            if (one == CHT_OK && v.live) {
                e->flags &= ~CHT_ENTRY_DANGLING;
                one = show_value(b, e, &v.row, err);
            }
            rc = one != CHT_OK ? one : rc;
        }
        if (rc == CHT_PENDING) {
            enum cht_rc got = cht_rowset_fetch(&set, false, err);
            rc = got == CHT_OK ? CHT_PENDING : got;
        }
    }
    cht_rowset_fini(&set);
    return rc;
}

static enum cht_rc render_one(const struct cht_rscan_config *c, struct cht_stream_batch *b,
                              struct cht_entry *e, bool *skip, struct cht_err *err)
{
    *skip = false;
    for (size_t room = 4096;; room = CHT_SCAN_RENDER_MAX) {
        uint8_t *p = cht_malloc(room);
        if (p == NULL)
            return no_memory(err);
        size_t n = c->render(c->render_ctx, e, p, room);
        *skip = n == CHT_SCAN_SKIP;
        uint8_t *kept = !*skip && n <= room ? cht_rowset_alloc(&b->arena, n + 1) : NULL;
        if (kept != NULL)
            memcpy(kept, p, n);
        cht_free(p);
        if (*skip)
            return CHT_OK;
        if (kept != NULL) {
            e->value = kept;
            e->value_len = (uint32_t)n;
            return CHT_OK;
        }
        if (n <= room)
            return no_memory(err);
        if (room ==
            CHT_SCAN_RENDER_MAX) { /* a long value with many escapes: it is read by its key, in pieces */
            e->flags |= CHT_ENTRY_LARGE;
            e->value = NULL;
            e->value_len = 0;
            return CHT_OK;
        }
    }
}

/* What is not wanted goes; the others are rendered. *each: bytes that an entry takes. */
static enum cht_rc sift(const struct cht_rscan_config *c, struct cht_stream_batch *b, unsigned shard,
                        size_t *each, struct cht_err *err)
{
    size_t n = 0, bytes = b->n * sizeof *b->entries;
    for (size_t i = 0; i < b->n; i++) {
        struct cht_entry *e = &b->entries[i];
        bool skip = c->kind == CHT_SCAN_VALUES &&
                    ((e->flags & CHT_ENTRY_DANGLING) != 0 || (c->size != 0 && e->size != c->size));
        e->shard = shard;
        if (!c->values && e->value != NULL) {
            e->value = NULL;
            e->value_len = 0;
        }
        bytes += e->name_len + e->value_len;
        enum cht_rc rc = !skip && c->render != NULL ? render_one(c, b, e, &skip, err) : CHT_OK;
        if (rc != CHT_OK)
            return rc;
        bytes += c->render != NULL && !skip ? e->value_len : 0;
        if (!skip)
            b->entries[n++] = *e;
    }
    if (b->n > 0)
        *each = bytes / b->n;
    b->n = n;
    return CHT_OK;
}

static void turn_round(struct cht_stream_batch *b)
{
    for (size_t i = 0; i + i + 1 < b->n; i++) {
        struct cht_entry e = b->entries[i];
        b->entries[i] = b->entries[b->n - 1 - i];
        b->entries[b->n - 1 - i] = e;
    }
}

/* Adds the rows of a page that lie below `hi` ("": all). *past: one did not. */
static enum cht_rc add_page(const struct cht_rstream *s, const struct cht_page *page, const char *hi,
                            bool inclusive, struct cht_stream_batch *b, bool *past, struct cht_err *err)
{
    const struct cht_rscan_config *c = s->cfg;
    uint64_t now = cht_wall_ns() / 1000000;
    struct cht_entry *v = cht_realloc(b->entries, (b->n + page->n + 1) * sizeof *v);
    if (v == NULL)
        return no_memory(err);
    b->entries = v;
    for (size_t i = 0; i < page->n; i++) {
        struct cht_row r;
        int to_end = hi[0] != 0 ? compare(page->rows[i].name, hi) : -1;
        *past = to_end > 0 || (to_end == 0 && !inclusive);
        if (*past)
            return CHT_OK;
        enum cht_rc rc = begin_entry(c, &page->rows[i], b, &r, err);
        if (rc != CHT_OK)
            return rc;
        if (r.ends != 0 && r.ends <= now) /* it is not there */
            continue;
        struct cht_entry *e = &b->entries[b->n++];
        e->ends = c->ends && r.ends < CHT_ROW_SINCE ? r.ends : 0;
        if (!c->values && c->kind == CHT_SCAN_PAIRS)
            continue;
        if (cht_row_live(&r))
            rc = show_value(b, e, &r, err);
        else
            e->flags |= CHT_ENTRY_DANGLING; /* until it is looked for elsewhere */
        if (rc != CHT_OK)
            return rc;
    }
    return CHT_OK;
}

static unsigned between(size_t least, size_t n, size_t most)
{
    return (unsigned)(n < least ? least : n > most ? most : n);
}

/* Of the next page, by the length of rows. */
static size_t rows_of_length(const struct cht_page *p) { return CHT_STREAM_BYTES / (p->size / p->n + 1); }

/* The same, and by what the entries made of them take. */
static unsigned rows_for(const struct cht_rstream *s, const struct cht_page *p)
{
    size_t all = CHT_STREAM_ALL / (2 * s->cfg->map->shards), rows = rows_of_length(p);
    size_t each = s->each != 0 ? s->each : sizeof(struct cht_entry) + 3 * (p->size / p->n);
    size_t held = (all < CHT_STREAM_LEAST ? CHT_STREAM_LEAST : all) / each;
    return between(1, rows < held ? rows : held, CHT_PAGE_ROWS_MAX);
}

static enum cht_rc move_cursor(struct cht_rstream *s, const struct cht_page *p, struct cht_err *err)
{
    if (p->n == 0)
        return CHT_OK;
    char *next = copy_text(p->rows[p->n - 1].name);
    if (next == NULL)
        return no_memory(err);
    cht_free(s->cursor);
    s->cursor = next;
    return CHT_OK;
}

static enum cht_rc read_page(struct cht_rstream *s, struct cht_page *page, struct cht_err *err)
{
    struct cht_page_wanted w = {s->shard, s->cfg->map->level[s->shard], s->cursor, s->cfg->prefix, s->rows};
    enum cht_rc rc = cht_page_read(s->cfg->db, &w, page, err);
    if (rc == CHT_OK && page->n > 0)
        s->rows = rows_for(s, page);
    return rc == CHT_OK ? move_cursor(s, page, err) : rc;
}

static enum cht_rc forward(struct cht_rstream *s, struct cht_stream_batch *b, struct cht_err *err)
{
    struct cht_page page;
    bool past = false;
    enum cht_rc rc = read_page(s, &page, err);
    if (rc == CHT_OK)
        rc = add_page(s, &page, s->cfg->hi, false, b, &past, err);
    b->last = past || !page.more;
    cht_page_free(&page);
    return rc;
}

/* ---- backward ------------------------------------------------------------------------------------------------------ */

static enum cht_rc add_step(struct cht_rstream *s, struct cht_str row, struct cht_err *err)
{
    if (s->nsteps == s->steps_cap) {
        size_t cap = s->steps_cap == 0 ? 16 : s->steps_cap * 2;
        char **v = cht_realloc(s->steps, cap * sizeof *v);
        if (v == NULL)
            return no_memory(err);
        s->steps = v;
        s->steps_cap = cap;
    }
    s->steps[s->nsteps] = copy_text(row);
    if (s->steps[s->nsteps] == NULL)
        return no_memory(err);
    s->nsteps++;
    return CHT_OK;
}

/* One pass over the names: the ends of the windows, the last of them hi. Windows are small where entries are long or shards many, but each costs
 * the memory of a name. */
static enum cht_rc find_steps(struct cht_rstream *s, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    size_t seen = 0;
    bool more = true;
    s->rows = FIRST_ROWS;
    while (rc == CHT_OK && more) {
        struct cht_page page;
        rc = read_page(s, &page, err);
        if (s->step == 0 && page.n > 0)
            s->step = between(STEP_LEAST, s->rows, CHT_STREAM_STEP);
        if (page.n > 0)
            s->rows = between(1, rows_of_length(&page), CHT_PAGE_ROWS_MAX);
        more = page.more && (s->cfg->cancelled == NULL || !atomic_load(s->cfg->cancelled));
        for (size_t i = 0; i < page.n && rc == CHT_OK && more; i++) {
            if (s->cfg->hi[0] != 0 && compare(page.rows[i].name, s->cfg->hi) >= 0)
                more = false;
            else if (++seen % s->step == 0)
                rc = add_step(s, page.rows[i].name, err);
        }
        cht_page_free(&page);
    }
    s->stepped = true;
    return rc == CHT_OK ? add_step(s, (struct cht_str){(const uint8_t *)s->cfg->hi, strlen(s->cfg->hi)}, err)
                        : rc;
}

static enum cht_rc backward(struct cht_rstream *s, struct cht_stream_batch *b, struct cht_err *err)
{
    enum cht_rc rc = s->stepped ? CHT_OK : find_steps(s, err);
    if (rc != CHT_OK)
        return rc;
    char *hi = s->steps[--s->nsteps];
    const char *lo = s->nsteps > 0 ? s->steps[s->nsteps - 1] : s->cfg->lo;
    bool past = false, more = true, inner = strcmp(hi, s->cfg->hi) != 0;
    cht_free(s->cursor);
    s->cursor = copy_text((struct cht_str){(const uint8_t *)lo, strlen(lo)});
    if (s->cursor == NULL)
        rc = no_memory(err);
    s->rows = s->step != 0 ? s->step : STEP_LEAST;
    while (rc == CHT_OK && more && !past) {
        struct cht_page page;
        rc = read_page(s, &page, err);
        if (rc == CHT_OK)
            rc = add_page(s, &page, hi, inner, b, &past, err);
        more = page.more;
        cht_page_free(&page);
    }
    cht_free(hi);
    turn_round(b);
    b->last = s->nsteps == 0;
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_rscan_config(struct cht_rdb *db, const struct cht_scan_config *cfg,
                             struct cht_rscan_config *out, struct cht_err *err)
{
    bool pairs = cfg->kind == CHT_SCAN_PAIRS;
    struct cht_str none = {(const uint8_t *)"", 0};
    struct cht_str lo = cfg->reverse ? cfg->until : cfg->after, hi = cfg->reverse ? cfg->after : cfg->until;
    uint8_t key[CHT_ROW_KEY_SIZE];
    *out = (struct cht_rscan_config){.db = db,
                                     .map = cht_rdb_map(db),
                                     .kind = cfg->kind,
                                     .reverse = pairs && cfg->reverse,
                                     .values = cfg->values,
                                     .ends = cfg->ends,
                                     .size = cfg->size,
                                     .render = cfg->render,
                                     .render_ctx = cfg->render_ctx};
    if (lo.n > CHT_NAME_MAX || hi.n > CHT_NAME_MAX)
        return CHT_FAIL(err, CHT_INVALID_PAIR, "a bound of more than %u bytes", CHT_NAME_MAX);
    out->prefix = row_text(pairs ? 'P' : 'K', pairs ? cfg->prefix : none);
    if (pairs) {
        out->lo = lo.n > 0 ? row_text('P', lo) : copy_text(none);
        out->hi = hi.n > 0 ? row_text('P', hi) : copy_text(none);
    } else {
        (void)cht_row_of_key(key, cfg->after_key); /* its size is known */
        out->lo = copy_text(cfg->after_key > 0 ? (struct cht_str){key, sizeof key} : none);
        out->hi = copy_text(none);
    }
    if (out->prefix == NULL || out->lo == NULL || out->hi == NULL)
        return no_memory(err);
    return CHT_OK;
}

void cht_rscan_config_free(struct cht_rscan_config *c)
{
    cht_free(c->prefix);
    cht_free(c->lo);
    cht_free(c->hi);
}

void cht_rstream_init(struct cht_rstream *s, const struct cht_rscan_config *cfg, unsigned shard,
                      uint64_t limit)
{
    uint64_t first = limit / cfg->map->shards * 2 + 16;
    *s = (struct cht_rstream){.cfg = cfg, .shard = shard};
    s->rows = limit == 0 || first > FIRST_ROWS ? FIRST_ROWS
                                               : (unsigned)first; /* how long they are is not known yet */
}

void cht_rstream_fini(struct cht_rstream *s)
{
    while (s->nsteps > 0)
        cht_free(s->steps[--s->nsteps]);
    cht_free(s->steps);
    cht_free(s->cursor);
}

void cht_stream_batch_free(struct cht_stream_batch *b)
{
    if (b == NULL)
        return;
    cht_rowset_fini(&b->arena);
    cht_free(b->entries);
    cht_free(b);
}

enum cht_rc cht_rstream_read(struct cht_rstream *s, struct cht_stream_batch **out, struct cht_err *err)
{
    struct cht_stream_batch *b = *out = cht_calloc(1, sizeof *b);
    if (b == NULL)
        return no_memory(err);
    cht_rowset_init(&b->arena, s->cfg->db, -1);
    enum cht_rc rc = CHT_OK;
    if (s->cursor == NULL) {
        s->cursor = copy_text((struct cht_str){(const uint8_t *)s->cfg->lo, strlen(s->cfg->lo)});
        rc = s->cursor == NULL ? no_memory(err) : CHT_OK;
    }
    if (rc == CHT_OK)
        rc = s->cfg->reverse ? backward(s, b, err) : forward(s, b, err);
    if (rc == CHT_OK && (s->cfg->values || s->cfg->kind == CHT_SCAN_VALUES))
        rc = look_elsewhere(s->cfg, b, err);
    return rc;
}

enum cht_rc cht_rstream_sift(struct cht_rstream *s, struct cht_stream_batch *b, struct cht_err *err)
{
    return sift(s->cfg, b, s->shard, &s->each, err);
}

enum cht_rc cht_rstream_next(struct cht_rstream *s, struct cht_stream_batch **out, struct cht_err *err)
{
    enum cht_rc rc = cht_rstream_read(s, out, err);
    if (rc == CHT_OK)
        rc = cht_rstream_sift(s, *out, err);
    if (rc != CHT_OK) {
        cht_stream_batch_free(*out);
        *out = NULL;
    }
    return rc;
}
