/* tables_store: the values of prediction tables in the store; see tables.h. */
#include "lm/tables_int.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "cheetah/scan.h"

#define TABLE_MAX 64u
#define TABLE_DEFAULT "default"
#define PREFIX "\x10pt:"
#define EVICT_EVERY 256u /* new values between two looks at how many there are */
#define ENTRIES 256u

static bool plain(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

/* A value's size and age, to choose those that go. */
struct aged {
    uint64_t key; /* given out in ascending order, kept by later writes */
    uint32_t size, name_len;
    uint8_t *name; /* owned */
};

static int older(const void *a, const void *b)
{
    const struct aged *x = a, *y = b;
    return x->key < y->key ? -1 : x->key > y->key;
}

struct ages {
    struct aged *a;
    size_t n, cap;
    uint64_t bytes;
};

static enum cht_rc note_age(struct ages *g, const struct cht_entry *e, struct cht_err *err)
{
    if (g->n == g->cap) {
        size_t cap = g->cap == 0 ? 1024 : g->cap * 2;
        struct aged *a = cht_realloc(g->a, cap * sizeof *a);
        if (a == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu values", cap);
        g->a = a;
        g->cap = cap;
    }
    uint8_t *name = cht_malloc(e->name_len);
    if (name == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a name");
    memcpy(name, e->name, e->name_len);
    g->a[g->n++] = (struct aged){.key = e->key, .size = e->size, .name_len = e->name_len, .name = name};
    g->bytes += e->size;
    return CHT_OK;
}

static enum cht_rc read_ages(struct lm_table *t, struct ages *g, struct cht_err *err)
{
    struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .prefix = {t->prefix.data, t->prefix.len}, .values = true};
    struct cht_scan *scan = NULL;
    struct cht_entry e[ENTRIES];
    size_t got = 1;
    enum cht_rc rc = cht_scan_open(t->store, &cfg, &scan, err);
    while (rc == CHT_OK && got > 0) {
        rc = cht_scan_next(scan, e, ENTRIES, &got, err);
        for (size_t i = 0; i < got && rc == CHT_OK; i++)
            rc = note_age(g, &e[i], err);
    }
    cht_scan_close(scan);
    return rc;
}

/* Deletes the oldest values of the key until what is left is within the bounds. */
static enum cht_rc evict(struct lm_table *t, struct cht_err *err)
{
    struct ages g = {0};
    enum cht_rc rc = read_ages(t, &g, err);
    if (rc == CHT_OK && g.n > 0)
        qsort(g.a, g.n, sizeof *g.a, older);
    for (size_t from = 0; from < g.n && rc == CHT_OK;) {
        struct cht_op ops[ENTRIES];
        struct cht_commit c = {.ops = ops, .flags = t->durability};
        for (; c.count < ENTRIES && from < g.n &&
               (g.n - from > LM_TABLE_VALUES_MAX || g.bytes > LM_TABLE_BYTES_MAX);
             from++) {
            const struct aged *a = &g.a[from];
            ops[c.count++] =
                (struct cht_op){.kind = CHT_OP_PAIR_DEL, .with_values = true, .name = {a->name, a->name_len}};
            g.bytes -= a->size;
        }
        if (c.count == 0)
            break;
        rc = cht_store_commit(t->store, &c);
    }
    for (size_t i = 0; i < g.n; i++)
        cht_free(g.a[i].name);
    cht_free(g.a);
    return rc;
}

/* Looks after each EVICT_EVERY new values whether there are too many. */
static enum cht_rc make_room(struct lm_table *t, struct cht_err *err)
{
    uint64_t count = 0;
    enum cht_rc rc = t->made > 0 ? lm_table_count(t, &count, err) : CHT_OK;
    bool look = count > 0 &&
                (count + EVICT_EVERY - 1) / EVICT_EVERY != (count + t->made + EVICT_EVERY - 1) / EVICT_EVERY;
    return rc == CHT_OK && look ? evict(t, err) : rc;
}

/* The name of a value of the key; the bytes are the table's until the next call. */
static struct cht_str full_name(struct lm_table *t, struct cht_str value)
{
    memcpy(t->prefix.data + t->prefix.len, value.p, value.n);
    return (struct cht_str){.p = t->prefix.data, .n = t->prefix.len + value.n};
}

static enum cht_rc check_length(const struct lm_table *t, struct cht_str value, struct cht_err *err)
{
    if (t->prefix.len + value.n <= CHT_NAME_MAX)
        return CHT_OK;
    return CHT_FAIL(err, CHT_INVALID_PAIR, "table, key and value have more than %u bytes together",
                    CHT_NAME_MAX);
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_table_key(struct lm_table *t, struct cht_str key, struct cht_err *err)
{
    enum cht_rc rc = cht_buf_reserve(&t->prefix, CHT_NAME_MAX, err);
    if (rc != CHT_OK)
        return rc;
    uint8_t *d = t->prefix.data;
    size_t n = sizeof PREFIX - 1, table = t->name.n < TABLE_MAX ? t->name.n : TABLE_MAX;
    memcpy(d, PREFIX, n);
    for (size_t i = 0; i < table; i++)
        d[n++] = plain(t->name.p[i]) ? t->name.p[i] : '_';
    if (table == 0) {
        memcpy(d + n, TABLE_DEFAULT, sizeof TABLE_DEFAULT - 1);
        n += sizeof TABLE_DEFAULT - 1;
    }
    d[n++] = 0;
    d[n++] = (uint8_t)(key.n >> 8);
    d[n++] = (uint8_t)key.n;
    t->prefix.len = n;
    rc = check_length(t, key, err);
    if (rc == CHT_OK) {
        memcpy(d + n, key.p, key.n);
        t->prefix.len += key.n;
    }
    return rc;
}

enum cht_rc lm_table_count(struct lm_table *t, uint64_t *values, struct cht_err *err)
{
    return cht_store_count(t->store, (struct cht_str){t->prefix.data, t->prefix.len}, values, err);
}

enum cht_rc lm_table_load(struct lm_table *t, struct cht_str value, struct lm_learned *out, bool *found,
                          struct cht_err *err)
{
    uint64_t key;
    uint32_t size = 0;
    *found = false;
    *out = (struct lm_learned){.score = LM_LEARNED_NEW};
    enum cht_rc rc = check_length(t, value, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_store_pair_value(t->store, full_name(t, value), &key, &t->value, &size, err);
    if (rc == CHT_PAIR_NOT_FOUND)
        return CHT_OK;
    *found = rc == CHT_OK;
    return rc != CHT_OK ? rc : lm_learned_read(out, t->value.data, size, err);
}

enum cht_rc lm_table_put(struct lm_table *t, struct cht_str value, const struct lm_learned *l, bool made,
                         struct cht_err *err)
{
    struct cht_buf payload = {0};
    enum cht_rc rc = check_length(t, value, err);
    if (rc == CHT_OK && !lm_learned_finite(l))
        rc = CHT_FAIL(err, CHT_INVALID_NUMBER, "a number is not finite");
    if (rc == CHT_OK && t->n == t->cap) {
        size_t cap = t->cap == 0 ? 8 : t->cap * 2;
        struct cht_op *ops = cht_realloc(t->ops, cap * sizeof *ops);
        if (ops == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu operations", cap);
        t->ops = ops;
        t->cap = cap;
    }
    if (rc == CHT_OK)
        rc = lm_learned_write(l, &payload, err);
    if (rc == CHT_OK && (payload.len > t->max_value || t->bytes + payload.len > LM_TABLE_COMMIT_MAX))
        rc = CHT_FAIL(err, CHT_VALUE_TOO_LARGE, "a value of %zu bytes, after %llu", payload.len,
                      (unsigned long long)t->bytes);
    if (rc != CHT_OK) {
        cht_buf_free(&payload);
        return rc;
    }
    struct cht_str name = full_name(t, value);
    uint8_t *copy = cht_malloc(name.n);
    if (copy == NULL) {
        cht_buf_free(&payload);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a name");
    }
    memcpy(copy, name.p, name.n);
    t->ops[t->n++] = (struct cht_op){
        .kind = CHT_OP_PAIR_PUT, .name = {copy, name.n}, .value = {payload.data, payload.len}};
    t->made += made;
    t->bytes += payload.len;
    return CHT_OK;
}

/* One entry of the scan: a long value is read by itself. */
static enum cht_rc visit(struct lm_table *t, const struct cht_entry *e, lm_table_fn *fn, void *ctx,
                         struct cht_err *err)
{
    struct lm_learned l = {0};
    struct cht_str value = {.p = e->name + t->prefix.len, .n = e->name_len - t->prefix.len};
    uint32_t size = e->value_len;
    const uint8_t *bytes = e->value;
    enum cht_rc rc =
        (e->flags & CHT_ENTRY_CORRUPT) != 0 ? CHT_FAIL(err, CHT_CORRUPT, "a value is damaged") : CHT_OK;
    if ((e->flags & CHT_ENTRY_LARGE) != 0) {
        rc = cht_store_get(t->store, e->key, &t->value, &size, err);
        bytes = t->value.data;
    }
    if (rc == CHT_KEY_NOT_FOUND || (e->flags & CHT_ENTRY_DANGLING) != 0)
        return CHT_OK; /* deleted meanwhile */
    if (rc == CHT_OK)
        rc = lm_learned_read(&l, bytes, size, err);
    if (rc == CHT_OK)
        rc = fn(ctx, value, &l, err);
    lm_learned_free(&l);
    return rc;
}

enum cht_rc lm_table_each(struct lm_table *t, lm_table_fn *fn, void *ctx, struct cht_err *err)
{
    struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .prefix = {t->prefix.data, t->prefix.len}, .values = true};
    struct cht_scan *scan = NULL;
    struct cht_entry e[ENTRIES];
    size_t got = 1;
    enum cht_rc rc = cht_scan_open(t->store, &cfg, &scan, err);
    while (rc == CHT_OK && got > 0) {
        rc = cht_scan_next(scan, e, ENTRIES, &got, err);
        for (size_t i = 0; i < got && rc == CHT_OK; i++)
            rc = visit(t, &e[i], fn, ctx, err);
        if (rc == CHT_OK && t->goes_on != NULL)
            rc = t->goes_on(t->ctx);
    }
    cht_scan_close(scan);
    return rc;
}

enum cht_rc lm_table_commit(struct lm_table *t, struct cht_err *err)
{
    struct cht_commit c = {.ops = t->ops, .count = t->n, .flags = CHT_COMMIT_ATOMIC | t->durability};
    enum cht_rc rc = t->n > 0 ? make_room(t, err) : CHT_OK;
    if (rc == CHT_OK && t->n > 0) {
        rc = cht_store_commit(t->store, &c);
        if (rc == CHT_BATCH_FAILED)
            rc = t->ops[c.failed].rc;
        if (rc != CHT_OK)
            (void)CHT_FAIL(err, rc, "%s", c.err.code == rc ? c.err.msg : cht_rc_text(rc));
    }
    lm_table_drop(t);
    return rc;
}

void lm_table_drop(struct lm_table *t)
{
    for (size_t i = 0; i < t->n; i++) {
        cht_free((void *)t->ops[i].name.p);
        cht_free((void *)t->ops[i].value.p);
    }
    t->n = t->made = 0;
    t->bytes = 0;
}

void lm_table_free(struct lm_table *t)
{
    lm_table_drop(t);
    cht_free(t->ops);
    cht_buf_free(&t->prefix);
    cht_buf_free(&t->value);
}
