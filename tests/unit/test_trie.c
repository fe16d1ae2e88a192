/* test_trie: the pair trie against a sorted array; failing calls; damaged pages. Seeds are fixed and printed;
 * CHT_TEST_SEED overrides them. support/tries.h has the model and the names.
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
#include "support/tries.h"

static void one_op(struct tries *f, struct tries_model *m, tries_family *fam, unsigned set_percent)
{
    uint8_t name[TRIES_NAME_MAX + 16], after[TRIES_NAME_MAX + 16];
    unsigned dice = (unsigned)cht_rng_below(&f->rng, 100);
    size_t n, na;
    if (dice < set_percent) {
        n = cht_rng_below(&f->rng, 3) ? fam(f, name) : tries_pick(f, m, fam, name);
        assert_int_equal(tries_do_set(f, m, name, n), CHT_OK);
    } else if (dice < 80) {
        n = tries_pick(f, m, fam, name);
        enum cht_rc rc = tries_do_del(f, m, name, n);
        assert_true(rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND);
    } else if (dice < 86) {
        n = tries_pick(f, m, fam, name);
        tries_check_get(f, m, name, n);
        tries_check_count(f, m, name, cht_rng_below(&f->rng, n + 1));
    } else if (dice < 98) {
        n = tries_pick(f, m, fam, name);
        na = cht_rng_below(&f->rng, 4) ? tries_pick(f, m, fam, after) : 0;
        size_t np = cht_rng_below(&f->rng, 3) ? cht_rng_below(&f->rng, n + 1) : 0;
        if (np > 0 && cht_rng_below(&f->rng, 2)) { /* a cursor in the prefix's range */
            memcpy(after, name, n);
            na = n;
            na = tries_vary(f, after, na);
        }
        tries_check_scan(f, m, name, np, after, na, cht_rng_below(&f->rng, 2) == 0,
                         1 + cht_rng_below(&f->rng, 100));
    } else {
        n = tries_pick(f, m, fam, name);
        size_t np = n - cht_rng_below(&f->rng, n < 8 ? n : 8);
        assert_int_equal(
            tries_do_del_prefix(f, m, name, cht_rng_below(&f->rng, 20) ? np : cht_rng_below(&f->rng, n + 1)),
            CHT_OK);
    }
}

static void run_family(tries_family *fam, uint64_t seed, unsigned ops)
{
    struct tries f;
    struct tries_model m = {0};
    tries_open(&f, seed);
    for (unsigned round = 0; round < 6; round++) { /* grow, shrink, grow ... */
        unsigned set_percent = round % 2 == 0 ? 70 : 25;
        for (unsigned i = 0; i < ops; i++) {
            one_op(&f, &m, fam, set_percent);
            if (i % (ops / 10) == 0)
                tries_check_all(&f, &m);
        }
        tries_check_scan(&f, &m, NULL, 0, NULL, 0, false, SIZE_MAX);
        tries_check_scan(&f, &m, NULL, 0, NULL, 0, true, SIZE_MAX);
    }
    while (m.n > 0) {
        struct tries_pair *p = &m.v[cht_rng_below(&f.rng, m.n)];
        uint8_t name[TRIES_NAME_MAX];
        size_t n = p->len;
        memcpy(name, p->name, n);
        assert_int_equal(tries_do_del(&f, &m, name, n), CHT_OK);
    }
    tries_check_all(&f, &m);
    struct cht_trie_shape shape;
    struct cht_err e;
    assert_int_equal(cht_trie_shape(f.pf, &shape, &e), CHT_OK);
    assert_int_equal(shape.leaves, 0);
    tries_free(&m);
    tries_close(&f);
}

static void test_tiny(void **state)
{
    (void)state;
    run_family(tries_fam_tiny, 101, 6000);
}
static void test_twelve(void **state)
{
    (void)state;
    run_family(tries_fam_twelve, 102, 6000);
}
static void test_runs(void **state)
{
    (void)state;
    run_family(tries_fam_runs, 103, 2000);
}
static void test_long(void **state)
{
    (void)state;
    run_family(tries_fam_long, 104, 1500);
}
static void test_words(void **state)
{
    (void)state;
    run_family(tries_fam_words, 105, 6000);
}
static void test_number(void **state)
{
    (void)state;
    run_family(tries_fam_number, 106, 6000);
}
static void test_medium(void **state)
{
    (void)state;
    run_family(tries_fam_medium, 107, 2000);
}
static void test_any(void **state)
{
    (void)state;
    run_family(tries_fam_any, 108, 5000);
}

/* ---- fixed cases ------------------------------------------------------------------------------------------------ */

/* Every prefix's count, neighbours of every key, every key as cursor both ways. */
static void test_exhaustive(void **state)
{
    (void)state;
    struct tries f;
    struct tries_model m = {0};
    uint8_t name[TRIES_NAME_MAX + 16];
    tries_open(&f, 201);
    for (unsigned i = 0; i < 1500; i++) {
        size_t n = i % 2 ? tries_fam_tiny(&f, name) : tries_fam_words(&f, name);
        assert_int_equal(tries_do_set(&f, &m, name, n), CHT_OK);
    }
    for (size_t i = 0; i < m.n; i++) {
        size_t n = m.v[i].len;
        for (size_t k = 0; k <= n; k++)
            tries_check_count(&f, &m, m.v[i].name, k);
        for (unsigned k = 0; k < 6; k++) {
            memcpy(name, m.v[i].name, n);
            tries_check_get(&f, &m, name, tries_vary(&f, name, n));
        }
        tries_check_scan(&f, &m, NULL, 0, m.v[i].name, n, false, 3);
        tries_check_scan(&f, &m, NULL, 0, m.v[i].name, n, true, 3);
        tries_check_scan(&f, &m, m.v[i].name, n / 2, m.v[i].name, n, i % 2, 3);
    }
    tries_free(&m);
    tries_close(&f);
}

/* Ascending, descending, all bytes, all lengths of one byte, every length at the end of the longest name. */
static void test_families(void **state)
{
    (void)state;
    struct tries f;
    struct tries_model m = {0};
    static uint8_t name[TRIES_NAME_MAX + 16];
    tries_open(&f, 202);
    for (unsigned i = 0; i < 256; i++) {
        for (unsigned k = 0; k < 40; k++) {
            name[0] = (uint8_t)i;
            name[1] = (uint8_t)(k * 13);
            assert_int_equal(tries_do_set(&f, &m, name, 1 + (k > 0)), CHT_OK);
        }
    }
    tries_check_all(&f, &m);
    for (unsigned zero = 0; zero < 2; zero++) {
        memset(name, zero ? 0 : 255, TRIES_NAME_MAX);
        for (size_t n = TRIES_NAME_MAX; n > 0; n -= n > 600 && n < 4000 ? 50 : 1)
            assert_int_equal(tries_do_set(&f, &m, name, n), CHT_OK);
        tries_check_all(&f, &m);
    }
    for (unsigned i = 5000; i > 0; i--)
        assert_int_equal(tries_do_set(&f, &m, name, (size_t)snprintf((char *)name, 32, "down-%08u", i)),
                         CHT_OK);
    for (unsigned i = 0; i < 5000; i++)
        assert_int_equal(tries_do_set(&f, &m, name, (size_t)snprintf((char *)name, 32, "up-%08u", i)),
                         CHT_OK);
    tries_check_all(&f, &m);
    tries_check_scan(&f, &m, NULL, 0, NULL, 0, false, SIZE_MAX);
    tries_check_scan(&f, &m, NULL, 0, NULL, 0, true, SIZE_MAX);
    assert_int_equal(tries_do_del_prefix(&f, &m, (const uint8_t *)"up-0000", 7), CHT_OK);
    tries_check_all(&f, &m);
    assert_int_equal(tries_do_del_prefix(&f, &m, (const uint8_t *)"", 0), CHT_OK);
    assert_int_equal(m.n, 0);
    tries_check_all(&f, &m);
    tries_free(&m);
    tries_close(&f);
}

/* Ascending names fill their pages. */
static void test_append_density(void **state)
{
    (void)state;
    struct tries f;
    struct tries_model m = {0};
    struct cht_err e = {0};
    struct cht_trie_shape shape;
    uint8_t name[32];
    tries_open(&f, 203);
    for (unsigned i = 0; i < 20000; i++)
        assert_int_equal(tries_do_set(&f, &m, name, (size_t)snprintf((char *)name, 32, "%012u", i)), CHT_OK);
    assert_int_equal(cht_trie_shape(f.pf, &shape, &e), CHT_OK);
    assert_true(shape.leaf_bytes_used > shape.leaves * CHT_PAGE * 7 / 10);
    tries_check_all(&f, &m);
    tries_free(&m);
    tries_close(&f);
}

/* ---- failing calls ---------------------------------------------------------------------------------------------- */

static enum cht_rc fault_op(struct tries *f, struct tries_model *m, unsigned what, const uint8_t *name,
                            size_t n)
{
    return what == 0   ? tries_do_set(f, m, name, n)
           : what == 1 ? tries_do_del(f, m, name, n)
                       : tries_do_del_prefix(f, m, name, n);
}

/* The n-th call that can fail fails (of a kind: allocation, allocations from there on, space), n = 1, 2, ..., until
 * none is left and the operation succeeds. After each failure the pairs are what they were. */
static unsigned fail_through(struct tries *f, struct tries_model *m, unsigned what, const uint8_t *name,
                             size_t n)
{
    unsigned failures = 0, kind = (unsigned)cht_rng_below(&f->rng, 3);
    for (uint64_t at = 1;; at++) {
        size_t before = m->n;
        f->pf->file_pages = f->pf->fast.pages; /* so that the next page needs space */
        cht_pf_undo_begin(f->pf);              /* so that pages to be written need memory */
        tries_extend_failures = 0;
        cht_alloc_fail_at(kind < 2 ? at : 0, kind == 1);
        tries_extend_fail_at = kind == 2 ? at : 0;
        enum cht_rc rc = fault_op(f, m, what, name, n);
        uint64_t injected = kind < 2 ? cht_alloc_failures() : tries_extend_failures;
        cht_alloc_fail_at(0, false);
        tries_extend_fail_at = 0;
        failures += injected > 0;
        tries_check_all(f, m);
        if (rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND) { /* also where only tidying up had failed */
            cht_pf_undo_end(f->pf);
            return failures;
        }
        assert_true(injected > 0);
        assert_int_equal(rc, kind < 2 ? CHT_NO_MEMORY : CHT_DISK_FULL);
        assert_int_equal(m->n, before);
        tries_check_get(f, m, name, n > 0 ? n : 1);
        if (at % 2) /* with what the failed steps left behind, or without */
            cht_pf_undo_end(f->pf);
        else
            cht_pf_undo_rollback(f->pf);
    }
}

static void run_faults(tries_family *fam, uint64_t seed, unsigned ops)
{
    struct tries f;
    struct tries_model m = {0};
    uint8_t name[TRIES_NAME_MAX + 16];
    unsigned failures = 0;
    tries_open(&f, seed);
    for (unsigned i = 0; i < ops; i++) {
        unsigned what = i % 16 == 15 ? 2 : i > ops / 2 && i % 4 != 0 ? 1 : 0;
        size_t n = what == 0 ? fam(&f, name) : tries_pick(&f, &m, fam, name);
        if (what == 2)
            n -= cht_rng_below(&f.rng, n < 4 ? n : 4);
        failures += fail_through(&f, &m, what, name, n);
    }
    assert_true(failures > ops);
    tries_free(&m);
    tries_close(&f);
}

static void test_faults_medium(void **state)
{
    (void)state;
    run_faults(tries_fam_medium, 301, 300);
}
static void test_faults_long(void **state)
{
    (void)state;
    run_faults(tries_fam_long, 302, 300);
}
static void test_faults_any(void **state)
{
    (void)state;
    run_faults(tries_fam_any, 303, 400);
}

/* ---- damaged pages ---------------------------------------------------------------------------------------------- */

struct image {
    uint8_t *bytes;
    uint64_t pages;
};

static struct image take_image(struct tries *f)
{
    struct image im = {malloc((size_t)f->pf->fast.pages * CHT_PAGE), f->pf->fast.pages};
    memcpy(im.bytes, f->pf->fast.base, (size_t)im.pages * CHT_PAGE);
    return im;
}

static void put_image(struct tries *f, const struct image *im)
{
    f->pf->fast.pages = im->pages;
    memcpy(f->pf->fast.base, im->bytes, (size_t)im->pages * CHT_PAGE);
}

static void damage_page(struct tries *f, uint64_t pages)
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
static void poke(struct tries *f, const struct tries_model *m, tries_family *fam)
{
    struct cht_err e = {0};
    struct cht_trie_iter *it;
    uint8_t name[TRIES_NAME_MAX + 16];
    const uint8_t *out;
    size_t len;
    uint64_t x;
    unsigned bad = 0;
    expect_code(cht_trie_check(f->pf, count_bad, NULL, &bad, &e));
    for (unsigned i = 0; i < 30; i++) {
        size_t n = tries_pick(f, m, fam, name);
        expect_code(cht_trie_get(f->pf, name, n, &x, &e));
        expect_code(cht_trie_count(f->pf, name, cht_rng_below(&f->rng, n + 1), &x, &e));
    }
    assert_int_equal(cht_trie_iter_new(&it, &e), CHT_OK);
    for (unsigned rev = 0; rev < 2; rev++) {
        size_t n = tries_pick(f, m, fam, name);
        enum cht_rc rc = cht_trie_iter_seek(it, f->pf, NULL, 0, name, n, rev, &e);
        expect_code(rc);
        for (unsigned i = 0; rc == CHT_OK && i < 20000; i++) {
            rc = cht_trie_iter_next(it, &out, &len, &x, &e);
            expect_code(rc);
            assert_true(rc != CHT_OK || (len >= 1 && len <= TRIES_NAME_MAX));
        }
    }
    size_t from = tries_pick(f, m, fam, name);
    enum cht_rc done = cht_trie_iter_seek(it, f->pf, NULL, 0, name, from, false, &e);
    expect_code(done);
    for (unsigned i = 0; done == CHT_OK && i < 2000; i++) {
        struct cht_trie_item items[10];
        size_t count;
        done = cht_trie_iter_keys(it, items, 10, &count, name, &len, &e);
        expect_code(done);
        assert_true(count <= 10 && (count == 0 || (len >= 1 && len <= TRIES_NAME_MAX)));
    }
    cht_trie_iter_free(it);
    for (unsigned i = 0; i < 60; i++) {
        size_t n = tries_pick(f, m, fam, name);
        if (i % 3 == 0)
            expect_code(cht_trie_del(f->pf, name, n, &x, &e));
        else
            expect_code(cht_trie_set(f->pf, name, n, 5, &x, &e));
    }
    size_t n = tries_pick(f, m, fam, name);
    expect_code(cht_trie_del_prefix(f->pf, name, cht_rng_below(&f->rng, n + 1), &x, &e));
    expect_code(cht_trie_check(f->pf, count_bad, NULL, &bad, &e));
}

static void run_fuzz(tries_family *fam, uint64_t seed, unsigned names, unsigned rounds)
{
    struct tries f;
    struct tries_model m = {0};
    uint8_t name[TRIES_NAME_MAX + 16];
    tries_open(&f, seed);
    for (unsigned i = 0; i < names; i++)
        assert_int_equal(tries_do_set(&f, &m, name, fam(&f, name)), CHT_OK);
    for (unsigned i = 0; i < names / 8; i++) {
        size_t n = tries_pick(&f, &m, fam, name);
        (void)tries_do_del(&f, &m, name, n); /* makes garbage and free blocks */
    }
    tries_check_all(&f, &m);
    struct image im = take_image(&f);
    for (unsigned i = 0; i < rounds; i++) {
        unsigned n = 1 + (unsigned)cht_rng_below(&f.rng, 6);
        while (n-- > 0)
            damage_page(&f, im.pages);
        poke(&f, &m, fam);
        put_image(&f, &im);
    }
    tries_check_all(&f, &m);
    free(im.bytes);
    tries_free(&m);
    tries_close(&f);
}

static void test_fuzz_tiny(void **state)
{
    (void)state;
    run_fuzz(tries_fam_tiny, 401, 3000, 1500);
}
static void test_fuzz_words(void **state)
{
    (void)state;
    run_fuzz(tries_fam_words, 402, 3000, 1500);
}
static void test_fuzz_long(void **state)
{
    (void)state;
    run_fuzz(tries_fam_long, 403, 400, 1500);
}
static void test_fuzz_any(void **state)
{
    (void)state;
    run_fuzz(tries_fam_any, 404, 1500, 1500);
}

/* Two leaves change places: whoever comes to one of them is told, nobody gets a wrong answer. */
static void test_swapped_leaves(void **state)
{
    (void)state;
    struct tries f;
    struct tries_model m = {0};
    uint8_t name[TRIES_NAME_MAX + 16];
    unsigned told = 0;
    tries_open(&f, 405);
    for (unsigned i = 0; i < 60000; i++)
        assert_int_equal(
            tries_do_set(&f, &m, name, i % 2 ? tries_fam_words(&f, name) : tries_fam_twelve(&f, name)),
            CHT_OK);
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
    tries_free(&m);
    tries_close(&f);
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
