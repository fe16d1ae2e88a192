/* words: see words.h. */
#include "lm/words.h"

#include <string.h>

#include "base/alloc.h"
#include "base/literal.h"
#include "cheetah/scan.h"
#include "lm/counts.h"
#include "lm/names.h"
#include "os/io.h"
#include "reduce/payload.h"

#define SLOTS_MIN 256u
#define VOC LM_LENGTH(LM_VOC)
#define TOK LM_LENGTH(LM_TOK)
#define TOKEN sizeof(uint32_t)
_Static_assert(LM_WORD_MAX <= CHT_MANY_VALUE_MAX, "a word is the value of an operation of many");

static bool is_white(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static struct cht_str word_of(const struct lm_words *w, const struct lm_words_entry *e)
{
    return (struct cht_str){w->bytes + e->at, e->n};
}

static uint32_t *probe(const struct lm_words *w, const char *word, size_t n)
{
    size_t at = (size_t)cht_siphash(&w->key, word, n) & (w->slots - 1);
    for (; w->slot[at] != 0; at = (at + 1) & (w->slots - 1)) {
        const struct lm_words_entry *e = &w->w[w->slot[at] - 1];
        if (e->n == n && memcmp(w->bytes + e->at, word, n) == 0)
            break;
    }
    return &w->slot[at];
}

static bool grow_slots(struct lm_words *w)
{
    struct lm_words bigger = *w;
    bigger.slots = w->slots == 0 ? SLOTS_MIN : w->slots * 2;
    bigger.slot = cht_calloc(bigger.slots, sizeof *bigger.slot);
    if (bigger.slot == NULL)
        return false;
    if (w->slots == 0)
        cht_os_random(&bigger.key, sizeof bigger.key);
    for (size_t i = 0; i < w->n; i++)
        *probe(&bigger, (const char *)w->bytes + w->w[i].at, w->w[i].n) = (uint32_t)i + 1;
    cht_free(w->slot);
    *w = bigger;
    return true;
}

static bool grow_entries(struct lm_words *w, size_t n)
{
    if (w->n == w->cap) {
        size_t cap = w->cap == 0 ? 64 : w->cap * 2;
        struct lm_words_entry *p = cht_realloc(w->w, cap * sizeof *p);
        if (p == NULL)
            return false;
        w->w = p;
        w->cap = cap;
    }
    if (w->len + n > w->bytes_cap) {
        size_t cap = (w->len + n) * 2;
        uint8_t *p = cht_realloc(w->bytes, cap);
        if (p == NULL)
            return false;
        w->bytes = p;
        w->bytes_cap = cap;
    }
    return true;
}

static enum cht_rc next_token(uint32_t *token, const uint32_t not [2], struct cht_err *err)
{
    enum cht_rc rc;
    do {
        rc = lm_words_next(token, err);
    } while (rc == CHT_OK && (*token == not [0] || *token == not [1]));
    return rc;
}

/* lm_load_fn: the token of each word, and then the word of each token. */
static bool make_pair(const void *ctx, size_t i, uint8_t *room, struct cht_op *op)
{
    const struct lm_words *w = ctx;
    const struct lm_words_entry *e = &w->w[i < w->n ? i : i - w->n];
    if (e->known)
        return false;
    op->kind = CHT_OP_PAIR_PUT;
    if (i < w->n) {
        uint8_t *token = (uint8_t *)CHT_PUT(room, LM_VOC) + e->n;
        memcpy(room + VOC, w->bytes + e->at, e->n);
        reduce_payload_put32(token, e->token);
        op->name = (struct cht_str){room, VOC + e->n};
        op->value = (struct cht_str){token, TOKEN};
    } else {
        reduce_payload_put32((uint8_t *)CHT_PUT(room, LM_TOK), e->token);
        op->name = (struct cht_str){room, TOK + TOKEN};
        op->value = word_of(w, e);
    }
    return true;
}

/* ------------------------------------------------------------------------------------------------------------ */

size_t lm_word_next(const char **p, const char *end)
{
    while (*p < end && is_white(**p))
        ++*p;
    const char *stop = *p;
    while (stop < end && !is_white(*stop))
        stop++;
    return (size_t)(stop - *p);
}

enum cht_rc lm_words_last(struct cht_store *s, uint32_t *token, struct cht_err *err)
{
    struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .prefix = {(const uint8_t *)LM_TOK, TOK}, .reverse = true, .workers = 1};
    struct cht_scan *scan = NULL;
    struct cht_entry e;
    size_t n = 1;
    *token = 0;
    enum cht_rc rc = cht_scan_open(s, &cfg, &scan, err);
    while (rc == CHT_OK && n > 0) {
        rc = cht_scan_next(scan, &e, 1, &n, err);
        if (rc != CHT_OK || n == 0 || e.name_len != TOK + 4)
            continue;
        *token = reduce_payload_get32(e.name + TOK);
        n = 0;
    }
    cht_scan_close(scan);
    return rc;
}

enum cht_rc lm_words_next(uint32_t *token, struct cht_err *err)
{
    if (*token >= LM_WORD_UNKNOWN - 1)
        return CHT_FAIL(err, CHT_KEYS_EXHAUSTED, "all tokens have been given out");
    ++*token;
    return CHT_OK;
}

enum cht_rc lm_word_token(struct cht_store *s, struct cht_str word, uint32_t *token, struct cht_buf *buf,
                          struct cht_err *err)
{
    uint8_t text[CHT_NAME_MAX];
    uint64_t key;
    uint32_t size;
    if (word.n == 0 || word.n > LM_WORD_MAX)
        return CHT_PAIR_NOT_FOUND;
    memcpy(CHT_PUT(text, LM_VOC), word.p, word.n);
    struct cht_str name = {text, VOC + word.n};
    enum cht_rc rc = cht_store_pair_value(s, name, &key, buf, &size, err);
    if (rc != CHT_OK)
        return rc;
    if (size != sizeof *token)
        return size == 0 ? CHT_PAIR_NOT_FOUND : lm_malformed(name, size, "token of a word", err);
    *token = reduce_payload_get32(buf->data);
    return CHT_OK;
}

enum cht_rc lm_word_text(struct cht_store *s, uint32_t token, struct cht_buf *buf, struct cht_err *err)
{
    uint8_t text[TOK + 4];
    uint64_t key;
    uint32_t size;
    reduce_payload_put32((uint8_t *)CHT_PUT(text, LM_TOK), token);
    enum cht_rc rc = cht_store_pair_value(s, (struct cht_str){text, sizeof text}, &key, buf, &size, err);
    return rc == CHT_OK && size == 0 ? CHT_PAIR_NOT_FOUND : rc;
}

bool lm_words_find(const struct lm_words *w, const char *word, size_t n, uint32_t *entry)
{
    const uint32_t *slot = w->slots > 0 ? probe(w, word, n) : NULL;
    if (slot == NULL || *slot == 0)
        return false;
    *entry = *slot - 1;
    return true;
}

enum cht_rc lm_words_enter(struct lm_words *w, const char *word, size_t n, uint32_t *entry,
                           struct cht_err *err)
{
    if (n == 0 || n > LM_WORD_MAX)
        return CHT_FAIL(err, CHT_INVALID_TOKENS, "a word has 1 to %u bytes, one has %zu", LM_WORD_MAX, n);
    if (lm_words_find(w, word, n, entry))
        return CHT_OK;
    if (!grow_entries(w, n) || ((w->n + 1) * 8 > w->slots * 5 && !grow_slots(w)))
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu words", w->n + 1);
    memcpy(w->bytes + w->len, word, n);
    w->w[w->n] = (struct lm_words_entry){.at = w->len, .n = (uint32_t)n};
    w->len += n;
    *probe(w, word, n) = (uint32_t)w->n + 1;
    *entry = (uint32_t)w->n++;
    return CHT_OK;
}

size_t lm_words_memory(const struct lm_words *w)
{
    return w->cap * sizeof *w->w + w->slots * sizeof *w->slot + w->bytes_cap;
}

static enum cht_rc resolve_one(struct lm_words *w, struct cht_store *s, struct lm_words_entry *e,
                               struct cht_buf *buf, struct cht_err *err)
{
    enum cht_rc rc = lm_word_token(s, word_of(w, e), &e->token, buf, err);
    e->known = rc == CHT_OK;
    if (rc == CHT_PAIR_NOT_FOUND && !e->wanted)
        return CHT_FAIL(err, CHT_NOT_COUNTED, "the word '%.*s' was never counted", e->n < 60 ? (int)e->n : 60,
                        (const char *)w->bytes + e->at);
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}

enum cht_rc lm_words_resolve(struct lm_words *w, struct cht_store *s, const uint32_t not [2], size_t *fresh,
                             struct cht_err *err)
{
    uint32_t next = 0;
    struct cht_buf buf = {0};
    enum cht_rc rc = CHT_OK;
    *fresh = 0;
    for (size_t i = 0; i < w->n && rc == CHT_OK; i++) {
        struct lm_words_entry *e = &w->w[i];
        rc = resolve_one(w, s, e, &buf, err);
        if (rc == CHT_OK && e->known && (e->token == not [0] || e->token == not [1]))
            rc = CHT_FAIL(err, CHT_MALFORMED_PAYLOAD, "the word '%.*s' has the token of bos or eos",
                          e->n < 60 ? (int)e->n : 60, (const char *)w->bytes + e->at);
        if (rc != CHT_OK || e->known)
            continue;
        if ((*fresh)++ == 0) {
            rc = lm_words_last(s, &next, err);
            next = next < LM_WORD_FIRST ? LM_WORD_FIRST - 1 : next;
        }
        if (rc == CHT_OK)
            rc = next_token(&next, not, err);
        e->token = next;
    }
    cht_buf_free(&buf);
    return rc;
}

void lm_words_load(const struct lm_words *w, struct lm_load *l)
{
    uint64_t bytes = 0;
    size_t longest = 0;
    bool any = false;
    for (size_t i = 0; i < w->n; i++) {
        const struct lm_words_entry *e = &w->w[i];
        if (e->known)
            continue;
        any = true;
        bytes += VOC + TOK + 2 * ((uint64_t)e->n + TOKEN);
        longest = e->n > longest ? e->n : longest;
    }
    if (any)
        lm_load_add(l, 2 * w->n, bytes, VOC + longest + TOKEN, make_pair, w);
}

void lm_words_free(struct lm_words *w)
{
    cht_free(w->w);
    cht_free(w->slot);
    cht_free(w->bytes);
    *w = (struct lm_words){0};
}
