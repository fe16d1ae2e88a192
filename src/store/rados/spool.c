/* spool: see spool.h. */
#include "store/rados/spool.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "cheetah/scan.h"
#include "os/io.h"
#include "store/db_store.h"

#define NAME "spooled"
#define DIRTY_BYTES (UINT64_C(64) << 20)
#define ENTRIES 256u

struct cht_spool {
    struct cht_renv *renv;
    struct cht_io *io;           /* owned */
    struct cht_env *env;         /* owned */
    struct cht_restore *restore; /* owned */
    uint64_t wall;               /* ms */
    struct cht_buf value;        /* a long one */
    /* of pour */
    struct cht_store *store;
    struct cht_replay *to;
    enum cht_rc (*go_on)(void *ctx, struct cht_err *err);
    void *ctx;
};

static void clock_of(void *ctx, uint64_t *wall, uint64_t *steady)
{
    const struct cht_spool *s = ctx;
    *wall = s->wall;
    *steady = cht_now_ns() / 1000000;
}

/* Where none can be made nobody has said where they may be. What passes is told as it is. */
static enum cht_rc try_place(const struct cht_spool *s, struct cht_err *err)
{
    struct cht_file *f;
    struct cht_err why = {0};
    enum cht_rc rc = cht_io_open(s->io, "try", CHT_OPEN_CREATE, &f, &why);
    if (rc == CHT_OK) {
        cht_file_close(f);
        return s->io->ops->unlink(s->io, "try", err);
    }
    if (rc == CHT_NO_MEMORY || rc == CHT_NO_DESCRIPTORS || rc == CHT_DISK_FULL) {
        if (err != NULL)
            *err = why;
        return rc;
    }
    return CHT_FAIL(err, CHT_NOT_SUPPORTED, "a backup of files wants a folder to be laid out in: %.120s",
                    why.msg);
}

static enum cht_rc open_env(struct cht_spool *s, struct cht_err *err)
{
    static const char *const dirs[] = {"spool"};
    const struct cht_env_config cfg = {.dirs = dirs,
                                       .dir_count = 1,
                                       .durability = CHT_DURABLE_OS,
                                       .max_value_size = CHT_VALUE_MAX,
                                       .changes_bytes = CHT_CHANGES_NONE,
                                       .dirty_bytes = DIRTY_BYTES,
                                       .scan_workers = 1,
                                       .commit_threads = 1,
                                       .io = s->io,
                                       .clock = clock_of,
                                       .clock_ctx = s};
    enum cht_rc rc = cht_env_open(&cfg, &s->env, err);
    return rc == CHT_OK ? cht_restore_new(s->env, NAME, &s->restore, err) : rc;
}

/* ---- into the pool ----------------------------------------------------------------------------------------------------- */

static enum cht_rc put(struct cht_spool *s, enum cht_logop_kind kind, uint64_t key, struct cht_str data,
                       struct cht_err *err)
{
    return cht_replay_op(s->to, &(struct cht_logop){.kind = kind, .key = key, .data = data}, err);
}

static enum cht_rc read_long(struct cht_spool *s, const struct cht_entry *e, struct cht_err *err)
{
    struct cht_value *v;
    uint32_t size = 0;
    s->value.len = 0;
    enum cht_rc rc = cht_value_open(s->store, e->key, &v, &size, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_buf_reserve(&s->value, size, err);
    size_t got = 1;
    while (rc == CHT_OK && s->value.len < size && got > 0) {
        rc = cht_value_read(v, (uint32_t)s->value.len, s->value.data + s->value.len, size - s->value.len,
                            &got, err);
        s->value.len += rc == CHT_OK ? got : 0;
    }
    cht_value_close(v);
    if (rc == CHT_OK && s->value.len < size)
        rc = CHT_FAIL(err, CHT_CORRUPT, "the value under key %llu is not whole", (unsigned long long)e->key);
    return rc;
}

static enum cht_rc take_value(struct cht_spool *s, const struct cht_entry *e, struct cht_err *err)
{
    struct cht_str value = {e->value, e->value_len};
    enum cht_rc rc = CHT_OK;
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0)
        return CHT_FAIL(err, CHT_CORRUPT, "the value under key %llu does not match its checksum",
                        (unsigned long long)e->key);
    if (e->size > s->renv->cfg.max_value_size)
        return CHT_FAIL(err, CHT_VALUE_TOO_LARGE, "a value of %u bytes; at most %u are allowed", e->size,
                        s->renv->cfg.max_value_size);
    if ((e->flags & CHT_ENTRY_LARGE) != 0) {
        rc = read_long(s, e, err);
        value = (struct cht_str){s->value.data, s->value.len};
    }
    return rc == CHT_OK ? put(s, CHT_LOG_VALUE_PUT, e->key, value, err) : rc;
}

static enum cht_rc take_pair(struct cht_spool *s, const struct cht_entry *e, struct cht_err *err)
{
    const struct cht_str name = {e->name, e->name_len};
    enum cht_rc rc = put(s, CHT_LOG_PAIR_SET, e->key, name, err);
    return rc == CHT_OK && e->ends != 0 ? put(s, CHT_LOG_PAIR_ENDS, e->ends, name, err) : rc;
}

static enum cht_rc pour_kind(struct cht_spool *s, enum cht_scan_kind kind, struct cht_err *err)
{
    const struct cht_scan_config cfg = {
        .kind = kind, .values = kind == CHT_SCAN_VALUES, .ends = kind == CHT_SCAN_PAIRS};
    struct cht_entry entries[ENTRIES];
    struct cht_scan *scan;
    size_t n = 1;
    enum cht_rc rc = cht_scan_open(s->store, &cfg, &scan, err);
    if (rc != CHT_OK)
        return rc;
    while (rc == CHT_OK && n > 0) {
        rc = cht_scan_next(scan, entries, ENTRIES, &n, err);
        for (size_t i = 0; i < n && rc == CHT_OK; i++)
            rc = kind == CHT_SCAN_VALUES ? take_value(s, &entries[i], err) : take_pair(s, &entries[i], err);
        if (rc == CHT_OK)
            rc = s->go_on(s->ctx, err);
    }
    cht_scan_close(scan);
    return rc;
}

static bool scrub_is_over(void *ctx)
{
    struct cht_spool *s = ctx;
    return s->go_on(s->ctx, NULL) != CHT_OK;
}

/* Every page with its sum. */
static enum cht_rc compare(struct cht_spool *s, struct cht_err *err)
{
    struct cht_scrub scrub = {.stop = scrub_is_over, .ctx = s};
    enum cht_rc rc = cht_store_scrub(s->store, &scrub, err);
    if (rc == CHT_CANCELLED) /* it says why */
        rc = s->go_on(s->ctx, err);
    if (rc == CHT_OK && scrub.bad > 0) {
        rc = CHT_CORRUPT;
        if (err != NULL) {
            *err = scrub.first;
            err->code = rc;
        }
    }
    return rc;
}

static uint64_t next_key(struct cht_store *store)
{
    const struct cht_db *db = cht_db(store);
    uint64_t highest = 0;
    for (unsigned i = 0; i < db->nshards; i++) {
        uint64_t next = atomic_load_explicit(&db->shards[i].shown.next_key, memory_order_relaxed);
        highest = next > highest ? next : highest;
    }
    return highest;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_spool_new(struct cht_renv *env, const struct cht_backup_info *info, unsigned files,
                          struct cht_spool **out, struct cht_err *err)
{
    struct cht_spool *s = cht_calloc(1, sizeof *s);
    if (s == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory to restore a backup");
    s->renv = env;
    s->wall = cht_wall_ns() / 1000000;
    enum cht_rc rc = cht_io_unnamed_new(env->cfg.spool_dir, &env->spool, &s->io, err);
    if (rc == CHT_OK)
        rc = try_place(s, err);
    if (rc == CHT_OK)
        rc = open_env(s, err);
    if (rc == CHT_OK)
        rc = s->restore->p.head(s->restore->p.ctx, info, files, err);
    if (rc == CHT_OK)
        *out = s;
    else
        cht_spool_free(s);
    return rc;
}

enum cht_rc cht_spool_frame(struct cht_spool *s, const struct cht_frame *f, struct cht_err *err)
{
    return s->restore->p.frame(s->restore->p.ctx, f, err);
}

enum cht_rc cht_spool_pour(struct cht_spool *s, struct cht_replay *to,
                           enum cht_rc (*go_on)(void *ctx, struct cht_err *err), void *ctx,
                           struct cht_err *err)
{
    s->to = to;
    s->go_on = go_on;
    s->ctx = ctx;
    enum cht_rc rc = s->restore->ops->finish(s->restore, err);
    cht_restore_free(s->restore);
    s->restore = NULL;
    if (rc == CHT_OK)
        rc = cht_env_get(s->env, NAME, &s->store, err);
    if (rc == CHT_OK)
        rc = compare(s, err);
    if (rc == CHT_OK)
        rc = pour_kind(s, CHT_SCAN_VALUES, err);
    if (rc == CHT_OK)
        rc = pour_kind(s, CHT_SCAN_PAIRS, err);
    if (rc == CHT_OK)
        cht_replay_keys(to, next_key(s->store));
    return rc;
}

void cht_spool_free(struct cht_spool *s)
{
    if (s == NULL)
        return;
    cht_restore_free(s->restore);
    if (s->env != NULL)
        cht_env_abandon(s->env);
    cht_io_unnamed_free(s->io);
    cht_buf_free(&s->value);
    cht_free(s);
}
