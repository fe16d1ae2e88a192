/* test_reading: how pages come from the disk. Every kind of read gives the same answers with what lies around a page and without; the disk is
 * asked beforehand for pages that are there, and only where each is read alone; a database changes over when all together do not fit into the memory
 * any more, and back.
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

#include "base/rng.h"
#include "cheetah/children.h"
#include "cheetah/scan.h"
#include "cheetah/sweep.h"
#include "os/io.h"
#include "support/kept.h"

enum { N = 30000, PAGE = 4096, MANY = 100 };

/* Between the store and the file system: what the kernel is advised. */
static struct {
    const struct cht_io_ops *real;
    struct cht_io_ops ops;
    _Atomic unsigned around, alone, soon, odd;
} told;

static void listen(struct cht_file *f, uint8_t *p, size_t len, enum cht_io_advice advice)
{
    struct cht_err err = {0};
    uint64_t size = 0;
    atomic_fetch_add(advice == CHT_ADVICE_SOON    ? &told.soon
                     : advice == CHT_ADVICE_ALONE ? &told.alone
                                                  : &told.around,
                     1);
    bool whole = (uintptr_t)p % PAGE == 0 && len > 0 && len % PAGE == 0;
    if (advice == CHT_ADVICE_SOON) /* no more than the file has */
        whole = whole && told.real->size(f, &size, &err) == CHT_OK && len <= size;
    if (!whole)
        atomic_fetch_add(&told.odd, 1);
    told.real->advise(f, p, len, advice);
}

static unsigned taken(_Atomic unsigned *n) { return atomic_exchange(n, 0); }

static int setup(void **state)
{
    struct cht_io *io = cht_io_posix();
    told.real = io->ops;
    told.ops = *io->ops;
    told.ops.advise = listen;
    io->ops = &told.ops;
    (void)taken(&told.around);
    (void)taken(&told.alone);
    (void)taken(&told.soon);
    (void)taken(&told.odd);
    return kept_setup(state);
}

static int teardown(void **state)
{
    int rc = kept_teardown(state);
    cht_io_posix()->ops = told.real;
    return rc;
}

static void open_with(enum cht_read_ahead how, uint64_t memory)
{
    struct cht_env_config cfg = kept_config();
    assert_int_equal(cht_env_close(kept.env, &kept.err), CHT_OK);
    cfg.read_ahead = how;
    cfg.memory = memory;
    assert_int_equal(cht_env_open(&cfg, &kept.env, &kept.err), CHT_OK);
    assert_int_equal(cht_env_get(kept.env, CHT_DATABASE_DEFAULT, &kept.s, &kept.err), CHT_OK);
}

static uint64_t reads_alone(void)
{
    struct cht_store_stats st;
    assert_int_equal(cht_store_stats(kept.s, &st, &kept.err), CHT_OK);
    return st.read_alone;
}

/* ---- data ------------------------------------------------------------------------------------------------------ */

static size_t name_of(unsigned i, char out[64])
{
    return (size_t)snprintf(out, 64, "%c/%u/%.*s%u", 'a' + (int)(i % 7), i * 7919 % 30011, (int)(i % 31),
                            "a tail that makes names longer.", i);
}

/* In a mixed order, values of many lengths, some long, some gone. */
static void load(void)
{
    static struct cht_op op[1000];
    static char name[1000][64];
    static uint8_t bytes[CHT_SCAN_INLINE_MAX + 1];
    struct cht_rng rng;
    cht_rng_seed(&rng, 4);
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)cht_rng_next(&rng);
    for (unsigned i = 0; i < N; i += 1000) {
        for (unsigned k = 0; k < 1000; k++) {
            unsigned at = (i + k) * 17 % N;
            size_t n = name_of(at, name[k]);
            op[k] = (struct cht_op){.kind = CHT_OP_PAIR_PUT, .name = {(uint8_t *)name[k], n}};
            op[k].value = (struct cht_str){bytes + at % 100, at % 2000 == 3 ? sizeof bytes - 100 + at % 101
                                                             : at % 40 == 1 ? 3000
                                                                            : 1 + at % 90};
        }
        assert_int_equal(kept_commit(op, 1000, 0), CHT_OK);
    }
    for (unsigned i = 5; i < N; i += 13) {
        size_t n = name_of(i, name[0]);
        op[0] = (struct cht_op){
            .kind = CHT_OP_PAIR_DEL, .name = {(uint8_t *)name[0], n}, .with_values = i % 2 == 0};
        assert_int_equal(kept_run(op, 0), CHT_OK);
    }
    assert_int_equal(cht_store_checkpoint(kept.s, &kept.err), CHT_OK);
}

/* ---- all kinds of reads, as numbers ------------------------------------------------------------------------------ */

static uint64_t mixed(uint64_t h, const void *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const uint8_t *)p)[i]) * UINT64_C(0x100000001B3);
    return h;
}

static uint64_t entry_number(const struct cht_entry *e)
{
    uint64_t h = mixed(UINT64_C(14695981039346656037), e->name, e->name_len);
    h = mixed(h, &e->key, sizeof e->key);
    h = mixed(h, &e->size, sizeof e->size);
    h = mixed(h, &e->flags, sizeof e->flags);
    return e->value != NULL ? mixed(h, e->value, e->value_len) : h;
}

static size_t text_of(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    (void)ctx;
    uint64_t h = entry_number(e);
    if (room < sizeof h)
        return SIZE_MAX;
    memcpy(out, &h, sizeof h);
    return sizeof h;
}

static uint64_t scanned(struct cht_scan_config cfg)
{
    struct cht_scan *scan;
    struct cht_entry e[64];
    uint64_t h = 0;
    size_t n = 1;
    assert_int_equal(cht_scan_open(kept.s, &cfg, &scan, &kept.err), CHT_OK);
    while (n > 0) {
        assert_int_equal(cht_scan_next(scan, e, 64, &n, &kept.err), CHT_OK);
        for (size_t i = 0; i < n; i++) { /* the bytes, wherever a run of them ends */
            if (cfg.render != NULL)
                h = mixed(h, e[i].value, e[i].value_len);
            else
                h = h * 31 + entry_number(&e[i]);
        }
    }
    cht_scan_close(scan);
    return h;
}

static _Atomic uint64_t swept;
static bool visit(void *ctx, const struct cht_entry *e, size_t n)
{
    (void)ctx;
    for (size_t i = 0; i < n; i++) /* in any order */
        atomic_fetch_add(&swept, entry_number(&e[i]));
    return true;
}

static bool child(void *ctx, const struct cht_child *c)
{
    uint64_t *h = ctx;
    *h = mixed(*h, c->name.p, c->name.n);
    *h = *h * 31 + c->pairs + c->key;
    return true;
}

static uint64_t many_at_once(void)
{
    static char name[MANY][64];
    struct cht_pair_read r[MANY];
    struct cht_hint hint[MANY];
    struct cht_buf all = {0};
    uint64_t h = 0;
    for (unsigned from = 0; from < N; from += 1777) {
        for (unsigned i = 0; i < MANY; i++) {
            struct cht_str s = {(uint8_t *)name[i], name_of(from + i * 3, name[i])};
            if (i % 10 == 9)
                s.n--; /* mostly no pair */
            r[i] = (struct cht_pair_read){.name = s};
            hint[i] = (struct cht_hint){.name = s};
        }
        (void)cht_store_prefetch(kept.s, hint, MANY);
        assert_int_equal(cht_store_pair_values(kept.s, r, MANY, &all, NULL, &kept.err), CHT_OK);
        for (unsigned i = 0; i < MANY; i++) {
            h = h * 31 + (uint64_t)r[i].rc;
            if (r[i].rc == CHT_OK)
                h = mixed(h * 31 + r[i].key, all.data + r[i].at, r[i].size);
        }
    }
    cht_buf_free(&all);
    return h;
}

enum { KINDS = 14 };

static void read_all(uint64_t out[KINDS])
{
    struct cht_str below = {(const uint8_t *)"c/1", 3}, all = {(const uint8_t *)"", 0};
    unsigned k = 0;
    for (unsigned reverse = 0; reverse < 2; reverse++) {
        for (unsigned values = 0; values < 2; values++) {
            struct cht_scan_config cfg = {.reverse = reverse != 0, .values = values != 0, .workers = 2};
            out[k++] = scanned(cfg);
            cfg.prefix = below;
            cfg.limit = 40;
            out[k++] = scanned(cfg);
        }
        out[k++] = scanned((struct cht_scan_config){
            .reverse = reverse != 0, .values = true, .render = text_of, .runs = true});
    }
    out[k++] = scanned((struct cht_scan_config){.kind = CHT_SCAN_VALUES, .values = true});
    struct cht_sweep_config sweep = {.prefix = all, .names = true, .visit = visit};
    atomic_store(&swept, 0);
    assert_int_equal(cht_store_sweep(kept.s, &sweep, &kept.err), CHT_OK);
    out[k++] = atomic_load(&swept);
    uint64_t h = 0;
    struct cht_children_config cc = {
        .separator = {(const uint8_t *)"/", 1}, .prefix = {below.p, 2}, .each = child, .ctx = &h};
    assert_int_equal(cht_store_children(kept.s, &cc, &kept.err), CHT_OK);
    out[k++] = h;
    out[k++] = many_at_once();
    assert_int_equal(k, KINDS);
}

/* ---------------------------------------------------------------------------------------------------------------- */

static void test_same_answers(void **state)
{
    (void)state;
    uint64_t with[KINDS], without[KINDS];
    load();
    open_with(CHT_READ_AHEAD_ALWAYS, 1);
    read_all(with);
    assert_int_equal(reads_alone(), 0);
    assert_int_equal(taken(&told.soon) + taken(&told.alone) + taken(&told.around), 0);

    open_with(CHT_READ_AHEAD_NEVER, 0);
    assert_int_equal(reads_alone(), 1);
    assert_int_not_equal(taken(&told.alone), 0);
    for (unsigned k = 0; k < 2; k++) { /* pages that were not read since the start, then those that were */
        read_all(without);
        assert_memory_equal(with, without, sizeof with);
        assert_int_not_equal(taken(&told.soon), 0);
    }
    assert_int_equal(taken(&told.odd), 0);
}

/* The file system's functions may be those of somebody who listens to no advice. */
static void test_nobody_listens(void **state)
{
    (void)state;
    uint64_t with[KINDS], without[KINDS];
    load();
    read_all(with);
    told.ops.advise = NULL;
    open_with(CHT_READ_AHEAD_NEVER, 0);
    read_all(without);
    assert_memory_equal(with, without, sizeof with);
}

/* Files that grow are read in the same way in their new places. */
static void test_grows(void **state)
{
    (void)state;
    uint64_t want[KINDS], got[KINDS];
    open_with(CHT_READ_AHEAD_NEVER, 0);
    load();
    assert_int_equal(reads_alone(), 1);
    (void)taken(&told.soon);
    read_all(got);
    assert_int_not_equal(taken(&told.soon), 0);
    open_with(CHT_READ_AHEAD_ALWAYS, 0);
    read_all(want);
    assert_memory_equal(want, got, sizeof want);
}

static void test_by_size(void **state)
{
    (void)state;
    struct cht_store *first;
    struct cht_store_stats st;
    uint64_t key;
    load();
    assert_int_equal(reads_alone(), 0); /* there is enough */
    assert_int_equal(cht_store_stats(kept.s, &st, &kept.err), CHT_OK);

    open_with(CHT_READ_AHEAD_AUTO, st.file_bytes * 4);
    assert_int_equal(reads_alone(), 0);
    open_with(CHT_READ_AHEAD_AUTO, st.file_bytes / 2);
    assert_int_equal(reads_alone(), 1);
    first = kept.s;
    assert_int_equal(cht_env_create(kept.env, "small", 1, &kept.err), CHT_OK);
    assert_int_equal(cht_env_get(kept.env, "small", &kept.s, &kept.err), CHT_OK);
    assert_int_equal(reads_alone(), 1); /* it is all of them together */
    assert_int_equal(kept_put("a", "b", &key), CHT_OK);
    assert_int_equal(cht_env_drop(kept.env, CHT_DATABASE_DEFAULT, &kept.err), CHT_OK);
    assert_ptr_not_equal(first, kept.s);
    assert_int_equal(cht_store_checkpoint(kept.s, &kept.err), CHT_OK);
    assert_int_equal(reads_alone(), 0); /* and now there is room */
    assert_int_not_equal(taken(&told.around), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_same_answers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_listens, setup, teardown),
        cmocka_unit_test_setup_teardown(test_grows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_by_size, setup, teardown),
    };
    return KEPT_MAIN(tests);
}
