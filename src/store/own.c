/* own: see own.h. */
#include "store/own.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/literal.h"
#include "store/pagefile.h"
#include "store/wal_int.h"

#include <stdio.h>
#include <string.h>

const char *const cht_mark_names[CHT_MARKS] = {"creating", "restoring", "dropping"};

static const char *const top_files[] = {"manifest", "manifest.new", NULL};
static const char *const mark_files[] = {"creating",     "restoring",     "dropping",
                                         "creating.new", "restoring.new", NULL};
static const char *const shard_files[] = {"keys", "values",  "recycle",    "pairs",
                                          "sums", "journal", "backup.tmp", NULL};

static bool in_list(const char *const *list, const char *name)
{
    while (*list != NULL && strcmp(*list, name) != 0)
        list++;
    return *list != NULL;
}

static bool is_segment(const char *name)
{
    return strlen(name) == 20 && strspn(name, "0123456789abcdef") == 16 && strcmp(name + 16, ".log") == 0;
}

/* One pass over one database's folder. */
struct pass {
    struct cht_io *io;
    const uint8_t *uuid;
    bool remove;
};

static enum cht_rc foreign(const char *path, const char *name, const char *why, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_FOREIGN_FILES, "%.120s/%.40s: %s", path, name, why);
}

/* The first bytes of a file; fewer if it ends. A file that went meanwhile has none. */
static enum cht_rc read_start(struct cht_io *io, const char *path, uint8_t *b, size_t n, size_t *got,
                              struct cht_err *err)
{
    struct cht_file *f;
    enum cht_io_kind kind = CHT_IO_NOTHING;
    *got = 0;
    enum cht_rc rc = cht_io_kind(io, path, &kind, err);
    if (rc != CHT_OK || kind != CHT_IO_FILE)
        return rc;
    rc = cht_io_open(io, path, CHT_OPEN_RDONLY, &f, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_file_read_some(f, b, n, 0, got, err);
    cht_file_close(f);
    return rc;
}

/* The same for a segment of the log. */
static enum cht_rc segment_owner(const struct pass *p, const char *path, enum cht_own *own,
                                 struct cht_err *err)
{
    uint8_t b[CHT_WAL_HEADER];
    size_t got;
    enum cht_rc rc = read_start(p->io, path, b, sizeof b, &got, err);
    *own = CHT_OWN_UNKNOWN;
    if (rc == CHT_OK && got == sizeof b && memcmp(b, "CHEETAHL", sizeof "CHEETAHL" - 1) == 0 &&
        cht_get32(b + CHT_WAL_HEADER - 4) == cht_crc32c(0, b, CHT_WAL_HEADER - 4))
        *own = memcmp(b + 16, p->uuid, 16) == 0 ? CHT_OWN_SAME : CHT_OWN_OTHER;
    return rc;
}

/* What a file that is removed twice says of the second time. */
static enum cht_rc unlink_one(struct cht_io *io, const char *path, struct cht_err *err)
{
    enum cht_rc rc = io->ops->unlink(io, path, err);
    return rc == CHT_NO_FILE ? CHT_OK : rc;
}

/* The files of a shard, or of the log. */
static enum cht_rc pass_files(const struct pass *p, const char *path, bool log, enum cht_own *own,
                              struct cht_err *err)
{
    struct cht_io_names l = {0};
    enum cht_rc rc = cht_io_names(p->io, path, &l, err);
    for (size_t i = 0; i < l.n && rc == CHT_OK; i++) {
        char file[CHT_PATH_MAX];
        enum cht_own of = CHT_OWN_UNKNOWN;
        bool known = l.kind[i] == CHT_IO_FILE && (log ? is_segment(l.v[i]) : in_list(shard_files, l.v[i]));
        if (!known)
            rc = foreign(path, l.v[i], "is no file of a database", err);
        if (rc == CHT_OK)
            rc = cht_path_join(file, sizeof file, path, l.v[i], err);
        if (rc == CHT_OK && p->remove)
            rc = unlink_one(p->io, file, err);
        else if (rc == CHT_OK && log)
            rc = segment_owner(p, file, &of, err);
        *own = of > *own ? of : *own;
    }
    cht_io_names_fini(&l);
    if (rc == CHT_OK && !log && !p->remove)
        rc = cht_own_shard(p->io, path, p->uuid, own, err);
    return rc;
}

/* A shard's folder or the log's, or a link to one. */
static enum cht_rc pass_folder(const struct pass *p, const char *top, const char *name, bool link,
                               struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    enum cht_own own = CHT_OWN_UNKNOWN;
    enum cht_io_kind kind = CHT_IO_FOLDER;
    enum cht_rc rc = cht_path_join(path, sizeof path, top, name, err);
    if (rc == CHT_OK && link)
        rc = cht_io_kind(p->io, path, &kind, err);
    if (rc == CHT_OK && kind != CHT_IO_FOLDER)
        return CHT_FAIL(err, CHT_DATABASE_INCOMPLETE, "%.120s: leads to no folder: is its disk not mounted?",
                        path);
    if (rc == CHT_OK)
        rc = pass_files(p, path, strcmp(name, "log") == 0, &own, err);
    if (rc == CHT_OK && !p->remove && own == CHT_OWN_OTHER)
        return foreign(top, name, "belongs to another database", err);
    if (rc == CHT_OK && !p->remove && link && own != CHT_OWN_SAME)
        return foreign(top, name, "a link to what is not known to be of this database", err);
    if (rc != CHT_OK || !p->remove)
        return rc;
    return link ? unlink_one(p->io, path, err) : p->io->ops->rmdir(p->io, path, err);
}

static enum cht_rc pass_entry(const struct pass *p, const char *top, const char *name, enum cht_io_kind kind,
                              struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    bool folder = kind == CHT_IO_FOLDER || kind == CHT_IO_LINK;
    if (folder && (cht_own_shard_name(name, kind) || strcmp(name, "log") == 0))
        return pass_folder(p, top, name, kind == CHT_IO_LINK, err);
    if (kind == CHT_IO_FILE && in_list(mark_files, name))
        return CHT_OK; /* goes last */
    if (kind != CHT_IO_FILE || !in_list(top_files, name))
        return foreign(top, name, "is no file of a database", err);
    enum cht_rc rc = cht_path_join(path, sizeof path, top, name, err);
    return rc == CHT_OK && p->remove ? unlink_one(p->io, path, err) : rc;
}

static enum cht_rc pass_over(const struct pass *p, const char *path, struct cht_err *err)
{
    struct cht_io_names l = {0};
    enum cht_rc rc = cht_io_names(p->io, path, &l, err);
    for (size_t i = 0; i < l.n && rc == CHT_OK; i++)
        rc = pass_entry(p, path, l.v[i], l.kind[i], err);
    cht_io_names_fini(&l);
    return rc;
}

/* DIR/NAME is there and can be looked into. A link: it is removed itself in the end, and nothing says that a folder it leads
 * to without a shard, log or mark is ours, so that one has to be empty of others' files like any. */
static enum cht_rc look_in(struct cht_io *io, const char *path, bool *there, bool *link, struct cht_err *err)
{
    struct cht_io_stat st;
    enum cht_io_kind kind = CHT_IO_NOTHING;
    enum cht_rc rc = io->ops->stat(io, path, 0, &st, err);
    if (rc == CHT_OK)
        rc = cht_io_kind(io, path, &kind, err);
    *there = rc == CHT_OK && kind != CHT_IO_NOTHING;
    *link = rc == CHT_OK && st.kind == CHT_IO_LINK;
    if (*there && kind != CHT_IO_FOLDER)
        return CHT_FAIL(err, CHT_FOREIGN_FILES, "%.150s: is no folder", path);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

bool cht_own_shard_name(const char *name, enum cht_io_kind kind)
{
    return (kind == CHT_IO_FOLDER || kind == CHT_IO_LINK) && strlen(name) == 9 &&
           CHT_BEGINS(name, "shard-") && strspn(name + 6, "0123456789") == 3;
}

enum cht_rc cht_own_has_log(struct cht_io *io, const char *path, bool *has, struct cht_err *err)
{
    struct cht_io_names l = {0};
    enum cht_rc rc = cht_io_names(io, path, &l, err);
    *has = false;
    for (size_t i = 0; i < l.n; i++)
        *has = *has || is_segment(l.v[i]);
    cht_io_names_fini(&l);
    return rc;
}

enum cht_rc cht_own_shard(struct cht_io *io, const char *path, const uint8_t uuid[16], enum cht_own *own,
                          struct cht_err *err)
{
    uint8_t b[CHT_PF_USER_END + sizeof(uint32_t)]; /* the header of its file of keys, up to the checksum */
    char file[CHT_PATH_MAX];
    size_t got = 0;
    *own = CHT_OWN_UNKNOWN;
    enum cht_rc rc = cht_path_join(file, sizeof file, path, "keys", err);
    if (rc == CHT_OK)
        rc = read_start(io, file, b, sizeof b, &got, err);
    if (rc == CHT_OK && got == sizeof b && memcmp(b, "CHEETAHP", sizeof "CHEETAHP" - 1) == 0 &&
        cht_get32(b + CHT_PF_USER_END) == cht_crc32c(0, b, CHT_PF_USER_END))
        *own = memcmp(b + 16, uuid, 16) == 0 ? CHT_OWN_SAME : CHT_OWN_OTHER;
    return rc;
}

enum cht_rc cht_own_survey(struct cht_io *io, const char *path, const uint8_t uuid[16], struct cht_err *err)
{
    const struct pass look = {io, uuid, false};
    bool there, link;
    enum cht_rc rc = look_in(io, path, &there, &link, err);
    return rc == CHT_OK && there ? pass_over(&look, path, err) : rc;
}

static enum cht_rc remove_marks(struct cht_io *io, const char *path, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (const char *const *m = mark_files; *m != NULL && rc == CHT_OK; m++) {
        char file[CHT_PATH_MAX];
        rc = cht_path_join(file, sizeof file, path, *m, err);
        if (rc == CHT_OK)
            rc = unlink_one(io, file, err);
    }
    return rc;
}

enum cht_rc cht_own_remove(struct cht_io *io, const char *path, const uint8_t uuid[16], bool keep_mark,
                           struct cht_err *err)
{
    const struct pass erase = {io, uuid, true};
    bool there, link;
    enum cht_rc rc = cht_own_survey(io, path, uuid, err);
    if (rc == CHT_OK)
        rc = look_in(io, path, &there, &link, err);
    if (rc != CHT_OK || !there)
        return rc;
    rc = pass_over(&erase, path, err);
    if (keep_mark || rc != CHT_OK)
        return rc;
    rc = remove_marks(io, path, err);
    if (rc != CHT_OK)
        return rc;
    return link ? unlink_one(io, path, err) : io->ops->rmdir(io, path, err);
}

enum cht_rc cht_own_remove_husk(struct cht_io *io, const char *path, struct cht_err *err)
{
    struct cht_io_names l = {0};
    bool there, link;
    enum cht_rc rc = look_in(io, path, &there, &link, err);
    if (rc == CHT_OK && there)
        rc = cht_io_names(io, path, &l, err);
    for (size_t i = 0; i < l.n && rc == CHT_OK; i++) {
        if (l.kind[i] != CHT_IO_FILE || !in_list(mark_files, l.v[i]))
            rc = foreign(path, l.v[i], "is no file of a database", err);
    }
    cht_io_names_fini(&l);
    if (rc == CHT_OK && there)
        rc = remove_marks(io, path, err);
    if (rc != CHT_OK || !there)
        return rc;
    return link ? unlink_one(io, path, err) : io->ops->rmdir(io, path, err);
}
