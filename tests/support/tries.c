/* tries: see tries.h. */
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
#include "support/tries.h"

/* ---- fixture: a pairs file with sums in a temporary folder; extending it can be made to fail ------------------- */

static struct cht_io_ops fault_ops;
static struct cht_io fault_io = {&fault_ops};
uint64_t tries_extend_fail_at, tries_extend_failures;

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
    if (tries_extend_fail_at > 0 && --tries_extend_fail_at == 0) {
        tries_extend_fail_at = 1; /* stays full */
        tries_extend_failures++;
        return CHT_FAIL(err, CHT_DISK_FULL, "injected");
    }
    return cht_io_posix()->ops->allocate(f, off, len, err);
}

uint64_t tries_seed(uint64_t fixed)
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

void tries_open(struct tries *f, uint64_t seed)
{
    struct cht_err e = {0};
    fault_ops = *cht_io_posix()->ops;
    fault_ops.open = fault_open;
    fault_ops.allocate = fault_allocate;
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/test_trie.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->sums = open_file(f->dir, CHT_PF_SUMS, NULL);
    f->pf = open_file(f->dir, CHT_PF_PAIRS, f->sums);
    cht_rng_seed(&f->rng, tries_seed(seed));
    assert_int_equal(cht_trie_format(f->pf, &e), CHT_OK);
}

void tries_close(struct tries *f)
{
    struct cht_err e;
    cht_pf_close(f->pf);
    cht_pf_close(f->sums);
    assert_int_equal(cht_io_remove_tree(cht_io_posix(), f->dir, &e), CHT_OK);
}

/* ---- model ---------------------------------------------------------------------------------------------------- */

int tries_compare(const uint8_t *a, size_t na, const uint8_t *b, size_t nb)
{
    int c = na > 0 && nb > 0 ? memcmp(a, b, na < nb ? na : nb) : 0;
    return c != 0 ? c : na < nb ? -1 : na > nb;
}

size_t tries_find(const struct tries_model *m, const uint8_t *name, size_t len, bool *found)
{
    size_t lo = 0, hi = m->n;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (tries_compare(m->v[mid].name, m->v[mid].len, name, len) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *found = lo < m->n && tries_compare(m->v[lo].name, m->v[lo].len, name, len) == 0;
    return lo;
}

uint64_t tries_set(struct tries_model *m, const uint8_t *name, size_t len, uint64_t key)
{
    bool found;
    size_t i = tries_find(m, name, len, &found);
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
    m->v[i] = (struct tries_pair){malloc(len), len, key};
    memcpy(m->v[i].name, name, len);
    m->n++;
    return 0;
}

uint64_t tries_del(struct tries_model *m, const uint8_t *name, size_t len)
{
    bool found;
    size_t i = tries_find(m, name, len, &found);
    if (!found)
        return 0;
    uint64_t old = m->v[i].key;
    free(m->v[i].name);
    memmove(m->v + i, m->v + i + 1, (m->n - i - 1) * sizeof *m->v);
    m->n--;
    return old;
}

static bool tries_has_prefix(const struct tries_pair *p, const uint8_t *s, size_t n)
{
    return n == 0 || (p->len >= n && memcmp(p->name, s, n) == 0);
}

void tries_range(const struct tries_model *m, const uint8_t *s, size_t n, size_t *from, size_t *to)
{
    bool found;
    *from = n > 0 ? tries_find(m, s, n, &found) : 0;
    *to = *from;
    while (*to < m->n && tries_has_prefix(&m->v[*to], s, n))
        ++*to;
}

void tries_free(struct tries_model *m)
{
    for (size_t i = 0; i < m->n; i++)
        free(m->v[i].name);
    free(m->v);
}

/* ---- comparing -------------------------------------------------------------------------------------------------- */

void tries_on_bad(void *ctx, uint64_t off, const char *what)
{
    struct tries_seen *s = ctx;
    if (s->bad++ < 5)
        print_error("offset %llu: %s\n", (unsigned long long)off, what);
}

void tries_on_pair(void *ctx, const uint8_t *name, size_t len, uint64_t key)
{
    struct tries_seen *s = ctx;
    if (s->i >= s->m->n || tries_compare(s->m->v[s->i].name, s->m->v[s->i].len, name, len) != 0 ||
        s->m->v[s->i].key != key)
        s->bad++;
    s->i++;
}

void tries_check_all(struct tries *f, const struct tries_model *m)
{
    struct cht_err e = {0};
    struct tries_seen s = {m, 0, 0};
    assert_int_equal(cht_trie_check(f->pf, tries_on_bad, tries_on_pair, &s, &e), CHT_OK);
    assert_int_equal(s.bad, 0);
    assert_int_equal(s.i, m->n);
    assert_int_equal(cht_trie_pairs(f->pf), m->n);
}

void tries_check_get(struct tries *f, const struct tries_model *m, const uint8_t *name, size_t len)
{
    struct cht_err e = {0};
    uint64_t key = 0;
    bool found;
    size_t i = tries_find(m, name, len, &found);
    enum cht_rc rc = cht_trie_get(f->pf, name, len, &key, &e);
    assert_int_equal(rc, found ? CHT_OK : CHT_PAIR_NOT_FOUND);
    if (found)
        assert_int_equal(key, m->v[i].key);
}

void tries_check_count(struct tries *f, const struct tries_model *m, const uint8_t *s, size_t n)
{
    struct cht_err e = {0};
    uint64_t count;
    size_t from, to;
    tries_range(m, s, n, &from, &to);
    assert_int_equal(cht_trie_count(f->pf, s, n, &count, &e), CHT_OK);
    assert_int_equal(count, to - from);
}

void tries_check_scan(struct tries *f, const struct tries_model *m, const uint8_t *prefix, size_t np,
                      const uint8_t *after, size_t na, bool reverse, size_t limit)
{
    struct cht_err e = {0};
    struct cht_trie_iter *it;
    static struct cht_trie_item items[64];
    static uint8_t names[2 * TRIES_NAME_MAX];
    size_t from, to, count, used, last = 0;
    unsigned way = (unsigned)cht_rng_below(&f->rng, reverse ? 2 : 3);
    bool found, batch = way > 0;
    tries_range(m, prefix, np, &from, &to);
    if (na > 0) {
        size_t at = tries_find(m, after, na, &found);
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
            const struct tries_pair *p = reverse ? &m->v[--to] : &m->v[from++];
            if (batch) {
                name = names + items[i].off;
                len = items[i].len;
                key = items[i].key;
            }
            if (way == 2) { /* only the last one has a name */
                name = i + 1 == count ? names : p->name;
                len = i + 1 == count ? last : p->len;
            }
            assert_int_equal(tries_compare(p->name, p->len, name, len), 0);
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

size_t tries_fam_tiny(struct tries *f, uint8_t *out)
{
    static const uint8_t alphabet[] = {0, 1, 'a', 254, 255};
    size_t n = 1 + cht_rng_below(&f->rng, 7);
    for (size_t i = 0; i < n; i++)
        out[i] = alphabet[cht_rng_below(&f->rng, sizeof alphabet)];
    return n;
}

size_t tries_fam_twelve(struct tries *f, uint8_t *out)
{
    for (size_t i = 0; i < 12; i++)
        out[i] = (uint8_t)cht_rng_next(&f->rng);
    return 12;
}

size_t tries_fam_runs(struct tries *f, uint8_t *out) /* runs of one byte, prefixes of each other */
{
    size_t n = 1 + cht_rng_below(&f->rng, cht_rng_below(&f->rng, 8) == 0 ? TRIES_NAME_MAX : 300);
    static const uint8_t bytes[] = {0, 0, 255, 'x'};
    memset(out, bytes[cht_rng_below(&f->rng, 4)], n);
    if (cht_rng_below(&f->rng, 4) == 0)
        out[n - 1] = (uint8_t)cht_rng_next(&f->rng);
    return n;
}

size_t tries_fam_long(struct tries *f, uint8_t *out) /* long names that part at few places */
{
    static const size_t at[] = {0,   1,   3,   200,  254,  255,  256,  257,  511,  512,
                                513, 998, 999, 1000, 1001, 1002, 2000, 4000, 4094, 4095};
    static const size_t len[] = {1,    2,    255,  256,  257,  258,  999, 1000,
                                 1001, 1002, 1255, 1257, 2048, 4095, 4096};
    size_t n = cht_rng_below(&f->rng, 3) ? len[cht_rng_below(&f->rng, 15)]
                                         : 1 + cht_rng_below(&f->rng, TRIES_NAME_MAX);
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)(i * 7);
    for (int k = 0; k < 2; k++) {
        size_t p = at[cht_rng_below(&f->rng, 20)];
        if (p < n)
            out[p] ^= (uint8_t)cht_rng_below(&f->rng, 3);
    }
    return n;
}

size_t tries_fam_words(struct tries *f, uint8_t *out) /* contexts: words joined by spaces */
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

size_t tries_fam_number(struct tries *f, uint8_t *out)
{
    return (size_t)snprintf((char *)out, 20, "%010u", (unsigned)cht_rng_below(&f->rng, 20000));
}

size_t tries_fam_medium(struct tries *f,
                        uint8_t *out) /* few to a leaf, so that it splits and bursts all the time */
{
    size_t n = 300 + cht_rng_below(&f->rng, 600);
    memset(out, 'm', n);
    out[0] = (uint8_t)cht_rng_below(&f->rng, 4);
    out[1 + cht_rng_below(&f->rng, 299)] = (uint8_t)cht_rng_next(&f->rng);
    return n;
}

size_t tries_fam_any(struct tries *f, uint8_t *out)
{
    static tries_family *const all[] = {tries_fam_tiny,  tries_fam_twelve, tries_fam_runs,  tries_fam_long,
                                        tries_fam_words, tries_fam_number, tries_fam_medium};
    return all[cht_rng_below(&f->rng, 7)](f, out);
}

size_t tries_vary(struct tries *f, uint8_t *name, size_t n)
{
    switch (cht_rng_below(&f->rng, 5)) {
    case 0:
        return n > 1 ? n - 1 : n;
    case 1:
        if (n < TRIES_NAME_MAX)
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

size_t tries_pick(struct tries *f, const struct tries_model *m, tries_family *fam, uint8_t *out)
{
    uint64_t how = cht_rng_below(&f->rng, 4);
    if (m->n == 0 || how == 0)
        return fam(f, out);
    const struct tries_pair *p = &m->v[cht_rng_below(&f->rng, m->n)];
    memcpy(out, p->name, p->len);
    return how == 1 ? tries_vary(f, out, p->len) : p->len;
}

/* ---- random operations ------------------------------------------------------------------------------------------ */

enum cht_rc tries_do_set(struct tries *f, struct tries_model *m, const uint8_t *name, size_t len)
{
    struct cht_err e = {0};
    uint64_t old = 99, key = 1 + cht_rng_below(&f->rng, CHT_TRIE_KEY_MAX);
    enum cht_rc rc = cht_trie_set(f->pf, name, len, key, &old, &e);
    if (rc == CHT_OK)
        assert_int_equal(old, tries_set(m, name, len, key));
    return rc;
}

enum cht_rc tries_do_del(struct tries *f, struct tries_model *m, const uint8_t *name, size_t len)
{
    struct cht_err e = {0};
    uint64_t old = 0;
    bool found;
    (void)tries_find(m, name, len, &found);
    enum cht_rc rc = cht_trie_del(f->pf, name, len, &old, &e);
    if (rc == CHT_OK)
        assert_int_equal(old, tries_del(m, name, len));
    else if (rc == CHT_PAIR_NOT_FOUND)
        assert_false(found);
    return rc;
}

enum cht_rc tries_do_del_prefix(struct tries *f, struct tries_model *m, const uint8_t *name, size_t len)
{
    struct cht_err e = {0};
    uint64_t count;
    size_t from, to;
    tries_range(m, name, len, &from, &to);
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
