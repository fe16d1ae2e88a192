/* test_rados_links: links and matrices whose run replaces more old ones than a commit takes away (reduce_too_many), by servers that end anywhere:
 * nobody sees old ones beside new ones, and the next run brings it to its end. Needs CHT_RADOS_CONF (run.sh).
 *
 * librados does not survive a fork, so each part of a test is a process of its own that connects by itself.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "cheetah/rados.h"
#include "cheetah/scan.h"
#include "lm/matrix.h"
#include "reduce/links.h"
#include "reduce/matrix.h"
#include "reduce/move.h"
#include "reduce/payload.h"

#define OLD (REDUCE_REMOTE_OLD + 60u)
#define ROWS 3u
#define BATCH 1000u
#define OLD_TOKEN 1000u

static const char *conf;
static char name[32];
static struct cht_store *store; /* of this process */
static unsigned end_at, steps;  /* of this process: the number of the step before which it ends; 0: none */

/* A server that ends keeps its lock for half a minute: this one gives it back. */
static void count_step(void *ctx, const char *step)
{
    (void)ctx;
    (void)step;
    if (end_at == 0 || ++steps != end_at)
        return;
    cht_store_unlock(store, REDUCE_LINKS_LOCK);
    _exit(9);
}

static bool open_pool(struct cht_env **env)
{
    struct cht_err err = {0};
    struct cht_rados_config cfg = {
        .pool = "cheetah", .conf = conf, .settle_ms = 100, .default_shards = 2, .step = count_step};
    enum cht_rc rc = cht_rados_open(&cfg, env, &err);
    if (rc == CHT_OK && cht_env_get(*env, name, &store, &err) == CHT_DATABASE_NOT_FOUND) {
        rc = cht_env_create(*env, name, 2, &err);
        if (rc == CHT_OK)
            rc = cht_env_get(*env, name, &store, &err);
    }
    if (rc != CHT_OK)
        print_error("%s\n", err.msg);
    return rc == CHT_OK;
}

/* The exit code of a process that does this: 0, 1 if it returned false, 9 if it ended before the step. */
static int run(bool (*fn)(void), unsigned at)
{
    int status = 0;
    pid_t p = fork();
    if (p == 0) {
        struct cht_env *env;
        bool good = open_pool(&env);
        end_at = at;
        good = good && fn();
        end_at = 0;
        _exit(good && cht_env_close(env, NULL) == CHT_OK ? 0 : 1);
    }
    assert_int_equal(waitpid(p, &status, 0), p);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int setup(void **state)
{
    static unsigned n;
    (void)state;
    (void)snprintf(name, sizeof name, "l%u-%u", (unsigned)getpid(), n++);
    return 0;
}

static struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

static bool said(bool good, const char *what)
{
    if (!good)
        print_error("%s\n", what);
    return good;
}
#define CHECK(x) said((x), #x)

static bool put_all(struct cht_op *ops, size_t n)
{
    struct cht_commit c = {.ops = ops, .count = n};
    return cht_store_commit(store, &c) == CHT_OK && c.failed == 0;
}

/* n pairs <prefix><4 bytes or text> with one value. */
static bool fill(const char *prefix, bool tokens, unsigned n, struct cht_str value)
{
    static char names[BATCH][40];
    static struct cht_op ops[BATCH];
    bool good = true;
    for (unsigned i = 0; i < n && good;) {
        unsigned k = 0;
        for (; k < BATCH && i < n; k++, i++) {
            size_t len = strlen(prefix);
            memcpy(names[k], prefix, len);
            if (tokens)
                reduce_payload_put32((uint8_t *)names[k] + len, OLD_TOKEN + i);
            len += tokens ? 4 : (size_t)snprintf(names[k] + len, sizeof *names - len, "%05u", i);
            ops[k] =
                (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = {(uint8_t *)names[k], len}, .value = value};
        }
        good = put_all(ops, k);
    }
    return good;
}

static uint64_t count(const char *prefix)
{
    struct cht_err err = {0};
    uint64_t n = 0;
    if (cht_store_count(store, str(prefix), &n, &err) != CHT_OK)
        print_error("%s: %s\n", prefix, err.msg);
    return n;
}

static bool is_there(const char *pair)
{
    uint64_t key;
    return cht_store_pair(store, str(pair), &key, NULL) == CHT_OK;
}

/* ---- links ----------------------------------------------------------------------------------------------------------- */

static bool old_links(void)
{
    static const char *const names[ROWS] = {"x:a", "x:b", "x:c"};
    static const uint8_t row[] = {1, 2, 0, 1, 0, 0, 0, 7, 0, 0, 0, 1}, empty[] = {1, 0, 0};
    struct cht_op ops[ROWS + 1] = {
        {.kind = CHT_OP_PAIR_PUT, .name = str("link:cosine:y:a"), .value = {empty, sizeof empty}}};
    for (unsigned i = 0; i < ROWS; i++)
        ops[1 + i] =
            (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(names[i]), .value = {row, sizeof row}};
    return CHECK(put_all(ops, ROWS + 1)) &&
           CHECK(fill("link:cosine:x:old", false, OLD, (struct cht_str){empty, sizeof empty}));
}

static bool make_links(void)
{
    struct reduce_links_config cfg = {.prefix = str("x:"), .k = 3, .threads = 1};
    struct reduce_links_result result;
    struct cht_err err = {0};
    return said(reduce_links_run(store, &cfg, &result, &err) == CHT_OK, err.msg) &&
           CHECK(result.contexts == ROWS);
}

static bool has_list(const char *list)
{
    struct cht_buf b = {0};
    struct cht_err err = {0};
    uint32_t size = 0;
    enum cht_rc rc = reduce_links_read(store, str(list), &b, &size, &err);
    bool good =
        rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && reduce_links_payload((struct cht_str){b.data, size}));
    cht_buf_free(&b);
    return said(good, err.msg) && rc == CHT_OK;
}

/* All old lists and no new one, or all new ones and no old one; what is under another prefix stays. */
static bool no_mixed_links(void)
{
    bool made = has_list("link:cosine:x:a"), any = false, good = true;
    for (unsigned i = 0; i < OLD; i += i < OLD - 61 ? 60 : 1) {
        char list[40];
        (void)snprintf(list, sizeof list, "link:cosine:x:old%05u", i);
        good = good && CHECK(has_list(list) == !made);
    }
    good = CHECK(has_list("link:cosine:x:b") == made && has_list("link:cosine:x:c") == made) && good;
    good = CHECK(has_list("link:cosine:y:a") && !has_list("link:cosine:x:none")) && good;
    good = CHECK(reduce_links_any(store, str("link:cosine:x:"), &any, NULL) == CHT_OK && any) && good;
    return CHECK(reduce_links_any(store, str("link:pmi:x:"), &any, NULL) == CHT_OK && !any) && good;
}

static bool links_are_done(void)
{
    return no_mixed_links() && CHECK(count("link:cosine:") == ROWS + 1 && is_there("link:cosine:x:a")) &&
           CHECK(count("linking:") == 0 && count("") == 2 * ROWS + 1);
}

/* Each server does some steps: all that it did stays, so that they come to the end. */
static void by_many(bool (*make)(void), bool (*look)(void))
{
    int ended = 9;
    unsigned servers = 0;
    while (ended == 9 && servers < 100) {
        ended = run(make, 14 + 3 * (servers++ % 3));
        assert_int_equal(run(look, 0), 0);
    }
    print_message("%u servers\n", servers);
    assert_int_equal(ended, 0);
    assert_true(servers > 2);
}

static void test_old_links(void **state)
{
    (void)state;
    assert_int_equal(run(old_links, 0), 0);
    by_many(make_links, no_mixed_links);
    assert_int_equal(run(links_are_done, 0), 0);
}

/* ---- matrices --------------------------------------------------------------------------------------------------------- */

static bool old_rows(void)
{
    static const uint8_t counts[] = {1, 2, 0, 1, 0, 0, 0, 7, 0, 0, 0, 2}, context[] = {1, 1, 1, 0, 0, 0, 5};
    uint8_t row[64];
    size_t n = reduce_matrix_begin(row, 2, REDUCE_MATRIX_COUNT, 1);
    reduce_matrix_put(row + n, 3, 4.0);
    n += REDUCE_MATRIX_RECORD;
    struct cht_op ops[] = {
        {.kind = CHT_OP_PAIR_PUT, .name = str("cnt:2:h"), .value = {counts, sizeof counts}},
        {.kind = CHT_OP_PAIR_PUT, .name = str("ctx:h"), .value = {context, sizeof context}}};
    return CHECK(put_all(ops, 2)) && CHECK(fill("mat:2:", true, OLD / 2 + 1, (struct cht_str){row, n})) &&
           CHECK(fill("matt:2:", true, OLD / 2 + 1, (struct cht_str){row, n}));
}

static bool make_matrix(void)
{
    struct lm_matrix_config cfg = {.prefix = str("cnt:2:"), .metric = REDUCE_MATRIX_COUNT};
    struct cht_err err = {0};
    uint64_t malformed = 0;
    return said(lm_matrix_run(store, &cfg, &malformed, &err) == CHT_OK, err.msg) && CHECK(malformed == 0);
}

/* Old rows, or none, or new ones. */
static bool no_mixed_rows(void)
{
    bool good = true, old = false, new = false;
    for (unsigned i = 0; i < 2; i++) {
        struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = str(i == 0 ? "mat:2:" : "matt:2:")};
        struct cht_scan *scan = NULL;
        struct cht_entry e[64];
        size_t n = 1;
        good = CHECK(cht_scan_open(store, &cfg, &scan, NULL) == CHT_OK) && good;
        while (good && n > 0) {
            good = CHECK(cht_scan_next(scan, e, 64, &n, NULL) == CHT_OK);
            for (size_t k = 0; k < n && good; k++) {
                uint32_t token = reduce_payload_get32(e[k].name + cfg.prefix.n);
                old = old || token >= OLD_TOKEN;
                new = new || token < OLD_TOKEN;
            }
        }
        cht_scan_close(scan);
    }
    return CHECK(!(old && new)) && good;
}

static bool matrix_is_done(void)
{
    return no_mixed_rows() && CHECK(count("mat:2:") == 1 && count("matt:2:") == 1) && CHECK(count("") == 4);
}

static void test_old_matrix(void **state)
{
    (void)state;
    assert_int_equal(run(old_rows, 0), 0);
    by_many(make_matrix, no_mixed_rows);
    assert_int_equal(run(matrix_is_done, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup(test_old_links, setup),
                                       cmocka_unit_test_setup(test_old_matrix, setup)};
    conf = getenv("CHT_RADOS_CONF");
    if (conf == NULL) {
        print_message("no cluster (CHT_RADOS_CONF): skipped\n");
        return 0;
    }
    return cmocka_run_group_tests_name("links", tests, NULL, NULL);
}
