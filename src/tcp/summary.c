/* summary: PAIR_SUMMARY: what lies under a prefix, and how it branches, in one scan.
 *
 *   PAIR_SUMMARY PREFIX [depth=1] [branch_limit=32] [include_hidden=FLAG]
 *   SUCCESS,command=PAIR_SUMMARY,count=7,total_payload_bytes=26,min_payload_bytes=2,max_payload_bytes=5,min_key=1,max_key=2,max_depth=3,
 *     self_terminal=1,branch_count=3,branches=61:3;63:2;62:1
 *
 * A branch is the first `depth` bytes after the prefix (negative: all of them; 0: there are none), with how many names begin so; the
 * largest first, then in byte order. branch_limit <= 0 is all of them, as far as they fit in an answer. A pair whose key has no value
 * counts with 0 bytes, and not for the least.
 */
#include "tcp/session.h"

#include "tcp/answer.h"
#include "tcp/hidden.h"

#include "base/alloc.h"
#include "base/invariant.h"
#include "cheetah/scan.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES 256u
#define BRANCHES_MAX 1024

struct branch {
    uint64_t count;
    size_t order; /* of the names */
    uint8_t *p;   /* owned */
    uint32_t n;
};

struct summary {
    struct line_session *s;
    struct line_hidden hidden;
    uint64_t count, bytes, min_key, max_key;
    uint32_t min, max, depth;
    bool self;
    struct branch *b; /* owned; the last is the one under way */
    size_t n, cap, made, names;
    size_t keep; /* 0: all */
};

/* A scan needs the sizes only. */
static size_t nothing(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    (void)ctx;
    (void)e;
    (void)out;
    (void)room;
    return 0;
}

static int larger(const void *a, const void *b)
{
    const struct branch *x = a, *y = b;
    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    return x->order < y->order ? -1 : x->order > y->order;
}

/* The largest come first, and those beyond what is kept go. */
static void cut(struct summary *u)
{
    if (u->n == 0)
        return;
    CHT_INVARIANT(u->b != NULL);
    qsort(u->b, u->n, sizeof *u->b, larger);
    while (u->keep > 0 && u->n > u->keep) {
        u->names -= u->b[--u->n].n;
        cht_free(u->b[u->n].p);
    }
}

static enum cht_rc add_branch(struct summary *u, const uint8_t *p, size_t n)
{
    struct branch *last = u->n > 0 ? &u->b[u->n - 1] : NULL;
    if (last != NULL && last->order == u->made && last->n == n && memcmp(last->p, p, n) == 0) {
        last->count++;
        return CHT_OK;
    }
    if (u->keep > 0 && u->n >= 2 * u->keep)
        cut(u);
    if (2 * u->names + 24 * u->n > u->s->host->answer_max)
        return CHT_VALUE_TOO_LARGE;
    if (u->n == u->cap || u->b == NULL) {
        size_t cap = u->cap == 0 ? 64 : u->cap * 2;
        struct branch *b = cht_realloc(u->b, cap * sizeof *b);
        if (b == NULL)
            return CHT_NO_MEMORY;
        u->b = b;
        u->cap = cap;
    }
    uint8_t *copy = cht_malloc(n);
    if (copy == NULL)
        return CHT_NO_MEMORY;
    memcpy(copy, p, n);
    u->b[u->n++] = (struct branch){.count = 1, .order = ++u->made, .p = copy, .n = (uint32_t)n};
    u->names += n;
    return CHT_OK;
}

static enum cht_rc add(struct summary *u, const struct cht_entry *e)
{
    const struct line_command *l = &u->s->command;
    uint32_t depth = e->name_len - (uint32_t)l->name.n;
    u->min_key = u->count == 0 || e->key < u->min_key ? e->key : u->min_key;
    u->max_key = e->key > u->max_key ? e->key : u->max_key;
    u->count++;
    u->bytes += e->size;
    u->max = e->size > u->max ? e->size : u->max;
    if ((e->flags & CHT_ENTRY_DANGLING) == 0 && (u->min == 0 || e->size < u->min))
        u->min = e->size;
    u->depth = depth > u->depth ? depth : u->depth;
    u->self = u->self || depth == 0;
    if (depth == 0 || l->depth == 0)
        return CHT_OK;
    return add_branch(u, e->name + l->name.n,
                      l->depth > 0 && (uint64_t)l->depth < depth ? (size_t)l->depth : depth);
}

static enum cht_rc walk(struct summary *u, struct cht_err *err)
{
    const struct line_command *l = &u->s->command;
    struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .prefix = l->name, .values = true, .render = nothing};
    struct cht_scan *scan = NULL;
    struct cht_entry e[ENTRIES];
    size_t n = 1;
    bool hides;
    enum cht_rc rc = line_hidden_open(&u->hidden, u->s->db, l, err);
    if (rc == CHT_OK)
        rc = cht_scan_open(u->s->db->store, &cfg, &scan, err);
    while (rc == CHT_OK && n > 0) {
        rc = cht_scan_next(scan, e, ENTRIES, &n, err);
        for (size_t i = 0; i < n && rc == CHT_OK; i++) {
            rc = line_hidden_look(&u->hidden, &e[i], &hides, err);
            if (rc == CHT_OK && !hides)
                rc = add(u, &e[i]);
        }
        if (rc == CHT_OK)
            rc = line_session_goes_on(u->s);
    }
    cht_scan_close(scan);
    line_hidden_close(&u->hidden);
    return rc;
}

static void put_branches(struct summary *u)
{
    struct svc_out *o = &u->s->out;
    svc_out_format(o, ",branch_count=%zu%s", u->n, u->n > 0 ? ",branches=" : "");
    for (size_t i = 0; i < u->n; i++) {
        if (!svc_out_room(o, 2 * (size_t)u->b[i].n + 2))
            return;
        if (i > 0)
            o->p[o->n++] = ';';
        o->n += svc_out_hex(o->p + o->n, u->b[i].p, u->b[i].n);
        o->p[o->n++] = ':';
        svc_out_u64(o, u->b[i].count);
    }
}

static void answer(struct summary *u)
{
    struct svc_out *o = &u->s->out;
    line_session_counted(u->s, LINE_PAIR_SUMMARY, false);
    svc_out_format(o,
                   "SUCCESS,command=PAIR_SUMMARY,count=%" PRIu64 ",total_payload_bytes=%" PRIu64
                   ",min_payload_bytes=%u,max_payload_bytes=%u",
                   u->count, u->bytes, u->min, u->max);
    if (u->count > 0)
        svc_out_format(o, ",min_key=%" PRIu64 ",max_key=%" PRIu64, u->min_key, u->max_key);
    svc_out_format(o, ",max_depth=%u,self_terminal=%d", u->depth, u->self);
    put_branches(u);
    svc_out_text(o, "\n");
}

/* ------------------------------------------------------------------------------------------------------------ */

void line_session_summary(struct line_session *s)
{
    struct summary *u = cht_calloc(1, sizeof *u);
    struct cht_err err = {0};
    if (u == NULL) {
        line_session_failed(s, CHT_NO_MEMORY);
        return;
    }
    int64_t limit = s->command.branches;
    u->s = s;
    u->keep = limit <= 0 ? 0 : limit < BRANCHES_MAX ? (size_t)limit : BRANCHES_MAX;
    enum cht_rc rc = walk(u, &err);
    if (rc == CHT_OK) {
        cut(u);
        answer(u);
    } else {
        line_session_failed(s, rc);
    }
    for (size_t i = 0; i < u->n; i++)
        cht_free(u->b[i].p);
    cht_free(u->b);
    cht_free(u);
}
