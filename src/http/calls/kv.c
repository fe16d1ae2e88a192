/* kv: values under integer keys. */
#include "http/body.h"
#include "http/calls/handlers.h"
#include "http/line.h"
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

static bool wants_bytes(struct request *r)
{
    const char *accept = r->in[H_ACCEPT];
    return accept != NULL && strstr(accept, "application/octet-stream") != NULL;
}

static void read_value(struct request *r)
{
    struct cht_err *err = &r->err;
    uint64_t key = ((const struct reading *)r->own)->key;
    uint32_t size;
    if (request_ahead(r, (struct cht_str){0}, key, read_value))
        return;
    enum cht_rc rc = cht_store_get_soon(r->db->store, key, &r->value, &size, request_waiter(r), err);
    if (rc == CHT_PENDING) {
        request_await(r, read_value);
        return;
    }
    if (rc == CHT_KEY_NOT_FOUND) {
        reply_fail(r, rc, "no value under key %llu", (unsigned long long)key);
        return;
    }
    if (rc != CHT_OK) {
        reply_err(r, rc, err);
        return;
    }
    if (wants_bytes(r)) {
        out_bytes(&r->out, r->value.data, r->value.len);
        reply_media(r, 200, MEDIA_OCTETS);
        return;
    }
    if (out_room(&r->out, line_room(0, size)))
        r->out.n += line_value(r->out.p, r->out.cap, key, r->value.data, size, true);
    reply_json(r, 200);
}

void kv_get(struct request *r)
{
    struct reading *a = request_own(r, sizeof *a);
    if (rest_key(r, &a->key))
        request_database(r, false, read_value);
}

/* ---- writes -------------------------------------------------------------------------------------------------------- */

/* The commit's failure, or the operation's. True if one was answered. */
static bool failed(struct request *r)
{
    const struct cht_op *op = r->own;
    enum cht_rc rc = r->commit.rc != CHT_OK ? r->commit.rc : op->rc;
    if (rc == CHT_KEY_NOT_FOUND)
        reply_fail(r, rc, "no value under key %llu", (unsigned long long)op->key);
    else if (rc != CHT_OK)
        reply_err(r, rc, &r->commit.err);
    return rc != CHT_OK;
}

static void answer_size(struct request *r, int status)
{
    const struct cht_op *op = r->own;
    out_text(&r->out, "{\"key\":");
    out_u64(&r->out, op->key);
    out_text(&r->out, ",\"size\":");
    out_u64(&r->out, op->value.n);
    out_text(&r->out, "}");
    reply_json(r, status);
}

static void inserted(struct request *r)
{
    if (failed(r))
        return;
    reply_header(r, "Location", "/kv/%llu", (unsigned long long)((const struct cht_op *)r->own)->key);
    answer_size(r, 201);
}

static void insert(struct request *r) { request_operation(r, r->own, inserted); }

void kv_insert(struct request *r)
{
    struct cht_op *op = request_own_operation(r, CHT_OP_INSERT);
    if (body_value(r, &op->value))
        request_database(r, true, insert);
}

static void edited(struct request *r)
{
    if (!failed(r))
        answer_size(r, 200);
}

static void edit(struct request *r) { request_operation(r, r->own, edited); }

void kv_put(struct request *r)
{
    struct cht_op *op = request_own_operation(r, CHT_OP_EDIT);
    if (rest_key(r, &op->key) && body_value(r, &op->value))
        request_database(r, false, edit);
}

static void deleted(struct request *r)
{
    if (!failed(r))
        reply_empty(r, 204);
}

static void delete (struct request *r) { request_operation(r, r->own, deleted); }

void kv_delete(struct request *r)
{
    struct cht_op *op = request_own_operation(r, CHT_OP_DELETE);
    if (rest_key(r, &op->key))
        request_database(r, false, delete);
}

/* ---- several at once ------------------------------------------------------------------------------------------------ */

struct keys {
    size_t n, at;
    bool values;
    uint64_t key[KEYS_MAX];
    struct stream *stream;
    struct cht_wait wait;
    _Atomic bool
        waiting;  /* the next key is on its way to the disk; cleared by whoever knows that it is there */
    bool awaited; /* the store has seen `wait` */
};

#define NO_VALUE ",\"size\":null,\"value\":null"
#define DAMAGED NO_VALUE ",\"error\":\"corrupt_value\"}\n"

static void missing_line(struct stream *s, uint64_t key, enum cht_rc rc)
{
    out_text(&s->stage, "{\"key\":");
    out_u64(&s->stage, key);
    if (rc == CHT_KEY_NOT_FOUND)
        out_text(&s->stage, ",\"error\":\"key_not_found\"}\n");
    else
        stream_no_value(s, NO_VALUE, rc);
}

/* The line's beginning where the value is long and is to be sent in pieces. */
static void begin_long(struct stream *s, uint64_t key)
{
    out_text(&s->stage, "{\"key\":");
    out_u64(&s->stage, key);
    out_text(&s->stage, ",\"size\":");
    out_u64(&s->stage, s->piece.size);
    out_text(&s->stage, ",\"value\":\"");
    s->piece.tail = "\"}\n";
}

/* On another thread; after the store the source may be asked, after cht_store_forget it may be gone. */
static void key_ready(struct cht_wait *w)
{
    struct keys *k = w->ctx;
    atomic_store_explicit(&k->waiting, false, memory_order_release);
    stream_wake(k->stream);
}

/* CHT_PENDING: not yet, and k->waiting says when. */
static enum cht_rc read_key(struct stream *s, uint64_t key, uint32_t *size, struct cht_err *err)
{
    struct keys *k = s->source;
    struct cht_store *store = s->r->db->store;
    k->wait.done = key_ready;
    k->wait.ctx = k;
    k->stream = s;
    atomic_store_explicit(&k->waiting, true, memory_order_relaxed);
    enum cht_rc rc = cht_store_get_soon(store, key, NULL, size, &k->wait, err);
    if (rc == CHT_OK && k->values && *size > PIECES_FROM) {
        if (!stream_enter(s)) {
            atomic_store_explicit(&k->waiting, false, memory_order_relaxed); /* the stream waits itself */
            return CHT_PENDING;
        }
        (void)stream_large(s, key, &k->wait, &rc, err);
        stream_leave(s);
    } else if (rc == CHT_OK && k->values)
        rc = cht_store_get_soon(store, key, &s->r->value, size, &k->wait, err);
    if (rc != CHT_PENDING)
        atomic_store_explicit(&k->waiting, false, memory_order_relaxed);
    k->awaited = k->awaited || rc == CHT_PENDING;
    return rc;
}

/* False: its turn has not come. */
static bool key_line(struct stream *s, uint64_t key, bool values)
{
    struct request *r = s->r;
    struct cht_err err = {0};
    uint32_t size = 0;
    enum cht_rc rc = read_key(s, key, &size, &err);
    if (rc == CHT_PENDING)
        return false;
    if (rc != CHT_OK) {
        missing_line(s, key, rc);
        return true;
    }
    if (s->piece.value != NULL) {
        begin_long(s, key);
        return true;
    }
    if (out_room(&s->stage, line_room(0, values ? size : 0) + 1)) {
        s->stage.n +=
            line_value(s->stage.p + s->stage.n, s->stage.cap - s->stage.n, key, r->value.data, size, values);
        s->stage.p[s->stage.n++] = '\n';
    }
    return true;
}

static enum more next_of_keys(struct stream *s, const char **p, size_t *n)
{
    struct keys *k = s->source;
    if (s->piece.value == NULL && s->finished)
        return MORE_END;
    if (atomic_load_explicit(&k->waiting, memory_order_acquire))
        return MORE_LATER;
    s->stage.n = 0;
    if (s->piece.value != NULL) {
        if (!stream_piece(s))
            out_text(&s->stage, s->piece.tail);
    } else if (k->at < k->n) {
        if (!key_line(s, k->key[k->at], k->values))
            return MORE_LATER;
        s->count++;
        k->at++;
    } else {
        stream_end_line(s, NULL);
        s->finished = true;
    }
    *p = s->stage.p;
    *n = s->stage.n;
    return s->stage.failed ? MORE_END : MORE_TEXT;
}

static void free_keys(struct stream *s)
{
    struct keys *k = s->source;
    if (k->awaited) /* key_ready may be under way */
        cht_store_forget(s->r->db->store, &k->wait);
    cht_free(k);
}

static bool parse_keys(struct request *r, struct keys *k)
{
    const char *p = r->param[P_KEYS].p, *end = p + r->param[P_KEYS].n;
    while (p <= end) {
        const char *comma = memchr(p, ',', (size_t)(end - p));
        size_t len = (size_t)((comma != NULL ? comma : end) - p);
        if (k->n == KEYS_MAX) {
            reply_fail(r, CHT_INVALID_ARGUMENT, "at most %u keys at once", KEYS_MAX);
            return false;
        }
        if (!parse_decimal(p, len, CHT_KEY_MAX, &k->key[k->n]) || k->key[k->n] == 0) {
            reply_fail(r, CHT_INVALID_KEY, "'keys': %s, separated by commas", cht_rc_text(CHT_INVALID_KEY));
            return false;
        }
        k->n++;
        p += len + 1;
    }
    return true;
}

static void begin_keys(struct request *r)
{
    if (r->head)
        reply_media(r, 200, MEDIA_NDJSON);
    else
        stream_begin(r);
}

static void get_keys(struct request *r)
{
    bool values;
    if (r->param[P_AFTER].p != NULL || r->param[P_LIMIT].p != NULL || r->param[P_SIZE].p != NULL) {
        reply_fail(r, CHT_INVALID_ARGUMENT, "'keys' goes with 'values' only");
        return;
    }
    if (!param_bool(r, P_VALUES, true, &values) || !stream_new(r, next_of_keys))
        return;
    struct keys *k = cht_calloc(1, sizeof *k);
    if (k == NULL) {
        reply_fail(r, CHT_NO_MEMORY, "no memory for the keys");
        return;
    }
    r->stream->source = k;
    r->stream->free_source = free_keys;
    k->values = values;
    if (parse_keys(r, k))
        request_database(r, false, begin_keys);
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
    p += out_digits(p, e->key);
    return (size_t)(CHT_PUT(p, DAMAGED) - out);
}

static size_t render_value(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    (void)ctx;
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0)
        return corrupt_line((char *)out, room, e);
    if ((e->flags & CHT_ENTRY_LARGE) != 0)
        return 0;
    return finish_line((char *)out, line_value((char *)out, room, e->key, e->value, e->size, true), room);
}

static size_t render_key(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    (void)ctx;
    return finish_line((char *)out, line_value((char *)out, room, e->key, NULL, e->size, false), room);
}

static void large_value(struct stream *s, const struct cht_entry *e)
{
    struct cht_err err = {0};
    enum cht_rc rc;
    if (stream_large(s, e->key, &cht_ahead, &rc, &err))
        begin_long(s, e->key);
    else if (rc == CHT_KEY_NOT_FOUND)
        s->count--; /* deleted since the scan saw it: it need not appear */
    else
        missing_line(s, e->key, rc);
}

static void sweep(struct request *r)
{
    static const struct stream_kind with = {.render = render_value, .large = large_value};
    static const struct stream_kind without = {.render = render_key, .large = large_value};
    struct cht_scan_config cfg = {.kind = CHT_SCAN_VALUES};
    uint64_t size;
    if (!param_number(r, P_AFTER, 0, CHT_KEY_MAX, 0, &cfg.after_key) ||
        !param_number(r, P_LIMIT, 1, UINT64_MAX / 2, 0, &cfg.limit) ||
        !param_number(r, P_SIZE, 1, UINT32_MAX, 0, &size) || !param_bool(r, P_VALUES, true, &cfg.values))
        return;
    cfg.size = (uint32_t)size;
    stream_scan(r, &cfg, cfg.values ? &with : &without);
}

void kv_list(struct request *r)
{
    if (r->param[P_KEYS].p != NULL)
        get_keys(r);
    else
        request_database(r, false, sweep);
}
