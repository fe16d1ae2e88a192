/* test_matrices: co-occurrence matrices that do not fit the memory: the same as those that do, done in parts; cut off anywhere and gone on with, and
 * the old ones there until then; names that are taken. That they are right: tests/http/test_matrix.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "cheetah/scan.h"
#include "lm/matrix.h"
#include "reduce/move.h"
#include "support/reducing.h"

enum { CONTEXTS = 400, TOKENS = 150, SMALL = 56 << 10 };

/* cnt:<order>: of contexts that begin with random tokens, and what these are. */
static void make_counts(unsigned order, uint64_t seed)
{
    static struct cht_op ops[2 * CONTEXTS];
    static uint8_t values[2 * CONTEXTS][4 + 8 * 16];
    static char names[2 * CONTEXTS][24];
    struct cht_rng r;
    cht_rng_seed(&r, seed);
    for (unsigned i = 0; i < CONTEXTS; i++) {
        unsigned n = 1 + (unsigned)cht_rng_below(&r, 15), at = (unsigned)cht_rng_below(&r, TOKENS / 16);
        uint8_t *counts = values[2 * i], *context = values[2 * i + 1];
        counts[0] = 1;
        counts[1] = (uint8_t)order;
        reduce_payload_put16(counts + 2, (uint16_t)n);
        for (unsigned k = 0; k < n; k++, at += 1 + (unsigned)cht_rng_below(&r, TOKENS / 16)) {
            reduce_payload_put32(counts + 4 + 8 * (size_t)k, at * UINT32_C(27000001));
            reduce_payload_put32(counts + 8 + 8 * (size_t)k, 1 + (uint32_t)cht_rng_below(&r, 9));
        }
        memcpy(context, "\1\1\1", 3);
        reduce_payload_put32(context + 3, (uint32_t)cht_rng_below(&r, TOKENS) * UINT32_C(27000001));
        (void)snprintf(names[2 * i], sizeof *names, "cnt:%u:%u-%04u", order, order, i);
        (void)snprintf(names[2 * i + 1], sizeof *names, "ctx:%u-%04u", order, i);
        ops[2 * i] = (struct cht_op){
            .kind = CHT_OP_PAIR_PUT, .name = str(names[2 * i]), .value = {counts, 4 + 8 * (size_t)n}};
        ops[2 * i + 1] =
            (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[2 * i + 1]), .value = {context, 7}};
    }
    run_ops(ops, 2 * CONTEXTS, 4);
}

/* All names and values under a prefix, as one string. */
static void take_all(const char *prefix, struct cht_buf *out)
{
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = str(prefix), .values = true};
    struct cht_scan *scan = NULL;
    struct cht_entry e[64];
    size_t n = 1;
    out->len = 0;
    assert_int_equal(cht_scan_open(red.s, &cfg, &scan, &red.err), CHT_OK);
    while (n > 0) {
        assert_int_equal(cht_scan_next(scan, e, 64, &n, &red.err), CHT_OK);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(e[i].flags, 0);
            assert_int_equal(cht_buf_reserve(out, out->len + e[i].name_len + e[i].value_len, &red.err),
                             CHT_OK);
            memcpy(out->data + out->len, e[i].name, e[i].name_len);
            memcpy(out->data + out->len + e[i].name_len, e[i].value, e[i].value_len);
            out->len += e[i].name_len + e[i].value_len;
        }
    }
    cht_scan_close(scan);
}

static bool same(const struct cht_buf *a, const struct cht_buf *b)
{
    return a->len == b->len && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}

static uint64_t count(const char *prefix)
{
    uint64_t pairs = 0;
    assert_int_equal(cht_store_count(red.s, str(prefix), &pairs, &red.err), CHT_OK);
    return pairs;
}

/* What a run says, and when it is cancelled. */
struct listener {
    unsigned passes; /* that began */
    unsigned at;     /* cancels when the n-th pass begins; 0: never */
    unsigned orders;
    struct lm_matrix_result last;
    _Atomic bool cancel;
};

static void hear(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    struct listener *l = ctx;
    (void)phase, (void)total;
    if (done == 0 && ++l->passes == l->at)
        atomic_store(&l->cancel, true);
}

static void take_result(void *ctx, const struct lm_matrix_result *r)
{
    struct listener *l = ctx;
    l->orders++;
    l->last = *r;
}

static enum cht_rc make(const char *prefix, enum reduce_matrix_metric metric, uint64_t memory,
                        struct listener *l)
{
    struct lm_matrix_config cfg = {.prefix = str(prefix),
                                   .metric = metric,
                                   .memory_max = memory,
                                   .cancel = &l->cancel,
                                   .say = hear,
                                   .result = take_result,
                                   .ctx = l};
    uint64_t malformed;
    memset(&red.err, 0, sizeof red.err);
    return lm_matrix_run(red.s, &cfg, &malformed, &red.err);
}

static void test_parts(void **state)
{
    (void)state;
    static const unsigned sizes[] = {40 << 10, SMALL, 90 << 10, 160 << 10};
    struct cht_buf whole = {0}, got = {0};
    unsigned most = 0;
    make_counts(2, 1);
    for (unsigned metric = 0; metric < 3; metric++) {
        struct listener l = {0};
        assert_int_equal(make("cnt:2:", (enum reduce_matrix_metric)metric, 0, &l), CHT_OK);
        assert_int_equal(l.passes, 1);
        struct lm_matrix_result wanted = l.last;
        assert_true(wanted.rows > 100 && wanted.entries > 2000 &&
                    wanted.rows + wanted.columns == count("mat"));
        take_all("mat", &whole);
        for (unsigned i = metric == 0 ? 0 : 1; i < 4; i++) {
            struct listener small = {0};
            enum cht_rc rc = make("cnt:2:", (enum reduce_matrix_metric)metric, sizes[i], &small);
            if (rc != CHT_OK)
                fail_msg("metric %u, %u bytes: %s", metric, sizes[i], red.err.msg);
            assert_memory_equal(&small.last, &wanted, sizeof wanted);
            take_all("mat", &got);
            assert_true(same(&whole, &got));
            most = small.passes > most ? small.passes : most;
        }
    }
    assert_true(most > 6);
    struct listener l = {0};
    assert_int_equal(make("cnt:2:", REDUCE_MATRIX_PMI, 2000, &l), CHT_NO_MEMORY);
    assert_non_null(strstr(red.err.msg, "memory"));
    take_all("mat", &got);
    assert_true(same(&whole, &got)); /* nothing was changed */
    cht_buf_free(&whole);
    cht_buf_free(&got);
}

/* Cancelled when each further pass begins: what was written is not done again, and the old rows are there until all are. */
static void test_cut_off(void **state)
{
    (void)state;
    struct cht_buf old = {0}, wanted = {0}, got = {0};
    struct listener plain = {0}, whole = {0};
    uint64_t parts = 0;
    unsigned cuts = 0, passes = 0;
    enum cht_rc rc = CHT_CANCELLED;
    make_counts(2, 2);
    assert_int_equal(make("cnt:2:", REDUCE_MATRIX_PMI, SMALL, &plain), CHT_OK);
    take_all("mat", &wanted);
    assert_int_equal(make("cnt:2:", REDUCE_MATRIX_COUNT, 0, &whole), CHT_OK);
    take_all("mat:", &old);
    while (rc == CHT_CANCELLED) {
        struct listener l = {.at = 3}; /* the survey, one pass that is kept, and the next is cut off */
        rc = make("cnt:2:", REDUCE_MATRIX_PMI, SMALL, &l);
        passes += l.passes;
        if (rc != CHT_CANCELLED)
            break;
        take_all("mat:", &got);
        assert_true(same(&old, &got));
        uint64_t now = count("matnew:") + count("mattnew:");
        assert_true(now > parts);
        parts = now;
        cuts++;
    }
    assert_int_equal(rc, CHT_OK);
    assert_true(cuts > 3 && passes <= plain.passes + 2 * (cuts + 1));
    take_all("mat", &got);
    assert_true(same(&wanted, &got)); /* and nothing is left of the parts */
    /* parts of other counts are not gone on with */
    struct listener first = {.at = 3}, second = {0};
    assert_int_equal(make("cnt:2:", REDUCE_MATRIX_COUNT, SMALL, &first), CHT_CANCELLED);
    assert_true(count("matnew:") > 0);
    make_counts(2, 3);
    assert_int_equal(make("cnt:2:", REDUCE_MATRIX_COUNT, SMALL, &second), CHT_OK);
    take_all("mat", &got);
    assert_int_equal(make("cnt:2:", REDUCE_MATRIX_COUNT, 0, &first), CHT_CANCELLED);
    struct listener third = {0};
    assert_int_equal(make("cnt:2:", REDUCE_MATRIX_COUNT, 0, &third), CHT_OK);
    take_all("mat", &wanted);
    assert_true(same(&wanted, &got));
    cht_buf_free(&old);
    cht_buf_free(&wanted);
    cht_buf_free(&got);
}

/* Orders that are done are not done again by the run that goes on. */
static void test_orders(void **state)
{
    (void)state;
    struct listener l = {.at = 2}, again = {0};
    struct cht_buf before = {0}, after = {0};
    make_counts(2, 4);
    make_counts(3, 5);
    assert_int_equal(make("cnt:", REDUCE_MATRIX_P, 0, &l), CHT_CANCELLED);
    assert_int_equal(l.orders, 1);
    assert_int_equal(count("matrun:"), 1);
    take_all("mat:2:", &before);
    assert_int_equal(make("cnt:", REDUCE_MATRIX_P, 0, &again), CHT_OK);
    assert_int_equal(again.orders, 2);
    assert_int_equal(again.last.order, 3);
    take_all("mat:2:", &after);
    assert_true(same(&before, &after) && count("mat:3:") == again.last.rows && count("matrun:") == 0);
    /* rows that are gone are made again */
    struct listener cut = {.at = 2}, anew = {0};
    make_counts(3, 6);
    assert_int_equal(make("cnt:", REDUCE_MATRIX_P, 0, &cut), CHT_CANCELLED);
    struct cht_op op = {.kind = CHT_OP_PREFIX_DEL, .with_values = true, .name = str("mat:2:")};
    assert_int_equal(run_op(&op), CHT_OK);
    assert_int_equal(make("cnt:", REDUCE_MATRIX_P, 0, &anew), CHT_OK);
    take_all("mat:2:", &after);
    assert_true(same(&before, &after));
    cht_buf_free(&before);
    cht_buf_free(&after);
}

static uint8_t phase(void)
{
    struct cht_buf got = {0};
    uint64_t key;
    uint32_t size = 0;
    uint8_t at = UINT8_MAX;
    if (cht_store_pair_value(red.s, str("matrun:2"), &key, &got, &size, &red.err) == CHT_OK) {
        assert_int_equal(size, 42);
        at = got.data[1];
    }
    cht_buf_free(&got);
    return at;
}

/* Cancels when memory is asked for after all parts are there: that is for their names. */
static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *err)
{
    struct listener *l = ctx;
    (void)bytes, (void)err;
    if (l->last.rows > 0 && count("mattnew:") == l->last.columns)
        atomic_store(&l->cancel, true);
    return CHT_OK;
}

static void unbook(void *ctx, uint64_t bytes) { (void)ctx, (void)bytes; }

/* Cut off while the parts get their names: no row of the old ones is left, no new one is lost, and the next run brings it to its end, whatever it makes. */
static void test_cut_off_at_the_end(void **state)
{
    (void)state;
    struct cht_buf wanted = {0}, got = {0};
    struct listener l = {0};
    make_counts(2, 7);
    assert_int_equal(make("cnt:2:", REDUCE_MATRIX_COUNT, 0, &l), CHT_OK);
    take_all("mat", &wanted);
    struct lm_matrix_config cfg = {.prefix = str("cnt:2:"),
                                   .metric = REDUCE_MATRIX_COUNT,
                                   .memory_max = 40 << 10,
                                   .book = book,
                                   .unbook = unbook,
                                   .cancel = &l.cancel,
                                   .ctx = &l};
    uint64_t malformed;
    for (unsigned i = 0; i < 2; i++) {
        struct listener next = {0};
        assert_int_equal(make("cnt:2:", REDUCE_MATRIX_P, 0, &next), CHT_OK);
        atomic_store(&l.cancel, false);
        assert_int_equal(lm_matrix_run(red.s, &cfg, &malformed, &red.err), CHT_CANCELLED);
        assert_int_equal(phase(), 2);
        assert_int_equal(count("matnew:"), l.last.rows);
        assert_int_equal(count("mattnew:"), l.last.columns);
        assert_in_range(count("mat:") + count("matt:"), 1, l.last.rows + l.last.columns - 1);
        take_all("mat:", &got);
        assert_memory_equal(got.data, wanted.data, got.len);
        assert_int_equal(make("cnt:2:", i == 0 ? REDUCE_MATRIX_COUNT : REDUCE_MATRIX_PMI, 0, &next), CHT_OK);
        assert_int_equal(next.passes, 2);
        assert_int_equal(count("mat"), l.last.rows + l.last.columns);
        take_all("mat", &got);
        assert_true(same(&wanted, &got) == (i == 0));
    }
    cht_buf_free(&wanted);
    cht_buf_free(&got);
}

/* Whatever cannot be allocated: the old rows are there, or they are being replaced; and the next run makes all of the new ones. */
static void test_without_memory(void **state)
{
    (void)state;
    struct cht_buf old = {0}, wanted = {0}, got = {0};
    struct listener l = {0};
    unsigned failed = 0;
    bool injected = true;
    make_counts(2, 7);
    assert_int_equal(make("cnt:2:", REDUCE_MATRIX_COUNT, 0, &l), CHT_OK);
    take_all("mat", &wanted);
    assert_int_equal(make("cnt:2:", REDUCE_MATRIX_P, 0, &l), CHT_OK);
    take_all("mat:", &old);
    for (unsigned n = 1; injected; n += getenv("CHT_TEST_LONG") != NULL ? 1 : n / 2 + 1) {
        cht_alloc_fail_at(n, false);
        enum cht_rc rc = make("cnt:2:", REDUCE_MATRIX_COUNT, 40 << 10, &l);
        injected = cht_alloc_failures() > 0;
        cht_alloc_fail_at(0, false);
        assert_true(rc == CHT_OK || (injected && rc == CHT_NO_MEMORY && red.err.msg[0] != 0));
        failed += rc != CHT_OK;
        if (rc != CHT_OK) {
            take_all("mat:", &got);
            assert_true(phase() == 2 || phase() == 3 || same(&old, &got));
            assert_int_equal(make("cnt:2:", REDUCE_MATRIX_COUNT, n % 2 == 0 ? 0 : 40 << 10, &l), CHT_OK);
        }
        take_all("mat", &got);
        assert_true(same(&wanted, &got));
        assert_int_equal(make("cnt:2:", REDUCE_MATRIX_P, 0, &l), CHT_OK);
    }
    assert_true(failed > 5);
    cht_buf_free(&old);
    cht_buf_free(&wanted);
    cht_buf_free(&got);
}

static void test_names_that_are_taken(void **state)
{
    (void)state;
    static const char *const names[] = {"mat:2:mine", "matt:2:mine", "matnew:2:mine", "mattnew:2:mine",
                                        "matrun:2"};
    make_counts(2, 8);
    for (unsigned i = 0; i < 5; i++) {
        struct listener l = {0};
        put(names[i], "mine", 4);
        assert_int_equal(make("cnt:2:", REDUCE_MATRIX_COUNT, SMALL, &l), CHT_NAMES_TAKEN);
        assert_non_null(strstr(red.err.msg, names[i]));
        assert_int_equal(count(names[i]), 1);
        assert_int_equal(count("mat:") + count("matt:"), i < 2);
        struct cht_op op = {.kind = CHT_OP_PAIR_DEL, .name = str(names[i]), .with_values = true};
        assert_int_equal(run_op(&op), CHT_OK);
    }
    struct listener l = {0};
    assert_int_equal(make("cnt:2:", REDUCE_MATRIX_COUNT, SMALL, &l), CHT_OK);
    assert_int_equal(count("mat"), l.last.rows + l.last.columns);
}

/* A record that nobody has made: the memory for its rows would be no number. Each time a little less than the least that is needed. */
static void test_rows_without_number(void **state)
{
    (void)state;
    const uint64_t each = REDUCE_MOVE_EACH + 2 * (sizeof REDUCE_MATRIX_NEW_TRANSPOSED - 1 + 2 + 4);
    make_counts(2, 9);
    for (uint64_t less = 0; less < 3 * CHT_NAME_MAX / each + 40; less++) {
        uint8_t record[42] = {1, 2};
        struct listener l = {0};
        uint64_t rows = UINT64_MAX / each - less;
        for (unsigned i = 0; i < 8; i++)
            record[18 + i] = (uint8_t)(rows >> (56 - 8 * i));
        put("matrun:2", record, sizeof record);
        assert_int_equal(make("cnt:2:", REDUCE_MATRIX_COUNT, SMALL, &l), CHT_OK);
        assert_int_equal(count("mat:") + count("matt:"), l.last.rows + l.last.columns);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {REDUCING_TEST(test_parts),
                                       REDUCING_TEST(test_cut_off),
                                       REDUCING_TEST(test_orders),
                                       REDUCING_TEST(test_cut_off_at_the_end),
                                       REDUCING_TEST(test_without_memory),
                                       REDUCING_TEST(test_names_that_are_taken),
                                       REDUCING_TEST(test_rows_without_number)};
    return REDUCING_MAIN(tests);
}
