/* kn_live: see kn_live.h. */
#include "lm/kn_live.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "lm/engine_int.h"
#include "os/io.h"
#include "os/thread.h"

#define STATES_MAX 64u   /* databases without a question under way that are kept in mind */
#define CHANGES_MAX 512u /* more of them, and the lists are made again */
#define SLACK 4u         /* lists are cut where they are that many times too long */
#define TABLE_BITS 12u
#define TABLE_MOST 2048u /* tokens in it: half of its slots */
#define WAIT_NS UINT64_C(20000000)
#define LOOK_NS UINT64_C(200000)

static unsigned list_of(uint32_t a)
{
    return a >= 3 ? LM_KN_TOP_MAIN : a == 2 ? LM_KN_TOP_TWO : LM_KN_TOP_ONE;
}

/* The order within a list. */
static int compare(const void *x, const void *y)
{
    const struct lm_follower *a = x, *b = y;
    if (a->count != b->count)
        return a->count > b->count ? -1 : 1;
    return (a->token > b->token) - (a->token < b->token);
}

static void top_free(struct lm_kn_top *t)
{
    for (unsigned i = 0; i < LM_KN_TOP_LISTS; i++)
        cht_free(t->list[i].f);
    cht_free(t->table);
    cht_free(t);
}

static size_t slot_of(const struct lm_kn_top *t, uint32_t token)
{
    return (size_t)((uint64_t)token * t->factor >> (64 - TABLE_BITS));
}

/* Without memory there is none: pages of the root are read then. */
static void make_table(struct lm_kn_top *t)
{
    const struct lm_kn_top_list *l = &t->list[LM_KN_TOP_MAIN];
    t->table = cht_calloc((size_t)1 << TABLE_BITS, sizeof *t->table);
    for (uint32_t i = 0; t->table != NULL && i < l->n && i < TABLE_MOST; i++) {
        size_t at = slot_of(t, l->f[i].token);
        while (t->table[at].count != 0)
            at = (at + 1) & (((size_t)1 << TABLE_BITS) - 1);
        t->table[at] = l->f[i];
    }
}

/* The engine's mutex is held. */
static void unuse_top(struct lm_kn_top *t)
{
    if (t != NULL && --t->users == 0)
        top_free(t);
}

static void live_free(struct lm_kn_live *l)
{
    unuse_top(l->top);
    cht_watch_free(l->watch);
    cht_free(l);
}

/* The engine's mutex is held: states that nobody uses are forgotten, the oldest first, where they are many. */
static void forget_some(struct lm_engine *e)
{
    unsigned n = 0;
    struct lm_kn_live **at = &e->live;
    while (*at != NULL) {
        struct lm_kn_live *l = *at;
        if (l->users > 0 || (l->store != NULL && ++n <= STATES_MAX)) {
            at = &l->next;
            continue;
        }
        *at = l->next;
        live_free(l);
    }
}

/* The engine's mutex is held. The state of this store; NULL: there is none. */
static struct lm_kn_live *find(const struct lm_engine *e, const struct cht_store *s)
{
    struct lm_kn_live *l = e->live;
    while (l != NULL && l->store != s)
        l = l->next;
    if (l == NULL || l->watch == NULL || !cht_watch_closed(l->watch))
        return l;
    l->store = NULL; /* another store is at that place now */
    return NULL;
}

/* The engine's mutex is held. Without one nothing outlives a question. */
static void watch(const struct lm_engine *e, struct lm_kn_live *l, struct cht_store *s)
{
    static const uint8_t all[] = LM_KN_ALL;
    if (l->watch == NULL && e->kept_max > 0 && !cht_store_remote(s))
        (void)cht_watch_new(s, (struct cht_str){all, sizeof all - 1}, &l->watch,
                            NULL); /* too many, or no memory: tried again */
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_kn_live_get(struct lm_engine *e, struct cht_store *s, struct lm_kn_live **out,
                           struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    cht_mutex_lock(&e->mu);
    struct lm_kn_live *l = find(e, s);
    if (l == NULL) {
        forget_some(e);
        l = cht_calloc(1, sizeof *l);
        if (l != NULL) {
            l->store = s;
            l->next = e->live;
            e->live = l;
        } else {
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a live model's state");
        }
    }
    if (l != NULL) {
        watch(e, l, s);
        l->users++;
    }
    cht_mutex_unlock(&e->mu);
    *out = l;
    return rc;
}

void lm_kn_live_put(struct lm_engine *e, struct lm_kn_live *l)
{
    if (l == NULL)
        return;
    cht_mutex_lock(&e->mu);
    l->users--;
    cht_mutex_unlock(&e->mu);
}

void lm_kn_live_free_all(struct lm_engine *e)
{
    while (e->live != NULL) {
        struct lm_kn_live *l = e->live;
        e->live = l->next;
        live_free(l);
    }
}

/* Sequentially consistent: whoever reads what the commit wrote sees the sequence move. */
void lm_kn_live_begin(struct lm_kn_live *l) { (void)atomic_fetch_add(&l->sequence, 1); }
void lm_kn_live_end(struct lm_kn_live *l) { (void)atomic_fetch_add(&l->sequence, 1); }

void lm_kn_live_wait(const struct lm_kn_live *l)
{
    uint64_t end = cht_now_ns() + WAIT_NS;
    while ((atomic_load(&l->sequence) & 1) != 0 && cht_now_ns() < end)
        cht_sleep_ns(LOOK_NS);
}

struct lm_kn_top *lm_kn_top_get(struct lm_engine *e, struct lm_kn_live *l, const struct lm_kn_head *h,
                                uint32_t keep)
{
    cht_mutex_lock(&e->mu);
    struct lm_kn_top *t = l->top;
    if (t != NULL && (t->id != h->id || t->generation != h->generation || t->keep < keep))
        t = NULL;
    if (t != NULL)
        t->users++;
    cht_mutex_unlock(&e->mu);
    return t;
}

void lm_kn_top_put(struct lm_engine *e, struct lm_kn_top *t)
{
    cht_mutex_lock(&e->mu);
    unuse_top(t);
    cht_mutex_unlock(&e->mu);
}

uint32_t lm_kn_top_find(const struct lm_kn_top *t, uint32_t token)
{
    if (t->table == NULL)
        return 0;
    size_t at = slot_of(t, token);
    while (t->table[at].count != 0 && t->table[at].token != token)
        at = (at + 1) & (((size_t)1 << TABLE_BITS) - 1);
    return t->table[at].count;
}

struct lm_kn_top *lm_kn_top_set(struct lm_engine *e, struct lm_kn_live *l, struct lm_kn_top *t,
                                uint64_t sequence)
{
    cht_mutex_lock(&e->mu);
    t->users = 1;
    if ((sequence & 1) == 0 && atomic_load(&l->sequence) == sequence) {
        unuse_top(l->top);
        l->top = t;
        t->users = 2;
    }
    cht_mutex_unlock(&e->mu);
    return t;
}

/* ---- after a commit ------------------------------------------------------------------------------------------ */

/* Where the entry is, or would be. */
static uint32_t place(const struct lm_kn_top_list *l, const struct lm_follower *f)
{
    uint32_t lo = 0, hi = l->n;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (compare(&l->f[mid], f) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static void leave(struct lm_kn_top_list *l, struct lm_follower f)
{
    uint32_t at = place(l, &f);
    if (at == l->n || compare(&l->f[at], &f) != 0)
        return; /* after the cut */
    l->n--;
    memmove(l->f + at, l->f + at + 1, (l->n - at) * sizeof *l->f);
}

/* A list has room for CHANGES_MAX more. */
static void enter(struct lm_kn_top_list *l, struct lm_follower f)
{
    uint32_t at = place(l, &f);
    if (at == l->n && !l->all)
        return; /* after the cut */
    memmove(l->f + at + 1, l->f + at, (l->n - at) * sizeof *l->f);
    l->f[at] = f;
    l->n++;
}

/* A copy with the changes; NULL if there is no memory, or a list has become too short to be of use. */
static struct lm_kn_top *changed(const struct lm_kn_top *t, const struct lm_kn_head *now,
                                 const struct lm_kn_change *c, size_t n)
{
    struct lm_kn_top *out = cht_calloc(1, sizeof *out);
    if (out == NULL)
        return NULL;
    *out = (struct lm_kn_top){.id = now->id, .generation = now->generation, .keep = t->keep, .users = 1};
    bool ok = true;
    for (unsigned i = 0; i < LM_KN_TOP_LISTS; i++) {
        struct lm_kn_top_list *l = &out->list[i];
        *l = t->list[i];
        l->f = cht_malloc(((size_t)l->n + n + 1) * sizeof *l->f);
        if (l->f == NULL)
            ok = false;
        else if (l->n > 0)
            memcpy(l->f, t->list[i].f, l->n * sizeof *l->f);
    }
    for (size_t i = 0; i < n && ok; i++) {
        if (c[i].before > 0)
            leave(&out->list[list_of(c[i].before)], (struct lm_follower){c[i].token, c[i].before});
        if (c[i].after > 0)
            enter(&out->list[list_of(c[i].after)], (struct lm_follower){c[i].token, c[i].after});
    }
    for (unsigned i = 0; i < LM_KN_TOP_LISTS && ok; i++)
        ok = out->list[i].all || (out->list[i].n >= t->keep && out->list[i].n < t->keep * 4 * SLACK);
    if (ok) {
        out->factor = t->factor;
        make_table(out);
        return out;
    }
    top_free(out);
    return NULL;
}

void lm_kn_top_update(struct lm_engine *e, struct lm_kn_live *l, const struct lm_kn_head *old,
                      const struct lm_kn_head *now, const struct lm_kn_change *c, size_t n)
{
    struct lm_kn_top *t = lm_kn_top_get(e, l, old, 0);
    struct lm_kn_top *next = t != NULL && n <= CHANGES_MAX ? changed(t, now, c, n) : NULL;
    cht_mutex_lock(&e->mu);
    unuse_top(t);
    unuse_top(l->top);
    l->top = next;
    cht_mutex_unlock(&e->mu);
}

/* ---- from all followers -------------------------------------------------------------------------------------- */

/* Keeps the best of a list that has become too long. */
static void cut(struct lm_kn_topper *t, unsigned i)
{
    qsort(t->f[i], t->n[i], sizeof *t->f[i], compare);
    size_t most = (size_t)t->keep * SLACK;
    if (t->n[i] > most) {
        t->n[i] = most;
        t->cut[i] = true;
    }
}

enum cht_rc lm_kn_topper_offer(struct lm_kn_topper *t, uint32_t token, uint32_t a, struct cht_err *err)
{
    unsigned i = list_of(a);
    if (t->n[i] == t->cap[i] && t->n[i] >= (size_t)t->keep * 2 * SLACK)
        cut(t, i);
    if (t->n[i] == t->cap[i]) {
        size_t cap = t->cap[i] == 0 ? 256 : t->cap[i] * 2, most = (size_t)t->keep * 2 * SLACK;
        cap = cap > most ? most : cap;
        struct lm_follower *f = cht_realloc(t->f[i], cap * sizeof *f);
        if (f == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu tokens", cap);
        t->f[i] = f;
        t->cap[i] = cap;
    }
    t->f[i][t->n[i]++] = (struct lm_follower){token, a};
    return CHT_OK;
}

struct lm_kn_top *lm_kn_topper_end(struct lm_kn_topper *t, const struct lm_kn_head *h, struct cht_err *err)
{
    struct lm_kn_top *out = cht_calloc(1, sizeof *out);
    if (out == NULL) {
        (void)CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the most frequent tokens");
        return NULL;
    }
    *out = (struct lm_kn_top){.id = h->id, .generation = h->generation, .keep = t->keep};
    for (unsigned i = 0; i < LM_KN_TOP_LISTS; i++) {
        if (t->n[i] > 0)
            cut(t, i);
        out->list[i] = (struct lm_kn_top_list){t->f[i], (uint32_t)t->n[i], !t->cut[i]};
        t->f[i] = NULL;
    }
    cht_os_random(&out->factor, sizeof out->factor);
    out->factor |= 1;
    make_table(out);
    return out;
}

void lm_kn_topper_free(struct lm_kn_topper *t)
{
    for (unsigned i = 0; i < LM_KN_TOP_LISTS; i++)
        cht_free(t->f[i]);
    *t = (struct lm_kn_topper){0};
}
