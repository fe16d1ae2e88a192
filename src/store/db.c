/* db: making and removing databases (layout, marks and rules in db.h).
 *
 * Making      1 nothing of the name may be there   2 NAME.unfinished with the mark, synced   3 renamed NAME, synced
 *             4 folders, files, all synced         5 the mark becomes the manifest, synced   6 listed (set.h)
 * Removing    1 looked through, refused if anything is not ours   2 taken from the lists, synced
 *             3 the manifest becomes the mark, synced             4 other directories   5 the home, all but the mark
 *             6 the folder renamed NAME.unfinished                7 the mark, the folder
 * A cut after each step of making up to 4, and of removing from 3 on, leaves what cht_db_finish does from step 4 on. Removing
 * needs no space.
 */
#include "store/db.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/invariant.h"

#include <stdio.h>
#include <string.h>

static const char magic[8] = "CHEETAHM";

/* DIR/NAME.unfinished */
static enum cht_rc husk_path(char *path, size_t cap, const char *dir, const char *name, struct cht_err *err)
{
    char husk[CHT_DATABASE_NAME_MAX + sizeof CHT_UNFINISHED];
    (void)snprintf(husk, sizeof husk, "%s" CHT_UNFINISHED, name); /* a valid name fits */
    return cht_db_path(path, cap, dir, husk, NULL, err);
}

static enum cht_rc write_mark(struct cht_io *io, const char *dir, const char *what,
                              const struct cht_manifest *m, struct cht_err *err)
{
    uint8_t b[CHT_MANIFEST_SIZE] = {0};
    memcpy(b, magic, 8);
    cht_put32(b + 8, CHT_FORMAT_VERSION);
    memcpy(b + 16, m->uuid, 16);
    cht_put32(b + 32, m->shards);
    cht_put32(b + 508, cht_crc32c(0, b, 508));
    return cht_io_replace(io, dir, what, b, sizeof b, err);
}

/* From one of the four names of the manifest to another. A rename that may not be durable is taken back; *stays: that failed, too. */
static enum cht_rc change_state(struct cht_env *env, unsigned home, const char *name, const char *from,
                                const char *to, bool *stays, struct cht_err *err)
{
    char a[CHT_PATH_MAX], b[CHT_PATH_MAX], dir[CHT_PATH_MAX];
    *stays = false;
    enum cht_rc rc = cht_db_path(a, sizeof a, env->dirs[home], name, from, err);
    if (rc == CHT_OK)
        rc = cht_db_path(b, sizeof b, env->dirs[home], name, to, err);
    if (rc == CHT_OK)
        rc = cht_db_path(dir, sizeof dir, env->dirs[home], name, NULL, err);
    if (rc == CHT_OK)
        rc = env->io->ops->rename(env->io, a, b, err);
    if (rc != CHT_OK)
        return rc;
    rc = env->io->ops->sync_dir(env->io, dir, err);
    if (rc == CHT_OK)
        return rc;
    *stays = env->io->ops->rename(env->io, b, a, NULL) != CHT_OK;
    if (!*stays)
        (void)env->io->ops->sync_dir(env->io, dir, NULL); /* the first failure is the one to tell */
    return rc;
}

/* Into or out of the lists of all directories. */
static enum cht_rc list_all(struct cht_env *env, const char *name, const uint8_t *uuid, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    cht_mutex_lock(&env->set_mu);
    for (size_t d = 0; d < env->ndirs && rc == CHT_OK; d++) {
        struct cht_set *s = &env->sets[d];
        bool listed = cht_set_find(s, name) != NULL;
        rc = uuid != NULL ? cht_set_put(s, name, uuid, err) : cht_set_remove(s, name, err);
        if (rc == CHT_OK && (uuid != NULL || listed))
            rc = cht_set_sync(s, err);
    }
    cht_mutex_unlock(&env->set_mu);
    return rc;
}

/* ---- removing --------------------------------------------------------------------------------------------------- */

/* First pass over all directories: nothing is changed. */
static enum cht_rc survey(struct cht_env *env, const char *name, const uint8_t uuid[16], struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    enum cht_rc rc = CHT_OK;
    for (size_t d = 0; d < env->ndirs && rc == CHT_OK; d++) {
        rc = cht_db_path(path, sizeof path, env->dirs[d], name, NULL, err);
        if (rc == CHT_OK)
            rc = cht_own_survey(env->io, path, uuid, err);
    }
    return rc;
}

/* Steps 4 to 7 of removing. */
static enum cht_rc remove_all(struct cht_env *env, const char *name, const struct cht_manifest *m,
                              struct cht_err *err)
{
    char path[CHT_PATH_MAX], husk[CHT_PATH_MAX];
    enum cht_rc rc = survey(env, name, m->uuid, err);
    for (size_t d = 0; d < env->ndirs && rc == CHT_OK; d++) {
        if (d == m->home)
            continue;
        rc = cht_db_path(path, sizeof path, env->dirs[d], name, NULL, err);
        if (rc == CHT_OK)
            rc = cht_own_remove(env->io, path, m->uuid, false, err);
        if (rc == CHT_OK)
            rc = env->io->ops->sync_dir(env->io, env->dirs[d], err);
    }
    if (rc == CHT_OK)
        rc = cht_db_path(path, sizeof path, env->dirs[m->home], name, NULL, err);
    if (rc == CHT_OK)
        rc = husk_path(husk, sizeof husk, env->dirs[m->home], name, err);
    if (rc == CHT_OK)
        rc = cht_own_remove(env->io, path, m->uuid, true, err);
    if (rc == CHT_OK)
        rc = env->io->ops->rename(env->io, path, husk, err);
    if (rc == CHT_OK)
        rc = cht_own_remove_husk(env->io, husk, err);
    return rc == CHT_OK ? env->io->ops->sync_dir(env->io, env->dirs[m->home], err) : rc;
}

/* NAME.unfinished, of step 2 of making or step 7 of removing: which of the two says the mark in it. */
static enum cht_rc remove_husks(struct cht_env *env, const char *name, unsigned *mark, struct cht_err *err)
{
    char path[CHT_PATH_MAX], dropping[CHT_PATH_MAX];
    enum cht_rc rc = CHT_OK;
    for (size_t d = 0; d < env->ndirs && rc == CHT_OK; d++) {
        enum cht_io_kind kind = CHT_IO_NOTHING;
        rc = husk_path(path, sizeof path, env->dirs[d], name, err);
        if (rc == CHT_OK)
            rc = cht_io_kind(env->io, path, &kind, err);
        if (rc != CHT_OK || kind == CHT_IO_NOTHING)
            continue;
        rc = cht_path_join(dropping, sizeof dropping, path, cht_mark_names[CHT_MARK_DROPPING], err);
        if (rc == CHT_OK)
            rc = cht_io_kind(env->io, dropping, &kind, err);
        if (rc == CHT_OK)
            rc = cht_own_remove_husk(env->io, path, err);
        *mark = kind == CHT_IO_NOTHING ? CHT_MARK_CREATING : CHT_MARK_DROPPING;
    }
    return rc;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

/* Step 1: what is there instead. */
static enum cht_rc refuse(struct cht_env *env, const char *name, const struct cht_db_look *l,
                          struct cht_err *err)
{
    switch (l->state) {
    case CHT_DB_THERE:
        return CHT_FAIL(err, CHT_DATABASE_EXISTS, "database %s exists already", name);
    case CHT_DB_FOREIGN:
        return CHT_FAIL(err, CHT_FOREIGN_FILES,
                        "%.80s/%s is there and is no database: it is left alone, choose another name",
                        env->dirs[l->dir], name);
    case CHT_DB_PARTS:
        return CHT_FAIL(err, CHT_DATABASE_INCOMPLETE,
                        "database %s: %.80s has %s, but no data directory has its manifest", name,
                        env->dirs[l->dir], l->part);
    default: /* what was unfinished is finished */
        return cht_db_not_listed(env, name, err);
    }
}

/* Steps 2 and 3. */
static enum cht_rc make_home(struct cht_env *env, const char *name, enum cht_mark mark,
                             const struct cht_manifest *m, struct cht_err *err)
{
    char husk[CHT_PATH_MAX], path[CHT_PATH_MAX];
    enum cht_rc rc = husk_path(husk, sizeof husk, env->dirs[m->home], name, err);
    if (rc == CHT_OK)
        rc = cht_db_path(path, sizeof path, env->dirs[m->home], name, NULL, err);
    if (rc == CHT_OK)
        rc = env->io->ops->mkdir(env->io, husk, err);
    if (rc == CHT_OK)
        rc = write_mark(env->io, husk, cht_mark_names[mark], m, err);
    if (rc == CHT_OK)
        rc = env->io->ops->rename(env->io, husk, path, err);
    return rc == CHT_OK ? env->io->ops->sync_dir(env->io, env->dirs[m->home], err) : rc;
}

static enum cht_rc make_folders(struct cht_env *env, const char *name, unsigned home, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    enum cht_rc rc = CHT_OK;
    for (size_t d = 0; d < env->ndirs && rc == CHT_OK; d++) {
        rc = cht_db_path(path, sizeof path, env->dirs[d], name, NULL, err);
        if (rc == CHT_OK && d != home)
            rc = env->io->ops->mkdir(env->io, path, err);
    }
    if (rc == CHT_OK)
        rc = cht_db_path(path, sizeof path, env->dirs[home], name, "log", err);
    return rc == CHT_OK ? env->io->ops->mkdir(env->io, path, err) : rc;
}

/* All are written, then all are synced: the first sync commits the file system's journal for all of them. */
static enum cht_rc make_shards(struct cht_env *env, const char *name, const struct cht_manifest *m,
                               struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    enum cht_rc rc = CHT_OK;
    unsigned made = 0;
    CHT_INVARIANT(env->ndirs > 0);
    struct cht_shard *shards = cht_aligned_alloc(64, m->shards * sizeof *shards);
    if (shards == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for database %s", name);
    for (unsigned i = 0; i < m->shards && rc == CHT_OK; i++) {
        char what[24];
        (void)snprintf(what, sizeof what, "shard-%03u", i);
        rc = cht_db_path(path, sizeof path, env->dirs[i % env->ndirs], name, what, err);
        if (rc == CHT_OK)
            rc = cht_shard_create(env->io, path, m->uuid, i, m->shards, &shards[i], err);
        made += rc == CHT_OK;
    }
    for (unsigned i = 0; i < made && rc == CHT_OK; i++)
        rc = cht_shard_seal(&shards[i], err);
    while (made > 0)
        cht_shard_close(&shards[--made]);
    cht_free(shards);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_db_not_listed(struct cht_env *env, const char *name, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    cht_mutex_lock(&env->set_mu);
    for (size_t d = 0; d < env->ndirs && rc == CHT_OK; d++) {
        if (cht_set_find(&env->sets[d], name) != NULL)
            rc =
                CHT_FAIL(err, CHT_DATABASE_INCOMPLETE,
                         "database %s was in %.80s and is not there any more: a disk that is not mounted? If "
                         "it is gone for good, drop it",
                         name, env->dirs[d]);
    }
    cht_mutex_unlock(&env->set_mu);
    return rc;
}

enum cht_rc cht_db_finish(struct cht_env *env, const char *name, unsigned *mark, struct cht_err *err)
{
    struct cht_db_look l;
    char path[CHT_PATH_MAX];
    *mark = CHT_MARKS;
    enum cht_rc rc = cht_dirs_same(env, err);
    if (rc == CHT_OK)
        rc = cht_db_look(env->io, env->dirs, env->ndirs, name, &l, err);
    if (rc == CHT_OK)
        rc = remove_husks(env, name, mark, err);
    if (rc != CHT_OK || l.state != CHT_DB_UNFINISHED)
        return rc;
    *mark = l.mark;
    rc = list_all(env, name, NULL, err); /* T4: before its last trace is gone */
    if (rc == CHT_OK)
        rc = cht_db_path(path, sizeof path, env->dirs[l.m.home], name, NULL, err);
    if (rc ==
        CHT_OK) /* whoever left the mark may not have come to that; without it a cut could leave a manifest and no shards */
        rc = env->io->ops->sync_dir(env->io, path, err);
    return rc == CHT_OK ? remove_all(env, name, &l.m, err) : rc;
}

enum cht_rc cht_db_begin(struct cht_env *env, const char *name, enum cht_mark mark,
                         const struct cht_manifest *m, struct cht_err *err)
{
    struct cht_db_look l;
    unsigned left;
    enum cht_rc rc = cht_db_finish(env, name, &left, err);
    if (rc == CHT_OK)
        rc = cht_db_look(env->io, env->dirs, env->ndirs, name, &l, err);
    if (rc == CHT_OK)
        rc = refuse(env, name, &l, err);
    if (rc == CHT_OK)
        rc = cht_db_admit(env, name, err);
    if (rc != CHT_OK)
        return rc;
    rc = make_home(env, name, mark, m, err);
    if (rc == CHT_OK)
        rc = make_folders(env, name, m->home, err);
    if (rc != CHT_OK)
        cht_db_discard(env, name);
    return rc;
}

enum cht_rc cht_db_seal(struct cht_env *env, const char *name, enum cht_mark mark,
                        const struct cht_manifest *m, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    bool stays; /* then it is made and refused: it is there, whole and empty */
    enum cht_rc rc = cht_dirs_same(env, err);
    for (size_t d = 0; d < env->ndirs && rc == CHT_OK; d++) {
        rc = cht_db_path(path, sizeof path, env->dirs[d], name, NULL, err);
        if (rc == CHT_OK)
            rc = env->io->ops->sync_dir(env->io, path, err);
        if (rc == CHT_OK)
            rc = env->io->ops->sync_dir(env->io, env->dirs[d], err);
    }
    if (rc == CHT_OK)
        rc = change_state(env, m->home, name, cht_mark_names[mark], "manifest", &stays, err);
    if (rc == CHT_OK) /* it is there; one that could not be listed is listed by the next opening (T4) */
        (void)list_all(env, name, m->uuid, NULL);
    return rc;
}

enum cht_rc cht_db_create(struct cht_env *env, const char *name, unsigned shards, struct cht_err *err)
{
    struct cht_manifest m = {.shards = shards == 0 ? env->cfg.default_shards : shards};
    if (m.shards > CHT_SHARDS_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%u shards; 1 to %u are allowed", shards, CHT_SHARDS_MAX);
    cht_os_random(m.uuid, sizeof m.uuid);
    enum cht_rc rc = cht_db_begin(env, name, CHT_MARK_CREATING, &m, err);
    if (rc != CHT_OK)
        return rc;
    rc = make_shards(env, name, &m, err);
    if (rc == CHT_OK)
        rc = cht_db_seal(env, name, CHT_MARK_CREATING, &m, err);
    if (rc != CHT_OK)
        cht_db_discard(env, name);
    return rc;
}

void cht_db_discard(struct cht_env *env, const char *name)
{
    unsigned mark;
    (void)cht_db_finish(env, name, &mark,
                        NULL); /* what stays goes at the next start, or with the name's next use */
}

enum cht_rc cht_db_droppable(struct cht_env *env, const char *name, struct cht_err *err)
{
    struct cht_db_look l;
    enum cht_rc rc = cht_db_look(env->io, env->dirs, env->ndirs, name, &l, err);
    if (rc != CHT_OK)
        return rc;
    if (l.state == CHT_DB_THERE || l.state == CHT_DB_UNFINISHED)
        return survey(env, name, l.m.uuid, err);
    if (l.state == CHT_DB_NONE)
        return CHT_OK; /* not there, or only listed */
    return refuse(env, name, &l, err);
}

enum cht_rc cht_db_drop(struct cht_env *env, const char *name, struct cht_err *err)
{
    struct cht_db_look l;
    unsigned mark;
    enum cht_rc rc = cht_db_droppable(env, name, err);
    if (rc == CHT_OK)
        rc = cht_db_finish(env, name, &mark, err);
    if (rc == CHT_OK)
        rc = cht_db_look(env->io, env->dirs, env->ndirs, name, &l, err);
    if (rc != CHT_OK)
        return rc;
    bool stays, known = cht_db_not_listed(env, name, NULL) != CHT_OK;
    if (l.state != CHT_DB_THERE && !known && mark != CHT_MARK_DROPPING)
        return CHT_FAIL(err, CHT_DATABASE_NOT_FOUND, "no database %s", name);
    rc = list_all(env, name, NULL, err);
    if (rc != CHT_OK || l.state != CHT_DB_THERE)
        return rc;
    rc = change_state(env, l.m.home, name, "manifest", cht_mark_names[CHT_MARK_DROPPING], &stays, err);
    if (rc != CHT_OK &&
        stays) { /* it goes when it can be removed, unless a crash takes the mark away before that */
        struct cht_err why = *err;
        atomic_store_explicit(&env->unfinished, true, memory_order_relaxed);
        return CHT_FAIL(err, CHT_OUTCOME_UNKNOWN, "whether database %s is dropped is not certain: %.100s",
                        name, why.msg);
    }
    if (rc != CHT_OK) {
        (void)list_all(env, name, l.m.uuid, NULL); /* else the next opening does (T4) */
        return rc;
    }
    if (remove_all(env, name, &l.m, NULL) !=
        CHT_OK) /* it is dropped: a failure here must not say that it is not */
        atomic_store_explicit(&env->unfinished, true, memory_order_relaxed);
    return CHT_OK;
}
