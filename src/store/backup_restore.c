/* backup_restore: makes a database from a backup (cheetah/backup.h).
 *
 *   the head   the mark and the folders are made; what an older attempt left is removed
 *   the files  are written one after the other, each synced when the next one begins
 *   finish     only with END: folders synced, then the mark becomes the manifest, which makes it a database (db.h)
 *
 * The log in the backup is redone when the database is opened, as after a crash (B2 in backup_format.h). The restored
 * database keeps the uuid: its files are those of the original.
 */
#include "base/alloc.h"
#include "store/backup_format.h"
#include "store/db.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LOG_MIN 8192u /* a log of at most a page would tell check of a clean stop, which a backup is not */

struct restore {
    struct cht_restore base; /* first */
    struct cht_env *env;
    struct cht_manifest m;
    struct cht_file *file; /* owned: the one being written */
    bool log;              /* it is a segment of the log */
    struct cht_turn turn;  /* of the name, from the head to the end */
    bool claimed;          /* it has it */
    bool made;             /* the folders */
    bool finished;
};

static enum cht_rc end_file(struct restore *r, struct cht_err *err)
{
    if (r->file == NULL)
        return CHT_OK;
    enum cht_rc rc = cht_file_sync(r->file, err);
    cht_file_close(r->file);
    r->file = NULL;
    return rc;
}

static void give_up_turn(struct restore *r)
{
    if (r->claimed)
        cht_env_end_restore(r->env, &r->turn);
    r->claimed = false;
}

static enum cht_rc take_head(void *ctx, const struct cht_backup_info *info, unsigned files,
                             struct cht_err *err)
{
    struct restore *r = ctx;
    (void)files;
    if (r->base.name[0] == 0)
        memcpy(r->base.name, info->database, sizeof r->base.name);
    r->m = (struct cht_manifest){.shards = info->shards};
    memcpy(r->m.uuid, info->uuid, 16);
    enum cht_rc rc = cht_env_begin_restore(r->env, &r->turn, r->base.name, err);
    r->claimed = rc == CHT_OK;
    if (rc == CHT_OK)
        rc = cht_db_begin(r->env, r->base.name, CHT_MARK_RESTORING, &r->m, err);
    r->made = rc == CHT_OK;
    return rc;
}

static enum cht_rc begin_file(struct restore *r, const struct cht_frame *f, struct cht_err *err)
{
    static const char *const names[CHT_PF_KINDS] = {"keys", "values", "recycle", "pairs", "sums"};
    struct cht_io *io = r->env->io;
    char path[CHT_PATH_MAX];
    int n;
    enum cht_rc rc = end_file(r, err);
    if (f->kind == CHT_FRAME_LOG) {
        n = snprintf(path, sizeof path, "%s/%s/log/%016" PRIx64 ".log", r->env->dirs[0], r->base.name, f->at);
    } else {
        const char *dir = r->env->dirs[f->shard % r->env->ndirs];
        n = snprintf(path, sizeof path, "%s/%s/shard-%03u", dir, r->base.name, f->shard);
        if (rc == CHT_OK && f->file == 0 && n > 0 && (size_t)n < sizeof path)
            rc = io->ops->mkdir(io, path, err);
        n = snprintf(path, sizeof path, "%s/%s/shard-%03u/%s", dir, r->base.name, f->shard, names[f->file]);
    }
    if (rc == CHT_OK && (n < 0 || (size_t)n >= sizeof path))
        rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s: the path is too long", r->base.name);
    if (rc == CHT_OK)
        rc = cht_io_open(io, path, CHT_OPEN_CREATE | CHT_OPEN_EXCL, &r->file, err);
    r->log = f->kind == CHT_FRAME_LOG;
    uint64_t size = f->kind == CHT_FRAME_LOG && f->size < LOG_MIN ? LOG_MIN : f->size;
    return rc == CHT_OK ? io->ops->truncate(r->file, size, err) : rc;
}

/* A log tells who follows it of its own life only (wal_kept.c), and this is another one. */
static enum cht_rc take_data(struct restore *r, const struct cht_frame *f, struct cht_err *err)
{
    uint8_t head[CHT_WAL_HEAD];
    enum cht_rc rc = cht_file_write(r->file, f->data, f->len, f->at, err);
    if (rc != CHT_OK || !r->log || f->at != 0 || f->len < sizeof head)
        return rc;
    memcpy(head, f->data, sizeof head);
    cht_wal_forget_changes(head);
    return memcmp(head, f->data, sizeof head) != 0 ? cht_file_write(r->file, head, sizeof head, 0, err)
                                                   : CHT_OK;
}

static enum cht_rc take_frame(void *ctx, const struct cht_frame *f, struct cht_err *err)
{
    struct restore *r = ctx;
    switch (f->kind) {
    case CHT_FRAME_LOG:
    case CHT_FRAME_PAGES:
        return begin_file(r, f, err);
    case CHT_FRAME_DATA:
        return take_data(r, f, err);
    default:
        return end_file(r, err);
    }
}

static enum cht_rc sync_folders(struct restore *r, struct cht_err *err)
{
    struct cht_env *env = r->env;
    char path[CHT_PATH_MAX];
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < r->m.shards && rc == CHT_OK; i++) { /* it was not too long when it was made */
        (void)snprintf(path, sizeof path, "%s/%s/shard-%03u", env->dirs[i % env->ndirs], r->base.name, i);
        rc = env->io->ops->sync_dir(env->io, path, err);
    }
    (void)snprintf(path, sizeof path, "%s/%s/log", env->dirs[0], r->base.name);
    return rc == CHT_OK ? env->io->ops->sync_dir(env->io, path, err) : rc;
}

static enum cht_rc finish(struct cht_restore *base, struct cht_err *err)
{
    struct restore *r = (struct restore *)(void *)base;
    enum cht_rc rc = sync_folders(r, err);
    if (rc == CHT_OK)
        rc = cht_db_seal(r->env, base->name, CHT_MARK_RESTORING, &r->m, err);
    r->finished = rc == CHT_OK;
    if (r->finished)
        give_up_turn(r);
    return rc;
}

static void let_go(struct cht_restore *base)
{
    struct restore *r = (struct restore *)(void *)base;
    cht_file_close(r->file);
    if (r->made && !r->finished)
        cht_db_discard(r->env, base->name);
    give_up_turn(r);
}

static const struct cht_restore_ops ops = {.finish = finish, .free = let_go};

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_db_restore_new(struct cht_env *env, const char *name, struct cht_restore **out,
                               struct cht_err *err)
{
    struct cht_manifest m;
    if (name != NULL) {
        enum cht_rc found = cht_db_find(env->io, env->dirs, env->ndirs, name, &m, err);
        if (found == CHT_OK)
            return CHT_FAIL(err, CHT_DATABASE_EXISTS, "database %s exists already", name);
        if (found != CHT_DATABASE_NOT_FOUND)
            return found;
    }
    const struct cht_backup_parser p = {.head = take_head, .frame = take_frame};
    enum cht_rc rc = cht_restore_begin(sizeof(struct restore), &ops, &p, out, err);
    if (rc == CHT_OK)
        ((struct restore *)(void *)*out)->env = env;
    return rc;
}
