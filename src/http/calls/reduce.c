/* reduce: /reduce/{mode}/{prefix}: payloads in order (streams), the queue, and the aggregates (reduce/aggregate.h). */
#include "http/calls/handlers.h"
#include "http/calls/worded.h"
#include "http/ndjson.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "reduce/mode.h"
#include "reduce/payload.h"

#define MALFORMED ",\"problem\":\"malformed_payload\"}\n"
#define NO_PAYLOAD ",\"payload\":null}\n"
#define DAMAGED ",\"payload\":null,\"error\":\"corrupt_value\"}\n"

/* GET: the payloads of a mode. */
struct reading {
    const struct reduce_mode *mode;
    struct cht_str prefix; /* in bytes */
    bool shown;            /* decode=true unless it is given */
    uint8_t bytes[CHT_NAME_MAX];
};

/* POST: the head of a queue. */
struct draining {
    struct cht_str prefix; /* borrowed from the URI */
    uint64_t limit;
    size_t after_len; /* the last name that was looked at */
    uint8_t after[CHT_NAME_MAX];
};

/* ---- payload modes ---------------------------------------------------------------------------------------------------- */

static size_t append(char *out, size_t at, size_t room, const char *text, size_t n)
{
    if (at == SIZE_MAX || room - at < n)
        return SIZE_MAX;
    memcpy(out + at, text, n);
    return at + n;
}

/* "payload":"..." */
static size_t payload(char *out, size_t at, size_t room, const struct cht_entry *e, bool text)
{
    if (text) {
        struct cht_str bytes = {e->value, e->value_len};
        size_t n = http_ndjson_text_member(out + at, room - at, HTTP_MEMBER_PAYLOAD, bytes);
        return n == SIZE_MAX ? SIZE_MAX : at + n;
    }
    at = append(out, at, room, CHT_LITERAL("\"payload\":\""));
    at += cht_b64_encode(out + at, e->value, e->value_len);
    return append(out, at, room, CHT_LITERAL("\""));
}

/* That after the head of a line, and its end. */
static size_t plain(const struct http_stream *s, char *out, size_t at, size_t room, const struct cht_entry *e,
                    bool bad)
{
    bool corrupt = (e->flags & CHT_ENTRY_CORRUPT) != 0;
    if (room - at < cht_b64_encoded(e->value_len) + 64)
        return SIZE_MAX;
    if (corrupt)
        return append(out, at, room, CHT_LITERAL(DAMAGED));
    if ((e->flags & CHT_ENTRY_DANGLING) != 0)
        return append(out, at, room, CHT_LITERAL(NO_PAYLOAD));
    at = append(out, at, room, CHT_LITERAL(","));
    at = payload(out, at, room, e, s->r->text);
    return bad ? append(out, at, room, CHT_LITERAL(MALFORMED)) : append(out, at, room, CHT_LITERAL("}\n"));
}

/* On the scan's workers. Anything longer than the room there is comes back through large(). */
static size_t render(void *ctx, const struct cht_entry *e, uint8_t *bytes, size_t room)
{
    const struct http_stream *s = ctx;
    const struct reduce_decoder *d = s->kind->own;
    char *out = (char *)bytes;
    if ((e->flags & CHT_ENTRY_LARGE) != 0)
        return 0;
    struct cht_str name = {.p = e->name, .n = e->name_len};
    size_t head = s->r->text ? http_ndjson_text_head(out, room, name, e->key)
                             : http_ndjson_pair_head(out, room, name, e->key);
    if (head == SIZE_MAX)
        return SIZE_MAX;
    if (d == NULL || (e->flags & (CHT_ENTRY_DANGLING | CHT_ENTRY_CORRUPT)) != 0)
        return plain(s, out, head, room, e, false);
    size_t at = append(out, head, room, CHT_LITERAL(","));
    if (at == SIZE_MAX)
        return SIZE_MAX;
    size_t n = reduce_decode(d, e->value, e->value_len, out + at, room - at);
    if (n == SIZE_MAX)
        return SIZE_MAX;
    return n == 0 ? plain(s, out, head, room, e, true) : append(out, at + n, room, CHT_LITERAL("}\n"));
}

/* All of an open value. */
static bool read_whole(const struct http_piece *p, struct cht_buf *v)
{
    size_t got;
    if (cht_buf_reserve(v, p->size, NULL) != CHT_OK)
        return false;
    for (v->len = 0; v->len < p->size; v->len += got) {
        if (cht_value_read(p->value, (uint32_t)v->len, v->data + v->len, p->size - v->len, &got, NULL) !=
                CHT_OK ||
            got == 0)
            return false;
    }
    return true;
}

/* A long payload for a decoder that takes it as a whole (JSON): all of it is in memory meanwhile. False: malformed. */
static bool decode_whole(struct http_stream *s, const struct reduce_decoder *d)
{
    struct cht_buf *v = &s->r->value;
    if (d->whole == NULL || !read_whole(&s->piece, v))
        return false;
    size_t base = s->stage.n;
    for (size_t room = 2 * v->len + 256; room <= 16 * v->len + 4096; room *= 2) {
        if (!svc_out_room(&s->stage, room))
            return true; /* out of memory: the stream is cut off */
        size_t n = reduce_decode(d, v->data, v->len, s->stage.p + base, room);
        if (n == 0)
            return false;
        if (n != SIZE_MAX) {
            s->stage.n = base + n;
            return true;
        }
    }
    return false;
}

static bool next_records(struct http_stream *s)
{
    struct http_piece *p = &s->piece;
    const struct reduce_decoder *d = s->kind->own;
    struct reduce_head head;
    uint8_t first[REDUCE_PAYLOAD_HEAD_MAX];
    size_t got;
    if (p->left == 0 || cht_value_read(p->value, 0, first, sizeof first, &got, NULL) != CHT_OK ||
        !d->head(first, got, p->size, &head))
        return false;
    uint64_t n = HTTP_STREAM_PIECE / head.record < p->left ? HTTP_STREAM_PIECE / head.record : p->left;
    if (cht_buf_reserve(&s->r->value, HTTP_STREAM_PIECE, NULL) != CHT_OK ||
        cht_value_read(p->value, p->at, s->r->value.data, (size_t)n * head.record, &got, NULL) != CHT_OK ||
        got != (size_t)n * head.record)
        return false;
    for (uint64_t i = 0; i < n && svc_out_room(&s->stage, REDUCE_RECORD_TEXT + 1); i++) {
        if (p->at != head.offset || i > 0)
            s->stage.p[s->stage.n++] = ',';
        s->stage.n += d->record(s->r->value.data + i * head.record, s->stage.p + s->stage.n);
    }
    p->at += (uint32_t)got;
    p->left -= n;
    return true;
}

/* After http_stream_large: the parts are the decoder's records and not base64; stages their head. False if the payload is malformed, or
 * the decoder takes payloads only as a whole: nothing was changed. */
static bool decode_in_parts(struct http_stream *s, const struct reduce_decoder *d)
{
    struct http_piece *p = &s->piece;
    struct reduce_head head;
    uint8_t first[REDUCE_PAYLOAD_HEAD_MAX];
    size_t got;
    if (d->head == NULL || cht_value_read(p->value, 0, first, sizeof first, &got, NULL) != CHT_OK ||
        !d->head(first, got, p->size, &head))
        return false;
    svc_out_bytes(&s->stage, head.text, head.text_len);
    p->form = HTTP_PIECE_PART;
    p->part = next_records;
    p->at = (uint32_t)head.offset;
    p->left = head.count;
    p->tail = head.tail[0] != 0 ? "]}\n" : "}\n";
    return true;
}

static void large(struct http_stream *s, const struct cht_entry *e)
{
    const struct reduce_decoder *d = s->kind->own;
    struct cht_str name = {.p = e->name, .n = e->name_len};
    struct cht_err err = {0};
    enum cht_rc rc;
    http_ndjson_put_head(&s->stage, name, e->key, s->r->text);
    if (!http_stream_large(s, e->key, &cht_ahead, &rc, &err)) {
        http_stream_no_value(s, ",\"payload\":null", rc);
        return;
    }
    size_t before = s->stage.n;
    svc_out_text(&s->stage, ",");
    if (d != NULL && decode_in_parts(s, d))
        return;
    if (d != NULL && decode_whole(s, d)) {
        svc_out_text(&s->stage, "}\n");
        cht_value_close(s->piece.value);
        s->piece.value = NULL;
        return;
    }
    s->stage.n = before;
    http_stream_show(s, HTTP_MEMBER_PAYLOAD, d != NULL ? "\"" MALFORMED : "\"}\n");
}

/* A kind for every decoder there is, made once per request: it lives in the stream's source. */
static void free_kind(struct http_stream *s) { cht_free(s->source); }

static const struct reduce_mode *find_mode(struct http_request *r)
{
    const char *slash = memchr(r->rest, '/', r->rest_len);
    size_t n = slash != NULL ? (size_t)(slash - r->rest) : r->rest_len;
    const struct reduce_mode *m = reduce_mode_find(r->rest, n);
    if (m == NULL) {
        http_reply_fail(r, CHT_UNKNOWN_MODE, "known modes: %s", reduce_mode_names());
        return NULL;
    }
    r->rest += slash != NULL ? n + 1 : n;
    r->rest_len -= slash != NULL ? n + 1 : n;
    return m;
}

static void only_get(struct http_request *r, const char *mode)
{
    http_reply_header(r, "Allow", "GET, HEAD");
    http_reply_fail(r, CHT_METHOD, "mode %s is read with GET", mode);
}

/* The parameters that a mode does not know are refused like any other unknown one. */
static bool only(struct http_request *r, uint64_t known, const char *mode)
{
    for (int p = 0; p < HTTP_PARAMS; p++) {
        if (r->param[p].p != NULL && (known & HTTP_PARAM(p)) == 0) {
            http_reply_fail(r, CHT_UNKNOWN_PARAMETER, "mode %s takes no parameter '%s'", mode,
                            http_param_name((enum http_param)p));
            return false;
        }
    }
    return true;
}

static void scan_payloads(struct http_request *r)
{
    const struct reading *a = r->own;
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = a->prefix, .values = true};
    bool decode;
    if (!http_param_bytes(r, HTTP_P_AFTER, &cfg.after) || !http_param_bytes(r, HTTP_P_UNTIL, &cfg.until) ||
        !http_param_number(r, HTTP_P_LIMIT, 1, UINT64_MAX / 2, 0, &cfg.limit) ||
        !http_param_bool(r, HTTP_P_DECODE, a->shown, &decode))
        return;
    if (!http_stream_new(r, NULL))
        return;
    struct http_stream_kind *kind = cht_calloc(1, sizeof *kind);
    if (kind == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
        return;
    }
    *kind =
        (struct http_stream_kind){.render = render, .large = large, .own = decode ? a->mode->decoder : NULL};
    r->stream->source = kind;
    r->stream->free_source = free_kind;
    http_stream_scan(r, &cfg, kind);
}

/* ---- the queue ---------------------------------------------------------------------------------------------------------- */

#define DRAIN_BYTES (16u << 20) /* one answer's payloads: about that, and one */
#define DRAIN_ENTRIES 10000u
#define DRAIN_GROUP 256u
#define LINE_MORE 512u /* of a line, beside name and payload: what ndjson.h asks for */
#define LINE_WORST 2u  /* what a byte becomes, at most, in base64 and as text */
#define KEPT_MAX 4096u /* of a buffer for one value, from one page to the next */

/* Reading and unmapping one pair, all or nothing: an entry that cannot be read stays. */
struct taking {
    struct cht_commit commit;
    struct cht_op ops[2];
    struct cht_buf value; /* owned */
    uint8_t name[CHT_NAME_MAX];
    struct drain *drain;
    uint64_t line;  /* the most that its line in the answer has */
    uint64_t bytes; /* what its value had when it was seen */
};

struct drain {
    struct cht_mutex mu;
    struct cht_cond done;
    size_t waiting; /* guarded by mu */
    struct taking taking[DRAIN_GROUP];
};

static void taken(struct cht_commit *c)
{
    struct drain *d = ((struct taking *)(void *)c)->drain;
    cht_mutex_lock(&d->mu);
    if (--d->waiting == 0)
        cht_cond_signal(&d->done);
    cht_mutex_unlock(&d->mu);
}

static void prepare_taking(struct drain *d, struct taking *t, const struct cht_entry *e)
{
    memcpy(t->name, e->name, e->name_len);
    struct cht_str name = {.p = t->name, .n = e->name_len};
    t->drain = d;
    t->ops[0] =
        (struct cht_op){.kind = CHT_OP_PAIR_READ, .name = name, .with_values = true, .buf = &t->value};
    t->ops[1] = (struct cht_op){.kind = CHT_OP_PAIR_DEL, .name = name, .with_values = true};
    t->commit = (struct cht_commit){.ops = t->ops, .count = 2, .flags = CHT_COMMIT_ATOMIC, .done = taken};
}

/* All of a group at once, so that they share a sync. */
static void take_group(struct cht_store *s, struct drain *d, size_t n)
{
    cht_mutex_lock(&d->mu);
    d->waiting = n;
    cht_mutex_unlock(&d->mu);
    for (size_t i = 0; i < n; i++) {
        enum cht_rc rc = cht_store_submit(s, &d->taking[i].commit);
        if (rc == CHT_PENDING)
            continue;
        d->taking[i].commit.rc = rc;
        taken(&d->taking[i].commit);
    }
    cht_mutex_lock(&d->mu);
    while (d->waiting > 0)
        cht_cond_wait(&d->done, &d->mu);
    cht_mutex_unlock(&d->mu);
}

static void taken_line(struct http_request *r, const struct taking *t)
{
    struct svc_out *o = &r->out;
    http_ndjson_put_head(o, t->ops[0].name, t->ops[0].key, r->text);
    svc_out_text(o, ",");
    if (t->ops[0].size > 0)
        http_ndjson_put_member(o, HTTP_MEMBER_PAYLOAD, (struct cht_str){t->value.data, t->value.len},
                               r->text);
    else
        svc_out_text(o, "\"payload\":null");
    svc_out_text(o, "}\n");
}

/* The next entries, at most `want` and as many as fit into one answer, but one. *more: there may be others after them. */
static enum cht_rc see_page(struct http_request *r, struct drain *d, size_t want, size_t *seen, bool *more)
{
    const struct draining *a = r->own;
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS,
                                  .prefix = a->prefix,
                                  .after = {.p = a->after, .n = a->after_len},
                                  .limit = want,
                                  .values = true, /* for their sizes */
                                  .workers = 1};
    struct cht_entry entries[DRAIN_GROUP];
    struct cht_scan *scan = NULL;
    uint64_t bytes = r->out.n;
    size_t n = 1;
    *seen = 0;
    enum cht_rc rc = cht_scan_open(r->db->store, &cfg, &scan, &r->err);
    while (rc == CHT_OK && n > 0 && *seen < want && bytes < DRAIN_BYTES) {
        rc = cht_scan_next(scan, entries, want - *seen, &n, &r->err);
        for (size_t i = 0; rc == CHT_OK && i < n && bytes < DRAIN_BYTES; i++) {
            struct taking *t = &d->taking[(*seen)++];
            prepare_taking(d, t, &entries[i]);
            t->bytes = entries[i].size;
            t->line = LINE_MORE + LINE_WORST * (t->bytes + entries[i].name_len);
            bytes += t->line;
        }
    }
    *more = n > 0;
    cht_scan_close(scan);
    return rc;
}

/* Memory for the values of as many of them as there is room for, and for their lines, before they are taken: afterwards they are nowhere
 * else. *n: how many; *bytes: of their values. */
static enum cht_rc book_page(struct http_request *r, const struct drain *d, size_t *n, uint64_t *bytes)
{
    for (size_t k = *n; k > 0; k /= 2) {
        uint64_t lines = 0;
        *n = k;
        *bytes = 0;
        for (size_t i = 0; i < k; i++) {
            lines += d->taking[i].line;
            *bytes += d->taking[i].bytes;
        }
        bool fits = k > 1 ? svc_memory_try(&r->memory, lines + *bytes)
                          : svc_memory_take(&r->memory, lines + *bytes, &r->err) == CHT_OK;
        if (!fits)
            continue;
        r->booked += lines;
        if (svc_out_room(&r->out, lines))
            return CHT_OK;
        r->out.failed = false; /* what there is stays */
        return CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for what is in the queue");
    }
    return r->err.code;
}

/* One page of the scan: its entries go to whoever's commit comes first. *seen: how many were looked at; 0: there is no room for another. */
static enum cht_rc drain_page(struct http_request *r, struct drain *d, size_t want, size_t *seen,
                              uint64_t *got, bool *more)
{
    uint64_t bytes = 0;
    size_t all;
    enum cht_rc rc = see_page(r, d, want, &all, more);
    *seen = 0;
    if (rc != CHT_OK || all == 0)
        return rc;
    size_t n = all;
    rc = book_page(r, d, &n, &bytes);
    if (rc !=
        CHT_OK) { /* nothing of this page is taken: what was before is answered, the next call goes on */
        *more = false;
        return *got > 0 ? CHT_OK : rc;
    }
    *seen = n;
    *more = *more || *seen < all;
    take_group(r->db->store, d, *seen);
    for (size_t i = 0; i < *seen; i++) {
        struct taking *t = &d->taking[i];
        if (t->commit.rc == CHT_OK) {
            r->owed = true;
            taken_line(r, t);
            (*got)++;
        } else if (t->commit.rc != CHT_BATCH_FAILED) {
            rc = t->commit.rc;
            r->err = t->commit.err;
        }
        if (t->bytes > KEPT_MAX)
            cht_buf_free(&t->value);
    }
    svc_memory_give(&r->memory, bytes);
    return rc;
}

/* On a job thread. What was taken is answered even if a later page fails: it is gone from the queue. */
static void drain_work(struct http_request *r)
{
    struct draining *a = r->own;
    uint64_t got = 0;
    struct drain *d = cht_calloc(1, sizeof *d);
    bool more = true;
    if (d == NULL)
        r->rc = CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for the queue");
    else
        r->rc = cht_mutex_init(&d->mu, &r->err);
    if (r->rc == CHT_OK)
        r->rc = cht_cond_init(&d->done, &r->err);
    while (r->rc == CHT_OK && more && got < a->limit && r->out.n < DRAIN_BYTES) {
        size_t want = a->limit - got < DRAIN_GROUP ? (size_t)(a->limit - got) : DRAIN_GROUP, seen;
        r->rc = drain_page(r, d, want, &seen, &got, &more);
        if (seen > 0) {
            a->after_len = d->taking[seen - 1].ops[0].name.n;
            memcpy(a->after, d->taking[seen - 1].name, a->after_len);
        }
    }
    for (size_t i = 0; d != NULL && i < DRAIN_GROUP; i++)
        cht_buf_free(&d->taking[i].value);
    cht_free(d);
    if (r->rc != CHT_OK && got > 0) {
        http_problem_line(&r->out, r->rc, &r->err);
        r->rc = CHT_OK;
        return;
    }
    svc_out_format(&r->out, "{\"end\":{\"count\":%llu,\"next\":null}}\n", (unsigned long long)got);
}

static void drained(struct http_request *r)
{
    if (r->rc != CHT_OK)
        http_reply_err(r, r->rc, &r->err);
    else
        http_stream_out(r);
}

static void drain(struct http_request *r)
{
    if (http_stream_new(r, NULL)) /* first: what was taken must have a way out */
        http_request_job(r, drain_work, drained);
}

/* ---------------------------------------------------------------------------------------------------------------------- */

static bool is_smooth(const char *rest, size_t n)
{
    return CHT_IS(rest, n, "smooth") || CHT_STARTS(rest, n, "smooth/");
}

static void skip(struct http_request *r, size_t n)
{
    n = n < r->rest_len ? n : r->rest_len;
    r->rest += n;
    r->rest_len -= n;
}

void http_payloads_get(struct http_request *r, const struct reduce_mode *mode, struct cht_str prefix,
                       bool shown)
{
    struct reading *a = http_request_own(r, sizeof *a);
    if (prefix.n > 0)
        memmove(a->bytes, prefix.p, prefix.n); /* which may lie there, or near */
    a->mode = mode;
    a->prefix = (struct cht_str){a->bytes, prefix.n};
    a->shown = shown;
    http_request_database(r, false, scan_payloads);
}

unsigned http_reduce_methods(const char *rest, size_t n)
{
    const char *slash = memchr(rest, '/', n);
    const struct reduce_mode *m = reduce_mode_find(rest, slash != NULL ? (size_t)(slash - rest) : n);
    if (is_smooth(rest, n))
        return HTTP_METHOD_POST;
    return m != NULL && m->kind == REDUCE_QUEUE ? HTTP_METHOD_GET | HTTP_METHOD_POST : HTTP_METHOD_GET;
}

void http_reduce_get(struct http_request *r)
{
    static const uint64_t known = HTTP_PARAM(HTTP_P_DB) | HTTP_PARAM(HTTP_P_AFTER) |
                                  HTTP_PARAM(HTTP_P_UNTIL) | HTTP_PARAM(HTTP_P_LIMIT) |
                                  HTTP_PARAM(HTTP_P_DECODE) | HTTP_PARAM(HTTP_P_TEXT) |
                                  HTTP_PARAM(HTTP_P_NAMES);
    if (is_smooth(r->rest, r->rest_len)) {
        http_reply_header(r, "Allow", "POST");
        http_reply_fail(r, CHT_METHOD, "smoothing is started with POST");
        return;
    }
    const struct reduce_mode *m = find_mode(r);
    struct cht_str prefix;
    if (m == NULL || !http_rest_bytes(r, true, &prefix))
        return;
    if (m->kind == REDUCE_AGGREGATE) {
        http_aggregate_get(r, m, prefix);
        return;
    }
    bool decode;
    http_worded_put *put = r->text ? http_worded_mode(m) : NULL;
    if (!only(r, known, m->names[0]) || !http_param_bool(r, HTTP_P_DECODE, false, &decode))
        return;
    if (put != NULL && decode)
        http_worded_get(r, prefix, put);
    else
        http_payloads_get(r, m, prefix, false);
}

void http_reduce_post(struct http_request *r)
{
    if (is_smooth(r->rest, r->rest_len)) {
        skip(r, CHT_LEN("smooth/"));
        if (only(r,
                 HTTP_PARAM(HTTP_P_DB) | HTTP_PARAM(HTTP_P_ORDERS) | HTTP_PARAM(HTTP_P_TOPK) |
                     HTTP_PARAM(HTTP_P_NAMES),
                 "smooth"))
            http_smooth_post(r);
        return;
    }
    if (CHT_STARTS(r->rest, r->rest_len, "associations/")) {
        only_get(r, "associations");
        return;
    }
    const struct reduce_mode *m = find_mode(r);
    struct draining *a = http_request_own(r, sizeof *a);
    a->after_len = 0;
    if (m == NULL)
        return;
    if (m->kind != REDUCE_QUEUE) {
        only_get(r, m->names[0]);
    } else if (r->rest_len == 0) { /* a client's empty variable must not empty the database */
        http_reply_fail(r, CHT_INVALID_PAIR, "a prefix is missing; without names= * stands for all");
    } else if (http_rest_bytes(r, true, &a->prefix) &&
               only(r,
                    HTTP_PARAM(HTTP_P_DB) | HTTP_PARAM(HTTP_P_LIMIT) | HTTP_PARAM(HTTP_P_TEXT) |
                        HTTP_PARAM(HTTP_P_NAMES),
                    m->names[0]) &&
               http_param_number(r, HTTP_P_LIMIT, 1, UINT64_MAX / 2, DRAIN_ENTRIES, &a->limit)) {
        a->limit = a->limit < DRAIN_ENTRIES ? a->limit : DRAIN_ENTRIES;
        http_request_database(r, false, drain); /* what is not there has no queue */
    }
}
