/* check: see check.h. */
#include "store/rados/check.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "os/code.h"
#include "store/rados/exec.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void cht_check_found(struct cht_check *c, const char *fmt, ...)
{
    char where[CHT_DATABASE_NAME_MAX + 16], what[2 * CHT_CHECK_TEXT + 128];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(what, sizeof what, fmt, args); /* a long one is cut */
    va_end(args);
    (void)snprintf(where, sizeof where, "%s s.%u", c->db->name, c->shard); /* fits */
    c->out->findings++;
    c->out->finding(c->out->ctx, where, what);
}

const char *cht_check_text(char *out, struct cht_str name)
{
    size_t at = 0, i = 0;
    for (; i < name.n && at + 8 < CHT_CHECK_TEXT; i++) {
        uint8_t b = name.p[i];
        if (b > ' ' && b < 0x7f && b != '\\' && b != '"')
            out[at++] = (char)b;
        else
            at += (size_t)snprintf(out + at, 5, "\\x%02x", b);
    }
    (void)snprintf(out + at, 4, "%s", i < name.n ? "..." : "");
    return out;
}

static enum cht_rc no_memory(struct cht_err *err)
{
    return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a check");
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

static int order(struct cht_str a, struct cht_str b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n > 0 ? memcmp(a.p, b.p, n) : 0;
    return c != 0 ? c : (a.n > b.n) - (a.n < b.n);
}

static int by_name(const void *a, const void *b)
{
    return order(((const struct cht_check_want *)a)->name, ((const struct cht_check_want *)b)->name);
}

struct asked {
    const struct cht_check_want *w;
    size_t n;
    void (*fn)(void *ctx, size_t who, struct cht_str value);
    void *ctx;
};

/* To all who wanted this row. */
static void hand_out(void *ctx, struct cht_str row, struct cht_str value)
{
    const struct asked *a = ctx;
    size_t low = 0, high = a->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (order(a->w[mid].name, row) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    for (; low < a->n && order(a->w[low].name, row) == 0; low++)
        a->fn(a->ctx, a->w[low].who, value);
}

enum cht_rc cht_check_rows(struct cht_check *c, struct cht_check_want *w, size_t n,
                           void (*fn)(void *ctx, size_t who, struct cht_str value), void *ctx,
                           struct cht_err *err)
{
    char object[CHT_LINK_OBJECT_MAX];
    struct asked a = {w, n, fn, ctx};
    if (n == 0)
        return CHT_OK;
    const char **names = cht_calloc(n, sizeof *names);
    size_t *lens = cht_calloc(n, sizeof *lens);
    enum cht_rc rc = names == NULL || lens == NULL ? no_memory(err) : CHT_OK;
    if (rc == CHT_OK) {
        qsort(w, n, sizeof *w, by_name);
        for (size_t i = 0; i < n; i++) {
            names[i] = (const char *)w[i].name.p;
            lens[i] = w[i].name.n;
        }
        cht_rdb_shard_name(object, c->shard);
        int r = cht_link_rows(c->db->io, object, &(struct cht_rows_wanted){names, lens, n}, hand_out, &a);
        rc = r < 0 ? cht_rdb_rc(c->db, r, object, err) : CHT_OK;
    }
    cht_free(names);
    cht_free(lens);
    return rc;
}

enum cht_rc cht_check_pages(struct cht_check *c, const char *kind, cht_page_fn *fn, void *ctx,
                            struct cht_err *err)
{
    const struct cht_page_wanted w = {c->shard, c->map->level[c->shard], "", kind, CHT_PAGE_ROWS_MAX};
    return cht_page_each(c->db, &w, fn, ctx, err);
}

/* ---- a name and its key -------------------------------------------------------------------------------------------- */

/* A P row and the K row that belongs to it. */
struct couple {
    struct cht_str name; /* of the pair */
    uint64_t key;
    bool has, says; /* the name has the value of this key; the key says so */
    bool epoch;     /* the shard's is the one that the map says */
    uint32_t wanted;
};

static void see_name(struct couple *p, struct cht_str value)
{
    struct cht_row r;
    p->has = cht_row_read(value.p, value.n, &r) && cht_row_live(&r) && r.key == p->key;
}

static void see_key(struct couple *p, struct cht_str value)
{
    struct cht_row r;
    p->says = cht_row_read(value.p, value.n, &r) && r.flags == CHT_ROW_NAME && r.key == p->key &&
              order(r.body, p->name) == 0;
}

static void take_couple(void *ctx, size_t who, struct cht_str value)
{
    struct couple *p = ctx;
    struct cht_epoch e;
    if (who == 0)
        p->epoch = cht_row_epoch_read(value.p, value.n, &e) && e.epoch == p->wanted;
    else if (who == 1)
        see_name(p, value);
    else
        see_key(p, value);
}

/* Both rows and the epoch at one moment; the map is read again until the shard is the one that it says. */
static enum cht_rc judge(struct cht_check *c, struct couple *p, struct cht_err *err)
{
    uint8_t *name = cht_malloc(CHT_ROW_NAME_MAX), key[CHT_ROW_KEY_SIZE];
    struct cht_check now = *c;
    enum cht_rc rc = name == NULL ? no_memory(err) : CHT_OK;
    for (unsigned i = 0; rc == CHT_OK && i < CHT_CHECK_TRIES && !p->epoch; i++) {
        if (i > 0)
            rc = cht_rdb_reload(c->db, err);
        now.map = cht_rdb_map(c->db);
        now.shard = cht_map_locate(now.map, cht_row_bucket_of_key(p->key));
        p->has = p->says = false;
        p->wanted = cht_map_epoch(now.map, now.shard);
        struct cht_check_want w[] = {{CHT_ROW_TEXT("E"), 0},
                                     {{name, cht_row_of_name(name, 'P', p->name)}, 1},
                                     {{key, cht_row_of_key(key, p->key)}, 2}};
        if (rc == CHT_OK)
            rc = cht_check_rows(&now, w, 3, take_couple, p, err);
    }
    cht_free(name);
    char text[CHT_CHECK_TEXT];
    if (rc == CHT_OK && p->epoch && p->has && !p->says)
        cht_check_found(&now, "\"%s\" has a value under key %llu, and the key does not say so",
                        cht_check_text(text, p->name), (unsigned long long)p->key);
    else if (rc == CHT_OK && p->epoch && p->says && !p->has)
        cht_check_found(&now, "key %llu says that \"%s\" has its value, and the name does not",
                        (unsigned long long)p->key, cht_check_text(text, p->name));
    return rc;
}

/* ---- values -------------------------------------------------------------------------------------------------------- */

struct same {
    struct cht_str was;
    bool is;
};

static void is_same(void *ctx, size_t who, struct cht_str value)
{
    struct same *s = ctx;
    (void)who;
    s->is = order(s->was, value) == 0;
}

/* A long value. What is wrong with it counts if its row is still there. */
static enum cht_rc check_parts(struct cht_check *c, const struct cht_page_row *row, const struct cht_row *r,
                               const char *of, struct cht_err *err)
{
    struct cht_err why = {0};
    struct same s = {row->value, false};
    uint8_t *p = r->len <= CHT_VALUE_MAX ? cht_malloc(r->len) : NULL;
    if (p == NULL && r->len <= CHT_VALUE_MAX)
        return no_memory(err);
    enum cht_rc rc = CHT_OK;
    if (p == NULL)
        rc = CHT_FAIL(&why, CHT_CORRUPT, "a value of %u bytes", r->len);
    else
        rc = cht_parts_read(c->db, cht_get64(r->body.p), p, r->len, &why);
    if (rc == CHT_OK && cht_row_crc(r->key, (struct cht_str){p, r->len}) != r->crc)
        rc = CHT_FAIL(&why, CHT_CORRUPT, "the value does not match its sum");
    cht_free(p);
    if (rc != CHT_CORRUPT && rc != CHT_NO_FILE) {
        if (rc != CHT_OK && err != NULL)
            *err = why;
        return rc;
    }
    struct cht_check_want w = {row->name, 0};
    rc = cht_check_rows(c, &w, 1, is_same, &s, err);
    if (rc == CHT_OK && s.is)
        cht_check_found(c, "%s: %s", of, why.msg);
    return rc;
}

/* Has it a name, and lies it where that belongs (R3)? By the map with which the shard was begun: what a division makes of the shard
 * meanwhile is of its class. */
static bool is_in_place(struct cht_check *c, struct cht_str row)
{
    char text[CHT_CHECK_TEXT];
    uint32_t bucket;
    if (!cht_row_bucket_of(row, &bucket)) {
        cht_check_found(c, "the name of a row cannot be read: \"%s\"", cht_check_text(text, row));
        return false;
    }
    unsigned at = cht_map_locate(c->map, bucket);
    if (at != c->shard)
        cht_check_found(c, "the row \"%s\" belongs in s.%u", cht_check_text(text, row), at);
    return at == c->shard;
}

/* One row by itself; *r is filled in if it can be read. */
static enum cht_rc check_row(struct cht_check *c, const struct cht_page_row *row, struct cht_row *r,
                             bool *good, struct cht_err *err)
{
    char text[CHT_CHECK_TEXT], of[CHT_CHECK_TEXT + 32];
    bool is_name = row->name.p[0] == 'P';
    struct cht_str shown = {row->name.p + 1, row->name.n - 1};
    uint64_t key = cht_row_key(row->name.p, row->name.n);
    *good = is_in_place(c, row->name);
    if (!*good)
        return CHT_OK;
    if (is_name)
        (void)snprintf(of, sizeof of, "\"%s\"", cht_check_text(text, shown));
    else
        (void)snprintf(of, sizeof of, "key %llu", (unsigned long long)key);
    *good = cht_row_read(row->value.p, row->value.n, r) &&
            (is_name ? r->flags != CHT_ROW_NAME : r->flags != 0 && r->key == key);
    if (!*good) {
        cht_check_found(c, "the row of %s cannot be read", of);
        return CHT_OK;
    }
    if (r->flags == CHT_ROW_PARTS)
        return check_parts(c, row, r, of, err);
    if (r->flags == CHT_ROW_VALUE && cht_row_crc(r->key, r->body) != r->crc)
        cht_check_found(c, "%s: the value does not match its sum", of);
    return CHT_OK;
}

/* ---- pages --------------------------------------------------------------------------------------------------------- */

/* The rows of a page that have a partner, and what the partners said when they were read once. */
struct partners {
    struct cht_check *c;
    struct couple *v; /* owned */
    size_t n;
    struct cht_check_want *w; /* owned */
    uint8_t *bytes;           /* owned: names of pairs, names of rows */
    size_t used;
    bool of_names; /* the page has names: the partners are K rows */
};

static void take_partner(void *ctx, size_t who, struct cht_str value)
{
    struct partners *p = ctx;
    if (p->of_names)
        see_key(&p->v[who], value);
    else
        see_name(&p->v[who], value);
}

/* A P row with a value, or a K row that gives a name; check_row has read its name. */
static enum cht_rc add_partner(struct partners *p, const struct cht_page_row *row, const struct cht_row *r)
{
    struct couple *v = &p->v[p->n];
    struct cht_check_want *w = &p->w[p->n];
    uint8_t *at = p->bytes + p->used;
    size_t n;
    *v = (struct couple){.key = r->key, .has = p->of_names, .says = !p->of_names};
    if (p->of_names) {
        n = cht_row_unescape(at, row->name.p + 1, row->name.n - 1);
        v->name = (struct cht_str){at, n};
        w->name = (struct cht_str){at + n, cht_row_of_key(at + n, r->key)};
    } else {
        n = r->body.n;
        memcpy(at, r->body.p, n);
        v->name = (struct cht_str){at, n};
        w->name = (struct cht_str){at + n, cht_row_of_name(at + n, 'P', v->name)};
    }
    w->who = p->n++;
    p->used += n + w->name.n;
    char text[CHT_CHECK_TEXT];
    if (cht_row_bucket(v->name) != cht_row_bucket_of_key(r->key)) {
        cht_check_found(p->c, "\"%s\" has the value of key %llu, which is of another bucket",
                        cht_check_text(text, v->name), (unsigned long long)r->key);
        p->n--;
    }
    return CHT_OK;
}

static enum cht_rc check_page(void *ctx, const struct cht_page *page, struct cht_err *err)
{
    struct partners p = {.c = ctx};
    enum cht_rc rc = CHT_OK;
    if (page->n == 0)
        return CHT_OK;
    p.of_names = page->rows[0].name.p[0] == 'P';
    p.v = cht_calloc(page->n, sizeof *p.v);
    p.w = cht_calloc(page->n, sizeof *p.w);
    p.bytes = cht_malloc(4 * page->size + 16 * page->n); /* a name, and escaped at most twice as long */
    if (p.v == NULL || p.w == NULL || p.bytes == NULL)
        rc = no_memory(err);
    for (size_t i = 0; i < page->n && rc == CHT_OK; i++) {
        struct cht_row r;
        bool good;
        rc = check_row(p.c, &page->rows[i], &r, &good, err);
        if (rc == CHT_OK && good && (p.of_names ? cht_row_live(&r) : r.flags == CHT_ROW_NAME))
            rc = add_partner(&p, &page->rows[i], &r);
    }
    if (rc == CHT_OK)
        rc = cht_check_rows(p.c, p.w, p.n, take_partner, &p, err);
    for (size_t i = 0; i < p.n && rc == CHT_OK; i++) {
        if (!p.v[i].has || !p.v[i].says)
            rc = judge(p.c, &p.v[i], err);
    }
    cht_free(p.v);
    cht_free(p.w);
    cht_free(p.bytes);
    return rc;
}

/* ---- databases ----------------------------------------------------------------------------------------------------- */

static enum cht_rc check_database(struct cht_rados_check *out, struct cht_env *env, const char *name,
                                  struct cht_err *err)
{
    struct cht_store *s;
    struct cht_check c = {.out = out};
    enum cht_rc rc = cht_env_get(env, name, &s, err);
    if (rc != CHT_OK)
        return rc;
    c.db = cht_rdb(s);
    const struct cht_map *m = cht_rdb_map(c.db);
    for (unsigned i = cht_map_next(m, 0); i < CHT_MAP_MAX && rc == CHT_OK; i = cht_map_next(m, i + 1)) {
        c.map = m;
        c.shard = i;
        rc = cht_check_pages(&c, "P", check_page, &c, err);
        if (rc == CHT_OK)
            rc = cht_check_pages(&c, "K", check_page, &c, err);
        if (rc == CHT_OK)
            rc = cht_check_counters(&c, err);
    }
    return rc;
}

struct each {
    struct cht_rados_check *out;
    struct cht_env *env;
    enum cht_rc rc; /* the first failure */
    struct cht_err *err;
};

static void one_of_all(void *ctx, const char *name)
{
    struct each *e = ctx;
    struct cht_err why = {0};
    enum cht_rc rc = check_database(e->out, e->env, name, &why);
    if (rc == CHT_OK || rc == CHT_DATABASE_NOT_FOUND || rc == CHT_DATABASE_DROPPED || e->rc != CHT_OK)
        return; /* it was dropped meanwhile */
    e->rc = rc;
    if (e->err != NULL)
        *e->err = why;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_rados_check(const struct cht_rados_config *cfg, struct cht_rados_check *check,
                            struct cht_err *err)
{
    struct each e = {.out = check, .err = err};
    struct cht_rados_config mine = *cfg;
    mine.look = true;
    check->findings = 0;
    enum cht_rc rc = cht_rados_open(&mine, &e.env, err);
    if (rc != CHT_OK)
        return rc;
    if (check->database != NULL)
        rc = check_database(check, e.env, check->database, err);
    else
        rc = cht_env_list(e.env, one_of_all, &e, err);
    if (rc == CHT_OK)
        rc = e.rc;
    enum cht_rc closed = cht_env_close(e.env, rc == CHT_OK ? err : NULL);
    return rc == CHT_OK ? closed : rc;
}
