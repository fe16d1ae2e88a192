/* test_trie: the pair trie against a sorted array; failing calls; damaged pages. Seeds are fixed and printed;
 * CHT_TEST_SEED overrides them. One file, longer than others, because all of it shares the model and the name families.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "store/pagefile_int.h"
#include "store/trie.h"
#include "store/trie_format.h"

#define NAME_MAX_ 4096u

/* ---- fixture: a pairs file with sums in a temporary folder; extending it can be made to fail ------------------- */

struct fixture {
    char dir[64];
    struct cht_pagefile *sums, *pf;
    struct cht_rng rng;
};

static struct cht_io_ops fault_ops;
static struct cht_io fault_io = {&fault_ops};
static uint64_t extend_fail_at, extend_failures;

static enum cht_rc fault_open(struct cht_io *io, const char *path, unsigned flags, struct cht_file **out,
                              struct cht_err *err)
{
    enum cht_rc rc = cht_io_posix()->ops->open(cht_io_posix(), path, flags, out, err);
    if (rc == CHT_OK)
        (*out)->io = io;
    return rc;
}

static enum cht_rc fault_allocate(struct cht_file *f, uint64_t off, uint64_t len, struct cht_err *err)
{
    if (extend_fail_at > 0 && --extend_fail_at == 0) {
        extend_fail_at = 1; /* stays full */
        extend_failures++;
        return CHT_FAIL(err, CHT_DISK_FULL, "injected");
    }
    return cht_io_posix()->ops->allocate(f, off, len, err);
}

static uint64_t seed_of(uint64_t fixed)
{
    const char *s = getenv("CHT_TEST_SEED");
    uint64_t seed = s != NULL ? strtoull(s, NULL, 0) : fixed;
    print_message("seed %llu\n", (unsigned long long)seed);
    return seed;
}

static struct cht_pagefile *open_file(const char *dir, enum cht_pf_kind kind, struct cht_pagefile *sums)
{
    char path[128];
    struct cht_err e = {0};
    static const uint8_t uuid[16] = {7};
    struct cht_pagefile *pf = NULL;
    (void)snprintf(path, sizeof path, "%s/%d", dir, (int)kind);
    if (cht_pf_create(&fault_io, path, kind, uuid, 0, 1, &e) != CHT_OK ||
        cht_pf_open(&fault_io, path, kind, false, &pf, &e) != CHT_OK)
        fail_msg("%s", e.msg);
    pf->fast.pages = pf->home_pages = 1;
    pf->sums = sums;
    cht_bit_set((uint64_t *)(void *)pf->fast.verified, 0);
    return pf;
}

static void open_fixture(struct fixture *f, uint64_t seed)
{
    struct cht_err e = {0};
    fault_ops = *cht_io_posix()->ops;
    fault_ops.open = fault_open;
    fault_ops.allocate = fault_allocate;
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/test_trie.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->sums = open_file(f->dir, CHT_PF_SUMS, NULL);
    f->pf = open_file(f->dir, CHT_PF_PAIRS, f->sums);
    cht_rng_seed(&f->rng, seed_of(seed));
    assert_int_equal(cht_trie_format(f->pf, &e), CHT_OK);
}

static void close_fixture(struct fixture *f)
{
    struct cht_err e;
    cht_pf_close(f->pf);
    cht_pf_close(f->sums);
    assert_int_equal(cht_io_remove_tree(cht_io_posix(), f->dir, &e), CHT_OK);
}

/* ---- model ---------------------------------------------------------------------------------------------------- */

struct pair {
    uint8_t *name;
    size_t len;
    uint64_t key;
};
struct model {
    struct pair *v;
    size_t n, cap;
};

static int compare(const uint8_t *a, size_t na, const uint8_t *b, size_t nb)
{
    int c = na > 0 && nb > 0 ? memcmp(a, b, na < nb ? na : nb) : 0;
    return c != 0 ? c : na < nb ? -1 : na > nb;
}

static size_t model_find(const struct model *m, const uint8_t *name, size_t len, bool *found)
{
    size_t lo = 0, hi = m->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (compare(m->v[mid].name, m->v[mid].len, name, len) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *found = lo < m->n && compare(m->v[lo].name, m->v[lo].len, name, len) == 0;
    return lo;
}

static uint64_t model_set(struct model *m, const uint8_t *name, size_t len, uint64_t key)
{
    bool found;
    size_t i = model_find(m, name, len, &found);
    if (found) {
        uint64_t old = m->v[i].key;
        m->v[i].key = key;
        return old;
    }
    if (m->n == m->cap) {
        m->cap = m->cap ? m->cap * 2 : 64;
        m->v = realloc(m->v, m->cap * sizeof *m->v);
    }
    assert_non_null(m->v);
    memmove(m->v + i + 1, m->v + i, (m->n - i) * sizeof *m->v);
    m->v[i] = (struct pair){malloc(len), len, key};
    memcpy(m->v[i].name, name, len);
    m->n++;
    return 0;
}

static uint64_t model_del(struct model *m, const uint8_t *name, size_t len)
{
    bool found;
    size_t i = model_find(m, name, len, &found);
    if (!found)
        return 0;
    uint64_t old = m->v[i].key;
    free(m->v[i].name);
    memmove(m->v + i, m->v + i + 1, (m->n - i - 1) * sizeof *m->v);
    m->n--;
    return old;
}

static bool has_prefix(const struct pair *p, const uint8_t *s, size_t n)
{
    return n == 0 || (p->len >= n && memcmp(p->name, s, n) == 0);
}

static void model_range(const struct model *m, const uint8_t *s, size_t n, size_t *from, size_t *to)
{
    bool found;
    *from = n > 0 ? model_find(m, s, n, &found) : 0;
    *to = *from;
    while (*to < m->n && has_prefix(&m->v[*to], s, n))
        ++*to;
}

static void model_free(struct model *m)
{
    for (size_t i = 0; i < m->n; i++)
        free(m->v[i].name);
    free(m->v);
}

/* ---- comparing -------------------------------------------------------------------------------------------------- */

struct seen {
    const struct model *m;
    size_t i;
    int bad;
};

static void on_bad(void *ctx, uint64_t off, const char *what)
{
    struct seen *s = ctx;
    if (s->bad++ < 5)
        print_error("offset %llu: %s\n", (unsigned long long)off, what);
}

static void on_pair(void *ctx, const uint8_t *name, size_t len, uint64_t key)
{
    struct seen *s = ctx;
    if (s->i >= s->m->n || compare(s->m->v[s->i].name, s->m->v[s->i].len, name, len) != 0 ||
        s->m->v[s->i].key != key)
        s->bad++;
    s->i++;
}

static void check_all(struct fixture *f, const struct model *m)
{
    struct cht_err e = {0};
    struct seen s = {m, 0, 0};
    assert_int_equal(cht_trie_check(f->pf, on_bad, on_pair, &s, &e), CHT_OK);
    assert_int_equal(s.bad, 0);
    assert_int_equal(s.i, m->n);
    assert_int_equal(cht_trie_pairs(f->pf), m->n);
}

static void check_get(struct fixture *f, const struct model *m, const uint8_t *name, size_t len)
{
    struct cht_err e = {0};
    uint64_t key = 0;
    bool found;
    size_t i = model_find(m, name, len, &found);
    enum cht_rc rc = cht_trie_get(f->pf, name, len, &key, &e);
    assert_int_equal(rc, found ? CHT_OK : CHT_PAIR_NOT_FOUND);
    if (found)
        assert_int_equal(key, m->v[i].key);
}

static void check_count(struct fixture *f, const struct model *m, const uint8_t *s, size_t n)
{
    struct cht_err e = {0};
    uint64_t count;
    size_t from, to;
    model_range(m, s, n, &from, &to);
    assert_int_equal(cht_trie_count(f->pf, s, n, &count, &e), CHT_OK);
    assert_int_equal(count, to - from);
}

/* At most `limit` entries, by next, by batches of odd sizes, or by keys of which the last one has a name. */
static void check_scan(struct fixture *f, const struct model *m, const uint8_t *prefix, size_t np,
                       const uint8_t *after, size_t na, bool reverse, size_t limit)
{
    struct cht_err e = {0};
    struct cht_trie_iter *it;
    static struct cht_trie_item items[64];
    static uint8_t names[2 * NAME_MAX_];
    size_t from, to, count, used, last = 0;
    unsigned way = (unsigned)cht_rng_below(&f->rng, reverse ? 2 : 3);
    bool found, batch = way > 0;
    model_range(m, prefix, np, &from, &to);
    if (na > 0) {
        size_t at = model_find(m, after, na, &found);
        if (reverse)
            to = at < to ? at : to;
        else
            from = at + found > from ? at + found : from;
    }
    assert_int_equal(cht_trie_iter_new(&it, &e), CHT_OK);
    assert_int_equal(cht_trie_iter_seek(it, f->pf, prefix, np, after, na, reverse, &e), CHT_OK);
    enum cht_rc rc = CHT_OK;
    for (size_t seen = 0; seen < limit && rc == CHT_OK;) {
        size_t len;
        uint64_t key;
        const uint8_t *name;
        if (way == 2) {
            rc = cht_trie_iter_keys(it, items, 1 + cht_rng_below(&f->rng, 64), &count, names, &last, &e);
        } else if (batch) {
            rc = cht_trie_iter_batch(it, items, 1 + cht_rng_below(&f->rng, 64), names, sizeof names, &count,
                                     &used, &e);
        } else {
            rc = cht_trie_iter_next(it, &name, &len, &key, &e);
            count = rc == CHT_OK;
        }
        for (size_t i = 0; i < count; i++, seen++) {
            assert_true(from < to);
            const struct pair *p = reverse ? &m->v[--to] : &m->v[from++];
            if (batch) {
                name = names + items[i].off;
                len = items[i].len;
                key = items[i].key;
            }
            if (way == 2) { /* only the last one has a name */
                name = i + 1 == count ? names : p->name;
                len = i + 1 == count ? last : p->len;
            }
            assert_int_equal(compare(p->name, p->len, name, len), 0);
            assert_int_equal(key, p->key);
        }
        if (rc != CHT_OK) {
            assert_int_equal(rc, CHT_PAIR_NOT_FOUND);
            assert_true(from >= to);
        }
    }
    cht_trie_iter_free(it);
}

/* ---- names ------------------------------------------------------------------------------------------------------ */

typedef size_t family_fn(struct fixture *f, uint8_t *out);

static size_t fam_tiny(struct fixture *f, uint8_t *out)
{
    static const uint8_t alphabet[] = {0, 1, 'a', 254, 255};
    size_t n = 1 + cht_rng_below(&f->rng, 7);
    for (size_t i = 0; i < n; i++)
        out[i] = alphabet[cht_rng_below(&f->rng, sizeof alphabet)];
    return n;
}

static size_t fam_twelve(struct fixture *f, uint8_t *out)
{
    for (size_t i = 0; i < 12; i++)
        out[i] = (uint8_t)cht_rng_next(&f->rng);
    return 12;
}

static size_t fam_runs(struct fixture *f, uint8_t *out) /* runs of one byte, prefixes of each other */
{
    size_t n = 1 + cht_rng_below(&f->rng, cht_rng_below(&f->rng, 8) == 0 ? NAME_MAX_ : 300);
    static const uint8_t bytes[] = {0, 0, 255, 'x'};
    memset(out, bytes[cht_rng_below(&f->rng, 4)], n);
    if (cht_rng_below(&f->rng, 4) == 0)
        out[n - 1] = (uint8_t)cht_rng_next(&f->rng);
    return n;
}

static size_t fam_long(struct fixture *f, uint8_t *out) /* long names that part at few places */
{
    static const size_t at[] = {0,   1,   3,   200,  254,  255,  256,  257,  511,  512,
                                513, 998, 999, 1000, 1001, 1002, 2000, 4000, 4094, 4095};
    static const size_t len[] = {1,    2,    255,  256,  257,  258,  999, 1000,
                                 1001, 1002, 1255, 1257, 2048, 4095, 4096};
    size_t n =
        cht_rng_below(&f->rng, 3) ? len[cht_rng_below(&f->rng, 15)] : 1 + cht_rng_below(&f->rng, NAME_MAX_);
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(i * 7);
    for (int k = 0; k < 2; k++) {
        size_t p = at[cht_rng_below(&f->rng, 20)];
        if (p < n)
            out[p] ^= (uint8_t)cht_rng_below(&f->rng, 3);
    }
    return n;
}

static size_t fam_words(struct fixture *f, uint8_t *out) /* contexts: words joined by spaces */
{
    static const char *const words[] = {"the",  "of",  "and", "to",  "in", "a",   "is",
                                        "that", "for", "it",  "was", "on", "are", "as"};
    size_t n = 0, count = 1 + cht_rng_below(&f->rng, 5);
    for (size_t i = 0; i < count; i++) {
        const char *w = words[cht_rng_below(&f->rng, 14)];
        memcpy(out + n, w, strlen(w));
        n += strlen(w);
        out[n++] = ' ';
    }
    return n - 1;
}

static size_t fam_number(struct fixture *f, uint8_t *out)
{
    return (size_t)snprintf((char *)out, 20, "%010u", (unsigned)cht_rng_below(&f->rng, 20000));
}

static size_t fam_medium(struct fixture *f,
                         uint8_t *out) /* few to a leaf, so that it splits and bursts all the time */
{
    size_t n = 300 + cht_rng_below(&f->rng, 600);
    memset(out, 'm', n);
    out[0] = (uint8_t)cht_rng_below(&f->rng, 4);
    out[1 + cht_rng_below(&f->rng, 299)] = (uint8_t)cht_rng_next(&f->rng);
    return n;
}

static size_t fam_any(struct fixture *f, uint8_t *out)
{
    static family_fn *const all[] = {fam_tiny,  fam_twelve, fam_runs,  fam_long,
                                     fam_words, fam_number, fam_medium};
    return all[cht_rng_below(&f->rng, 7)](f, out);
}

/* A neighbour of a name: shortened, lengthened, or one byte changed. */
static size_t vary(struct fixture *f, uint8_t *name, size_t n)
{
    switch (cht_rng_below(&f->rng, 5)) {
    case 0:
        return n > 1 ? n - 1 : n;
    case 1:
        if (n < NAME_MAX_)
            name[n++] = cht_rng_below(&f->rng, 2) ? 0 : 255;
        return n;
    case 2:
        name[n - 1]++;
        return n;
    case 3:
        name[n - 1]--;
        return n;
    default:
        return 1 + cht_rng_below(&f->rng, n);
    }
}

/* A name that is there, near one that is, or any. */
static size_t pick(struct fixture *f, const struct model *m, family_fn *fam, uint8_t *out)
{
    uint64_t how = cht_rng_below(&f->rng, 4);
    if (m->n == 0 || how == 0)
        return fam(f, out);
    const struct pair *p = &m->v[cht_rng_below(&f->rng, m->n)];
    memcpy(out, p->name, p->len);
    return how == 1 ? vary(f, out, p->len) : p->len;
}

/* ---- random operations ------------------------------------------------------------------------------------------ */

static enum cht_rc do_set(struct fixture *f, struct model *m, const uint8_t *name, size_t len)
{
    struct cht_err e = {0};
    uint64_t old = 99, key = 1 + cht_rng_below(&f->rng, CHT_TRIE_KEY_MAX);
    enum cht_rc rc = cht_trie_set(f->pf, name, len, key, &old, &e);
    if (rc == CHT_OK)
        assert_int_equal(old, model_set(m, name, len, key));
    return rc;
}

static enum cht_rc do_del(struct fixture *f, struct model *m, const uint8_t *name, size_t len)
{
    struct cht_err e = {0};
    uint64_t old = 0;
    bool found;
    (void)model_find(m, name, len, &found);
    enum cht_rc rc = cht_trie_del(f->pf, name, len, &old, &e);
    if (rc == CHT_OK)
        assert_int_equal(old, model_del(m, name, len));
    else if (rc == CHT_PAIR_NOT_FOUND)
        assert_false(found);
    return rc;
}

static enum cht_rc do_del_prefix(struct fixture *f, struct model *m, const uint8_t *name, size_t len)
{
    struct cht_err e = {0};
    uint64_t count;
    size_t from, to;
    model_range(m, name, len, &from, &to);
    enum cht_rc rc = cht_trie_del_prefix(f->pf, name, len, &count, &e);
    if (rc != CHT_OK)
        return rc;
    assert_int_equal(count, to - from);
    for (size_t i = from; i < to; i++)
        free(m->v[i].name);
    if (m->n > 0)
        memmove(m->v + from, m->v + to, (m->n - to) * sizeof *m->v);
    m->n -= to - from;
    return rc;
}

static void one_op(struct fixture *f, struct model *m, family_fn *fam, unsigned set_percent)
{
    uint8_t name[NAME_MAX_ + 16], after[NAME_MAX_ + 16];
    unsigned dice = (unsigned)cht_rng_below(&f->rng, 100);
    size_t n, na;
    if (dice < set_percent) {
        n = cht_rng_below(&f->rng, 3) ? fam(f, name) : pick(f, m, fam, name);
        assert_int_equal(do_set(f, m, name, n), CHT_OK);
    } else if (dice < 80) {
        n = pick(f, m, fam, name);
        enum cht_rc rc = do_del(f, m, name, n);
        assert_true(rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND);
    } else if (dice < 86) {
        n = pick(f, m, fam, name);
        check_get(f, m, name, n);
        check_count(f, m, name, cht_rng_below(&f->rng, n + 1));
    } else if (dice < 98) {
        n = pick(f, m, fam, name);
        na = cht_rng_below(&f->rng, 4) ? pick(f, m, fam, after) : 0;
        size_t np = cht_rng_below(&f->rng, 3) ? cht_rng_below(&f->rng, n + 1) : 0;
        if (np > 0 && cht_rng_below(&f->rng, 2)) { /* a cursor in the prefix's range */
            memcpy(after, name, n);
            na = n;
            na = vary(f, after, na);
        }
        check_scan(f, m, name, np, after, na, cht_rng_below(&f->rng, 2) == 0,
                   1 + cht_rng_below(&f->rng, 100));
    } else {
        n = pick(f, m, fam, name);
        size_t np = n - cht_rng_below(&f->rng, n < 8 ? n : 8);
        assert_int_equal(
            do_del_prefix(f, m, name, cht_rng_below(&f->rng, 20) ? np : cht_rng_below(&f->rng, n + 1)),
            CHT_OK);
    }
}

static void run_family(family_fn *fam, uint64_t seed, unsigned ops)
{
    struct fixture f;
    struct model m = {0};
    open_fixture(&f, seed);
    for (unsigned round = 0; round < 6; round++) { /* grow, shrink, grow ... */
        unsigned set_percent = round % 2 == 0 ? 70 : 25;
        for (unsigned i = 0; i < ops; i++) {
            one_op(&f, &m, fam, set_percent);
            if (i % (ops / 10) == 0)
                check_all(&f, &m);
        }
        check_scan(&f, &m, NULL, 0, NULL, 0, false, SIZE_MAX);
        check_scan(&f, &m, NULL, 0, NULL, 0, true, SIZE_MAX);
    }
    while (m.n > 0) {
        struct pair *p = &m.v[cht_rng_below(&f.rng, m.n)];
        uint8_t name[NAME_MAX_];
        size_t n = p->len;
        memcpy(name, p->name, n);
        assert_int_equal(do_del(&f, &m, name, n), CHT_OK);
    }
    check_all(&f, &m);
    struct cht_trie_shape shape;
    struct cht_err e;
    assert_int_equal(cht_trie_shape(f.pf, &shape, &e), CHT_OK);
    assert_int_equal(shape.leaves, 0);
    model_free(&m);
    close_fixture(&f);
}

static void test_tiny(void **state)
{
    (void)state;
    run_family(fam_tiny, 101, 6000);
}
static void test_twelve(void **state)
{
    (void)state;
    run_family(fam_twelve, 102, 6000);
}
static void test_runs(void **state)
{
    (void)state;
    run_family(fam_runs, 103, 2000);
}
static void test_long(void **state)
{
    (void)state;
    run_family(fam_long, 104, 1500);
}
static void test_words(void **state)
{
    (void)state;
    run_family(fam_words, 105, 6000);
}
static void test_number(void **state)
{
    (void)state;
    run_family(fam_number, 106, 6000);
}
static void test_medium(void **state)
{
    (void)state;
    run_family(fam_medium, 107, 2000);
}
static void test_any(void **state)
{
    (void)state;
    run_family(fam_any, 108, 5000);
}

/* ---- fixed cases ------------------------------------------------------------------------------------------------ */

/* Every prefix's count, neighbours of every key, every key as cursor both ways. */
static void test_exhaustive(void **state)
{
    (void)state;
    struct fixture f;
    struct model m = {0};
    uint8_t name[NAME_MAX_ + 16];
    open_fixture(&f, 201);
    for (unsigned i = 0; i < 1500; i++) {
        size_t n = i % 2 ? fam_tiny(&f, name) : fam_words(&f, name);
        assert_int_equal(do_set(&f, &m, name, n), CHT_OK);
    }
    for (size_t i = 0; i < m.n; i++) {
        size_t n = m.v[i].len;
        for (size_t k = 0; k <= n; k++)
            check_count(&f, &m, m.v[i].name, k);
        for (unsigned k = 0; k < 6; k++) {
            memcpy(name, m.v[i].name, n);
            check_get(&f, &m, name, vary(&f, name, n));
        }
        check_scan(&f, &m, NULL, 0, m.v[i].name, n, false, 3);
        check_scan(&f, &m, NULL, 0, m.v[i].name, n, true, 3);
        check_scan(&f, &m, m.v[i].name, n / 2, m.v[i].name, n, i % 2, 3);
    }
    model_free(&m);
    close_fixture(&f);
}

/* Ascending, descending, all bytes, all lengths of one byte, every length at the end of the longest name. */
static void test_families(void **state)
{
    (void)state;
    struct fixture f;
    struct model m = {0};
    static uint8_t name[NAME_MAX_ + 16];
    open_fixture(&f, 202);
    for (unsigned i = 0; i < 256; i++) {
        for (unsigned k = 0; k < 40; k++) {
            name[0] = (uint8_t)i;
            name[1] = (uint8_t)(k * 13);
            assert_int_equal(do_set(&f, &m, name, 1 + (k > 0)), CHT_OK);
        }
    }
    check_all(&f, &m);
    for (unsigned zero = 0; zero < 2; zero++) {
        memset(name, zero ? 0 : 255, NAME_MAX_);
        for (size_t n = NAME_MAX_; n > 0; n -= n > 600 && n < 4000 ? 50 : 1)
            assert_int_equal(do_set(&f, &m, name, n), CHT_OK);
        check_all(&f, &m);
    }
    for (unsigned i = 5000; i > 0; i--)
        assert_int_equal(do_set(&f, &m, name, (size_t)snprintf((char *)name, 32, "down-%08u", i)), CHT_OK);
    for (unsigned i = 0; i < 5000; i++)
        assert_int_equal(do_set(&f, &m, name, (size_t)snprintf((char *)name, 32, "up-%08u", i)), CHT_OK);
    check_all(&f, &m);
    check_scan(&f, &m, NULL, 0, NULL, 0, false, SIZE_MAX);
    check_scan(&f, &m, NULL, 0, NULL, 0, true, SIZE_MAX);
    assert_int_equal(do_del_prefix(&f, &m, (const uint8_t *)"up-0000", 7), CHT_OK);
    check_all(&f, &m);
    assert_int_equal(do_del_prefix(&f, &m, (const uint8_t *)"", 0), CHT_OK);
    assert_int_equal(m.n, 0);
    check_all(&f, &m);
    model_free(&m);
    close_fixture(&f);
}

/* Ascending names fill their pages. */
static void test_append_density(void **state)
{
    (void)state;
    struct fixture f;
    struct model m = {0};
    struct cht_err e = {0};
    struct cht_trie_shape shape;
    uint8_t name[32];
    open_fixture(&f, 203);
    for (unsigned i = 0; i < 20000; i++)
        assert_int_equal(do_set(&f, &m, name, (size_t)snprintf((char *)name, 32, "%012u", i)), CHT_OK);
    assert_int_equal(cht_trie_shape(f.pf, &shape, &e), CHT_OK);
    assert_true(shape.leaf_bytes_used > shape.leaves * CHT_PAGE * 7 / 10);
    check_all(&f, &m);
    model_free(&m);
    close_fixture(&f);
}

/* ---- failing calls ---------------------------------------------------------------------------------------------- */

static enum cht_rc fault_op(struct fixture *f, struct model *m, unsigned what, const uint8_t *name, size_t n)
{
    return what == 0   ? do_set(f, m, name, n)
           : what == 1 ? do_del(f, m, name, n)
                       : do_del_prefix(f, m, name, n);
}

/* The n-th call that can fail fails (of a kind: allocation, allocations from there on, space), n = 1, 2, ..., until
 * none is left and the operation succeeds. After each failure the pairs are what they were. */
static unsigned fail_through(struct fixture *f, struct model *m, unsigned what, const uint8_t *name, size_t n)
{
    unsigned failures = 0, kind = (unsigned)cht_rng_below(&f->rng, 3);
    for (uint64_t at = 1;; at++) {
        size_t before = m->n;
        f->pf->file_pages = f->pf->fast.pages; /* so that the next page needs space */
        cht_pf_undo_begin(f->pf);              /* so that pages to be written need memory */
        extend_failures = 0;
        cht_alloc_fail_at(kind < 2 ? at : 0, kind == 1);
        extend_fail_at = kind == 2 ? at : 0;
        enum cht_rc rc = fault_op(f, m, what, name, n);
        uint64_t injected = kind < 2 ? cht_alloc_failures() : extend_failures;
        cht_alloc_fail_at(0, false);
        extend_fail_at = 0;
        failures += injected > 0;
        check_all(f, m);
        if (rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND) { /* also where only tidying up had failed */
            cht_pf_undo_end(f->pf);
            return failures;
        }
        assert_true(injected > 0);
        assert_int_equal(rc, kind < 2 ? CHT_NO_MEMORY : CHT_DISK_FULL);
        assert_int_equal(m->n, before);
        check_get(f, m, name, n > 0 ? n : 1);
        if (at % 2) /* with what the failed steps left behind, or without */
            cht_pf_undo_end(f->pf);
        else
            cht_pf_undo_rollback(f->pf);
    }
}

static void run_faults(family_fn *fam, uint64_t seed, unsigned ops)
{
    struct fixture f;
    struct model m = {0};
    uint8_t name[NAME_MAX_ + 16];
    unsigned failures = 0;
    open_fixture(&f, seed);
    for (unsigned i = 0; i < ops; i++) {
        unsigned what = i % 16 == 15 ? 2 : i > ops / 2 && i % 4 != 0 ? 1 : 0;
        size_t n = what == 0 ? fam(&f, name) : pick(&f, &m, fam, name);
        if (what == 2)
            n -= cht_rng_below(&f.rng, n < 4 ? n : 4);
        failures += fail_through(&f, &m, what, name, n);
    }
    assert_true(failures > ops);
    model_free(&m);
    close_fixture(&f);
}

static void test_faults_medium(void **state)
{
    (void)state;
    run_faults(fam_medium, 301, 300);
}
static void test_faults_long(void **state)
{
    (void)state;
    run_faults(fam_long, 302, 300);
}
static void test_faults_any(void **state)
{
    (void)state;
    run_faults(fam_any, 303, 400);
}

/* ---- damaged pages ---------------------------------------------------------------------------------------------- */

struct image {
    uint8_t *bytes;
    uint64_t pages;
};

static struct image take_image(struct fixture *f)
{
    struct image im = {malloc((size_t)f->pf->fast.pages * CHT_PAGE), f->pf->fast.pages};
    memcpy(im.bytes, f->pf->fast.base, (size_t)im.pages * CHT_PAGE);
    return im;
}

static void put_image(struct fixture *f, const struct image *im)
{
    f->pf->fast.pages = im->pages;
    memcpy(f->pf->fast.base, im->bytes, (size_t)im->pages * CHT_PAGE);
}

static void damage_page(struct fixture *f, uint64_t pages)
{
    uint64_t page = cht_rng_below(&f->rng, 16) == 0 ? 0 : cht_rng_below(&f->rng, pages);
    uint8_t *p = f->pf->fast.base + page * CHT_PAGE;
    unsigned how = (unsigned)cht_rng_below(&f->rng, 8), n = 1 + (unsigned)cht_rng_below(&f->rng, 8);
    size_t lo = page == 0 ? 64 : 0, at = lo + cht_rng_below(&f->rng, CHT_PAGE - lo);
    if (page == 0)
        at = lo + cht_rng_below(&f->rng, 72);
    switch (how) {
    case 0: /* bytes anywhere */
        for (unsigned i = 0; i < n; i++)
            p[lo + cht_rng_below(&f->rng, (page == 0 ? 136 : CHT_PAGE) - lo)] =
                (uint8_t)cht_rng_next(&f->rng);
        break;
    case 1: /* the heads of blocks */
        for (unsigned i = 0; i < n && page > 0; i++)
            p[cht_rng_below(&f->rng, 64) * 64 + cht_rng_below(&f->rng, 32)] = (uint8_t)cht_rng_next(&f->rng);
        break;
    case 2: /* a bit */
        p[at] ^= (uint8_t)(1u << cht_rng_below(&f->rng, 8));
        break;
    case 3: /* another page in its place */
        if (page > 0)
            memcpy(p, f->pf->fast.base + (1 + cht_rng_below(&f->rng, pages - 1)) * CHT_PAGE, CHT_PAGE);
        break;
    case 4: /* refs into other places */
        for (unsigned i = 0; i < n && page > 0; i++) {
            uint32_t ref = (uint32_t)cht_rng_below(&f->rng, pages * 64 + 64);
            memcpy(p + cht_rng_below(&f->rng, CHT_PAGE / 4) * 4, &ref, 4);
        }
        break;
    case 5: /* a leaf's header, heads and offsets, or an entry's length */
        for (unsigned i = 0; i < n && p[0] == CHT_TRIE_LEAF; i++) {
            unsigned count = p[2] | (unsigned)(p[3] & 1) << 8;
            static const unsigned fields[] = {2, 4, 6, 10, 11};
            size_t field = fields[cht_rng_below(&f->rng, 5)],
                   slot = 16 + cht_rng_below(&f->rng, 6 * count + 1);
            size_t off = (p[16 + 4 * count] | (unsigned)p[17 + 4 * count] << 8) % CHT_PAGE;
            p[i % 3 == 0 ? field : i % 3 == 1 ? slot : off] = (uint8_t)cht_rng_next(&f->rng);
        }
        break;
    case 6: /* the sizes of a leaf */
        for (unsigned i = 0; i < 2 && p[0] == CHT_TRIE_LEAF; i++) {
            size_t field = 2 + 2 * cht_rng_below(&f->rng, 3);
            uint16_t v;
            memcpy(&v, p + field, 2);
            v = (uint16_t)(v + cht_rng_below(&f->rng, 201) - 100);
            memcpy(p + field, &v, 2);
        }
        break;
    default: /* a stretch of one value */
        memset(p + at, cht_rng_below(&f->rng, 2) ? 0 : 255, (page == 0 ? 1 : CHT_PAGE - at) < n ? 1 : n);
        break;
    }
}

static void expect_code(enum cht_rc rc)
{
    if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND && rc != CHT_CORRUPT && rc != CHT_DISK_FULL)
        fail_msg("code %d", (int)rc);
}

static void count_bad(void *ctx, uint64_t off, const char *what)
{
    (void)off;
    assert_non_null(what);
    ++*(unsigned *)ctx;
}

/* Everything on a damaged trie: any answer but a crash, a hang or an odd code. */
static void poke(struct fixture *f, const struct model *m, family_fn *fam)
{
    struct cht_err e = {0};
    struct cht_trie_iter *it;
    uint8_t name[NAME_MAX_ + 16];
    const uint8_t *out;
    size_t len;
    uint64_t x;
    unsigned bad = 0;
    expect_code(cht_trie_check(f->pf, count_bad, NULL, &bad, &e));
    for (unsigned i = 0; i < 30; i++) {
        size_t n = pick(f, m, fam, name);
        expect_code(cht_trie_get(f->pf, name, n, &x, &e));
        expect_code(cht_trie_count(f->pf, name, cht_rng_below(&f->rng, n + 1), &x, &e));
    }
    assert_int_equal(cht_trie_iter_new(&it, &e), CHT_OK);
    for (unsigned rev = 0; rev < 2; rev++) {
        size_t n = pick(f, m, fam, name);
        enum cht_rc rc = cht_trie_iter_seek(it, f->pf, NULL, 0, name, n, rev, &e);
        expect_code(rc);
        for (unsigned i = 0; rc == CHT_OK && i < 20000; i++) {
            rc = cht_trie_iter_next(it, &out, &len, &x, &e);
            expect_code(rc);
            assert_true(rc != CHT_OK || (len >= 1 && len <= NAME_MAX_));
        }
    }
    size_t from = pick(f, m, fam, name);
    enum cht_rc done = cht_trie_iter_seek(it, f->pf, NULL, 0, name, from, false, &e);
    expect_code(done);
    for (unsigned i = 0; done == CHT_OK && i < 2000; i++) {
        struct cht_trie_item items[10];
        size_t count;
        done = cht_trie_iter_keys(it, items, 10, &count, name, &len, &e);
        expect_code(done);
        assert_true(count <= 10 && (count == 0 || (len >= 1 && len <= NAME_MAX_)));
    }
    cht_trie_iter_free(it);
    for (unsigned i = 0; i < 60; i++) {
        size_t n = pick(f, m, fam, name);
        if (i % 3 == 0)
            expect_code(cht_trie_del(f->pf, name, n, &x, &e));
        else
            expect_code(cht_trie_set(f->pf, name, n, 5, &x, &e));
    }
    size_t n = pick(f, m, fam, name);
    expect_code(cht_trie_del_prefix(f->pf, name, cht_rng_below(&f->rng, n + 1), &x, &e));
    expect_code(cht_trie_check(f->pf, count_bad, NULL, &bad, &e));
}

static void run_fuzz(family_fn *fam, uint64_t seed, unsigned names, unsigned rounds)
{
    struct fixture f;
    struct model m = {0};
    uint8_t name[NAME_MAX_ + 16];
    open_fixture(&f, seed);
    for (unsigned i = 0; i < names; i++)
        assert_int_equal(do_set(&f, &m, name, fam(&f, name)), CHT_OK);
    for (unsigned i = 0; i < names / 8; i++) {
        size_t n = pick(&f, &m, fam, name);
        (void)do_del(&f, &m, name, n); /* makes garbage and free blocks */
    }
    check_all(&f, &m);
    struct image im = take_image(&f);
    for (unsigned i = 0; i < rounds; i++) {
        unsigned n = 1 + (unsigned)cht_rng_below(&f.rng, 6);
        while (n-- > 0)
            damage_page(&f, im.pages);
        poke(&f, &m, fam);
        put_image(&f, &im);
    }
    check_all(&f, &m);
    free(im.bytes);
    model_free(&m);
    close_fixture(&f);
}

static void test_fuzz_tiny(void **state)
{
    (void)state;
    run_fuzz(fam_tiny, 401, 3000, 1500);
}
static void test_fuzz_words(void **state)
{
    (void)state;
    run_fuzz(fam_words, 402, 3000, 1500);
}
static void test_fuzz_long(void **state)
{
    (void)state;
    run_fuzz(fam_long, 403, 400, 1500);
}
static void test_fuzz_any(void **state)
{
    (void)state;
    run_fuzz(fam_any, 404, 1500, 1500);
}

/* Two leaves change places: whoever comes to one of them is told, nobody gets a wrong answer. */
static void test_swapped_leaves(void **state)
{
    (void)state;
    struct fixture f;
    struct model m = {0};
    uint8_t name[NAME_MAX_ + 16];
    unsigned told = 0;
    open_fixture(&f, 405);
    for (unsigned i = 0; i < 60000; i++)
        assert_int_equal(do_set(&f, &m, name, i % 2 ? fam_words(&f, name) : fam_twelve(&f, name)), CHT_OK);
    struct image im = take_image(&f);
    for (unsigned round = 0; round < 20; round++) {
        uint64_t a, b;
        do {
            a = cht_rng_below(&f.rng, im.pages);
            b = cht_rng_below(&f.rng, im.pages);
        } while (a == b || im.bytes[a * CHT_PAGE] != CHT_TRIE_LEAF ||
                 im.bytes[b * CHT_PAGE] != CHT_TRIE_LEAF);
        memcpy(f.pf->fast.base + a * CHT_PAGE, im.bytes + b * CHT_PAGE, CHT_PAGE);
        memcpy(f.pf->fast.base + b * CHT_PAGE, im.bytes + a * CHT_PAGE, CHT_PAGE);
        for (size_t i = 0; i < m.n; i++) {
            struct cht_err e = {0};
            uint64_t key;
            enum cht_rc rc = cht_trie_get(f.pf, m.v[i].name, m.v[i].len, &key, &e);
            told += rc == CHT_CORRUPT;
            assert_true(rc == CHT_CORRUPT || (rc == CHT_OK && key == m.v[i].key));
        }
        put_image(&f, &im);
    }
    assert_true(told > 0);
    free(im.bytes);
    model_free(&m);
    close_fixture(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny),           cmocka_unit_test(test_twelve),
        cmocka_unit_test(test_runs),           cmocka_unit_test(test_long),
        cmocka_unit_test(test_words),          cmocka_unit_test(test_number),
        cmocka_unit_test(test_medium),         cmocka_unit_test(test_any),
        cmocka_unit_test(test_exhaustive),     cmocka_unit_test(test_families),
        cmocka_unit_test(test_append_density), cmocka_unit_test(test_faults_medium),
        cmocka_unit_test(test_faults_long),    cmocka_unit_test(test_faults_any),
        cmocka_unit_test(test_fuzz_tiny),      cmocka_unit_test(test_fuzz_words),
        cmocka_unit_test(test_fuzz_long),      cmocka_unit_test(test_fuzz_any),
        cmocka_unit_test(test_swapped_leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
