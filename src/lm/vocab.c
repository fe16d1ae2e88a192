/* vocab: see vocab.h. */
#include "lm/vocab.h"

#include "base/alloc.h"
#include "os/io.h"

static struct lm_word *probe(const struct lm_vocab *v, uint32_t token)
{
    size_t at = (size_t)cht_siphash_u64(&v->key, token) & (v->slots - 1);
    while (v->slot[at].used && v->slot[at].token != token)
        at = (at + 1) & (v->slots - 1);
    return &v->slot[at];
}

static void give_back(struct lm_vocab *v)
{
    if (v->book != NULL && v->slots > 0)
        v->book->give(v->book->ctx, v->slots * sizeof *v->slot);
    cht_free(v->slot);
}

static bool grow(struct lm_vocab *v, struct cht_err *err)
{
    struct lm_vocab bigger = *v;
    bigger.slots = v->slots == 0 ? 1024 : v->slots * 2;
    v->rc = v->book != NULL ? v->book->take(v->book->ctx, bigger.slots * sizeof *v->slot, err) : CHT_OK;
    if (v->rc != CHT_OK)
        return false;
    if (v->slots == 0)
        cht_os_random(&bigger.key, sizeof bigger.key);
    bigger.slot = cht_calloc(bigger.slots, sizeof *bigger.slot);
    if (bigger.slot == NULL) {
        v->rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a vocabulary of %zu tokens", v->words);
        if (v->book != NULL)
            v->book->give(v->book->ctx, bigger.slots * sizeof *v->slot);
        return false;
    }
    for (size_t i = 0; i < v->slots; i++) {
        if (v->slot[i].used)
            *probe(&bigger, v->slot[i].token) = v->slot[i];
    }
    give_back(v);
    *v = bigger;
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ */

const struct lm_word *lm_vocab_find(const struct lm_vocab *v, uint32_t token)
{
    const struct lm_word *w = v->slots > 0 ? probe(v, token) : NULL;
    return w != NULL && w->used ? w : NULL;
}

struct lm_word *lm_vocab_enter(struct lm_vocab *v, uint32_t token, struct cht_err *err)
{
    struct lm_word *w = v->slots > 0 ? probe(v, token) : NULL;
    if (w != NULL && w->used)
        return w;
    if (w == NULL || (v->words + 1) * 8 > v->slots * 5) {
        if (!grow(v, err))
            return NULL;
        w = probe(v, token);
    }
    *w = (struct lm_word){.token = token, .used = true};
    v->words++;
    return w;
}

void lm_vocab_free(struct lm_vocab *v)
{
    give_back(v);
    *v = (struct lm_vocab){0};
}
