/* io: what is built on the table of functions: whole reads and writes, replacing a file, removing a tree. */
#include "os/io.h"

#include "base/alloc.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum cht_rc cht_file_read_some(struct cht_file *f, void *buf, size_t n, uint64_t off, size_t *got,
                               struct cht_err *err)
{
    uint8_t *p = buf;
    *got = 0;
    while (*got < n) {
        size_t done = 0;
        enum cht_rc rc = f->io->ops->pread(f, p + *got, n - *got, off + *got, &done, err);
        if (rc != CHT_OK)
            return rc;
        if (done == 0)
            break;
        *got += done;
    }
    return CHT_OK;
}

enum cht_rc cht_file_read(struct cht_file *f, void *buf, size_t n, uint64_t off, struct cht_err *err)
{
    size_t got;
    enum cht_rc rc = cht_file_read_some(f, buf, n, off, &got, err);
    if (rc == CHT_OK && got < n)
        return CHT_DAMAGED(err, "%s: ends at offset %llu where %zu more bytes were expected", f->path,
                           (unsigned long long)(off + got), n - got);
    return rc;
}

enum cht_rc cht_file_write(struct cht_file *f, const void *buf, size_t n, uint64_t off, struct cht_err *err)
{
    const uint8_t *p = buf;
    while (n > 0) {
        size_t done = 0;
        enum cht_rc rc = f->io->ops->pwrite(f, p, n, off, &done, err);
        if (rc != CHT_OK)
            return rc;
        if (done == 0)
            return CHT_FAIL(err, CHT_IO, "%s: a write at offset %llu wrote nothing", f->path,
                            (unsigned long long)off);
        p += done;
        off += done;
        n -= done;
    }
    return CHT_OK;
}

enum cht_rc cht_io_open(struct cht_io *io, const char *path, unsigned flags, struct cht_file **out,
                        struct cht_err *err)
{
    return io->ops->open(io, path, flags, out, err);
}

void cht_file_close(struct cht_file *f)
{
    if (f != NULL)
        f->io->ops->close(f);
}

enum cht_rc cht_path_join(char *out, size_t cap, const char *a, const char *b, struct cht_err *err)
{
    int n = snprintf(out, cap, "%s/%s", a, b);
    if (n < 0 || (size_t)n >= cap)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%.100s: the path is too long", a);
    return CHT_OK;
}

enum cht_rc cht_io_replace(struct cht_io *io, const char *dir, const char *name, const void *data, size_t n,
                           struct cht_err *err)
{
    char path[CHT_PATH_MAX], temp[CHT_PATH_MAX];
    struct cht_file *f = NULL;
    enum cht_rc rc = cht_path_join(path, sizeof path, dir, name, err);
    if (rc == CHT_OK && snprintf(temp, sizeof temp, "%s.new", path) >= (int)sizeof temp)
        rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%.100s: the path is too long", path);
    if (rc == CHT_OK)
        rc = cht_io_open(io, temp, CHT_OPEN_CREATE | CHT_OPEN_NOLINK, &f, err);
    if (rc == CHT_OK)
        rc = io->ops->truncate(f, 0, err);
    if (rc == CHT_OK)
        rc = cht_file_write(f, data, n, 0, err);
    if (rc == CHT_OK)
        rc = cht_file_sync(f, err);
    cht_file_close(f);
    if (rc == CHT_OK)
        rc = io->ops->rename(io, temp, path, err);
    return rc == CHT_OK ? io->ops->sync_dir(io, dir, err) : rc;
}

enum cht_rc cht_io_kind(struct cht_io *io, const char *path, enum cht_io_kind *kind, struct cht_err *err)
{
    struct cht_io_stat st;
    enum cht_rc rc = io->ops->stat(io, path, CHT_STAT_FOLLOW, &st, err);
    *kind = st.kind;
    return rc;
}

/* Who may make a folder need not be allowed to open the one it is in: then its entry is left to the kernel. */
static enum cht_rc sync_parent(struct cht_io *io, const char *path, struct cht_err *err)
{
    char parent[CHT_PATH_MAX];
    struct cht_err why = {0};
    size_t n = strlen(path);
    if (n >= sizeof parent)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%.100s: the path is too long", path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    while (n > 0 && path[n - 1] != '/')
        n--;
    while (n > 1 && path[n - 1] == '/')
        n--;
    (void)snprintf(parent, sizeof parent, "%.*s", n > 0 ? (int)n : 1, n > 0 ? path : "."); /* fits */
    enum cht_rc rc = io->ops->sync_dir(io, parent, &why);
    if (rc == CHT_OK || why.sys == EACCES)
        return CHT_OK;
    return cht_err_set(err, rc, why.sys, __FILE__, __LINE__, "%s", why.msg);
}

enum cht_rc cht_io_make_folder(struct cht_io *io, const char *path, struct cht_err *err)
{
    enum cht_io_kind kind = CHT_IO_NOTHING;
    enum cht_rc rc = cht_io_kind(io, path, &kind, err);
    if (rc == CHT_OK)
        rc = io->ops->mkdir(io, path, err);
    return rc == CHT_OK && kind == CHT_IO_NOTHING ? sync_parent(io, path, err) : rc;
}

enum cht_rc cht_io_note(struct cht_io *io, const char *path, struct cht_io_id *id, struct cht_err *err)
{
    struct cht_io_stat st;
    enum cht_rc rc = io->ops->stat(io, path, CHT_STAT_FOLLOW, &st, err);
    *id = (struct cht_io_id){st.device, st.inode};
    return rc;
}

enum cht_rc cht_io_same(struct cht_io *io, const char *path, struct cht_io_id id, struct cht_err *err)
{
    struct cht_io_id now = {0};
    enum cht_rc rc = id.inode == 0 ? CHT_OK : cht_io_note(io, path, &now, err);
    if (rc == CHT_OK && id.inode != 0 && (now.device != id.device || now.inode != id.inode))
        return CHT_FAIL(err, CHT_IO, "%.100s: %s: was its folder moved?", path,
                        now.inode == 0 ? "is not there any more" : "is another file than was opened");
    return rc;
}

static void add_entry(void *ctx, const char *name, enum cht_io_kind kind)
{
    struct cht_io_names *l = ctx;
    if (l->failed || strlen(name) >= sizeof *l->v)
        return;
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 16;
        void *v = cht_realloc(l->v, cap * sizeof *l->v);
        if (v != NULL)
            l->v = v;
        void *k = v == NULL ? NULL : cht_realloc(l->kind, cap * sizeof *l->kind);
        if (k == NULL) {
            l->failed = true;
            return;
        }
        l->kind = k;
        l->cap = cap;
    }
    l->kind[l->n] = kind;
    memcpy(l->v[l->n++], name, strlen(name) + 1);
}

enum cht_rc cht_io_names(struct cht_io *io, const char *path, struct cht_io_names *l, struct cht_err *err)
{
    enum cht_rc rc = io->ops->list(io, path, add_entry, l, err);
    if (rc == CHT_OK && l->failed)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory for the list of files", path);
    return rc;
}

void cht_io_names_fini(struct cht_io_names *l)
{
    cht_free(l->v);
    cht_free(l->kind);
    memset(l, 0, sizeof *l);
}

/* The files of one folder and the folder. */
static enum cht_rc remove_flat(struct cht_io *io, const char *path, struct cht_err *err)
{
    struct cht_io_names l = {0};
    enum cht_rc rc = cht_io_names(io, path, &l, err);
    for (size_t i = 0; i < l.n && rc == CHT_OK; i++) {
        char sub[CHT_PATH_MAX];
        rc = cht_path_join(sub, sizeof sub, path, l.v[i], err);
        if (rc == CHT_OK)
            rc = l.kind[i] == CHT_IO_FOLDER ? io->ops->rmdir(io, sub, err) : io->ops->unlink(io, sub, err);
    }
    cht_io_names_fini(&l);
    return rc == CHT_OK ? io->ops->rmdir(io, path, err) : rc;
}

enum cht_rc cht_io_remove_tree(struct cht_io *io, const char *path, struct cht_err *err)
{
    struct cht_io_names l = {0};
    enum cht_rc rc = cht_io_names(io, path, &l, err);
    for (size_t i = 0; i < l.n && rc == CHT_OK; i++) {
        char sub[CHT_PATH_MAX];
        rc = cht_path_join(sub, sizeof sub, path, l.v[i], err);
        if (rc == CHT_OK && l.kind[i] == CHT_IO_FOLDER)
            rc = remove_flat(io, sub, err);
    }
    cht_io_names_fini(&l);
    return rc == CHT_OK ? remove_flat(io, path, err) : rc;
}
