/* vocabulary: GET /vocabulary: the words of a database, ascending by token, with how often each was counted (`cnt:1:` of the root). */
#include "http/calls/handlers.h"
#include "http/feed.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"
#include "cheetah/scan.h"
#include "lm/counts.h"
#include "lm/hash.h"
#include "lm/names.h"
#include "lm/words.h"
#include "reduce/payload.h"

#define BATCH 256u
#define PIECE (64u << 10)      /* of the answer, handed over together */
#define WAITING (4u << 20)     /* of it, not taken yet: the job waits */
#define COUNT_COST UINT64_C(2) /* bytes in memory for each byte of the counts */

struct listing {
    struct http_feed feed; /* first */
    uint64_t after, limit; /* after: a token, UINT64_MAX: from the start; limit 0: none */
    struct svc_memory_use memory;
    struct svc_out text;
    struct lm_counts counts; /* of the root */
    bool counted;            /* there are some */
    uint32_t at;             /* of counts: all before it are of lower tokens */
    uint64_t last, corrupt;
};

/* What the request asked. */
struct asked {
    uint64_t after, limit;
};

/* The counts of the root, if they can be read; a payload that is none shows no counts. */
static enum cht_rc read_counts(struct listing *l, struct cht_err *err)
{
    uint8_t text[LM_PREFIX_MAX + LM_HASH_SIZE];
    struct cht_str name = {text, lm_prefix(LM_CNT, 1, text)};
    struct cht_buf buf = {0};
    uint64_t key;
    uint32_t size;
    memcpy(text + name.n, LM_ROOT, LM_HASH_SIZE);
    name.n += LM_HASH_SIZE;
    enum cht_rc rc = cht_store_pair_value(l->feed.db->store, name, &key, NULL, &size, err);
    if (rc == CHT_PAIR_NOT_FOUND || (rc == CHT_OK && size == 0))
        return CHT_OK;
    if (rc == CHT_OK)
        rc = svc_memory_take(&l->memory, size * COUNT_COST, err);
    if (rc == CHT_OK)
        rc = cht_store_pair_value(l->feed.db->store, name, &key, &buf, &size, err);
    if (rc == CHT_OK && size > 0)
        rc = lm_counts_read(&l->counts, buf.data, size, name, err);
    l->counted = rc == CHT_OK && size > 0;
    cht_buf_free(&buf);
    return rc == CHT_MALFORMED_PAYLOAD || rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}

static void put_count(struct listing *l, uint32_t token)
{
    while (l->at < l->counts.n && l->counts.f[l->at].token < token)
        l->at++;
    bool has = l->at < l->counts.n && l->counts.f[l->at].token == token;
    svc_out_text(&l->text, ",\"count\":");
    if (l->counted)
        svc_out_u64(&l->text, has ? l->counts.f[l->at].count : 0);
    else
        svc_out_text(&l->text, "null");
}

static void put_entry(struct listing *l, const struct cht_entry *e)
{
    uint32_t token = reduce_payload_get32(e->name + LM_LENGTH(LM_TOK));
    svc_out_text(&l->text, "{\"token\":");
    svc_out_u64(&l->text, token);
    svc_out_text(&l->text, ",\"word\":");
    if (e->value != NULL && e->flags == 0)
        svc_out_string(&l->text, (const char *)e->value, e->value_len);
    else
        svc_out_text(&l->text, "null");
    put_count(l, token);
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0) {
        svc_out_text(&l->text, ",\"error\":\"corrupt_value\"");
        l->corrupt++;
    }
    svc_out_text(&l->text, "}\n");
    l->feed.count++;
    l->last = token;
}

static bool hand_over(struct listing *l)
{
    http_feed_put(&l->feed, &l->text);
    bool ok = !l->text.failed;
    l->text.n = 0;
    return ok && http_feed_room(&l->feed, WAITING);
}

/* *more: the limit ended it. */
static enum cht_rc list_words(struct listing *l, bool *more, struct cht_err *err)
{
    static const size_t name_len = LM_LENGTH(LM_TOK) + 4;
    uint8_t after[LM_LENGTH(LM_TOK) + 4];
    struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .prefix = {(const uint8_t *)LM_TOK, LM_LENGTH(LM_TOK)}, .values = true};
    struct cht_entry entries[BATCH];
    struct cht_scan *scan = NULL;
    size_t n = 1;
    if (l->after != UINT64_MAX) {
        memcpy(after, LM_TOK, LM_LENGTH(LM_TOK));
        reduce_payload_put32(after + LM_LENGTH(LM_TOK), (uint32_t)l->after);
        cfg.after = (struct cht_str){after, sizeof after};
    }
    enum cht_rc rc = cht_scan_open(l->feed.db->store, &cfg, &scan, err);
    while (rc == CHT_OK && n > 0 && !*more) {
        rc = cht_scan_next(scan, entries, BATCH, &n, err);
        for (size_t i = 0; rc == CHT_OK && i < n && !*more; i++) {
            *more = l->limit > 0 && l->feed.count == l->limit;
            if (entries[i].name_len == name_len && !*more)
                put_entry(l, &entries[i]);
        }
        if (rc == CHT_OK && (l->text.n >= PIECE || l->text.failed) && !hand_over(l))
            rc = l->text.failed ? CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the words") : CHT_CANCELLED;
    }
    cht_scan_close(scan);
    return rc;
}

static void work(struct http_feed *f)
{
    struct listing *l = (struct listing *)f;
    struct cht_err err = {0};
    bool more = false;
    enum cht_rc rc = read_counts(l, &err);
    if (rc == CHT_OK)
        rc = list_words(l, &more, &err);
    l->text.failed = false;
    if (rc != CHT_OK) {
        http_problem_line(&l->text, rc, &err);
    } else {
        svc_out_format(&l->text, "{\"end\":{\"count\":%llu,\"next\":", (unsigned long long)f->count);
        if (more)
            svc_out_u64(&l->text, l->last);
        else
            svc_out_text(&l->text, "null");
        if (l->corrupt > 0)
            svc_out_format(&l->text, ",\"corrupt\":%llu", (unsigned long long)l->corrupt);
        svc_out_text(&l->text, "}}\n");
    }
    (void)hand_over(l);
}

static void progress(struct http_feed *f, struct svc_out *o) { (void)f, (void)o; }

static void fini(struct http_feed *f)
{
    struct listing *l = (struct listing *)f;
    lm_counts_free(&l->counts);
    svc_out_free(&l->text);
    svc_memory_end(&l->memory);
}

static void begin(struct http_request *r)
{
    static const struct http_feed_kind kind = {
        .memory = CHT_SCAN_MEMORY, .work = work, .progress = progress, .fini = fini};
    const struct asked *a = r->own;
    struct listing *l = cht_calloc(1, sizeof *l);
    if (l == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
        return;
    }
    l->feed.kind = &kind;
    l->after = a->after;
    l->limit = a->limit;
    l->memory.budget = &r->w->srv->memory;
    http_feed_begin(r, &l->feed);
}

/* ------------------------------------------------------------------------------------------------------------ */

void http_vocabulary_get(struct http_request *r)
{
    struct asked *a = http_request_own(r, sizeof *a);
    if (http_param_number(r, HTTP_P_AFTER, 0, UINT32_MAX, UINT64_MAX, &a->after) &&
        http_param_number(r, HTTP_P_LIMIT, 1, UINT64_MAX / 2, 0, &a->limit))
        http_request_database(r, false, begin);
}
