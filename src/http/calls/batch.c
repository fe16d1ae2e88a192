/* batch: see batch.h.
 *
 * Lines are parsed as they come in, so that no thread is held for long. Names and values are decoded into blocks that do
 * not move. A malformed line becomes an operation that is not given to the store; in an atomic batch its place is taken
 * by one that is certain to fail, so that whichever fails first is the one that is reported.
 */
#include "http/calls/batch.h"

#include "http/calls/batch_int.h"
#include "http/calls/change.h"
#include "http/calls/handlers.h"
#include "http/ndjson.h"
#include "http/lines.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

#include "base/alloc.h"
#include "base/literal.h"

#include <jansson.h>

#define LINE_MORE (64u << 10) /* of a line, beside the base64 of the longest value */
#define OPERATION_COST 400u   /* bytes of memory for one beside its names and values, while it is committed */

/* ---- parsing -------------------------------------------------------------------------------------------------------- */

static enum cht_rc grow(struct http_request *r)
{
    struct http_batch *b = r->own;
    if (b->count < b->cap)
        return CHT_OK;
    size_t cap = b->cap == 0 ? 256 : b->cap * 2;
    enum cht_rc rc =
        svc_memory_take(&r->memory, (cap - b->cap) * (sizeof *b->ops + sizeof *b->entries), &r->err);
    if (rc != CHT_OK)
        return rc;
    struct cht_op *ops = cht_realloc(b->ops, cap * sizeof *ops);
    if (ops == NULL)
        return http_batch_no_memory(r);
    b->ops = ops;
    struct http_batch_entry *entries = cht_realloc(b->entries, cap * sizeof *entries);
    if (entries == NULL)
        return http_batch_no_memory(r);
    b->entries = entries;
    b->cap = cap;
    return CHT_OK;
}

/* Then the first operation that writes decides. */
static bool may_only_read(const struct http_request *r)
{
    return r->token != NULL && !svc_access_has_right(r->token, r->route->right);
}

/* Why a text is no JSON object. */
static const char *why_not(const json_t *o, const json_error_t *where)
{
    enum json_error_code code = o == NULL ? json_error_code(where) : json_error_unknown;
    if (code == json_error_numeric_overflow)
        return "a number of the line is too large: integers have 64 bits";
    return code == json_error_duplicate_key ? "a member of the line is there twice"
                                            : "the line is no JSON object";
}

/* lines.take */
static enum cht_rc parse_line(struct http_request *r, const char *p, size_t n)
{
    struct http_batch *b = r->own;
    bool fatal = false;
    size_t blank = 0;
    while (blank < n && (p[blank] == ' ' || p[blank] == '\t' || p[blank] == '\r'))
        blank++;
    if (blank == n)
        return CHT_OK;
    if (b->count >= r->w->srv->conf->max_batch_ops)
        return CHT_FAIL(&r->err, CHT_BATCH_TOO_LARGE, "at most %llu operations",
                        (unsigned long long)r->w->srv->conf->max_batch_ops);
    enum cht_rc rc = grow(r);
    if (rc != CHT_OK)
        return rc;
    struct cht_op *op = &b->ops[b->count];
    struct http_batch_entry *e = &b->entries[b->count];
    *op = (struct cht_op){.kind = CHT_OP_READ};
    *e = (struct http_batch_entry){.rc = CHT_OK, .detail = ""};
    b->count++;
    json_error_t where;
    json_t *o = json_loadb(p, n, JSON_REJECT_DUPLICATES, &where);
    if (o == NULL && json_error_code(&where) == json_error_out_of_memory)
        return http_batch_no_memory(r);
    if (o == NULL || !json_is_object(o)) {
        b->writes = true; /* who knows what it was to be */
        (void)http_batch_refuse(e, CHT_INVALID_OPERATION, why_not(o, &where));
    } else {
        http_batch_line(r, o, op, e, &fatal);
    }
    json_decref(o);
    if (!fatal && b->writes && may_only_read(r))
        return CHT_FAIL(&r->err, CHT_FORBIDDEN, "this token allows batches that only read");
    return fatal ? r->err.code : CHT_OK;
}

static void batch_free(struct http_request *r);

static bool answered(const struct http_request *r)
{
    return atomic_load_explicit(&r->phase, memory_order_relaxed) == HTTP_PHASE_READY;
}

bool http_batch_feed(struct http_request *r, const char *data, size_t n)
{
    struct http_batch *b = r->own;
    if (b == NULL) {
        b = r->own = cht_calloc(1, sizeof(struct http_batch));
        r->release = batch_free;
    }
    enum cht_rc rc = CHT_OK;
    if (b == NULL) {
        rc = http_batch_no_memory(r);
    } else {
        b->lines.take = parse_line;
        b->lines.max = cht_b64_encoded(r->w->srv->conf->max_value_size) + LINE_MORE;
        rc = http_lines_feed(r, &b->lines, data, n);
    }
    if (rc != CHT_OK)
        http_reply_err(r, rc, &r->err);
    return true;
}

static void batch_free(struct http_request *r)
{
    struct http_batch *b = r->own;
    if (b == NULL)
        return;
    while (b->blocks != NULL) {
        struct http_batch_block *k = b->blocks;
        b->blocks = k->next;
        cht_free(k);
    }
    while (b->changes != NULL) {
        struct http_change *c = b->changes;
        b->changes = c->next;
        http_change_free(c);
    }
    for (size_t i = 0; b->values != NULL && i < b->reads; i++)
        cht_buf_free(&b->values[i]);
    cht_free(b->values);
    cht_free(b->ops);
    cht_free(b->entries);
    cht_free(b->run);
    cht_free(b->place);
    http_lines_fini(&b->lines);
    cht_free(b);
    r->own = NULL;
}

/* ---- answering ------------------------------------------------------------------------------------------------------- */

static void key_member(struct svc_out *o, uint64_t key)
{
    svc_out_text(o, ",\"key\":");
    svc_out_u64(o, key);
}

static void size_member(struct svc_out *o, uint64_t size)
{
    svc_out_text(o, ",\"size\":");
    svc_out_u64(o, size);
}

static void value_member(struct svc_out *o, const struct cht_op *op, bool text)
{
    size_member(o, op->size);
    svc_out_text(o, ",");
    http_ndjson_put_member(o, HTTP_MEMBER_VALUE, (struct cht_str){op->buf->data, op->buf->len}, text);
}

static bool is_tagged(const struct http_batch *b, const struct cht_op *op, const struct http_batch_entry *e)
{
    return op->value.n > 0 ? e->conditional || b->etags : op->buf != NULL && b->etags;
}

/* Of what was read, or of what was written, so that the next one needs no read. */
static void tag_member(struct svc_out *o, const struct cht_op *op)
{
    bool read = op->buf != NULL;
    http_ndjson_put_tag(
        o, http_etag(op->key, read ? op->buf->data : op->value.p, read ? op->size : op->value.n));
}

static void success(struct svc_out *o, const struct http_batch *b, const struct cht_op *op,
                    const struct http_batch_entry *e, bool text)
{
    const struct http_change *change =
        e->conditional ? NULL : (const struct http_change *)(const void *)op->ask;
    if (change != NULL && change->change.is_add) {
        svc_out_format(o, "{\"status\":200,\"key\":%llu,\"value\":%lld}", (unsigned long long)op->key,
                       (long long)change->change.sum);
        return;
    }
    bool created = op->kind == CHT_OP_INSERT || op->kind == CHT_OP_RESERVE || op->created;
    bool gone = op->kind == CHT_OP_DELETE || op->kind == CHT_OP_PAIR_DEL;
    bool reads = op->kind == CHT_OP_READ || op->kind == CHT_OP_PAIR_READ;
    bool pair = op->kind == CHT_OP_PAIR_SET || op->kind == CHT_OP_PAIR_PUT || op->kind == CHT_OP_PAIR_READ;
    svc_out_text(o, gone ? "{\"status\":204" : created && !reads ? "{\"status\":201" : "{\"status\":200");
    if (pair) {
        svc_out_text(o, ",");
        http_ndjson_put_member(o, HTTP_MEMBER_PAIR, op->name, text);
    }
    if (!gone)
        key_member(o, op->key);
    if (op->kind == CHT_OP_INSERT || op->kind == CHT_OP_EDIT || op->kind == CHT_OP_PUT ||
        op->kind == CHT_OP_PAIR_PUT)
        size_member(o, op->value.n);
    if (op->kind == CHT_OP_READ || (op->kind == CHT_OP_PAIR_READ && op->with_values && op->size > 0))
        value_member(o, op, text);
    else if (op->kind == CHT_OP_PAIR_READ && op->with_values)
        svc_out_text(o, ",\"size\":null,\"value\":null");
    if (op->kind == CHT_OP_PAIR_PUT || op->kind == CHT_OP_PAIR_READ)
        http_ndjson_put_ends(o, op->ends);
    if (is_tagged(b, op, e))
        tag_member(o, op);
    svc_out_text(o, "}");
}

static void failure(struct svc_out *o, enum cht_rc rc, const char *detail)
{
    svc_out_text(o, "{\"status\":");
    svc_out_u64(o, (uint64_t)cht_rc_http(rc));
    svc_out_text(o, ",\"code\":\"");
    svc_out_text(o, cht_rc_slug(rc));
    svc_out_text(o, "\",\"detail\":");
    svc_out_string(o, detail, strlen(detail));
    svc_out_text(o, "}");
}

static enum http_more next_line(struct http_stream *s, const char **p, size_t *n)
{
    struct http_batch *b = s->r->own;
    s->stage.n = 0;
    while (b->at < b->count && s->stage.n < HTTP_STREAM_PIECE) {
        const struct http_batch_entry *e = &b->entries[b->at];
        const struct cht_op *op = &b->ops[b->at++];
        s->count++;
        if (e->rc == CHT_OK && op->rc == CHT_OK) {
            if (b->results) {
                success(&s->stage, b, op, e, s->r->text);
                svc_out_text(&s->stage, "\n");
            }
            continue;
        }
        b->count_failed++;
        failure(&s->stage, e->rc != CHT_OK ? e->rc : op->rc,
                e->rc != CHT_OK ? e->detail : cht_rc_text(op->rc));
        svc_out_text(&s->stage, "\n");
    }
    if (s->stage.n == 0 && b->ended)
        return HTTP_MORE_END;
    if (b->at == b->count && !b->ended) {
        b->ended = true;
        svc_out_format(&s->stage, "{\"end\":{\"count\":%zu,\"failed\":%zu}}\n", b->count, b->count_failed);
    }
    *p = s->stage.p;
    *n = s->stage.n;
    return s->stage.failed ? HTTP_MORE_END : HTTP_MORE_TEXT;
}

static void atomic_failed(struct http_request *r)
{
    struct http_batch *b = r->own;
    r->stream->free(r);
    size_t i = b->place[r->commit.failed];
    const struct http_batch_entry *e = &b->entries[i];
    enum cht_rc rc = e->rc != CHT_OK ? e->rc : b->run[r->commit.failed].rc;
    svc_out_reset(&r->out, SIZE_MAX);
    http_problem_text(&r->out, CHT_BATCH_FAILED, "nothing of the batch was applied");
    svc_out_format(&r->out, ",\"index\":%zu,\"operation\":", i);
    failure(&r->out, rc,
            e->rc != CHT_OK             ? e->detail
            : r->commit.err.msg[0] != 0 ? r->commit.err.msg
                                        : cht_rc_text(rc));
    svc_out_text(&r->out, "}");
    http_reply_media(r, cht_rc_http(CHT_BATCH_FAILED), HTTP_MEDIA_PROBLEM);
}

static void committed(struct http_request *r)
{
    struct http_batch *b = r->own;
    enum cht_rc rc = r->commit.rc;
    if (rc == CHT_BATCH_FAILED && b->atomic) {
        atomic_failed(r);
        return;
    }
    if (rc != CHT_OK) {
        http_reply_err(r, rc, &r->commit.err);
        return;
    }
    for (size_t i = 0; i < b->runs; i++)
        b->ops[b->place[i]] = b->run[i];
    r->stream->ended = false;
    http_stream_begin(r);
}

/* The operations that the store is to run, and their buffers. */
static bool prepare(struct http_batch *b)
{
    b->run = cht_malloc((b->count + 1) * sizeof *b->run);
    b->place = cht_malloc((b->count + 1) * sizeof *b->place);
    b->values = cht_calloc(b->reads + 1, sizeof *b->values);
    if (b->run == NULL || b->place == NULL || b->values == NULL)
        return false;
    size_t reads = 0;
    for (size_t i = 0; i < b->count; i++) {
        struct cht_op *op = &b->ops[i];
        bool bad = b->entries[i].rc != CHT_OK;
        if (bad && !b->atomic)
            continue;
        if (bad)
            *op = (struct cht_op){.kind = CHT_OP_DELETE, .key = 0}; /* fails for certain */
        else if (op->kind == CHT_OP_READ || (op->kind == CHT_OP_PAIR_READ && op->with_values))
            op->buf = &b->values[reads++];
        b->place[b->runs] = i;
        b->run[b->runs++] = *op;
    }
    return true;
}

/* What the commit will need beside the operations: the record for the log, changed pages, what is read. */
static enum cht_rc book_commit(struct http_request *r)
{
    const struct http_batch *b = r->own;
    const struct conf *c = r->w->srv->conf;
    uint64_t reads = b->reads < UINT32_MAX ? b->reads * c->max_value_size : UINT64_MAX;
    uint64_t need = 2 * (uint64_t)b->bytes + b->count * OPERATION_COST;
    if (need + reads <= SVC_MEMORY_SMALL)
        return CHT_OK;
    return svc_memory_take(&r->memory, need + (reads < c->max_batch_bytes ? reads : c->max_batch_bytes),
                           &r->err);
}

/* The stream is there before anything is written: a 503 says that nothing was. It is `ended`, which nobody looks at, until it begins. */
static void commit(struct http_request *r)
{
    struct http_batch *b = r->own;
    enum cht_rc rc = book_commit(r);
    if (rc != CHT_OK) {
        http_reply_err(r, rc, &r->err);
        return;
    }
    if (!prepare(b)) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for the batch");
        return;
    }
    if (!http_stream_new(r, next_line))
        return;
    r->stream->ended = true;
    r->commit.ops = b->run;
    r->commit.count = b->runs;
    r->commit.flags = b->atomic ? CHT_COMMIT_ATOMIC : 0;
    r->commit.read_max = r->w->srv->conf->max_batch_bytes;
    http_request_commit(r, committed);
}

static void all_read(struct http_request *r)
{
    const struct http_batch *b = r->own;
    bool writes = b->writes || (b->count == 0 && !may_only_read(r)); /* an empty one makes the database */
    if (writes)
        http_request_needs(r);
    http_request_database(r, writes, commit);
}

void http_batch_post(struct http_request *r)
{
    bool atomic, results, etags;
    if (!http_param_bool(r, HTTP_P_ATOMIC, false, &atomic) ||
        !http_param_bool(r, HTTP_P_RESULTS, true, &results) ||
        !http_param_bool(r, HTTP_P_ETAGS, false, &etags))
        return;
    if (r->own == NULL && (!http_batch_feed(r, "", 0) || answered(r))) /* an empty body is an empty batch */
        return;
    struct http_batch *b = r->own;
    b->atomic = atomic;
    b->results = results;
    b->etags = etags;
    http_lines_end(r, &b->lines, all_read);
}
