/* test_fm: models that are read in from text in ARPA format: what is taken and what is refused, in pieces of any size, with little memory, with
 * none, on a disk that fails and one that loses power; and questions to them against a plain model that backs off as the format says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <math.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "lm/fm_import.h"
#include "lm/kn_arpa.h"
#include "lm/kn_ask.h"
#include "lm/kn_setup.h"
#include "lm/ngrams.h"
#include "support/simdisk.h"

#define BOS 2u
#define EOS 3u
#define WORDS_MAX 40u

static struct simdisk *disk;
static struct cht_env *env;
static struct cht_store *s;
static struct lm_engine *engine;
static struct cht_err err;
static struct cht_rng rng;

static uint32_t below(uint32_t n) { return (uint32_t)cht_rng_below(&rng, n); }

static void must(enum cht_rc rc)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err.msg);
}

static struct cht_env_config config(struct simdisk *d, enum cht_durability how)
{
    static const char *const dirs[] = {"/data"};
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 1,
                                   .default_shards = 1,
                                   .durability = how,
                                   .log_segment_bytes = 1 << 20,
                                   .manual_checkpoint = true,
                                   .io = simdisk_io(d)};
}

static enum cht_rc start(struct simdisk *d, enum cht_durability how)
{
    struct cht_env_config cfg = config(d, how);
    enum cht_rc rc = cht_env_open(&cfg, &env, &err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_env_create(env, "default", 0, &err);
    rc = rc == CHT_DATABASE_EXISTS ? CHT_OK : rc;
    if (rc == CHT_OK)
        rc = cht_env_get(env, "default", &s, &err);
    if (rc == CHT_OK)
        rc = lm_engine_new(&engine, &err);
    if (rc != CHT_OK)
        cht_env_abandon(env);
    return rc;
}

static void stop(void)
{
    lm_engine_free(engine);
    cht_env_abandon(env);
}

static int setup(void **state)
{
    const char *seed = getenv("CHT_TEST_SEED");
    (void)state;
    memset(&err, 0, sizeof err);
    cht_rng_seed(&rng, seed != NULL ? strtoull(seed, NULL, 0) : 20261128);
    disk = simdisk_new();
    simdisk_forget(disk);
    return start(disk, CHT_DURABLE_OS) != CHT_OK;
}

static int teardown(void **state)
{
    (void)state;
    stop();
    simdisk_free(disk);
    return 0;
}

static void empty(void)
{
    struct cht_op op = {.kind = CHT_OP_PREFIX_DEL, .with_values = true, .name = {(const uint8_t *)"", 0}};
    struct cht_commit c = {.ops = &op, .count = 1};
    must(cht_store_commit(s, &c));
}

static uint64_t pairs_left(void)
{
    uint64_t n;
    must(cht_store_count(s, (struct cht_str){(const uint8_t *)"", 0}, &n, &err));
    return n;
}

/* ---- texts --------------------------------------------------------------------------------------------------------- */

struct text {
    char *p;
    size_t n, cap;
};

static void put(struct text *t, const char *fmt, ...)
{
    va_list ap;
    if (t->cap - t->n < 6000) {
        t->cap = t->cap * 2 + 12000;
        t->p = realloc(t->p, t->cap);
        assert_non_null(t->p);
    }
    va_start(ap, fmt);
    t->n += (size_t)vsnprintf(t->p + t->n, t->cap - t->n, fmt, ap);
    va_end(ap);
}

/* Refused once so many bytes have been asked for. */
struct bound {
    uint64_t left;
};

static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *e)
{
    struct bound *b = ctx;
    if (bytes > b->left)
        return CHT_FAIL(e, CHT_REQUEST_TOO_LARGE, "no more");
    b->left -= bytes;
    return CHT_OK;
}

/* Reads a text in, in pieces of 1 to `most` bytes; what fails is taken away again. */
static enum cht_rc read_in(const struct text *t, size_t most, uint64_t memory, bool unmarked)
{
    struct bound b = {memory};
    struct lm_fm_parameters p = {.bos = BOS, .eos = EOS, .unk = LM_FM_NO_ID, .unmarked = unmarked};
    struct lm_fm_import *i;
    p.book = memory > 0 ? book : NULL;
    p.ctx = &b;
    enum cht_rc rc = lm_fm_import_begin(engine, s, &p, &i, &err);
    if (rc != CHT_OK)
        return rc;
    for (size_t at = 0, n; at < t->n && rc == CHT_OK; at += n) {
        n = most < t->n ? 1 + below((uint32_t)most) : t->n;
        n = n < t->n - at ? n : t->n - at;
        rc = lm_fm_import_feed(i, s, t->p + at, n, &err);
    }
    if (rc == CHT_OK)
        rc = lm_fm_import_end(i, s, &err);
    uint64_t id = lm_fm_import_id(i);
    lm_fm_import_free(i);
    struct cht_err other = {0};
    if (rc != CHT_OK)
        (void)lm_fm_drop(engine, s, id, &other);
    return rc;
}

static bool collect(void *ctx, const char *p, size_t n)
{
    for (size_t at = 0; at < n; at += 4000)
        put(ctx, "%.*s", (int)(n - at < 4000 ? n - at : 4000), p + at);
    return true;
}

static struct text write_out(void)
{
    struct text t = {0};
    must(lm_kn_arpa_write(engine, s, false, NULL, collect, &t, &err));
    return t;
}

static void same_text(const struct text *a, const struct text *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->p, b->p, a->n);
}

/* ---- the plain model ------------------------------------------------------------------------------------------------ */

struct gram {
    uint32_t t[LM_ORDER_MAX], n;
    double p, backoff;
};
struct plain {
    struct gram *g;
    size_t n;
    unsigned order;
    uint64_t count[LM_ORDER_MAX + 1];
};

static const struct gram *find(const struct plain *m, const uint32_t *t, uint32_t n)
{
    for (size_t i = 0; i < m->n; i++) {
        if (m->g[i].n == n && memcmp(m->g[i].t, t, n * sizeof *t) == 0)
            return &m->g[i];
    }
    return NULL;
}

/* Multiples of 1/8: sums of them are exact, and many are equal. */
static double eighths(uint32_t most) { return -(double)below(most) / 8; }

static void add(struct plain *m, const uint32_t *t, uint32_t n)
{
    if (find(m, t, n) != NULL)
        return;
    struct gram g = {.n = n, .p = eighths(60), .backoff = n < m->order ? 0.5 + eighths(20) : 0};
    if (below(30) == 0)
        g.p = -99;
    memcpy(g.t, t, n * sizeof *t);
    m->g[m->n++] = g;
    m->count[n]++;
}

/* <unk> is LM_FM_NO_ID, there or not; contexts of all n-grams are there, their suffixes perhaps not. */
static struct plain random_model(unsigned order, uint32_t words, unsigned many, bool unk)
{
    struct plain m = {.order = order, .g = calloc(many * (size_t)order + words + 3, sizeof *m.g)};
    uint32_t special[] = {BOS, EOS, LM_FM_NO_ID};
    for (unsigned i = 0; i < (unk ? 3u : 2u); i++)
        add(&m, &special[i], 1);
    for (uint32_t i = 0; i < words; i++) {
        uint32_t w = 10 + i * (words > 30 ? 40000u : 1u); /* over several pages, or in one */
        add(&m, &w, 1);
    }
    size_t from = 0, to = m.n;
    for (unsigned n = 2; n <= order; n++) {
        for (unsigned i = 0; i < many && to > from; i++) {
            struct gram c = m.g[from + below((uint32_t)(to - from))];
            c.t[n - 1] = m.g[below((uint32_t)m.count[1])].t[0];
            add(&m, c.t, n);
        }
        from = to;
        to = m.n;
    }
    return m;
}

static const char *word(uint32_t t, char out[16])
{
    (void)snprintf(out, 16, "%u", t);
    return t == BOS ? "<s>" : t == EOS ? "</s>" : t == LM_FM_NO_ID ? "<unk>" : out;
}

static void put_gram(struct text *t, const struct plain *m, const struct gram *g, bool loose)
{
    char w[16];
    put(t, loose ? "  %g" : "%g", g->p);
    for (uint32_t i = 0; i < g->n; i++)
        put(t, "%s%s", i == 0 ? "\t" : loose ? " \t  " : " ", word(g->t[i], w));
    if (g->n < m->order && !(loose && g->backoff == 0))
        put(t, "\t%g", g->backoff);
    put(t, loose ? " \t \r\n\n" : "\n");
}

/* As others write it: n-grams in any order, blanks and line ends as they like. */
static struct text as_text(const struct plain *m, bool loose)
{
    struct text t = {0};
    size_t *order = calloc(m->n + 1, sizeof *order);
    put(&t, loose ? "a comment\n\n\\data\\\r\n" : "\\data\\\n");
    for (unsigned n = 1; n <= m->order; n++)
        put(&t, loose ? " ngram %u = %llu\r\n\n" : "ngram %u=%llu\n", n, (unsigned long long)m->count[n]);
    for (unsigned n = 1; n <= m->order; n++) {
        size_t many = 0;
        put(&t, loose ? "\\%u-grams: \r\n" : "\n\\%u-grams:\n", n);
        for (size_t i = 0; i < m->n; i++) {
            if (m->g[i].n == n)
                order[many++] = i;
        }
        for (size_t i = many; loose && i > 1; i--) {
            size_t j = below((uint32_t)i), x = order[i - 1];
            order[i - 1] = order[j];
            order[j] = x;
        }
        for (size_t i = 0; i < many; i++)
            put_gram(&t, m, &m->g[order[i]], loose);
    }
    put(&t, loose ? "\\end\\\r\nmore" : "\n\\end\\\n");
    free(order);
    return t;
}

/* log10 p of the last of n tokens; t may have been mapped to <unk>. */
static double plain_p(const struct plain *m, const uint32_t *t, uint32_t n, unsigned *matched)
{
    const struct gram *g = n <= m->order ? find(m, t, n) : NULL;
    if (g != NULL || n == 0) {
        *matched = n;
        return g != NULL && g->p > -99 ? g->p : -1e9;
    }
    const struct gram *c = n > 1 ? find(m, t, n - 1) : NULL;
    return (c != NULL ? c->backoff : 0) + plain_p(m, t + 1, n - 1, matched);
}

static uint32_t mapped(const struct plain *m, uint32_t t) { return find(m, &t, 1) != NULL ? t : LM_FM_NO_ID; }

struct scores {
    double log10[WORDS_MAX];
    unsigned matched[WORDS_MAX], n;
};

static void note(void *ctx, const struct lm_kn_scored *t)
{
    struct scores *all = ctx;
    all->log10[all->n] = t->log10;
    all->matched[all->n++] = t->matched;
}

static void check_score(const struct plain *m, struct lm_kn_reader *r, const uint32_t *text, uint32_t n,
                        unsigned top)
{
    struct scores have = {0};
    struct lm_kn_score sum;
    uint32_t t[WORDS_MAX], oov = 0, scored = 0;
    const struct lm_kn_text_query q = {.tokens = text, .n = n, .bos = false, .max_order = top};
    must(lm_kn_score(r, &q, note, &have, &sum, &err));
    unsigned order = top == 0 || top > m->order ? m->order : top;
    for (uint32_t i = 0; i < n; i++)
        t[i] = mapped(m, text[i]);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t from = i + 1 > order ? i + 1 - order : 0;
        unsigned matched;
        if (text[i] == BOS)
            continue;
        for (uint32_t k = from; k < i; k++)
            from = text[k] == BOS ? k : from;
        double want = plain_p(m, t + from, i + 1 - from, &matched);
        bool known = t[i] != LM_FM_NO_ID;
        want = want > -99 ? want : -99;
        assert_true(fabs(have.log10[scored] - want) < 1e-9);
        assert_int_equal(have.matched[scored], known ? matched : 0);
        oov += !known;
        scored++;
    }
    assert_int_equal(sum.tokens, scored);
    assert_int_equal(sum.oov, oov);
}

struct ranked {
    uint32_t token;
    double p;
};

static int by_p(const void *x, const void *y)
{
    const struct ranked *a = x, *b = y;
    return a->p != b->p ? (a->p > b->p ? -1 : 1) : (a->token > b->token) - (a->token < b->token);
}

static void check_predict(const struct plain *m, struct lm_kn_reader *r, const uint32_t *text, uint32_t n,
                          unsigned top, uint32_t k)
{
    struct ranked want[WORDS_MAX + 4];
    struct lm_kn_prediction p;
    uint32_t t[WORDS_MAX + 1], count = 0, from = 0;
    bool later;
    unsigned matched, order = top == 0 || top > m->order ? m->order : top;
    const struct lm_kn_text_query q = {.tokens = text, .n = n, .max_order = top};
    must(lm_kn_predict(r, &q, k, &p, &later, &err));
    assert_false(later);
    from = n + 1 > order ? n + 1 - order : 0;
    for (uint32_t i = 0; i < n; i++) {
        from = i >= from && text[i] == BOS ? i : from;
        t[i] = mapped(m, text[i]);
    }
    for (size_t i = 0; i < m->n && m->g[i].n == 1; i++) {
        t[n] = m->g[i].t[0];
        if (t[n] == BOS || t[n] == LM_FM_NO_ID)
            continue;
        double l = plain_p(m, t + from, n + 1 - from, &matched);
        want[count++] = (struct ranked){t[n], pow(10.0, l > -99 ? l : -99)};
    }
    qsort(want, count, sizeof *want, by_p);
    assert_int_equal(p.n, k < count ? k : count);
    for (uint32_t i = 0; i < p.n; i++) {
        assert_int_equal(p.c[i].token, want[i].token);
        assert_true(fabs(p.c[i].p - want[i].p) <= 1e-12 * want[i].p);
        t[n] = p.c[i].token;
        (void)plain_p(m, t + from, n + 1 - from, &matched);
        assert_int_equal(p.c[i].order, matched);
    }
    t[n] = LM_FM_NO_ID;
    double unknown = plain_p(m, t + from, n + 1 - from, &matched);
    assert_true(fabs(p.unknown - (unknown > -99 ? pow(10.0, unknown) : 0)) < 1e-12);
}

static void check_questions(const struct plain *m, unsigned many)
{
    struct lm_kn_reader *r;
    must(lm_kn_reader_open(engine, s, NULL, &r, &err));
    must(lm_kn_begin(r, &err));
    for (unsigned i = 0; i < many; i++) {
        uint32_t t[WORDS_MAX], n = below(12);
        for (uint32_t k = 0; k < n; k++)
            t[k] = below(12) == 0 ? 7 : m->g[below((uint32_t)m->count[1])].t[0];
        check_score(m, r, t, n, below(m->order + 1));
        check_predict(m, r, t, n, below(m->order + 1), 1 + below(m->order * 12));
    }
    assert_false(lm_kn_again(r));
    lm_kn_reader_close(r);
}

/* ---- tests ---------------------------------------------------------------------------------------------------------- */

static void test_questions(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 60; round++) {
        struct plain m = random_model(1 + round % 5, 3 + below(30), 80, round % 3 != 0);
        struct text t = as_text(&m, round % 2 == 0);
        empty();
        must(read_in(&t, 3000, 0, false));
        check_questions(&m, 60);
        free(t.p);
        free(m.g);
    }
}

/* However the text comes in, and however little memory there is, the model is the same; what is written out is read in the same. */
static void test_pieces(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 12; round++) {
        struct plain m = random_model(4, round % 2 == 0 ? 25 : 34, 2500, true);
        struct text plain = as_text(&m, false), loose = as_text(&m, true);
        empty();
        must(read_in(&plain, SIZE_MAX, 0, false));
        struct text first = write_out();
        for (unsigned i = 0; i < 4; i++) {
            empty();
            /* 4096 words at first, and never more: put to pages again and again */
            must(read_in(i % 2 == 0 ? &loose : &first, i < 2 ? 7 : 5000, i == 1 ? 0 : 40000 + 4096 * 40,
                         false));
            struct text again = write_out();
            same_text(&first, &again);
            free(again.p);
        }
        check_questions(&m, 20);
        free(first.p);
        free(plain.p);
        free(loose.p);
        free(m.g);
    }
}

/* A live model that is written out, read in and written out again. */
static void test_live_model_comes_back(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 20; round++) {
        const struct lm_kn_parameters p = {
            .order = 1 + round % 5, .flags = round % 4 == 3 ? 0 : LM_KN_EOS, .bos = BOS, .eos = EOS};
        struct lm_ngrams *g;
        struct lm_ngrams_result out;
        empty();
        must(lm_kn_setup(engine, s, &p, &err));
        must(lm_ngrams_begin(LM_NGRAMS_OWN, &g, &err));
        for (unsigned d = 0; d < 60; d++) {
            uint32_t t[12] = {BOS}, n = 2 + below(10);
            for (uint32_t i = 1; i < n; i++)
                t[i] = 10 + below(30) * below(30);
            if (round % 5 != 4 && round % 4 != 3) /* else it is set, and never counted */
                t[n - 1] = EOS;
            must(lm_ngrams_add_document(g, t, n, &err));
        }
        must(lm_ngrams_commit(engine, s, g, &out, &err));
        lm_ngrams_free(g);
        struct text live = write_out();
        empty();
        must(read_in(&live, 4000, 0, round % 4 == 3));
        struct text fixed = write_out();
        same_text(&live, &fixed);
        free(live.p);
        free(fixed.p);
    }
}

struct numbers {
    float want;
    uint64_t seen;
};

static enum cht_rc number_begin(void *ctx, unsigned order, const uint64_t *n, struct cht_err *e)
{
    (void)ctx, (void)order, (void)n, (void)e;
    return CHT_OK;
}

static enum cht_rc number_gram(void *ctx, const struct lm_arpa_gram *g, struct cht_err *e)
{
    struct numbers *n = ctx;
    (void)e;
    n->seen++;
    assert_memory_equal(&g->backoff, &n->want, sizeof n->want);
    return CHT_OK;
}

static enum cht_rc number_section(void *ctx, unsigned order, struct cht_err *e)
{
    (void)ctx, (void)order, (void)e;
    return CHT_OK;
}

/* The text of each float is read as that float, here and by the C library; decimals as the C library rounds them. */
static void test_numbers(void **state)
{
    (void)state;
    struct numbers n = {0};
    static struct lm_arpa a;
    a = (struct lm_arpa){.bos = BOS,
                         .eos = EOS,
                         .unk = LM_FM_NO_ID,
                         .begin = number_begin,
                         .gram = number_gram,
                         .section = number_section,
                         .ctx = &n};
    lm_arpa_begin(&a);
    static const char head[] = "\\data\\\nngram 1=100000000\nngram 2=0\n\\1-grams:\n";
    must(lm_arpa_feed(&a, head, sizeof head - 1, &err));
    char none[LM_FM_FLOAT_TEXT + 1] = {0};
    none[lm_fm_put_float(none, (float)NAN)] = 0;
    assert_true(isnan(strtod(none, NULL)));
    for (unsigned i = 0; i < 300000; i++) {
        char line[120], number[64] = {0};
        uint32_t bits = below(UINT32_MAX);
        float v;
        memcpy(&v, &bits, sizeof v);
        if (i % 2 == 0)
            v = -(float)below(1u << 30) / (float)(1u << (20 + below(10)));
        if (!isfinite(v) || v == 0)
            continue;
        if (i % 3 != 2) {
            size_t len = lm_fm_put_float(number, v);
            assert_true(len <= LM_FM_FLOAT_TEXT);
            assert_true(strtof(number, NULL) == v);
            n.want = v;
        } else {
            (void)snprintf(number, sizeof number, i % 4 == 0 ? "%.*f" : "%+.*E", (int)below(20), (double)v);
            n.want = (float)strtod(number, NULL);
            n.want = n.want == 0 ? 0.0F : n.want;
            if (!isfinite(n.want))
                continue;
        }
        int len = snprintf(line, sizeof line, "-1 %u %s\n", 10 + i, number);
        must(lm_arpa_feed(&a, line, (size_t)len, &err));
    }
    assert_true(n.seen > 200000);
}

/* A model of two words with one thing changed: where `old` stands there is `now`. */
struct bad {
    const char *old, *now, *what; /* what: the message begins with it; NULL: it is taken */
};

static const char good[] =
    "\\data\\\nngram 1=5\nngram 2=3\nngram 3=1\n\n\\1-grams:\n-1\t<unk>\n-99\t<s>\t-0.5\n-0.5\t</s>\n"
    "-0.75\t11\t-0.25\n-1.25\t12\t-0.5\n\n\\2-grams:\n-0.25\t<s> 11\t-0.125\n-0.5\t11 12\n"
    "-0.5\t12 </s>\n\n\\3-grams:\n-0.125\t<s> 11 12\n\n\\end\\\n";

static const struct bad bads[] = {
    {"\\data\\", "\\date\\", "there is no line"},
    {"\\data\\\n", "words\n#\n\n \\data\\ \n", NULL},
    {"\\end\\\n", "", "the text is cut off"},
    {"\\end\\\n", "\\end\\", NULL},
    {"\\end\\\n", "\\end\\\n\n \nwords", NULL},
    {"\\end\\", "\\end\\ x", "line 21: there is more"},
    {"ngram 1=5\n", "", "line 2: 'ngram ORDER=COUNT' is expected"},
    {"ngram 2=3", "ngram 3=3", "line 3: 'ngram ORDER=COUNT' is expected"},
    {"ngram 1=5", "ngram 1=", "line 2: 'ngram ORDER=COUNT' is expected"},
    {"ngram 1=5", "ngram 1=-5", "line 2: 'ngram ORDER=COUNT' is expected"},
    {"ngram 1=5", "ngram 1=5 5", "line 2: 'ngram ORDER=COUNT' is expected"},
    {"ngram 1=5", "ngram 1 5", "line 2: 'ngram ORDER=COUNT' is expected"},
    {"ngram 1=5", "ngrams 1=5", "line 2: 'ngram ORDER=COUNT' is expected"},
    {"ngram 1=5", "ngram 1=99999999999999999999", "line 2: 'ngram ORDER=COUNT' is expected"},
    {"ngram 1=5", "  ngram\t1 =  5 ", NULL},
    {"ngram 3=1\n", "ngram 3=1\nngram 4=0\n", "line 22: section 4 is expected"},
    {"ngram 3=1\n\n\\1", "ngram 3=1\nngram 4=0\nngram 5=0\nngram 6=0\nngram 7=0\nngram 8=0\nngram 9=0\n\\1",
     "line 10: order 9; 1 to 8"},
    {"ngram 1=5", "ngram 1=6", "line 13: section 1 has 5 n-grams, 'ngram 1=' says 6"},
    {"ngram 2=3", "ngram 2=2", "line 16: there are more than the 2"},
    {"ngram 3=1", "ngram 3=2", "line 21: section 3 has 1 n-grams"},
    {"\\2-grams:", "\\3-grams:", "line 13: '\\2-grams:' is expected"},
    {"\\2-grams:", "\\2-gram:", "line 13: '\\2-grams:' is expected"},
    {"\\2-grams:", "\\02-grams:", "line 13: '\\2-grams:' is expected"},
    {"\\1-grams:", "\\2-grams:", "line 6: '\\1-grams:' is expected"},
    {"\\1-grams:", "\\end\\", "line 6: section 1 is expected"},
    {"\\3-grams:\n-0.125\t<s> 11 12\n\n", "", "line 18: section 3 is expected"},
    {"\\3-grams:\n-0.125\t<s> 11 12\n\n\\end\\",
     "\\3-grams:\n-0.125\t<s> 11 12\n\n\\4-grams:", "line 21: '\\end\\' is"},
    {"-0.75\t11\t-0.25", "-0.75\t11\t-0.25\t1", "line 10: an n-gram of order 1 is"},
    {"-0.75\t11\t-0.25", "-0.75", "line 10: an n-gram of order 1 is"},
    {"-0.5\t11 12", "-0.5\t11 12 11 12 1 1", "line 15: an n-gram of order 2 is"},
    {"-0.75\t11\t-0.25", " \t-0.75 \t 11  \t-0.25\t \r", NULL},
    {"-0.75\t11\t-0.25", "-0.75\t11", NULL},
    {"-0.75\t11\t-0.25", "-7.5e-1\t11\t-2.5E-01", NULL},
    {"-0.75\t11", "0.75\t11", "line 10: log10 p is above 0"},
    {"-0.75\t11", "1e-9\t11", "line 10: log10 p is above 0"},
    {"-0.75\t11", "+0.0\t11", NULL},
    {"-0.75\t11", "nan\t11", "line 10: log10 p is not a number"},
    {"-0.75\t11", "-inf\t11", NULL},
    {"-0.75\t11", "-1e9999\t11", NULL},
    {"-0.75\t11", "inf\t11", "line 10: log10 p is above 0"},
    {"-0.75\t11", "-0.7.5\t11", "line 10: '-0.7.5' is no number"},
    {"-0.75\t11", "-\t11", "line 10: '-' is no number"},
    {"-0.75\t11", "-0x1\t11", "line 10: '-0x1' is no number"},
    {"-0.75\t11", "-1e\t11", "line 10: '-1e' is no number"},
    {"-0.75\t11", "-1e+\t11", "line 10: '-1e+' is no number"},
    {"-0.75\t11", ".\t11", "line 10: '.' is no number"},
    {"-0.75\t11\t-0.25", "-0.75\t11\tx", "line 10: 'x' is no number"},
    {"-0.75\t11\t-0.25", "-0.75\t11\tinf", "line 10: the back-off weight is not finite"},
    {"-0.75\t11\t-0.25", "-0.75\t11\t-1e39", "line 10: the back-off weight is not finite"},
    {"-0.75\t11\t-0.25", "-0.75\t11\tnan", "line 10: the back-off weight is not finite"},
    {"-0.75\t11\t-0.25", "-0.75\t11\t2.5", NULL},
    {"-99\t<s>", "0\t<s>", NULL},
    {"-99\t<s>", "7\t<s>", NULL},
    {"-99\t<s>", "nan\t<s>", NULL},
    {"-99\t<s>", "x\t<s>", "line 8: 'x' is no number"},
    {"-0.125\t<s> 11 12", "-0.125\t<s> 11 12\t0", NULL},
    {"-0.125\t<s> 11 12", "-0.125\t<s> 11 12\t-5", NULL},
    {"-1\t<unk>\n", "-1\t<UNK>\n", NULL},
    {"-1\t<unk>\n", "-1\t13\n", NULL},
    {"-0.5\t</s>", "-0.5\t13", "line 13: there is no </s>"},
    {"-99\t<s>\t-0.5", "-1\t13", "line 13: there is no <s>"},
    {"-1.25\t12", "-1.25\t<S>", "line 11: the word '<S>' is no token"},
    {"-1.25\t12", "-1.25\t012", "line 11: the word '012' is no token"},
    {"-1.25\t12", "-1.25\t4294967296", "line 11: the word '4294967296' is no token"},
    {"-1.25\t12", "-1.25\t4294967295", "line 11: the token 4294967295 is that of <unk>"},
    {"-1.25\t12", "-1.25\t2", "line 11: the token 2 is that of <s>"},
    {"-1.25\t12", "-1.25\t12\v", "line 11: the word '12\v' is no token"},
    {"-0.5\t11 12", "-0.5\t11 13", "line 15: the word 2 of it is no 1-gram"},
    {"-0.5\t11 12", "-0.5\t13 12", "line 15: the word 1 of it is no 1-gram"},
    {"-0.125\t<s> 11 12", "-0.125\t12 11 12", "line 19: its first 2 words are no n-gram of section 2"},
    {"-0.125\t<s> 11 12", "-0.125\t<s> 11 </s>", NULL}, /* "11 </s>" is not there: pruned */
    {"-0.5\t12 </s>", "-0.5\t12 <s>", NULL},
    {"-0.5\t12 </s>", "-0.5\t</s> 12", NULL},
    {"-1.25\t12", "-1.25\t11", "lines 10 and 11 have the same n-gram"},
    {"-0.5\t12 </s>", "-0.5\t11 12", "lines 15 and 16 have the same n-gram"},
    {"-1\t<unk>", "-1\t</s>", "lines 7 and 9 have the same n-gram"},
};

static struct text with(const char *old, const char *now)
{
    struct text t = {0};
    const char *at = strstr(good, old);
    assert_non_null(at);
    put(&t, "%.*s%s%s", (int)(at - good), good, now, at + strlen(old));
    return t;
}

static void test_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
        const struct bad *b = &bads[i];
        struct text t = with(b->old, b->now);
        for (unsigned k = 0; k < 2; k++) {
            empty();
            err.msg[0] = 0;
            enum cht_rc rc = read_in(&t, k == 0 ? SIZE_MAX : 5, 0, false);
            if (b->what == NULL && rc != CHT_OK)
                fail_msg("'%s': %s", b->now, err.msg);
            if (b->what != NULL &&
                (rc != CHT_INVALID_ARPA || strncmp(err.msg, b->what, strlen(b->what)) != 0))
                fail_msg("'%s': %d %s", b->now, (int)rc, err.msg);
            assert_true((pairs_left() > 0) == (rc == CHT_OK));
        }
        free(t.p);
    }
}

/* Lines and words of any length. */
static void test_long_lines(void **state)
{
    (void)state;
    static char blanks[300000], letters[5000];
    memset(blanks, ' ', sizeof blanks - 1);
    memset(letters, '1', sizeof letters - 1);
    for (unsigned k = 0; k < 2; k++) {
        struct text t = {0};
        size_t most = k == 0 ? SIZE_MAX : 999;
        t.cap = 2 * sizeof blanks + sizeof good;
        t.p = malloc(t.cap);
        const char *at = strstr(good, "\t11\t");
        t.n = (size_t)snprintf(t.p, t.cap, "%s %.*s%s%s", blanks, (int)(at - good), good, blanks, at);
        empty();
        must(read_in(&t, most, 0, false));
        empty();
        t.n = (size_t)snprintf(t.p, t.cap, "%s\n%.*s%s%s", letters, (int)(at - good), good, blanks, at);
        must(read_in(&t, most, 0, false));
        empty();
        t.n = (size_t)snprintf(t.p, t.cap, "%.*s\t%s%s", (int)(at - good), good, letters, at + 3);
        assert_int_equal(read_in(&t, most, 0, false), CHT_INVALID_ARPA);
        assert_string_equal(err.msg, "line 10: a word of more than 4096 bytes");
        t.n = (size_t)snprintf(t.p, t.cap, "%s%s%s%s", good, letters, letters, letters);
        must(read_in(&t, most, 0, false));
        free(t.p);
    }
}

/* A head is a pair like any other, and anybody who may write can put one. */
static void test_head_that_others_wrote(void **state)
{
    (void)state;
    static const struct {
        uint64_t tokens;
        enum cht_rc rc;
    } heads[] = {{0, CHT_OK},
                 {1, CHT_OK},
                 {UINT64_C(1) << 32, CHT_OK},
                 {(UINT64_C(1) << 32) + 1, CHT_MALFORMED_PAYLOAD},
                 {INT64_MAX, CHT_MALFORMED_PAYLOAD},
                 {UINT64_MAX, CHT_MALFORMED_PAYLOAD}};
    struct text t = with("\\end\\", "\\end\\");
    must(read_in(&t, SIZE_MAX, 0, false));
    free(t.p);
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        struct lm_fm_head h = {.order = 3, .bos = BOS, .eos = EOS, .unk = LM_FM_NO_ID, .id = i};
        const uint32_t context[] = {BOS, 11};
        const struct lm_kn_text_query q = {.tokens = context, .n = 2};
        uint8_t bytes[LM_FM_HEAD_MAX];
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = lm_kn_head_name()};
        struct cht_commit c = {.ops = &op, .count = 1};
        struct lm_kn_prediction p = {.n = 0};
        struct lm_kn_reader *r;
        bool later = false;
        h.n[1] = heads[i].tokens;
        op.value = (struct cht_str){bytes, lm_fm_head_write(&h, bytes)};
        must(cht_store_commit(s, &c));
        must(lm_kn_reader_open(engine, s, NULL, &r, &err));
        enum cht_rc rc = lm_kn_begin(r, &err);
        if (rc == CHT_OK)
            rc = lm_kn_predict(r, &q, 3, &p, &later, &err);
        assert_int_equal(rc, heads[i].rc);
        assert_true(rc != CHT_OK || (p.n >= 1 && p.n <= 3));
        lm_kn_reader_close(r);
    }
}

static void test_what_is_in_the_way(void **state)
{
    (void)state;
    struct text t = with("\\end\\", "\\end\\");
    struct lm_fm_parameters p = {.bos = 2, .eos = 2, .unk = 5};
    struct lm_fm_import *i, *j;
    const struct lm_kn_parameters live = {.order = 2, .bos = BOS};
    struct lm_ngrams *g;
    struct lm_ngrams_result out;
    uint32_t tokens[] = {BOS, 5, 6};
    assert_int_equal(lm_fm_import_begin(engine, s, &p, &i, &err), CHT_INVALID_ARGUMENT);
    must(lm_kn_setup(engine, s, &live, &err));
    assert_int_equal(read_in(&t, 100, 0, false), CHT_MODEL_EXISTS);
    empty();
    must(lm_ngrams_begin(2, &g, &err));
    must(lm_ngrams_add_document(g, tokens, 3, &err));
    must(lm_ngrams_commit(engine, s, g, &out, &err));
    assert_int_equal(read_in(&t, 100, 0, false), CHT_MODEL_EXISTS);
    empty();
    /* One is under way: no other, no counts, no live model, no answers. */
    p.eos = 3;
    must(lm_fm_import_begin(engine, s, &p, &i, &err));
    must(lm_fm_import_feed(i, s, t.p, t.n / 2, &err));
    assert_int_equal(lm_fm_import_begin(engine, s, &p, &j, &err), CHT_MODEL_EXISTS);
    assert_int_equal(lm_ngrams_commit(engine, s, g, &out, &err), CHT_FIXED_MODEL);
    assert_int_equal(lm_kn_setup(engine, s, &live, &err), CHT_FIXED_MODEL);
    struct lm_kn_reader *r;
    must(lm_kn_reader_open(engine, s, NULL, &r, &err));
    assert_int_equal(lm_kn_begin(r, &err), CHT_FIXED_MODEL);
    lm_kn_reader_close(r);
    /* It is left alone: the next one takes away what it has left. */
    uint64_t id = lm_fm_import_id(i);
    must(lm_fm_drop(engine, s, id, &err)); /* not while it is under way */
    assert_true(pairs_left() > 0);
    lm_fm_import_free(i);
    must(read_in(&t, 100, 0, false));
    assert_int_equal(read_in(&t, 100, 0, false), CHT_MODEL_EXISTS);
    must(lm_fm_drop(engine, s, id, &err));
    assert_int_equal(lm_ngrams_commit(engine, s, g, &out, &err), CHT_FIXED_MODEL);
    struct text back = write_out();
    assert_true(back.n > 100);
    free(back.p);
    /* The database is another one half way. */
    empty();
    must(lm_fm_import_begin(engine, s, &p, &i, &err));
    empty();
    assert_int_equal(lm_fm_import_feed(i, s, t.p, t.n, &err), CHT_DATABASE_DROPPED);
    assert_int_equal(lm_fm_import_end(i, s, &err), CHT_DATABASE_DROPPED);
    lm_fm_import_free(i);
    assert_int_equal(pairs_left(), 0);
    lm_ngrams_free(g);
    free(t.p);
}

/* Every allocation fails once: nothing is left, and nothing is leaked (the address sanitizer). */
static void test_no_memory(void **state)
{
    (void)state;
    struct plain m = random_model(3, 12, 60, true);
    struct text t = as_text(&m, true);
    unsigned failed = 0;
    for (uint64_t n = 1;; n++) {
        empty();
        cht_alloc_fail_at(n, false);
        enum cht_rc rc = read_in(&t, 700, 0, false);
        bool injected = cht_alloc_failures() > 0;
        cht_alloc_fail_at(0, false);
        if (rc == CHT_OK && !injected)
            break;
        if (rc != CHT_OK) {
            assert_int_equal(rc, CHT_NO_MEMORY);
            failed++;
            must(read_in(&t, 700, 0, false)); /* what it may have left is not in the way */
        }
        check_questions(&m, 2);
    }
    assert_true(failed > 10);
    empty();
    assert_int_equal(read_in(&t, 700, 1000, false), CHT_REQUEST_TOO_LARGE);
    free(t.p);
    free(m.g);
}

/* The model is there, and whole, or it is not, and can be read in. */
static void check_whole_or_none(const struct text *t, const struct text *want)
{
    struct text have = {0};
    enum cht_rc rc = lm_kn_arpa_write(engine, s, false, NULL, collect, &have, &err);
    if (rc == CHT_OK) {
        same_text(want, &have);
    } else {
        assert_true(rc == CHT_PAIR_NOT_FOUND || rc == CHT_FIXED_MODEL);
        must(read_in(t, SIZE_MAX, 0, false));
        free(have.p);
        have = write_out();
        same_text(want, &have);
    }
    free(have.p);
}

static void test_power_cuts_and_faults(void **state)
{
    (void)state;
    struct plain m = random_model(3, 8, 20, true);
    struct text t = as_text(&m, false);
    must(read_in(&t, SIZE_MAX, 0, false));
    struct text want = write_out();
    stop();
    struct simdisk *d = simdisk_new();
    must(start(d, CHT_DURABLE_SYNC));
    must(read_in(&t, SIZE_MAX, 40000, false));
    stop();
    struct simcut *cut = simcut_new(d);
    unsigned cuts = 0;
    while (simcut_step(cut)) {
        struct simdisk *left = simcut_disk(cut, cuts % 2 == 0 ? SIM_DROP : SIM_SUBSET, &rng);
        cuts++;
        simdisk_forget(left);
        must(start(left, CHT_DURABLE_OS));
        check_whole_or_none(&t, &want);
        stop();
        simdisk_free(left);
    }
    assert_true(cuts > 20);
    simcut_free(cut);
    simdisk_free(d);
    unsigned failed = 0;
    for (uint64_t n = 1;; n++) {
        d = simdisk_new();
        simdisk_forget(d);
        must(start(d, CHT_DURABLE_SYNC));
        simdisk_fail_at(d, n, n % 2 == 0 ? SIM_EIO : SIM_FULL, false);
        enum cht_rc rc = read_in(&t, SIZE_MAX, 0, false);
        bool injected = simdisk_injected(d) > 0;
        simdisk_fail_at(d, 0, SIM_NONE, false);
        failed += rc != CHT_OK;
        stop();
        must(start(d, CHT_DURABLE_OS));
        check_whole_or_none(&t, &want);
        stop();
        simdisk_free(d);
        if (!injected)
            break;
    }
    assert_true(failed > 3);
    free(want.p);
    free(t.p);
    free(m.g);
    must(start(disk, CHT_DURABLE_OS)); /* for teardown */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_questions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pieces, setup, teardown),
        cmocka_unit_test_setup_teardown(test_live_model_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_numbers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_lines, setup, teardown),
        cmocka_unit_test_setup_teardown(test_head_that_others_wrote, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_in_the_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_power_cuts_and_faults, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
