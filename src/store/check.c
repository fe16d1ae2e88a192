/* check: offline verification of data directories; nothing is modified. What is looked at:
 *
 *   K0 the data directories belong together; what their lists name is there
 *   K1 the manifest, the headers of all page files, their place and generation (opening does that)
 *   K2 every page of every page file against its sum; the sums pages against their own
 *   K3 the structures of keys, values and recycle, and every value's checksum   (cht_values_check)
 *   K4 the trie                                                                 (cht_trie_check)
 *   K5 every pair leads to a valid key; keys beyond 2^48-1 or 0 cannot be written
 *   K6 every record of the log, and each operation in it
 *
 * A database that was not stopped cleanly is checked as its last checkpoint left it (a complete journal applied in
 * memory). Free pages of `values` may then hold the remains of what was under way: these are not findings, and only the pages of
 * extents in use are compared with their sums.
 */
#include "store/db.h"

#include "base/alloc.h"
#include "store/logops.h"
#include "store/pagefile_int.h"
#include "store/expiry.h"

#include <stdio.h>
#include <string.h>

struct check {
    struct cht_io *io;
    char *const *dirs;
    size_t ndirs;
    void (*fn)(void *ctx, const char *where, const char *what);
    void *ctx;
    uint64_t findings;
    struct cht_shard *sh; /* the one under check */
    const char *name;
    bool clean;
    struct cht_err first; /* a failure that is not a finding */
    void (*progress)(void *ctx, const char *database, uint64_t done, uint64_t total);
    void (*notice)(void *ctx, const char *database, const char *what);
    void *progress_ctx;
    struct cht_set *sets; /* owned, one a directory */
    uint64_t done, total; /* pages of the database; those of values and pairs count again for K3 and K4 */
};

#define PROGRESS_PAGES 256u

static void report(struct check *c, const char *where, const char *what)
{
    c->findings++;
    c->fn(c->ctx, where, what);
}

static void advance(struct check *c, uint64_t pages)
{
    c->done += pages;
    if (c->progress != NULL)
        c->progress(c->progress_ctx, c->name, c->done * CHT_PAGE, c->total * CHT_PAGE);
}

static void report_at(struct check *c, enum cht_pf_kind kind, uint64_t off, const char *what)
{
    char where[CHT_PATH_MAX + 32];
    (void)snprintf(where, sizeof where, "%s:%llu", cht_pf_path(c->sh->pf[kind]), (unsigned long long)off);
    report(c, where, what);
}

static void bad_value(void *ctx, enum cht_pf_kind kind, uint64_t off, const char *what)
{
    report_at(ctx, kind, off, what);
}

static void bad_pair(void *ctx, uint64_t off, const char *what) { report_at(ctx, CHT_PF_PAIRS, off, what); }

static void see_pair(void *ctx, const uint8_t *name, size_t len, uint64_t key)
{
    struct check *c = ctx;
    if (key == 0 || key > CHT_KEY_MAX)
        report_at(c, CHT_PF_PAIRS, 0, "a pair leads to an impossible key");
    if (cht_shard_of_name((struct cht_str){name, len}, c->sh->count) != c->sh->index)
        report_at(c, CHT_PF_PAIRS, 0, "a pair lies in a shard that its name does not lead to");
}

/* Damage is a finding, and so is what cannot be read; anything else (no memory) ends the check. */
static enum cht_rc settle(struct check *c, enum cht_rc rc, const struct cht_err *e)
{
    bool damage = rc == CHT_CORRUPT || rc == CHT_VERSION || rc == CHT_SHARD_MISSING ||
                  rc == CHT_SHARD_MISPLACED || rc == CHT_NO_FILE || rc == CHT_DATABASE_INCOMPLETE ||
                  rc == CHT_IO;
    if (damage)
        report(c, c->name, e->msg);
    else if (rc != CHT_OK && c->first.code == CHT_OK)
        c->first = *e;
    return damage ? CHT_OK : rc;
}

/* Asks the disk for a page. */
static bool readable(const struct cht_pagefile *pf, uint64_t page)
{
    (void)*(volatile const uint8_t *)(pf->fast.base + page * CHT_PAGE);
    return !cht_pf_lost(pf, page);
}

/* K2 for one file. */
static enum cht_rc check_pages(struct check *c, struct cht_pagefile *pf, struct cht_err *err)
{
    static const uint8_t zeros[CHT_PAGE];
    bool lenient = pf->kind == CHT_PF_VALUES && !c->clean;
    for (uint64_t p = 0; p < pf->fast.pages; p++) {
        struct cht_err e = {0};
        if (p % PROGRESS_PAGES == PROGRESS_PAGES - 1)
            advance(c, PROGRESS_PAGES);
        atomic_fetch_and_explicit(&pf->fast.verified[p >> 6], ~(UINT64_C(1) << (p & 63)),
                                  memory_order_relaxed);
        if (lenient && p > 0 && readable(pf, p)) /* those of extents in use come with them (K3) */
            continue;
        if (cht_page_verify(pf, p, &e) != NULL)
            continue;
        if (e.code != CHT_CORRUPT)
            return cht_err_set(err, e.code, e.sys, __FILE__, __LINE__, "%s", e.msg);
        report_at(c, pf->kind, p * CHT_PAGE,
                  cht_pf_lost(pf, p) ? "the page cannot be read" : "the page does not match its checksum");
    }
    advance(c, pf->fast.pages % PROGRESS_PAGES);
    for (uint64_t p = pf->fast.pages; c->clean && p < pf->file_pages; p++) {
        if (memcmp(pf->fast.base + p * CHT_PAGE, zeros, CHT_PAGE) != 0)
            report_at(c, pf->kind, p * CHT_PAGE, "bytes after the pages in use");
    }
    uint64_t size;
    enum cht_rc rc = pf->file->io->ops->size(pf->file, &size, err);
    if (rc == CHT_OK && c->clean && size != pf->fast.pages * CHT_PAGE)
        report_at(c, pf->kind, size, "the file does not end with its last page");
    return rc;
}

static enum cht_rc check_shard(struct check *c, struct cht_shard *sh)
{
    struct cht_err e = {0};
    c->sh = sh;
    enum cht_rc rc = CHT_OK;
    for (int k = CHT_PF_KINDS - 1; k >= 0 && rc == CHT_OK; k--)
        rc = settle(c, check_pages(c, sh->pf[k], &e), &e);
    if (rc == CHT_OK)
        rc = settle(c, cht_values_check(&sh->values, c->clean, bad_value, c, &e), &e);
    advance(c, cht_pf_pages(sh->pf[CHT_PF_VALUES]));
    if (rc == CHT_OK)
        rc = settle(c, cht_trie_check(cht_shard_pairs(sh), bad_pair, see_pair, c, &e), &e);
    advance(c, cht_pf_pages(sh->pf[CHT_PF_PAIRS]));
    if (rc == CHT_OK)
        rc = settle(c, cht_expiry_check(cht_shard_pairs(sh), bad_pair, c, &e), &e);
    uint64_t size = 0;
    char path[CHT_PATH_MAX];
    struct cht_file *f;
    if (rc == CHT_OK && c->clean && cht_path_join(path, sizeof path, sh->path, "journal", &e) == CHT_OK &&
        cht_io_open(c->io, path, CHT_OPEN_RDONLY, &f, &e) == CHT_OK) {
        if (c->io->ops->size(f, &size, &e) == CHT_OK && size != 0)
            report(c, path, "a journal beside a clean log");
        cht_file_close(f);
    }
    return rc;
}

/* K6 */
static enum cht_rc see_record(void *ctx, uint64_t seq, const uint8_t *payload, size_t n, struct cht_err *err)
{
    (void)seq;
    (void)ctx;
    for (size_t pos = 0; pos < n;) {
        struct cht_logop op;
        enum cht_rc rc = cht_logop_decode(payload, n, &pos, &op, err);
        if (rc != CHT_OK)
            return rc;
    }
    return CHT_OK;
}

static enum cht_rc check_log(struct check *c, const struct cht_manifest *m, uint64_t from, uint64_t known)
{
    struct cht_err e = {0};
    char dir[CHT_PATH_MAX];
    (void)snprintf(dir, sizeof dir, "%s/%s/log", c->dirs[m->home], c->name);
    struct cht_wal_config wc = {.io = c->io, .dir = dir, .segment_bytes = CHT_PAGE, .read_only = true};
    memcpy(wc.uuid, m->uuid, 16);
    struct cht_wal *w = NULL;
    enum cht_rc rc = cht_wal_open(&wc, &w, &e);
    if (rc == CHT_OK) {
        c->clean = cht_wal_bytes(w) > 0 && cht_wal_clean(w); /* no segment yet: just created */
        rc = cht_wal_replay(w, from, known, see_record, c, &e);
    }
    rc = settle(c, rc, &e);
    if (w != NULL)
        (void)cht_wal_close(w, false, NULL); /* opened for reading: nothing to lose */
    return rc;
}

static uint64_t pages_of(const struct cht_shard *sh)
{
    uint64_t n = cht_pf_pages(sh->pf[CHT_PF_VALUES]) + cht_pf_pages(sh->pf[CHT_PF_PAIRS]);
    for (int k = 0; k < CHT_PF_KINDS; k++)
        n += cht_pf_pages(sh->pf[k]);
    return n;
}

static enum cht_rc check_database(struct check *c, const char *name)
{
    struct cht_err e = {0};
    struct cht_manifest m = {.shards = 0};
    c->name = name;
    c->done = c->total = 0;
    enum cht_rc rc = settle(c, cht_db_find(c->io, c->dirs, c->ndirs, name, &m, &e), &e);
    if (rc != CHT_OK || m.shards == 0 || e.code != CHT_OK)
        return rc;
    struct cht_shard *shards = cht_aligned_alloc(64, m.shards * sizeof *shards);
    bool *open = cht_calloc(m.shards, sizeof *open);
    if (shards == NULL || open == NULL)
        rc = CHT_FAIL(&c->first, CHT_NO_MEMORY, "no memory for the check");
    uint64_t from = UINT64_MAX, known = 0;
    for (unsigned i = 0; i < m.shards && rc == CHT_OK; i++) {
        char path[CHT_PATH_MAX];
        unsigned dir;
        struct cht_err se = {0};
        enum cht_rc src = cht_db_find_shard(c->io, c->dirs, c->ndirs, name, i, &dir, path, sizeof path, &se);
        if (src == CHT_OK)
            src = cht_shard_open(c->io, path, m.uuid, i, m.shards, CHT_SHARD_CHECK, &shards[i], &se);
        open[i] = src == CHT_OK;
        c->total += open[i] ? pages_of(&shards[i]) : 0;
        rc = settle(c, src, &se);
        uint64_t at = open[i] ? atomic_load_explicit(&shards[i].checkpoint_seq, memory_order_relaxed) : 0;
        from = at < from ? at : from;
        known = at > known ? at : known;
    }
    if (rc == CHT_OK)
        rc = check_log(c, &m, from, known);
    for (unsigned i = 0; i < m.shards && rc == CHT_OK; i++) {
        if (open[i])
            rc = check_shard(c, &shards[i]);
    }
    for (unsigned i = 0; open != NULL && i < m.shards; i++) {
        if (open[i])
            cht_shard_close(&shards[i]);
    }
    cht_free(shards);
    cht_free(open);
    return rc;
}

/* K0: the directories belong together, and what they list is there. A set that is not complete is a finding; what can be
 * looked at is looked at all the same. */
static enum cht_rc check_set(struct check *c)
{
    struct cht_err e = {0};
    c->sets = cht_calloc(c->ndirs, sizeof *c->sets);
    if (c->sets == NULL)
        return CHT_FAIL(&c->first, CHT_NO_MEMORY, "no memory for the check");
    c->name = "data directories";
    enum cht_rc rc = cht_dirs_judge(c->io, c->dirs, c->sets, c->ndirs, &e);
    if (rc == CHT_DIRECTORY_MISSING || rc == CHT_DIRECTORY_MISPLACED) {
        report(c, c->name, e.msg);
        return CHT_OK;
    }
    return settle(c, rc, &e);
}

static enum cht_rc check_name(struct check *c, const struct cht_dirs_name *name)
{
    static const char *const unfinished[CHT_MARKS] = {
        "a creation that was cut off; the next start removes what it left",
        "a restore that was cut off; the next start removes what it left",
        "a deletion that was cut off; the next start completes it"};
    struct cht_db_look l = {.state = CHT_DB_NONE};
    enum cht_rc rc = cht_db_look(c->io, c->dirs, c->ndirs, name->name, &l, NULL);
    bool husk = name->husk && l.state != CHT_DB_UNFINISHED;
    if (c->notice != NULL && rc == CHT_OK && (l.state == CHT_DB_UNFINISHED || husk))
        c->notice(c->progress_ctx, name->name, unfinished[husk ? CHT_MARK_DROPPING : l.mark]);
    bool here = rc != CHT_OK || l.state == CHT_DB_THERE || l.state == CHT_DB_PARTS;
    if (!here && name->listed)
        report(c, name->name, "the database is listed in a data directory and is not there");
    return here ? check_database(c, name->name) : CHT_OK;
}

/* Databases are told by their folders and by the lists. */
static enum cht_rc check_all(struct check *c)
{
    struct cht_dirs_name *v;
    size_t n;
    enum cht_rc rc = cht_dirs_names(c->io, c->dirs, c->sets, c->ndirs, &v, &n, &c->first);
    for (size_t i = 0; i < n && rc == CHT_OK; i++)
        rc = check_name(c, &v[i]);
    cht_free(v);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_check(const struct cht_env_config *cfg, const char *only_database,
                      void (*fn)(void *ctx, const char *where, const char *what), void *ctx,
                      uint64_t *findings, struct cht_err *err)
{
    struct check c = {.io = cfg->io != NULL ? cfg->io : cht_io_posix(),
                      .dirs = (char *const *)(const void *)cfg->dirs,
                      .ndirs = cfg->dir_count,
                      .fn = fn,
                      .ctx = ctx,
                      .progress = cfg->progress,
                      .notice = cfg->notice,
                      .progress_ctx = cfg->progress_ctx};
    *findings = 0;
    struct cht_file **locks = cht_calloc(cfg->dir_count, sizeof(struct cht_file *));
    if (locks == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the check");
    enum cht_rc rc = CHT_OK;
    for (size_t d = 0; d < cfg->dir_count && rc == CHT_OK; d++) {
        char path[CHT_PATH_MAX];
        rc = cht_path_join(path, sizeof path, cfg->dirs[d], "LOCK", &c.first);
        if (rc == CHT_OK)
            rc = cht_io_open(c.io, path, CHT_OPEN_RDONLY | CHT_OPEN_LOCK, &locks[d], &c.first);
        if (rc == CHT_NO_FILE) { /* never opened by a server, or a copy without it */
            c.first.code = CHT_OK;
            rc = CHT_OK;
        }
    }
    if (rc == CHT_OK)
        rc = check_set(&c);
    if (rc == CHT_OK)
        rc = only_database != NULL ? check_database(&c, only_database) : check_all(&c);
    for (size_t d = 0; d < cfg->dir_count; d++)
        cht_file_close(locks[d]);
    cht_free(locks);
    for (size_t d = 0; c.sets != NULL && d < cfg->dir_count; d++)
        cht_set_fini(&c.sets[d]);
    cht_free(c.sets);
    *findings = c.findings;
    if (rc != CHT_OK && err != NULL)
        *err = c.first;
    return rc;
}
