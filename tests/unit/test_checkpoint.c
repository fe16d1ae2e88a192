/* test_checkpoint: the two halves of a shard's checkpoint with changes in between, which other tests meet by chance only.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "os/io.h"
#include "store/pagefile_int.h"
#include "store/shard.h"

#define LARGE (CHT_LARGE_VALUE + 5000u)

static const uint8_t uuid[16] = {9};
static struct cht_err err;

static void must(enum cht_rc rc)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err.msg);
}

struct fixture {
    char dir[32], path[64];
    struct cht_shard *sh;
};

static void new_shard(struct fixture *f)
{
    f->sh = aligned_alloc(64, (sizeof *f->sh + 63) / 64 * 64);
    assert_non_null(f->sh);
}

static void open_shard(struct fixture *f)
{
    new_shard(f);
    must(cht_shard_open(cht_io_posix(), f->path, uuid, 0, 1, CHT_SHARD_USE, f->sh, &err));
    must(cht_values_recovered(&f->sh->values, &err));
}

static void close_shard(struct fixture *f)
{
    cht_shard_close(f->sh);
    free(f->sh);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    strcpy(f->dir, "/tmp/cht-ckpt-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->path, sizeof f->path, "%s/shard", f->dir);
    new_shard(f);
    must(cht_shard_create(cht_io_posix(), f->path, uuid, 0, 1, f->sh, &err));
    must(cht_shard_seal(f->sh, &err));
    close_shard(f);
    open_shard(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char cmd[64];
    close_shard(f);
    (void)snprintf(cmd, sizeof cmd, "rm -rf %s", f->dir);
    assert_int_equal(system(cmd), 0);
    free(f);
    return 0;
}

static void put_large(struct cht_shard *sh, uint64_t key, const uint8_t *p)
{
    struct cht_large l;
    must(cht_values_large_reserve(&sh->values, LARGE, &l, &err));
    must(cht_values_large_write(&sh->values, &l, p, &err));
    must(cht_values_large_put(&sh->values, key, &l, cht_value_crc(key, p, LARGE), &err));
}

static void expect(struct cht_shard *sh, uint64_t key, const uint8_t *want, uint32_t len)
{
    struct cht_value_ref ref;
    const uint8_t *p;
    must(cht_values_find(&sh->values, key, &ref, &err));
    assert_int_equal(ref.len, len);
    must(cht_values_view(&sh->values, key, &ref, &p, &err));
    assert_memory_equal(p, want, len);
}

static void no_page_is_bad(struct cht_shard *sh)
{
    uint8_t buf[CHT_PAGE];
    for (int k = 0; k < CHT_PF_KINDS; k++) {
        for (uint64_t p = 0; p < cht_pf_pages(sh->pf[k]); p++)
            must(cht_pf_scrub_page(sh->pf[k], p, buf, &err));
    }
}

static uint64_t dirty_values(const struct cht_shard *sh) { return sh->pf[CHT_PF_VALUES]->dirty_count; }

static uint8_t *pattern(uint8_t seed)
{
    uint8_t *p = malloc(LARGE);
    assert_non_null(p);
    for (uint32_t i = 0; i < LARGE; i++)
        p[i] = (uint8_t)(seed + i * 7 + (i >> 8));
    return p;
}

/* Room for a large value that is free and known to be: what the next one is given. */
static void make_free_room(struct cht_shard *sh, const uint8_t *bytes)
{
    put_large(sh, 1, bytes);
    must(cht_values_del(&sh->values, 1, &err));
    must(cht_shard_checkpoint(sh, &err));
    must(cht_shard_checkpoint(sh, &err));
    assert_int_equal(dirty_values(sh), 0);
}

/* An allocation that is undone leaves free pages; a large value is then written to them while a checkpoint is under
 * way. The checkpoint must not write what it remembers of them over it. */
static void test_undone_then_large(void **state)
{
    struct fixture *f = *state;
    struct cht_shard *sh = f->sh;
    uint8_t *a = pattern(1), *b = pattern(2);
    make_free_room(sh, a);
    for (uint8_t order = 0; order < 2;
         order++) { /* the undo before the checkpoint begins; while it is under way */
        struct cht_checkpoint *ck;
        if (order == 1)
            must(cht_checkpoint_begin(sh, 0, &ck, &err));
        cht_shard_undo_begin(sh);
        for (uint64_t key = 2; key < 40; key++)
            must(cht_values_put(&sh->values, key, a, 3000, &err));
        assert_true(dirty_values(sh) > 0);
        cht_shard_undo_rollback(sh);
        assert_int_equal(dirty_values(sh), 0);
        if (order == 0)
            must(cht_checkpoint_begin(sh, 0, &ck, &err));
        put_large(sh, 50u + order, b);
        must(cht_checkpoint_run(ck, &err));
        expect(sh, 50u + order, b, LARGE);
    }
    must(cht_shard_checkpoint(sh, &err));
    no_page_is_bad(sh);
    close_shard(f);
    open_shard(f);
    expect(f->sh, 50, b, LARGE);
    expect(f->sh, 51, b, LARGE);
    no_page_is_bad(f->sh);
    free(a);
    free(b);
}

/* An undone change of a page that the checkpoint has frozen, or copied already, leaves what the checkpoint wrote. */
static void test_undone_while_frozen(void **state)
{
    struct fixture *f = *state;
    struct cht_shard *sh = f->sh;
    uint8_t *a = pattern(3), *b = pattern(4);
    for (uint64_t key = 1; key < 200; key++)
        must(cht_values_put(&sh->values, key, a + key, 300, &err));
    struct cht_checkpoint *ck;
    must(cht_checkpoint_begin(sh, 0, &ck, &err));
    cht_shard_undo_begin(sh);
    for (uint64_t key = 1; key < 200; key += 2)
        must(cht_values_put(&sh->values, key, b, 300, &err));
    cht_shard_undo_rollback(sh);
    must(cht_values_put(&sh->values, 8, b, 300, &err)); /* and one that stays */
    must(cht_checkpoint_run(ck, &err));
    for (uint64_t key = 1; key < 200; key++)
        expect(sh, key, key == 8 ? b : a + key, 300);
    must(cht_shard_checkpoint(sh, &err));
    no_page_is_bad(sh);
    close_shard(f);
    open_shard(f);
    for (uint64_t key = 1; key < 200; key++)
        expect(f->sh, key, key == 8 ? b : a + key, 300);
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_undone_then_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_undone_while_frozen, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
