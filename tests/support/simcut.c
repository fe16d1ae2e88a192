/* simcut: the disk that a power cut at any point would leave. Declared in simdisk.h. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/simdisk_int.h"

#define SECTOR 512u

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
        im->p = sim_grow(im->p, n);
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
            names_apply(&c->names, e);
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
            c->pending = sim_grow(c->pending, (c->cap = c->cap * 2 + 64) * sizeof *c->pending);
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
                names_apply(names, e);
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
        names_add(&d->names, c->names.v[i].path, c->names.v[i].inode);
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
