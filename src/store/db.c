/* db: creating, finding and dropping databases (layout in db.h). */
#include "store/db.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/invariant.h"

#include <stdio.h>
#include <string.h>

static const char magic[8] = "CHEETAHM";

bool cht_database_name_valid(const char *name)
{
    size_t n = strlen(name);
    if (n == 0 || n > 64)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = name[i];
        bool alnum = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!alnum && (i == 0 || (c != '_' && c != '-')))
            return false;
    }
    return true;
}

/* DIR/NAME and below into path; what may be NULL. */
static enum cht_rc db_path(char *path, size_t cap, const char *dir, const char *name, const char *what,
                           struct cht_err *err)
{
    int n = what == NULL ? snprintf(path, cap, "%s/%s", dir, name)
                         : snprintf(path, cap, "%s/%s/%s", dir, name, what);
    if (n < 0 || (size_t)n >= cap)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s: the path is too long", dir);
    return CHT_OK;
}

static enum cht_rc read_manifest(struct cht_io *io, const char *path, struct cht_manifest *m,
                                 struct cht_err *err)
{
    uint8_t b[CHT_MANIFEST_SIZE];
    struct cht_file *f;
    enum cht_rc rc = cht_io_open(io, path, CHT_OPEN_RDONLY, &f, err);
    if (rc != CHT_OK)
        return rc;
    uint64_t size = 0;
    rc = io->ops->size(f, &size, err);
    if (rc == CHT_OK && size != sizeof b)
        rc = CHT_DAMAGED(err, "%s: %llu bytes, not %zu", path, (unsigned long long)size, sizeof b);
    if (rc == CHT_OK)
        rc = cht_file_read(f, b, sizeof b, 0, err);
    cht_file_close(f);
    if (rc != CHT_OK)
        return rc;
    bool sealed = cht_get32(b + 508) == cht_crc32c(0, b, 508);
    if (memcmp(b, magic, 8) != 0)
        return CHT_DAMAGED(err, "%s: offset 0: not a manifest", path);
    if (sealed && cht_get32(b + 8) != CHT_FORMAT_VERSION)
        return CHT_FAIL(err, CHT_VERSION, "%s: format version %u, this program knows %u", path,
                        cht_get32(b + 8), CHT_FORMAT_VERSION);
    if (!sealed)
        return CHT_DAMAGED(err, "%s: offset 0: does not match its checksum", path);
    memcpy(m->uuid, b + 16, 16);
    m->shards = cht_get32(b + 32);
    if (m->shards == 0 || m->shards > CHT_SHARDS_MAX)
        return CHT_DAMAGED(err, "%s: offset 32: %u shards", path, m->shards);
    return CHT_OK;
}

enum cht_rc cht_db_find(struct cht_io *io, char *const *dirs, size_t ndirs, const char *name,
                        struct cht_manifest *m, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    bool found = false;
    if (!cht_database_name_valid(name))
        return CHT_FAIL(err, CHT_INVALID_DATABASE_NAME,
                        "'%.80s' is not a database name: [A-Za-z0-9][A-Za-z0-9_-]{0,63}", name);
    for (unsigned d = 0; d < ndirs; d++) {
        enum cht_io_kind kind = CHT_IO_NOTHING;
        enum cht_rc rc = db_path(path, sizeof path, dirs[d], name, "manifest", err);
        if (rc == CHT_OK)
            rc = cht_io_kind(io, path, &kind, err);
        if (rc != CHT_OK)
            return rc;
        if (kind == CHT_IO_NOTHING)
            continue;
        if (found)
            return CHT_FAIL(err, CHT_SHARD_MISPLACED, "database %s has a manifest in %s and in %s", name,
                            dirs[m->home], dirs[d]);
        rc = read_manifest(io, path, m, err);
        if (rc != CHT_OK)
            return rc;
        m->home = d;
        found = true;
    }
    return found ? CHT_OK : CHT_FAIL(err, CHT_DATABASE_NOT_FOUND, "no database %s", name);
}

enum cht_rc cht_db_find_shard(struct cht_io *io, char *const *dirs, size_t ndirs, const char *name,
                              unsigned i, unsigned *dir, char *path, size_t cap, struct cht_err *err)
{
    bool found = false;
    char what[32], probe[CHT_PATH_MAX];
    (void)snprintf(what, sizeof what, "shard-%03u/keys", i);
    for (unsigned d = 0; d < ndirs; d++) {
        enum cht_io_kind kind = CHT_IO_NOTHING;
        enum cht_rc rc = db_path(probe, sizeof probe, dirs[d], name, what, err);
        if (rc == CHT_OK)
            rc = cht_io_kind(io, probe, &kind, err);
        if (rc != CHT_OK)
            return rc;
        if (kind == CHT_IO_NOTHING)
            continue;
        if (found)
            return CHT_FAIL(err, CHT_SHARD_MISPLACED, "database %s: shard %u is in %s and in %s", name, i,
                            dirs[*dir], dirs[d]);
        *dir = d;
        found = true;
    }
    if (!found)
        return CHT_FAIL(err, CHT_SHARD_MISSING, "database %s: shard %u is in none of the data directories",
                        name, i);
    (void)snprintf(what, sizeof what, "shard-%03u", i);
    return db_path(path, cap, dirs[*dir], name, what, err);
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
        rc = db_path(path, sizeof path, env->dirs[i % env->ndirs], name, what, err);
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

static enum cht_rc write_manifest(struct cht_env *env, const char *dir, const struct cht_manifest *m,
                                  struct cht_err *err)
{
    uint8_t b[CHT_MANIFEST_SIZE] = {0};
    memcpy(b, magic, 8);
    cht_put32(b + 8, CHT_FORMAT_VERSION);
    memcpy(b + 16, m->uuid, 16);
    cht_put32(b + 32, m->shards);
    cht_put32(b + 508, cht_crc32c(0, b, 508));
    return cht_io_replace(env->io, dir, "manifest", b, sizeof b, err);
}

enum cht_rc cht_db_prepare(struct cht_env *env, const char *name, struct cht_err *err)
{
    struct cht_manifest m;
    char path[CHT_PATH_MAX];
    enum cht_rc rc = cht_db_find(env->io, env->dirs, env->ndirs, name, &m, err);
    if (rc == CHT_OK)
        return CHT_FAIL(err, CHT_DATABASE_EXISTS, "database %s exists already", name);
    if (rc != CHT_DATABASE_NOT_FOUND)
        return rc;
    rc = CHT_OK;
    for (size_t d = 0; d < env->ndirs && rc == CHT_OK; d++) {
        enum cht_io_kind kind = CHT_IO_NOTHING;
        rc = db_path(path, sizeof path, env->dirs[d], name, NULL, err);
        if (rc == CHT_OK)
            rc = cht_io_kind(env->io, path, &kind, err);
        if (rc == CHT_OK && kind != CHT_IO_NOTHING)
            rc = cht_io_remove_tree(env->io, path, err);
        if (rc == CHT_OK)
            rc = env->io->ops->mkdir(env->io, path, err);
    }
    if (rc == CHT_OK)
        rc = db_path(path, sizeof path, env->dirs[0], name, "log", err);
    return rc == CHT_OK ? env->io->ops->mkdir(env->io, path, err) : rc;
}

enum cht_rc cht_db_seal(struct cht_env *env, const char *name, const struct cht_manifest *m,
                        struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    enum cht_rc rc = CHT_OK;
    for (size_t d = 0; d < env->ndirs && rc == CHT_OK; d++) {
        rc = db_path(path, sizeof path, env->dirs[d], name, NULL, err);
        if (rc == CHT_OK)
            rc = env->io->ops->sync_dir(env->io, path, err);
        if (rc == CHT_OK)
            rc = env->io->ops->sync_dir(env->io, env->dirs[d], err);
    }
    if (rc == CHT_OK)
        rc = db_path(path, sizeof path, env->dirs[0], name, NULL, err);
    return rc == CHT_OK ? write_manifest(env, path, m, err) : rc;
}

enum cht_rc cht_db_create(struct cht_env *env, const char *name, unsigned shards, struct cht_err *err)
{
    struct cht_manifest m = {.shards = shards == 0 ? env->cfg.default_shards : shards};
    if (m.shards > CHT_SHARDS_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%u shards; 1 to %u are allowed", shards, CHT_SHARDS_MAX);
    enum cht_rc rc = cht_db_prepare(env, name, err);
    cht_os_random(m.uuid, sizeof m.uuid);
    if (rc == CHT_OK)
        rc = make_shards(env, name, &m, err);
    return rc == CHT_OK ? cht_db_seal(env, name, &m, err) : rc;
}

/* What is left goes when the name is used again. */
void cht_db_discard(struct cht_env *env, const char *name)
{
    char path[CHT_PATH_MAX];
    if (db_path(path, sizeof path, env->dirs[0], name, "manifest", NULL) == CHT_OK)
        (void)env->io->ops->unlink(env->io, path, NULL);
    for (size_t d = 0; d < env->ndirs; d++) {
        if (db_path(path, sizeof path, env->dirs[d], name, NULL, NULL) == CHT_OK)
            (void)cht_io_remove_tree(env->io, path, NULL);
    }
}

enum cht_rc cht_db_drop(struct cht_env *env, const char *name, struct cht_err *err)
{
    struct cht_manifest m;
    char path[CHT_PATH_MAX];
    enum cht_rc rc = cht_db_find(env->io, env->dirs, env->ndirs, name, &m, err);
    if (rc == CHT_OK)
        rc = db_path(path, sizeof path, env->dirs[m.home], name, "manifest", err);
    if (rc == CHT_OK) /* from here on it is no database any more */
        rc = env->io->ops->unlink(env->io, path, err);
    if (rc == CHT_OK)
        rc = db_path(path, sizeof path, env->dirs[m.home], name, NULL, err);
    if (rc == CHT_OK)
        rc = env->io->ops->sync_dir(env->io, path, err);
    for (size_t d = 0; d < env->ndirs && rc == CHT_OK; d++) {
        enum cht_io_kind kind = CHT_IO_NOTHING;
        rc = db_path(path, sizeof path, env->dirs[d], name, NULL, err);
        if (rc == CHT_OK)
            rc = cht_io_kind(env->io, path, &kind, err);
        if (rc == CHT_OK && kind != CHT_IO_NOTHING)
            rc = cht_io_remove_tree(env->io, path, err);
    }
    return rc;
}
