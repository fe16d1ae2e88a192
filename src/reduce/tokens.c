/* tokens: see tokens.h. Open addressing, at most half full. */
#include "reduce/tokens.h"

#include "base/alloc.h"

#include <string.h>

#define TOKENS_FIRST 1024u

static size_t place(const struct reduce_tokens *t, uint32_t token)
{
    size_t i = (size_t)((token * UINT64_C(0x9E3779B97F4A7C15)) >> 32) & (t->cap - 1);
    while (t->value[i] != 0 && t->token[i] != token)
        i = (i + 1) & (t->cap - 1);
    return i;
}

static enum cht_rc grow(struct reduce_run *run, struct reduce_tokens *t, struct cht_err *err)
{
    struct reduce_tokens more = {.cap = t->cap > 0 ? 2 * t->cap : TOKENS_FIRST, .n = t->n};
    const size_t each = sizeof *more.token + sizeof *more.value;
    enum cht_rc rc = reduce_take_memory(run, more.cap * each, err);
    if (rc != CHT_OK)
        return rc;
    more.token = cht_calloc(more.cap, sizeof *more.token);
    more.value = cht_calloc(more.cap, sizeof *more.value);
    if (more.token == NULL || more.value == NULL) {
        reduce_tokens_free(run, &more);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a table of tokens");
    }
    for (size_t i = 0; i < t->cap; i++) {
        if (t->value[i] == 0)
            continue;
        size_t at = place(&more, t->token[i]);
        more.token[at] = t->token[i];
        more.value[at] = t->value[i];
    }
    reduce_tokens_free(run, t);
    *t = more;
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

uint64_t *reduce_tokens_enter(struct reduce_run *run, struct reduce_tokens *t, uint32_t token,
                              struct cht_err *err)
{
    if (2 * (t->n + 1) > t->cap && grow(run, t, err) != CHT_OK)
        return NULL;
    size_t at = place(t, token);
    if (t->value[at] == 0) {
        t->token[at] = token;
        t->n++;
    }
    return &t->value[at];
}

uint64_t reduce_tokens_value(const struct reduce_tokens *t, uint32_t token)
{
    return t->cap > 0 ? t->value[place(t, token)] : 0;
}

void reduce_tokens_free(struct reduce_run *run, struct reduce_tokens *t)
{
    cht_free(t->token);
    cht_free(t->value);
    reduce_give_memory(run, t->cap * (sizeof *t->token + sizeof *t->value));
    *t = (struct reduce_tokens){0};
}

uint64_t reduce_mix_bytes(uint64_t h, struct cht_str s)
{
    size_t i = 0;
    h = reduce_mix(h, s.n);
    for (; i + 8 <= s.n; i += 8) {
        uint64_t v;
        memcpy(&v, s.p + i, sizeof v);
        h = reduce_mix(h, v);
    }
    for (; i < s.n; i++)
        h = reduce_mix(h, s.p[i]);
    return h;
}
