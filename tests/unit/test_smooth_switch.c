/* test_smooth_switch: questions beside smoothing answer from the old model or from the new one, never from some entries of each;
 * a run that is cut off leaves the old one answering. Two texts that share contexts and differ in what follows them make the two models.
 * CHT_TEST_LONG=1: many more runs. Under the thread sanitizer askers are slow and meet more; only the tests with threads are run there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "cheetah/scan.h"
#include "lm/ngrams.h"
#include "lm/predict.h"
#include "lm/smooth.h"
#include "lm/view.h"

#define DOCUMENTS 40u
#define LENGTH 24u
#define WORDS 30u /* tokens 4 to 33 */
#define TEXTS 3u
#define QUESTIONS 15u
#define ASKERS 2
#define ANSWER_MAX 16384u

static char base[] = "/tmp/cht-smooth-XXXXXX";
static struct cht_env *env;
static struct cht_store *s;
static struct lm_engine *engine;
static struct cht_err err;
static uint32_t text[TEXTS][DOCUMENTS][LENGTH];

static void must(enum cht_rc rc)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err.msg);
}

static void open_all(void)
{
    const char *dirs[] = {base};
    struct cht_env_config cfg = {
        .dirs = dirs, .dir_count = 1, .default_shards = 4, .durability = CHT_DURABLE_OS};
    must(cht_env_open(&cfg, &env, &err));
    must(lm_engine_new(&engine, &err));
}

static void close_all(void)
{
    lm_engine_free(engine);
    must(cht_env_close(env, &err));
}

/* The database, made if it is not there, becomes `s`. */
static void use(const char *name, bool anew)
{
    if (anew) {
        enum cht_rc rc = cht_env_drop(env, name, &err);
        assert_true(rc == CHT_OK || rc == CHT_DATABASE_NOT_FOUND);
        must(cht_env_create(env, name, 0, &err));
    }
    must(cht_env_get(env, name, &s, &err));
}

static void make_texts(void)
{
    struct cht_rng rng;
    cht_rng_seed(&rng, 7);
    for (unsigned t = 0; t < TEXTS; t++) {
        for (unsigned d = 0; d < DOCUMENTS; d++) {
            for (unsigned i = 0; i < LENGTH; i++) {
                uint32_t a = (uint32_t)cht_rng_below(&rng, WORDS), b = (uint32_t)cht_rng_below(&rng, WORDS);
                a = a < b ? a : b; /* low ones are frequent, in another order for each text */
                text[t][d][i] = 4 + (a * (t == 1 ? 7 : t == 2 ? 11 : 1) + t) % WORDS;
            }
        }
    }
}

static void count(unsigned t, bool take)
{
    struct lm_ngrams *g;
    struct lm_ngrams_result r;
    must(lm_ngrams_begin(3, &g, &err));
    for (unsigned d = 0; d < DOCUMENTS; d++)
        must((take ? lm_ngrams_take_document : lm_ngrams_add_document)(g, text[t][d], LENGTH, &err));
    must(lm_ngrams_commit(engine, s, g, &r, &err));
    lm_ngrams_free(g);
}

static enum cht_rc smooth(unsigned lo, unsigned hi)
{
    struct lm_smooth_config cfg = {.lo = lo, .hi = hi, .threads = 2};
    return lm_smooth(engine, s, &cfg, &err);
}

/* ---- questions ------------------------------------------------------------------------------------------------ */

struct answer {
    size_t n;
    char text[ANSWER_MAX];
};

static void add(struct answer *a, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(a->text + a->n, ANSWER_MAX - a->n, fmt, args);
    va_end(args);
    if (n > 0)
        a->n += (size_t)n;
    assert_true(a->n < ANSWER_MAX);
}

static void again(void *ctx)
{
    struct answer *a = ctx;
    a->n = 0;
    a->text[0] = 0;
}

static void on_prediction(void *ctx, const struct lm_prediction *p)
{
    add(ctx, "\n%u:", p->order);
    for (size_t i = 0; i < p->count; i++)
        add(ctx, " %u %u %a", p->candidates[i].token, p->candidates[i].q, p->candidates[i].p);
}

static void on_score(void *ctx, const struct lm_scored *t)
{
    add(ctx, " %u %u %a", t->token, t->order, t->log10);
}

static bool on_context(void *ctx, const struct lm_context *c)
{
    for (size_t i = 0; i < c->ranked_n; i++)
        add(ctx, " %u %u", c->ranked[i].token, c->ranked[i].q);
    return true;
}

/* The list of a context of one token. */
static enum cht_rc ask_contexts(struct cht_store *store, uint32_t token, struct answer *a, struct cht_err *e)
{
    struct lm_node word = {.value = token}, child = {.list = true, .children = &word, .n = 1};
    struct lm_node tree = {.list = true, .children = &child, .n = 1};
    const struct lm_contexts_query q = {.tree = &tree, .match = LM_CONTEXTS_EXACT, .depth = -1, .limit = 1};
    return lm_contexts(store, &q, on_context, a, NULL, e);
}

/* Question i of the store, as text. Its tokens are of a text that both models know and of one that they know apart. */
static enum cht_rc ask(struct cht_store *store, struct lm_scorer *sc, unsigned i, struct answer *a,
                       struct cht_err *e)
{
    static const enum lm_predict_mode modes[] = {LM_PREDICT_DEEPEST, LM_PREDICT_LEVELS, LM_PREDICT_BLEND};
    const uint32_t *tokens = text[i % TEXTS][i];
    again(a);
    if (i % 5 < 3) {
        const struct lm_predict_query q = {
            .tokens = tokens, .n = 2, .k = 25, .mode = modes[i % 5], .again = again};
        return lm_predict(store, &q, on_prediction, a, e);
    }
    if (i % 5 == 3)
        return ask_contexts(store, text[0][i][0], a, e);
    const struct lm_score_query q = {.tokens = tokens,
                                     .n = LENGTH,
                                     .mode = i % 2 == 0 ? LM_SCORE_BLEND : LM_SCORE_DEEPEST,
                                     .again = again};
    struct lm_score sum;
    struct lm_scorer *own = NULL;
    enum cht_rc rc = sc == NULL ? lm_scorer_open(store, &own, e) : CHT_OK;
    if (rc == CHT_OK)
        rc = lm_score(sc != NULL ? sc : own, &q, on_score, a, &sum, e);
    if (rc == CHT_OK)
        add(a, " %a %a %u", sum.log10, sum.log10_oov, (unsigned)sum.oov);
    lm_scorer_close(own);
    return rc;
}

struct model {
    struct answer answer[QUESTIONS];
};

static struct model *model_of(struct cht_store *store)
{
    struct model *m = calloc(1, sizeof *m);
    assert_non_null(m);
    for (unsigned i = 0; i < QUESTIONS; i++)
        must(ask(store, NULL, i, &m->answer[i], &err));
    return m;
}

static bool same(const struct answer *a, const struct answer *b) { return strcmp(a->text, b->text) == 0; }

static void answers(const struct model *m)
{
    struct model *now = model_of(s);
    for (unsigned i = 0; i < QUESTIONS; i++)
        assert_string_equal(now->answer[i].text, m->answer[i].text);
    free(now);
}

/* The two models, made where nothing is under way: text 0 and 1, then text 0 and 2. */
static void two_models(unsigned lo, unsigned hi, struct model *out[2])
{
    use("reference", true);
    count(0, false);
    count(1, false);
    must(smooth(1, 3));
    out[0] = model_of(s);
    count(1, true);
    count(2, false);
    must(smooth(lo, hi));
    out[1] = model_of(s);
    for (unsigned i = 0; i < QUESTIONS; i++)
        assert_false(same(&out[0]->answer[i], &out[1]->answer[i]));
}

static void same_under(struct cht_store *x, struct cht_store *y, const char *prefix)
{
    struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .values = true, .prefix = {(const uint8_t *)prefix, strlen(prefix)}};
    struct cht_scan *a, *b;
    struct cht_entry e, f;
    size_t n, m;
    must(cht_scan_open(x, &cfg, &a, &err));
    must(cht_scan_open(y, &cfg, &b, &err));
    for (;;) {
        must(cht_scan_next(a, &e, 1, &n, &err));
        must(cht_scan_next(b, &f, 1, &m, &err));
        assert_int_equal(n, m);
        if (n == 0)
            break;
        assert_int_equal(e.name_len, f.name_len);
        assert_memory_equal(e.name, f.name, e.name_len);
        assert_int_equal(e.value_len, f.value_len);
        assert_memory_equal(e.value, f.value, e.value_len);
    }
    cht_scan_close(a);
    cht_scan_close(b);
}

/* What smoothing makes is the same in both databases, and nothing is left over. */
static void same_pairs(struct cht_store *x, struct cht_store *y)
{
    static const char *const prefixes[] = {"prob:", "topk:", "cont:", LM_BEFORE};
    for (unsigned i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        same_under(x, y, prefixes[i]);
}

/* ---- questions beside it -------------------------------------------------------------------------------------- */

struct asker {
    struct model *const *models;
    const atomic_bool *stop;
    unsigned from;
    _Atomic uint64_t seen[2], failed;
    uint64_t mixed;
};

static void *asking(void *arg)
{
    struct asker *w = arg;
    struct answer *a = malloc(sizeof *a);
    struct lm_scorer *sc = NULL; /* of a request of many questions */
    struct cht_err e;
    enum cht_rc rc = lm_scorer_open(s, &sc, &e);
    for (unsigned i = w->from; rc == CHT_OK && !atomic_load(w->stop); i++) {
        unsigned at = i % QUESTIONS;
        rc = ask(s, i % 2 == 0 ? sc : NULL, at, a, &e);
        if (rc != CHT_OK)
            break;
        bool old = same(a, &w->models[0]->answer[at]), now = same(a, &w->models[1]->answer[at]);
        w->seen[0] += old;
        w->seen[1] += now;
        w->mixed += !old && !now;
    }
    w->failed += rc != CHT_OK;
    if (rc != CHT_OK)
        print_error("rc %d: %s\n", (int)rc, e.msg);
    lm_scorer_close(sc);
    free(a);
    return NULL;
}

static uint64_t seen_by_all(struct asker *askers, unsigned which)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < ASKERS; i++) {
        n += askers[i].seen[which];
        assert_int_equal(askers[i].failed, 0);
    }
    return n;
}

/* Runs in turn from model 0 to 1 and back while askers ask, who see each of them before the next run. */
static void beside(unsigned lo, unsigned hi, unsigned runs)
{
    struct model *models[2];
    struct asker askers[ASKERS];
    pthread_t threads[ASKERS];
    atomic_bool stop = false;
    two_models(lo, hi, models);
    use("default", true);
    count(0, false);
    count(1, false);
    must(smooth(1, 3));
    for (unsigned i = 0; i < ASKERS; i++) {
        memset(&askers[i], 0, sizeof askers[i]);
        askers[i].models = models;
        askers[i].stop = &stop;
        askers[i].from = i * 5;
        assert_int_equal(pthread_create(&threads[i], NULL, asking, &askers[i]), 0);
    }
    for (unsigned i = 0; i < runs; i++) {
        count(i % 2 == 0 ? 1 : 2, true);
        count(i % 2 == 0 ? 2 : 1, false);
        must(i % 2 == 0 ? smooth(lo, hi) : smooth(1, 3));
        uint64_t before = seen_by_all(askers, (i + 1) % 2);
        while (seen_by_all(askers, (i + 1) % 2) == before)
            sched_yield();
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < ASKERS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(askers[i].failed, 0);
        assert_int_equal(askers[i].mixed, 0);
    }
    if (runs % 2 == 1) {
        struct cht_store *x = s;
        answers(models[1]);
        use("reference", false);
        same_pairs(x, s);
    }
    free(models[0]);
    free(models[1]);
}

static void test_questions(void **state)
{
    (void)state;
    unsigned runs = getenv("CHT_TEST_LONG") != NULL ? 601 : 11;
    open_all();
    beside(1, 3, runs);
    close_all();
}

/* Only the orders of the run change, and all at once. */
static void test_some_orders(void **state)
{
    (void)state;
    open_all();
    beside(2, 3, getenv("CHT_TEST_LONG") != NULL ? 201 : 5);
    close_all();
}

/* The first run: nothing can be asked until all of it is there. */
static void test_first(void **state)
{
    (void)state;
    struct model *models[2];
    struct cht_err e;
    open_all();
    two_models(1, 3, models);
    for (unsigned stage = 1; stage <= 3; stage++) {
        use("default", true);
        count(0, false);
        count(1, false);
        struct answer *a = malloc(sizeof *a);
        assert_int_equal(ask(s, NULL, 0, a, &e), CHT_NOT_SMOOTHED);
        must(smooth(stage, 3)); /* without order 1 there is no root */
        if (stage > 1) {
            assert_int_equal(ask(s, NULL, 0, a, &e), CHT_NOT_SMOOTHED);
            must(smooth(1, 3));
        }
        answers(models[0]);
        free(a);
    }
    free(models[0]);
    free(models[1]);
    close_all();
}

/* ---- cut off -------------------------------------------------------------------------------------------------- */

struct cut {
    unsigned order; /* killed when it is complete; 0: after the continuations */
    atomic_bool cancel;
    bool kill;
};

static void on_result(void *ctx, const struct lm_smooth_result *r)
{
    struct cut *c = ctx;
    if (r->order != c->order)
        return;
    if (c->kill)
        (void)raise(SIGKILL);
    atomic_store(&c->cancel, true);
}

static void on_progress(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    if (strcmp(phase, "continuations") == 0)
        on_result(ctx, &(struct lm_smooth_result){.order = 0});
}

static enum cht_rc smooth_cut(struct cut *c)
{
    struct lm_smooth_config cfg = {.lo = 1,
                                   .hi = 3,
                                   .threads = 2,
                                   .cancel = &c->cancel,
                                   .result = on_result,
                                   .progress = on_progress,
                                   .ctx = c};
    return lm_smooth(engine, s, &cfg, &err);
}

/* From a process of its own, which dies in the middle. */
static void killed(unsigned order)
{
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct cut c = {.order = order, .kill = true};
        open_all();
        use("default", false);
        (void)smooth_cut(&c);
        _exit(3);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static uint64_t pairs_kept(void)
{
    uint64_t n;
    must(cht_store_count(s, (struct cht_str){(const uint8_t *)LM_BEFORE, sizeof LM_BEFORE - 1}, &n, &err));
    return n;
}

static void test_cut_off(void **state)
{
    (void)state;
    struct model *models[2];
    open_all();
    two_models(1, 3, models);
    use("default", true);
    count(0, false);
    count(1, false);
    must(smooth(1, 3));
    count(1, true);
    count(2, false);
    for (unsigned order = 0; order <= 3; order++) {
        close_all();
        killed(order);
        open_all();
        use("default", false);
        answers(models[0]);
        assert_true(pairs_kept() > 0);
        struct cut c = {.order = order > 0 ? 4 - order : 0};
        assert_int_equal(smooth_cut(&c), order == 1 ? CHT_OK : CHT_CANCELLED); /* order 3 is the last */
        answers(models[order == 1 ? 1 : 0]);
        if (order == 1) { /* back to the old one */
            count(2, true);
            count(1, false);
            must(smooth(1, 3));
            count(1, true);
            count(2, false);
        }
    }
    answers(models[0]);
    must(smooth(1, 3));
    answers(models[1]);
    assert_int_equal(pairs_kept(), 0);
    struct cht_store *x = s;
    use("reference", false);
    same_pairs(x, s);
    free(models[0]);
    free(models[1]);
    close_all();
}

/* Any allocation may fail: the old model answers, or the new one, all of it. */
static void test_no_memory(void **state)
{
    (void)state;
    struct model *models[2];
    struct lm_smooth_config cfg = {.lo = 1, .hi = 3, .threads = 1};
    uint64_t step = getenv("CHT_TEST_LONG") != NULL ? 1 : 9;
    bool switched = false;
    open_all();
    two_models(1, 3, models);
    use("default", true);
    count(0, false);
    count(1, false);
    must(smooth(1, 3));
    count(1, true);
    count(2, false);
    for (uint64_t n = 1;; n += step) {
        cht_alloc_fail_at(n, false);
        enum cht_rc rc = lm_smooth(engine, s, &cfg, &err);
        uint64_t injected = cht_alloc_failures();
        cht_alloc_fail_at(0, false);
        assert_true(rc == CHT_OK || rc == CHT_NO_MEMORY);
        switched = switched || rc == CHT_OK;
        struct model *now = model_of(s);
        bool old = same(&now->answer[0], &models[0]->answer[0]);
        assert_true(!old || !switched);
        switched = !old; /* what comes after the switch can fail too */
        free(now);
        answers(models[old ? 0 : 1]);
        if (injected == 0)
            break;
    }
    must(smooth(1, 3));
    assert_int_equal(pairs_kept(), 0);
    struct cht_store *x = s;
    use("reference", false);
    same_pairs(x, s);
    free(models[0]);
    free(models[1]);
    close_all();
}

int main(void)
{
    static const struct CMUnitTest all[] = {
        cmocka_unit_test(test_cut_off), /* first: it forks, and has no other threads yet */
        cmocka_unit_test(test_questions), cmocka_unit_test(test_some_orders),
        cmocka_unit_test(test_first),     cmocka_unit_test(test_no_memory),
    };
    static const struct CMUnitTest threads[] = {cmocka_unit_test(test_questions),
                                                cmocka_unit_test(test_some_orders)};
    if (mkdtemp(base) == NULL)
        return 2;
    make_texts();
#ifdef __SANITIZE_THREAD__ /* the others have one thread at a time, and have been run */
    bool few = getenv("CHT_TEST_LONG") == NULL;
#else
    bool few = false;
#endif
    int failed = few ? cmocka_run_group_tests(threads, NULL, NULL) : cmocka_run_group_tests(all, NULL, NULL);
    char cmd[64];
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", base);
    return system(cmd) != 0 || failed != 0;
}
