/* simdisk: the table of functions and the faults; see simdisk.h. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/simdisk_int.h"

#define DISK_MAX (UINT64_C(1) << 34) /* a longer file does not fit */

struct sim_file {
    struct cht_file base; /* first */
    struct simdisk *d;
    unsigned inode;
    int fd; /* the inode's; the table of them may move */
    char *path;
    bool lock;
};

static struct simdisk *disk(struct cht_io *io) { return (struct simdisk *)io; }

static struct sim_file *sim(struct cht_file *f) { return (struct sim_file *)f; }

/* ---- recording and faults ------------------------------------------------------------------------------------ */

/* mu held. */
static void record(struct simdisk *d, struct event e)
{
    if (d->forgets) {
        free(e.data);
        free(e.path);
        free(e.to);
        return;
    }
    if (d->nevents == d->cap)
        d->events = sim_grow(d->events, (d->cap = d->cap * 2 + 256) * sizeof *d->events);
    d->events[d->nevents++] = e;
}

/* As io_posix has it. */
static enum cht_rc code_of(int sys)
{
    switch (sys) {
    case ENOSPC:
    case EDQUOT:
        return CHT_DISK_FULL;
    case EMFILE:
    case ENFILE:
        return CHT_NO_DESCRIPTORS;
    case EROFS:
        return CHT_READ_ONLY_DISK;
    case ENOENT:
        return CHT_NO_FILE;
    case ENOMEM:
        return CHT_NO_MEMORY;
    default:
        return CHT_IO;
    }
}

static enum cht_rc fail_with(struct cht_err *err, enum sim_call call, const char *path, int sys)
{
    enum cht_rc rc = code_of(sys);
    return cht_err_set(err, rc, sys, __FILE__, __LINE__, "%s: %s: %s", path, sim_call_name(call),
                       strerror(sys));
}

/* Of simdisk_fail_at: what this call does instead of working. */
static enum sim_fault counted(struct simdisk *d)
{
    if (d->countdown == 0 || --d->countdown > 0)
        return SIM_NONE;
    if (d->forever)
        d->countdown = 1;
    d->injected++;
    return d->kind;
}

static int planned(struct simdisk *d, enum sim_call call, const char *path, bool missing)
{
    const struct sim_plan *p = &d->plan;
    if ((p->calls != 0 && (p->calls & 1u << call) == 0) ||
        (p->path != NULL && strstr(path, p->path) == NULL) ||
        (p->unwritten != NULL && call == SIM_PWRITE && strstr(path, p->unwritten) != NULL) ||
        (p->missing && call == SIM_PWRITE && !missing))
        return 0;
    d->seen++;
    if (p->sys == 0 || d->seen < p->first || d->seen - p->first >= p->times)
        return 0;
    d->injected++;
    if (d->nvictims == d->victims_cap)
        d->victims = sim_grow(d->victims, (d->victims_cap = d->victims_cap * 2 + 4) * sizeof *d->victims);
    d->victims[d->nvictims++] = (struct sim_victim){call, strdup(path)};
    return p->sys;
}

/* The errno that the call fails with, 0: it works; *shorter: it takes fewer bytes. missing: it needs new space. mu held. */
static int fault(struct simdisk *d, enum sim_call call, const char *path, bool missing, bool *shorter)
{
    static const unsigned never = 1u << SIM_SIZE | 1u << SIM_MAP | 1u << SIM_REMAP | 1u << SIM_DISCARD |
                                  1u << SIM_LIST | 1u << SIM_USAGE;
    *shorter = false;
    if (d->planned)
        return planned(d, call, path, missing);
    if ((never & 1u << call) != 0)
        return 0;
    enum sim_fault f = counted(d);
    *shorter = f == SIM_SHORT;
    if (f == SIM_FULL && call == SIM_PREAD)
        return 0;
    return f == SIM_FULL ? ENOSPC : f == SIM_EIO ? EIO : 0;
}

/* A call that takes no bytes: a short transfer is no fault for it. */
static enum cht_rc plain_fault(struct simdisk *d, enum sim_call call, const char *path, struct cht_err *err)
{
    bool shorter;
    int sys = fault(d, call, path, true, &shorter);
    return sys == 0 ? CHT_OK : fail_with(err, call, path, sys);
}

/* The same for a call on a file, which needs nothing else of the disk. */
static enum cht_rc file_fault(struct cht_file *f, enum sim_call call, struct cht_err *err)
{
    struct simdisk *d = sim(f)->d;
    pthread_mutex_lock(&d->mu);
    enum cht_rc rc = plain_fault(d, call, sim(f)->path, err);
    pthread_mutex_unlock(&d->mu);
    return rc;
}

/* ---- files --------------------------------------------------------------------------------------------------- */

/* What opening the resolved path meets: 0 or an errno. */
static int may_open(struct simdisk *d, const char *path, unsigned flags)
{
    const struct entry *e = names_find(&d->names, path);
    if (e == NULL)
        return (flags & CHT_OPEN_CREATE) != 0 ? names_writable(&d->names, path) : ENOENT;
    if ((flags & CHT_OPEN_EXCL) != 0)
        return EEXIST;
    if (e->inode < 0)
        return e->inode == -1 ? EISDIR : ENOENT;
    unsigned want = (flags & CHT_OPEN_RDONLY) != 0 ? 0400 : 0600;
    return (e->mode & want) == want ? 0 : EACCES;
}

int sim_new_inode(struct simdisk *d)
{
    int inode = (int)d->inodes++;
    d->fds = sim_grow(d->fds, d->inodes * sizeof *d->fds);
    d->locked = sim_grow(d->locked, d->inodes * sizeof *d->locked);
    d->fds[inode] = memfd_create("sim", 0);
    assert(d->fds[inode] >= 0);
    d->locked[inode] = false;
    return inode;
}

static struct cht_file *opened(struct simdisk *d, const char *path, unsigned flags, int inode)
{
    struct sim_file *f = calloc(1, sizeof *f);
    assert(f != NULL);
    f->path = strdup(path);
    f->base = (struct cht_file){&d->io, f->path, false};
    f->d = d;
    f->inode = (unsigned)inode;
    f->fd = d->fds[inode];
    f->lock = (flags & CHT_OPEN_LOCK) != 0;
    if (f->lock)
        d->locked[inode] = true;
    return &f->base;
}

static enum cht_rc sm_open(struct cht_io *io, const char *path, unsigned flags, struct cht_file **out,
                           struct cht_err *err)
{
    struct simdisk *d = disk(io);
    char at[CHT_PATH_MAX];
    pthread_mutex_lock(&d->mu);
    int sys = names_resolve(&d->names, path, (flags & (CHT_OPEN_EXCL | CHT_OPEN_NOLINK)) == 0, at, sizeof at);
    sys = sys == 0 ? may_open(d, at, flags) : sys;
    enum cht_rc rc = sys == 0 ? CHT_OK : fail_with(err, SIM_OPEN, path, sys);
    const struct entry *e = rc == CHT_OK ? names_find(&d->names, at) : NULL;
    if (rc == CHT_OK && (e == NULL || d->planned)) /* simdisk_fail_at counts those that make something */
        rc = plain_fault(d, SIM_OPEN, path, err);
    if (rc == CHT_OK && e != NULL && (flags & CHT_OPEN_LOCK) != 0 && d->locked[e->inode])
        rc = CHT_FAIL(err, CHT_LOCKED, "%s: locked", path);
    if (rc == CHT_OK) {
        int inode = e == NULL ? sim_new_inode(d) : e->inode;
        if (e == NULL) {
            names_add(&d->names, at, inode);
            record(d, (struct event){.kind = EV_CREATE, .inode = (unsigned)inode, .path = strdup(at)});
        }
        *out = opened(d, path, flags, inode);
    }
    pthread_mutex_unlock(&d->mu);
    return rc;
}

static void sm_close(struct cht_file *file)
{
    struct sim_file *f = sim(file);
    pthread_mutex_lock(&f->d->mu);
    if (f->lock)
        f->d->locked[f->inode] = false;
    pthread_mutex_unlock(&f->d->mu);
    free(f->path);
    free(f);
}

static enum cht_rc sm_pread(struct cht_file *file, void *buf, size_t n, uint64_t off, size_t *n_done,
                            struct cht_err *err)
{
    struct sim_file *f = sim(file);
    bool shorter;
    pthread_mutex_lock(&f->d->mu);
    int sys = fault(f->d, SIM_PREAD, f->path, true, &shorter);
    pthread_mutex_unlock(&f->d->mu);
    if (sys != 0)
        return fail_with(err, SIM_PREAD, f->path, sys);
    ssize_t got = pread(f->fd, buf, shorter && n > 1 ? n / 2 : n, (off_t)off);
    assert(got >= 0);
    *n_done = (size_t)got;
    return CHT_OK;
}

static enum cht_rc sm_pwrite(struct cht_file *file, const void *buf, size_t n, uint64_t off, size_t *n_done,
                             struct cht_err *err)
{
    struct sim_file *f = sim(file);
    struct simdisk *d = f->d;
    bool shorter;
    pthread_mutex_lock(&d->mu);
    int sys = fault(d, SIM_PWRITE, f->path, sim_missing(f->fd, off, n) > 0, &shorter);
    if (shorter && n > 1)
        n = (n + 1) / 2;
    if (sys == 0)
        sys = sim_room(d, f->fd, off, n);
    enum cht_rc rc = sys != 0 ? fail_with(err, SIM_PWRITE, f->path, sys) : CHT_OK;
    if (rc == CHT_OK) {
        ssize_t put = pwrite(f->fd, buf, n, (off_t)off);
        assert(put == (ssize_t)n);
        uint8_t *copy = malloc(d->forgets ? 1 : n);
        assert(copy != NULL);
        memcpy(copy, buf, d->forgets ? 0 : n);
        record(d, (struct event){.kind = EV_WRITE, .inode = f->inode, .off = off, .len = n, .data = copy});
        *n_done = n;
    }
    pthread_mutex_unlock(&d->mu);
    return rc;
}

/* Whatever the errno: data may be lost. A folder that could not be opened was not synced, and nothing is lost. */
static enum cht_rc sync_code(enum cht_rc rc, struct cht_err *err)
{
    if (rc == CHT_NO_DESCRIPTORS || rc == CHT_NO_MEMORY)
        return rc;
    if (rc != CHT_OK && err != NULL)
        err->code = CHT_IO;
    return rc == CHT_OK ? CHT_OK : CHT_IO;
}

static enum cht_rc sm_sync(struct cht_file *file, struct cht_err *err)
{
    struct sim_file *f = sim(file);
    pthread_mutex_lock(&f->d->mu);
    enum cht_rc rc = sync_code(plain_fault(f->d, SIM_SYNC, f->path, err), err);
    if (rc == CHT_OK)
        record(f->d, (struct event){.kind = EV_SYNC, .inode = f->inode});
    pthread_mutex_unlock(&f->d->mu);
    return rc;
}

static enum cht_rc sm_size(struct cht_file *file, uint64_t *size, struct cht_err *err)
{
    struct stat st;
    enum cht_rc rc = file_fault(file, SIM_SIZE, err);
    if (rc != CHT_OK)
        return rc;
    assert(fstat(sim(file)->fd, &st) == 0);
    *size = (uint64_t)st.st_size;
    return CHT_OK;
}

static enum cht_rc sm_usage(struct cht_file *file, uint64_t *bytes, struct cht_err *err)
{
    struct stat st;
    enum cht_rc rc = file_fault(file, SIM_USAGE, err);
    if (rc != CHT_OK)
        return rc;
    assert(fstat(sim(file)->fd, &st) == 0);
    *bytes = (uint64_t)st.st_size;
    return CHT_OK;
}

static enum cht_rc change(struct cht_file *file, enum event_kind kind, uint64_t off, uint64_t len,
                          struct cht_err *err)
{
    struct sim_file *f = sim(file);
    struct simdisk *d = f->d;
    enum sim_call call = kind == EV_TRUNCATE ? SIM_TRUNCATE : kind == EV_ALLOCATE ? SIM_ALLOCATE : SIM_PUNCH;
    int fd = f->fd;
    pthread_mutex_lock(&d->mu);
    enum cht_rc rc = plain_fault(d, call, f->path, err);
    int sys = rc == CHT_OK && kind == EV_ALLOCATE ? sim_room(d, fd, off, len) : 0;
    if (rc == CHT_OK && kind != EV_PUNCH && (len > DISK_MAX || off > DISK_MAX - len))
        sys = ENOSPC;
    if (sys != 0)
        rc = fail_with(err, call, f->path, sys);
    if (rc == CHT_OK) {
        int bad = kind == EV_TRUNCATE ? ftruncate(fd, (off_t)len)
                  : kind == EV_ALLOCATE
                      ? fallocate(fd, 0, (off_t)off, (off_t)len)
                      : fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
        assert(bad == 0);
        record(d, (struct event){.kind = kind, .inode = f->inode, .off = off, .len = len});
    }
    pthread_mutex_unlock(&d->mu);
    return rc;
}

static enum cht_rc sm_truncate(struct cht_file *f, uint64_t size, struct cht_err *err)
{
    return change(f, EV_TRUNCATE, 0, size, err);
}

static enum cht_rc sm_allocate(struct cht_file *f, uint64_t off, uint64_t len, struct cht_err *err)
{
    return change(f, EV_ALLOCATE, off, len, err);
}

static enum cht_rc sm_punch(struct cht_file *f, uint64_t off, uint64_t len, struct cht_err *err)
{
    return change(f, EV_PUNCH, off, len, err);
}

static enum cht_rc sm_map(struct cht_file *file, size_t len, uint8_t **out, struct cht_err *err)
{
    enum cht_rc rc = file_fault(file, SIM_MAP, err);
    if (rc != CHT_OK)
        return rc;
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, sim(file)->fd, 0);
    assert(p != MAP_FAILED);
    *out = p;
    return CHT_OK;
}

static enum cht_rc sm_remap(struct cht_file *f, uint8_t *old, size_t old_len, size_t len, uint8_t **out,
                            struct cht_err *err)
{
    enum cht_rc rc = file_fault(f, SIM_REMAP, err);
    if (rc != CHT_OK)
        return rc;
    /* It knows what the thread sanitizer does not see. */
    return cht_io_posix()->ops->remap(f, old, old_len, len, out, err);
}

static void sm_unmap(struct cht_file *f, uint8_t *p, size_t len)
{
    (void)f;
    (void)munmap(p, len);
}

static enum cht_rc sm_discard(struct cht_file *f, uint8_t *p, size_t len, struct cht_err *err)
{
    enum cht_rc rc = file_fault(f, SIM_DISCARD, err);
    if (rc != CHT_OK)
        return rc;
    assert(madvise(p, len, MADV_DONTNEED) == 0);
    return CHT_OK;
}

static enum cht_rc sm_refresh(struct cht_file *file, uint8_t *p, uint64_t off, size_t len,
                              struct cht_err *err)
{
    void *q = mmap(p, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, sim(file)->fd,
                   (off_t)off);
    return q != MAP_FAILED ? CHT_OK : CHT_FAIL(err, CHT_NO_MEMORY, "%s: map", sim(file)->path);
}

/* ---- names --------------------------------------------------------------------------------------------------- */

/* What the change meets, both paths resolved; -1: it is done already. */
static int may_change(struct simdisk *d, enum sim_call call, const char *path, const char *to)
{
    const struct entry *e = names_find(&d->names, path);
    if (call == SIM_MKDIR && e != NULL)
        return e->inode == -1 ? -1 : EEXIST;
    if (call != SIM_MKDIR && e == NULL)
        return ENOENT;
    if (call == SIM_UNLINK && e->inode == -1)
        return EISDIR;
    if (call == SIM_RMDIR && e->inode != -1)
        return ENOTDIR;
    if (call == SIM_RMDIR && !names_empty_folder(&d->names, path))
        return ENOTEMPTY;
    if (call == SIM_RENAME) {
        const struct entry *there = names_find(&d->names, to);
        if (names_fs(&d->names, path) != names_fs(&d->names, to))
            return EXDEV;
        if (there != NULL && there->inode == -1 && e->inode != -1)
            return EISDIR;
        if (there != NULL && there->inode != -1 && e->inode == -1)
            return ENOTDIR;
        if (there != NULL && there->inode == -1 && !names_empty_folder(&d->names, to))
            return ENOTEMPTY;
    }
    int sys = names_writable(&d->names, path);
    return sys != 0 || to == NULL ? sys : names_writable(&d->names, to);
}

static enum cht_rc name_change(struct cht_io *io, enum sim_call call, const char *path, const char *to,
                               struct cht_err *err)
{
    struct simdisk *d = disk(io);
    char at[CHT_PATH_MAX], at_to[CHT_PATH_MAX];
    pthread_mutex_lock(&d->mu);
    int sys = names_resolve(&d->names, path, call == SIM_MKDIR, at, sizeof at);
    if (sys == 0 && to != NULL)
        sys = names_resolve(&d->names, to, false, at_to, sizeof at_to);
    if (sys == 0)
        sys = may_change(d, call, at, to != NULL ? at_to : NULL);
    enum cht_rc rc = sys <= 0 ? CHT_OK : fail_with(err, call, path, sys);
    if (sys == 0 || (sys == -1 && d->planned))
        rc = plain_fault(d, call, path, err);
    if (rc == CHT_OK && sys == 0) {
        struct event e = {.kind = call == SIM_RENAME  ? EV_RENAME
                                  : call == SIM_MKDIR ? EV_MKDIR
                                                      : EV_UNLINK,
                          .path = strdup(at),
                          .to = to != NULL ? strdup(at_to) : NULL};
        names_apply(&d->names, &e);
        record(d, e);
    }
    pthread_mutex_unlock(&d->mu);
    return rc;
}

static enum cht_rc sm_rename(struct cht_io *io, const char *from, const char *to, struct cht_err *err)
{
    return name_change(io, SIM_RENAME, from, to, err);
}

static enum cht_rc sm_unlink(struct cht_io *io, const char *path, struct cht_err *err)
{
    return name_change(io, SIM_UNLINK, path, NULL, err);
}

static enum cht_rc sm_rmdir(struct cht_io *io, const char *path, struct cht_err *err)
{
    return name_change(io, SIM_RMDIR, path, NULL, err);
}

static enum cht_rc sm_mkdir(struct cht_io *io, const char *path, struct cht_err *err)
{
    return name_change(io, SIM_MKDIR, path, NULL, err);
}

/* A folder that may be opened for reading: 0 or an errno. */
static int folder_at(struct simdisk *d, const char *path, char *at, size_t cap)
{
    int sys = names_resolve(&d->names, path, true, at, cap);
    const struct entry *e = sys == 0 ? names_find(&d->names, at) : NULL;
    if (sys == 0 && strcmp(at, "/") == 0)
        return 0;
    if (sys != 0 || e == NULL)
        return sys != 0 ? sys : ENOENT;
    return e->inode != -1 ? ENOTDIR : (e->mode & 0400) == 0 ? EACCES : 0;
}

static enum cht_rc sm_sync_dir(struct cht_io *io, const char *path, struct cht_err *err)
{
    struct simdisk *d = disk(io);
    char at[CHT_PATH_MAX];
    pthread_mutex_lock(&d->mu);
    int sys = folder_at(d, path, at, sizeof at);
    enum cht_rc rc = sys != 0 ? fail_with(err, SIM_SYNC_DIR, path, sys)
                              : sync_code(plain_fault(d, SIM_SYNC_DIR, path, err), err);
    if (rc == CHT_OK)
        record(d, (struct event){.kind = EV_SYNC_DIR});
    pthread_mutex_unlock(&d->mu);
    return rc;
}

static enum cht_io_kind kind_of(const struct entry *e)
{
    return e->inode >= 0 ? CHT_IO_FILE : e->inode == -1 ? CHT_IO_FOLDER : CHT_IO_LINK;
}

static enum cht_rc sm_list(struct cht_io *io, const char *path,
                           void (*fn)(void *ctx, const char *name, enum cht_io_kind kind), void *ctx,
                           struct cht_err *err)
{
    struct simdisk *d = disk(io);
    char at[CHT_PATH_MAX], probe[CHT_PATH_MAX + 2];
    pthread_mutex_lock(&d->mu);
    int sys = folder_at(d, path, at, sizeof at);
    enum cht_rc rc = sys != 0 ? fail_with(err, SIM_LIST, path, sys) : plain_fault(d, SIM_LIST, path, err);
    size_t n = strlen(at);
    (void)snprintf(probe, sizeof probe, "%s/x", at);
    int fs = names_fs(&d->names, probe);
    for (size_t i = 0; rc == CHT_OK && i < d->names.n; i++) {
        const struct entry *e = &d->names.v[i];
        if (e->fs == fs && strncmp(e->path, at, n) == 0 && e->path[n] == '/' &&
            strchr(e->path + n + 1, '/') == NULL)
            fn(ctx, e->path + n + 1, kind_of(e));
    }
    pthread_mutex_unlock(&d->mu);
    return rc;
}

static enum cht_rc sm_stat(struct cht_io *io, const char *path, unsigned flags, struct cht_io_stat *out,
                           struct cht_err *err)
{
    struct simdisk *d = disk(io);
    struct stat st = {0};
    char at[CHT_PATH_MAX];
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&d->mu);
    int sys = names_resolve(&d->names, path, (flags & CHT_STAT_FOLLOW) != 0, at, sizeof at);
    const struct entry *e = sys == 0 ? names_find(&d->names, at) : NULL;
    if (sys == 0 && e == NULL && (flags & CHT_STAT_FOLLOW) != 0 &&
        names_resolve(&d->names, path, false, at, sizeof at) == 0)
        e = names_find(&d->names, at); /* a link that leads to nothing */
    enum cht_rc rc = sys == 0 || sys == ENOENT || sys == ENOTDIR ? plain_fault(d, SIM_STAT, path, err)
                                                                 : fail_with(err, SIM_STAT, path, sys);
    if (rc == CHT_OK && e != NULL) {
        int fs = e->inode == -1 && e->fs == -1 ? -1 : e->fs;
        if (e->inode >= 0)
            assert(fstat(d->fds[e->inode], &st) == 0);
        *out = (struct cht_io_stat){kind_of(e), (uint64_t)(fs + 2), e->id, (uint64_t)st.st_size};
    }
    pthread_mutex_unlock(&d->mu);
    return rc;
}

static const struct cht_io_ops ops = {
    .open = sm_open,
    .close = sm_close,
    .pread = sm_pread,
    .pwrite = sm_pwrite,
    .sync = sm_sync,
    .size = sm_size,
    .truncate = sm_truncate,
    .allocate = sm_allocate,
    .punch = sm_punch,
    .map = sm_map,
    .remap = sm_remap,
    .unmap = sm_unmap,
    .discard = sm_discard,
    .refresh = sm_refresh,
    .rename = sm_rename,
    .unlink = sm_unlink,
    .mkdir = sm_mkdir,
    .rmdir = sm_rmdir,
    .sync_dir = sm_sync_dir,
    .list = sm_list,
    .stat = sm_stat,
    .usage = sm_usage,
};

/* -------------------------------------------------------------------------------------------------------------- */

const char *sim_call_name(enum sim_call call)
{
    static const char *const names[SIM_CALLS] = {
        [SIM_OPEN] = "open",         [SIM_PREAD] = "pread",     [SIM_PWRITE] = "pwrite",
        [SIM_SYNC] = "sync",         [SIM_SIZE] = "size",       [SIM_TRUNCATE] = "truncate",
        [SIM_ALLOCATE] = "allocate", [SIM_PUNCH] = "punch",     [SIM_MAP] = "map",
        [SIM_REMAP] = "remap",       [SIM_DISCARD] = "discard", [SIM_RENAME] = "rename",
        [SIM_UNLINK] = "unlink",     [SIM_MKDIR] = "mkdir",     [SIM_RMDIR] = "rmdir",
        [SIM_SYNC_DIR] = "sync_dir", [SIM_LIST] = "list",       [SIM_STAT] = "stat",
        [SIM_USAGE] = "usage",
    };
    return names[call];
}

struct simdisk *simdisk_new(void)
{
    struct simdisk *d = calloc(1, sizeof *d);
    assert(d != NULL);
    d->io.ops = &ops;
    pthread_mutex_init(&d->mu, NULL);
    return d;
}

void simdisk_free(struct simdisk *d)
{
    for (size_t i = 0; i < d->inodes; i++)
        close(d->fds[i]);
    for (size_t i = 0; i < d->nevents; i++) {
        free(d->events[i].data);
        free(d->events[i].path);
        free(d->events[i].to);
    }
    for (size_t i = 0; i < d->nvictims; i++)
        free(d->victims[i].path);
    names_free(&d->names);
    free(d->victims);
    free(d->events);
    free(d->fds);
    free(d->locked);
    pthread_mutex_destroy(&d->mu);
    free(d);
}

struct cht_io *simdisk_io(struct simdisk *d) { return &d->io; }

void simdisk_forget(struct simdisk *d) { d->forgets = true; }

size_t simdisk_events(const struct simdisk *d) { return d->nevents; }

void simdisk_fail_at(struct simdisk *d, uint64_t n, enum sim_fault kind, bool forever)
{
    pthread_mutex_lock(&d->mu);
    d->countdown = n;
    d->kind = kind;
    d->forever = forever;
    d->injected = 0;
    d->planned = false;
    pthread_mutex_unlock(&d->mu);
}

static void forget_victims(struct simdisk *d)
{
    while (d->nvictims > 0)
        free(d->victims[--d->nvictims].path);
}

void simdisk_plan(struct simdisk *d, const struct sim_plan *plan)
{
    pthread_mutex_lock(&d->mu);
    d->planned = plan != NULL;
    d->plan = plan != NULL ? *plan : (struct sim_plan){0};
    d->countdown = 0;
    if (plan != NULL) {
        d->injected = d->seen = 0;
        forget_victims(d);
    }
    pthread_mutex_unlock(&d->mu);
}

/* A thread of the store may be at the disk while the test asks. */
static uint64_t counter(const struct simdisk *d, const uint64_t *n)
{
    pthread_mutex_t *mu = (pthread_mutex_t *)&d->mu; /* asking changes nothing of the disk's */
    pthread_mutex_lock(mu);
    uint64_t now = *n;
    pthread_mutex_unlock(mu);
    return now;
}

uint64_t simdisk_injected(const struct simdisk *d) { return counter(d, &d->injected); }

uint64_t simdisk_seen(const struct simdisk *d) { return counter(d, &d->seen); }

enum sim_call simdisk_victim(const struct simdisk *d, const char **path)
{
    *path = d->nvictims > 0 ? d->victims[0].path : "nothing";
    return d->nvictims > 0 ? d->victims[0].call : SIM_OPEN;
}

bool simdisk_failed(const struct simdisk *d, unsigned calls, const char *part)
{
    for (size_t i = 0; i < d->nvictims; i++) {
        if ((calls & 1u << d->victims[i].call) != 0 &&
            (part == NULL || strstr(d->victims[i].path, part) != NULL))
            return true;
    }
    return false;
}
