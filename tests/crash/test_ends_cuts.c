/* test_ends_cuts: pairs that end, on a disk that loses power at every write and sync, on one whose calls fail, and without memory. After a
 * cut what was acknowledged is there if it has not ended, and what a reader was told is gone stays so, also by a clock that was set back.
 * Shows invariant I13 of src/store/README.md.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "cheetah/store.h"
#include "support/simdisk.h"

#define NAMES 10u
#define STEPS_MAX 400u
#define DAY UINT64_C(86400000)

static _Atomic uint64_t wall, steady;

static void the_clock(void *ctx, uint64_t *w, uint64_t *m)
{
    (void)ctx;
    *w = wall;
    *m = steady;
}

static const char *const dirs[] = {"/a"};

static struct cht_env_config config(struct simdisk *d)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 1,
                                   .default_shards = 2,
                                   .log_segment_bytes = 1u << 16,
                                   .scan_workers = 1,
                                   .manual_checkpoint = true,
                                   .value_order = CHT_ORDER_ALWAYS,
                                   .clock = the_clock,
                                   .io = simdisk_io(d)};
}

static void must(enum cht_rc rc, const struct cht_err *err)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err->msg);
}

struct pair {
    unsigned version; /* 0: not there */
    uint64_t ends;    /* 0: never */
};

/* What there is after a step, and when the disk had been told of it. */
struct step {
    struct pair was[NAMES];
    unsigned name; /* that the step writes */
    uint64_t wall; /* after it */
    bool told;     /* readers were told what had ended then ... */
    size_t acked, told_at;
};

static struct cht_str name_of(unsigned i, char *buf)
{
    (void)snprintf(buf, 8, "n%u", i);
    return (struct cht_str){(const uint8_t *)buf, strlen(buf)};
}

static bool alive(const struct pair *p, uint64_t now)
{
    return p->version != 0 && (p->ends == 0 || p->ends > now);
}

/* Writes a name at random: mostly with an end, now and then lasting or not any more. */
static enum cht_rc write_one(struct cht_store *s, struct cht_rng *r, struct pair *v, unsigned version,
                             unsigned *at, struct cht_err *err)
{
    char name[8], value[16];
    uint64_t kind = cht_rng_below(r, 10);
    *at = (unsigned)cht_rng_below(r, NAMES);
    (void)snprintf(value, sizeof value, "v%u", version);
    struct cht_op op = {.kind = kind == 0 ? CHT_OP_PAIR_DEL : CHT_OP_PAIR_PUT,
                        .with_values = true,
                        .name = name_of(*at, name),
                        .value = {(const uint8_t *)value, strlen(value)},
                        .ttl_ms = kind > 1 ? 1 + cht_rng_below(r, 50) : 0};
    struct cht_commit c = {.ops = &op, .count = 1};
    enum cht_rc rc = cht_store_commit(s, &c);
    *err = c.err;
    rc = rc == CHT_OK ? op.rc : rc;
    if (rc == CHT_OK)
        v[*at] =
            kind == 0 ? (struct pair){0, 0} : (struct pair){version, op.ttl_ms != 0 ? wall + op.ttl_ms : 0};
    return rc;
}

/* 0: not there; else its version. */
static unsigned read_one(struct cht_store *s, unsigned i, enum cht_rc *rc)
{
    char name[8];
    struct cht_buf b = {0};
    struct cht_err err = {0};
    uint64_t key;
    uint32_t size;
    unsigned version = 0;
    *rc = cht_store_pair_value(s, name_of(i, name), &key, &b, &size, &err);
    if (*rc == CHT_OK && size > 1)
        version = (unsigned)strtoul((char *)memcpy((char[16]){0}, b.data + 1, size - 1), NULL, 10);
    cht_buf_free(&b);
    return version;
}

/* ---- cuts --------------------------------------------------------------------------------------------------------------- */

static unsigned record(struct simdisk *d, struct step *h, unsigned steps, size_t *created)
{
    struct cht_err err = {0};
    struct cht_env_config cfg = config(d);
    struct cht_env *env;
    struct cht_store *s;
    struct cht_rng r;
    struct pair now[NAMES] = {{0}};
    uint64_t n;
    cht_rng_seed(&r, 15);
    must(cht_env_open(&cfg, &env, &err), &err);
    must(cht_env_create(env, "default", 0, &err), &err);
    *created = simdisk_events(d);
    must(cht_env_get(env, "default", &s, &err), &err);
    for (unsigned i = 0; i < steps; i++) {
        struct step *w = &h[i];
        enum cht_rc rc = write_one(s, &r, now, i + 1, &w->name, &err);
        assert_true(rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND);
        w->acked = simdisk_events(d);
        uint64_t ms = cht_rng_below(&r, 12);
        wall += ms;
        steady += ms;
        w->wall = wall;
        w->told = i % 3 == 0;
        if (w->told && i % 2 == 0) {
            must(cht_store_count(s, (struct cht_str){NULL, 0}, &n, &err), &err);
        } else if (w->told) {
            for (unsigned k = 0; k < NAMES; k++)
                assert_int_equal(read_one(s, k, &rc), alive(&now[k], wall) ? now[k].version : 0);
        }
        /* counts may be ahead of the disk: only what reads by name said is told */
        w->told = w->told && i % 2 != 0;
        w->told_at = simdisk_events(d);
        memcpy(w->was, now, sizeof now);
        if (i % 17 == 16)
            must(cht_store_checkpoint(s, &err), &err);
    }
    must(cht_env_close(env, &err), &err);
    return steps;
}

static void finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_message("check: %s: %s\n", where, what);
}

static struct cht_store *recover(struct simdisk *d, struct cht_env **env, const char *what)
{
    struct cht_err err = {0};
    struct cht_env_config cfg = config(d);
    struct cht_store *s = NULL;
    enum cht_rc rc = cht_env_open(&cfg, env, &err);
    if (rc == CHT_OK)
        rc = cht_env_get(*env, "default", &s, &err);
    if (rc != CHT_OK)
        fail_msg("%s: recovery refused: %s", what, err.msg);
    return s;
}

/* The last step that was acknowledged before the cut, -1: none; and the one under way. */
static void verify(struct simdisk *d, const struct step *h, unsigned n, size_t at, const char *what)
{
    static const struct pair none[NAMES] = {{0}};
    int acked = -1;
    while (acked + 1 < (int)n && h[acked + 1].acked <= at)
        acked++;
    const struct pair *is = acked >= 0 ? h[acked].was : none;
    const struct step *next = acked + 1 < (int)n ? &h[acked + 1] : NULL;
    struct cht_env *env;
    wall = acked >= 0 ? h[acked].wall : h[0].wall;
    struct cht_store *s = recover(d, &env, what);
    uint64_t count = 0, there = 0;
    struct cht_err err = {0};
    for (unsigned i = 0; i < NAMES; i++) {
        enum cht_rc rc;
        unsigned v = read_one(s, i, &rc);
        bool right = v == (alive(&is[i], wall) ? is[i].version : 0);
        bool changed =
            next != NULL && i == next->name && v == (alive(&next->was[i], wall) ? next->was[i].version : 0);
        if (!right && !changed)
            fail_msg("%s: %u is %u (%d), after %d steps %u until %lld", what, i, v, (int)rc, acked + 1,
                     is[i].version, (long long)(is[i].ends - wall));
        there += v != 0;
    }
    must(cht_store_count(s, (struct cht_str){NULL, 0}, &count, &err), &err);
    assert_int_equal(count, there);
    if (at % 3 != 0) {
        cht_env_abandon(env);
        return;
    }
    must(cht_env_close(env, &err), &err);
    uint64_t findings = 0;
    struct cht_env_config cfg = config(d);
    must(cht_check(&cfg, NULL, finding, NULL, &findings, &err), &err);
    assert_int_equal(findings, 0);
}

/* What somebody was told is gone, on a machine whose clock is a day late. */
static void verify_gone(struct simdisk *d, const struct step *h, unsigned n, size_t at, const char *what)
{
    int told = -1;
    for (unsigned i = 0; i < n && h[i].told_at <= at; i++)
        told = h[i].told ? (int)i : told;
    if (told < 0)
        return;
    struct cht_env *env;
    wall = h[told].wall - DAY;
    struct cht_store *s = recover(d, &env, what);
    for (unsigned i = 0; i < NAMES; i++) {
        enum cht_rc rc;
        const struct pair *p = &h[told].was[i];
        if (p->version != 0 && !alive(p, h[told].wall) && read_one(s, i, &rc) == p->version)
            fail_msg("%s: %u of step %u is there again", what, i, p->version);
    }
    cht_env_abandon(env);
}

static void test_every_cut(void **state)
{
    (void)state;
    static const char *const mode_names[] = {"keep", "drop", "subset", "torn"};
    bool whole = getenv("CHT_TEST_LONG") != NULL;
    unsigned steps = whole ? 300 : 60, stride = whole ? 1 : 41;
    const char *given = getenv("CHT_TEST_ENDS_STRIDE");
    stride = given != NULL ? (unsigned)strtoul(given, NULL, 10) : stride;
    struct step *h = calloc(STEPS_MAX, sizeof *h);
    struct simdisk *d = simdisk_new();
    struct cht_rng r;
    size_t created;
    uint64_t cuts = 0;
    cht_rng_seed(&r, 16);
    wall = UINT64_C(1700000000000);
    steady = 1;
    unsigned n = record(d, h, steps, &created);
    struct simcut *c = simcut_new(d);
    do {
        size_t dense = simcut_at(c) <= h[3].acked ? 2 : stride; /* at first, when the format changes */
        if (simcut_at(c) < created || simcut_at(c) % dense != 0)
            continue;
        for (int mode = SIM_KEEP; mode <= SIM_TORN; mode++) {
            char what[80];
            (void)snprintf(what, sizeof what, "cut at event %zu (%s)", simcut_at(c), mode_names[mode]);
            struct simdisk *cut = simcut_disk(c, (enum sim_mode)mode, &r);
            struct simdisk *other = simdisk_clone(cut);
            verify(cut, h, n, simcut_at(c), what);
            verify_gone(other, h, n, simcut_at(c), what);
            simdisk_free(cut);
            simdisk_free(other);
            cuts++;
        }
    } while (simcut_step(c));
    print_message("%llu recoveries of %zu events\n", (unsigned long long)cuts, simdisk_events(d));
    assert_true(cuts > 4 * steps / stride);
    simcut_free(c);
    simdisk_free(d);
    free(h);
}

/* ---- calls that fail ------------------------------------------------------------------------------------------------------ */

/* A database with a few pairs, a call or an allocation that fails somewhere, and then what there is. Returns whether anything failed. */
static bool one_fault(enum sim_fault kind, bool forever, uint64_t at)
{
    struct simdisk *d = simdisk_new();
    struct cht_err err = {0};
    struct cht_env *env;
    struct cht_rng r;
    struct pair now[NAMES] = {{0}};
    bool doubt[NAMES] = {false};
    char what[60];
    (void)snprintf(what, sizeof what, "fault %d%s at call %llu", (int)kind, forever ? " forever" : "",
                   (unsigned long long)at);
    cht_rng_seed(&r, 17);
    struct cht_env_config cfg = config(d);
    must(cht_env_open(&cfg, &env, &err), &err);
    must(cht_env_create(env, "default", 0, &err), &err);
    struct cht_store *s;
    must(cht_env_get(env, "default", &s, &err), &err);
    if (kind == SIM_NONE)
        cht_alloc_fail_at(at, forever);
    else
        simdisk_fail_at(d, at, kind, forever);
    for (unsigned i = 0; i < 25; i++) {
        unsigned name;
        enum cht_rc rc = write_one(s, &r, now, i + 1, &name, &err);
        doubt[name] = doubt[name] || rc == CHT_OUTCOME_UNKNOWN;
        if (rc == CHT_OK)
            doubt[name] = doubt[name] && false;
        wall += 5;
        steady += 5;
        unsigned k = i % NAMES, v = read_one(s, k, &rc);
        if ((rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND) && !doubt[k] &&
            v != (alive(&now[k], wall) ? now[k].version : 0))
            fail_msg("%s: step %u: %u is %u", what, i, k, v);
        uint64_t n;
        (void)cht_store_count(s, (struct cht_str){NULL, 0}, &n,
                              &err); /* it asks for what has ended to be removed */
    }
    bool failed = kind == SIM_NONE ? cht_alloc_failures() > 0 : simdisk_injected(d) > 0;
    cht_alloc_fail_at(0, false);
    simdisk_fail_at(d, 0, SIM_NONE, false);
    (void)cht_env_close(env, &err); /* whatever it says */
    s = recover(d, &env, what);
    for (unsigned i = 0; i < NAMES; i++) {
        enum cht_rc rc;
        unsigned v = read_one(s, i, &rc);
        if (!doubt[i] && v != (alive(&now[i], wall) ? now[i].version : 0))
            fail_msg("%s: afterwards %u is %u, not %u until %lld", what, i, v, now[i].version,
                     (long long)(now[i].ends - wall));
    }
    must(cht_env_close(env, &err), &err);
    uint64_t findings = 0;
    must(cht_check(&cfg, NULL, finding, NULL, &findings, &err), &err);
    assert_int_equal(findings, 0);
    simdisk_free(d);
    return failed;
}

static void test_faults(void **state)
{
    (void)state;
    static const enum sim_fault kinds[] = {SIM_NONE, SIM_FULL, SIM_EIO, SIM_SHORT};
    unsigned stride = getenv("CHT_TEST_LONG") != NULL ? 1 : 61;
    for (unsigned k = 0; k < 4; k++) {
        for (int forever = 0; forever < 2; forever++) {
            uint64_t at = 1;
            wall = UINT64_C(1700000000000);
            steady = 1;
            assert_true(one_fault(kinds[k], forever != 0, at));
            do
                at += stride;
            while (one_fault(kinds[k], forever != 0, at));
            print_message("fault %d%s: %llu places\n", (int)kinds[k], forever ? " forever" : "",
                          (unsigned long long)at);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_cut), cmocka_unit_test(test_faults)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
