/* test_links: links of random namespaces against plain loops over all pairs of rows, for any number of threads, shards and bytes of memory; runs
 * that are cancelled, without memory or room, and gone on with; what is malformed, long or not a context at all. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <math.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "cheetah/scan.h"
#include "reduce/links.h"
#include "support/reducing.h"

enum { ROWS = 192, FEW = 48, TOKENS = 40, TERMS = 64 };

struct row {
    char name[40];
    uint8_t payload[8 + 8 * TERMS];
    size_t size;
    bool malformed, dangling;
    uint64_t count[TOKENS];
    bool has[TOKENS];
};

static struct row rows[ROWS];
static unsigned row_count;

static void add_term(struct row *x, uint32_t *n, unsigned token, uint32_t count)
{
    uint8_t *p = x->payload + 4 + 8 * (size_t)(*n)++;
    reduce_payload_put32(p, token * UINT32_C(7919));
    reduce_payload_put32(p + 4, count);
    x->count[token] += count;
    x->has[token] = true;
}

/* kind 0: anything; 1: all alike; 2: nothing shared; 3: one token in all */
static void make_row(struct row *x, struct cht_rng *r, unsigned i, unsigned kind)
{
    uint32_t n = 0, terms = (uint32_t)cht_rng_below(r, 9);
    memset(x, 0, sizeof *x);
    (void)snprintf(x->name, sizeof x->name, "%s%02llx%s",
                   i % 3 == 2 ? "b:" : "a:", (unsigned long long)cht_rng_below(r, 256),
                   i % 5 == 1 ? "\x01long name" : "");
    x->payload[0] = 1;
    x->payload[1] = 2;
    if (kind == 1)
        add_term(x, &n, 3, 2);
    if (kind == 3)
        add_term(x, &n, 5, 1 + (uint32_t)cht_rng_below(r, 3));
    for (uint32_t k = 0; kind != 1 && k < terms; k++) {
        unsigned token = kind == 2 ? i % TOKENS : (unsigned)cht_rng_below(r, 1 + cht_rng_below(r, TOKENS));
        add_term(x, &n, token, cht_rng_below(r, 20) == 0 ? UINT32_MAX : (uint32_t)cht_rng_below(r, 4));
    }
    reduce_payload_put16(x->payload + 2, (uint16_t)n);
    x->size = 4 + 8 * (size_t)n;
    x->dangling = cht_rng_below(r, 30) == 0;
    x->malformed = !x->dangling && cht_rng_below(r, 30) == 0;
    if (x->malformed)
        x->size--;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct row *)a)->name, ((const struct row *)b)->name);
}

static void make_some(struct cht_rng *r, unsigned n, unsigned kind)
{
    for (unsigned i = 0; i < n; i++)
        make_row(&rows[i], r, i, kind);
    qsort(rows, n, sizeof *rows, by_name);
    row_count = 0;
    for (unsigned i = 0; i < n; i++) {
        if (row_count == 0 || strcmp(rows[row_count - 1].name, rows[i].name) != 0)
            rows[row_count++] = rows[i];
    }
}

static void make_rows(struct cht_rng *r)
{
    unsigned kind = (unsigned)cht_rng_below(r, 6), n = (unsigned)cht_rng_below(r, FEW);
    make_some(r, cht_rng_below(r, 8) == 0 ? n % 3 : n, kind);
}

static void clear(void)
{
    struct cht_op op = {.kind = CHT_OP_PREFIX_DEL, .with_values = true};
    assert_int_equal(run_op(&op), CHT_OK);
}

static void store_rows(unsigned shards)
{
    struct cht_op ops[ROWS];
    for (unsigned i = 0; i < row_count; i++) {
        ops[i] = (struct cht_op){
            .kind = CHT_OP_PAIR_PUT, .name = str(rows[i].name), .value = {rows[i].payload, rows[i].size}};
        if (rows[i].dangling)
            ops[i] = (struct cht_op){.kind = CHT_OP_PAIR_SET, .name = str(rows[i].name), .key = 99999999};
    }
    if (row_count > 0)
        run_ops(ops, row_count, shards);
}

/* ---- plain all with all ------------------------------------------------------------------------------------------- */

static bool starts(const char *name, struct cht_str prefix)
{
    return strlen(name) >= prefix.n && memcmp(name, prefix.p, prefix.n) == 0;
}

static bool is_row(const struct row *x) { return !x->malformed && !x->dangling; }

struct weights {
    double w[TOKENS], square;
};

/* As README.md of src/reduce defines them. */
static void weigh(const struct reduce_links_config *cfg, struct cht_str to, const struct row *x,
                  struct weights *out)
{
    double all = 0, row = 0, token[TOKENS] = {0};
    *out = (struct weights){.square = 0};
    for (unsigned i = 0; i < row_count; i++) {
        if (!is_row(&rows[i]) || !(starts(rows[i].name, cfg->prefix) || starts(rows[i].name, to)))
            continue;
        for (unsigned k = 0; k < TOKENS; k++) {
            token[k] += (double)rows[i].count[k];
            all += (double)rows[i].count[k];
        }
    }
    for (unsigned k = 0; k < TOKENS; k++)
        row += (double)x->count[k];
    for (unsigned k = 0; k < TOKENS; k++) {
        double pmi = x->count[k] > 0 ? log2((double)x->count[k] * all / (row * token[k])) : 0;
        out->w[k] = cfg->metric == REDUCE_COSINE    ? (double)x->count[k]
                    : cfg->metric == REDUCE_JACCARD ? (x->has[k] ? 1.0 : 0.0)
                    : pmi > 0                       ? pmi
                                                    : 0.0;
        out->square += out->w[k] * out->w[k];
    }
}

static float score(const struct reduce_links_config *cfg, const struct weights *a, const struct weights *b)
{
    double dot = 0;
    for (unsigned k = 0; k < TOKENS; k++)
        dot += a->w[k] * b->w[k];
    if (dot <= 0)
        return 0;
    double s = cfg->metric == REDUCE_JACCARD ? dot / (a->square + b->square - dot)
                                             : dot / sqrt(a->square * b->square);
    return (float)(s < 1 ? s : 1);
}

struct ranked {
    float score;
    const char *name;
};

static int best_first(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score) - (x->score > y->score) : strcmp(x->name, y->name);
}

static size_t want(const struct reduce_links_config *cfg, struct cht_str to, const struct row *x,
                   uint8_t *out)
{
    struct ranked all[ROWS];
    struct weights a, b;
    size_t n = 0, at = 3;
    weigh(cfg, to, x, &a);
    for (unsigned i = 0; i < row_count; i++) {
        if (&rows[i] == x || !is_row(&rows[i]) || !starts(rows[i].name, to))
            continue;
        weigh(cfg, to, &rows[i], &b);
        float s = score(cfg, &a, &b);
        if (s > 0 && s >= (float)cfg->min)
            all[n++] = (struct ranked){s, rows[i].name};
    }
    qsort(all, n, sizeof *all, best_first);
    n = n < cfg->k ? n : cfg->k;
    out[0] = 1;
    reduce_payload_put16(out + 1, (uint16_t)n);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(all[i].name);
        uint32_t bits;
        memcpy(&bits, &all[i].score, sizeof bits);
        reduce_payload_put16(out + at, (uint16_t)len);
        memcpy(out + at + 2, all[i].name, len);
        reduce_payload_put32(out + at + 2 + len, bits);
        at += 6 + len;
    }
    return at;
}

/* The links are as they should be; alone: nothing else is left of any run. */
static void check_links(const struct reduce_links_config *cfg, bool alone)
{
    struct cht_str to = cfg->has_to ? cfg->to : cfg->prefix;
    uint64_t pairs, wanted = 0;
    struct cht_buf got = {0};
    uint8_t expected[3 + ROWS * 64];
    for (unsigned i = 0; i < row_count; i++) {
        char name[80];
        uint64_t key;
        uint32_t size = 0;
        if (!is_row(&rows[i]) || !starts(rows[i].name, cfg->prefix))
            continue;
        (void)snprintf(name, sizeof name, "link:%s:%s", reduce_links_metric_name(cfg->metric), rows[i].name);
        assert_int_equal(cht_store_pair_value(red.s, str(name), &key, &got, &size, &red.err), CHT_OK);
        size_t n = want(cfg, to, &rows[i], expected);
        if (n != size || memcmp(got.data, expected, n) != 0)
            (void)fprintf(stderr, "%s k %u min %g of %u rows\n", name, cfg->k, cfg->min, row_count);
        assert_int_equal(size, n);
        assert_memory_equal(got.data, expected, n);
        wanted++;
    }
    cht_buf_free(&got);
    assert_int_equal(cht_store_count(red.s, str("link:"), &pairs, &red.err), CHT_OK);
    assert_int_equal(pairs, wanted);
    assert_int_equal(cht_store_count(red.s, str("link"), &pairs, &red.err), CHT_OK);
    assert_true(!alone || pairs == wanted);
}

static uint64_t malformed_under(const struct reduce_links_config *cfg)
{
    struct cht_str to = cfg->has_to ? cfg->to : cfg->prefix;
    uint64_t n = 0;
    for (unsigned i = 0; i < row_count; i++)
        n += rows[i].malformed && (starts(rows[i].name, cfg->prefix) || starts(rows[i].name, to));
    return n;
}

static struct reduce_links_config random_config(struct cht_rng *r)
{
    static const char *const prefixes[] = {"a:", "b:", "", "a:7"};
    static const double mins[] = {0, 0.1, 0.5, 0.70710678, 1};
    return (struct reduce_links_config){.prefix = str(prefixes[cht_rng_below(r, 4)]),
                                        .to = str(prefixes[cht_rng_below(r, 4)]),
                                        .has_to = cht_rng_below(r, 2) == 0,
                                        .metric = (enum reduce_metric)cht_rng_below(r, 3),
                                        .k =
                                            1 + (unsigned)cht_rng_below(r, cht_rng_below(r, 2) == 0 ? 3 : 40),
                                        .min = mins[cht_rng_below(r, 5)],
                                        .threads = 1 + (unsigned)cht_rng_below(r, 3)};
}

static bool long_test(void) { return getenv("CHT_TEST_LONG") != NULL; }

static void test_random(void **state)
{
    (void)state;
    static const unsigned shards[] = {1, 3, 8};
    struct cht_rng r;
    struct reduce_links_result result;
    unsigned rounds = long_test() ? 4000 : 680;
    cht_rng_seed(&r, 20261128);
    for (unsigned d = 0; d < 3; d++) {
        char name[16];
        (void)snprintf(name, sizeof name, "links%u", shards[d]);
        reducing_database(name, shards[d]);
        for (unsigned i = 0; i < rounds; i++) {
            make_rows(&r);
            clear();
            store_rows(shards[d]);
            struct reduce_links_config cfg = random_config(&r);
            /* so little that one side, or both, are taken block after block; too little is an error, and nothing is changed */
            cfg.memory_max = cht_rng_below(&r, 2) == 0 ? 0 : 45000 + cht_rng_below(&r, 60000);
            enum cht_rc rc = reduce_links_run(red.s, &cfg, &result, &red.err);
            if (rc == CHT_NO_MEMORY && cfg.memory_max > 0) {
                cfg.memory_max = 0;
                rc = reduce_links_run(red.s, &cfg, &result, &red.err);
            }
            assert_int_equal(rc, CHT_OK);
            assert_int_equal(result.malformed, malformed_under(&cfg));
            check_links(&cfg, true);
        }
    }
}

/* So many rows that the columns of frequent tokens are gone through in several steps, with floors that rise on the way. */
static void test_more_rows(void **state)
{
    (void)state;
    static const double mins[] = {0, 0.3};
    struct cht_rng r;
    struct reduce_links_result result;
    cht_rng_seed(&r, 5);
    for (unsigned i = 0; i < 6; i++) {
        struct reduce_links_config cfg = {.prefix = str(""),
                                          .k = 1 + i * 3,
                                          .min = mins[i / 3],
                                          .metric = (enum reduce_metric)(i % 3),
                                          .threads = 2};
        make_some(&r, ROWS, 5);
        assert_true(row_count > 100);
        clear();
        store_rows(4);
        assert_int_equal(reduce_links_run(red.s, &cfg, &result, &red.err), CHT_OK);
        assert_true(result.pruned > row_count); /* not only each with itself */
        check_links(&cfg, true);
    }
}

static void fixed_rows(uint64_t seed)
{
    struct cht_rng r;
    cht_rng_seed(&r, seed);
    do
        make_rows(&r);
    while (row_count < 30);
    clear();
    store_rows(4);
}

/* Whatever cannot be allocated: the old links are all there, or the new ones; and the run can be done afterwards. */
static void test_without_memory(void **state)
{
    (void)state;
    struct reduce_links_config old = {.prefix = str("a:"), .k = 2, .threads = 2}, next = old;
    struct reduce_links_result result;
    unsigned failed = 0, n = 1, step = long_test() ? 1 : 3;
    next.k = 7;
    fixed_rows(7);
    assert_int_equal(reduce_links_run(red.s, &old, &result, &red.err), CHT_OK);
    for (;; n += step) {
        memset(&red.err, 0, sizeof red.err);
        cht_alloc_fail_at(n, false);
        enum cht_rc rc = reduce_links_run(red.s, &next, &result, &red.err);
        bool injected = cht_alloc_failures() > 0;
        cht_alloc_fail_at(0, false);
        if (rc != CHT_OK) {
            if (!injected || rc != CHT_NO_MEMORY)
                (void)fprintf(stderr, "allocation %u: %s: %s\n", n, cht_rc_slug(rc), red.err.msg);
            assert_true(injected && rc == CHT_NO_MEMORY && red.err.msg[0] != 0);
            failed++;
        }
        check_links(rc == CHT_OK ? &next : &old, rc == CHT_OK);
        if (!injected)
            break;
        if (rc == CHT_OK)
            assert_int_equal(reduce_links_run(red.s, &old, &result, &red.err), CHT_OK);
    }
    assert_true(failed > 5);
}

/* Cancels at the n-th word that the run says. */
struct canceller {
    unsigned at, heard;
    _Atomic bool cancel;
};

static void hear(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    struct canceller *c = ctx;
    (void)phase, (void)done, (void)total;
    if (++c->heard == c->at)
        atomic_store(&c->cancel, true);
}

/* A namespace of several blocks, cut off after each of its commits: it goes on from there, if nothing was changed. */
static void test_cut_off(void **state)
{
    (void)state;
    enum { MANY = 9000 };
    struct reduce_links_config cfg = {.prefix = str("cnt:"), .k = 3, .min = 0.5, .threads = 2};
    struct reduce_links_result result;
    uint64_t pairs;
    fill_counts("cnt:", MANY, 1);
    for (unsigned i = 0; i < 3; i++) { /* before the first block, after it, after the next */
        struct canceller c = {.at = i == 0 ? 2 : 3};
        cfg.say = hear;
        cfg.say_ctx = &c;
        cfg.cancel = &c.cancel;
        assert_int_equal(reduce_links_run(red.s, &cfg, &result, &red.err), CHT_CANCELLED);
        assert_int_equal(cht_store_count(red.s, str("linking:"), &pairs, &red.err), CHT_OK);
        assert_int_equal(pairs, i * 4096);
        assert_int_equal(result.resumed, i < 2 ? 0 : 4096);
        assert_int_equal(cht_store_count(red.s, str("link:"), &pairs, &red.err), CHT_OK);
        assert_int_equal(pairs, 0);
    }
    cfg.say = NULL;
    cfg.cancel = NULL;
    assert_int_equal(reduce_links_run(red.s, &cfg, &result, &red.err), CHT_OK);
    assert_int_equal(result.resumed, 8192);
    assert_int_equal(result.contexts, MANY);
    assert_int_equal(cht_store_count(red.s, str("link"), &pairs, &red.err), CHT_OK);
    assert_int_equal(pairs, MANY);
    struct canceller c = {.at = 3};
    cfg.say = hear;
    cfg.say_ctx = &c;
    cfg.cancel = &c.cancel;
    assert_int_equal(reduce_links_run(red.s, &cfg, &result, &red.err), CHT_CANCELLED);
    put("cnt:zz", "\1\1\0\1\0\0\0\1\0\0\0\1", 12);
    cfg.say = NULL;
    cfg.cancel = NULL;
    assert_int_equal(reduce_links_run(red.s, &cfg, &result, &red.err), CHT_OK);
    assert_int_equal(result.resumed, 0);
    assert_int_equal(result.contexts, MANY + 1);
}

static void expect_stored(const char *name, const char *value)
{
    struct cht_buf got = {0};
    uint64_t key;
    uint32_t size = 0;
    assert_int_equal(cht_store_pair_value(red.s, str(name), &key, &got, &size, &red.err), CHT_OK);
    assert_int_equal(size, strlen(value));
    assert_memory_equal(got.data, value, size);
    cht_buf_free(&got);
}

/* Pairs that somebody keeps under our names: nothing is deleted, neither they nor the values that they lead to, until they are gone. */
static void test_names_that_are_taken(void **state)
{
    (void)state;
    static const char *const names[] = {"link:cosine:a:mine", "linking:cosine:a:mine", "linkrun:cosine"};
    struct reduce_links_config cfg = {.prefix = str("a:"), .k = 3, .threads = 1};
    struct reduce_links_result result;
    uint64_t key, pairs;
    fixed_rows(11);
    key = put("mine", "my value", 8);
    for (unsigned i = 0; i < 3; i++) {
        struct cht_op op = {.kind = CHT_OP_PAIR_SET, .name = str(names[i]), .key = key};
        assert_int_equal(run_op(&op), CHT_OK);
        assert_int_equal(reduce_links_run(red.s, &cfg, &result, &red.err), CHT_NAMES_TAKEN);
        assert_non_null(strstr(red.err.msg, names[i]));
        expect_stored(names[i], "my value");
        expect_stored("mine", "my value");
        assert_int_equal(cht_store_count(red.s, str("link"), &pairs, &red.err), CHT_OK);
        assert_int_equal(pairs, 1);
        op = (struct cht_op){.kind = CHT_OP_PAIR_SET, .name = str(names[i]), .key = 88888888};
        assert_int_equal(run_op(&op), CHT_OK);
        assert_int_equal(reduce_links_run(red.s, &cfg, &result, &red.err), CHT_NAMES_TAKEN); /* no value */
        op = (struct cht_op){.kind = CHT_OP_PAIR_DEL, .name = str(names[i])};
        assert_int_equal(run_op(&op), CHT_OK);
    }
    put("link:cosine:b:mine", "mine", 4); /* what is not under the prefix is let alone */
    put("link:pmi:a:mine", "mine", 4);
    assert_int_equal(reduce_links_run(red.s, &cfg, &result, &red.err), CHT_OK);
    assert_int_equal(reduce_links_run(red.s, &cfg, &result, &red.err),
                     CHT_OK); /* and our own are no strangers */
    expect_stored("link:cosine:b:mine", "mine");
    expect_stored("link:pmi:a:mine", "mine");
}

/* What a run that was cut off has found was deleted meanwhile: it begins anew. */
static void test_results_that_are_gone(void **state)
{
    (void)state;
    enum { MANY = 4200 };
    struct canceller c = {.at = 3};
    struct reduce_links_config cfg = {.prefix = str("cnt:"),
                                      .k = 1,
                                      .min = 0.5,
                                      .threads = 2,
                                      .say = hear,
                                      .say_ctx = &c,
                                      .cancel = &c.cancel};
    struct reduce_links_result result;
    uint64_t pairs;
    fill_counts("cnt:", MANY, 1);
    assert_int_equal(reduce_links_run(red.s, &cfg, &result, &red.err), CHT_CANCELLED);
    struct cht_op op = {
        .kind = CHT_OP_PAIR_DEL, .name = str("linking:cosine:cnt:0000007"), .with_values = true};
    assert_int_equal(run_op(&op), CHT_OK);
    cfg.say = NULL;
    cfg.cancel = NULL;
    assert_int_equal(reduce_links_run(red.s, &cfg, &result, &red.err), CHT_OK);
    assert_int_equal(result.resumed, 0);
    assert_int_equal(cht_store_count(red.s, str("link:cosine:cnt:"), &pairs, &red.err), CHT_OK);
    assert_int_equal(pairs, MANY);
}

/* Cancels when memory is asked for after all results are there: that is for their names. */
struct at_the_end {
    unsigned contexts;
    _Atomic bool cancel;
};

static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *err)
{
    struct at_the_end *c = ctx;
    uint64_t pairs = 0;
    (void)bytes;
    if (cht_store_count(red.s, str("linking:"), &pairs, err) == CHT_OK && pairs == c->contexts)
        atomic_store(&c->cancel, true);
    return CHT_OK;
}

static void unbook(void *ctx, uint64_t bytes) { (void)ctx, (void)bytes; }

static uint64_t pairs_under(const char *prefix)
{
    uint64_t pairs = 0;
    assert_int_equal(cht_store_count(red.s, str(prefix), &pairs, &red.err), CHT_OK);
    return pairs;
}

static enum cht_rc read_list(const char *name)
{
    struct cht_buf got = {0};
    uint32_t size = 0;
    enum cht_rc rc = reduce_links_read(red.s, str(name), &got, &size, &red.err);
    assert_true(rc != CHT_OK || (size >= 3 && got.data[0] == 1));
    cht_buf_free(&got);
    return rc;
}

/* More links than one commit has room for: cut off between two, all of the new ones are read, none of the old ones, and the next run brings it to its
 * end, the same one with nothing done again, any other before it begins. */
static void test_switch_in_parts(void **state)
{
    (void)state;
    enum { MANY = 4000 };
    struct at_the_end end = {.contexts = MANY};
    struct reduce_links_config cfg = {.prefix = str("cnt:"),
                                      .k = 2,
                                      .threads = 1,
                                      .memory_max = 300 << 10,
                                      .book = book,
                                      .unbook = unbook,
                                      .book_ctx = &end,
                                      .cancel = &end.cancel};
    struct reduce_links_result result;
    fill_counts("cnt:", MANY, 1);
    for (unsigned i = 0; i < 2; i++) {
        struct reduce_links_config next = {.prefix = str("cnt:"), .k = 2 + i, .threads = 1};
        put("link:cosine:cnt:old", "\1\0\0", 3);
        atomic_store(&end.cancel, false);
        assert_int_equal(reduce_links_run(red.s, &cfg, &result, &red.err), CHT_CANCELLED);
        assert_int_equal(pairs_under("linking:"), MANY);
        assert_in_range(pairs_under("link:"), 1, MANY - 1);
        assert_int_equal(read_list("link:cosine:cnt:0000000"), CHT_OK);
        assert_int_equal(read_list("link:cosine:cnt:0003999"), CHT_OK); /* has no name yet */
        assert_int_equal(read_list("link:cosine:cnt:old"), CHT_PAIR_NOT_FOUND);
        assert_int_equal(read_list("link:pmi:cnt:0003999"), CHT_PAIR_NOT_FOUND);
        assert_int_equal(reduce_links_run(red.s, &next, &result, &red.err), CHT_OK);
        assert_int_equal(result.resumed, i == 0 ? MANY : 0);
        assert_int_equal(result.contexts, MANY);
        assert_int_equal(pairs_under("link:"), MANY);
        assert_int_equal(pairs_under("link"), MANY);
    }
    cfg.cancel = NULL;
    assert_int_equal(reduce_links_run(red.s, &cfg, &result, &red.err), CHT_OK);
    assert_int_equal(pairs_under("link"), MANY);
}

static void test_wrong(void **state)
{
    (void)state;
    struct reduce_links_config good = {.prefix = str("a:"), .k = 3}, bad = good;
    struct reduce_links_result result;
    char name[CHT_NAME_MAX + 1];
    bad.k = 0;
    assert_int_equal(reduce_links_run(red.s, &bad, &result, &red.err), CHT_INVALID_ARGUMENT);
    bad.k = REDUCE_LINKS_K_MAX + 1;
    assert_int_equal(reduce_links_run(red.s, &bad, &result, &red.err), CHT_INVALID_ARGUMENT);
    bad = good;
    bad.min = NAN;
    assert_int_equal(reduce_links_run(red.s, &bad, &result, &red.err), CHT_INVALID_ARGUMENT);
    memset(name, 'a', sizeof name - 1);
    name[1] = ':';
    name[CHT_NAME_MAX] = 0;
    bad = good;
    bad.prefix = str(name);
    assert_int_equal(reduce_links_run(red.s, &bad, &result, &red.err), CHT_INVALID_ARGUMENT);
    static const char one[] = "\1\1\0\1\0\0\0\1\0\0\0\1";
    put(name, one, 12);
    name[CHT_NAME_MAX - REDUCE_LINKS_NAME_EXTRA] = 0;
    put(name, one, 12);
    put("a:b", one, 12);
    assert_int_equal(reduce_links_run(red.s, &good, &result, &red.err), CHT_OK);
    assert_int_equal(result.too_long, 1);
    assert_int_equal(result.contexts, 2);
    assert_int_equal(result.links, 2);
    good.memory_max = 1000;
    assert_int_equal(reduce_links_run(red.s, &good, &result, &red.err), CHT_NO_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {REDUCING_TEST(test_random),
                                       REDUCING_TEST(test_more_rows),
                                       REDUCING_TEST(test_without_memory),
                                       REDUCING_TEST(test_cut_off),
                                       REDUCING_TEST(test_names_that_are_taken),
                                       REDUCING_TEST(test_results_that_are_gone),
                                       REDUCING_TEST(test_switch_in_parts),
                                       REDUCING_TEST(test_wrong)};
    return REDUCING_MAIN(tests);
}
