/* test_moved: the data directory, or the folder of a database, is moved away under an environment that has it open, and another one is put in its
 * place, which another environment may have open by then. Whatever the first one does from then on: the other one's bytes stay as they are,
 * and what was acknowledged before and after is where the folder went.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "cheetah/backup.h"
#include "support/ledger.h"
#include "support/simdisk.h"

static void must(enum cht_rc rc, const struct cht_err *err)
{
    if (rc != CHT_OK)
        fail_msg("%s: %s", cht_rc_slug(rc), err->msg);
}

static struct cht_env_config config(struct simdisk *d, const char *const *dir)
{
    return (struct cht_env_config){.dirs = dir,
                                   .dir_count = 1,
                                   .default_shards = 2,
                                   .log_segment_bytes = 1u << 13,
                                   .scan_workers = 1,
                                   .commit_threads = 1,
                                   .manual_checkpoint = true,
                                   .io = simdisk_io(d)};
}

static struct cht_env *open_env(struct simdisk *d, const char *const *dir)
{
    struct cht_env_config cfg = config(d, dir);
    struct cht_env *env = NULL;
    struct cht_err err = {0};
    must(cht_env_open(&cfg, &env, &err), &err);
    return env;
}

static struct cht_store *get(struct cht_env *env, const char *name)
{
    struct cht_store *s = NULL;
    struct cht_err err = {0};
    must(cht_env_get(env, name, &s, &err), &err);
    return s;
}

/* The same names as the first one has: "used", "fresh" (never written to), "closed". */
static void make_other(struct simdisk *d, const char *dir)
{
    struct cht_err err = {0};
    struct ledger l;
    struct cht_env *env = open_env(d, &dir);
    for (int i = 0; i < 3; i++) {
        const char *name = (const char *[]){"used", "fresh", "closed"}[i];
        must(cht_env_create(env, name, 0, &err), &err);
        ledger_init(&l, 100 + (uint64_t)i);
        assert_int_equal(ledger_commits(&l, get(env, name), 200), CHT_OK);
    }
    cht_env_abandon(env); /* as a kill would: with a log to redo */
}

static void refused(enum cht_rc rc, const struct cht_err *err)
{
    if (rc == CHT_OK || strstr(err->msg, "moved") == NULL)
        fail_msg("not refused, or for another reason: %s: %s", cht_rc_slug(rc), err->msg);
}

/* Everything that goes by a name. */
static void do_all(struct cht_env *env, struct cht_store *used, struct cht_store *fresh, struct ledger *l,
                   bool whole)
{
    struct cht_err err = {0};
    struct cht_store *s;
    struct cht_backup *b;
    struct ledger other;
    assert_int_not_equal(ledger_commits(l, used, 400), CHT_OK); /* until its log wants another segment */
    ledger_init(&other, 5);
    (void)ledger_commits(&other, fresh, 400);
    assert_int_not_equal(cht_store_checkpoint(used, &err), CHT_OK);
    if (cht_backup_open(used, &b, &err) == CHT_OK)
        fail_msg("a backup of what is not there");
    if (!whole)
        return;
    refused(cht_env_create(env, "more", 0, &err), &err);
    refused(cht_env_get(env, "closed", &s, &err), &err);
    refused(cht_env_drop(env, "closed", &err), &err);
    refused(cht_env_drop(env, "used", &err), &err);
}

static void see_finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    fail_msg("check: %s: %s", where, what);
}

static void run(const char *from, const char *away, const char *to, bool whole)
{
    static const char *const dir = "/a", *const elsewhere = "/away";
    struct simdisk *d = simdisk_new();
    struct cht_io *io = simdisk_io(d);
    struct cht_err err = {0};
    struct ledger l;
    uint64_t findings = 0;
    simdisk_forget(d);
    make_other(d, "/b");
    struct cht_env *env = open_env(d, &dir);
    for (int i = 0; i < 3; i++)
        must(cht_env_create(env, (const char *[]){"used", "fresh", "closed"}[i], 0, &err), &err);
    struct cht_store *used = get(env, "used"), *fresh = get(env, "fresh");
    ledger_init(&l, 1);
    assert_int_equal(ledger_commits(&l, used, 150), CHT_OK);
    must(io->ops->rename(io, from, away, &err), &err);
    must(io->ops->rename(io, to, from, &err), &err);
    uint64_t before = simdisk_digest(d, from, NULL);
    do_all(env, used, fresh, &l, whole);
    assert_true(simdisk_digest(d, from, NULL) == before);
    assert_int_not_equal(cht_env_close(env, &err), CHT_OK);
    assert_true(simdisk_digest(d, from, NULL) == before);
    must(io->ops->rename(io, from, to, &err), &err);
    if (!whole)
        must(io->ops->rename(io, away, from, &err), &err);
    env = open_env(d, whole ? &elsewhere : &dir);
    if (!ledger_compare(&l, get(env, "used")))
        fail_msg("%s", l.why);
    must(cht_env_close(env, &err), &err);
    struct cht_env_config cfg = config(d, whole ? &elsewhere : &dir);
    must(cht_check(&cfg, NULL, see_finding, NULL, &findings, &err), &err);
    simdisk_free(d);
}

static void test_directory(void **state)
{
    (void)state;
    run("/a", "/away", "/b", true);
}

static void test_database(void **state)
{
    (void)state;
    run("/a/used", "/a-used", "/b/used", false);
}

/* Nothing is in its place. */
static void test_gone(void **state)
{
    (void)state;
    static const char *const dir = "/a";
    struct simdisk *d = simdisk_new();
    struct cht_io *io = simdisk_io(d);
    struct cht_err err = {0};
    struct ledger l;
    simdisk_forget(d);
    struct cht_env *env = open_env(d, &dir);
    must(cht_env_create(env, "used", 0, &err), &err);
    struct cht_store *used = get(env, "used");
    ledger_init(&l, 1);
    assert_int_equal(ledger_commits(&l, used, 150), CHT_OK);
    must(io->ops->rename(io, "/a", "/away", &err), &err);
    assert_int_not_equal(ledger_commits(&l, used, 400), CHT_OK);
    refused(cht_env_create(env, "more", 0, &err), &err);
    assert_int_not_equal(cht_env_close(env, &err), CHT_OK);
    must(io->ops->rename(io, "/away", "/a", &err), &err);
    env = open_env(d, &dir);
    if (!ledger_compare(&l, get(env, "used")))
        fail_msg("%s", l.why);
    must(cht_env_close(env, &err), &err);
    simdisk_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_directory), cmocka_unit_test(test_database),
                                       cmocka_unit_test(test_gone)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
