/* parents: see parents.h. */
#include "lm/parents.h"

#include <string.h>

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/prefetch.h"
#include "os/io.h"

static size_t place(const struct cht_sip_key *key, uint64_t name, size_t slots)
{
    return (size_t)cht_siphash_u64(key, name) & (slots - 1);
}

static struct lm_parent_slot *probe(const struct lm_parents *p, const struct lm_parent_part *part,
                                    uint64_t name)
{
    size_t at = place(&p->key, name, part->slots);
    while (part->slot[at].n > 0 && part->slot[at].name != name)
        at = (at + 1) & (part->slots - 1);
    return &part->slot[at];
}

/* May that many more bytes be held? */
static bool take(struct lm_parents *p, size_t bytes)
{
    if (atomic_fetch_add_explicit(&p->bytes, bytes, memory_order_relaxed) + bytes <= p->memory)
        return true;
    atomic_fetch_sub_explicit(&p->bytes, bytes, memory_order_relaxed);
    return false;
}

static bool grow_slots(struct lm_parents *p, struct lm_parent_part *part)
{
    struct lm_parent_part bigger = {.slots = part->slots == 0 ? 16 : part->slots * 2};
    if (!take(p, (bigger.slots - part->slots) * sizeof *bigger.slot))
        return false;
    bigger.slot = cht_calloc(bigger.slots, sizeof *bigger.slot);
    if (bigger.slot == NULL)
        return false;
    for (size_t i = 0; i < part->slots; i++) {
        if (part->slot[i].n > 0)
            *probe(p, &bigger, part->slot[i].name) = part->slot[i];
    }
    cht_free(part->slot);
    part->slot = bigger.slot;
    part->slots = bigger.slots;
    return true;
}

static bool grow_followers(struct lm_parents *p, struct lm_parent_part *part, size_t need)
{
    size_t cap = need < 64 ? 64 : need + need / 2;
    if (cap > UINT32_MAX || !take(p, (cap - part->cap) * 5))
        return false;
    uint32_t *token = cht_realloc(part->token, cap * sizeof *token);
    if (token != NULL)
        part->token = token;
    uint8_t *q = token != NULL ? cht_realloc(part->q, cap) : NULL;
    if (q == NULL)
        return false;
    part->q = q;
    part->cap = cap;
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ */

struct lm_parents *lm_parents_new(size_t memory)
{
    struct lm_parents *p = cht_calloc(1, sizeof *p);
    if (p != NULL) {
        p->memory = memory;
        cht_os_random(&p->key, sizeof p->key);
    }
    return p;
}

void lm_parents_free(struct lm_parents *p)
{
    for (size_t i = 0; p != NULL && i < 256; i++) {
        cht_free(p->part[i].slot);
        cht_free(p->part[i].token);
        cht_free(p->part[i].q);
    }
    cht_free(p);
}

void lm_parents_add(struct lm_parents *p, const uint8_t name[LM_HASH_SIZE], const uint32_t *token,
                    const uint8_t *q, uint32_t n)
{
    struct lm_parent_part *part = &p->part[name[0]];
    if (n == 0)
        return;
    bool fits = p->memory > 0 && !atomic_load_explicit(&p->incomplete, memory_order_relaxed);
    if (fits && (part->contexts + 1) * 8 > part->slots * 6)
        fits = grow_slots(p, part);
    if (fits && part->n + n > part->cap)
        fits = grow_followers(p, part, part->n + n);
    if (!fits) {
        atomic_store_explicit(&p->incomplete, true, memory_order_relaxed);
        return;
    }
    memcpy(part->token + part->n, token, n * sizeof *token);
    memcpy(part->q + part->n, q, n);
    uint64_t key = cht_get64(name);
    *probe(p, part, key) = (struct lm_parent_slot){key, (uint32_t)part->n, n};
    part->contexts++;
    part->n += n;
}

void lm_parents_prefetch(const struct lm_parents *p, const uint8_t name[LM_HASH_SIZE])
{
    const struct lm_parent_part *part = &p->part[name[0]];
    if (part->slots > 0)
        cht_prefetch(&part->slot[place(&p->key, cht_get64(name), part->slots)]);
}

struct lm_parent lm_parents_find(const struct lm_parents *p, const uint8_t name[LM_HASH_SIZE])
{
    const struct lm_parent_part *part = &p->part[name[0]];
    if (part->slots == 0)
        return (struct lm_parent){NULL, NULL, 0};
    const struct lm_parent_slot *s = probe(p, part, cht_get64(name));
    return (struct lm_parent){part->token + s->at, part->q + s->at, s->n};
}
