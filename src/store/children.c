/* children: the names under a prefix, one level at a time (cheetah/children.h).
 *
 *   C1 of each shard the first name after the cursor is known (a head); shards whose head was used look again
 *   C2 the least head says which child is next; a group is counted in those shards whose head lies in it
 *   C3 the cursor goes after all names of that child: a group's prefix, filled up with ff to the length of the longest name
 */
#include "cheetah/children.h"

#include "base/alloc.h"
#include "store/db_store.h"
#include "store/trie.h"

#include <string.h>

struct head {
    bool known, none; /* none: nothing lies after the cursor */
    size_t len;
    uint64_t key;
    uint8_t name[CHT_NAME_MAX];
};

struct walk {
    struct cht_db *db;
    const struct cht_children_config *cfg;
    struct cht_trie_iter *it;
    struct head *head; /* one a shard */
    size_t cursor_len;
    uint8_t cursor[CHT_NAME_MAX], child[CHT_NAME_MAX];
};

static int compare(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    int c = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return c != 0 ? c : (a_len > b_len) - (a_len < b_len);
}

/* How long the prefix of the group is that a name under cfg->prefix belongs to; 0: it is a child of its own. */
static size_t group_of(const struct cht_children_config *cfg, const uint8_t *name, size_t len)
{
    size_t from = cfg->prefix.n, n = cfg->separator.n;
    if (n == 0)
        return len > from ? from + 1 : 0;
    for (size_t at = from; at + n <= len; at++) {
        if (memcmp(name + at, cfg->separator.p, n) == 0)
            return at + n;
    }
    return 0;
}

static void pass_name(struct walk *w, const uint8_t *name, size_t len)
{
    memcpy(w->cursor, name, len);
    w->cursor_len = len;
}

static void pass_group(struct walk *w, const uint8_t *name, size_t len)
{
    memcpy(w->cursor, name, len);
    memset(w->cursor + len, 0xff, sizeof w->cursor - len);
    w->cursor_len = sizeof w->cursor;
}

static void start_after(struct walk *w)
{
    struct cht_str after = w->cfg->after, prefix = w->cfg->prefix;
    bool below = after.n >= prefix.n && (prefix.n == 0 || memcmp(after.p, prefix.p, prefix.n) == 0);
    size_t group = below && after.n > 0 ? group_of(w->cfg, after.p, after.n) : 0;
    if (group > 0)
        pass_group(w, after.p, group);
    else if (after.n > 0)
        pass_name(w, after.p, after.n);
}

/* C1, in one shard. What was read while a page was lost does not count. */
static enum cht_rc look(struct walk *w, struct cht_shard *sh, struct head *h, struct cht_err *err)
{
    struct cht_str prefix = w->cfg->prefix;
    enum cht_rc rc = cht_db_enter(sh, err);
    if (rc != CHT_OK)
        return rc;
    struct cht_pagefile *pf = cht_shard_pairs(sh);
    const uint8_t *name = NULL;
    uint64_t losses;
    do {
        losses = cht_pf_losses(pf);
        rc = cht_trie_iter_seek(w->it, pf, prefix.p, prefix.n, w->cursor, w->cursor_len, false, err);
        if (rc == CHT_OK)
            rc = cht_trie_iter_next(w->it, &name, &h->len, &h->key, err);
    } while (cht_pf_losses(pf) != losses);
    if (rc == CHT_OK)
        memcpy(h->name, name, h->len);
    cht_rwlock_read_end(&sh->lock);
    h->known = rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND;
    h->none = rc == CHT_PAIR_NOT_FOUND;
    return h->known ? CHT_OK : rc;
}

/* The least head; NULL: there are no more. */
static enum cht_rc least(struct walk *w, const struct head **out, struct cht_err *err)
{
    *out = NULL;
    for (unsigned i = 0; i < w->db->nshards; i++) {
        struct head *h = &w->head[i];
        if (!h->known) {
            enum cht_rc rc = look(w, &w->db->shards[i], h, err);
            if (rc != CHT_OK)
                return rc;
        }
        if (!h->none && (*out == NULL || compare(h->name, h->len, (*out)->name, (*out)->len) < 0))
            *out = h;
    }
    return CHT_OK;
}

/* C2 */
static enum cht_rc count_group(struct walk *w, size_t len, uint64_t *pairs, struct cht_err *err)
{
    *pairs = 0;
    for (unsigned i = 0; i < w->db->nshards; i++) {
        const struct head *h = &w->head[i];
        struct cht_shard *sh = &w->db->shards[i];
        uint64_t n;
        if (h->none || h->len < len || memcmp(h->name, w->child, len) != 0)
            continue;
        enum cht_rc rc = cht_db_enter(sh, err);
        if (rc != CHT_OK)
            return rc;
        rc = cht_trie_count(cht_shard_pairs(sh), w->child, len, &n, err);
        cht_rwlock_read_end(&sh->lock);
        if (rc != CHT_OK)
            return rc;
        *pairs += n;
    }
    return CHT_OK;
}

/* C3: heads that the cursor has passed are looked for again. */
static void forget_passed(struct walk *w)
{
    for (unsigned i = 0; i < w->db->nshards; i++) {
        struct head *h = &w->head[i];
        if (!h->none && compare(h->name, h->len, w->cursor, w->cursor_len) <= 0)
            h->known = false;
    }
}

static enum cht_rc show(struct walk *w, const struct head *h, bool *more, struct cht_err *err)
{
    const struct cht_children_config *cfg = w->cfg;
    struct cht_child c = {.name = {h->name, h->len}, .pairs = 1, .key = h->key};
    size_t group = group_of(cfg, h->name, h->len);
    if (group > 0) {
        memcpy(w->child, h->name, group);
        enum cht_rc rc = count_group(w, group, &c.pairs, err);
        if (rc != CHT_OK)
            return rc;
        if (cfg->separator.n > 0 || c.pairs > 1) {
            c.name = (struct cht_str){w->child, group};
            c.key = 0;
        }
    }
    if (c.pairs > 0) /* else all of it has gone meanwhile */
        *more = cfg->each(cfg->ctx, &c);
    if (group > 0)
        pass_group(w, w->child, group);
    else
        pass_name(w, h->name, h->len);
    forget_passed(w);
    return CHT_OK;
}

static enum cht_rc run(struct walk *w, struct cht_err *err)
{
    const struct head *h;
    bool more = true;
    start_after(w);
    while (more) {
        if (w->cfg->cancel != NULL && atomic_load_explicit(w->cfg->cancel, memory_order_relaxed))
            return CHT_FAIL(err, CHT_CANCELLED, "cancelled");
        enum cht_rc rc = least(w, &h, err);
        if (rc != CHT_OK || h == NULL)
            return rc;
        rc = show(w, h, &more, err);
        if (rc != CHT_OK)
            return rc;
    }
    return CHT_OK;
}

enum cht_rc cht_db_children(struct cht_store *s, const struct cht_children_config *cfg, struct cht_err *err)
{
    struct cht_db *db = cht_db(s);
    struct walk *w = cht_malloc(sizeof *w);
    struct head *heads = cht_calloc(db->nshards, sizeof *heads);
    enum cht_rc rc = CHT_NO_MEMORY;
    if (w == NULL || heads == NULL) {
        (void)CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the children of a prefix");
    } else {
        w->db = db;
        w->cfg = cfg;
        w->head = heads;
        w->cursor_len = 0;
        rc = cht_trie_iter_new(&w->it, err);
        if (rc == CHT_OK) {
            (void)cht_ends_settle(db, NULL); /* it waits */
            rc = run(w, err);
            cht_trie_iter_free(w->it);
        }
    }
    cht_free(heads);
    cht_free(w);
    return rc;
}
