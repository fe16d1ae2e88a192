/* expiry: see expiry.h. */
#include "store/expiry.h"

#include "base/bytes.h"
#include "store/pagefile.h"

#include <string.h>

#define TIME 6u /* bytes in front of a name in DUE */

/* The entry of DUE. */
struct due {
    uint8_t bytes[CHT_NAME_MAX];
    size_t n;
};

static void put_time(uint8_t *p, uint64_t at)
{
    for (unsigned i = 0; i < TIME; i++)
        p[i] = (uint8_t)(at >> (8 * (TIME - 1 - i)));
}

static uint64_t get_time(const uint8_t *p)
{
    uint64_t at = 0;
    for (unsigned i = 0; i < TIME; i++)
        at = at << 8 | p[i];
    return at;
}

static void make_due(struct due *d, uint64_t at, struct cht_str name)
{
    size_t n = name.n < CHT_EXPIRY_NAME ? name.n : CHT_EXPIRY_NAME;
    put_time(d->bytes, at);
    memcpy(d->bytes + TIME, name.p, n);
    d->n = TIME + n;
}

static struct cht_str bytes_of(const struct due *d) { return (struct cht_str){d->bytes, d->n}; }

/* The first name under a prefix that ends at `at`, by an iterator; CHT_PAIR_NOT_FOUND. */
static enum cht_rc find_same(struct cht_pagefile *pairs, struct cht_str prefix, uint64_t at, uint8_t *name,
                             size_t *len, struct cht_err *err)
{
    struct cht_trie_iter *it;
    enum cht_rc rc = cht_trie_iter_new(&it, err);
    if (rc != CHT_OK)
        return rc;
    cht_trie_iter_use(it, CHT_TRIE_EXPIRY);
    rc = cht_trie_iter_seek(it, pairs, prefix.p, prefix.n, NULL, 0, false, err);
    while (rc == CHT_OK) {
        const uint8_t *p;
        uint64_t its;
        rc = cht_trie_iter_next(it, &p, len, &its, err);
        if (rc != CHT_OK || its != at)
            continue;
        memcpy(name, p, *len);
        break;
    }
    cht_trie_iter_free(it);
    return rc;
}

/* The entry of DUE of a name that does not end then any more, unless it stands for others, too. */
static enum cht_rc drop_due(struct cht_pagefile *pairs, struct cht_str name, uint64_t at, struct cht_err *err)
{
    struct due d;
    uint64_t old;
    make_due(&d, at, name);
    if (name.n >= CHT_EXPIRY_NAME) {
        uint8_t other[CHT_NAME_MAX];
        size_t n;
        enum cht_rc rc = find_same(pairs, (struct cht_str){name.p, CHT_EXPIRY_NAME}, at, other, &n, err);
        if (rc != CHT_PAIR_NOT_FOUND)
            return rc;
    }
    enum cht_rc rc = cht_trie_del_in(pairs, CHT_TRIE_DUE, bytes_of(&d), &old, err);
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}

/* What an entry of EXPIRY must have; NULL: it does. */
static const char *wrong_end(struct cht_pagefile *pairs, struct cht_str name, uint64_t at)
{
    struct due d;
    uint64_t ignored;
    make_due(&d, at, name);
    if (cht_trie_get(pairs, name.p, name.n, &ignored, NULL) != CHT_OK)
        return "a name ends that is no pair";
    return cht_trie_get_in(pairs, CHT_TRIE_DUE, bytes_of(&d), &ignored, NULL) != CHT_OK
               ? "a pair ends that is not in the order of time"
               : NULL;
}

/* Likewise of DUE. */
static const char *wrong_due(struct cht_pagefile *pairs, struct cht_str due)
{
    uint8_t name[CHT_NAME_MAX];
    size_t len;
    uint64_t at = 0, time = due.n > TIME ? get_time(due.p) : 0;
    struct cht_str begin = {due.p + TIME, due.n - TIME};
    if (due.n <= TIME)
        return "a time without a name";
    if (cht_trie_get_in(pairs, CHT_TRIE_EXPIRY, begin, &at, NULL) == CHT_OK && at == time)
        return NULL;
    return due.n == CHT_NAME_MAX && find_same(pairs, begin, time, name, &len, NULL) == CHT_OK
               ? NULL
               : "a time for a pair that does not end then";
}

static enum cht_rc check_map(struct cht_pagefile *pairs, enum cht_trie_map map,
                             void (*bad)(void *ctx, uint64_t off, const char *what), void *ctx,
                             struct cht_err *err)
{
    struct cht_trie_iter *it;
    const uint8_t *p;
    size_t len;
    uint64_t at;
    enum cht_rc rc = cht_trie_iter_new(&it, err);
    if (rc != CHT_OK)
        return rc;
    cht_trie_iter_use(it, map);
    rc = cht_trie_iter_seek(it, pairs, NULL, 0, NULL, 0, false, err);
    while (rc == CHT_OK && (rc = cht_trie_iter_next(it, &p, &len, &at, err)) == CHT_OK) {
        struct cht_str entry = {p, len};
        const char *what = map == CHT_TRIE_EXPIRY ? wrong_end(pairs, entry, at) : wrong_due(pairs, entry);
        if (what != NULL)
            bad(ctx, 0, what);
    }
    cht_trie_iter_free(it);
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}

/* -------------------------------------------------------------------------------------------------------------------- */

enum cht_rc cht_expiry_check(struct cht_pagefile *pairs,
                             void (*bad)(void *ctx, uint64_t off, const char *what), void *ctx,
                             struct cht_err *err)
{
    if (!cht_expiry_any(pairs))
        return CHT_OK;
    enum cht_rc rc = check_map(pairs, CHT_TRIE_EXPIRY, bad, ctx, err);
    return rc == CHT_OK ? check_map(pairs, CHT_TRIE_DUE, bad, ctx, err) : rc;
}

enum cht_rc cht_expiry_make(struct cht_pagefile *pairs, struct cht_err *err)
{
    struct cht_err local;
    err = err != NULL ? err : &local;
    if (cht_expiry_any(pairs))
        return CHT_OK;
    enum cht_rc rc = cht_trie_make(pairs, CHT_TRIE_DUE, err);
    if (rc == CHT_OK)
        rc = cht_trie_make(pairs, CHT_TRIE_EXPIRY, err);
    uint8_t *head = rc == CHT_OK ? cht_page_write(pairs, 0, err) : NULL;
    if (head == NULL)
        return err->code;
    cht_put32(head + 8, CHT_FORMAT_EXPIRY);
    return CHT_OK;
}

uint64_t cht_expiry_clock(struct cht_pagefile *pairs)
{
    const uint8_t *head = cht_page_read(pairs, 0, NULL);
    return head != NULL && cht_get32(head + 8) >= CHT_FORMAT_EXPIRY ? cht_get48(head + CHT_TRIE_MAPS_END) : 0;
}

enum cht_rc cht_expiry_set_clock(struct cht_pagefile *pairs, uint64_t at, struct cht_err *err)
{
    struct cht_err local;
    err = err != NULL ? err : &local;
    if (at <= cht_expiry_clock(pairs))
        return CHT_OK;
    uint8_t *head = cht_page_write(pairs, 0, err);
    if (head == NULL)
        return err->code;
    cht_put48(head + CHT_TRIE_MAPS_END, at);
    return CHT_OK;
}

uint64_t cht_expiry_count(struct cht_pagefile *pairs)
{
    uint64_t n = 0;
    if (!cht_expiry_any(pairs) ||
        cht_trie_count_in(pairs, CHT_TRIE_EXPIRY, (struct cht_str){NULL, 0}, &n, NULL) != CHT_OK)
        return 0;
    return n;
}

enum cht_rc cht_expiry_get(struct cht_pagefile *pairs, struct cht_str name, uint64_t *at, struct cht_err *err)
{
    *at = 0;
    if (!cht_expiry_any(pairs))
        return CHT_OK;
    enum cht_rc rc = cht_trie_get_in(pairs, CHT_TRIE_EXPIRY, name, at, err);
    if (rc == CHT_PAIR_NOT_FOUND)
        *at = 0;
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}

enum cht_rc cht_expiry_set(struct cht_pagefile *pairs, struct cht_str name, uint64_t at, struct cht_err *err)
{
    uint64_t old = 0, ignored;
    struct due d;
    enum cht_rc rc;
    if (at == 0)
        rc = cht_trie_del_in(pairs, CHT_TRIE_EXPIRY, name, &old, err);
    else
        rc = cht_trie_set_in(pairs, CHT_TRIE_EXPIRY, name, at, &old, err);
    if (rc == CHT_PAIR_NOT_FOUND)
        return CHT_OK;
    if (rc == CHT_OK && old != 0 && old != at)
        rc = drop_due(pairs, name, old, err);
    if (rc != CHT_OK || at == 0 || old == at)
        return rc;
    make_due(&d, at, name);
    return cht_trie_set_in(pairs, CHT_TRIE_DUE, bytes_of(&d), 1, &ignored, err);
}

enum cht_rc cht_expiry_drop(struct cht_pagefile *pairs, uint64_t at, struct cht_str name, struct cht_err *err)
{
    struct due d;
    uint64_t ignored;
    make_due(&d, at, name);
    return cht_trie_del_in(pairs, CHT_TRIE_DUE, bytes_of(&d), &ignored, err);
}

enum cht_rc cht_expiry_forget(struct cht_pagefile *pairs, struct cht_str prefix, struct cht_err *err)
{
    struct cht_trie_iter *it;
    uint8_t name[CHT_NAME_MAX];
    if (!cht_expiry_any(pairs))
        return CHT_OK;
    enum cht_rc rc = cht_trie_iter_new(&it, err);
    if (rc != CHT_OK)
        return rc;
    cht_trie_iter_use(it, CHT_TRIE_EXPIRY);
    while (rc == CHT_OK) { /* a change ends the iteration: each begins anew, and finds the next one first */
        const uint8_t *p;
        size_t len;
        uint64_t at;
        rc = cht_trie_iter_seek(it, pairs, prefix.p, prefix.n, NULL, 0, false, err);
        if (rc == CHT_OK)
            rc = cht_trie_iter_next(it, &p, &len, &at, err);
        if (rc != CHT_OK)
            break;
        memcpy(name, p, len);
        rc = cht_expiry_set(pairs, (struct cht_str){name, len}, 0, err);
    }
    cht_trie_iter_free(it);
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}

enum cht_rc cht_expiry_first(struct cht_pagefile *pairs, uint64_t *at, uint8_t *name, size_t *len,
                             struct cht_err *err)
{
    struct cht_trie_iter *it;
    *at = 0;
    if (!cht_expiry_any(pairs))
        return CHT_OK;
    enum cht_rc rc = cht_trie_iter_new(&it, err);
    if (rc != CHT_OK)
        return rc;
    const uint8_t *p;
    size_t n = 0;
    uint64_t one;
    cht_trie_iter_use(it, CHT_TRIE_DUE);
    rc = cht_trie_iter_seek(it, pairs, NULL, 0, NULL, 0, false, err);
    if (rc == CHT_OK)
        rc = cht_trie_iter_next(it, &p, &n, &one, err);
    if (rc == CHT_OK && n <= TIME)
        rc = CHT_DAMAGED(err, "%s: a pair ends that has no name", cht_pf_path(pairs));
    if (rc == CHT_OK) {
        *at = get_time(p);
        *len = n - TIME;
        memcpy(name, p + TIME, *len);
    }
    cht_trie_iter_free(it);
    if (rc == CHT_OK && n == CHT_NAME_MAX) /* it may stand for longer ones */
        rc = find_same(pairs, (struct cht_str){name, CHT_EXPIRY_NAME}, *at, name, len, err);
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}
