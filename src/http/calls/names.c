/* names: POST /pairs: many pairs by name in one request, answered in the order asked.
 *
 * The names are taken out of the body first, on a job thread if they are many. Then each is read as one of GET /pairs?exact=true is,
 * while the stream runs: a read that meets what is not durable yet suspends the stream until it is.
 */
#include "http/body.h"
#include "http/calls/handlers.h"
#include "http/lines.h"
#include "http/ndjson.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

#include "base/alloc.h"

#define NAMES_MAX 10000u
#define INLINE_MAX (64u << 10)   /* longer bodies are parsed on a job thread */
#define PIECES_FROM (256u << 10) /* longer values are sent while they are read */

#define NO_VALUE ",\"size\":null,\"value\":null"

struct names {
    struct cht_str *v; /* owned, n of them */
    uint8_t *bytes;    /* owned: what they point to */
    size_t n, at;
    bool values, etags;
    struct http_stream *stream;
    struct cht_wait wait;
    _Atomic bool
        waiting;  /* the next name is on its way to the disk; cleared by whoever knows that it is there */
    bool awaited; /* the store has seen `wait` */
};

/* ---- the body -------------------------------------------------------------------------------------------------------- */

static bool take_name(struct names *a, const json_t *text, bool base64, uint8_t **end)
{
    const char *p = json_string_value(text);
    size_t n = json_string_length(text), len = n;
    if (!json_is_string(text))
        return false;
    if (!base64)
        memcpy(*end, p, n);
    else if (!cht_b64_decode(*end, p, n, &len))
        return false;
    a->v[a->n++] = (struct cht_str){.p = *end, .n = len};
    *end += len;
    return len > 0 && len <= CHT_NAME_MAX;
}

static enum cht_rc take_names(struct names *a, const json_t *list, bool base64, struct svc_memory_use *memory,
                              struct cht_err *err)
{
    size_t n = json_array_size(list), bytes = 1;
    if (n > NAMES_MAX)
        return CHT_FAIL(err, CHT_BATCH_TOO_LARGE, "at most %u pairs at once, these are %zu", NAMES_MAX, n);
    for (size_t i = 0; i < n; i++)
        bytes += json_string_length(json_array_get(list, i)) + 4;
    if (svc_memory_take(memory, bytes + n * sizeof *a->v, err) != CHT_OK)
        return err->code;
    a->v = cht_malloc((n + 1) * sizeof *a->v);
    a->bytes = cht_malloc(bytes);
    if (a->v == NULL || a->bytes == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for %zu names", n);
    uint8_t *end = a->bytes;
    for (size_t i = 0; i < n; i++) {
        if (!take_name(a, json_array_get(list, i), base64, &end))
            return CHT_FAIL(err, CHT_INVALID_PAIR, "entry %zu is no %s of 1 to %u bytes", i,
                            base64 ? "base64 of a name" : "name", CHT_NAME_MAX);
    }
    return CHT_OK;
}

/* {"pairs":[base64,...]} or {"names":[text,...]}; on any thread. */
static void parse(struct http_request *r)
{
    json_error_t where;
    struct cht_err *err = &r->err;
    r->rc = svc_memory_take(&r->memory, http_json_memory((const char *)r->body, r->body_len), err);
    if (r->rc != CHT_OK)
        return;
    json_t *o =
        json_loadb((const char *)r->body, r->body_len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &where);
    const json_t *pairs = json_object_get(o, "pairs"), *names = json_object_get(o, "names");
    if (o == NULL && json_error_code(&where) == json_error_out_of_memory)
        r->rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the body");
    else if (o == NULL)
        r->rc = CHT_FAIL(err, CHT_INVALID_BODY, "not JSON: %.100s, at byte %d", where.text, where.position);
    else if (json_object_size(o) != 1 || !json_is_array(pairs != NULL ? pairs : names))
        r->rc =
            CHT_FAIL(err, CHT_INVALID_BODY, "{\"pairs\":[base64,...]} or {\"names\":[text,...]} is expected");
    else
        r->rc = take_names(r->own, pairs != NULL ? pairs : names, pairs != NULL, &r->memory, err);
    json_decref(o);
}

/* ---- the answer ------------------------------------------------------------------------------------------------------ */

/* On another thread; after the store the source may be asked, after cht_store_forget it may be gone. */
static void name_ready(struct cht_wait *w)
{
    struct names *a = w->ctx;
    atomic_store_explicit(&a->waiting, false, memory_order_release);
    http_stream_wake(a->stream);
}

/* CHT_PENDING: not yet, and a->waiting says when, or the stream knows by itself. A long value is opened, and its size is that. */
static enum cht_rc read_name(struct http_stream *s, struct cht_str name, struct cht_pair_value *pv,
                             struct cht_err *err)
{
    struct names *a = s->source;
    struct cht_store *store = s->r->db->store;
    a->wait.done = name_ready;
    a->wait.ctx = a;
    a->stream = s;
    atomic_store_explicit(&a->waiting, true, memory_order_relaxed);
    pv->mapping = !a->values;
    enum cht_rc rc = cht_store_pair_value_soon(store, name, pv, &a->wait, err);
    if (rc == CHT_OK && pv->size > PIECES_FROM) {
        if (!http_stream_enter(s)) {
            atomic_store_explicit(&a->waiting, false, memory_order_relaxed); /* the stream waits itself */
            return CHT_PENDING;
        }
        (void)http_stream_large(s, pv->key, &a->wait, &rc, err);
        http_stream_leave(s);
        if (rc == CHT_KEY_NOT_FOUND) { /* deleted since: as a pair without a value is shown */
            pv->size = 0;
            rc = CHT_OK;
        }
    } else if (rc == CHT_OK && pv->size > 0) {
        pv->out = &s->r->value;
        rc = cht_store_pair_value_soon(store, name, pv, &a->wait, err);
    }
    if (rc != CHT_PENDING)
        atomic_store_explicit(&a->waiting, false, memory_order_relaxed);
    a->awaited = a->awaited || rc == CHT_PENDING || a->wait.held != NULL;
    return rc;
}

/* A name that leads to nothing, or to what cannot be shown. */
static void no_line(struct http_stream *s, struct cht_str name, uint64_t key, enum cht_rc rc)
{
    svc_out_text(&s->stage, "{");
    http_ndjson_put_member(&s->stage, HTTP_MEMBER_PAIR, name, s->r->text);
    if (rc == CHT_PAIR_NOT_FOUND) {
        svc_out_text(&s->stage, ",\"error\":\"pair_not_found\"}\n");
        return;
    }
    if (key > 0) {
        svc_out_text(&s->stage, ",\"key\":");
        svc_out_u64(&s->stage, key);
    }
    http_stream_no_value(s, NO_VALUE, rc);
}

/* The line of the next name, or its beginning where the value is sent in pieces. False: its turn has not come. */
static bool name_line(struct http_stream *s, struct cht_str name)
{
    struct names *a = s->source;
    struct cht_err err = {0};
    struct cht_pair_value pv = {0};
    enum cht_rc rc = read_name(s, name, &pv, &err);
    if (rc == CHT_PENDING)
        return false;
    if (a->wait.held != NULL)
        cht_store_forget(s->r->db->store, &a->wait);
    if (http_stream_broken(s, rc, &err))
        return true;
    if (rc != CHT_OK) {
        no_line(s, name, pv.key, rc);
        return true;
    }
    if (s->piece.value != NULL) {
        if (a->etags)
            http_stream_tag(s, pv.key);
        http_ndjson_put_head(&s->stage, name, pv.key, s->r->text);
        http_ndjson_put_ends(&s->stage, pv.ends);
        svc_out_text(&s->stage, ",\"size\":");
        svc_out_u64(&s->stage, s->piece.size);
        http_stream_show(s, HTTP_MEMBER_VALUE, "\"}\n");
        return true;
    }
    http_ndjson_put_pair(&s->stage, &(struct http_shown){.name = name,
                                                         .value = pv.size > 0 ? s->r->value.data : NULL,
                                                         .key = pv.key,
                                                         .size = pv.size,
                                                         .values = a->values,
                                                         .text = s->r->text,
                                                         .ends = pv.ends});
    if (a->etags && s->stage.n > 0) {
        s->stage.n--; /* the brace */
        http_ndjson_put_tag(&s->stage, http_etag(pv.key, s->r->value.data, pv.size));
        svc_out_text(&s->stage, "}");
    }
    svc_out_text(&s->stage, "\n");
    return true;
}

/* What the next names will read is fetched side by side. */
static void look_ahead(struct http_stream *s)
{
    const struct names *a = s->source;
    struct cht_hint hints[CHT_HINTS_MAX];
    size_t n = 0;
    while (n < CHT_HINTS_MAX && a->at + n < a->n) {
        hints[n] = (struct cht_hint){.name = a->v[a->at + n]};
        n++;
    }
    if (n > 1)
        (void)cht_store_prefetch(s->r->db->store, hints, n);
}

/* As many lines as a piece holds. False: the next one's turn has not come. */
static bool lines(struct http_stream *s)
{
    struct names *a = s->source;
    while (a->at < a->n && s->stage.n < HTTP_STREAM_PIECE && s->piece.value == NULL && !s->finished) {
        if (a->at % CHT_HINTS_MAX == 0)
            look_ahead(s);
        if (!name_line(s, a->v[a->at]))
            return false;
        s->count++;
        a->at++;
    }
    return true;
}

static enum http_more next_of_names(struct http_stream *s, const char **p, size_t *n)
{
    struct names *a = s->source;
    if (s->piece.value == NULL && s->finished)
        return HTTP_MORE_END;
    if (atomic_load_explicit(&a->waiting, memory_order_acquire))
        return HTTP_MORE_LATER;
    s->stage.n = 0;
    if (s->piece.value != NULL) {
        enum http_more m = http_stream_piece(s);
        if (m != HTTP_MORE_TEXT)
            return m;
    } else if (a->at < a->n) {
        if (!lines(s) && s->stage.n == 0)
            return HTTP_MORE_LATER;
    } else {
        http_stream_end_line(s, NULL);
        s->finished = true;
    }
    *p = s->stage.p;
    *n = s->stage.n;
    return s->stage.failed ? HTTP_MORE_END : HTTP_MORE_TEXT;
}

static void forget(struct http_stream *s)
{
    struct names *a = s->source;
    if (a->awaited) /* name_ready may be under way */
        cht_store_forget(s->r->db->store, &a->wait);
}

static void release(struct http_request *r)
{
    struct names *a = r->own;
    cht_free(a->v);
    cht_free(a->bytes);
    cht_free(a);
    r->own = NULL;
}

static void parsed(struct http_request *r)
{
    if (r->rc != CHT_OK) {
        http_reply_err(r, r->rc, &r->err);
        return;
    }
    if (!http_stream_new(r, next_of_names))
        return;
    r->stream->source = r->own;
    r->stream->free_source = forget;
    http_request_database(r, false, http_stream_begin);
}

void http_pairs_post(struct http_request *r)
{
    bool values, etags;
    if (!http_param_bool(r, HTTP_P_VALUES, false, &values) || !http_param_etags(r, values, &etags))
        return;
    struct names *a = cht_calloc(1, sizeof *a);
    if (a == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for the names");
        return;
    }
    a->values = values;
    a->etags = etags;
    r->own = a;
    r->release = release;
    if (r->body_len > INLINE_MAX) {
        http_request_job(r, parse, parsed);
        return;
    }
    parse(r);
    parsed(r);
}
