/* simdisk: see simdisk.h. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/simdisk.h"

#define SECTOR 512u

enum event_kind {
    EV_WRITE,
    EV_TRUNCATE,
    EV_ALLOCATE,
    EV_PUNCH,
    EV_SYNC,
    EV_CREATE,
    EV_MKDIR,
    EV_RENAME,
    EV_UNLINK,
    EV_SYNC_DIR
};

struct event {
    enum event_kind kind;
    unsigned inode;
    uint64_t off, len;
    uint8_t *data;   /* owned */
    char *path, *to; /* owned */
};

struct entry {
    char *path; /* owned */
    int inode;  /* -1: a folder */
};

struct names {
    struct entry *v; /* owned */
    size_t n, cap;
};

struct simdisk {
    struct cht_io io; /* first */
    pthread_mutex_t mu;
    struct names names;
    int *fds; /* by inode; owned */
    bool *locked;
    size_t inodes;
    struct event *events; /* owned */
    size_t nevents, cap;
    uint64_t countdown, injected;
    enum sim_fault kind;
    bool forever;
};

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

static void *grow(void *p, size_t n)
{
    p = realloc(p, n);
    assert(p != NULL);
    return p;
}

/* ---- names --------------------------------------------------------------------------------------------------- */

static struct entry *find(struct names *l, const char *path)
{
    for (size_t i = 0; i < l->n; i++) {
        if (strcmp(l->v[i].path, path) == 0)
            return &l->v[i];
    }
    return NULL;
}

static void add(struct names *l, const char *path, int inode)
{
    if (l->n == l->cap)
        l->v = grow(l->v, (l->cap = l->cap * 2 + 16) * sizeof *l->v);
    l->v[l->n++] = (struct entry){strdup(path), inode};
}

static void drop(struct names *l, const char *path)
{
    struct entry *e = find(l, path);
    if (e != NULL) {
        free(e->path);
        *e = l->v[--l->n];
    }
}

static void names_free(struct names *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->v[i].path);
    free(l->v);
}

static void apply_name(struct names *l, const struct event *e)
{
    if (e->kind == EV_CREATE || e->kind == EV_MKDIR) {
        drop(l, e->path);
        add(l, e->path, e->kind == EV_MKDIR ? -1 : (int)e->inode);
    } else if (e->kind == EV_UNLINK) {
        drop(l, e->path);
    } else if (e->kind == EV_RENAME) {
        struct entry *from = find(l, e->path);
        int inode = from == NULL ? -1 : from->inode;
        if (from == NULL)
            return;
        drop(l, e->path);
        drop(l, e->to);
        add(l, e->to, inode);
    }
}

/* ---- recording and faults ------------------------------------------------------------------------------------ */

/* mu held. */
static void record(struct simdisk *d, struct event e)
{
    if (d->nevents == d->cap)
        d->events = grow(d->events, (d->cap = d->cap * 2 + 256) * sizeof *d->events);
    d->events[d->nevents++] = e;
}

/* What this call does instead of working. mu held. */
static enum sim_fault fault(struct simdisk *d)
{
    if (d->countdown == 0 || --d->countdown > 0)
        return SIM_NONE;
    if (d->forever)
        d->countdown = 1;
    d->injected++;
    return d->kind;
}

static enum cht_rc failed(enum sim_fault f, const char *path, struct cht_err *err)
{
    return f == SIM_FULL ? CHT_FAIL(err, CHT_DISK_FULL, "%s: no space (injected)", path)
                         : CHT_FAIL(err, CHT_IO, "%s: I/O error (injected)", path);
}

/* A call that takes no bytes: a short transfer is no fault for it. */
static enum cht_rc plain_fault(struct simdisk *d, const char *path, struct cht_err *err)
{
    enum sim_fault f = fault(d);
    return f == SIM_NONE || f == SIM_SHORT ? CHT_OK : failed(f, path, err);
}

/* ---- the table ----------------------------------------------------------------------------------------------- */

static enum cht_rc sm_open(struct cht_io *io, const char *path, unsigned flags, struct cht_file **out,
                           struct cht_err *err)
{
    struct simdisk *d = disk(io);
    pthread_mutex_lock(&d->mu);
    struct entry *e = find(&d->names, path);
    enum cht_rc rc = CHT_OK;
    int inode = e == NULL ? -1 : e->inode;
    if (e == NULL && (flags & CHT_OPEN_CREATE) == 0)
        rc = CHT_FAIL(err, CHT_NO_FILE, "%s: no such file", path);
    else if (e != NULL && (e->inode < 0 || (flags & CHT_OPEN_EXCL) != 0))
        rc = CHT_FAIL(err, CHT_IO, "%s: is there", path);
    else if (e != NULL && (flags & CHT_OPEN_LOCK) != 0 && d->locked[inode])
        rc = CHT_FAIL(err, CHT_LOCKED, "%s: locked", path);
    if (rc == CHT_OK && e == NULL)
        rc = plain_fault(d, path, err);
    if (rc == CHT_OK && e == NULL) {
        inode = (int)d->inodes++;
        d->fds = grow(d->fds, d->inodes * sizeof *d->fds);
        d->locked = grow(d->locked, d->inodes * sizeof *d->locked);
        d->fds[inode] = memfd_create("sim", 0);
        assert(d->fds[inode] >= 0);
        d->locked[inode] = false;
        add(&d->names, path, inode);
        record(d, (struct event){.kind = EV_CREATE, .inode = (unsigned)inode, .path = strdup(path)});
    }
    if (rc == CHT_OK) {
        struct sim_file *f = calloc(1, sizeof *f);
        assert(f != NULL);
        f->path = strdup(path);
        f->base = (struct cht_file){io, f->path};
        f->d = d;
        f->inode = (unsigned)inode;
        f->fd = d->fds[inode];
        f->lock = (flags & CHT_OPEN_LOCK) != 0;
        if (f->lock)
            d->locked[inode] = true;
        *out = &f->base;
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
    pthread_mutex_lock(&f->d->mu);
    enum sim_fault x = fault(f->d);
    pthread_mutex_unlock(&f->d->mu);
    if (x == SIM_EIO)
        return failed(x, f->path, err);
    ssize_t got = pread(f->fd, buf, x == SIM_SHORT && n > 1 ? n / 2 : n, (off_t)off);
    assert(got >= 0);
    *n_done = (size_t)got;
    return CHT_OK;
}

static enum cht_rc sm_pwrite(struct cht_file *file, const void *buf, size_t n, uint64_t off, size_t *n_done,
                             struct cht_err *err)
{
    struct sim_file *f = sim(file);
    struct simdisk *d = f->d;
    pthread_mutex_lock(&d->mu);
    enum sim_fault x = fault(d);
    if (x == SIM_SHORT && n > 1)
        n = (n + 1) / 2;
    enum cht_rc rc = x == SIM_FULL || x == SIM_EIO ? failed(x, f->path, err) : CHT_OK;
    if (rc == CHT_OK) {
        ssize_t put = pwrite(f->fd, buf, n, (off_t)off);
        assert(put == (ssize_t)n);
        uint8_t *copy = malloc(n);
        assert(copy != NULL);
        memcpy(copy, buf, n);
        record(d, (struct event){.kind = EV_WRITE, .inode = f->inode, .off = off, .len = n, .data = copy});
        *n_done = n;
    }
    pthread_mutex_unlock(&d->mu);
    return rc;
}

static enum cht_rc sm_sync(struct cht_file *file, struct cht_err *err)
{
    struct sim_file *f = sim(file);
    pthread_mutex_lock(&f->d->mu);
    enum cht_rc rc = plain_fault(f->d, f->path, err);
    if (rc == CHT_OK)
        record(f->d, (struct event){.kind = EV_SYNC, .inode = f->inode});
    pthread_mutex_unlock(&f->d->mu);
    return rc;
}

static enum cht_rc sm_size(struct cht_file *file, uint64_t *size, struct cht_err *err)
{
    struct stat st;
    (void)err;
    assert(fstat(sim(file)->fd, &st) == 0);
    *size = (uint64_t)st.st_size;
    return CHT_OK;
}

static enum cht_rc change(struct cht_file *file, enum event_kind kind, uint64_t off, uint64_t len,
                          struct cht_err *err)
{
    struct sim_file *f = sim(file);
    struct simdisk *d = f->d;
    int fd = f->fd;
    pthread_mutex_lock(&d->mu);
    enum cht_rc rc = plain_fault(d, f->path, err);
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
    (void)err;
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, sim(file)->fd, 0);
    assert(p != MAP_FAILED);
    *out = p;
    return CHT_OK;
}

static enum cht_rc sm_remap(struct cht_file *f, uint8_t *old, size_t old_len, size_t len, uint8_t **out,
                            struct cht_err *err)
{
    (void)f;
    (void)err;
    void *p = mremap(old, old_len, len, MREMAP_MAYMOVE);
    assert(p != MAP_FAILED);
    *out = p;
    return CHT_OK;
}

static void sm_unmap(struct cht_file *f, uint8_t *p, size_t len)
{
    (void)f;
    (void)munmap(p, len);
}

static enum cht_rc sm_discard(struct cht_file *f, uint8_t *p, size_t len, struct cht_err *err)
{
    (void)f;
    (void)err;
    assert(madvise(p, len, MADV_DONTNEED) == 0);
    return CHT_OK;
}

static enum cht_rc name_change(struct cht_io *io, struct event e, struct cht_err *err)
{
    struct simdisk *d = disk(io);
    pthread_mutex_lock(&d->mu);
    enum cht_rc rc = find(&d->names, e.path) == NULL && e.kind != EV_MKDIR
                         ? CHT_FAIL(err, CHT_NO_FILE, "%s: no such file", e.path)
                         : CHT_OK;
    bool there = e.kind == EV_MKDIR && find(&d->names, e.path) != NULL;
    if (rc == CHT_OK && !there)
        rc = plain_fault(d, e.path, err);
    if (rc == CHT_OK && !there) {
        e.path = strdup(e.path);
        e.to = e.to != NULL ? strdup(e.to) : NULL;
        apply_name(&d->names, &e);
        record(d, e);
    }
    pthread_mutex_unlock(&d->mu);
    return rc;
}

static enum cht_rc sm_rename(struct cht_io *io, const char *from, const char *to, struct cht_err *err)
{
    return name_change(
        io, (struct event){.kind = EV_RENAME, .path = (char *)(uintptr_t)from, .to = (char *)(uintptr_t)to},
        err);
}

static enum cht_rc sm_unlink(struct cht_io *io, const char *path, struct cht_err *err)
{
    return name_change(io, (struct event){.kind = EV_UNLINK, .path = (char *)(uintptr_t)path}, err);
}

static enum cht_rc sm_mkdir(struct cht_io *io, const char *path, struct cht_err *err)
{
    return name_change(io, (struct event){.kind = EV_MKDIR, .path = (char *)(uintptr_t)path}, err);
}

static enum cht_rc sm_sync_dir(struct cht_io *io, const char *path, struct cht_err *err)
{
    struct simdisk *d = disk(io);
    pthread_mutex_lock(&d->mu);
    enum cht_rc rc = plain_fault(d, path, err);
    if (rc == CHT_OK)
        record(d, (struct event){.kind = EV_SYNC_DIR});
    pthread_mutex_unlock(&d->mu);
    return rc;
}

static enum cht_rc sm_list(struct cht_io *io, const char *path,
                           void (*fn)(void *ctx, const char *name, enum cht_io_kind kind), void *ctx,
                           struct cht_err *err)
{
    struct simdisk *d = disk(io);
    size_t n = strlen(path);
    pthread_mutex_lock(&d->mu);
    struct entry *dir = find(&d->names, path);
    enum cht_rc rc =
        dir == NULL || dir->inode >= 0 ? CHT_FAIL(err, CHT_NO_FILE, "%s: no such folder", path) : CHT_OK;
    for (size_t i = 0; rc == CHT_OK && i < d->names.n; i++) {
        const char *p = d->names.v[i].path;
        if (strncmp(p, path, n) == 0 && p[n] == '/' && strchr(p + n + 1, '/') == NULL)
            fn(ctx, p + n + 1, d->names.v[i].inode < 0 ? CHT_IO_FOLDER : CHT_IO_FILE);
    }
    pthread_mutex_unlock(&d->mu);
    return rc;
}

static enum cht_rc sm_stat(struct cht_io *io, const char *path, unsigned flags, struct cht_io_stat *out,
                           struct cht_err *err)
{
    struct simdisk *d = disk(io);
    struct stat st = {0};
    (void)flags; /* there are no links */
    memset(out, 0, sizeof *out);
    pthread_mutex_lock(&d->mu);
    enum cht_rc rc = plain_fault(d, path, err);
    const struct entry *e = rc == CHT_OK ? find(&d->names, path) : NULL;
    if (e != NULL && e->inode >= 0) {
        assert(fstat(d->fds[e->inode], &st) == 0);
        *out = (struct cht_io_stat){CHT_IO_FILE, 1, (uint64_t)e->inode + 1, (uint64_t)st.st_size};
    } else if (e != NULL) {
        *out = (struct cht_io_stat){CHT_IO_FOLDER, 1, UINT64_MAX - (uint64_t)(e - d->names.v), 0};
    }
    pthread_mutex_unlock(&d->mu);
    return rc;
}

static enum cht_rc sm_usage(struct cht_file *f, uint64_t *bytes, struct cht_err *err)
{
    return sm_size(f, bytes, err);
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
    .rename = sm_rename,
    .unlink = sm_unlink,
    .mkdir = sm_mkdir,
    .rmdir = sm_unlink,
    .sync_dir = sm_sync_dir,
    .list = sm_list,
    .stat = sm_stat,
    .usage = sm_usage,
};

/* -------------------------------------------------------------------------------------------------------------- */

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
    names_free(&d->names);
    free(d->events);
    free(d->fds);
    free(d->locked);
    pthread_mutex_destroy(&d->mu);
    free(d);
}

struct cht_io *simdisk_io(struct simdisk *d) { return &d->io; }

size_t simdisk_events(const struct simdisk *d) { return d->nevents; }

void simdisk_fail_at(struct simdisk *d, uint64_t n, enum sim_fault kind, bool forever)
{
    pthread_mutex_lock(&d->mu);
    d->countdown = n;
    d->kind = kind;
    d->forever = forever;
    d->injected = 0;
    pthread_mutex_unlock(&d->mu);
}

uint64_t simdisk_injected(const struct simdisk *d) { return d->injected; }

/* ---- cuts ---------------------------------------------------------------------------------------------------- */

struct image {  /* a file's bytes */
    uint8_t *p; /* owned */
    uint64_t n;
};

struct simcut {
    const struct simdisk *d;
    size_t at;
    struct names names;  /* durable */
    struct image *files; /* durable, by inode */
    size_t *pending;     /* indices of events not durable, in order */
    size_t npending, cap;
};

static void resize(struct image *im, uint64_t n)
{
    if (n > im->n) {
        im->p = grow(im->p, n);
        memset(im->p + im->n, 0, n - im->n);
    }
    im->n = n;
}

static void apply_bytes(struct image *im, uint64_t off, const uint8_t *p, uint64_t n)
{
    if (off + n > im->n)
        resize(im, off + n);
    if (n > 0)
        memcpy(im->p + off, p, n);
}

static void apply_change(struct image *im, const struct event *e)
{
    if (e->kind == EV_WRITE) {
        apply_bytes(im, e->off, e->data, e->len);
    } else if (e->kind == EV_TRUNCATE) {
        resize(im, e->len);
    } else if (e->kind == EV_ALLOCATE) {
        if (e->off + e->len > im->n)
            resize(im, e->off + e->len);
    } else if (e->kind == EV_PUNCH && e->off < im->n) {
        memset(im->p + e->off, 0, e->len < im->n - e->off ? e->len : im->n - e->off);
    }
}

static bool of_names(const struct event *e) { return e->kind >= EV_CREATE && e->kind <= EV_UNLINK; }

struct simcut *simcut_new(const struct simdisk *d)
{
    struct simcut *c = calloc(1, sizeof *c);
    assert(c != NULL);
    c->d = d;
    c->files = calloc(d->inodes + 1, sizeof *c->files);
    return c;
}

/* Makes pending events durable: those of one inode, or (inode UINT_MAX) all of names. */
static void settle(struct simcut *c, unsigned inode)
{
    size_t left = 0;
    for (size_t i = 0; i < c->npending; i++) {
        const struct event *e = &c->d->events[c->pending[i]];
        if (of_names(e) && inode == (unsigned)-1)
            apply_name(&c->names, e);
        else if (!of_names(e) && e->inode == inode)
            apply_change(&c->files[inode], e);
        else
            c->pending[left++] = c->pending[i];
    }
    c->npending = left;
}

bool simcut_step(struct simcut *c)
{
    if (c->at == c->d->nevents)
        return false;
    const struct event *e = &c->d->events[c->at];
    if (e->kind == EV_SYNC) {
        settle(c, e->inode);
    } else if (e->kind == EV_SYNC_DIR) {
        settle(c, (unsigned)-1);
    } else {
        if (c->npending == c->cap)
            c->pending = grow(c->pending, (c->cap = c->cap * 2 + 64) * sizeof *c->pending);
        c->pending[c->npending++] = c->at;
    }
    c->at++;
    return true;
}

size_t simcut_at(const struct simcut *c) { return c->at; }

/* One pending change of a file under SIM_SUBSET: sector by sector. */
static void apply_some(struct image *im, const struct event *e, struct cht_rng *r)
{
    if (e->kind != EV_WRITE) {
        if (cht_rng_below(r, 2) == 0)
            apply_change(im, e);
        return;
    }
    for (uint64_t at = e->off; at < e->off + e->len;) {
        uint64_t end = (at / SECTOR + 1) * SECTOR;
        end = end < e->off + e->len ? end : e->off + e->len;
        if (cht_rng_below(r, 2) == 0)
            apply_bytes(im, at, e->data + (at - e->off), end - at);
        at = end;
    }
}

static void apply_pending(struct simcut *c, struct image *files, struct names *names, enum sim_mode mode,
                          struct cht_rng *r)
{
    size_t last = c->npending, ns = 0, keep_ns = 0;
    for (size_t i = 0; i < c->npending; i++) {
        if (c->d->events[c->pending[i]].kind == EV_WRITE)
            last = i;
        ns += of_names(&c->d->events[c->pending[i]]);
    }
    keep_ns = mode == SIM_DROP ? 0 : mode == SIM_SUBSET ? cht_rng_below(r, ns + 1) : ns;
    for (size_t i = 0; i < c->npending; i++) {
        const struct event *e = &c->d->events[c->pending[i]];
        if (of_names(e)) {
            if (keep_ns > 0) {
                apply_name(names, e);
                keep_ns--;
            }
        } else if (mode == SIM_SUBSET) {
            apply_some(&files[e->inode], e, r);
        } else if (mode == SIM_TORN && i == last) {
            uint64_t whole = cht_rng_below(r, e->len / SECTOR + 1) * SECTOR;
            apply_bytes(&files[e->inode], e->off, e->data, whole < e->len ? whole : e->len);
        } else if (mode != SIM_DROP) {
            apply_change(&files[e->inode], e);
        }
    }
}

struct simdisk *simcut_disk(struct simcut *c, enum sim_mode mode, struct cht_rng *r)
{
    struct simdisk *d = simdisk_new();
    size_t n = c->d->inodes;
    struct image *files = calloc(n + 1, sizeof *files);
    for (size_t i = 0; i < n; i++) {
        resize(&files[i], c->files[i].n);
        if (files[i].n > 0)
            memcpy(files[i].p, c->files[i].p, files[i].n);
    }
    for (size_t i = 0; i < c->names.n; i++)
        add(&d->names, c->names.v[i].path, c->names.v[i].inode);
    apply_pending(c, files, &d->names, mode, r);
    d->inodes = n;
    d->fds = calloc(n + 1, sizeof *d->fds);
    d->locked = calloc(n + 1, sizeof *d->locked);
    for (size_t i = 0; i < n; i++) {
        d->fds[i] = memfd_create("sim", 0);
        assert(d->fds[i] >= 0 && ftruncate(d->fds[i], (off_t)files[i].n) == 0);
        for (uint64_t at = 0; at < files[i].n; at += 4096) { /* leave holes holes */
            static const uint8_t zeros[4096];
            uint64_t len = files[i].n - at < 4096 ? files[i].n - at : 4096;
            if (memcmp(files[i].p + at, zeros, len) != 0)
                assert(pwrite(d->fds[i], files[i].p + at, len, (off_t)at) == (ssize_t)len);
        }
        free(files[i].p);
    }
    free(files);
    return d;
}

void simcut_free(struct simcut *c)
{
    for (size_t i = 0; i < c->d->inodes; i++)
        free(c->files[i].p);
    names_free(&c->names);
    free(c->files);
    free(c->pending);
    free(c);
}
