/* test_matrix: start, create, drop, restore, checkpoint, growth of the log and clean stop, each with any call on the disk failing, with
 * EIO, ENOSPC, EMFILE, ENFILE, EACCES, ENOMEM, EROFS, once, twice, always. After each: the bytes of everything acknowledged are
 * there (opened again without faults, compared, checked), what was refused is not shown, a refused start has not changed a byte,
 * damage is said of no such fault, a condition that can pass has passed, and what is no database is as it was.
 *
 * By default a sample of the places (CHT_TEST_SAMPLES, CHT_TEST_SEED); all of them with CHT_TEST_LONG. CHT_TEST_ONLY=growth runs one scenario,
 * CHT_TEST_RUN="scenario errno n times" one place of it.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "cheetah/backup.h"
#include "support/ledger.h"
#include "support/simdisk.h"

enum scenario { START_CLEAN, START_CRASH, CREATE, DROP, RESTORE, CHECKPOINT, GROWTH, STOP, SCENARIOS };
static const char *const scenario_names[SCENARIOS] = {"start",   "start after a crash", "create", "drop",
                                                      "restore", "checkpoint",          "growth", "stop"};
static const int errnos[] = {EIO, ENOSPC, EMFILE, ENFILE, EACCES, ENOMEM, EROFS};
static const uint64_t durations[] = {1, 2, UINT64_MAX};

/* Giving private pages of a mapping of ours back takes no memory and asks no disk. */
#define ANY_CALL (((1u << SIM_CALLS) - 1) & ~(1u << SIM_DISCARD))

static const char *const dirs[] = {"/a", "/b"};
static const char *const apart[] = {"/a/foreign", "/a/lost+found", "/b/elsewhere", "/outside"};

/* A disk and what is acknowledged on it. */
struct base {
    struct simdisk *d;
    struct ledger first, second; /* databases "default", "other" */
};
static struct base clean, crashed;
static uint8_t *backup; /* of "other" on clean */
static size_t backup_len;

static struct cht_env_config config(struct simdisk *d)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 2,
                                   .default_shards = 2,
                                   .log_segment_bytes = 1u << 15,
                                   .scan_workers = 1,
                                   .commit_threads = 1,
                                   .manual_checkpoint = true,
                                   .value_order = CHT_ORDER_ALWAYS,
                                   .io = simdisk_io(d)};
}

static struct cht_env *open_env(struct simdisk *d)
{
    struct cht_env_config cfg = config(d);
    struct cht_err err = {0};
    struct cht_env *env = NULL;
    if (cht_env_open(&cfg, &env, &err) != CHT_OK)
        fail_msg("opening: %s", err.msg);
    return env;
}

static struct cht_store *get(struct cht_env *env, const char *name)
{
    struct cht_err err = {0};
    struct cht_store *s = NULL;
    if (cht_env_get(env, name, &s, &err) != CHT_OK)
        fail_msg("%s: %s", name, err.msg);
    return s;
}

/* ---- one run ------------------------------------------------------------------------------------------------- */

struct run {
    enum scenario what;
    struct sim_plan plan;
    struct simdisk *d;
    struct ledger first, second, third; /* third: the database that the scenario makes, "new" */
    bool made, refused;                 /* the scenario's call was acknowledged; was refused */
    bool dropped;                       /* it was tried to drop "other" */
    uint64_t apart;                     /* digest of what is no database */
    char name[160];
};

#define BAD(r, ...)                                             \
    do {                                                        \
        char bad_text[400];                                     \
        (void)snprintf(bad_text, sizeof bad_text, __VA_ARGS__); \
        complain((r), bad_text);                                \
    } while (0)

static unsigned complaints;
static void complain(struct run *r, const char *text)
{
    const char *path;
    enum sim_call call = simdisk_victim(r->d, &path);
    print_error("%s (%s of %s): %s\n", r->name, sim_call_name(call), path, text);
    complaints++;
}

/* Of a call that failed because of the fault: the code must not say that stored data are damaged, or not there. */
static void must_be_sensible(struct run *r, enum cht_rc rc, const char *what, const struct cht_err *err)
{
    if (rc == CHT_CORRUPT || rc == CHT_SHARD_MISSING || rc == CHT_SHARD_MISPLACED || rc == CHT_VERSION ||
        rc == CHT_DATABASE_NOT_FOUND || rc == CHT_LOCKED)
        BAD(r, "%s: %s: %s", what, cht_rc_slug(rc), err->msg);
}

static uint64_t digest_apart(const struct simdisk *d)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof apart / sizeof *apart; i++)
        sum = sum * 31 + simdisk_digest(d, apart[i], NULL);
    return sum;
}

/* As `serve` starts: "default" is made if there is none. */
static enum cht_rc start(struct run *r, struct cht_env **env, struct cht_err *err)
{
    struct cht_env_config cfg = config(r->d);
    struct cht_store *s;
    enum cht_rc rc = cht_env_open(&cfg, env, err);
    if (rc != CHT_OK) {
        must_be_sensible(r, rc, "opening the directories", err);
        return rc;
    }
    rc = cht_env_get(*env, "default", &s, err);
    must_be_sensible(r, rc, "opening default", err);
    if (rc == CHT_DATABASE_NOT_FOUND)
        rc = cht_env_create(*env, "default", 0, err);
    return rc;
}

/* A refused start has changed no byte; after a crash, recovery may have finished a part of its work, which verify looks at. */
static void run_start(struct run *r)
{
    struct cht_env *env = NULL;
    struct cht_store *s;
    struct cht_err err = {0};
    uint64_t before = simdisk_digest(r->d, "/", NULL);
    simdisk_plan(r->d, &r->plan);
    enum cht_rc rc = start(r, &env, &err);
    r->refused = rc != CHT_OK;
    if (rc == CHT_OK) {
        rc = cht_env_get(env, "other", &s, &err);
        must_be_sensible(r, rc, "opening other", &err);
        if (ledger_commits(&r->first, get(env, "default"), 3) != CHT_OK && r->first.shown)
            BAD(r, "default shows what it refused");
    }
    if (r->refused)
        cht_env_abandon(env); /* NULL is legal */
    else
        (void)cht_env_close(env, &err); /* verify looks at what is left */
    simdisk_plan(r->d, NULL);
    if (r->refused && r->what == START_CLEAN && simdisk_digest(r->d, "/", NULL) != before)
        BAD(r, "a refused start changed the disk: %s", err.msg);
}

static void run_create(struct run *r, struct cht_env *env, struct cht_err *err)
{
    enum cht_rc rc = cht_env_create(env, "new", 0, err);
    struct cht_store *s;
    must_be_sensible(r, rc, "create", err);
    r->made = rc == CHT_OK;
    r->refused = !r->made;
    if (rc == CHT_OK)
        rc = cht_env_get(env, "new", &s, err);
    if (r->made && rc != CHT_OK)
        must_be_sensible(r, rc, "opening what was made", err);
    if (rc == CHT_OK)
        (void)ledger_commits(&r->third, s, 3);
}

static void run_restore(struct run *r, struct cht_env *env, struct cht_err *err)
{
    struct cht_restore *restore = NULL;
    enum cht_rc rc = cht_restore_new(env, "new", &restore, err);
    if (rc == CHT_OK)
        rc = cht_restore_feed(restore, backup, backup_len, err);
    if (rc == CHT_OK)
        rc = cht_restore_finish(restore, err);
    cht_restore_free(restore);
    must_be_sensible(r, rc, "restore", err);
    r->made = rc == CHT_OK;
    r->refused = !r->made;
    if (r->made)
        ledger_copy(&r->third, &clean.second);
}

static void run_drop(struct run *r, struct cht_env *env, struct cht_err *err)
{
    r->dropped = true;
    enum cht_rc rc = cht_env_drop(env, "other", err);
    must_be_sensible(r, rc, "drop", err);
    r->made = rc == CHT_OK;
    r->refused = !r->made && rc != CHT_OUTCOME_UNKNOWN;
}

static bool passes(int sys)
{
    return sys == ENOSPC || sys == EMFILE || sys == ENFILE || sys == ENOMEM || sys == EROFS;
}

/* Without faults again, and without a restart: a condition that can pass has passed. A failed sync is none: after it nobody knows
 * what the disk has. After a failed write of the log there is a pause. */
static void must_pass(struct run *r, struct cht_store *s)
{
    struct cht_err err = {0};
    if (simdisk_injected(r->d) == 0 || !passes(r->plan.sys) ||
        simdisk_failed(r->d, 1u << SIM_SYNC | 1u << SIM_SYNC_DIR, NULL))
        return;
    if (simdisk_failed(r->d, 1u << SIM_PWRITE, "/log/") && simdisk_failed(r->d, 1u << SIM_PREAD, "/log/"))
        return; /* what was written of the record cannot be known then */
    bool pauses = simdisk_failed(r->d, 1u << SIM_PWRITE, "/log/");
    simdisk_plan(r->d, NULL);
    enum cht_rc rc = ledger_commits(&r->first, s, 2);
    for (unsigned i = 0; pauses && rc != CHT_OK && i < 2400; i++) {
        cht_sleep_ns(50000000);
        rc = ledger_commits(&r->first, s, 2);
    }
    if (rc != CHT_OK)
        BAD(r, "writes are refused although the condition has passed: %s", r->first.why);
    rc = cht_store_checkpoint(s, &err);
    if (rc != CHT_OK)
        BAD(r, "no checkpoint although the condition has passed: %s", err.msg);
}

static void run_writes(struct run *r, struct cht_env *env, struct cht_err *err)
{
    struct cht_store *s = get(env, "default");
    unsigned rounds = r->what == GROWTH ? 4 : 2;
    for (unsigned i = 0; i < rounds; i++) {
        enum cht_rc rc = ledger_commits(&r->first, s, r->what == GROWTH ? 12 : 3);
        if (rc != CHT_OK && (rc == CHT_CORRUPT || rc == CHT_LOCKED))
            BAD(r, "a commit: %s", r->first.why);
        if (r->what == CHECKPOINT) {
            rc = cht_store_checkpoint(s, err);
            must_be_sensible(r, rc, "checkpoint", err);
        }
    }
    if (r->first.shown)
        BAD(r, "what was refused is shown: %s", r->first.why);
    must_pass(r, s);
}

/* All but a start: the databases are open before anything fails. */
static void run_open(struct run *r)
{
    struct cht_env *env = open_env(r->d);
    struct cht_err err = {0};
    (void)get(env, "default");
    (void)get(env, "other");
    if (r->what == STOP)
        assert_int_equal(ledger_commits(&r->first, get(env, "default"), 4), CHT_OK);
    simdisk_plan(r->d, &r->plan);
    if (r->what == CREATE)
        run_create(r, env, &err);
    else if (r->what == DROP)
        run_drop(r, env, &err);
    else if (r->what == RESTORE)
        run_restore(r, env, &err);
    else if (r->what == CHECKPOINT || r->what == GROWTH)
        run_writes(r, env, &err);
    if (r->what == STOP)
        must_be_sensible(r, cht_env_close(env, &err), "closing", &err);
    else
        cht_env_abandon(env); /* a kill */
    simdisk_plan(r->d, NULL);
}

/* ---- what must hold after it --------------------------------------------------------------------------------- */

static void compare(struct run *r, struct cht_env *env, const char *name, struct ledger *l)
{
    struct cht_err err = {0};
    struct cht_store *s;
    enum cht_rc rc = cht_env_get(env, name, &s, &err);
    if (rc != CHT_OK)
        BAD(r, "%s without faults: %s: %s", name, cht_rc_slug(rc), err.msg);
    else if (!ledger_compare(l, s))
        BAD(r, "%s: %s", name, l->why);
}

static void note_name(void *ctx, const char *name)
{
    char(*list)[300] = ctx;
    (void)strcat(strcat(*list, name), " "); /* few and short */
}

/* What the scenario made, or did not. */
static void compare_third(struct run *r, struct cht_env *env, const char *list)
{
    bool there = strstr(list, "new ") != NULL;
    if (r->what != CREATE && r->what != RESTORE)
        return;
    if (r->made ||
        (there &&
         r->what ==
             CREATE)) /* a refusal of the last sync may come after the deed: it is then whole, and empty */
        compare(r, env, "new", &r->third);
    else if (there)
        compare(r, env, "new", &clean.second);
    struct cht_err err = {0};
    if (!there && cht_env_create(env, "new", 0, &err) != CHT_OK)
        BAD(r, "what was left stands in the way: %s", err.msg);
}

static void print_finding(void *ctx, const char *where, const char *what)
{
    BAD((struct run *)ctx, "check: %s: %s", where, what);
}

struct folders {
    struct run *r;
    const char *list;
};

static void look_at(void *ctx, const char *name, enum cht_io_kind kind)
{
    struct folders *f = ctx;
    char word[300];
    (void)snprintf(word, sizeof word, "%.200s ", name);
    if (kind == CHT_IO_FOLDER && strcmp(name, "foreign") != 0 && strcmp(name, "lost+found") != 0 &&
        strstr(f->list, word) == NULL)
        BAD(f->r, "a folder is left: %s (databases: %s)", name, f->list);
}

/* Without a fault nothing stays unfinished. */
static void see_finished(void *ctx, const char *name, enum cht_rc rc, const char *what)
{
    if (rc != CHT_OK)
        BAD((struct run *)ctx, "unfinished: %s: %s", name, what);
}

static void verify(struct run *r)
{
    struct cht_env *env = open_env(r->d);
    struct cht_err err = {0};
    char list[300] = "";
    assert_int_equal(cht_env_finish(env, see_finished, r, &err), CHT_OK); /* as every start does */
    if (digest_apart(r->d) != r->apart)
        BAD(r, "what is no database has changed");
    assert_int_equal(cht_env_list(env, note_name, &list, &err), CHT_OK);
    struct folders f = {r, list};
    for (int i = 0; i < 2; i++)
        assert_int_equal(simdisk_io(r->d)->ops->list(simdisk_io(r->d), dirs[i], look_at, &f, &err), CHT_OK);
    compare(r, env, "default", &r->first);
    if (!r->dropped)
        compare(r, env, "other", &r->second);
    else if (strstr(list, "other ") != NULL && r->made)
        BAD(r, "a dropped database is there");
    else if (strstr(list, "other ") == NULL && r->refused && passes(r->plan.sys))
        BAD(r, "a drop that was refused was done");
    else if (strstr(list, "other ") != NULL)
        compare(r, env, "other", &r->second);
    compare_third(r, env, list);
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    struct cht_env_config cfg = config(r->d);
    uint64_t findings = 0;
    if (cht_check(&cfg, NULL, print_finding, r, &findings, &err) != CHT_OK)
        BAD(r, "check: %s", err.msg);
}

/* How many calls failed; with plan.sys 0 how many there are. */
static uint64_t run(enum scenario what, int sys, uint64_t n, uint64_t times)
{
    struct base *b = what == START_CRASH ? &crashed : &clean;
    struct run r = {.what = what,
                    .plan = {.sys = sys, .first = n, .times = times, .calls = ANY_CALL},
                    .d = simdisk_clone(b->d)};
    uint64_t out;
    (void)snprintf(r.name, sizeof r.name, "%s: %s at call %llu%s", scenario_names[what],
                   sys == 0 ? "nothing" : strerror(sys), (unsigned long long)n,
                   times == 1   ? ""
                   : times == 2 ? " and the next"
                                : " and all after it");
    ledger_copy(&r.first, &b->first);
    ledger_copy(&r.second, &b->second);
    ledger_init(&r.third, 3);
    r.apart = digest_apart(r.d);
    if (what == START_CLEAN || what == START_CRASH)
        run_start(&r);
    else
        run_open(&r);
    out = sys == 0 ? simdisk_seen(r.d) : simdisk_injected(r.d);
    verify(&r);
    simdisk_free(r.d);
    return out;
}

/* ---- starts that must be refused ----------------------------------------------------------------------------- */

/* What an operator may do to the data, and which database must then not open. */
enum harm {
    NO_A,
    NO_B,
    MODE_MANIFEST,
    MODE_FOLDER,
    MODE_SHARD,
    MODE_DIRECTORY,
    NO_MANIFEST,
    NO_FOLDER,
    HARMS
};
static const char *const harm_names[HARMS] = {"the first directory is not mounted",
                                              "the second directory is not mounted",
                                              "a manifest without permission",
                                              "a folder without permission",
                                              "a shard without permission",
                                              "a directory without permission",
                                              "a manifest is missing",
                                              "the folder with the manifest is missing"};

static void put_harm(struct simdisk *d, enum harm h, bool on)
{
    static const char *const modes[HARMS] = {[MODE_MANIFEST] = "/a/default/manifest",
                                             [MODE_FOLDER] = "/b/default",
                                             [MODE_SHARD] = "/b/default/shard-001",
                                             [MODE_DIRECTORY] = "/b"};
    struct cht_io *io = simdisk_io(d);
    if (h == NO_A || h == NO_B)
        simdisk_mount(d, dirs[h - NO_A], !on);
    else if (modes[h] != NULL)
        simdisk_chmod(d, modes[h], on ? 0 : 0700);
    else if (h == NO_MANIFEST && on)
        assert_int_equal(io->ops->rename(io, "/a/default/manifest", "/a/manifest.away", NULL), CHT_OK);
    else if (h == NO_MANIFEST)
        assert_int_equal(io->ops->rename(io, "/a/manifest.away", "/a/default/manifest", NULL), CHT_OK);
    else
        assert_int_equal(
            io->ops->rename(io, on ? "/a/default" : "/a/away", on ? "/a/away" : "/a/default", NULL), CHT_OK);
}

/* The harm, a start (with a fault as well: sys 0 none), the harm undone: all is there. Only LOCK may be made. */
static void run_harm(enum harm h, int sys, uint64_t n)
{
    struct run r = {.what = START_CLEAN,
                    .plan = {.sys = sys, .first = n, .times = UINT64_MAX, .calls = ANY_CALL},
                    .d = simdisk_clone(clean.d)};
    struct cht_env *env = NULL;
    struct cht_err err = {0};
    (void)snprintf(r.name, sizeof r.name, "%s, %s at call %llu and all after it", harm_names[h],
                   sys == 0 ? "nothing" : strerror(sys), (unsigned long long)n);
    ledger_copy(&r.first, &clean.first);
    ledger_copy(&r.second, &clean.second);
    put_harm(r.d, h, true);
    r.apart = digest_apart(r.d);
    uint64_t before = simdisk_digest(r.d, "/", "/LOCK");
    simdisk_plan(r.d, &r.plan);
    struct cht_env_config cfg = config(r.d);
    enum cht_rc rc = cht_env_open(&cfg, &env, &err);
    struct cht_store *s;
    if (rc == CHT_OK)
        rc = cht_env_get(env, "default", &s, &err);
    if (rc == CHT_DATABASE_NOT_FOUND) { /* what `serve` does then */
        BAD(&r, "it counts as absent");
        rc = cht_env_create(env, "default", 0, &err);
    }
    if (rc == CHT_OK)
        BAD(&r, "it starts");
    else if (rc == CHT_CORRUPT)
        BAD(&r, "it is called damaged: %s", err.msg);
    cht_env_abandon(env);
    simdisk_plan(r.d, NULL);
    if (simdisk_digest(r.d, "/", "/LOCK") != before)
        BAD(&r, "a refused start changed the disk: %s", err.msg);
    put_harm(r.d, h, false);
    r.apart = digest_apart(r.d);
    verify(&r);
    simdisk_free(r.d);
}

static void test_harms(void **state)
{
    (void)state;
    complaints = 0;
    for (int h = 0; h < HARMS && complaints < 40; h++) {
        run_harm((enum harm)h, 0, 1);
        for (size_t e = 0; e < sizeof errnos / sizeof *errnos; e++) {
            for (uint64_t n = 1; n <= 60; n += getenv("CHT_TEST_LONG") != NULL ? 1 : 17)
                run_harm((enum harm)h, errnos[e], n);
        }
    }
    assert_int_equal(complaints, 0);
}

/* ---- the matrix ---------------------------------------------------------------------------------------------- */

static void make_backup(struct cht_store *s)
{
    struct cht_backup *b;
    struct cht_err err = {0};
    size_t n = 1, cap = 4u << 20;
    backup = malloc(cap);
    assert_int_equal(cht_backup_open(s, &b, &err), CHT_OK);
    while (n > 0) {
        assert_true(cap - backup_len >= CHT_BACKUP_BUFFER_MIN);
        assert_int_equal(cht_backup_read(b, backup + backup_len, cap - backup_len, &n, &err), CHT_OK);
        backup_len += n;
    }
    cht_backup_close(b);
}

/* Each directory is a file system of its own. */
static int make_bases(void **state)
{
    (void)state;
    struct cht_err err = {0};
    struct simdisk *d = clean.d = simdisk_new();
    struct cht_io *io = simdisk_io(d);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(io->ops->mkdir(io, dirs[i], &err), CHT_OK);
        simdisk_mount(d, dirs[i], true);
    }
    ledger_init(&clean.first, 1);
    ledger_init(&clean.second, 2);
    struct cht_env *env = open_env(d);
    assert_int_equal(cht_env_create(env, "default", 0, &err), CHT_OK);
    assert_int_equal(cht_env_create(env, "other", 0, &err), CHT_OK);
    assert_int_equal(ledger_commits(&clean.first, get(env, "default"), 20), CHT_OK);
    assert_int_equal(ledger_commits(&clean.second, get(env, "other"), 20), CHT_OK);
    make_backup(get(env, "other"));
    assert_int_equal(cht_env_close(env, &err), CHT_OK);
    for (int i = 0; i < 2; i++) {
        const char *folder = i == 0 ? "/a/foreign" : "/outside";
        char path[40];
        assert_int_equal(io->ops->mkdir(io, folder, &err), CHT_OK);
        (void)snprintf(path, sizeof path, "%s/precious", folder);
        simdisk_put(d, path, "precious", 8);
    }
    assert_int_equal(io->ops->mkdir(io, "/a/lost+found", &err), CHT_OK);
    simdisk_link(d, "/b/elsewhere", "/outside");
    crashed.d = simdisk_clone(d);
    crashed.first = clean.first;
    crashed.second = clean.second;
    env = open_env(crashed.d);
    assert_int_equal(ledger_commits(&crashed.first, get(env, "default"), 15), CHT_OK);
    assert_int_equal(ledger_commits(&crashed.second, get(env, "other"), 5), CHT_OK);
    cht_env_abandon(env);
    return 0;
}

static int free_bases(void **state)
{
    (void)state;
    simdisk_free(clean.d);
    simdisk_free(crashed.d);
    free(backup);
    return 0;
}

static uint64_t number(const char *name, uint64_t fallback)
{
    const char *s = getenv(name);
    return s != NULL ? strtoull(s, NULL, 10) : fallback;
}

/* All places, or some of each part of them. */
static void places(enum scenario what, int sys, uint64_t times, uint64_t calls, struct cht_rng *r)
{
    bool all = getenv("CHT_TEST_LONG") != NULL;
    uint64_t samples = number("CHT_TEST_SAMPLES", 5);
    for (uint64_t i = 0; i < (all ? calls : samples) && complaints < 40; i++) {
        uint64_t n = all ? i + 1 : calls * i / samples + 1 + cht_rng_below(r, calls / samples + 1);
        (void)run(what, sys, n, times);
    }
}

static void matrix(enum scenario what)
{
    struct cht_rng r;
    cht_rng_seed(&r, number("CHT_TEST_SEED", 7) + (uint64_t)what);
    complaints = 0;
    uint64_t calls = run(what, 0, 1, 1);
    assert_int_equal(complaints, 0);
    assert_true(calls > 10);
    for (size_t e = 0; e < sizeof errnos / sizeof *errnos; e++) {
        for (size_t t = 0; t < sizeof durations / sizeof *durations; t++)
            places(what, errnos[e], durations[t], calls, &r);
    }
    print_message("%s: %llu calls that can fail\n", scenario_names[what], (unsigned long long)calls);
    assert_int_equal(complaints, 0);
}

static void test_scenario(void **state) { matrix(*(enum scenario *)*state); }

static void test_one(void **state)
{
    (void)state;
    int what, sys;
    unsigned long long n, times;
    assert_int_equal(sscanf(getenv("CHT_TEST_RUN"), "%d %d %llu %llu", &what, &sys, &n, &times), 4);
    (void)run((enum scenario)what, sys, n, times);
    assert_int_equal(complaints, 0);
}

int main(void)
{
    static enum scenario which[SCENARIOS];
    struct CMUnitTest tests[SCENARIOS + 1] = {[SCENARIOS] = cmocka_unit_test(test_harms)};
    for (int i = 0; i < SCENARIOS; i++) {
        which[i] = (enum scenario)i;
        tests[i] = (struct CMUnitTest){scenario_names[i], test_scenario, NULL, NULL, &which[i]};
    }
    const struct CMUnitTest one[] = {cmocka_unit_test(test_one)};
    if (getenv("CHT_TEST_ONLY") != NULL)
        cmocka_set_test_filter(getenv("CHT_TEST_ONLY"));
    if (getenv("CHT_TEST_RUN") != NULL)
        return cmocka_run_group_tests(one, make_bases, free_bases);
    return cmocka_run_group_tests(tests, make_bases, free_bases);
}
