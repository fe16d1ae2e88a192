/* restore: see restore.h. */
#include "store/rados/restore.h"

#include "base/clock.h"
#include "store/backup_format.h"
#include "store/rados/catalogue.h"
#include "store/rados/replay.h"
#include "store/rados/spool.h"

#include <string.h>

struct cht_rrestore {
    struct cht_restore base; /* first */
    struct cht_renv *env;
    struct cht_listed entry;   /* guarded by env->restoring while it is listed, as are the next two */
    struct cht_rrestore *next; /* of env->restores */
    bool listed, lost;         /* lost: another server has given it up */
    bool begun;                /* there is something to remove */
    struct cht_rdb *db;        /* owned; NULL: not begun */
    struct cht_replay *replay; /* owned */
    unsigned files;            /* by the head */
    struct cht_spool *spool;   /* owned; NULL: all of it is in its log, or that is not known yet */
    bool in_log;               /* the file under way is a segment */
    uint64_t number, size, at; /* of it */
};

static void step(struct cht_rrestore *r, const char *name)
{
    if (r->env->cfg.step != NULL)
        r->env->cfg.step(r->env->cfg.step_ctx, name);
}

static enum cht_rc given_up(const struct cht_rrestore *r, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_DATABASE_BUSY, "another server has given up the database %s", r->base.name);
}

/* With the mutex: it goes on, unless that was said a moment ago. What the cluster does not answer is said the next time. */
static void say(struct cht_rrestore *r)
{
    if (!r->lost && cht_wall_ns() - r->entry.since > CHT_RESTORING_WORD_NS)
        r->lost = cht_catalogue_go_on(r->env, &r->entry, NULL) == CHT_DATABASE_BUSY;
}

static enum cht_rc go_on(struct cht_rrestore *r, struct cht_err *err)
{
    cht_mutex_lock(&r->env->restoring);
    say(r);
    bool lost = r->lost;
    cht_mutex_unlock(&r->env->restoring);
    return lost ? given_up(r, err) : CHT_OK;
}

static void list(struct cht_rrestore *r, bool on)
{
    struct cht_rrestore **at = &r->env->restores;
    cht_mutex_lock(&r->env->restoring);
    while (!on && *at != r && *at != NULL)
        at = &(*at)->next;
    if (on) {
        r->next = *at;
        *at = r;
    } else if (*at == r) {
        *at = r->next;
    }
    r->listed = on;
    cht_mutex_unlock(&r->env->restoring);
}

/* ---- frames ----------------------------------------------------------------------------------------------------------- */

static enum cht_rc take_head(void *ctx, const struct cht_backup_info *info, unsigned files,
                             struct cht_err *err)
{
    struct cht_rrestore *r = ctx;
    (void)err;
    r->files = files;
    if (r->base.name[0] == 0)
        memcpy(r->base.name, info->database, sizeof r->base.name);
    return CHT_OK;
}

/* Begins its log with the first commit, so that all is in it? */
static enum cht_rc look_at_log(const struct cht_frame *f, bool *all, struct cht_err *err)
{
    struct cht_wal_begin b;
    uint32_t seed;
    if (f->at != 0 || f->len < CHT_WAL_HEAD || !cht_wal_take_header(f->data, &b, &seed))
        return CHT_FAIL(err, CHT_CORRUPT, "the backup's log has no header");
    *all = b.first_seq == 1;
    return CHT_OK;
}

/* What has come up to now is the frame that the segment under way began with. */
static enum cht_rc begin_spool(struct cht_rrestore *r, struct cht_err *err)
{
    const struct cht_frame log = {.kind = CHT_FRAME_LOG, .at = r->number, .size = r->size};
    enum cht_rc rc = cht_spool_new(r->env, &r->base.p.info, r->files, &r->spool, err);
    if (rc == CHT_OK)
        rc = cht_replay_new(r->db, NULL, 0, &r->replay, err);
    return rc == CHT_OK ? cht_spool_frame(r->spool, &log, err) : rc;
}

static enum cht_rc begin(struct cht_rrestore *r, bool all, struct cht_err *err)
{
    struct cht_renv *env = r->env;
    const struct cht_backup_info *info = &r->base.p.info;
    cht_mutex_lock(&env->making);
    enum cht_rc rc = cht_catalogue_begin(env, r->base.name, 0, 'r', &r->entry, err);
    cht_mutex_unlock(&env->making);
    if (rc != CHT_OK)
        return rc;
    r->begun = true;
    list(r, true);
    step(r, "restore begun");
    rc = cht_rdb_open(env, r->base.name, r->entry.uuid, &r->db, err);
    if (rc != CHT_OK)
        return rc;
    r->db->remade = true;
    if (!all)
        return begin_spool(r, err);
    rc = cht_replay_new(r->db, info->uuid, info->position, &r->replay, err);
    if (rc == CHT_OK)
        cht_replay_segment(r->replay, r->number, r->size);
    return rc;
}

/* What is in no frame is zeros: up to an offset of the segment. */
static enum cht_rc fill_up(struct cht_rrestore *r, uint64_t to, struct cht_err *err)
{
    static const uint8_t zeros[4096];
    enum cht_rc rc = CHT_OK;
    while (rc == CHT_OK && r->at < to) {
        size_t n = to - r->at < sizeof zeros ? (size_t)(to - r->at) : sizeof zeros;
        rc = cht_replay_feed(r->replay, zeros, n, err);
        r->at += n;
    }
    return rc;
}

static enum cht_rc end_file(struct cht_rrestore *r, struct cht_err *err)
{
    if (!r->in_log)
        return CHT_OK;
    r->in_log = false;
    if (r->replay == NULL)
        return CHT_FAIL(err, CHT_CORRUPT, "the backup's log has no header");
    return fill_up(r, r->size, err);
}

static enum cht_rc take_log(struct cht_rrestore *r, const struct cht_frame *f, struct cht_err *err)
{
    enum cht_rc rc = fill_up(r, f->at, err);
    if (rc == CHT_OK)
        rc = cht_replay_feed(r->replay, f->data, f->len, err);
    r->at += f->len;
    return rc == CHT_DATABASE_DROPPED ? given_up(r, err) : rc;
}

/* Data of a segment: the first of it says which way all goes. */
static enum cht_rc take_data(struct cht_rrestore *r, const struct cht_frame *f, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    bool all = false;
    if (r->replay == NULL && r->in_log) {
        rc = look_at_log(f, &all, err);
        if (rc == CHT_OK)
            rc = begin(r, all, err);
    }
    if (rc == CHT_OK && r->replay != NULL)
        rc = go_on(r, err);
    if (rc != CHT_OK)
        return rc;
    if (r->spool != NULL)
        return cht_spool_frame(r->spool, f, err);
    return r->in_log ? take_log(r, f, err) : CHT_OK; /* what is in page files is in the log */
}

static enum cht_rc take_frame(void *ctx, const struct cht_frame *f, struct cht_err *err)
{
    struct cht_rrestore *r = ctx;
    if (f->kind == CHT_FRAME_DATA)
        return take_data(r, f, err);
    if (r->spool != NULL)
        return cht_spool_frame(r->spool, f, err);
    enum cht_rc rc = end_file(r, err);
    if (f->kind == CHT_FRAME_LOG) {
        r->in_log = true;
        r->number = f->at;
        r->size = f->size;
        r->at = 0;
        if (r->replay != NULL)
            cht_replay_segment(r->replay, f->at, f->size);
    }
    return rc;
}

/* ---- the end ---------------------------------------------------------------------------------------------------------- */

static void close_all(struct cht_rrestore *r)
{
    cht_spool_free(r->spool);
    r->spool = NULL;
    cht_replay_free(r->replay);
    r->replay = NULL;
    if (r->db != NULL)
        cht_rdb_close(r->db);
    r->db = NULL;
}

static enum cht_rc wanted(void *ctx, struct cht_err *err)
{
    struct cht_rrestore *r = ctx;
    enum cht_rc rc = cht_restore_wanted(&r->base, err);
    return rc == CHT_OK ? go_on(r, err) : rc;
}

/* Of what went through a spool there is no log. */
static enum cht_rc finish_replay(struct cht_rrestore *r, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    if (r->spool != NULL)
        rc = cht_spool_pour(r->spool, r->replay, wanted, r, err);
    if (rc == CHT_OK)
        step(r, "restore poured");
    return rc == CHT_OK ? cht_replay_finish(r->replay, err) : rc;
}

static enum cht_rc finish(struct cht_restore *base, struct cht_err *err)
{
    struct cht_rrestore *r = (struct cht_rrestore *)(void *)base;
    if (r->replay == NULL)
        return CHT_FAIL(err, CHT_CORRUPT, "the backup has no log");
    enum cht_rc rc = finish_replay(r, err);
    if (rc != CHT_OK)
        return rc == CHT_DATABASE_DROPPED ? given_up(r, err) : rc;
    close_all(r);
    list(r, false);
    step(r, "restored");
    rc = r->lost ? given_up(r, err) : cht_catalogue_end(r->env, &r->entry, err);
    if (rc == CHT_OK || rc == CHT_TIMEOUT)
        r->begun = false; /* it is there, or nobody knows: if not, it is unfinished work */
    return rc;
}

static void let_go(struct cht_restore *base)
{
    struct cht_rrestore *r = (struct cht_rrestore *)(void *)base;
    close_all(r);
    if (r->listed)
        list(r, false);
    if (!r->begun)
        return;
    step(r, "restore given up");
    (void)cht_catalogue_go_on(r->env, &r->entry,
                              NULL); /* the row may have a word whose answer did not come */
    if (cht_catalogue_remove(r->env, &r->entry, NULL) == CHT_DATABASE_BUSY)
        (void)cht_rdb_unmake(r->env, r->entry.uuid,
                             NULL); /* another has, before the last of it was written */
}

static const struct cht_restore_ops ops = {.finish = finish, .free = let_go};

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_rrestore_new(struct cht_env *env, const char *name, struct cht_restore **out,
                             struct cht_err *err)
{
    struct cht_renv *renv = (struct cht_renv *)(void *)env;
    struct cht_listed e;
    if (name != NULL) {
        enum cht_rc rc = cht_catalogue_find(renv, name, &e, err);
        if (rc == CHT_OK && e.state == 'l')
            rc = CHT_FAIL(err, CHT_DATABASE_EXISTS, "database %s exists already", name);
        if (rc != CHT_OK)
            return rc;
    }
    const struct cht_backup_parser p = {.head = take_head, .frame = take_frame};
    enum cht_rc rc = cht_restore_begin(sizeof(struct cht_rrestore), &ops, &p, out, err);
    if (rc == CHT_OK)
        ((struct cht_rrestore *)(void *)*out)->env = renv;
    return rc;
}

void cht_restores_go_on(struct cht_renv *env)
{
    cht_mutex_lock(&env->restoring);
    for (struct cht_rrestore *r = env->restores; r != NULL; r = r->next)
        say(r);
    cht_mutex_unlock(&env->restoring);
}
