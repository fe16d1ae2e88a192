/* io_posix: the table of functions on the real file system (Linux). The one place where an errno of
 * a file call becomes a code of ours. */
#include "os/io.h"

#include "base/alloc.h"
#include "os/fdcache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

struct posix_file {
    struct cht_file base; /* first */
    int fd;               /* -1: it rests */
    struct cht_fd rest;   /* with CHT_OPEN_REST */
    bool rests;           /* set at open */
    char *path;           /* owned */
};

static enum cht_rc fail_at(struct cht_err *err, const char *what, const char *path, int line)
{
    int e = errno;
    enum cht_rc rc = CHT_IO;
    if (e == ENOSPC || e == EDQUOT)
        rc = CHT_DISK_FULL;
    else if (e == ENOENT)
        rc = CHT_NO_FILE;
    else if (e == ENOMEM)
        rc = CHT_NO_MEMORY;
    else if (e == EMFILE || e == ENFILE)
        rc = CHT_NO_DESCRIPTORS;
    else if (e == EROFS)
        rc = CHT_READ_ONLY_DISK;
    else if (e == EWOULDBLOCK)
        rc = CHT_LOCKED;
    char text[80]; /* strerror is not for several threads */
    const char *why = rc == CHT_LOCKED ? "in use by another process" : strerror_r(e, text, sizeof text);
    return cht_err_set(err, rc, e, __FILE__, line, "%s: %s: %s", path, what, why);
}
#define FAIL(err, what, path) fail_at((err), (what), (path), __LINE__)

/* The descriptor for one call; the caller gives it back. */
static enum cht_rc take(struct cht_file *f, int *fd, struct cht_err *err)
{
    struct posix_file *pf = (struct posix_file *)f;
    *fd = pf->rests ? cht_fd_take(&pf->rest, pf->path) : pf->fd;
    if (*fd < 0 && errno == ESTALE)
        return CHT_FAIL(err, CHT_IO, "%.100s: is another file than was opened: was its folder moved?",
                        f->path);
    return *fd >= 0 ? CHT_OK : FAIL(err, "open again", f->path);
}

static void give(struct cht_file *f)
{
    struct posix_file *pf = (struct posix_file *)f;
    if (pf->rests)
        cht_fd_give(&pf->rest);
}

/* The end of a call that has said 0 or -1. */
static enum cht_rc end_call(struct cht_file *f, int rc, const char *what, struct cht_err *err)
{
    enum cht_rc code = rc == 0 ? CHT_OK : FAIL(err, what, f->path);
    give(f);
    return code;
}

static void px_close(struct cht_file *f)
{
    struct posix_file *pf = (struct posix_file *)f;
    if (pf->rests)
        cht_fd_fini(&pf->rest);
    if (pf->fd >= 0)
        (void)close(pf->fd); /* what mattered was synced before, and there its failure was told */
    cht_free(pf->path);
    cht_free(pf);
}

/* An unanswered question counts as yes: then holes are not made, and nothing but space is lost. */
static bool holes_take(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) != 0 || fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC;
}

/* A lock. Whoever had it may have given the file another name before he released it: then it is a lock of that one, and not of the path. */
static enum cht_rc lock(int fd, const char *path, const struct stat *st, struct cht_err *err)
{
    struct stat now;
    if (flock(fd, LOCK_EX | LOCK_NB) != 0)
        return FAIL(err, "lock", path);
    if (stat(path, &now) == 0 && now.st_dev == st->st_dev && now.st_ino == st->st_ino)
        return CHT_OK;
    return CHT_FAIL(err, CHT_LOCKED, "%.150s: lock: another process has just put another file there", path);
}

static enum cht_rc px_open(struct cht_io *io, const char *path, unsigned flags, struct cht_file **out,
                           struct cht_err *err)
{
    struct posix_file *f = cht_calloc(1, sizeof *f);
    if (f == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory", path);
    f->fd = -1;
    f->base.io = io;
    f->path = cht_strdup(path);
    f->base.path = f->path;
    if (f->path == NULL) {
        cht_free(f);
        return CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory", path);
    }
    /* Reading a pipe that somebody has put there would wait for its writer. */
    int oflags = O_CLOEXEC | ((flags & CHT_OPEN_RDONLY) ? O_RDONLY | O_NONBLOCK : O_RDWR);
    oflags |= (flags & CHT_OPEN_CREATE) ? O_CREAT : 0;
    oflags |= (flags & CHT_OPEN_EXCL) ? O_EXCL : 0;
    oflags |= (flags & CHT_OPEN_NOLINK) ? O_NOFOLLOW : 0;
    do
        f->fd = open(path, oflags, 0640);
    while (f->fd < 0 && errno == EINTR);
    enum cht_rc rc = CHT_OK;
    struct stat st = {0};
    if (f->fd < 0 || fstat(f->fd, &st) != 0)
        rc = FAIL(err, "open", path);
    else if (!S_ISREG(st.st_mode))
        rc = CHT_FAIL(err, CHT_IO, "%s: not a regular file", path);
    else if ((flags & CHT_OPEN_LOCK) != 0)
        rc = lock(f->fd, path, &st, err);
    if (rc != CHT_OK) {
        px_close(&f->base);
        return rc;
    }
    f->base.holes_take = holes_take(f->fd);
    if (flags & CHT_OPEN_REST) {
        f->rests = true;
        cht_fd_init(&f->rest, f->fd, oflags & ~(O_CREAT | O_EXCL), st.st_dev, st.st_ino);
        f->fd = -1;
    }
    *out = &f->base;
    return CHT_OK;
}

static enum cht_rc px_pread(struct cht_file *f, void *buf, size_t n, uint64_t off, size_t *n_done,
                            struct cht_err *err)
{
    ssize_t got;
    int fd;
    enum cht_rc rc = take(f, &fd, err);
    if (rc != CHT_OK)
        return rc;
    do
        got = pread(fd, buf, n, (off_t)off);
    while (got < 0 && errno == EINTR);
    if (got >= 0)
        *n_done = (size_t)got;
    char what[48] = "read";
    int why = errno;
    if (got < 0)
        (void)snprintf(what, sizeof what, "read at offset %llu", (unsigned long long)off);
    errno = why;
    return end_call(f, got < 0 ? -1 : 0, what, err);
}

static enum cht_rc px_pwrite(struct cht_file *f, const void *buf, size_t n, uint64_t off, size_t *n_done,
                             struct cht_err *err)
{
    ssize_t put;
    int fd;
    enum cht_rc rc = take(f, &fd, err);
    if (rc != CHT_OK)
        return rc;
    do
        put = pwrite(fd, buf, n, (off_t)off);
    while (put < 0 && errno == EINTR);
    if (put >= 0)
        *n_done = (size_t)put;
    return end_call(f, put < 0 ? -1 : 0, "write", err);
}

/* Whatever the reason: what was written before may be lost, so this is never a passing condition. */
static enum cht_rc sync_failed(struct cht_err *err)
{
    if (err != NULL)
        err->code = CHT_IO;
    return CHT_IO;
}

static enum cht_rc px_sync(struct cht_file *f, struct cht_err *err)
{
    int fd;
    enum cht_rc rc = take(f, &fd, err);
    if (rc != CHT_OK) /* no descriptor: what was written is as it was */
        return rc;
    return end_call(f, fdatasync(fd), "fdatasync", err) == CHT_OK ? CHT_OK : sync_failed(err);
}

static enum cht_rc file_stat(struct cht_file *f, struct stat *st, struct cht_err *err)
{
    int fd;
    enum cht_rc rc = take(f, &fd, err);
    return rc == CHT_OK ? end_call(f, fstat(fd, st), "stat", err) : rc;
}

static enum cht_rc px_size(struct cht_file *f, uint64_t *size, struct cht_err *err)
{
    struct stat st = {0};
    enum cht_rc rc = file_stat(f, &st, err);
    if (rc == CHT_OK)
        *size = (uint64_t)st.st_size;
    return rc;
}

static enum cht_rc px_usage(struct cht_file *f, uint64_t *bytes, struct cht_err *err)
{
    struct stat st = {0};
    enum cht_rc rc = file_stat(f, &st, err);
    if (rc == CHT_OK)
        *bytes = (uint64_t)st.st_blocks * 512;
    return rc;
}

static enum cht_rc px_truncate(struct cht_file *f, uint64_t size, struct cht_err *err)
{
    int rc, fd;
    enum cht_rc known = take(f, &fd, err);
    if (known != CHT_OK)
        return known;
    do
        rc = ftruncate(fd, (off_t)size);
    while (rc != 0 && errno == EINTR);
    return end_call(f, rc, "truncate", err);
}

static enum cht_rc px_allocate(struct cht_file *f, uint64_t off, uint64_t len, struct cht_err *err)
{
    int rc, fd;
    enum cht_rc known = take(f, &fd, err);
    if (known != CHT_OK)
        return known;
    do
        rc = fallocate(fd, 0, (off_t)off, (off_t)len);
    while (rc != 0 && errno == EINTR);
    if (rc != 0 && errno == EOPNOTSUPP) { /* by writing, if the file system has no call for it */
        errno = posix_fallocate(fd, (off_t)off, (off_t)len);
        rc = errno == 0 ? 0 : -1;
    }
    return end_call(f, rc, "allocate", err);
}

static enum cht_rc write_zeros(struct cht_file *f, uint64_t off, uint64_t len, struct cht_err *err)
{
    static const uint8_t zeros[1 << 16];
    while (len > 0) {
        size_t n = len < sizeof zeros ? (size_t)len : sizeof zeros;
        enum cht_rc rc = cht_file_write(f, zeros, n, off, err);
        if (rc != CHT_OK)
            return rc;
        off += n;
        len -= n;
    }
    return CHT_OK;
}

static enum cht_rc px_punch(struct cht_file *f, uint64_t off, uint64_t len, struct cht_err *err)
{
    int rc, fd;
    enum cht_rc known = take(f, &fd, err);
    if (known != CHT_OK)
        return known;
    do
        rc = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
    while (rc != 0 && errno == EINTR);
    if (rc == 0 || errno != EOPNOTSUPP)
        return end_call(f, rc, "punch", err);
    give(f);
    uint64_t size = 0;
    known = px_size(f, &size, err);
    if (known != CHT_OK)
        return known;
    len = off >= size ? 0 : len < size - off ? len : size - off; /* the file must not grow */
    return write_zeros(f, off, len, err);
}

static enum cht_rc px_map(struct cht_file *f, size_t len, uint8_t **out, struct cht_err *err)
{
    int fd;
    enum cht_rc rc = take(f, &fd, err);
    if (rc != CHT_OK)
        return rc;
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    if (p != MAP_FAILED)
        *out = p;
    return end_call(f, p == MAP_FAILED ? -1 : 0, "map", err);
}

/* The thread sanitizer does not see mremap: what it knows of the threads that used an address before would be held against those
 * that use the mapping that comes to lie there. It sees mmap, and forgets; so the new place is mapped first, and moved to. */
static void *move(uint8_t *old, size_t old_len, size_t len)
{
#ifdef __SANITIZE_THREAD__
    void *to = mmap(NULL, len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    void *p = to == MAP_FAILED ? to : mremap(old, old_len, len, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    if (to != MAP_FAILED && p == MAP_FAILED)
        (void)munmap(to, len);
    return p;
#else
    return mremap(old, old_len, len, MREMAP_MAYMOVE);
#endif
}

static enum cht_rc px_remap(struct cht_file *f, uint8_t *old, size_t old_len, size_t len, uint8_t **out,
                            struct cht_err *err)
{
    void *p = move(old, old_len, len);
    if (p == MAP_FAILED)
        return FAIL(err, "remap", f->path);
    *out = p;
    return CHT_OK;
}

static void px_unmap(struct cht_file *f, uint8_t *p, size_t len)
{
    (void)f;
    (void)munmap(p, len); /* cannot fail for a whole mapping of ours */
}

static enum cht_rc px_discard(struct cht_file *f, uint8_t *p, size_t len, struct cht_err *err)
{
    return madvise(p, len, MADV_DONTNEED) == 0 ? CHT_OK : FAIL(err, "discard", f->path);
}

static void px_advise(struct cht_file *f, uint8_t *p, size_t len, enum cht_io_advice advice)
{
    static const int how[] = {[CHT_ADVICE_AROUND] = MADV_NORMAL,
                              [CHT_ADVICE_ALONE] = MADV_RANDOM,
                              [CHT_ADVICE_SOON] = MADV_WILLNEED};
    (void)f;
    (void)madvise(p, len, how[advice]); /* advice: without it all is as before, but slower */
}

static enum cht_rc px_refresh(struct cht_file *f, uint8_t *p, uint64_t off, size_t len, struct cht_err *err)
{
    int fd;
    enum cht_rc rc = take(f, &fd, err);
    if (rc != CHT_OK)
        return rc;
    void *q = mmap(p, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd, (off_t)off);
    return end_call(f, q == MAP_FAILED ? -1 : 0, "map", err);
}

static enum cht_rc px_rename(struct cht_io *io, const char *from, const char *to, struct cht_err *err)
{
    (void)io;
    return rename(from, to) == 0 ? CHT_OK : FAIL(err, "rename", from);
}

static enum cht_rc px_unlink(struct cht_io *io, const char *path, struct cht_err *err)
{
    (void)io;
    return unlink(path) == 0 ? CHT_OK : FAIL(err, "unlink", path);
}

static enum cht_rc px_mkdir(struct cht_io *io, const char *path, struct cht_err *err)
{
    (void)io;
    struct stat st;
    if (mkdir(path, 0750) == 0 || (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode)))
        return CHT_OK;
    return FAIL(err, "mkdir", path);
}

static enum cht_rc px_rmdir(struct cht_io *io, const char *path, struct cht_err *err)
{
    (void)io;
    return rmdir(path) == 0 ? CHT_OK : FAIL(err, "rmdir", path);
}

static enum cht_rc px_sync_dir(struct cht_io *io, const char *path, struct cht_err *err)
{
    (void)io;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return FAIL(err, "open", path);
    enum cht_rc rc = fsync(fd) == 0 ? CHT_OK : FAIL(err, "fsync", path);
    if (rc != CHT_OK)
        rc = sync_failed(err);
    (void)close(fd); /* opened for reading */
    return rc;
}

static enum cht_io_kind kind_of(mode_t mode)
{
    return S_ISREG(mode)   ? CHT_IO_FILE
           : S_ISDIR(mode) ? CHT_IO_FOLDER
           : S_ISLNK(mode) ? CHT_IO_LINK
                           : CHT_IO_OTHER;
}

/* ENOTDIR: what should be the folder of it is a file, so nothing can be there. */
static enum cht_rc px_stat(struct cht_io *io, const char *path, unsigned flags, struct cht_io_stat *out,
                           struct cht_err *err)
{
    (void)io;
    struct stat st;
    memset(out, 0, sizeof *out); /* CHT_IO_NOTHING */
    int rc = (flags & CHT_STAT_FOLLOW) != 0 ? stat(path, &st) : lstat(path, &st);
    if (rc != 0 && errno == ENOENT && (flags & CHT_STAT_FOLLOW) != 0)
        rc = lstat(path, &st); /* a link that leads to nothing is something */
    if (rc != 0)
        return errno == ENOENT || errno == ENOTDIR ? CHT_OK : FAIL(err, "stat", path);
    *out = (struct cht_io_stat){kind_of(st.st_mode), (uint64_t)st.st_dev, (uint64_t)st.st_ino,
                                (uint64_t)st.st_size};
    return CHT_OK;
}

/* The kind of an entry whose file system does not say it; CHT_IO_NOTHING: it went meanwhile. */
static enum cht_rc ask_kind(DIR *d, const char *path, const char *name, enum cht_io_kind *kind,
                            struct cht_err *err)
{
    struct stat st;
    *kind = CHT_IO_NOTHING;
    if (fstatat(dirfd(d), name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return errno == ENOENT ? CHT_OK : FAIL(err, "stat an entry of", path);
    *kind = kind_of(st.st_mode);
    return CHT_OK;
}

static enum cht_rc px_list(struct cht_io *io, const char *path,
                           void (*fn)(void *ctx, const char *name, enum cht_io_kind kind), void *ctx,
                           struct cht_err *err)
{
    (void)io;
    DIR *d = opendir(path);
    if (d == NULL)
        return FAIL(err, "open", path);
    struct dirent *e;
    enum cht_rc rc = CHT_OK;
    errno = 0;
    while ((e = readdir(d)) != NULL) { /* NOLINT(concurrency-mt-unsafe): nobody else has d */
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        enum cht_io_kind kind = e->d_type == DT_DIR   ? CHT_IO_FOLDER
                                : e->d_type == DT_REG ? CHT_IO_FILE
                                : e->d_type == DT_LNK ? CHT_IO_LINK
                                                      : CHT_IO_OTHER;
        if (e->d_type == DT_UNKNOWN)
            rc = ask_kind(d, path, e->d_name, &kind, err);
        if (rc != CHT_OK)
            break;
        if (kind != CHT_IO_NOTHING)
            fn(ctx, e->d_name, kind);
        errno = 0;
    }
    if (rc == CHT_OK && errno != 0)
        rc = FAIL(err, "read", path);
    (void)closedir(d); /* opened for reading */
    return rc;
}

struct cht_io *cht_io_posix(void)
{
    static const struct cht_io_ops ops = {
        .open = px_open,
        .close = px_close,
        .pread = px_pread,
        .pwrite = px_pwrite,
        .sync = px_sync,
        .size = px_size,
        .truncate = px_truncate,
        .allocate = px_allocate,
        .punch = px_punch,
        .map = px_map,
        .remap = px_remap,
        .unmap = px_unmap,
        .discard = px_discard,
        .refresh = px_refresh,
        .advise = px_advise,
        .rename = px_rename,
        .unlink = px_unlink,
        .mkdir = px_mkdir,
        .rmdir = px_rmdir,
        .sync_dir = px_sync_dir,
        .list = px_list,
        .stat = px_stat,
        .usage = px_usage,
    };
    static struct cht_io io = {&ops};
    return &io;
}
