/* arpa: a model in ARPA format. The first byte says in what pieces it comes, how much memory there is, and whether its words are those of the vocabulary. What is taken is written out, read in
 * again and written out the same; what is refused has left nothing. */
#include "fuzz/fuzz.h"

#include "lm/fm_import.h"
#include "lm/kn_arpa.h"
#include "lm/kn_ask.h"

static struct fuzz_store store;
static struct lm_engine *engine;

struct text {
    char *p;
    size_t n;
};

static bool collect(void *ctx, const char *p, size_t n)
{
    struct text *t = ctx;
    t->p = realloc(t->p, t->n + n + 1);
    FUZZ_CHECK(t->p != NULL);
    memcpy(t->p + t->n, p, n);
    t->n += n;
    return true;
}

static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *err)
{
    uint64_t *left = ctx;
    if (bytes > *left)
        return CHT_FAIL(err, CHT_REQUEST_TOO_LARGE, "no more");
    *left -= bytes;
    return CHT_OK;
}

static enum cht_rc read_in(const char *p, size_t n, size_t piece, bool little, bool words,
                           struct cht_err *err)
{
    uint64_t left = little ? 64 << 10 : 64 << 20;
    const struct lm_fm_parameters how = {
        .bos = 2, .eos = 3, .unk = LM_FM_NO_ID, .unmarked = true, .words = words, .book = book, .ctx = &left};
    struct lm_fm_import *i;
    enum cht_rc rc = lm_fm_import_begin(engine, store.store, &how, &i, err);
    fuzz_must(rc, err);
    for (size_t at = 0; at < n && rc == CHT_OK; at += piece) {
        size_t len = n - at < piece ? n - at : piece;
        char *exact = fuzz_exact(p + at, len);
        rc = lm_fm_import_feed(i, store.store, exact, len, err);
        free(exact);
    }
    if (rc == CHT_OK)
        rc = lm_fm_import_end(i, store.store, err);
    uint64_t id = lm_fm_import_id(i);
    lm_fm_import_free(i);
    if (rc != CHT_OK) {
        struct cht_err other = {0};
        fuzz_must(lm_fm_drop(engine, store.store, id, &other), &other);
    }
    return rc;
}

static void ask(void)
{
    static const uint32_t tokens[] = {2, 11, 12, 13, 2, 3, 12, 11, UINT32_MAX, 11};
    const struct lm_kn_text_query q = {.tokens = tokens, .n = sizeof tokens / sizeof *tokens, .bos = true};
    struct cht_err err = {0};
    struct lm_kn_reader *r;
    struct lm_kn_score sum;
    struct lm_kn_prediction p;
    bool later;
    fuzz_must(lm_kn_reader_open(engine, store.store, NULL, &r, &err), &err);
    fuzz_must(lm_kn_begin(r, &err), &err);
    fuzz_must(lm_kn_score(r, &q, NULL, NULL, &sum, &err), &err);
    FUZZ_CHECK(sum.tokens == 8 && sum.oov <= 8);
    fuzz_must(lm_kn_predict(r, &q, 5, &p, &later, &err), &err);
    for (size_t i = 1; i < p.n; i++)
        FUZZ_CHECK(p.c[i - 1].p >= p.c[i].p && p.c[i - 1].token != p.c[i].token);
    (void)lm_kn_again(r);
    lm_kn_reader_close(r);
}

static struct text write_out(bool words)
{
    struct cht_err err = {0};
    struct text t = {0};
    fuzz_must(lm_kn_arpa_write(engine, store.store, words, NULL, collect, &t, &err), &err);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const size_t pieces[] = {1, 2, 7, 100, SIZE_MAX / 2};
    struct fuzz_in in = {data, n};
    struct cht_err err = {0};
    uint64_t pairs;
    if (store.env != NULL && store.used == FUZZ_STORE_USES) {
        lm_engine_free(engine);
        fuzz_store_close(&store);
        store.env = NULL;
    }
    if (store.env == NULL) {
        fuzz_store_open(&store, false);
        fuzz_must(lm_engine_new(&engine, &err), &err);
    }
    store.used++;
    uint8_t how = fuzz_u8(&in);
    bool words = (how & 0x40) != 0;
    enum cht_rc rc = read_in((const char *)in.p, in.n, pieces[(how & 0x3F) % 5], how >= 128, words, &err);
    FUZZ_CHECK(rc == CHT_OK || rc == CHT_INVALID_ARPA || (rc == CHT_REQUEST_TOO_LARGE && how >= 128));
    if (rc != CHT_OK) {
        FUZZ_CHECK(cht_store_count(store.store, (struct cht_str){0}, &pairs, &err) == CHT_OK && pairs == 0);
        FUZZ_CHECK(err.msg[0] != 0);
        return 0;
    }
    ask();
    struct text first = write_out(words);
    fuzz_store_empty(&store);
    rc = read_in(first.p, first.n, SIZE_MAX / 2, false, words, &err);
    fuzz_must(rc, &err);
    struct text second = write_out(words);
    FUZZ_CHECK(first.n == second.n && memcmp(first.p, second.p, first.n) == 0);
    free(first.p);
    free(second.p);
    fuzz_store_empty(&store);
    return 0;
}
