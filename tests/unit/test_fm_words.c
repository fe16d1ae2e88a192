/* test_fm_words: a text in ARPA format whose words become tokens: known ones keep theirs, new ones get the next, all in the commit that makes it
 * a model; what is refused, fails or is cut off leaves no word. What else there is to such texts is in test_fm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/rng.h"
#include "lm/fm_import.h"
#include "lm/kn_arpa.h"
#include "lm/ngrams.h"
#include "lm/words.h"
#include "support/simdisk.h"

#define BOS 2u
#define EOS 3u
#define ROOM 30000u

static struct simdisk *disk;
static struct cht_env *env;
static struct cht_store *s;
static struct lm_engine *engine;
static struct cht_err err;
static struct cht_rng rng;

static const char good[] =
    "\\data\\\nngram 1=7\nngram 2=4\nngram 3=1\n\n\\1-grams:\n-1\t<unk>\t0\n0\t<s>\t-0.5\n-0.5\t</s>\t0\n"
    "-0.75\tto\t-0.25\n-1.25\tbe\t-0.5\n-2\t12\t0\n-2.5\t\xC3\xA4\v\x65\t0\n\n\\2-grams:\n-0.25\t<s> "
    "to\t-0.125\n"
    "-0.5\tto be\t0\n-0.5\tbe </s>\t0\n-0.5\t12 \xC3\xA4\v\x65\t0\n\n\\3-grams:\n-0.125\t<s> to "
    "be\n\n\\end\\\n";

static void must(enum cht_rc rc)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err.msg);
}

static enum cht_rc start(struct simdisk *d, enum cht_durability how)
{
    static const char *const dirs[] = {"/data"};
    struct cht_env_config cfg = {.dirs = dirs,
                                 .dir_count = 1,
                                 .default_shards = 1,
                                 .durability = how,
                                 .log_segment_bytes = 1 << 20,
                                 .manual_checkpoint = true,
                                 .io = simdisk_io(d)};
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

static struct cht_str bytes(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

static void run(struct cht_op op)
{
    struct cht_commit c = {.ops = &op, .count = 1};
    must(cht_store_commit(s, &c));
}

static void empty(void)
{
    run((struct cht_op){.kind = CHT_OP_PREFIX_DEL, .with_values = true, .name = bytes("")});
}

static uint64_t pairs(const char *prefix)
{
    uint64_t n;
    must(cht_store_count(s, bytes(prefix), &n, &err));
    return n;
}

/* A word of the vocabulary that somebody has written. */
static void put_word(const char *word, uint32_t token)
{
    char voc[80];
    uint8_t tok[8] = "tok:", *number = tok + 4;
    (void)snprintf(voc, sizeof voc, "voc:%s", word);
    for (unsigned i = 0; i < 4; i++)
        number[i] = (uint8_t)(token >> (24 - 8 * i));
    run((struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = bytes(voc), .value = {number, 4}});
    run((struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = {tok, 8}, .value = bytes(word)});
}

/* The word's token, and that the token is the word's; 0: there is none. */
static uint32_t token_of(const char *word)
{
    struct cht_buf buf = {0};
    uint32_t token = 0;
    enum cht_rc rc = lm_word_token(s, bytes(word), &token, &buf, &err);
    if (rc != CHT_PAIR_NOT_FOUND) {
        must(rc);
        must(lm_word_text(s, token, &buf, &err));
        assert_int_equal(buf.len, strlen(word));
        assert_memory_equal(buf.data, word, buf.len);
    }
    cht_buf_free(&buf);
    return token;
}

static bool ascii_only(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)p[i] >= 0x80)
            return false;
    }
    return true;
}

static enum cht_rc book(void *ctx, uint64_t n, struct cht_err *e)
{
    uint64_t *left = ctx;
    if (n > *left)
        return CHT_FAIL(e, CHT_REQUEST_TOO_LARGE, "no more");
    *left -= n;
    return CHT_OK;
}

static struct lm_fm_parameters parameters(void)
{
    return (struct lm_fm_parameters){.bos = BOS, .eos = EOS, .unk = LM_FM_NO_ID, .words = true};
}

/* Reads a text in, in pieces of 1 to `most` bytes; what fails is taken away again. *fresh: words that were given a token. */
static enum cht_rc read_in(const char *p, size_t n, size_t most, const struct lm_fm_parameters *how,
                           size_t *fresh)
{
    struct lm_fm_import *i;
    enum cht_rc rc = lm_fm_import_begin(engine, s, how, &i, &err);
    if (rc != CHT_OK)
        return rc;
    for (size_t at = 0, len; at < n && rc == CHT_OK; at += len) {
        len = most < n ? 1 + (size_t)cht_rng_below(&rng, most) : n;
        len = len < n - at ? len : n - at;
        rc = lm_fm_import_feed(i, s, p + at, len, &err);
    }
    if (rc == CHT_OK)
        rc = lm_fm_import_end(i, s, &err);
    *fresh = lm_fm_import_fresh(i);
    uint64_t id = lm_fm_import_id(i);
    lm_fm_import_free(i);
    struct cht_err other = {0};
    if (rc != CHT_OK)
        (void)lm_fm_drop(engine, s, id, &other);
    return rc;
}

static enum cht_rc read_good(size_t most)
{
    const struct lm_fm_parameters how = parameters();
    size_t fresh;
    return read_in(good, sizeof good - 1, most, &how, &fresh);
}

struct text {
    char p[ROOM];
    size_t n;
};

static bool collect(void *ctx, const char *p, size_t n)
{
    struct text *t = ctx;
    assert_true(n < ROOM - t->n);
    memcpy(t->p + t->n, p, n);
    t->n += n;
    return true;
}

static enum cht_rc write_out(struct text *t, bool words)
{
    t->n = 0;
    return lm_kn_arpa_write(engine, s, words, NULL, collect, t, &err);
}

static void comes_back(void)
{
    static struct text t;
    must(write_out(&t, true));
    assert_int_equal(t.n, sizeof good - 1);
    assert_memory_equal(t.p, good, t.n);
}

/* ---- tests --------------------------------------------------------------------------------------------------------- */

static void test_words_become_tokens(void **state)
{
    static const size_t most[] = {1, 7, SIZE_MAX};
    static struct text t;
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        empty();
        must(read_good(most[i]));
        comes_back();
        /* In the order in which they come; a decimal number is a word like any other. */
        assert_int_equal(token_of("to"), 4);
        assert_int_equal(token_of("be"), 5);
        assert_int_equal(token_of("12"), 6);
        assert_int_equal(token_of("\xC3\xA4\v\x65"), 7);
        assert_int_equal(pairs("voc:"), 4);
        assert_int_equal(pairs("tok:"), 4);
        must(write_out(&t, false));
        t.p[t.n] = 0;
        assert_non_null(strstr(t.p, "\n-0.125\t<s> 4 5\n"));
        assert_non_null(strstr(t.p, "\n-0.5\t6 7\t0\n"));
    }
}

/* The tokens of bos, eos and unk are passed over, wherever they are. */
static void test_partly_known_vocabulary(void **state)
{
    (void)state;
    struct lm_fm_parameters how = parameters();
    size_t fresh;
    put_word("be", 9);
    put_word("other", 8);
    how.bos = 11;
    how.eos = 10;
    how.unk = 13;
    must(read_in(good, sizeof good - 1, 5, &how, &fresh));
    assert_int_equal(fresh, 3);
    assert_int_equal(token_of("be"), 9);
    assert_int_equal(token_of("other"), 8);
    assert_int_equal(token_of("to"), 12);
    assert_int_equal(token_of("12"), 14);
    assert_int_equal(token_of("\xC3\xA4\v\x65"), 15);
    assert_int_equal(pairs("voc:"), 5);
    /* All are known, as after another model of the same words: nothing is given out. */
    static struct text t;
    must(write_out(&t, true));
    run((struct cht_op){.kind = CHT_OP_PREFIX_DEL, .with_values = true, .name = bytes("fm:")});
    run((struct cht_op){.kind = CHT_OP_PREFIX_DEL, .with_values = true, .name = bytes("kn:")});
    must(read_in(good, sizeof good - 1, 5000, &how, &fresh));
    assert_int_equal(fresh, 0);
    assert_int_equal(pairs("tok:"), 5);
    static struct text again;
    must(write_out(&again, true));
    assert_int_equal(t.n, again.n);
    assert_memory_equal(t.p, again.p, t.n);
}

struct bad {
    const char *old, *now, *what; /* what: the message begins with it; NULL: it is taken */
};

static const struct bad bads[] = {
    {"-1.25\tbe", "-1.25\tto", "lines 10 and 11 have the same n-gram"},
    {"-0.5\tbe </s>", "-0.5\tto be", "lines 17 and 18 have the same n-gram"},
    {"-0.5\tto be", "-0.5\tto bee", "line 17: the word 'bee' is no 1-gram"},
    {"-0.5\tto be", "-0.5\tTo be", "line 17: the word 'To' is no 1-gram"},
    {"-0.125\t<s> to be", "-0.125\tbe to be", "line 22: its first 2 words are no n-gram"},
    {"-1.25\tbe", "-1.25\tknown", "line 11: the word 'known' has the token 3 in the vocabulary"},
    {"-1.25\tbe", "1.25\tbe", "line 11: log10 p is above 0"},
    {"ngram 1=7", "ngram 1=8", "line 15: section 1 has 7 n-grams"},
    {"\\end\\\n", "", "the text is cut off"},
    {"-0.5\t</s>", "-0.5\tmore", "line 15: there is no </s>"},
    {"-1\t<unk>", "-1\t<UNK>", NULL},
    {"-0.5\tto be", "-0.5\t<unk> <unk>", NULL}, /* the suffix of "<s> to be" is not there */
};

static void test_refused_leaves_no_word(void **state)
{
    static char text[4 * sizeof good];
    const struct lm_fm_parameters how = parameters();
    size_t fresh;
    (void)state;
    for (size_t i = 0; i < 2 * (sizeof bads / sizeof *bads); i++) {
        const struct bad *b = &bads[i / 2];
        const char *at = strstr(good, b->old);
        assert_non_null(at);
        int n = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, b->now, at + strlen(b->old));
        empty();
        put_word("known", 3);
        enum cht_rc rc = read_in(text, (size_t)n, i % 2 == 0 ? SIZE_MAX : 3, &how, &fresh);
        if (b->what == NULL) {
            must(rc);
            continue;
        }
        if (rc != CHT_INVALID_ARPA || strncmp(err.msg, b->what, strlen(b->what)) != 0)
            fail_msg("'%s': %d %s", b->now, (int)rc, err.msg);
        assert_int_equal(pairs(""), 2);
    }
}

/* A word that cannot be one of the vocabulary: a NUL, too long, what the caller does not take. */
static void test_words_that_are_none(void **state)
{
    static char text[3 * CHT_NAME_MAX], letters[LM_WORD_MAX + 2];
    struct lm_fm_parameters how = parameters();
    size_t fresh, before = (size_t)(strstr(good, "be\t") - good);
    (void)state;
    memset(letters, 'x', LM_WORD_MAX + 1);
    for (unsigned more = 0; more < 2; more++) {
        int n = snprintf(text, sizeof text,
                         "\\data\\\nngram 1=3\n\\1-grams:\n0\t<s>\n0\t</s>\n-1\t%.*s\n\\end\\\n",
                         (int)(LM_WORD_MAX + more), letters);
        enum cht_rc rc = read_in(text, (size_t)n, 100, &how, &fresh);
        assert_int_equal(rc, more == 0 ? CHT_OK : CHT_INVALID_ARPA);
        if (more == 1)
            assert_string_equal(err.msg, "line 6: a word of more than 4092 bytes");
        assert_int_equal(pairs("voc:"), more == 0 ? 1 : 0);
        empty();
    }
    memcpy(text, good, sizeof good);
    for (unsigned i = 0; i < 2; i++) {
        text[before + 1] = i == 0 ? 0 : '\r';
        assert_int_equal(read_in(text, sizeof good - 1, SIZE_MAX, &how, &fresh), CHT_INVALID_ARPA);
        assert_string_equal(err.msg, "line 11: a word of 2 bytes has a NUL or a carriage return in it");
    }
    how.is_text = ascii_only;
    assert_int_equal(read_in(good, sizeof good - 1, SIZE_MAX, &how, &fresh), CHT_INVALID_ARPA);
    assert_string_equal(err.msg, "line 13: a word of 4 bytes is not UTF-8");
    assert_int_equal(pairs(""), 0);
}

/* Nothing is counted while a model is read in, so nobody else gives tokens; a client that writes the pairs by hand is noticed. */
static void test_who_else_writes_words(void **state)
{
    const struct lm_fm_parameters how = parameters();
    struct lm_fm_import *i;
    struct lm_ngrams *g;
    struct lm_ngrams_result out;
    size_t tokens;
    (void)state;
    must(lm_ngrams_begin(2, &g, &err));
    must(lm_ngrams_add_text(g, bytes("to dream"), false, &tokens, &err));
    must(lm_fm_import_begin(engine, s, &how, &i, &err));
    must(lm_fm_import_feed(i, s, good, sizeof good - 1, &err));
    assert_int_equal(lm_ngrams_commit(engine, s, g, &out, &err), CHT_FIXED_MODEL);
    assert_int_equal(pairs("voc:"), 0);
    put_word("dream", 5);
    assert_int_equal(lm_fm_import_end(i, s, &err), CHT_MODEL_EXISTS);
    uint64_t id = lm_fm_import_id(i);
    lm_fm_import_free(i);
    must(lm_fm_drop(engine, s, id, &err));
    assert_int_equal(pairs(""), 2);
    must(read_good(100));
    assert_int_equal(token_of("to"), 6);
    assert_int_equal(token_of("dream"), 5);
    comes_back();
    assert_int_equal(lm_ngrams_commit(engine, s, g, &out, &err), CHT_FIXED_MODEL);
    assert_int_equal(pairs("voc:"), 5);
    lm_ngrams_free(g);
}

/* The last token but one is free, and the text has four words. */
static void test_no_more_tokens(void **state)
{
    const struct lm_fm_parameters how = parameters();
    size_t fresh;
    (void)state;
    put_word("last", LM_WORD_UNKNOWN - 2);
    assert_int_equal(read_in(good, sizeof good - 1, 50, &how, &fresh), CHT_KEYS_EXHAUSTED);
    assert_int_equal(pairs(""), 2);
}

static void test_no_memory(void **state)
{
    (void)state;
    unsigned failed = 0;
    for (uint64_t n = 1;; n++) {
        empty();
        put_word("be", 9);
        cht_alloc_fail_at(n, false);
        enum cht_rc rc = read_good(200);
        bool injected = cht_alloc_failures() > 0;
        cht_alloc_fail_at(0, false);
        if (rc == CHT_OK && !injected)
            break;
        if (rc != CHT_OK) {
            assert_int_equal(rc, CHT_NO_MEMORY);
            assert_int_equal(pairs("voc:"), 1);
            failed++;
            must(read_good(200)); /* what it may have left is not in the way */
        }
        assert_int_equal(pairs("voc:"), 4);
        assert_int_equal(token_of("to"), 10);
    }
    assert_true(failed > 10);
    /* Words are booked before they are in memory. */
    empty();
    struct lm_fm_parameters how = parameters();
    uint64_t left = 80 << 10;
    size_t fresh;
    static char text[ROOM];
    int n = snprintf(text, sizeof text, "\\data\\\nngram 1=999\n\\1-grams:\n0\t<s>\n0\t</s>\n");
    for (unsigned i = 0; i < 900; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, "-1\tw%u\n", i);
    how.book = book;
    how.ctx = &left;
    assert_int_equal(read_in(text, (size_t)n, 1000, &how, &fresh), CHT_REQUEST_TOO_LARGE);
    assert_true(fresh > 20 && fresh < 200);
    assert_int_equal(pairs(""), 0);
}

/* The model is there with all its words, or it is not, and neither is any of them. */
static void check_all_or_nothing(void)
{
    static struct text t;
    enum cht_rc rc = write_out(&t, true);
    if (rc == CHT_OK) {
        comes_back();
    } else {
        assert_true(rc == CHT_PAIR_NOT_FOUND || rc == CHT_FIXED_MODEL);
        assert_int_equal(pairs("voc:") + pairs("tok:"), 0);
        must(read_good(SIZE_MAX));
        comes_back();
    }
    assert_int_equal(pairs("voc:"), 4);
    assert_int_equal(pairs("tok:"), 4);
}

static void test_power_cuts_and_faults(void **state)
{
    (void)state;
    stop();
    struct simdisk *d = simdisk_new();
    must(start(d, CHT_DURABLE_SYNC));
    must(read_good(SIZE_MAX));
    stop();
    struct simcut *cut = simcut_new(d);
    unsigned cuts = 0;
    while (simcut_step(cut)) {
        struct simdisk *left = simcut_disk(cut, cuts % 2 == 0 ? SIM_DROP : SIM_SUBSET, &rng);
        cuts++;
        simdisk_forget(left);
        must(start(left, CHT_DURABLE_OS));
        check_all_or_nothing();
        stop();
        simdisk_free(left);
    }
    assert_true(cuts > 10);
    simcut_free(cut);
    simdisk_free(d);
    unsigned failed = 0;
    for (uint64_t n = 1;; n++) {
        d = simdisk_new();
        simdisk_forget(d);
        must(start(d, CHT_DURABLE_SYNC));
        simdisk_fail_at(d, n, n % 2 == 0 ? SIM_EIO : SIM_FULL, false);
        failed += read_good(SIZE_MAX) != CHT_OK;
        bool injected = simdisk_injected(d) > 0;
        simdisk_fail_at(d, 0, SIM_NONE, false);
        stop();
        must(start(d, CHT_DURABLE_OS));
        check_all_or_nothing();
        stop();
        simdisk_free(d);
        if (!injected)
            break;
    }
    assert_true(failed > 3);
    must(start(disk, CHT_DURABLE_OS)); /* for teardown */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_words_become_tokens, setup, teardown),
        cmocka_unit_test_setup_teardown(test_partly_known_vocabulary, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_leaves_no_word, setup, teardown),
        cmocka_unit_test_setup_teardown(test_words_that_are_none, setup, teardown),
        cmocka_unit_test_setup_teardown(test_who_else_writes_words, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_more_tokens, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_power_cuts_and_faults, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
