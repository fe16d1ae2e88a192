/* kv: values under integer keys. */
#include "http/body.h"
#include "http/accept.h"
#include "http/calls/condition.h"
#include "http/calls/handlers.h"
#include "http/ndjson.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

#include "base/alloc.h"
#include "base/literal.h"

#define KEYS_MAX 1000u
#define PIECES_FROM (256u << 10) /* longer values are sent while they are read */

/* ---- one value -------------------------------------------------------------------------------------------------- */

/* GET /kv/{key} */
struct reading {
    uint64_t key;
};

static void read_value(struct http_request *r)
{
    struct cht_err *err = &r->err;
    uint64_t key = ((const struct reading *)r->own)->key;
    uint32_t size;
    if (http_request_ahead(r, (struct cht_str){0}, key, read_value))
        return;
    enum cht_rc rc = cht_store_get_soon(r->db->store, key, &r->value, &size, http_request_waiter(r), err);
    if (rc == CHT_PENDING) {
        http_request_await(r, read_value);
        return;
    }
    if (rc == CHT_KEY_NOT_FOUND) {
        if (http_condition_absent(r))
            http_reply_fail(r, rc, "no value under key %llu", (unsigned long long)key);
        return;
    }
    if (rc != CHT_OK) {
        http_reply_err(r, rc, err);
        return;
    }
    bool bytes = http_accepts_bytes(r);
    if (!http_condition_found(r, key, r->value.data, size))
        return;
    if (bytes) {
        svc_out_bytes(&r->out, r->value.data, r->value.len);
        http_reply_media(r, 200, HTTP_MEDIA_OCTETS);
        return;
    }
    http_ndjson_put_value(
        &r->out, &(struct http_shown){
                     .value = r->value.data, .key = key, .size = size, .values = true, .text = r->text});
    http_reply_json(r, 200);
}

void http_kv_get(struct http_request *r)
{
    struct reading *a = http_request_own(r, sizeof *a);
    if (http_rest_key(r, &a->key) && http_condition_check(r))
        http_request_database(r, false, read_value);
}

bool http_kv_quick(const struct http_request *r)
{
    (void)r;
    return true;
}

/* ---- writes -------------------------------------------------------------------------------------------------------- */

/* The commit's failure, or the operation's. True if one was answered. */
static bool failed(struct http_request *r)
{
    const struct cht_op *op = r->own;
    enum cht_rc rc = r->commit.rc != CHT_OK ? r->commit.rc : op->rc;
    if (rc == CHT_KEY_NOT_FOUND)
        http_reply_fail(r, rc, "no value under key %llu", (unsigned long long)op->key);
    else if (rc != CHT_OK)
        http_reply_err(r, rc, &r->commit.err);
    return rc != CHT_OK;
}

static void answer_size(struct http_request *r, int status)
{
    const struct cht_op *op = r->own;
    svc_out_text(&r->out, "{\"key\":");
    svc_out_u64(&r->out, op->key);
    svc_out_text(&r->out, ",\"size\":");
    svc_out_u64(&r->out, op->value.n);
    svc_out_text(&r->out, "}");
    http_reply_json(r, status);
}

static void inserted(struct http_request *r)
{
    if (failed(r))
        return;
    http_reply_header(r, "Location", "/kv/%llu", (unsigned long long)((const struct cht_op *)r->own)->key);
    answer_size(r, 201);
}

static void insert(struct http_request *r) { http_request_operation(r, r->own, inserted); }

void http_kv_insert(struct http_request *r)
{
    struct cht_op *op = http_request_own_operation(r, CHT_OP_INSERT);
    if (http_body_value(r, &op->value))
        http_request_database(r, true, insert);
}

static void edited(struct http_request *r)
{
    const struct cht_op *op = r->own;
    if (failed(r))
        return;
    if (op->ask != NULL) /* so that the next one needs no read */
        http_reply_tag(r, http_etag(op->key, op->value.p, op->value.n));
    answer_size(r, 200);
}

static void edit(struct http_request *r) { http_request_operation(r, r->own, edited); }

void http_kv_put(struct http_request *r)
{
    struct cht_op *op = http_condition_operation(r, CHT_OP_EDIT);
    if (op != NULL && http_rest_key(r, &op->key) && http_body_value(r, &op->value))
        http_request_database(r, false, edit);
}

static void deleted(struct http_request *r)
{
    if (!failed(r))
        http_reply_empty(r, 204);
}

static void delete (struct http_request *r) { http_request_operation(r, r->own, deleted); }

void http_kv_delete(struct http_request *r)
{
    struct cht_op *op = http_condition_operation(r, CHT_OP_DELETE);
    if (op != NULL && http_rest_key(r, &op->key))
        http_request_database(r, false, delete);
}

/* ---- several at once ------------------------------------------------------------------------------------------------ */

struct keys {
    size_t n, at;
    bool values, etags;
    uint64_t key[KEYS_MAX];
    struct http_stream *stream;
    struct cht_wait wait;
    _Atomic bool
        waiting;  /* the next key is on its way to the disk; cleared by whoever knows that it is there */
    bool awaited; /* the store has seen `wait` */
};

#define NO_VALUE ",\"size\":null,\"value\":null"
#define DAMAGED NO_VALUE ",\"error\":\"corrupt_value\"}\n"

static void missing_line(struct http_stream *s, uint64_t key, enum cht_rc rc)
{
    svc_out_text(&s->stage, "{\"key\":");
    svc_out_u64(&s->stage, key);
    if (rc == CHT_KEY_NOT_FOUND)
        svc_out_text(&s->stage, ",\"error\":\"key_not_found\"}\n");
    else
        http_stream_no_value(s, NO_VALUE, rc);
}

/* The line's beginning if the value is long and is to be sent in pieces. */
static void begin_long(struct http_stream *s, uint64_t key, bool tagged)
{
    if (tagged)
        http_stream_tag(s, key);
    svc_out_text(&s->stage, "{\"key\":");
    svc_out_u64(&s->stage, key);
    svc_out_text(&s->stage, ",\"size\":");
    svc_out_u64(&s->stage, s->piece.size);
    http_stream_show(s, HTTP_MEMBER_VALUE, "\"}\n");
}

/* On another thread; after the store the source may be asked, after cht_store_forget it may be gone. */
static void key_ready(struct cht_wait *w)
{
    struct keys *k = w->ctx;
    atomic_store_explicit(&k->waiting, false, memory_order_release);
    http_stream_wake(k->stream);
}

/* CHT_PENDING: not yet, and k->waiting says when. */
static enum cht_rc read_key(struct http_stream *s, uint64_t key, uint32_t *size, struct cht_err *err)
{
    struct keys *k = s->source;
    struct cht_store *store = s->r->db->store;
    k->wait.done = key_ready;
    k->wait.ctx = k;
    k->stream = s;
    atomic_store_explicit(&k->waiting, true, memory_order_relaxed);
    enum cht_rc rc = cht_store_get_soon(store, key, NULL, size, &k->wait, err);
    if (rc == CHT_OK && k->values && *size > PIECES_FROM) {
        if (!http_stream_enter(s)) {
            atomic_store_explicit(&k->waiting, false, memory_order_relaxed); /* the stream waits itself */
            return CHT_PENDING;
        }
        (void)http_stream_large(s, key, &k->wait, &rc, err);
        http_stream_leave(s);
    } else if (rc == CHT_OK && k->values)
        rc = cht_store_get_soon(store, key, &s->r->value, size, &k->wait, err);
    if (rc != CHT_PENDING)
        atomic_store_explicit(&k->waiting, false, memory_order_relaxed);
    k->awaited = k->awaited || rc == CHT_PENDING || k->wait.held != NULL;
    return rc;
}

/* False: its turn has not come. */
static bool key_line(struct http_stream *s, uint64_t key)
{
    struct http_request *r = s->r;
    struct keys *k = s->source;
    struct cht_err err = {0};
    uint32_t size = 0;
    enum cht_rc rc = read_key(s, key, &size, &err);
    if (rc == CHT_PENDING)
        return false;
    if (k->wait.held != NULL)
        cht_store_forget(r->db->store, &k->wait);
    if (http_stream_broken(s, rc, &err))
        return true;
    if (rc != CHT_OK) {
        missing_line(s, key, rc);
        return true;
    }
    if (s->piece.value != NULL) {
        begin_long(s, key, k->etags);
        return true;
    }
    http_ndjson_put_value(
        &s->stage,
        &(struct http_shown){
            .value = r->value.data, .key = key, .size = size, .values = k->values, .text = r->text});
    if (k->etags && s->stage.n > 0) {
        s->stage.n--; /* the brace */
        http_ndjson_put_tag(&s->stage, http_etag(key, r->value.data, size));
        svc_out_text(&s->stage, "}");
    }
    svc_out_text(&s->stage, "\n");
    return true;
}

static enum http_more next_of_keys(struct http_stream *s, const char **p, size_t *n)
{
    struct keys *k = s->source;
    if (s->piece.value == NULL && s->finished)
        return HTTP_MORE_END;
    if (atomic_load_explicit(&k->waiting, memory_order_acquire))
        return HTTP_MORE_LATER;
    s->stage.n = 0;
    if (s->piece.value != NULL) {
        enum http_more m = http_stream_piece(s);
        if (m != HTTP_MORE_TEXT)
            return m;
    } else if (k->at < k->n) {
        if (!key_line(s, k->key[k->at]))
            return HTTP_MORE_LATER;
        s->count++;
        k->at++;
    } else {
        http_stream_end_line(s, NULL);
        s->finished = true;
    }
    *p = s->stage.p;
    *n = s->stage.n;
    return s->stage.failed ? HTTP_MORE_END : HTTP_MORE_TEXT;
}

static void free_keys(struct http_stream *s)
{
    struct keys *k = s->source;
    if (k->awaited) /* key_ready may be under way */
        cht_store_forget(s->r->db->store, &k->wait);
    cht_free(k);
}

static bool parse_keys(struct http_request *r, struct keys *k)
{
    const char *p = r->param[HTTP_P_KEYS].p, *end = p + r->param[HTTP_P_KEYS].n;
    while (p <= end) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        size_t len = (size_t)((comma != NULL ? comma : end) - p);
        if (k->n == KEYS_MAX) {
            http_reply_fail(r, CHT_INVALID_ARGUMENT, "at most %u keys at once", KEYS_MAX);
            return false;
        }
        if (!http_parse_decimal(p, len, CHT_KEY_MAX, &k->key[k->n]) || k->key[k->n] == 0) {
            http_reply_fail(r, CHT_INVALID_KEY, "'keys': %s, separated by commas",
                            cht_rc_text(CHT_INVALID_KEY));
            return false;
        }
        k->n++;
        p += len + 1;
    }
    return true;
}

static void begin_keys(struct http_request *r)
{
    if (r->head)
        http_reply_media(r, 200, HTTP_MEDIA_NDJSON);
    else
        http_stream_begin(r);
}

static void get_keys(struct http_request *r)
{
    bool values, etags;
    if (r->param[HTTP_P_AFTER].p != NULL || r->param[HTTP_P_LIMIT].p != NULL ||
        r->param[HTTP_P_SIZE].p != NULL) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'keys' goes without 'after', 'limit' and 'size'");
        return;
    }
    if (!http_param_bool(r, HTTP_P_VALUES, true, &values) || !http_param_etags(r, values, &etags) ||
        !http_stream_new(r, next_of_keys))
        return;
    struct keys *k = cht_calloc(1, sizeof *k);
    if (k == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for the keys");
        return;
    }
    r->stream->source = k;
    r->stream->free_source = free_keys;
    k->values = values;
    k->etags = etags;
    if (parse_keys(r, k))
        http_request_database(r, false, begin_keys);
}

/* ---- the sweep ------------------------------------------------------------------------------------------------------- */

static size_t finish_line(char *out, size_t n, size_t room)
{
    if (n >= room)
        return SIZE_MAX;
    out[n] = '\n';
    return n + 1;
}

static size_t corrupt_line(char *out, size_t room, const struct cht_entry *e)
{
    char *p = out;
    if (room < sizeof "{\"key\":" DAMAGED + 20)
        return SIZE_MAX;
    p = CHT_PUT(p, "{\"key\":");
    p += svc_out_digits(p, e->key);
    return (size_t)(CHT_PUT(p, DAMAGED) - out);
}

static size_t render_value(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    const struct http_stream *s = ctx;
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0)
        return corrupt_line((char *)out, room, e);
    if ((e->flags & CHT_ENTRY_LARGE) != 0)
        return 0;
    size_t n = s->r->text ? http_ndjson_text_value((char *)out, room, e->key, e->value, e->size)
                          : http_ndjson_value((char *)out, room, e->key, e->value, e->size, true);
    return finish_line((char *)out, n, room);
}

static size_t render_tagged(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    size_t n = render_value(ctx, e, out, room);
    if (n == SIZE_MAX || n == 0 || (e->flags & CHT_ENTRY_CORRUPT) != 0)
        return n;
    return http_ndjson_extras(
        (char *)out, n, room,
        &(struct http_extras){.tagged = true, .tag = http_etag(e->key, e->value, e->value_len)});
}

static size_t render_key(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    (void)ctx;
    return finish_line((char *)out, http_ndjson_value((char *)out, room, e->key, NULL, e->size, false), room);
}

static void large_value(struct http_stream *s, const struct cht_entry *e)
{
    struct cht_err err = {0};
    enum cht_rc rc;
    if (http_stream_large(s, e->key, &cht_ahead, &rc, &err))
        begin_long(s, e->key, s->kind->render == render_tagged);
    else if (rc == CHT_KEY_NOT_FOUND)
        s->count--; /* deleted since the scan saw it: it need not appear */
    else
        missing_line(s, e->key, rc);
}

static void sweep(struct http_request *r)
{
    static const struct http_stream_kind with = {.render = render_value, .large = large_value};
    static const struct http_stream_kind without = {.render = render_key, .large = large_value};
    static const struct http_stream_kind tagged = {.render = render_tagged, .large = large_value};
    struct cht_scan_config cfg = {.kind = CHT_SCAN_VALUES};
    uint64_t size;
    bool etags;
    if (!http_param_number(r, HTTP_P_AFTER, 0, CHT_KEY_MAX, 0, &cfg.after_key) ||
        !http_param_number(r, HTTP_P_LIMIT, 1, UINT64_MAX / 2, 0, &cfg.limit) ||
        !http_param_number(r, HTTP_P_SIZE, 1, UINT32_MAX, 0, &size) ||
        !http_param_bool(r, HTTP_P_VALUES, true, &cfg.values) || !http_param_etags(r, cfg.values, &etags))
        return;
    cfg.size = (uint32_t)size;
    http_stream_scan(r, &cfg, etags ? &tagged : cfg.values ? &with : &without);
}

void http_kv_list(struct http_request *r)
{
    if (r->param[HTTP_P_KEYS].p != NULL)
        get_keys(r);
    else
        http_request_database(r, false, sweep);
}
