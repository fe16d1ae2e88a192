/* model: see model.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/model.h"

void model_fill(uint8_t *p, uint32_t len, uint32_t seed)
{
    uint64_t x = seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
    for (uint32_t i = 0; i < len; i++) {
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
        p[i] = (uint8_t)(x >> 56);
    }
}

struct named {
    uint8_t *p;
    uint16_t n;
};

static int by_name(const void *a, const void *b)
{
    const struct named *x = a, *y = b;
    int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return c != 0 ? c : (x->n > y->n) - (x->n < y->n);
}

/* One of several families, so that every shape of the trie occurs. */
static size_t make_name(struct cht_rng *r, unsigned i, uint8_t *out)
{
    static const char *const spaces[] = {
        "ctx:", "ctxv:", "cnt:1:", "cnt:2:", "cnt:10:", "prob:3:", "meta:", "m"};
    size_t n = 0;
    switch (i % 8) {
    case 0: /* zero bytes only, each a prefix of the next */
    case 1: /* 0xFF only */
        n = 1 + cht_rng_below(r, i % 64 == 0 ? CHT_NAME_MAX : 40);
        memset(out, i % 8 == 0 ? 0 : 0xFF, n);
        return n;
    case 2: /* long common beginnings */
        n = 1 + cht_rng_below(r, i % 32 == 2 ? CHT_NAME_MAX : 600);
        memset(out, 'a', n);
        out[cht_rng_below(r, n)] = (uint8_t)cht_rng_next(r);
        return n;
    default: { /* namespaces with 1..12 bytes after */
        const char *s = spaces[cht_rng_below(r, 8)];
        n = strlen(s);
        memcpy(out, s, n);
        size_t more = 1 + cht_rng_below(r, 12);
        for (size_t k = 0; k < more; k++)
            out[n++] = (uint8_t)(cht_rng_below(r, 4) == 0 ? cht_rng_below(r, 3) * 127 : cht_rng_next(r));
        return n;
    }
    }
}

void model_init(struct model *m, unsigned names, uint64_t seed)
{
    struct cht_rng r;
    cht_rng_seed(&r, seed);
    memset(m, 0, sizeof *m);
    struct named *v = calloc(names, sizeof *v);
    assert_non_null(v);
    uint8_t buf[CHT_NAME_MAX];
    for (unsigned i = 0; i < names; i++) {
        v[i].n = (uint16_t)make_name(&r, i, buf);
        v[i].p = malloc(v[i].n);
        assert_non_null(v[i].p);
        memcpy(v[i].p, buf, v[i].n);
    }
    qsort(v, names, sizeof *v, by_name);
    m->name = calloc(names, sizeof *m->name);
    m->name_len = calloc(names, sizeof *m->name_len);
    m->key = calloc(names, sizeof *m->key);
    for (unsigned i = 0; i < names; i++) {
        if (i > 0 && by_name(&v[i - 1], &v[i]) == 0) {
            free(v[i - 1].p);
            m->names--;
        }
        m->name[m->names] = v[i].p;
        m->name_len[m->names++] = v[i].n;
    }
    free(v);
}

void model_copy(struct model *to, const struct model *from)
{
    *to = *from;
    to->key = malloc(from->names * sizeof *to->key);
    memcpy(to->key, from->key, from->names * sizeof *to->key);
    to->value = malloc((from->keys_cap + 1) * sizeof *to->value);
    if (from->keys_cap > 0)
        memcpy(to->value, from->value, from->keys_cap * sizeof *to->value);
}

void model_copy_free(struct model *m)
{
    free(m->key);
    free(m->value);
}

void model_free(struct model *m)
{
    for (unsigned i = 0; i < m->names; i++)
        free(m->name[i]);
    free(m->name);
    free(m->name_len);
    model_copy_free(m);
}

static struct model_value *slot(struct model *m, uint64_t key)
{
    assert_true(key > 0 && key < (1u << 24));
    if (key >= m->keys_cap) {
        uint64_t cap = key * 2 + 64;
        m->value = realloc(m->value, cap * sizeof *m->value);
        assert_non_null(m->value);
        memset(m->value + m->keys_cap, 0, (cap - m->keys_cap) * sizeof *m->value);
        m->keys_cap = cap;
    }
    return &m->value[key];
}

static bool lives(const struct model *m, uint64_t key) { return key < m->keys_cap && m->value[key].len > 0; }

static uint32_t random_length(struct cht_rng *r, uint32_t max)
{
    uint64_t x = cht_rng_below(r, 100);
    uint32_t n = (uint32_t)(x < 50   ? 64
                            : x < 80 ? 1 + cht_rng_below(r, 40)
                            : x < 97 ? 1 + cht_rng_below(r, 3000)
                                     : 1 + cht_rng_below(r, max));
    return n > max ? max : n;
}

void model_random_batch(const struct model *m, struct cht_rng *r, uint32_t max_value, struct model_batch *b)
{
    static const enum cht_op_kind kinds[] = {
        CHT_OP_PAIR_PUT, CHT_OP_PAIR_PUT,  CHT_OP_PAIR_PUT,  CHT_OP_PAIR_PUT, CHT_OP_INSERT,
        CHT_OP_EDIT,     CHT_OP_DELETE,    CHT_OP_PAIR_SET,  CHT_OP_PAIR_DEL, CHT_OP_PAIR_DEL,
        CHT_OP_READ,     CHT_OP_PAIR_READ, CHT_OP_PAIR_LINK, CHT_OP_PUT};
    memset(b, 0, sizeof *b);
    b->count = 1 + (unsigned)cht_rng_below(r, cht_rng_below(r, 4) == 0 ? MODEL_OPS_MAX : 6);
    b->flags = cht_rng_below(r, 3) == 0 ? CHT_COMMIT_ATOMIC : 0;
    for (unsigned i = 0; i < b->count; i++) {
        struct cht_op *op = &b->ops[i];
        unsigned n = (unsigned)cht_rng_below(r, m->names);
        op->kind = kinds[cht_rng_below(r, sizeof kinds / sizeof *kinds)];
        op->with_values = cht_rng_below(r, 2) == 0;
        if (op->kind == CHT_OP_PAIR_DEL && cht_rng_below(r, 200) == 0)
            op->kind = CHT_OP_PREFIX_DEL;
        if (op->kind == CHT_OP_PUT && cht_rng_below(r, 20) == 0)
            op->kind = CHT_OP_RESERVE;
        b->name[i] = n;
        op->name = (struct cht_str){m->name[n], m->name_len[n]};
        if (op->kind == CHT_OP_PREFIX_DEL && op->name.n > 1)
            op->name.n = 1 + cht_rng_below(r, op->name.n > 6 ? 6 : op->name.n);
        op->key = 1 + cht_rng_below(r, m->max_key + 3);
        if (op->kind == CHT_OP_RESERVE)
            op->key = b->other[i] = 1 + (unsigned)cht_rng_below(r, 9);
        if (op->kind == CHT_OP_INSERT || op->kind == CHT_OP_EDIT || op->kind == CHT_OP_PAIR_PUT ||
            op->kind == CHT_OP_PUT) {
            uint32_t len = random_length(r, max_value);
            b->seed[i] = (uint32_t)cht_rng_next(r);
            b->bytes[i] = malloc(len);
            model_fill(b->bytes[i], len, b->seed[i]);
            op->value = (struct cht_str){b->bytes[i], len};
        }
        if (op->kind == CHT_OP_PAIR_LINK) {
            b->other[i] = (unsigned)cht_rng_below(r, m->names);
            op->value = (struct cht_str){m->name[b->other[i]], m->name_len[b->other[i]]};
        }
        op->buf = &b->buf[i];
    }
}

void model_batch_free(struct model_batch *b)
{
    for (unsigned i = 0; i < b->count; i++) {
        free(b->bytes[i]);
        cht_buf_free(&b->buf[i]);
    }
}

static void check_read(const struct model *m, const struct cht_op *op, uint64_t key)
{
    struct model_value v = m->value[key];
    uint8_t *want = malloc(v.len);
    model_fill(want, v.len, v.seed);
    assert_int_equal(op->size, v.len);
    assert_memory_equal(op->buf->data, want, v.len);
    free(want);
}

static bool has_prefix(const struct model *m, unsigned i, struct cht_str p)
{
    return m->name_len[i] >= p.n && memcmp(m->name[i], p.p, p.n) == 0;
}

static void apply_prefix_del(struct model *m, const struct cht_op *op)
{
    uint64_t pairs = 0, values = 0;
    for (unsigned i = 0; i < m->names; i++) {
        if (m->key[i] == 0 || !has_prefix(m, i, op->name))
            continue;
        pairs++;
        if (op->with_values && lives(m, m->key[i])) {
            values++;
            m->value[m->key[i]].len = 0;
        }
        m->key[i] = 0;
    }
    assert_int_equal(op->pairs, pairs);
    assert_int_equal(op->values, values);
}

/* One operation that the store says succeeded or failed. */
static void apply_op(struct model *m, struct model_batch *b, unsigned i)
{
    struct cht_op *op = &b->ops[i];
    uint64_t *mapped = &m->key[b->name[i]], old = *mapped;
    enum cht_rc want = CHT_OK;
    switch (op->kind) {
    case CHT_OP_INSERT:
        assert_false(lives(m, op->key));
        break;
    case CHT_OP_EDIT:
    case CHT_OP_DELETE:
    case CHT_OP_READ:
        want = lives(m, op->key) ? CHT_OK : CHT_KEY_NOT_FOUND;
        break;
    case CHT_OP_PAIR_DEL:
    case CHT_OP_PAIR_READ:
        want = old != 0 ? CHT_OK : CHT_PAIR_NOT_FOUND;
        break;
    case CHT_OP_PUT: /* which keys of other shards were skipped the model does not know */
        want = op->rc == CHT_KEY_NOT_FOUND && !lives(m, op->key) ? CHT_KEY_NOT_FOUND : CHT_OK;
        break;
    case CHT_OP_PAIR_LINK:
        want = m->key[b->other[i]] != 0 ? CHT_OK : CHT_PAIR_NOT_FOUND;
        break;
    default:
        break;
    }
    assert_int_equal(op->rc, want);
    if (op->rc != CHT_OK)
        return;
    struct model_value v = {(uint32_t)op->value.n, b->seed[i]};
    switch (op->kind) {
    case CHT_OP_PAIR_PUT:
        assert_int_equal(op->created, old == 0);
        if (old != 0 && lives(m, old))
            assert_int_equal(op->key, old);
        else
            assert_false(lives(m, op->key));
        *slot(m, op->key) = v;
        *mapped = op->key;
        break;
    case CHT_OP_INSERT:
    case CHT_OP_EDIT:
        *slot(m, op->key) = v;
        break;
    case CHT_OP_PUT:
        assert_int_equal(op->created, !lives(m, op->key));
        *slot(m, op->key) = v;
        break;
    case CHT_OP_RESERVE:
        if (m->sparse) /* where several servers give out keys, their order is none of the promises */
            for (uint64_t k = op->key; k < op->key + b->other[i]; k++)
                assert_false(lives(m, k));
        else
            assert_true(op->key > m->max_key);
        if (op->key + b->other[i] - 1 > m->max_key)
            m->max_key = op->key + b->other[i] - 1;
        break;
    case CHT_OP_DELETE:
        slot(m, op->key)->len = 0;
        break;
    case CHT_OP_PAIR_SET:
        assert_int_equal(op->created, old == 0);
        *mapped = op->key;
        break;
    case CHT_OP_PAIR_DEL:
        assert_int_equal(op->key, old);
        *mapped = 0;
        if (op->with_values) {
            assert_int_equal(op->values, lives(m, old));
            if (lives(m, old))
                m->value[old].len = 0;
        }
        break;
    case CHT_OP_PREFIX_DEL:
        apply_prefix_del(m, op);
        break;
    case CHT_OP_PURGE:
        break;
    case CHT_OP_READ:
        check_read(m, op, op->key);
        break;
    case CHT_OP_PAIR_READ:
        assert_int_equal(op->key, old);
        if (op->with_values && lives(m, old))
            check_read(m, op, old);
        break;
    case CHT_OP_PAIR_LINK:
        assert_int_equal(op->created, old == 0);
        assert_int_equal(op->key, m->key[b->other[i]]);
        *mapped = op->key;
        break;
    }
    if (op->key > m->max_key &&
        (op->kind == CHT_OP_INSERT || op->kind == CHT_OP_PAIR_PUT || op->kind == CHT_OP_PUT))
        m->max_key = op->key;
}

void model_apply(struct model *m, struct model_batch *b, const struct cht_commit *c)
{
    struct model before;
    bool undone = c->rc == CHT_BATCH_FAILED;
    unsigned n = undone ? (unsigned)c->failed + 1 : b->count;
    if (c->rc != CHT_OK && !undone)
        print_error("the commit failed with %d: %s\n", (int)c->rc, c->err.msg);
    assert_true(c->rc == CHT_OK || undone);
    if (undone)
        model_copy(&before, m);
    for (unsigned i = 0; i < n; i++)
        apply_op(m, b, i);
    if (undone) {
        assert_int_not_equal(b->ops[c->failed].rc, CHT_OK);
        model_copy_free(m);
        *m = before;
    }
}

#define DIFF(...) return (void)snprintf(why, n, __VA_ARGS__), 1

static int compare_pairs(const struct model *m, struct cht_store *s, bool reverse, char *why, size_t n)
{
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .values = true, .reverse = reverse};
    struct cht_scan *sc;
    struct cht_err err = {0};
    struct cht_entry e[100];
    size_t got;
    unsigned i = 0;
    if (cht_scan_open(s, &cfg, &sc, &err) != CHT_OK)
        DIFF("scan: %s", err.msg);
    uint8_t *want = malloc(1u << 21);
    int bad = 0;
    while (!bad && cht_scan_next(sc, e, 100, &got, &err) == CHT_OK && got > 0) {
        for (size_t k = 0; k < got && !bad; k++) {
            while (i < m->names && m->key[reverse ? m->names - 1 - i : i] == 0)
                i++;
            unsigned at = reverse ? m->names - 1 - i : i;
            i++;
            bad = at >= m->names || e[k].name_len != m->name_len[at] ||
                  memcmp(e[k].name, m->name[at], e[k].name_len) != 0 || e[k].key != m->key[at];
            if (bad) {
                (void)snprintf(why, n, "scan: pair %u: key %llu, not %llu", at, (unsigned long long)e[k].key,
                               at < m->names ? (unsigned long long)m->key[at] : 0ULL);
                break;
            }
            bool live = lives(m, e[k].key);
            bad = ((e[k].flags & CHT_ENTRY_DANGLING) != 0) == live ||
                  (live && e[k].size != m->value[e[k].key].len) || (e[k].flags & CHT_ENTRY_CORRUPT) != 0;
            if (!bad && live && e[k].value != NULL) {
                model_fill(want, e[k].size, m->value[e[k].key].seed);
                bad = e[k].value_len != e[k].size || memcmp(want, e[k].value, e[k].size) != 0;
            }
            if (bad)
                (void)snprintf(why, n, "scan: the value of pair %u is wrong (flags %u, size %u)", at,
                               e[k].flags, e[k].size);
        }
    }
    free(want);
    cht_scan_close(sc);
    while (i < m->names && m->key[reverse ? m->names - 1 - i : i] == 0)
        i++;
    if (!bad && i < m->names)
        DIFF("scan: pair %u is missing (%s)", reverse ? m->names - 1 - i : i, err.msg);
    return bad;
}

static int compare_values(const struct model *m, struct cht_store *s, char *why, size_t n)
{
    struct cht_buf b = {0};
    struct cht_err err = {0};
    uint64_t count = 0;
    uint8_t *want = malloc(1u << 21);
    int bad = 0;
    for (uint64_t k = 1; k <= m->max_key + 2 && !bad; k++) {
        uint32_t size = 0;
        if (m->sparse && !lives(m, k) && k % 1009 != 0)
            continue;
        enum cht_rc rc = cht_store_get(s, k, &b, &size, &err);
        bool live = lives(m, k);
        count += live;
        bad = rc != (live ? CHT_OK : CHT_KEY_NOT_FOUND) || (live && size != m->value[k].len);
        if (!bad && live) {
            model_fill(want, size, m->value[k].seed);
            bad = memcmp(want, b.data, size) != 0;
        }
        if (bad)
            (void)snprintf(why, n, "key %llu: rc %d size %u, expected %s size %u", (unsigned long long)k,
                           (int)rc, size, live ? "live" : "none", live ? m->value[k].len : 0);
    }
    struct cht_store_stats st;
    if (!bad && (cht_store_stats(s, &st, &err) != CHT_OK || st.values != count)) {
        (void)snprintf(why, n, "%llu values, not %llu", (unsigned long long)st.values,
                       (unsigned long long)count);
        bad = 1;
    }
    free(want);
    cht_buf_free(&b);
    return bad;
}

static int compare_counts(const struct model *m, struct cht_store *s, char *why, size_t n)
{
    for (unsigned i = 0; i < m->names; i += 1 + m->names / 64) {
        struct cht_str p = {m->name[i], m->name_len[i] > 5 ? 5 : m->name_len[i]};
        uint64_t want = 0, got = 0;
        struct cht_err err = {0};
        for (unsigned k = 0; k < m->names; k++)
            want += m->key[k] != 0 && has_prefix(m, k, p);
        if (cht_store_count(s, p, &got, &err) != CHT_OK || got != want)
            DIFF("count under a prefix of name %u: %llu, not %llu %s", i, (unsigned long long)got,
                 (unsigned long long)want, err.msg);
    }
    return 0;
}

int model_compare(const struct model *m, struct cht_store *s, char *why, size_t n)
{
    if (compare_values(m, s, why, n) || compare_pairs(m, s, false, why, n) ||
        compare_pairs(m, s, true, why, n))
        return 1;
    return compare_counts(m, s, why, n);
}
