/* dirs: the data directories of an environment: do they belong together, who has them, what lies in them (set.h, db.h).
 *
 * Opening    1 locks that are there are taken   2 set files are read and judged   3 what lies in directories without a set
 *            file is looked through: every database in them must be whole   4 folders and locks that are missing are made;
 *            if any was, 2 and 3 again   5 set files are made   6 the lists are compared with the folders
 * Nothing is written before 4, so a directory that is refused, or an empty mount point, stays as it was.
 */
#include "store/db.h"

#include "base/alloc.h"

#include <stdlib.h>
#include <string.h>

struct name_list {
    struct cht_dirs_name *v; /* owned */
    size_t n, cap;
    bool failed;
};

static void add_name(struct name_list *l, const char *name, size_t len, bool folder, bool husk, bool listed)
{
    struct cht_dirs_name e = {.folder = folder, .husk = husk, .listed = listed};
    if (l->failed || len >= sizeof e.name)
        return;
    memcpy(e.name, name, len);
    if (!cht_database_name_valid(e.name))
        return;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 64;
        void *v = cht_realloc(l->v, cap * sizeof *l->v);
        if (v == NULL) {
            l->failed = true;
            return;
        }
        l->v = v;
        l->cap = cap;
    }
    l->v[l->n++] = e;
}

static void add_entry(void *ctx, const char *name, enum cht_io_kind kind)
{
    size_t n = strlen(name), tail = sizeof CHT_UNFINISHED - 1;
    if (kind != CHT_IO_FOLDER && kind != CHT_IO_LINK)
        return;
    if (n > tail && strcmp(name + n - tail, CHT_UNFINISHED) == 0)
        add_name(ctx, name, n - tail, false, true, false);
    else
        add_name(ctx, name, n, true, false, false);
}

static int by_name(const void *a, const void *b)
{
    const struct cht_dirs_name *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static void sort_names(struct name_list *l)
{
    size_t n = 0;
    if (l->n > 0)
        qsort(l->v, l->n, sizeof *l->v, by_name);
    for (size_t i = 0; i < l->n; i++) {
        if (n > 0 && strcmp(l->v[n - 1].name, l->v[i].name) == 0) {
            l->v[n - 1].folder |= l->v[i].folder;
            l->v[n - 1].husk |= l->v[i].husk;
            l->v[n - 1].listed |= l->v[i].listed;
        } else {
            l->v[n++] = l->v[i];
        }
    }
    l->n = n;
}

/* A directory that is not there yet has nothing in it. */
static enum cht_rc read_dir(struct cht_io *io, const char *dir, const struct cht_set *s, struct name_list *l,
                            struct cht_err *err)
{
    enum cht_io_kind kind = CHT_IO_NOTHING;
    enum cht_rc rc = cht_io_kind(io, dir, &kind, err);
    if (rc == CHT_OK && kind != CHT_IO_NOTHING)
        rc = io->ops->list(io, dir, add_entry, l, err);
    for (size_t i = 0; rc == CHT_OK && s != NULL && i < s->n; i++)
        add_name(l, s->v[i].name, strlen(s->v[i].name), false, false, true);
    return rc;
}

static enum cht_rc names_done(struct name_list *l, enum cht_rc rc, struct cht_err *err)
{
    if (rc == CHT_OK && l->failed)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the list of databases");
    if (rc == CHT_OK)
        sort_names(l);
    else
        cht_free(l->v);
    return rc;
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

/* Twice the same directory, or something that is none. */
static enum cht_rc check_distinct(struct cht_env *env, struct cht_err *err)
{
    struct cht_io_stat st[CHT_SHARDS_MAX];
    for (size_t i = 0; i < env->ndirs; i++) {
        enum cht_rc rc = env->io->ops->stat(env->io, env->dirs[i], CHT_STAT_FOLLOW, &st[i], err);
        if (rc != CHT_OK)
            return rc;
        if (st[i].kind == CHT_IO_LINK)
            return CHT_FAIL(err, CHT_DIRECTORY_MISSING,
                            "%.150s: a link that leads to nothing: is its disk not mounted?", env->dirs[i]);
        if (st[i].kind != CHT_IO_FOLDER && st[i].kind != CHT_IO_NOTHING)
            return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%.150s: is no directory", env->dirs[i]);
        for (size_t j = 0; j < i; j++) {
            bool same = st[i].kind == CHT_IO_NOTHING
                            ? strcmp(env->dirs[i], env->dirs[j]) == 0
                            : st[j].kind == CHT_IO_FOLDER && st[i].device == st[j].device &&
                                  st[i].inode == st[j].inode;
            if (same)
                return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%.80s and %.80s are the same data directory",
                                env->dirs[j], env->dirs[i]);
        }
    }
    return CHT_OK;
}

/* *made: the lock was not there. Without `make` a lock that is not there is not taken. */
static enum cht_rc lock_dir(struct cht_env *env, size_t i, bool make, bool *made, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    bool look = env->cfg.mode == CHT_DIRS_LOOK;
    enum cht_io_kind kind = CHT_IO_NOTHING;
    if (env->locks[i] != NULL)
        return CHT_OK;
    enum cht_rc rc = cht_path_join(path, sizeof path, env->dirs[i], "LOCK", err);
    if (rc == CHT_OK)
        rc = cht_io_kind(env->io, path, &kind, err);
    if (rc != CHT_OK || (kind == CHT_IO_NOTHING && !make))
        return rc;
    *made = *made || kind == CHT_IO_NOTHING;
    rc = cht_io_open(env->io, path, CHT_OPEN_LOCK | (look ? CHT_OPEN_RDONLY : CHT_OPEN_CREATE),
                     &env->locks[i], err);
    return rc == CHT_OK ? cht_io_note(env->io, path, &env->lock_ids[i], err) : rc;
}

/* Step 3: one database that lies in a directory that would join. */
static enum cht_rc check_whole(struct cht_env *env, const char *name, struct cht_err *err)
{
    struct cht_manifest m;
    struct cht_db_look l;
    enum cht_rc rc = cht_db_look(env->io, env->dirs, env->ndirs, name, &l, err);
    if (rc != CHT_OK || (l.state != CHT_DB_THERE && l.state != CHT_DB_PARTS))
        return rc;
    rc = cht_db_find(env->io, env->dirs, env->ndirs, name, &m, err);
    return rc == CHT_OK ? cht_db_whole(env->io, env->dirs, env->ndirs, name, &m, err) : rc;
}

/* Steps 2 and 3. */
static enum cht_rc judge(struct cht_env *env, struct cht_err *err)
{
    for (size_t i = 0; i < env->ndirs; i++)
        cht_set_fini(&env->sets[i]);
    enum cht_rc rc = cht_dirs_judge(env->io, env->dirs, env->sets, env->ndirs, err);
    for (size_t i = 0; i < env->ndirs && rc == CHT_OK && env->cfg.mode == CHT_DIRS_JOIN; i++) {
        struct name_list l = {0};
        if (env->sets[i].there)
            continue;
        rc = names_done(&l, read_dir(env->io, env->dirs[i], NULL, &l, err), err);
        if (rc != CHT_OK)
            return rc;
        for (size_t k = 0; k < l.n && rc == CHT_OK; k++)
            rc = check_whole(env, l.v[k].name, err);
        cht_free(l.v);
    }
    return rc;
}

/* Step 4. */
static enum cht_rc make_dirs(struct cht_env *env, struct cht_err *err)
{
    bool made = false;
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < env->ndirs && rc == CHT_OK; i++) {
        rc = cht_io_make_folder(env->io, env->dirs[i], err);
        if (rc == CHT_OK)
            rc = lock_dir(env, i, true, &made, err);
    }
    return rc == CHT_OK && made ? judge(env, err) : rc;
}

/* Step 6, one name of one directory. Lists change for databases that are whole only; opening another one says why. */
static enum cht_rc compare(struct cht_env *env, size_t d, const struct cht_dirs_name *name, bool *changed,
                           struct cht_err *err)
{
    struct cht_db_look l;
    if (name->folder == name->listed ||
        cht_db_look(env->io, env->dirs, env->ndirs, name->name, &l, NULL) != CHT_OK ||
        l.state != CHT_DB_THERE ||
        cht_db_whole(env->io, env->dirs, env->ndirs, name->name, &l.m, NULL) != CHT_OK)
        return CHT_OK;
    if (name->folder) {
        *changed = true;
        return cht_set_put(&env->sets[d], name->name, l.m.uuid, err);
    }
    *changed = true; /* it was moved to other directories */
    return cht_set_remove(&env->sets[d], name->name, err);
}

static enum cht_rc compare_lists(struct cht_env *env, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (size_t d = 0; d < env->ndirs && rc == CHT_OK; d++) {
        struct name_list l = {0};
        bool changed = false;
        rc = names_done(&l, read_dir(env->io, env->dirs[d], &env->sets[d], &l, err), err);
        if (rc != CHT_OK)
            return rc;
        for (size_t i = 0; i < l.n && rc == CHT_OK; i++)
            rc = compare(env, d, &l.v[i], &changed, err);
        cht_free(l.v);
        if (rc == CHT_OK && changed)
            rc = cht_set_sync(&env->sets[d], err);
    }
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_dirs_judge(struct cht_io *io, char *const *dirs, struct cht_set *sets, size_t ndirs,
                           struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < ndirs && rc == CHT_OK; i++)
        rc = cht_set_read(io, dirs[i], &sets[i], err);
    return rc == CHT_OK ? cht_set_judge(dirs, sets, ndirs, err) : rc;
}

enum cht_rc cht_dirs_open(struct cht_env *env, struct cht_err *err)
{
    bool made = false;
    enum cht_rc rc = check_distinct(env, err);
    for (size_t i = 0; i < env->ndirs && rc == CHT_OK; i++)
        rc = lock_dir(env, i, false, &made, err);
    if (rc == CHT_OK)
        rc = judge(env, err);
    if (rc == CHT_OK && env->cfg.mode != CHT_DIRS_LOOK)
        rc = make_dirs(env, err);
    if (rc == CHT_OK && env->cfg.mode == CHT_DIRS_JOIN)
        rc = cht_set_join(env->io, env->dirs, env->sets, env->ndirs, err);
    return rc == CHT_OK && env->cfg.mode == CHT_DIRS_JOIN ? compare_lists(env, err) : rc;
}

enum cht_rc cht_dirs_same(const struct cht_env *env, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < env->ndirs && rc == CHT_OK; i++) {
        rc = cht_path_join(path, sizeof path, env->dirs[i], "LOCK", err);
        if (rc == CHT_OK)
            rc = cht_io_same(env->io, path, env->lock_ids[i], err);
    }
    return rc;
}

void cht_dirs_close(struct cht_env *env)
{
    for (size_t i = 0; i < env->ndirs; i++) {
        if (env->sets != NULL)
            cht_set_fini(&env->sets[i]);
        if (env->locks != NULL)
            cht_file_close(env->locks[i]);
    }
    cht_free(env->sets);
    cht_free(env->lock_ids);
    cht_free(env->locks);
    env->sets = NULL;
    env->locks = NULL;
}

enum cht_rc cht_dirs_names(struct cht_io *io, char *const *dirs, const struct cht_set *sets, size_t ndirs,
                           struct cht_dirs_name **out, size_t *n, struct cht_err *err)
{
    struct name_list l = {0};
    enum cht_rc rc = CHT_OK;
    for (size_t d = 0; d < ndirs && rc == CHT_OK; d++)
        rc = read_dir(io, dirs[d], sets == NULL ? NULL : &sets[d], &l, err);
    rc = names_done(&l, rc, err);
    *out = rc == CHT_OK ? l.v : NULL;
    *n = rc == CHT_OK ? l.n : 0;
    return rc;
}
