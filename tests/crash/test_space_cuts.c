/* test_space_cuts: power cuts while space is given back: pages of dead keys, pages of the trie after a namespace has gone, its
 * tail, and their use again. After each cut recovery must give every acknowledged commit, the one under way wholly or not
 * at all, no key twice, and files that check finds whole. And calls that find the disk full.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cheetah/scan.h"
#include "cheetah/store.h"
#include "store/pagefile_int.h"
#include "support/simdisk.h"

#define STEPS_MAX 200
#define BATCH 1000u
#define SPACES 3u

static const char *const dirs[] = {"/a"};

static uint64_t number(const char *name, uint64_t fallback)
{
    const char *s = getenv(name);
    return s != NULL ? strtoull(s, NULL, 10) : fallback;
}

static void must(enum cht_rc rc, const struct cht_err *err)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err->msg);
}

static struct cht_env_config config(struct simdisk *d)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 1,
                                   .default_shards = 1,
                                   .log_segment_bytes = 1u << 18,
                                   .scan_workers = 1,
                                   .manual_checkpoint = true,
                                   .value_order = CHT_ORDER_ALWAYS,
                                   .io = simdisk_io(d)};
}

/* What the database holds: with one shard keys are 1, 2, 3, ... in order, so this says all of it. */
struct state {
    uint64_t next;          /* keys given out: below this */
    uint64_t from, to;      /* values of a queue: of keys [from, to), all dead before */
    uint64_t names[SPACES]; /* names 0 .. n-1 of each namespace, without values of their own */
};

enum kind { PUSH, DRAIN, NAMES, GONE, CHECKPOINT, REVIVE };
struct step {
    enum kind kind;
    unsigned space;
    uint64_t n;
    size_t acked; /* events */
    struct state after;
};
struct history {
    struct step step[STEPS_MAX];
    unsigned n;
    size_t created;
};

static size_t make_name(uint8_t *p, unsigned space, uint64_t i)
{
    uint64_t x = i * UINT64_C(0x9E3779B97F4A7C15);
    return (size_t)sprintf((char *)p, "space%u/%016llx/and more of it", space, (unsigned long long)x);
}

static uint32_t value_of(uint8_t *p, uint64_t key)
{
    uint32_t n = 9 + (uint32_t)(key % 5);
    memset(p, (int)(key % 251), n);
    memcpy(p, &key, 8);
    return n;
}

/* One commit. */
static enum cht_rc run(struct cht_store *s, const struct step *st, struct state *is)
{
    static struct cht_op ops[BATCH];
    static uint8_t bytes[BATCH][64];
    size_t count = st->kind == GONE ? 1 : (size_t)st->n;
    assert_true(count <= BATCH);
    for (size_t i = 0; i < count; i++) {
        struct cht_op *op = &ops[i];
        *op = (struct cht_op){.kind = CHT_OP_INSERT};
        if (st->kind == PUSH)
            op->value = (struct cht_str){bytes[i], value_of(bytes[i], is->next + i)};
        else if (st->kind == DRAIN)
            *op = (struct cht_op){.kind = CHT_OP_DELETE, .key = is->from + i};
        else if (st->kind == NAMES)
            *op =
                (struct cht_op){.kind = CHT_OP_PAIR_SET,
                                .name = {bytes[i], make_name(bytes[i], st->space, is->names[st->space] + i)},
                                .key = 1 + (is->names[st->space] + i) % BATCH};
        else
            *op =
                (struct cht_op){.kind = CHT_OP_PREFIX_DEL,
                                .name = {bytes[i], (size_t)sprintf((char *)bytes[i], "space%u/", st->space)}};
    }
    struct cht_commit c = {.ops = ops, .count = count, .flags = CHT_COMMIT_ATOMIC};
    enum cht_rc rc = cht_store_commit(s, &c);
    if (rc != CHT_OK)
        return rc;
    if (st->kind == PUSH) {
        assert_int_equal(ops[0].key, is->next);
        is->next += count;
        is->to = is->next;
    } else if (st->kind == DRAIN) {
        is->from += count;
    } else if (st->kind == NAMES) {
        is->names[st->space] += count;
    } else {
        is->names[st->space] = 0;
    }
    return CHT_OK;
}

/* Empty: nothing differs. */
static void compare(struct cht_store *s, const struct state *want, char *why, size_t cap)
{
    struct cht_err err = {0};
    struct cht_store_stats st;
    *why = 0;
    must(cht_store_stats(s, &st, &err), &err);
    if (st.next_key != want->next || st.values != want->to - want->from)
        (void)snprintf(why, cap, "next key %llu, values %llu, not %llu and %llu",
                       (unsigned long long)st.next_key, (unsigned long long)st.values,
                       (unsigned long long)want->next, (unsigned long long)(want->to - want->from));
    struct cht_buf out = {0};
    for (uint64_t key = 1; key < want->next && *why == 0; key++) {
        uint8_t v[16];
        uint32_t size;
        enum cht_rc rc = cht_store_get(s, key, &out, &size, &err);
        bool lives = key >= want->from && key < want->to;
        if (rc != (lives ? CHT_OK : CHT_KEY_NOT_FOUND) ||
            (lives && (size != value_of(v, key) || memcmp(out.data, v, size) != 0)))
            (void)snprintf(why, cap, "key %llu: rc %d", (unsigned long long)key, (int)rc);
    }
    for (unsigned k = 0; k < SPACES && *why == 0; k++) {
        uint8_t name[64];
        uint64_t n = 0, key, total = want->names[k];
        (void)sprintf((char *)name, "space%u/", k);
        must(cht_store_count(s, (struct cht_str){name, 7}, &n, &err), &err);
        if (n != total)
            (void)snprintf(why, cap, "space %u: %llu names, not %llu", k, (unsigned long long)n,
                           (unsigned long long)total);
        for (uint64_t i = 0; i < total && *why == 0; i += 1 + total / 50) {
            struct cht_str str = {name, make_name(name, k, i)};
            if (cht_store_pair(s, str, &key, &err) != CHT_OK || key != 1 + i % BATCH)
                (void)snprintf(why, cap, "space %u: name %llu", k, (unsigned long long)i);
        }
    }
    cht_buf_free(&out);
}

static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_message("check: %s: %s\n", where, what);
}

static void check(struct simdisk *d, const char *what)
{
    struct cht_err err = {0};
    struct cht_env_config cfg = config(d);
    uint64_t findings = 0;
    must(cht_check(&cfg, NULL, finding, NULL, &findings, &err), &err);
    if (findings != 0)
        fail_msg("%s: check found %llu faults", what, (unsigned long long)findings);
}

static void add_step(struct history *h, enum kind kind, unsigned space, uint64_t n)
{
    assert_true(h->n < STEPS_MAX);
    h->step[h->n++] = (struct step){.kind = kind, .space = space, .n = n};
}

/* Queues that are drained over several pages of keys, and namespaces of more than CHT_ARENA_KEEP pages that come and go. */
static void plan(struct history *h)
{
    for (unsigned turn = 0; turn < 2; turn++) {
        for (unsigned i = 0; i < 6; i++)
            add_step(h, NAMES, 0, BATCH);
        add_step(h, PUSH, 0, 900);
        add_step(h, NAMES, 1, 300);
        add_step(h, CHECKPOINT, 0, 0);
        add_step(h, DRAIN, 0, 600);
        for (unsigned i = 0; i < 6; i++)
            add_step(h, NAMES, 2, BATCH);
        add_step(h, CHECKPOINT, 0, 0);
        add_step(h, GONE, 0, 0); /* its pages are in front of those of 2 */
        add_step(h, PUSH, 0, 300);
        add_step(h, CHECKPOINT, 0, 0);
        add_step(h, DRAIN, 0, 300);
        for (unsigned i = 0; i < 3; i++)
            add_step(h, NAMES, 0, BATCH); /* into the holes */
        add_step(h, CHECKPOINT, 0, 0);
        add_step(h, GONE, 2, 0);
        add_step(h, DRAIN, 0, 200);
        add_step(h, CHECKPOINT, 0, 0);
        add_step(h, CHECKPOINT, 0, 0); /* the tail goes */
        for (unsigned i = 0; i < 2; i++)
            add_step(h, NAMES, 2, BATCH);
        add_step(h, CHECKPOINT, 0, 0);
        add_step(h, GONE, 2, 0);
        add_step(h, GONE, 0, 0);
        add_step(h, CHECKPOINT, 0, 0);
    }
}

static void record_history(struct simdisk *d, struct history *h)
{
    struct cht_err err = {0};
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_store *s;
    struct state is = {.next = 1, .from = 1, .to = 1};
    must(cht_env_open(&cfg, &env, &err), &err);
    must(cht_env_create(env, "default", 0, &err), &err);
    h->created = simdisk_events(d);
    must(cht_env_get(env, "default", &s, &err), &err);
    for (unsigned i = 0; i < h->n; i++) {
        if (h->step[i].kind == CHECKPOINT)
            must(cht_store_checkpoint(s, &err), &err);
        else
            must(run(s, &h->step[i], &is), &err);
        h->step[i].acked = simdisk_events(d);
        h->step[i].after = is;
    }
    must(cht_env_close(env, &err), &err);
}

static void verify(struct simdisk *d, const struct state *now, const struct state *next, bool thorough,
                   const char *what)
{
    struct cht_err err = {0};
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_store *s;
    char why[200], why2[200] = "";
    enum cht_rc rc = cht_env_open(&cfg, &env, &err);
    if (rc == CHT_OK)
        rc = cht_env_get(env, "default", &s, &err);
    if (rc != CHT_OK)
        fail_msg("%s: recovery refused: %s", what, err.msg);
    struct state is = *now;
    compare(s, now, why, sizeof why);
    if (*why != 0) {
        is = *next;
        compare(s, next, why2, sizeof why2);
        if (*why2 != 0)
            fail_msg("%s: %s; with one more: %s", what, why, why2);
    }
    if (thorough) { /* it goes on into the holes, and is whole */
        struct step more[] = {{.kind = PUSH, .n = 700}, {.kind = NAMES, .space = 1, .n = BATCH}};
        for (unsigned i = 0; i < 2; i++)
            must(run(s, &more[i], &is), &err);
        must(cht_store_checkpoint(s, &err), &err);
        must(run(s, &more[1], &is), &err);
        compare(s, &is, why, sizeof why);
        if (*why != 0)
            fail_msg("%s: going on: %s", what, why);
        must(cht_env_close(env, &err), &err);
        check(d, what);
    } else {
        cht_env_abandon(env);
    }
}

static uint64_t count_events(const struct simdisk *d) { return simdisk_events(d); }

static void test_every_cut(void **state)
{
    (void)state;
    static const char *const mode_names[] = {"keep", "drop", "subset", "torn"};
    struct history *h = calloc(1, sizeof *h);
    struct simdisk *d = simdisk_new();
    struct cht_rng r;
    struct state none = {.next = 1, .from = 1, .to = 1};
    bool all = number("CHT_TEST_LONG", 0) == 1;
    cht_rng_seed(&r, number("CHT_TEST_SEED", 5));
    plan(h);
    record_history(d, h);
    uint64_t stride = number("CHT_TEST_STRIDE", all ? 1 : 1 + count_events(d) / 150), cuts = 0;
    print_message("%u steps, %llu events, every %llu\n", h->n, (unsigned long long)count_events(d),
                  (unsigned long long)stride);
    struct simcut *c = simcut_new(d);
    unsigned acked = 0;
    do {
        while (acked < h->n && h->step[acked].acked <= simcut_at(c))
            acked++;
        if (simcut_at(c) < h->created || simcut_at(c) % stride != 0)
            continue;
        const struct state *now = acked > 0 ? &h->step[acked - 1].after : &none,
                           *next = acked < h->n ? &h->step[acked].after : now;
        for (int mode = SIM_KEEP; mode <= SIM_TORN; mode++) {
            char what[80];
            if (!all && mode != (int)(cuts % 4) && mode != SIM_SUBSET)
                continue;
            (void)snprintf(what, sizeof what, "cut at event %zu (%s)", simcut_at(c), mode_names[mode]);
            struct simdisk *cut = simcut_disk(c, (enum sim_mode)mode, &r);
            verify(cut, now, next, cuts % 7 == 0, what);
            simdisk_free(cut);
        }
        cuts++;
    } while (simcut_step(c));
    assert_true(cuts > 100);
    simcut_free(c);
    simdisk_free(d);
    free(h);
}

/* Each call fails once with a full disk: nothing is lost, and what is told as done is there after a restart. */
static void test_full_disk(void **state)
{
    (void)state;
    struct history *h = calloc(1, sizeof *h);
    struct simdisk *plain = simdisk_new();
    plan(h);
    record_history(plain, h); /* what each step leads to */
    simdisk_free(plain);
    unsigned refused = 0;
    uint64_t step = number("CHT_TEST_LONG", 0) == 1 ? 7 : 97;
    for (uint64_t n = 1;; n += step) {
        struct cht_err err = {0};
        struct simdisk *d = simdisk_new();
        struct cht_env_config cfg = config(d);
        struct cht_env *env;
        struct cht_store *s;
        struct state is = {.next = 1, .from = 1, .to = 1}, other = is;
        char why[200], why2[200];
        must(cht_env_open(&cfg, &env, &err), &err);
        must(cht_env_create(env, "default", 0, &err), &err);
        must(cht_env_get(env, "default", &s, &err), &err);
        simdisk_fail_at(d, n, SIM_FULL, false);
        for (unsigned i = 0; i < h->n; i++) {
            enum cht_rc rc =
                h->step[i].kind == CHECKPOINT ? cht_store_checkpoint(s, &err) : run(s, &h->step[i], &is);
            if (rc != CHT_OK) {
                other = h->step[i].after; /* a failed sync may have been one */
                refused++;
                break;
            }
        }
        bool hit = simdisk_injected(d) > 0;
        simdisk_fail_at(d, 0, SIM_NONE, false);
        cht_env_abandon(env);
        must(cht_env_open(&cfg, &env, &err), &err);
        must(cht_env_get(env, "default", &s, &err), &err);
        compare(s, &is, why, sizeof why);
        compare(s, &other, why2, sizeof why2);
        if (*why != 0 && *why2 != 0)
            fail_msg("call %llu on a full disk: %s; %s", (unsigned long long)n, why, why2);
        must(cht_env_close(env, &err), &err);
        check(d, "after a full disk");
        simdisk_free(d);
        if (!hit)
            break;
    }
    print_message("%u refused\n", refused);
    assert_true(refused > 3);
    free(h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_cut), cmocka_unit_test(test_full_disk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
