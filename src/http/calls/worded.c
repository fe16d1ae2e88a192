/* worded: see worded.h. */
#include "http/calls/worded.h"

#include "http/feed.h"
#include "http/ndjson.h"
#include "http/params.h"
#include "http/reply.h"

#include "base/alloc.h"
#include "base/b64.h"
#include "base/literal.h"
#include "cheetah/scan.h"
#include "lm/counts.h"
#include "lm/hash.h"
#include "lm/names.h"
#include "reduce/mode.h"
#include "reduce/payload.h"

#include <string.h>

#define BATCH 64u
#define PIECE (64u << 10)  /* of the answer, handed over together */
#define WAITING (1u << 20) /* of it, not taken yet: the job waits */
/* How lines of aggregates begin (mode_totals.c, mode_similar.c). */
#define TOKEN "{\"token\":"
#define PAIR "{\"pair\":\""

/* ---- words ---------------------------------------------------------------------------------------------------------- */

void http_worded_fini(struct http_worded *w)
{
    http_spell_fini(&w->spell);
    cht_buf_free(&w->context);
}

/* After "cnt:2:", "topk:2:" and the like; 0: it is no such name. */
static size_t hash_at(struct cht_str name)
{
    const uint8_t *colon = memchr(name.p, ':', name.n);
    size_t at = colon != NULL ? (size_t)(colon - name.p) : name.n;
    bool ok = at + 3 < name.n && name.p[at + 1] >= '1' && name.p[at + 1] <= '9' && name.p[at + 2] == ':';
    return ok ? at + 3 : 0;
}

void http_worded_context(struct svc_out *o, struct http_worded *w, struct cht_str name)
{
    uint8_t text[CHT_NAME_MAX + LM_LENGTH(LM_CTX)];
    struct reduce_payload in;
    uint64_t key;
    uint32_t size = 0, tokens[255];
    size_t head = hash_at(name);
    if (head == 0 || name.n > CHT_NAME_MAX) /* a payload of links may say anything */
        return;
    memcpy(CHT_PUT(text, LM_CTX), name.p + head, name.n - head);
    struct cht_str ctx = {text, LM_LENGTH(LM_CTX) + name.n - head};
    enum cht_rc rc = cht_store_pair_value(w->spell.store, ctx, &key, &w->context, &size, NULL);
    if (rc != CHT_OK || size == 0 || !reduce_payload_context(w->context.data, size, size, &in))
        return;
    for (uint32_t i = 0; i < in.n; i++)
        tokens[i] = reduce_payload_get32(in.records + (size_t)i * REDUCE_PAYLOAD_CONTEXT_RECORD);
    svc_out_text(o, ",\"words\":");
    http_spell_list(o, &w->spell, tokens, in.n);
}

/* One line, with its line break. */
static enum cht_rc add_words(struct svc_out *o, struct http_worded *w, const char *p, size_t n,
                             struct cht_err *err)
{
    size_t at = CHT_LEN(TOKEN);
    uint64_t v = 0;
    if (CHT_STARTS(p, n, TOKEN)) {
        for (; at < n && p[at] >= '0' && p[at] <= '9'; at++)
            v = v * 10 + (uint64_t)(p[at] - '0');
        svc_out_bytes(o, p, at);
        svc_out_text(o, ",\"word\":");
        http_spell_put(o, &w->spell, (uint32_t)v);
        svc_out_bytes(o, p + at, n - at);
        return w->spell.rc;
    }
    const char *end = CHT_STARTS(p, n, PAIR) ? memchr(p + CHT_LEN(PAIR), '"', n - (CHT_LEN(PAIR))) : NULL;
    uint8_t name[CHT_NAME_MAX + 3];
    size_t len = end != NULL ? (size_t)(end - p) - (CHT_LEN(PAIR)) : 0;
    if (end == NULL || cht_b64_decoded_max(len) > sizeof name ||
        !cht_b64_decode(name, p + CHT_LEN(PAIR), len, &len))
        return CHT_FAIL(err, CHT_IO, "a line of an aggregate that cannot be read"); /* it is ours */
    svc_out_text(o, "{");
    http_ndjson_put_member(o, HTTP_MEMBER_PAIR, (struct cht_str){name, len}, true);
    http_worded_context(o, w, (struct cht_str){name, len});
    svc_out_bytes(o, end + 1, n - (size_t)(end + 1 - p));
    return w->spell.rc;
}

enum cht_rc http_worded_lines(struct svc_out *o, struct http_worded *w, const uint8_t *lines, size_t n,
                              struct cht_err *err)
{
    enum cht_rc rc = http_spell_ends(&w->spell, err);
    if (n == 0) /* lines may be NULL */
        return rc;
    const char *p = (const char *)lines, *stop = p + n;
    while (rc == CHT_OK && p < stop && !o->failed) {
        const char *end = memchr(p, '\n', (size_t)(stop - p));
        size_t line = end != NULL ? (size_t)(end + 1 - p) : (size_t)(stop - p);
        rc = add_words(o, w, p, line, err);
        if (rc != CHT_OK && rc == w->spell.rc)
            *err = w->spell.err;
        p += line;
    }
    if (rc == CHT_OK && o->failed)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the words");
    return rc;
}

enum cht_rc http_worded_name(struct http_worded *w, struct cht_str words, uint8_t out[CHT_NAME_MAX],
                             size_t *n, struct cht_err *err)
{
    uint32_t tokens[LM_ORDER_MAX];
    size_t count = 0, len;
    const char *p = (const char *)words.p, *end = p + words.n;
    while ((len = lm_word_next(&p, end)) > 0) {
        struct cht_str word = {(const uint8_t *)p, len};
        if (count + 1 == LM_ORDER_MAX || len > LM_WORD_MAX)
            return CHT_FAIL(err, CHT_PAIR_NOT_FOUND, "no counts are kept after more than seven words");
        enum cht_rc rc = lm_word_token(w->spell.store, word, &tokens[count++], &w->spell.buf, err);
        if (rc == CHT_PAIR_NOT_FOUND)
            return CHT_FAIL(err, rc, "the vocabulary has no word '%.*s'", (int)(len < 80 ? len : 80), p);
        if (rc != CHT_OK)
            return rc;
        p += len;
    }
    *n = lm_prefix(LM_CNT, (unsigned)count + 1, out);
    lm_context_name(tokens, count, out + *n);
    *n += LM_HASH_SIZE;
    return CHT_OK;
}

void http_worded_malformed(struct svc_out *o, size_t start, struct cht_str payload)
{
    o->n = start;
    svc_out_text(o, ",");
    http_ndjson_put_member(o, HTTP_MEMBER_PAYLOAD, payload, true);
    svc_out_text(o, ",\"problem\":\"malformed_payload\"}\n");
}

/* ---- counts, probabilities, best followers -------------------------------------------------------------------------------- */

/* q, back-off weight or null */
static void put_probability(struct svc_out *o, const uint8_t *p)
{
    uint16_t alpha = reduce_payload_get16(p + 5);
    svc_out_u64(o, p[4]);
    svc_out_text(o, ",");
    if (alpha == REDUCE_PAYLOAD_NO_ALPHA)
        svc_out_text(o, "null");
    else
        svc_out_u64(o, alpha);
}

/* [[token, number, word], ...] of records of `size` bytes, which begin with a token; of probabilities two numbers. */
static void put_records(struct svc_out *o, struct http_worded *w, const struct reduce_payload *in,
                        size_t size)
{
    for (uint32_t i = 0; i < in->n && !o->failed; i++) {
        const uint8_t *p = in->records + (size_t)i * size;
        uint32_t token = reduce_payload_get32(p);
        svc_out_text(o, i > 0 ? ",[" : "[");
        svc_out_u64(o, token);
        svc_out_text(o, ",");
        if (size == REDUCE_PAYLOAD_PROBS_RECORD)
            put_probability(o, p);
        else
            svc_out_u64(o, size == REDUCE_PAYLOAD_COUNTS_RECORD ? reduce_payload_get32(p + 4) : p[4]);
        svc_out_text(o, ",");
        http_spell_put(o, &w->spell, token);
        svc_out_text(o, "]");
        if (o->n >= PIECE && w->flush != NULL && !w->flush(w))
            return;
    }
}

static void put_counts(struct svc_out *o, struct http_worded *w, struct cht_str name, struct cht_str payload)
{
    struct reduce_payload in;
    if (!reduce_payload_counts(payload.p, payload.n, payload.n, &in)) {
        http_worded_malformed(o, o->n, payload);
        return;
    }
    http_worded_context(o, w, name);
    svc_out_format(o, ",\"order\":%u,\"followers\":[", in.order);
    put_records(o, w, &in, REDUCE_PAYLOAD_COUNTS_RECORD);
    svc_out_text(o, "]}\n");
}

static void put_probabilities(struct svc_out *o, struct http_worded *w, struct cht_str name,
                              struct cht_str payload)
{
    struct reduce_payload in;
    if (!reduce_payload_probs(payload.p, payload.n, payload.n, &in)) {
        http_worded_malformed(o, o->n, payload);
        return;
    }
    http_worded_context(o, w, name);
    svc_out_format(o, ",\"order\":%u,\"entries\":[", in.order);
    put_records(o, w, &in, REDUCE_PAYLOAD_PROBS_RECORD);
    svc_out_text(o, "]}\n");
}

static void put_topk(struct svc_out *o, struct http_worded *w, struct cht_str name, struct cht_str payload)
{
    struct reduce_payload in;
    if (!reduce_payload_topk(payload.p, payload.n, payload.n, &in)) {
        http_worded_malformed(o, o->n, payload);
        return;
    }
    http_worded_context(o, w, name);
    svc_out_format(o, ",\"order\":%u,\"ranked\":[", in.order);
    put_records(o, w, &in, REDUCE_PAYLOAD_TOPK_RECORD);
    svc_out_text(o, "]}\n");
}

/* ---- the stream ----------------------------------------------------------------------------------------------------- */

/* What is asked, until a job has it. */
struct asked {
    http_worded_put *put;
    uint64_t limit;
    size_t prefix_n;
    uint8_t prefix[CHT_NAME_MAX];
};

struct words_job {
    struct http_feed feed; /* first */
    struct http_worded worded;
    http_worded_put *put;
    struct cht_scan_config cfg;
    enum http_names names;
    struct svc_out text, last; /* lines; the name of the last one */
    struct cht_buf value;      /* of the line under way */
    uint64_t corrupt;
    uint8_t bytes[]; /* of the configuration */
};

static bool hand_over(struct words_job *j)
{
    http_feed_put(&j->feed, &j->text);
    bool ok = !j->text.failed;
    j->text.n = 0;
    return ok && http_feed_room(&j->feed, WAITING);
}

static bool flush(struct http_worded *w)
{
    return hand_over((struct words_job *)(void *)((char *)w - offsetof(struct words_job, worded)));
}

static enum cht_rc put_entry(struct words_job *j, const struct cht_entry *e, struct cht_err *err)
{
    struct cht_str name = {e->name, e->name_len}, value = {e->value, e->value_len};
    enum cht_rc rc = (e->flags & CHT_ENTRY_CORRUPT) != 0    ? CHT_CORRUPT
                     : (e->flags & CHT_ENTRY_DANGLING) != 0 ? CHT_KEY_NOT_FOUND
                                                            : CHT_OK;
    if (rc == CHT_OK && (e->flags & CHT_ENTRY_LARGE) != 0) {
        uint32_t size;
        rc = cht_store_get(j->feed.db->store, e->key, &j->value, &size, err);
        value = (struct cht_str){j->value.data, j->value.len};
    }
    if (rc != CHT_OK && rc != CHT_KEY_NOT_FOUND && rc != CHT_CORRUPT)
        return rc;
    http_ndjson_put_head(&j->text, name, e->key, true);
    if (rc == CHT_OK)
        j->put(&j->text, &j->worded, name, value);
    else
        svc_out_text(&j->text, rc == CHT_CORRUPT ? ",\"payload\":null,\"error\":\"corrupt_value\"}\n"
                                                 : ",\"payload\":null}\n");
    j->corrupt += rc == CHT_CORRUPT;
    j->feed.count++;
    j->last.n = 0;
    svc_out_bytes(&j->last, name.p, name.n);
    return j->worded.spell.rc;
}

static enum cht_rc show_all(struct words_job *j, bool *more, struct cht_err *err)
{
    struct cht_entry e[BATCH];
    struct cht_scan *scan = NULL;
    size_t n = 1;
    enum cht_rc rc = cht_scan_open(j->feed.db->store, &j->cfg, &scan, err);
    while (rc == CHT_OK && n > 0) {
        rc = cht_scan_next(scan, e, BATCH, &n, err);
        for (size_t i = 0; i < n && rc == CHT_OK; i++) {
            rc = put_entry(j, &e[i], err);
            if (rc == CHT_OK && (j->text.n >= PIECE || j->text.failed) && !hand_over(j))
                rc = CHT_CANCELLED;
        }
    }
    *more = rc == CHT_OK && !cht_scan_exhausted(scan);
    cht_scan_close(scan);
    return rc;
}

static void put_end(struct words_job *j, bool more)
{
    svc_out_format(&j->text, "{\"end\":{\"count\":%llu,\"next\":", (unsigned long long)j->feed.count);
    if (more)
        http_ndjson_put_cursor(&j->text, j->names, (struct cht_str){(uint8_t *)j->last.p, j->last.n});
    else
        svc_out_text(&j->text, "null");
    if (j->corrupt > 0)
        svc_out_format(&j->text, ",\"corrupt\":%llu", (unsigned long long)j->corrupt);
    svc_out_text(&j->text, "}}\n");
}

static void show(struct http_feed *f)
{
    struct words_job *j = (struct words_job *)f;
    struct cht_err err = {0};
    bool more = false;
    j->worded.spell.store = f->db->store;
    j->worded.flush = flush;
    enum cht_rc rc = http_spell_ends(&j->worded.spell, &err);
    if (rc == CHT_OK)
        rc = show_all(j, &more, &err);
    j->text.failed = false;
    if (rc == CHT_OK) {
        put_end(j, more);
    } else {
        http_problem_line(&j->text, rc, rc == j->worded.spell.rc ? &j->worded.spell.err : &err);
    }
    (void)hand_over(j); /* the last */
}

static void no_progress(struct http_feed *f, struct svc_out *o) { (void)f, (void)o; }

static void fini(struct http_feed *f)
{
    struct words_job *j = (struct words_job *)f;
    http_worded_fini(&j->worded);
    cht_buf_free(&j->value);
    svc_out_free(&j->text);
    svc_out_free(&j->last);
}

static struct cht_str copy(uint8_t **at, struct cht_str s)
{
    uint8_t *p = *at;
    if (s.n > 0)
        memcpy(p, s.p, s.n);
    *at += s.n;
    return (struct cht_str){p, s.n};
}

static void start(struct http_request *r)
{
    static const struct http_feed_kind kind = {.work = show, .progress = no_progress, .fini = fini};
    const struct asked *a = r->own;
    struct cht_str after, until;
    if (!http_param_bytes(r, HTTP_P_AFTER, &after) || !http_param_bytes(r, HTTP_P_UNTIL, &until))
        return;
    struct words_job *j = cht_calloc(1, sizeof *j + a->prefix_n + after.n + until.n);
    if (j == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
        return;
    }
    uint8_t *at = j->bytes;
    j->feed.kind = &kind;
    j->put = a->put;
    j->names = r->names;
    j->cfg = (struct cht_scan_config){.kind = CHT_SCAN_PAIRS,
                                      .prefix = copy(&at, (struct cht_str){a->prefix, a->prefix_n}),
                                      .after = copy(&at, after),
                                      .until = copy(&at, until),
                                      .limit = a->limit,
                                      .values = true};
    http_feed_begin(r, &j->feed);
}

/* ------------------------------------------------------------------------------------------------------------ */

void http_worded_get(struct http_request *r, struct cht_str prefix, http_worded_put *put)
{
    struct asked *a = http_request_own(r, sizeof *a);
    if (prefix.n > 0)
        memmove(a->prefix, prefix.p, prefix.n); /* which may lie there, or near */
    a->prefix_n = prefix.n;
    a->put = put;
    if (http_param_number(r, HTTP_P_LIMIT, 1, UINT64_MAX / 2, 0, &a->limit))
        http_request_database(r, false, start);
}

http_worded_put *http_worded_mode(const struct reduce_mode *mode)
{
    if (strcmp(mode->names[0], "counts") == 0)
        return put_counts;
    if (strcmp(mode->names[0], "probabilities") == 0)
        return put_probabilities;
    return strcmp(mode->names[0], "topk") == 0 ? put_topk : NULL;
}
