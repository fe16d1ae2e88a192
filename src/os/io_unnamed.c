/* io_unnamed: files that only this process has, for what is made of files and need not outlive it. Each is a descriptor without a name on any
 * disk, in memory or below a folder, which is opened by its path in /proc like any other file; which names and folders there are is a list
 * here. So nothing stays of them, however the process ends.
 *
 * Room is counted by what files occupy, after each write: what is written over, and holes, take nothing.
 */
#include "os/io.h"

#include "base/alloc.h"
#include "os/code.h"
#include "os/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES_MAX 2000u /* of 256 shards, and logs */
#define NAME_MAX_HERE 128u

struct entry {
    char path[NAME_MAX_HERE];
    int fd; /* -1: a folder */
};

struct unnamed {
    struct cht_io io; /* first */
    struct cht_io_ops ops;
    char *dir; /* owned; NULL: in memory */
    struct cht_io_room *room;
    struct cht_mutex mu;
    struct entry *v; /* owned; guarded by mu, as all below */
    size_t n, cap;
    uint64_t taken; /* of room */
};

static struct unnamed *of(struct cht_io *io) { return (struct unnamed *)(void *)io; }

static enum cht_rc fail(const struct unnamed *u, const char *what, struct cht_err *err)
{
    char why[100];
    int e = errno;
    cht_os_code_text(-e, why, sizeof why);
    enum cht_rc rc = e == ENOSPC || e == EDQUOT   ? CHT_DISK_FULL
                     : e == ENOMEM                ? CHT_NO_MEMORY
                     : e == EMFILE || e == ENFILE ? CHT_NO_DESCRIPTORS
                     : e == EROFS                 ? CHT_READ_ONLY_DISK
                     : e == ENOENT                ? CHT_NO_FILE
                                                  : CHT_IO;
    return CHT_FAIL(err, rc, "%.120s: %s a file without a name: %s", u->dir != NULL ? u->dir : "memory", what,
                    why);
}

/* ---- the list, with mu ------------------------------------------------------------------------------------------------ */

static size_t find(const struct unnamed *u, const char *path)
{
    size_t i = 0;
    while (i < u->n && strcmp(u->v[i].path, path) != 0)
        i++;
    return i;
}

/* Lies it below the folder, and at which of its bytes does its name there begin? NULL: no. */
static const char *below(const struct entry *e, const char *folder)
{
    size_t len = strlen(folder);
    return strncmp(e->path, folder, len) == 0 && e->path[len] == '/' ? e->path + len + 1 : NULL;
}

static void drop(struct unnamed *u, size_t i)
{
    if (u->v[i].fd >= 0)
        (void)close(u->v[i].fd);
    u->v[i] = u->v[--u->n];
}

static enum cht_rc add(struct unnamed *u, const char *path, int fd, struct cht_err *err)
{
    if (strlen(path) >= NAME_MAX_HERE)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%.100s...: the path is too long", path);
    if (u->n == FILES_MAX)
        return CHT_FAIL(err, CHT_NO_DESCRIPTORS, "%s: there are %u files without names already", path,
                        FILES_MAX);
    if (u->n == u->cap) {
        size_t cap = u->cap == 0 ? 16 : 2 * u->cap;
        struct entry *v = cht_realloc(u->v, cap * sizeof *v);
        if (v == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory", path);
        u->v = v;
        u->cap = cap;
    }
    (void)snprintf(u->v[u->n].path, NAME_MAX_HERE, "%s", path); /* fits */
    u->v[u->n++].fd = fd;
    return CHT_OK;
}

/* Where the file system makes no file without a name, it loses its name at once. */
static int make_named(const struct unnamed *u)
{
    char path[CHT_PATH_MAX];
    if (snprintf(path, sizeof path, "%s/.cheetah-XXXXXX", u->dir) >= (int)sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0 && unlink(path) != 0) {
        int e = errno;
        (void)close(fd);
        errno = e;
        return -1;
    }
    return fd;
}

static int make(const struct unnamed *u)
{
    if (u->dir == NULL)
        return memfd_create("cheetah", MFD_CLOEXEC);
    int fd = open(u->dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    return fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL) ? make_named(u) : fd;
}

static uint64_t occupied(const struct unnamed *u)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < u->n; i++) {
        struct stat st;
        if (u->v[i].fd >= 0 && fstat(u->v[i].fd, &st) == 0)
            sum += (uint64_t)st.st_blocks * 512;
    }
    return sum;
}

/* Before n bytes are written, of which nobody knows what they take. */
static enum cht_rc look_for_room(struct unnamed *u, uint64_t n, struct cht_err *err)
{
    if (u->room == NULL || atomic_load(&u->room->taken) + n <= u->room->most)
        return CHT_OK;
    return CHT_FAIL(err, CHT_DISK_FULL, "%.120s: more than the %llu bytes that may be kept there for a while",
                    u->dir != NULL ? u->dir : "memory", (unsigned long long)u->room->most);
}

static void count_room(struct unnamed *u)
{
    if (u->room == NULL)
        return;
    cht_mutex_lock(&u->mu);
    uint64_t now = occupied(u);
    atomic_fetch_add(&u->room->taken, now - u->taken); /* modulo 2^64 */
    u->taken = now;
    cht_mutex_unlock(&u->mu);
}

/* ---- the table -------------------------------------------------------------------------------------------------------- */

static enum cht_rc open_unnamed(struct cht_io *io, const char *path, unsigned flags, struct cht_file **out,
                                struct cht_err *err)
{
    struct unnamed *u = of(io);
    char name[40];
    enum cht_rc rc = CHT_OK;
    int fd = -1;
    cht_mutex_lock(&u->mu);
    size_t i = find(u, path);
    if (i < u->n && (flags & CHT_OPEN_EXCL) != 0)
        rc = CHT_FAIL(err, CHT_IO, "%s: is there already", path);
    else if (i == u->n && (flags & CHT_OPEN_CREATE) == 0)
        rc = CHT_FAIL(err, CHT_NO_FILE, "%s: there is no such file", path);
    else if (i == u->n && (fd = make(u)) < 0)
        rc = fail(u, "open", err);
    else if (i == u->n)
        rc = add(u, path, fd, err);
    if (rc == CHT_OK)
        (void)snprintf(name, sizeof name, "/proc/self/fd/%d", u->v[i].fd);
    else if (fd >= 0)
        (void)close(fd);
    cht_mutex_unlock(&u->mu);
    char *own = rc == CHT_OK ? cht_strdup(path) : NULL;
    if (rc == CHT_OK && own == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory", path);
    if (rc == CHT_OK)
        rc = cht_io_posix()->ops->open(io, name, flags & (CHT_OPEN_RDONLY | CHT_OPEN_REST), out, err);
    if (rc == CHT_OK)
        (*out)->path = own; /* it opens again by the other one */
    else
        cht_free(own);
    return rc;
}

static void close_unnamed(struct cht_file *f)
{
    cht_free((char *)f->path);
    cht_io_posix()->ops->close(f);
}

static enum cht_rc write_unnamed(struct cht_file *f, const void *buf, size_t n, uint64_t off, size_t *n_done,
                                 struct cht_err *err)
{
    struct unnamed *u = of(f->io);
    enum cht_rc rc = look_for_room(u, n, err);
    if (rc == CHT_OK)
        rc = cht_io_posix()->ops->pwrite(f, buf, n, off, n_done, err);
    count_room(u);
    return rc;
}

static enum cht_rc allocate_unnamed(struct cht_file *f, uint64_t off, uint64_t len, struct cht_err *err)
{
    struct unnamed *u = of(f->io);
    enum cht_rc rc = look_for_room(u, len, err);
    if (rc == CHT_OK)
        rc = cht_io_posix()->ops->allocate(f, off, len, err);
    count_room(u);
    return rc;
}

/* Nothing of them is wanted again after a crash. */
static enum cht_rc sync_unnamed(struct cht_file *f, struct cht_err *err)
{
    (void)f;
    (void)err;
    return CHT_OK;
}

static enum cht_rc sync_folder(struct cht_io *io, const char *path, struct cht_err *err)
{
    (void)io;
    (void)path;
    (void)err;
    return CHT_OK;
}

static enum cht_rc make_folder(struct cht_io *io, const char *path, struct cht_err *err)
{
    struct unnamed *u = of(io);
    cht_mutex_lock(&u->mu);
    size_t i = find(u, path);
    enum cht_rc rc = i == u->n ? add(u, path, -1, err) : CHT_OK;
    if (i < u->n && rc == CHT_OK && u->v[i].fd >= 0)
        rc = CHT_FAIL(err, CHT_IO, "%s: is a file", path);
    cht_mutex_unlock(&u->mu);
    return rc;
}

static enum cht_rc remove_folder(struct cht_io *io, const char *path, struct cht_err *err)
{
    struct unnamed *u = of(io);
    bool empty = true;
    cht_mutex_lock(&u->mu);
    size_t i = find(u, path);
    for (size_t k = 0; k < u->n; k++)
        empty = empty && below(&u->v[k], path) == NULL;
    bool good = i < u->n && u->v[i].fd < 0 && empty;
    if (good)
        drop(u, i);
    cht_mutex_unlock(&u->mu);
    return good ? CHT_OK : CHT_FAIL(err, CHT_IO, "%s: is no empty folder", path);
}

static enum cht_rc unlink_unnamed(struct cht_io *io, const char *path, struct cht_err *err)
{
    struct unnamed *u = of(io);
    cht_mutex_lock(&u->mu);
    size_t i = find(u, path);
    bool good = i < u->n && u->v[i].fd >= 0;
    if (good)
        drop(u, i);
    cht_mutex_unlock(&u->mu);
    return good ? CHT_OK : CHT_FAIL(err, CHT_NO_FILE, "%s: there is no such file", path);
}

/* A file, in place of the one that is there; or a folder and what is below it. */
static enum cht_rc rename_unnamed(struct cht_io *io, const char *from, const char *to, struct cht_err *err)
{
    struct unnamed *u = of(io);
    size_t len = strlen(from), longest = 0;
    cht_mutex_lock(&u->mu);
    bool there = find(u, from) < u->n;
    for (size_t i = 0; i < u->n; i++) {
        const char *rest = below(&u->v[i], from);
        longest = rest != NULL && strlen(rest) + 1 > longest ? strlen(rest) + 1 : longest;
    }
    bool fits = strlen(to) + longest < NAME_MAX_HERE;
    size_t old = find(u, to);
    if (there && fits && old < u->n && strcmp(from, to) != 0)
        drop(u, old);
    for (size_t i = 0; i < u->n && there && fits; i++) {
        char path[NAME_MAX_HERE];
        if (strcmp(u->v[i].path, from) != 0 && below(&u->v[i], from) == NULL)
            continue;
        (void)snprintf(path, sizeof path, "%s%s", to, u->v[i].path + len); /* fits */
        memcpy(u->v[i].path, path, sizeof path);
    }
    cht_mutex_unlock(&u->mu);
    if (!there)
        return CHT_FAIL(err, CHT_NO_FILE, "%s: there is no such file", from);
    return fits ? CHT_OK : CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%.100s: the path is too long", to);
}

static enum cht_rc list_unnamed(struct cht_io *io, const char *path,
                                void (*fn)(void *ctx, const char *name, enum cht_io_kind kind), void *ctx,
                                struct cht_err *err)
{
    struct unnamed *u = of(io);
    bool more = true;
    (void)err;
    for (size_t i = 0; more; i++) {
        char name[NAME_MAX_HERE] = "";
        enum cht_io_kind kind = CHT_IO_FILE;
        cht_mutex_lock(&u->mu);
        more = i < u->n;
        const char *rest = more ? below(&u->v[i], path) : NULL;
        if (rest != NULL && strchr(rest, '/') == NULL) {
            (void)snprintf(name, sizeof name, "%s", rest); /* fits */
            kind = u->v[i].fd < 0 ? CHT_IO_FOLDER : CHT_IO_FILE;
        }
        cht_mutex_unlock(&u->mu);
        if (name[0] != 0)
            fn(ctx, name, kind);
    }
    return CHT_OK;
}

static enum cht_rc stat_unnamed(struct cht_io *io, const char *path, unsigned flags, struct cht_io_stat *out,
                                struct cht_err *err)
{
    struct unnamed *u = of(io);
    struct stat st = {0};
    (void)flags;
    *out = (struct cht_io_stat){.kind = CHT_IO_NOTHING};
    cht_mutex_lock(&u->mu);
    size_t i = find(u, path);
    bool there = i < u->n, file = there && u->v[i].fd >= 0;
    bool good = !file || fstat(u->v[i].fd, &st) == 0;
    enum cht_rc rc = good ? CHT_OK : fail(u, "stat", err);
    cht_mutex_unlock(&u->mu);
    if (there && good)
        *out = (struct cht_io_stat){file ? CHT_IO_FILE : CHT_IO_FOLDER, (uint64_t)st.st_dev,
                                    (uint64_t)st.st_ino, (uint64_t)st.st_size};
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_io_unnamed_new(const char *dir, struct cht_io_room *room, struct cht_io **out,
                               struct cht_err *err)
{
    struct unnamed *u = cht_calloc(1, sizeof *u);
    char *copy = dir != NULL ? cht_strdup(dir) : NULL;
    if (u == NULL || (dir != NULL && copy == NULL)) {
        cht_free(u);
        cht_free(copy);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for files without names");
    }
    enum cht_rc rc = cht_mutex_init(&u->mu, err);
    if (rc != CHT_OK) {
        cht_free(u);
        cht_free(copy);
        return rc;
    }
    u->dir = copy;
    u->room = room;
    u->ops = *cht_io_posix()->ops;
    u->ops.open = open_unnamed;
    u->ops.close = close_unnamed;
    u->ops.pwrite = write_unnamed;
    u->ops.allocate = allocate_unnamed;
    u->ops.sync = sync_unnamed;
    u->ops.sync_dir = sync_folder;
    u->ops.mkdir = make_folder;
    u->ops.rmdir = remove_folder;
    u->ops.unlink = unlink_unnamed;
    u->ops.rename = rename_unnamed;
    u->ops.list = list_unnamed;
    u->ops.stat = stat_unnamed;
    u->io.ops = &u->ops;
    *out = &u->io;
    return CHT_OK;
}

void cht_io_unnamed_free(struct cht_io *io)
{
    if (io == NULL)
        return;
    struct unnamed *u = of(io);
    while (u->n > 0)
        drop(u, u->n - 1);
    if (u->room != NULL)
        atomic_fetch_sub(&u->room->taken, u->taken);
    cht_mutex_fini(&u->mu);
    cht_free(u->v);
    cht_free(u->dir);
    cht_free(u);
}
