/* move: see move.h. Operations grow from the start of a piece of memory, their names from its end. */
#include "reduce/move.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "cheetah/scan.h"

#include <string.h>

#define EXTRA \
    (2 * REDUCE_MOVE_OPS + 3) /* operations beside the links: first, last, under_way, the old names */
#define LEAST (EXTRA * sizeof(struct cht_op) + 4 * REDUCE_MOVE_EACH + 3 * (uint64_t)CHT_NAME_MAX)

#define MOST (UINT64_C(1) << 40)

#define LOCK_NS UINT64_C(20000000) /* how often a lock that another process has is asked for, and how long */
#define LOCK_WAIT_NS UINT64_C(60000000000)

static enum cht_rc commit(struct cht_store *s, struct cht_op *ops, size_t n, unsigned flags,
                          struct cht_err *err)
{
    struct cht_commit c = {.ops = ops, .count = n, .flags = flags | CHT_COMMIT_FENCED};
    enum cht_rc rc = cht_store_locks_kept(s, err); /* what it is made of may be old */
    if (rc != CHT_OK)
        return rc;
    rc = cht_store_commit(s, &c);
    if (rc == CHT_BATCH_FAILED || (rc == CHT_OK && c.failed > 0))
        rc = ops[rc == CHT_OK ? 0 : c.failed].rc; /* not atomic: it is the only one */
    if (rc == CHT_OK)
        return CHT_OK;
    if (c.err.msg[0] == 0)
        return CHT_FAIL(err, rc, "%s", cht_rc_text(rc));
    if (err != NULL)
        *err = c.err;
    return rc;
}

struct moving {
    struct reduce_run *run;
    const struct reduce_move *m;
    struct cht_op *ops;   /* owned: `size` bytes; names at its end */
    size_t n, text, size; /* text: where the last name begins */
    bool remote;          /* each part takes its old names away, and is bounded */
    uint64_t bytes;       /* remote: of the values in this part */
};

/* As much as is wanted, or what there is of it. */
static enum cht_rc take_room(struct moving *w, struct cht_err *err)
{
    uint64_t bytes = w->m->bytes < MOST ? w->m->bytes : MOST; /* a record that was made up may say anything */
    uint64_t size = LEAST + bytes * (w->remote ? 2 : 1);
    enum cht_rc rc;
    while ((rc = reduce_take_memory(w->run, size, err)) == CHT_NO_MEMORY && size > LEAST)
        size = size / 2 > LEAST ? size / 2 : LEAST;
    if (rc != CHT_OK)
        return rc;
    w->ops = cht_malloc((size_t)size);
    if (w->ops == NULL) {
        reduce_give_memory(w->run, size);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the switch");
    }
    w->size = w->text = (size_t)size;
    return CHT_OK;
}

static void add(struct moving *w, const struct cht_op *ops, size_t n)
{
    if (n > 0)
        memcpy(w->ops + w->n, ops, n * sizeof *ops);
    w->n += n;
}

/* One part, which is not the last. */
static enum cht_rc flush(struct moving *w, struct cht_err *err)
{
    add(w, &w->m->under_way, 1);
    enum cht_rc rc = reduce_commit(w->run->store, w->ops, w->n, err);
    w->n = 0;
    w->bytes = 0;
    w->text = w->size;
    if (rc == CHT_OK && w->m->cancel != NULL && atomic_load_explicit(w->m->cancel, memory_order_relaxed))
        rc = CHT_FAIL(err, CHT_CANCELLED, "the run was cancelled");
    return rc;
}

/* Is there no room for one more in this part? */
static bool is_full(const struct moving *w, size_t names, uint64_t value)
{
    if ((w->n + 2 + EXTRA) * sizeof *w->ops + names > w->text)
        return true;
    return w->remote && w->n > REDUCE_MOVE_OPS &&
           (w->n + 2 + EXTRA > REDUCE_REMOTE_OPS || w->bytes + value > REDUCE_REMOTE_BYTES);
}

static enum cht_rc add_link(struct moving *w, struct cht_str to, struct cht_str from,
                            const struct cht_entry *e, struct cht_err *err)
{
    size_t rest = e->name_len - from.n, names = to.n + rest + e->name_len;
    enum cht_rc rc = is_full(w, names, e->size) ? flush(w, err) : CHT_OK;
    if (rc != CHT_OK)
        return rc;
    uint8_t *old, *new = (uint8_t *)w->ops + (w->text -= names);
    memcpy(new, to.p, to.n);
    memcpy(new + to.n, e->name + from.n, rest);
    old = new + to.n + rest;
    memcpy(old, e->name, e->name_len);
    w->ops[w->n++] =
        (struct cht_op){.kind = CHT_OP_PAIR_LINK, .name = {new, to.n + rest}, .value = {old, e->name_len}};
    if (w->remote)
        w->ops[w->n++] = (struct cht_op){.kind = CHT_OP_PAIR_DEL, .name = {old, e->name_len}};
    w->bytes += e->size;
    return CHT_OK;
}

static enum cht_rc link_all(struct moving *w, unsigned i, struct cht_err *err)
{
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = w->m->from[i], .values = w->remote};
    struct cht_scan *scan = NULL;
    struct cht_entry e[64];
    size_t n = 1;
    enum cht_rc rc = cht_scan_open(w->run->store, &cfg, &scan, err);
    while (rc == CHT_OK && n > 0) {
        rc = cht_scan_next(scan, e, sizeof e / sizeof *e, &n, err);
        for (size_t k = 0; k < n && rc == CHT_OK; k++)
            rc = add_link(w, w->m->to[i], w->m->from[i], &e[k], err);
    }
    cht_scan_close(scan);
    return rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc reduce_move(struct reduce_run *run, const struct reduce_move *m, struct cht_err *err)
{
    struct moving w = {.run = run, .m = m, .remote = cht_store_remote(run->store)};
    enum cht_rc rc = take_room(&w, err);
    if (rc != CHT_OK)
        return rc;
    add(&w, m->first, m->n_first);
    for (unsigned i = 0; i < m->n && rc == CHT_OK; i++)
        rc = link_all(&w, i, err);
    for (unsigned i = 0; i < m->n && rc == CHT_OK && !w.remote; i++)
        add(&w, &(struct cht_op){.kind = CHT_OP_PREFIX_DEL, .name = m->from[i]}, 1);
    if (rc == CHT_OK) {
        add(&w, m->last, m->n_last);
        rc = reduce_commit(run->store, w.ops, w.n, err);
    }
    cht_free(w.ops);
    reduce_give_memory(run, w.size);
    return rc;
}

enum cht_rc reduce_commit(struct cht_store *s, struct cht_op *ops, size_t n, struct cht_err *err)
{
    return commit(s, ops, n, CHT_COMMIT_ATOMIC, err);
}

enum cht_rc reduce_clear(struct cht_store *s, struct cht_str prefix, struct cht_err *err)
{
    struct cht_op op = {.kind = CHT_OP_PREFIX_DEL, .with_values = true, .name = prefix};
    return cht_store_remote(s) ? commit(s, &op, 1, 0, err) : CHT_OK;
}

enum cht_rc reduce_too_many(struct cht_store *s, const struct cht_str *prefixes, size_t n, bool *are,
                            struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    uint64_t all = 0, pairs = 0;
    bool remote = cht_store_remote(s);
    for (size_t i = 0; i < n && remote && rc == CHT_OK; i++, all += pairs)
        rc = cht_store_count(s, prefixes[i], &pairs, err);
    *are = all > REDUCE_REMOTE_OLD;
    return rc;
}

enum cht_rc reduce_lock(struct cht_store *s, const char *name, const _Atomic bool *cancel,
                        struct cht_err *err)
{
    uint64_t end = 0; /* two servers that merge two databases could wait for each other */
    for (;;) {
        enum cht_rc rc = cht_store_lock(s, name, err);
        if (rc != CHT_LOCKED)
            return rc;
        uint64_t now = cht_now_ns();
        end = end == 0 ? now + LOCK_WAIT_NS : end;
        if (cancel != NULL && atomic_load_explicit(cancel, memory_order_relaxed))
            return CHT_FAIL(err, CHT_CANCELLED, "cancelled");
        if (now > end)
            return rc;
        cht_sleep_ns(LOCK_NS);
    }
}
