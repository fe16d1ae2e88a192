/* place: where a database lies: what is under a name in the data directories, its manifest, its shards (db.h). */
#include "store/db.h"

#include "base/bytes.h"
#include "base/crc32c.h"

#include <stdio.h>
#include <string.h>

static const char magic[8] = "CHEETAHM";

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

/* The manifest or a mark, whatever its name is: *at is there exactly once in all directories (F1). */
static enum cht_rc take_manifest(struct cht_io *io, char *const *dirs, unsigned d, const char *name,
                                 const char *what, struct cht_db_look *l, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    if (l->state == CHT_DB_THERE || l->state == CHT_DB_UNFINISHED)
        return CHT_FAIL(err, CHT_SHARD_MISPLACED, "database %s has a manifest in %.60s and in %.60s", name,
                        dirs[l->m.home], dirs[d]);
    enum cht_rc rc = cht_db_path(path, sizeof path, dirs[d], name, what, err);
    if (rc == CHT_OK)
        rc = read_manifest(io, path, &l->m, err);
    l->m.home = d;
    return rc;
}

/* DIR/NAME is a folder: its manifest or mark, if it has one. */
static enum cht_rc look_for_mark(struct cht_io *io, char *const *dirs, unsigned d, const char *name,
                                 struct cht_db_look *l, struct cht_err *err)
{
    for (unsigned i = 0; i <= CHT_MARKS; i++) {
        char path[CHT_PATH_MAX];
        enum cht_io_kind kind = CHT_IO_NOTHING;
        const char *what = i == 0 ? "manifest" : cht_mark_names[i - 1];
        enum cht_rc rc = cht_db_path(path, sizeof path, dirs[d], name, what, err);
        if (rc == CHT_OK)
            rc = cht_io_kind(io, path, &kind, err);
        if (rc != CHT_OK)
            return rc;
        if (kind == CHT_IO_NOTHING)
            continue;
        rc = take_manifest(io, dirs, d, name, what, l, err);
        l->state = i == 0 ? CHT_DB_THERE : CHT_DB_UNFINISHED;
        l->mark = i == 0 ? CHT_MARK_CREATING : (enum cht_mark)(i - 1);
        return rc;
    }
    return CHT_OK;
}

/* A folder without: parts of a database, or something else? */
static enum cht_rc look_for_parts(struct cht_io *io, char *const *dirs, unsigned d, const char *name,
                                  struct cht_db_look *l, struct cht_err *err)
{
    char path[CHT_PATH_MAX], log[CHT_PATH_MAX];
    struct cht_io_names entries = {0};
    bool parts = false;
    char part[16] = "";
    enum cht_rc rc = cht_db_path(path, sizeof path, dirs[d], name, NULL, err);
    if (rc == CHT_OK)
        rc = cht_io_names(io, path, &entries, err);
    for (size_t i = 0; i < entries.n && rc == CHT_OK && !parts; i++) {
        parts = cht_own_shard_name(entries.v[i], entries.kind[i]);
        if (strcmp(entries.v[i], "log") == 0 && entries.kind[i] == CHT_IO_FOLDER) {
            rc = cht_path_join(log, sizeof log, path, "log", err);
            if (rc == CHT_OK)
                rc = cht_own_has_log(io, log, &parts, err);
        }
        if (parts)
            memcpy(part, entries.v[i], strlen(entries.v[i]) + 1); /* 9 characters, or 3 */
    }
    cht_io_names_fini(&entries);
    if (rc == CHT_OK && (parts || l->state == CHT_DB_NONE)) {
        l->state = parts ? CHT_DB_PARTS : CHT_DB_FOREIGN;
        l->dir = d;
        memcpy(l->part, part, sizeof part);
    }
    return rc;
}

/* What DIR/NAME is: *folder: one, or a link to one; *other: something else. */
static enum cht_rc look_at(struct cht_io *io, const char *dir, const char *name, bool *folder, bool *other,
                           struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    enum cht_io_kind kind = CHT_IO_NOTHING;
    enum cht_rc rc = cht_db_path(path, sizeof path, dir, name, NULL, err);
    if (rc == CHT_OK)
        rc = cht_io_kind(io, path, &kind, err);
    *folder = rc == CHT_OK && kind == CHT_IO_FOLDER;
    *other = rc == CHT_OK && !*folder && kind != CHT_IO_NOTHING;
    return rc;
}

/* A shard whose place is a link that leads to nothing: that is where it is missing. */
static enum cht_rc shard_missing(struct cht_io *io, char *const *dirs, size_t ndirs, const char *name,
                                 unsigned i, struct cht_err *err)
{
    char what[24], path[CHT_PATH_MAX];
    (void)snprintf(what, sizeof what, "shard-%03u", i);
    for (size_t d = 0; d < ndirs; d++) {
        enum cht_io_kind kind = CHT_IO_NOTHING;
        enum cht_rc rc = cht_db_path(path, sizeof path, dirs[d], name, what, err);
        if (rc == CHT_OK)
            rc = cht_io_kind(io, path, &kind, err);
        if (rc != CHT_OK)
            return rc;
        if (kind == CHT_IO_LINK)
            return CHT_FAIL(err, CHT_SHARD_MISSING, "%.150s: leads to nothing: is its disk not mounted?",
                            path);
    }
    return CHT_FAIL(err, CHT_SHARD_MISSING, "database %s: shard %u is in none of the data directories", name,
                    i);
}

/* ------------------------------------------------------------------------------------------------------------ */

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

enum cht_rc cht_db_path(char *path, size_t cap, const char *dir, const char *name, const char *what,
                        struct cht_err *err)
{
    int n = what == NULL ? snprintf(path, cap, "%s/%s", dir, name)
                         : snprintf(path, cap, "%s/%s/%s", dir, name, what);
    if (n < 0 || (size_t)n >= cap)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%.100s: the path is too long", dir);
    return CHT_OK;
}

enum cht_rc cht_db_look(struct cht_io *io, char *const *dirs, size_t ndirs, const char *name,
                        struct cht_db_look *out, struct cht_err *err)
{
    bool folder[CHT_SHARDS_MAX] = {false};
    enum cht_rc rc = CHT_OK;
    memset(out, 0, sizeof *out);
    if (!cht_database_name_valid(name))
        return CHT_FAIL(err, CHT_INVALID_DATABASE_NAME,
                        "'%.80s' is not a database name: " CHT_DATABASE_NAME_RULE, name);
    if (ndirs > CHT_SHARDS_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%zu data directories; at most %u", ndirs, CHT_SHARDS_MAX);
    for (unsigned d = 0; d < ndirs && rc == CHT_OK; d++) {
        bool other = false;
        rc = look_at(io, dirs[d], name, &folder[d], &other, err);
        if (rc == CHT_OK && folder[d])
            rc = look_for_mark(io, dirs, d, name, out, err);
        if (rc == CHT_OK && other && out->state == CHT_DB_NONE) {
            out->state = CHT_DB_FOREIGN;
            out->dir = d;
        }
    }
    bool found = out->state == CHT_DB_THERE || out->state == CHT_DB_UNFINISHED;
    for (unsigned d = 0; d < ndirs && rc == CHT_OK && !found && out->state != CHT_DB_PARTS; d++) {
        if (folder[d])
            rc = look_for_parts(io, dirs, d, name, out, err);
    }
    return rc;
}

enum cht_rc cht_db_find(struct cht_io *io, char *const *dirs, size_t ndirs, const char *name,
                        struct cht_manifest *m, struct cht_err *err)
{
    struct cht_db_look l;
    enum cht_rc rc = cht_db_look(io, dirs, ndirs, name, &l, err);
    if (rc != CHT_OK)
        return rc;
    *m = l.m;
    switch (l.state) {
    case CHT_DB_THERE:
        return CHT_OK;
    case CHT_DB_PARTS:
        return CHT_FAIL(err, CHT_DATABASE_INCOMPLETE,
                        "database %s: %.80s has %s, but no data directory has its manifest", name,
                        dirs[l.dir], l.part);
    default:
        return CHT_FAIL(err, CHT_DATABASE_NOT_FOUND, "no database %s", name);
    }
}

enum cht_rc cht_db_find_shard(struct cht_io *io, char *const *dirs, size_t ndirs, const char *name,
                              unsigned i, unsigned *dir, char *path, size_t cap, struct cht_err *err)
{
    bool found = false;
    char what[32], probe[CHT_PATH_MAX];
    (void)snprintf(what, sizeof what, "shard-%03u/keys", i);
    for (unsigned d = 0; d < ndirs; d++) {
        enum cht_io_kind kind = CHT_IO_NOTHING;
        enum cht_rc rc = cht_db_path(probe, sizeof probe, dirs[d], name, what, err);
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
        return shard_missing(io, dirs, ndirs, name, i, err);
    (void)snprintf(what, sizeof what, "shard-%03u", i);
    return cht_db_path(path, cap, dirs[*dir], name, what, err);
}

enum cht_rc cht_db_whole(struct cht_io *io, char *const *dirs, size_t ndirs, const char *name,
                         const struct cht_manifest *m, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    enum cht_rc rc = CHT_OK;
    for (unsigned i = 0; i < m->shards && rc == CHT_OK; i++) {
        enum cht_own own = CHT_OWN_UNKNOWN;
        unsigned d;
        rc = cht_db_find_shard(io, dirs, ndirs, name, i, &d, path, sizeof path, err);
        if (rc == CHT_OK)
            rc = cht_own_shard(io, path, m->uuid, &own, err);
        if (rc == CHT_OK && own == CHT_OWN_OTHER)
            rc = CHT_FAIL(err, CHT_SHARD_MISPLACED, "%.150s: belongs to another database", path);
    }
    enum cht_io_kind kind = CHT_IO_FOLDER;
    if (rc == CHT_OK)
        rc = cht_db_path(path, sizeof path, dirs[m->home], name, "log", err);
    if (rc == CHT_OK)
        rc = cht_io_kind(io, path, &kind, err);
    if (rc == CHT_OK && kind != CHT_IO_FOLDER)
        rc = CHT_FAIL(err, CHT_DATABASE_INCOMPLETE, "%.150s: the log of the database is not there", path);
    return rc;
}
