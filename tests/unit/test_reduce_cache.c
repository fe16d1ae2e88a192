/* test_reduce_cache: which writes drop a cached answer and which leave it, bounds, life beyond the store's, watches; and, with
 * writers and readers side by side, that no answer is served that a write already answered had made stale.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "cheetah/scan.h"
#include "support/reducing.h"

/* ---- the cache ------------------------------------------------------------------------------------------------- */

static struct reduce_cache *cache;

/* Runs through the cache; the answer's text lands in `out`. */
static bool cached(const char *name, const struct reduce_params *p, char *out, size_t cap)
{
    const struct reduce_answer *a;
    bool hit;
    assert_int_equal(reduce_cache_run(cache, red.s, mode(name), p, NULL, &a, &hit, &red.err), CHT_OK);
    size_t n = a->len < cap - 1 ? a->len : cap - 1;
    memcpy(out, a->lines, n);
    out[n] = 0;
    reduce_answer_release(a);
    return hit;
}

static bool stats_hit(const char *prefix)
{
    char text[256], want[256];
    struct reduce_params p = {.prefix = str(prefix)};
    struct cht_buf b = {0};
    uint64_t count, malformed;
    bool hit = cached("stats", &p, text, sizeof text);
    assert_int_equal(reduce_aggregate_run(red.s, mode("stats"), &p, &b, &count, &malformed, NULL, &red.err),
                     CHT_OK);
    (void)snprintf(want, sizeof want, "%.*s", (int)b.len, (char *)b.data);
    assert_string_equal(text, want);
    cht_buf_free(&b);
    return hit;
}

/* After the operation: does a watched answer for "cnt:" still count? */
static bool survives(struct cht_op op)
{
    (void)stats_hit("cnt:");
    assert_true(stats_hit("cnt:"));
    assert_int_equal(run_op(&op), CHT_OK);
    return stats_hit("cnt:");
}

static void test_cache_writes(void **state)
{
    (void)state;
    assert_int_equal(reduce_cache_new(8u << 20, &cache, &red.err), CHT_OK);
    fill_counts("cnt:1:", 300, 3);
    fill_counts("prob:1:", 300, 3);
    struct cht_str v = str("value");
    uint64_t inner, outer, dangling = 7000001;
    assert_int_equal(cht_store_pair(red.s, str("cnt:1:0000005"), &inner, &red.err), CHT_OK);
    assert_int_equal(cht_store_pair(red.s, str("prob:1:0000005"), &outer, &red.err), CHT_OK);

    for (int i = 0; i < 500; i++) { /* new names and keys elsewhere, reads */
        char name[32];
        (void)snprintf(name, sizeof name, "prob:new:%d", i);
        assert_true(survives((struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(name), .value = v}));
        assert_true(survives((struct cht_op){.kind = CHT_OP_INSERT, .value = v}));
    }
    assert_true(survives((struct cht_op){.kind = CHT_OP_PAIR_READ, .name = str("cnt:1:0000005")}));
    assert_true(survives((struct cht_op){.kind = CHT_OP_PAIR_SET, .name = str("other"), .key = inner}));
    assert_true(survives((struct cht_op){.kind = CHT_OP_PAIR_DEL, .name = str("prob:new:1")}));
    int kept = 0; /* values elsewhere: the filter may be wrong, rarely */
    for (int i = 0; i < 200; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "prob:1:%07d", i);
        kept += survives((struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = str(name), .value = v});
    }
    assert_true(kept >= 180);

    struct cht_op stale[] = {
        {.kind = CHT_OP_PAIR_PUT, .name = str("cnt:1:0000005"), .value = v},
        {.kind = CHT_OP_PAIR_PUT, .name = str("cnt:new"), .value = v},
        {.kind = CHT_OP_EDIT, .key = inner, .value = str("longer value")},
        {.kind = CHT_OP_PAIR_PUT, .name = str("other"), .value = str("by its other name")},
        {.kind = CHT_OP_PAIR_SET, .name = str("cnt:new"), .key = dangling},
        {.kind = CHT_OP_PAIR_LINK, .name = str("cnt:link"), .value = str("prob:1:0000005")},
        {.kind = CHT_OP_EDIT, .key = outer, .value = str("seen through the link")},
        {.kind = CHT_OP_PAIR_DEL, .name = str("other"), .with_values = true},
        {.kind = CHT_OP_DELETE, .key = outer},
        {.kind = CHT_OP_PAIR_DEL, .name = str("cnt:1:0000006")},
        {.kind = CHT_OP_PREFIX_DEL, .name = str("cnt:1:00000")},
        {.kind = CHT_OP_PREFIX_DEL, .name = str("c")},
        {.kind = CHT_OP_PREFIX_DEL, .name = str("prob:"), .with_values = true},
    };
    for (size_t i = 0; i < sizeof stale / sizeof *stale; i++)
        assert_false(survives(stale[i]));
    assert_false(survives((struct cht_op){.kind = CHT_OP_PAIR_SET, .name = str("cnt:d"), .key = 1001}));
    reduce_cache_free(cache);
}

/* A pair without a value: the INSERT that gives its key out makes it one. */
static void test_cache_dangling(void **state)
{
    (void)state;
    assert_int_equal(reduce_cache_new(8u << 20, &cache, &red.err), CHT_OK);
    struct cht_op op = {.kind = CHT_OP_INSERT, .value = str("v")};
    assert_int_equal(run_op(&op), CHT_OK);
    struct cht_op set = {.kind = CHT_OP_PAIR_SET, .name = str("cnt:d"), .key = op.key + 3};
    assert_int_equal(run_op(&set), CHT_OK);
    uint64_t last = op.key;
    do {
        bool kept = survives((struct cht_op){.kind = CHT_OP_INSERT, .value = str("v")});
        last++;
        assert_true(kept == (last != set.key));
    } while (last < set.key + 5);
    /* a commit that fails as a whole changes nothing */
    struct cht_op ops[] = {{.kind = CHT_OP_PAIR_PUT, .name = str("cnt:x"), .value = str("v")},
                           {.kind = CHT_OP_DELETE, .key = 999999}};
    struct cht_commit c = {.ops = ops, .count = 2, .flags = CHT_COMMIT_ATOMIC};
    (void)stats_hit("cnt:");
    assert_int_equal(cht_store_commit(red.s, &c), CHT_BATCH_FAILED);
    assert_true(stats_hit("cnt:"));
    c.flags = 0;
    assert_int_equal(cht_store_commit(red.s, &c), CHT_OK);
    assert_false(stats_hit("cnt:"));
    reduce_cache_free(cache);
}

static void test_cache_keys(void **state)
{
    (void)state;
    char a[4096], b[4096];
    struct reduce_cache_stats st;
    assert_int_equal(reduce_cache_new(4u << 20, &cache, &red.err), CHT_OK);
    fill_counts("cnt:1:", 50, 3);
    struct reduce_params p = {.prefix = str("cnt:1:")};
    assert_false(cached("totals", &p, a, sizeof a));
    p.sort = REDUCE_SORT_COUNT;
    assert_false(cached("totals", &p, a, sizeof a));
    p.limit = 2;
    assert_false(cached("totals", &p, a, sizeof a));
    assert_true(cached("totals", &p, b, sizeof b));
    assert_string_equal(a, b);
    p.metric = REDUCE_JACCARD; /* nothing to totals */
    assert_true(cached("totals", &p, b, sizeof b));
    p.after = str("cnt:1:0000003");
    assert_false(cached("totals", &p, a, sizeof a));
    assert_false(cached("stats", &p, a, sizeof a));
    assert_true(cached("stats", &p, a, sizeof a));

    /* the target of `similar` may lie elsewhere */
    put("target", "\1\1\0\1\0\0\0\3\0\0\0\1", 12);
    struct reduce_params q = {.prefix = str("cnt:1:"), .to = str("target")};
    assert_false(cached("similar", &q, a, sizeof a));
    q.limit = REDUCE_SIMILAR_DEFAULT;
    assert_true(cached("similar", &q, a, sizeof a));
    put("target", "\1\1\0\1\0\0\0\4\0\0\0\1", 12);
    assert_false(cached("similar", &q, a, sizeof a));
    assert_true(cached("similar", &q, a, sizeof a));
    uint64_t key = put("elsewhere", "\1\1\0\1\0\0\0\7\0\0\0\1", 12);
    struct cht_op set = {.kind = CHT_OP_PAIR_SET, .name = str("target"), .key = key};
    assert_int_equal(run_op(&set), CHT_OK);
    assert_false(cached("similar", &q, b, sizeof b));
    assert_string_not_equal(a, b);
    put("elsewhere", "\1\1\0\1\0\0\0\6\0\0\0\1", 12);
    assert_false(cached("similar", &q, b, sizeof b));
    q.to = str("cnt:1:0000004"); /* inside, but not in what is swept */
    q.after = str("cnt:1:0000010");
    assert_false(cached("similar", &q, b, sizeof b));
    assert_true(cached("similar", &q, b, sizeof b));
    struct cht_op edit = {.kind = CHT_OP_EDIT, .value = str("\1\1")};
    assert_int_equal(cht_store_pair(red.s, q.to, &edit.key, &red.err), CHT_OK);
    assert_int_equal(run_op(&edit), CHT_OK);
    const struct reduce_answer *none;
    bool hit;
    assert_int_equal(reduce_cache_run(cache, red.s, mode("similar"), &q, NULL, &none, &hit, &red.err),
                     CHT_INVALID_ARGUMENT);
    reduce_cache_forget(cache, red.s);
    reduce_cache_read_stats(cache, &st);
    assert_int_equal(st.answers, 0);
    assert_int_equal(st.bytes, 0);
    reduce_cache_free(cache);
}

static void test_cache_bounds(void **state)
{
    (void)state;
    struct reduce_cache_stats st;
    char name[32], text[256];
    fill_counts("cnt:1:", 50, 3);
    assert_int_equal(reduce_cache_new(64u << 20, &cache, &red.err), CHT_OK);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3 * (int)CHT_WATCH_MAX; i++) { /* more prefixes than watches */
            (void)snprintf(name, sizeof name, "p%03d", i);
            assert_false(stats_hit(name));
        }
    }
    assert_true(stats_hit(name));
    reduce_cache_read_stats(cache, &st);
    assert_int_equal(st.answers, CHT_WATCH_MAX);
    reduce_cache_free(cache);

    assert_int_equal(reduce_cache_new(20000, &cache, &red.err), CHT_OK);
    for (int i = 0; i < 500; i++) {
        (void)snprintf(name, sizeof name, "cnt:1:%07d", i);
        struct reduce_params p = {.prefix = str("cnt:1:"), .after = str(name)};
        assert_false(cached("stats", &p, text, sizeof text));
        assert_true(cached("stats", &p, text, sizeof text));
        reduce_cache_read_stats(cache, &st);
        assert_true(st.bytes <= 20000);
    }
    assert_true(st.answers > 5 && st.answers < 100);
    reduce_cache_free(cache);

    assert_int_equal(reduce_cache_new(0, &cache, &red.err), CHT_OK);
    assert_false(stats_hit("cnt:"));
    assert_false(stats_hit("cnt:"));

    /* answers outlive the cache, the cache outlives the store */
    reduce_cache_free(cache);
    assert_int_equal(reduce_cache_new(1u << 20, &cache, &red.err), CHT_OK);
    const struct reduce_answer *a;
    bool hit;
    struct reduce_params p = {.prefix = str("cnt:")};
    assert_int_equal(reduce_cache_run(cache, red.s, mode("stats"), &p, NULL, &a, &hit, &red.err), CHT_OK);
    assert_int_equal(cht_env_close(red.env, &red.err), CHT_OK);
    reducing_open();
    assert_int_equal(cht_env_get(red.env, "default", &red.s, &red.err), CHT_OK);
    assert_false(stats_hit("cnt:"));
    assert_true(stats_hit("cnt:"));
    assert_int_equal(cht_env_close(red.env, &red.err), CHT_OK);
    reduce_cache_free(cache);
    assert_int_equal(a->count, 1);
    reduce_answer_release(a);
    reducing_open();
    assert_int_equal(cht_env_get(red.env, "default", &red.s, &red.err), CHT_OK);
}

/* Every allocation fails once: the call fails cleanly or does without. */
static void test_out_of_memory(void **state)
{
    (void)state;
    static const char *const modes[] = {"stats", "totals", "similar"};
    fill_counts("cnt:1:", 1000, 5);
    static const uint8_t malformed[70000];
    put("cnt:1:long", malformed, sizeof malformed);
    struct reduce_params p = {.prefix = str("cnt:1:"), .to = str("cnt:1:0000007"), .limit = 50};
    for (size_t i = 0; i < 3; i++) {
        uint64_t failed = 0, injected;
        bool kept = false;
        do {
            const struct reduce_answer *a = NULL;
            bool hit;
            assert_int_equal(reduce_cache_new(1u << 20, &cache, &red.err), CHT_OK);
            cht_alloc_fail_at(++failed, false);
            enum cht_rc rc = reduce_cache_run(cache, red.s, mode(modes[i]), &p, NULL, &a, &hit, &red.err);
            injected = cht_alloc_failures();
            cht_alloc_fail_at(0, false);
            assert_true(rc == CHT_OK || rc == CHT_NO_MEMORY);
            assert_true((rc == CHT_OK) == (a != NULL));
            reduce_answer_release(a);
            a = NULL;
            assert_int_equal(reduce_cache_run(cache, red.s, mode(modes[i]), &p, NULL, &a, &kept, &red.err),
                             CHT_OK);
            reduce_answer_release(a);
            reduce_cache_free(cache);
        } while (injected > 0);
        assert_true(failed > 10 && kept);
    }
}

/* ---- never stale ------------------------------------------------------------------------------------------------ */

enum { COUNTERS = 4, ROUNDS = 400 };
static _Atomic uint64_t acked[COUNTERS];
static _Atomic bool writers_done;

static void put_count(uint64_t by_key, const char *name, uint32_t v)
{
    uint8_t p[12] = {1, 1, 0, 1};
    reduce_payload_put32(p + 8, v);
    struct cht_op op = {.kind = by_key != 0 ? CHT_OP_EDIT : CHT_OP_PAIR_PUT,
                        .key = by_key,
                        .name = str(name),
                        .value = {p, sizeof p}};
    assert_int_equal(run_op(&op), CHT_OK);
}

/* Counts one pair up: by its name, by its key, by another name, in turns. */
static void *count_up(void *arg)
{
    unsigned me = (unsigned)(uintptr_t)arg;
    char name[32], other[32], noise[32];
    (void)snprintf(name, sizeof name, "live:%u", me);
    (void)snprintf(other, sizeof other, "alias:%u", me);
    uint64_t key;
    assert_int_equal(cht_store_pair(red.s, str(name), &key, NULL), CHT_OK);
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        put_count(i % 3 == 0 ? key : 0, i % 3 == 1 ? name : other, i);
        atomic_store(&acked[me], i);
        (void)snprintf(noise, sizeof noise, "noise:%u:%u", me, i);
        put_count(0, noise, i);
        if (i > ROUNDS / 2) /* time for an answer to be kept, and to be asked for after the next write */
            cht_sleep_ns(1000000);
    }
    return NULL;
}

static uint64_t number_behind(const char *text, const char *member)
{
    const char *p = strstr(text, member);
    return p == NULL ? 0 : strtoull(p + strlen(member), NULL, 10);
}

static void *watch_totals(void *arg)
{
    (void)arg;
    struct reduce_params p = {.prefix = str("live:")};
    uint64_t hits = 0;
    while (!atomic_load(&writers_done)) {
        char text[256];
        uint64_t least = 0;
        for (unsigned i = 0; i < COUNTERS; i++)
            least += atomic_load(&acked[i]);
        hits += cached("totals", &p, text, sizeof text);
        uint64_t got = number_behind(text, "\"count\":");
        if (got < least) {
            (void)fprintf(stderr, "stale: %llu, at least %llu\n", (unsigned long long)got,
                          (unsigned long long)least);
            abort();
        }
    }
    return (void *)(uintptr_t)hits;
}

static void test_never_stale(void **state)
{
    (void)state;
    enum { READERS = 3 };
    pthread_t w[COUNTERS], r[READERS];
    assert_int_equal(reduce_cache_new(1u << 20, &cache, &red.err), CHT_OK);
    fill_counts("live:x", 500, 1); /* makes a sweep last */
    atomic_store(&writers_done, false);
    for (unsigned i = 0; i < COUNTERS; i++) {
        char name[32], other[32];
        (void)snprintf(name, sizeof name, "live:%u", i);
        (void)snprintf(other, sizeof other, "alias:%u", i);
        atomic_store(&acked[i], 0);
        put_count(0, name, 0);
        struct cht_op link = {.kind = CHT_OP_PAIR_LINK, .name = str(other), .value = str(name)};
        assert_int_equal(run_op(&link), CHT_OK);
    }
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&r[i], NULL, watch_totals, NULL), 0);
    for (unsigned i = 0; i < COUNTERS; i++)
        assert_int_equal(pthread_create(&w[i], NULL, count_up, (void *)(uintptr_t)i), 0);
    for (unsigned i = 0; i < COUNTERS; i++)
        pthread_join(w[i], NULL);
    atomic_store(&writers_done, true);
    for (unsigned i = 0; i < READERS; i++)
        pthread_join(r[i], NULL);
    struct reduce_params p = {.prefix = str("live:")};
    char text[256];
    (void)cached("totals", &p, text, sizeof text);
    assert_true(cached("totals", &p, text, sizeof text));
    assert_true(number_behind(text, "\"count\":") >= COUNTERS * ROUNDS);
    reduce_cache_free(cache);
}

/* Writes to other keys while a sweep is under way leave its answer alone; those to its own do not. */
static void test_watch_sweep(void **state)
{
    (void)state;
    struct cht_watch *w;
    fill_counts("a:", 100, 1);
    fill_counts("b:", 100, 1);
    assert_int_equal(cht_watch_new(red.s, str("a:"), &w, &red.err), CHT_OK);
    uint64_t key, other;
    assert_int_equal(cht_store_pair(red.s, str("a:0000050"), &key, &red.err), CHT_OK);
    assert_int_equal(cht_store_pair(red.s, str("b:0000050"), &other, &red.err), CHT_OK);
    for (int late = 0; late < 2; late++) { /* noted before or after the write */
        uint64_t v = cht_watch_begin(w, 100);
        if (!late)
            cht_watch_note(w, key);
        put_count(other, "", 5);
        put_count(0, "c", 1);
        assert_int_equal(cht_watch_version(w), v);
        cht_watch_end(w);
        assert_int_equal(cht_watch_version(w), v);
        v = cht_watch_begin(w, 100);
        if (!late)
            cht_watch_note(w, key);
        put_count(key, "", 5);
        if (late)
            cht_watch_note(w, key);
        cht_watch_end(w);
        assert_true(cht_watch_version(w) != v);
    }
    uint64_t v = cht_watch_begin(w, 100);
    assert_true(cht_watch_memory(w) < 64u << 10);
    cht_watch_end(w);
    put_count(key, "", 6); /* the filter was cleared: not met this time */
    assert_int_equal(cht_watch_version(w), v);
    assert_int_equal(cht_env_close(red.env, &red.err), CHT_OK);
    assert_true(cht_watch_closed(w) && cht_watch_version(w) != v);
    cht_watch_free(w);
    reducing_open();
}

/* Sweeps that overlap: none hears of what was written before it began, however long another goes on; none misses what was written since. */
static void test_watch_overlap(void **state)
{
    (void)state;
    struct cht_watch *w;
    uint64_t key[2], first, second, v;
    fill_counts("a:", 100, 1);
    assert_int_equal(cht_watch_new(red.s, str("a:"), &w, &red.err), CHT_OK);
    assert_int_equal(cht_store_pair(red.s, str("a:0000050"), &key[0], &red.err), CHT_OK);
    assert_int_equal(cht_store_pair(red.s, str("a:0000051"), &key[1], &red.err), CHT_OK);
    v = cht_watch_begin_at(w, 100, &first);
    put_count(key[0], "", 5);
    assert_int_equal(cht_watch_begin_at(w, 100, &second), v);
    cht_watch_note(w, key[0]);
    cht_watch_end_at(w, second);
    assert_int_equal(cht_watch_version(w), v);
    cht_watch_end_at(w, first); /* it may have met the key before it was written */
    assert_true(cht_watch_version(w) != v);

    for (unsigned raised = 0; raised < 2; raised++) { /* the first one is in vain already */
        v = cht_watch_begin_at(w, 100, &first);
        put_count(key[0], "", 6);
        if (raised)
            put_count(0, "a:new", 1);
        assert_int_equal(cht_watch_begin_at(w, 100, &second), v + raised);
        put_count(key[1], "", 6);
        cht_watch_note(w, key[1]);
        cht_watch_end_at(w, second);
        assert_int_equal(cht_watch_version(w), v + raised + 1);
        v = cht_watch_begin_at(w, 100, &second);
        cht_watch_end_at(w, first);
        cht_watch_end_at(w, second);
        assert_int_equal(cht_watch_version(w), v);
    }
    cht_watch_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        REDUCING_TEST(test_cache_writes), REDUCING_TEST(test_cache_dangling), REDUCING_TEST(test_cache_keys),
        REDUCING_TEST(test_cache_bounds), REDUCING_TEST(test_out_of_memory),  REDUCING_TEST(test_never_stale),
        REDUCING_TEST(test_watch_sweep),  REDUCING_TEST(test_watch_overlap),
    };
    return REDUCING_MAIN(tests);
}
