/* grams: see grams.h. A step of one order:
 *
 *   S1 each window is looked up or entered in the table; the gram's number replaces that of the shorter window at the
 *      same token; a context met for the first time goes into `used`
 *   S2 the slots are put in order: a counting sort by context, then each context's followers by token
 */
#include "lm/grams.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/prefetch.h"
#include "os/io.h"

#define SLOTS_MIN 4096u
#define AHEAD 12u /* windows whose slots are fetched before their turn */

static size_t hash(const struct cht_sip_key *key, uint32_t context, uint32_t token)
{
    return (size_t)cht_siphash_u64(key, (uint64_t)context << 32 | token);
}

static enum cht_rc grow(struct lm_grams *g, struct cht_err *err)
{
    size_t slots = g->slots * 2;
    struct lm_gram_slot *slot = cht_calloc(slots, sizeof *slot);
    if (slot == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a table of %zu n-grams", slots);
    cht_os_huge_pages(slot, slots * sizeof *slot);
    for (size_t i = 0; i < g->slots; i++) {
        if (g->slot[i].id == 0)
            continue;
        size_t at = hash(&g->key, g->slot[i].context, g->slot[i].token) & (slots - 1);
        while (slot[at].id != 0)
            at = (at + 1) & (slots - 1);
        slot[at] = g->slot[i];
    }
    cht_free(g->slot);
    g->slot = slot;
    g->slots = slots;
    return CHT_OK;
}

/* A gram that is new at this slot. */
static enum cht_rc enter(struct lm_grams *g, struct lm_gram_slot *slot, uint32_t context, uint32_t token,
                         uint32_t at, struct cht_err *err)
{
    if (g->grams == g->first_cap) {
        size_t cap = g->first_cap < 1024 ? 2048 : g->first_cap * 2;
        uint32_t *first = cht_realloc(g->first, cap * sizeof *first);
        if (first == NULL)
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu n-grams", cap);
        g->first = first;
        g->first_cap = cap;
    }
    g->first[g->grams] = at;
    *slot = (struct lm_gram_slot){context, token, slot->count, ++g->grams};
    if (g->offset[context] == 0) { /* only a mark during S1 */
        g->offset[context] = 1;
        g->used[g->nused++] = context;
    }
    return (size_t)g->grams * 8 > g->slots * 5 ? grow(g, err) : CHT_OK;
}

/* S1 for one document: windows of `order` tokens, each of which counts `one`. */
static enum cht_rc count_document(struct lm_grams *g, uint32_t from, uint32_t to, uint32_t one,
                                  struct cht_err *err)
{
    const uint32_t *tokens = g->text->tokens;
    uint32_t reach = g->order - 1;
    if (to - from < g->order)
        return CHT_OK;
    uint32_t end = to - reach;
    for (uint32_t i = from; i < end; i++) {
        if (i + AHEAD < end) {
            uint32_t ahead = g->order == 1 ? 0 : g->at_token[i + AHEAD];
            cht_prefetch(&g->slot[hash(&g->key, ahead, tokens[i + AHEAD + reach]) & (g->slots - 1)]);
        }
        uint32_t context = g->order == 1 ? 0 : g->at_token[i], token = tokens[i + reach];
        size_t at = hash(&g->key, context, token) & (g->slots - 1);
        while (g->slot[at].id != 0 && (g->slot[at].context != context || g->slot[at].token != token))
            at = (at + 1) & (g->slots - 1);
        if (g->slot[at].id != 0) {
            g->slot[at].count += one;
            g->at_token[i] = g->slot[at].id - 1;
            continue;
        }
        g->at_token[i] = g->grams;
        g->slot[at].count = one;
        enum cht_rc rc = enter(g, &g->slot[at], context, token, i, err);
        if (rc != CHT_OK)
            return rc;
    }
    return CHT_OK;
}

static int by_token(const void *x, const void *y)
{
    const struct lm_follower *a = x, *b = y;
    return (a->token > b->token) - (a->token < b->token);
}

static void sort_followers(struct lm_follower *f, size_t n)
{
    if (n > 16) {
        qsort(f, n, sizeof *f, by_token);
        return;
    }
    for (size_t i = 1; i < n; i++) {
        struct lm_follower x = f[i];
        size_t at = i;
        for (; at > 0 && f[at - 1].token > x.token; at--)
            f[at] = f[at - 1];
        f[at] = x;
    }
}

/* S2. */
static enum cht_rc arrange(struct lm_grams *g, struct cht_err *err)
{
    g->followers = cht_malloc(((size_t)g->grams + 1) * sizeof *g->followers);
    if (g->followers == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %u followers", g->grams);
    memset(g->offset, 0, ((size_t)g->contexts + 2) * sizeof *g->offset);
    for (size_t i = 0; i < g->slots; i++) {
        if (g->slot[i].id != 0)
            g->offset[g->slot[i].context + 2]++;
    }
    for (size_t c = 2; c < (size_t)g->contexts + 2; c++)
        g->offset[c] += g->offset[c - 1];
    for (size_t i = 0; i < g->slots; i++) { /* offset[c + 1] moves from the start of c to its end */
        if (g->slot[i].id != 0)
            g->followers[g->offset[g->slot[i].context + 1]++] =
                (struct lm_follower){g->slot[i].token, g->slot[i].count};
    }
    for (size_t c = 0; c < g->contexts; c++)
        sort_followers(g->followers + g->offset[c], g->offset[c + 1] - g->offset[c]);
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc lm_grams_begin(struct lm_grams *g, const struct lm_text *text, struct cht_err *err)
{
    *g = (struct lm_grams){.text = text};
    cht_os_random(&g->key, sizeof g->key);
    g->at_token = cht_malloc(((size_t)text->start[text->documents] + 1) * sizeof *g->at_token);
    if (g->at_token == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %u tokens", text->start[text->documents]);
    return CHT_OK;
}

enum cht_rc lm_grams_next(struct lm_grams *g, struct cht_err *err)
{
    g->contexts = g->order == 0 ? 1 : g->grams;
    cht_free(g->context_first);
    g->context_first = g->first;
    g->first = NULL;
    g->first_cap = 0;
    g->order++;
    g->grams = g->nused = 0;
    cht_free(g->slot);
    cht_free(g->followers);
    cht_free(g->offset);
    cht_free(g->used);
    g->followers = NULL;
    g->slots = SLOTS_MIN;
    while (g->slots < g->contexts) /* an order has about as many grams as the one before, or more */
        g->slots *= 2;
    g->slot = cht_calloc(g->slots, sizeof *g->slot);
    g->offset = cht_calloc((size_t)g->contexts + 2, sizeof *g->offset);
    g->used = cht_malloc(((size_t)g->contexts + 1) * sizeof *g->used);
    if (g->slot == NULL || g->offset == NULL || g->used == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the n-grams of order %u", g->order);
    cht_os_huge_pages(g->slot, g->slots * sizeof *g->slot);
    enum cht_rc rc = CHT_OK;
    for (size_t d = 0; d < g->text->documents && rc == CHT_OK; d++)
        rc = count_document(g, g->text->start[d], g->text->start[d + 1],
                            g->text->take != NULL && g->text->take[d] != 0 ? UINT32_MAX : 1, err);
    return rc == CHT_OK ? arrange(g, err) : rc;
}

const uint32_t *lm_grams_context(const struct lm_grams *g, uint32_t context)
{
    return g->text->tokens + (g->order == 1 ? 0 : g->context_first[context]);
}

void lm_grams_free(struct lm_grams *g)
{
    cht_free(g->at_token);
    cht_free(g->slot);
    cht_free(g->first);
    cht_free(g->context_first);
    cht_free(g->followers);
    cht_free(g->offset);
    cht_free(g->used);
    *g = (struct lm_grams){0};
}
