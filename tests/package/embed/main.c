/* A program against the installed library: values, pairs, a scan, n-grams, a reducer. Prints what test_install.py compares; the exit code is
 * 0 only if every call did what its header says. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <cheetah/backup.h>
#include <cheetah/lm.h>
#include <cheetah/reduce.h>
#include <cheetah/scan.h>
#include <cheetah/store.h>
#include <cheetah/sweep.h>

static int failed(const char *what, const struct cht_err *err)
{
    (void)fprintf(stderr, "%s: %s: %s\n", what, cht_rc_slug(err->code), err->msg);
    return 1;
}

static struct cht_str str(const char *s) { return (struct cht_str){(const uint8_t *)s, strlen(s)}; }

static int values(struct cht_store *s)
{
    struct cht_err err = {0};
    struct cht_op op = {.kind = CHT_OP_PAIR_PUT, .name = str("greeting:en"), .value = str("hello")};
    struct cht_commit c = {.ops = &op, .count = 1};
    struct cht_buf buf = {0};
    uint64_t key, pairs;
    uint32_t size;
    if (cht_store_commit(s, &c) != CHT_OK)
        return failed("commit", &c.err);
    if (cht_store_pair_value(s, str("greeting:en"), &key, &buf, &size, &err) != CHT_OK)
        return failed("read", &err);
    (void)printf("value %.*s\n", (int)buf.len, (const char *)buf.data);
    cht_buf_free(&buf);
    if (cht_store_count(s, str("greeting:"), &pairs, &err) != CHT_OK)
        return failed("count", &err);
    (void)printf("pairs %" PRIu64 "\n", pairs);
    return 0;
}

static int statistics(struct cht_store *s)
{
    static const uint32_t one[] = {2, 11, 12, 13, 3}, two[] = {2, 11, 12, 14, 3}, three[] = {2, 12, 13, 3};
    const struct cht_lm_document documents[] = {{one, 5}, {two, 5}, {three, 4}};
    const struct cht_lm_smooth_config smooth = {.lo = 1, .hi = 3};
    struct cht_err err = {0};
    struct cht_lm *lm;
    struct cht_lm_counted counted;
    struct cht_lm_scored scored;
    struct cht_lm_candidate best[3];
    struct cht_reduced totals;
    size_t n;
    if (cht_lm_new(&lm, &err) != CHT_OK)
        return failed("lm", &err);
    if (cht_lm_count(lm, s, NULL, documents, 3, &counted, &err) != CHT_OK ||
        cht_lm_smooth(lm, s, &smooth, &err) != CHT_OK)
        return failed("count, smooth", &err);
    (void)printf("ngrams %" PRIu64 "\n", counted.ngrams);
    if (cht_lm_predict(lm, s, one, 2, 3, best, &n, &err) != CHT_OK)
        return failed("predict", &err);
    (void)printf("next %" PRIu32 " order %u\n", n > 0 ? best[0].token : 0, n > 0 ? best[0].order : 0);
    if (cht_lm_score(lm, s, one, 5, &scored, &err) != CHT_OK)
        return failed("score", &err);
    (void)printf("scored %" PRIu64 "\n", scored.tokens);
    cht_lm_free(lm);
    const struct cht_reduce_config config = {
        .prefix = str("cnt:1:"), .sort = CHT_REDUCE_BY_COUNT, .limit = 1};
    if (cht_reduce(s, "totals", &config, &totals, &err) != CHT_OK)
        return failed("reduce", &err);
    (void)printf("totals %.*s", (int)totals.lines.len, (const char *)totals.lines.data);
    cht_buf_free(&totals.lines);
    if (cht_reduce(s, "nothing", NULL, &totals, &err) != CHT_UNKNOWN_MODE)
        return failed("an unknown mode", &err);
    return 0;
}

static int live(struct cht_env *env)
{
    static const uint32_t text[] = {2, 11, 12, 3};
    const struct cht_lm_document document = {text, 4};
    const struct cht_lm_live_config config = {.order = 3, .bos = 2, .has_eos = true, .eos = 3};
    const struct cht_lm_count_config once = {.once = "first"}, bad = {.once = "no blanks"};
    struct cht_err err = {0};
    struct cht_store *s;
    struct cht_lm *lm;
    struct cht_lm_counted counted;
    struct cht_lm_candidate best;
    struct cht_lm_scored scored;
    size_t n;
    if (cht_env_create(env, "live", 1, &err) != CHT_OK || cht_env_get(env, "live", &s, &err) != CHT_OK ||
        cht_lm_new(&lm, &err) != CHT_OK)
        return failed("live", &err);
    if (cht_lm_live(lm, s, &config, &err) != CHT_OK ||
        cht_lm_count(lm, s, &once, &document, 1, &counted, &err) != CHT_OK ||
        cht_lm_count(lm, s, &once, &document, 1, &counted, &err) != CHT_OK || !counted.repeated)
        return failed("live count", &err);
    if (cht_lm_count(lm, s, &bad, &document, 1, &counted, &err) != CHT_INVALID_ARGUMENT)
        return failed("an identifier that is none", &err);
    if (cht_lm_predict(lm, s, text, 2, 1, &best, &n, &err) != CHT_OK || n != 1)
        return failed("live predict", &err);
    if (cht_lm_score(lm, s, text, 4, &scored, &err) != CHT_OK)
        return failed("live score", &err);
    (void)printf("live %" PRIu32 " %" PRIu64 " oov %" PRIu64 "\n", best.token, scored.tokens, scored.oov);
    cht_lm_free(lm);
    return 0;
}

int main(int argc, char **argv)
{
    const char *dir = argc > 1 ? argv[1] : "";
    const struct cht_env_config cfg = {.dirs = &dir, .dir_count = 1};
    struct cht_err err = {0};
    struct cht_env *env;
    struct cht_store *s;
    if (cht_env_open(&cfg, &env, &err) != CHT_OK || cht_env_create(env, "default", 2, &err) != CHT_OK ||
        cht_env_get(env, "default", &s, &err) != CHT_OK)
        return failed("open", &err);
    if (values(s) != 0 || statistics(s) != 0 || live(env) != 0)
        return 1;
    return cht_env_close(env, &err) == CHT_OK ? 0 : failed("close", &err);
}
