/* test_linked: predictions that are mixed with those of related contexts (lm/linked.h), without memory at any allocation, and with little of it: an
 * error or the whole answer, and what was booked is given back. What the numbers are: tests/http/test_linked.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <math.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "lm/linked.h"
#include "support/reducing.h"

enum { TOKENS = 300 };

static void put_probs(unsigned order, const char *suffix, unsigned n, unsigned step, uint16_t alpha)
{
    uint8_t v[4 + 7 * TOKENS], name[32] = "prob:0:";
    name[5] = (uint8_t)('0' + order);
    memcpy(name + 7, suffix, 8);
    size_t at = reduce_payload_begin(v, order, n);
    for (unsigned i = 0; i < n; i++, at += 7) {
        reduce_payload_put32(v + at, 10 + i * step);
        v[at + 4] = (uint8_t)(200 + i % 50);
        reduce_payload_put16(v + at + 5, alpha);
    }
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = {name, 15}, .value = {v, at}};
    assert_int_equal(run_op(&op), CHT_OK);
}

static void put_context(const char *suffix, uint32_t token)
{
    uint8_t name[12] = "ctx:", v[7] = {1, 1, 1};
    memcpy(name + 4, suffix, 8);
    reduce_payload_put32(v + 3, token);
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = {name, 12}, .value = {v, 7}};
    assert_int_equal(run_op(&op), CHT_OK);
}

/* link:cosine:cnt:2:<from>, to <to> with the weight 0.5 */
static void put_link(const char *from, const char *to)
{
    uint8_t name[32] = "link:cosine:cnt:2:", v[64] = {1, 0, 1, 0, 14, 'c', 'n', 't', ':', '2', ':'};
    memcpy(name + 18, from, 8);
    memcpy(v + 11, to, 8);
    reduce_payload_put32(v + 19, 0x3F000000);
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = {name, 26}, .value = {v, 23}};
    assert_int_equal(run_op(&op), CHT_OK);
}

/* Two contexts of one token, 5 and 6, linked with each other. */
static void make_model(void)
{
    char five[9] = {0}, six[9] = {0};
    uint32_t token = 5;
    lm_context_name(&token, 1, (uint8_t *)five);
    token = 6;
    lm_context_name(&token, 1, (uint8_t *)six);
    put_probs(1, LM_ROOT, TOKENS, 1, 1000);
    put_probs(2, five, 7, 3, 300);
    put_probs(2, six, 90, 2, 100);
    put_context(five, 5);
    put_context(six, 6);
    put_link(five, six);
    put_link(six, five);
}

struct heard {
    unsigned answers, linked;
    size_t count;
    double sum, best;
};

static void hear(void *ctx, const struct lm_linked_answer *a)
{
    struct heard *h = ctx;
    h->answers++;
    h->linked = a->linked;
    h->count = a->count;
    h->sum = 0.0;
    h->best = a->count > 0 ? a->candidates[0].p : 0.0;
    for (size_t i = 0; i < a->count; i++)
        h->sum += a->candidates[i].p;
}

static uint64_t booked, most_booked, bound;

static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *err)
{
    (void)ctx;
    if (booked + bytes > bound)
        return CHT_FAIL(err, CHT_REQUEST_TOO_LARGE, "too much");
    booked += bytes;
    most_booked = booked > most_booked ? booked : most_booked;
    return CHT_OK;
}

static void unbook(void *ctx, uint64_t bytes)
{
    (void)ctx;
    assert_true(bytes <= booked);
    booked -= bytes;
}

static void forget(void *ctx) { memset(ctx, 0, sizeof(struct heard)); }

static enum cht_rc ask(enum lm_predict_mode mode, struct heard *h)
{
    static const uint32_t tokens[] = {5};
    const struct lm_linked_query q = {.tokens = tokens,
                                      .n = 1,
                                      .k = 1000,
                                      .mode = mode,
                                      .weight = 0.5,
                                      .metric = -1,
                                      .seldom = UINT64_MAX,
                                      .book = book,
                                      .unbook = unbook,
                                      .again = forget};
    *h = (struct heard){0};
    booked = most_booked = 0;
    memset(&red.err, 0, sizeof red.err);
    enum cht_rc rc = lm_linked(red.s, &q, hear, h, &red.err);
    assert_int_equal(booked, 0);
    return rc;
}

static void expect(enum lm_predict_mode mode, const struct heard *h)
{
    assert_int_equal(h->answers, 1);
    assert_int_equal(h->linked, 1);
    assert_int_equal(h->count, mode == LM_PREDICT_BLEND ? TOKENS : 7 + 90 - 4);
    assert_true(fabs(h->sum - 1.0) < 1e-9);
}

static void test_whatever_cannot_be_allocated(void **state)
{
    (void)state;
    static const enum lm_predict_mode modes[] = {LM_PREDICT_DEEPEST, LM_PREDICT_BLEND};
    make_model();
    bound = UINT64_MAX;
    for (unsigned m = 0; m < 2; m++) {
        struct heard h, whole;
        unsigned failed = 0;
        assert_int_equal(ask(modes[m], &whole), CHT_OK);
        expect(modes[m], &whole);
        for (unsigned n = 1;; n++) {
            cht_alloc_fail_at(n, false);
            enum cht_rc rc = ask(modes[m], &h);
            bool injected = cht_alloc_failures() > 0;
            cht_alloc_fail_at(0, false);
            if (rc == CHT_OK) {
                assert_memory_equal(&h, &whole, sizeof h);
            } else {
                assert_true(injected && rc == CHT_NO_MEMORY && red.err.msg[0] != 0);
                assert_int_equal(h.answers, 0);
                failed++;
            }
            if (!injected)
                break;
        }
        assert_true(failed > 5);
    }
}

static void test_little_may_be_booked(void **state)
{
    (void)state;
    struct heard h;
    make_model();
    bound = UINT64_MAX;
    assert_int_equal(ask(LM_PREDICT_BLEND, &h), CHT_OK);
    uint64_t needed = most_booked;
    assert_true(needed >= 3 * TOKENS * 16 && needed < 16 * TOKENS * 16);
    for (bound = 0; bound < needed; bound += 501) {
        assert_int_equal(ask(LM_PREDICT_BLEND, &h), CHT_REQUEST_TOO_LARGE);
        assert_int_equal(h.answers, 0);
    }
    bound = needed;
    assert_int_equal(ask(LM_PREDICT_BLEND, &h), CHT_OK);
    expect(LM_PREDICT_BLEND, &h);
}

static void test_weights(void **state)
{
    (void)state;
    struct lm_linked_query q = {.metric = -1, .seldom = UINT64_MAX, .again = forget, .weight = NAN};
    struct heard h = {0};
    assert_int_equal(lm_linked(red.s, &q, hear, &h, &red.err), CHT_INVALID_ARGUMENT);
    q.weight = 1.5;
    assert_int_equal(lm_linked(red.s, &q, hear, &h, &red.err), CHT_INVALID_ARGUMENT);
    q.weight = 1.0;
    assert_int_equal(lm_linked(red.s, &q, hear, &h, &red.err), CHT_NO_LINKS);
    assert_int_equal(h.answers, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {REDUCING_TEST(test_whatever_cannot_be_allocated),
                                       REDUCING_TEST(test_little_may_be_booked), REDUCING_TEST(test_weights)};
    return REDUCING_MAIN(tests);
}
