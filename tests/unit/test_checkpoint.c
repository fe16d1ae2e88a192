/* test_checkpoint: the two halves of a shard's checkpoint with changes in between, which other tests meet by chance only.
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

#include "base/clock.h"
#include "os/io.h"
#include "os/thread.h"
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

/* ---- an io table in which a file grows while its length is asked ---------------------------------------------------- */

#define WAIT_NS UINT64_C(200000000) /* for the one who may have to wait for the lock */

static struct cht_io_ops ops;
static struct cht_io io = {&ops};
static unsigned asked; /* how often a length was asked for */
static struct growing {
    struct cht_shard *sh; /* NULL: none is to grow */
    const struct cht_file *file;
    struct cht_thread thread;
    bool begun;
    _Atomic bool done;
} growing;

static void *grow(void *arg)
{
    struct cht_shard *sh = growing.sh;
    static const uint8_t bytes[3000] = {1};
    struct cht_err e;
    cht_rwlock_write(&sh->lock);
    uint64_t pages = sh->pf[CHT_PF_VALUES]->file_pages;
    for (uint64_t key = 1000; sh->pf[CHT_PF_VALUES]->file_pages == pages && key < 2000; key++)
        (void)cht_values_put(&sh->values, key, bytes, sizeof bytes, &e);
    cht_rwlock_write_end(&sh->lock);
    atomic_store(&growing.done, true);
    return arg;
}

static enum cht_rc size_of(struct cht_file *f, uint64_t *size, struct cht_err *e)
{
    enum cht_rc rc = cht_io_posix()->ops->size(f, size, e);
    asked++;
    if (growing.sh == NULL || f != growing.file || growing.begun)
        return rc;
    growing.begun = true;
    if (cht_thread_start(&growing.thread, "grow", grow, NULL, e) != CHT_OK)
        return CHT_NO_MEMORY;
    uint64_t end = cht_now_ns() + WAIT_NS;
    while (!atomic_load(&growing.done) && cht_now_ns() < end)
        cht_sleep_ns(1000000);
    return rc;
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
    must(cht_shard_open(&io, f->path, uuid, 0, 1, CHT_SHARD_USE, f->sh, &err));
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
    ops = *cht_io_posix()->ops;
    ops.size = size_of;
    strcpy(f->dir, "/tmp/cht-ckpt-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->path, sizeof f->path, "%s/shard", f->dir);
    new_shard(f);
    must(cht_shard_create(&io, f->path, uuid, 0, 1, f->sh, &err));
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

/* A file that grows, or is cut, as a checkpoint does, while somebody looks whether something else has cut it. */
static void test_length_that_changes(void **state)
{
    struct fixture *f = *state;
    struct cht_shard *sh = f->sh;
    uint8_t *a = pattern(5);
    struct cht_checkpoint *ck;
    struct cht_large l;
    must(cht_values_put(&sh->values, 1, a, 300, &err));
    must(cht_checkpoint_begin(sh, 0, &ck, &err));
    growing = (struct growing){.sh = sh, .file = sh->pf[CHT_PF_VALUES]->file};
    must(cht_checkpoint_run(ck, &err));
    assert_true(growing.begun);
    cht_thread_join(&growing.thread);
    growing.sh = NULL;
    must(cht_values_large_reserve(&sh->values, LARGE, &l, &err));
    unsigned before = asked;
    must(cht_values_large_write(&sh->values, &l, a, &err)); /* without the lock */
    assert_int_equal(asked, before);
    must(cht_values_large_put(&sh->values, 2, &l, cht_value_crc(2, a, LARGE), &err));
    must(cht_shard_checkpoint(sh, &err));
    expect(sh, 1, a, 300);
    expect(sh, 2, a, LARGE);
    no_page_is_bad(sh);
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_undone_then_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_undone_while_frozen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_length_that_changes, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
