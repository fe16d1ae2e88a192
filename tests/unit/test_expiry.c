/* test_expiry: when pairs end, against a list. Names of every length, those too long for an entry of their own in the order of time, too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "store/expiry.h"
#include "support/tries.h"

#define NAMES 400u

struct end {
    uint8_t name[CHT_NAME_MAX];
    size_t len;
    uint64_t at; /* 0: never */
};

/* Names with common beginnings; every eighth one is too long for DUE, and differs from its neighbours there only. */
static void make_names(struct end *v)
{
    for (unsigned i = 0; i < NAMES; i++) {
        v[i].at = 0;
        v[i].len = i % 8 == 7 ? CHT_NAME_MAX - i / 8 % 7 : 1 + (i * 37) % 60;
        memset(v[i].name, 'a' + (int)(i % 3), v[i].len);
        (void)snprintf((char *)v[i].name, 5, "%03u", i % 8 == 7 ? i / 56 : i);
        v[i].name[v[i].len - 1] = (uint8_t)i;
        if (v[i].len < 6)
            v[i].len = 6;
        cht_put16(v[i].name + v[i].len - 2, (uint16_t)i);
    }
}

static struct cht_str name_of(const struct end *e) { return (struct cht_str){e->name, e->len}; }

static void compare(struct tries *f, const struct end *v)
{
    struct cht_err err = {0};
    uint64_t n = 0, first = 0, count = 0, at;
    uint8_t name[CHT_NAME_MAX];
    size_t len;
    struct tries_model none = {0};
    for (unsigned i = 0; i < NAMES; i++) {
        assert_int_equal(cht_expiry_get(f->pf, name_of(&v[i]), &at, &err), CHT_OK);
        assert_int_equal(at, v[i].at);
        n += at != 0;
        first = at != 0 && (first == 0 || at < first) ? at : first;
    }
    assert_int_equal(cht_expiry_first(f->pf, &at, name, &len, &err), CHT_OK);
    assert_int_equal(at, first);
    if (first != 0) {
        assert_int_equal(cht_expiry_get(f->pf, (struct cht_str){name, len}, &at, &err), CHT_OK);
        assert_int_equal(at, first);
    }
    if (cht_expiry_any(f->pf)) {
        assert_int_equal(cht_trie_count_in(f->pf, CHT_TRIE_EXPIRY, (struct cht_str){NULL, 0}, &count, &err),
                         CHT_OK);
        assert_int_equal(count, n);
        assert_int_equal(cht_trie_count_in(f->pf, CHT_TRIE_DUE, (struct cht_str){NULL, 0}, &count, &err),
                         CHT_OK);
        assert_true(count <= n && (n == 0 || count > 0));
    }
    tries_check_all(f, &none); /* of the pairs there are none; every block has one owner */
}

static void test_random(void **state)
{
    struct tries f;
    struct end *v = calloc(NAMES, sizeof *v);
    struct cht_err err = {0};
    (void)state;
    assert_non_null(v);
    make_names(v);
    tries_open(&f, tries_seed(15));
    compare(&f, v);
    assert_int_equal(cht_get32(cht_pf_fast(f.pf)->base + 8), CHT_FORMAT_VERSION);
    assert_int_equal(cht_expiry_make(f.pf, &err), CHT_OK);
    assert_int_equal(cht_get32(cht_pf_fast(f.pf)->base + 8), CHT_FORMAT_EXPIRY);
    for (unsigned round = 0; round < 6000; round++) {
        struct end *e = &v[cht_rng_below(&f.rng, NAMES)];
        unsigned dice = (unsigned)cht_rng_below(&f.rng, 100);
        uint64_t at = dice < 40 ? 0 : dice < 60 ? 1000 : 1 + cht_rng_below(&f.rng, CHT_EXPIRY_MAX);
        if (dice == 99) { /* a whole namespace */
            struct cht_str prefix = {e->name, 1 + cht_rng_below(&f.rng, 3)};
            assert_int_equal(cht_expiry_forget(f.pf, prefix, &err), CHT_OK);
            for (unsigned i = 0; i < NAMES; i++) {
                if (v[i].len >= prefix.n && memcmp(v[i].name, prefix.p, prefix.n) == 0)
                    v[i].at = 0;
            }
        } else {
            assert_int_equal(cht_expiry_set(f.pf, name_of(e), at, &err), CHT_OK);
            e->at = at;
        }
        if (round % 200 == 0)
            compare(&f, v);
    }
    compare(&f, v);
    for (;;) { /* in the order of time */
        uint64_t at, before = 0;
        uint8_t name[CHT_NAME_MAX];
        size_t len;
        assert_int_equal(cht_expiry_first(f.pf, &at, name, &len, &err), CHT_OK);
        if (at == 0)
            break;
        assert_true(at >= before);
        before = at;
        assert_int_equal(cht_expiry_set(f.pf, (struct cht_str){name, len}, 0, &err), CHT_OK);
        for (unsigned i = 0; i < NAMES; i++) {
            if (v[i].len == len && memcmp(v[i].name, name, len) == 0)
                v[i].at = 0;
        }
    }
    compare(&f, v);
    assert_int_equal(cht_get32(cht_pf_fast(f.pf)->base + 8),
                     CHT_FORMAT_EXPIRY); /* holes do not take it back */
    tries_close(&f);
    free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_random)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
