/* pairs: names that are mapped to keys: point calls, counts, scans, namespaces. */
#include "http/body.h"
#include "http/accept.h"
#include "http/calls/condition.h"
#include "http/calls/handlers.h"
#include "http/calls/shared.h"
#include "http/ndjson.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

#include "base/literal.h"

static void not_found(struct http_request *r)
{
    http_reply_fail(r, CHT_PAIR_NOT_FOUND, "no such pair in database '%s'", r->db->name);
}

/* GET /pairs/{prefix} */
struct reading {
    struct cht_str name; /* of the pair, or the prefix: borrowed from the URI */
    bool values, bytes;  /* bytes: the value alone, as it is */
    bool expires, etags; /* of a scan: its lines show these, too */
};

/* ---- reading -------------------------------------------------------------------------------------------------------- */

static void reply_bytes(struct http_request *r, const struct cht_pair_value *pv)
{
    if (pv->size == 0) {
        http_reply_fail(r, CHT_KEY_NOT_FOUND, "the pair is mapped to key %llu, which has no value",
                        (unsigned long long)pv->key);
        return;
    }
    http_reply_header(r, "Cheetah-Key", "%llu", (unsigned long long)pv->key);
    if (pv->ends > 0)
        http_reply_header(r, "Cheetah-Expires", "%llu", (unsigned long long)http_ends_seconds(pv->ends));
    svc_out_bytes(&r->out, r->value.data, r->value.len);
    http_reply_media(r, 200, HTTP_MEDIA_OCTETS);
}

static void read_exact(struct http_request *r)
{
    const struct reading *a = r->own;
    struct cht_str name = a->name;
    struct cht_pair_value pv = {.out = &r->value};
    if (http_request_ahead(r, name, 0, read_exact))
        return;
    struct cht_wait *w = http_request_waiter(r);
    enum cht_rc rc =
        cht_store_pair_value_soon(r->db->store, name, &pv, w, &r->err); /* the tag needs the value */
    if (rc == CHT_PENDING) {
        http_request_await(r, read_exact);
        return;
    }
    http_lookups_read(&http_shared(r->w->srv)->lookups, name, rc == CHT_OK);
    if (rc == CHT_PAIR_NOT_FOUND) {
        if (http_condition_absent(r))
            not_found(r);
        return;
    }
    if (rc != CHT_OK) {
        http_reply_err(r, rc, &r->err);
        return;
    }
    if (!http_condition_found(r, pv.key, r->value.data, pv.size))
        return;
    if (a->bytes) {
        reply_bytes(r, &pv);
        return;
    }
    http_ndjson_put_pair(&r->out, &(struct http_shown){.name = name,
                                                       .value = pv.size > 0 ? r->value.data : NULL,
                                                       .key = pv.key,
                                                       .size = pv.size,
                                                       .values = a->values,
                                                       .text = r->text,
                                                       .ends = pv.ends});
    http_reply_json(r, 200);
}

static void read_count(struct http_request *r)
{
    const struct reading *a = r->own;
    uint64_t pairs;
    enum cht_rc rc = cht_store_count_soon(r->db->store, a->name, &pairs, http_request_waiter(r), &r->err);
    if (rc == CHT_PENDING) {
        http_request_await(r, read_count);
        return;
    }
    if (rc != CHT_OK) {
        http_reply_err(r, rc, &r->err);
        return;
    }
    svc_out_text(&r->out, "{");
    http_ndjson_put_member(&r->out, HTTP_MEMBER_PREFIX, a->name, r->text);
    svc_out_text(&r->out, ",\"pairs\":");
    svc_out_u64(&r->out, pairs);
    svc_out_text(&r->out, "}");
    http_reply_json(r, 200);
}

static size_t render_mapping(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    (void)ctx;
    return http_ndjson_mapping((char *)out, room, (struct cht_str){.p = e->name, .n = e->name_len}, e->key);
}

static size_t render_text_mapping(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    (void)ctx;
    size_t n = room < 2 ? SIZE_MAX
                        : http_ndjson_text_head((char *)out, room - 2,
                                                (struct cht_str){.p = e->name, .n = e->name_len}, e->key);
    if (n == SIZE_MAX)
        return SIZE_MAX;
    out[n] = '}';
    out[n + 1] = '\n';
    return n + 2;
}

static size_t render_with_value(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    const struct http_stream *s = ctx;
    if ((e->flags & CHT_ENTRY_LARGE) != 0)
        return 0;
    struct cht_str name = {.p = e->name, .n = e->name_len};
    const uint8_t *value = (e->flags & (CHT_ENTRY_DANGLING | CHT_ENTRY_CORRUPT)) != 0 ? NULL : e->value;
    static const char tail[] = ",\"error\":\"corrupt_value\"}\n";
    size_t n = s->r->text
                   ? http_ndjson_text_pair((char *)out, room,
                                           &(struct http_shown){name, value, e->key, e->size, true, true, 0})
                   : http_ndjson_pair((char *)out, room, name, e->key, true, value, e->size);
    if (n == SIZE_MAX || n + sizeof tail > room)
        return SIZE_MAX;
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0) {
        memcpy(out + n - 1, tail, sizeof tail - 1);
        return n + sizeof tail - 2;
    }
    out[n] = '\n';
    return n + 1;
}

/* With what expires= and etags= ask for. */
static size_t render_extras(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    const struct http_stream *s = ctx;
    const struct reading *a = s->r->own;
    if (a->values && (e->flags & CHT_ENTRY_LARGE) != 0)
        return 0;
    size_t n = a->values    ? render_with_value(ctx, e, out, room)
               : s->r->text ? render_text_mapping(ctx, e, out, room)
                            : render_mapping(ctx, e, out, room);
    struct http_extras x = {.ends = a->expires ? e->ends : 0};
    x.tagged = a->etags && (e->flags & CHT_ENTRY_CORRUPT) == 0;
    if (x.tagged)
        x.tag = http_etag(e->key, e->value, e->value_len);
    return n == SIZE_MAX ? n : http_ndjson_extras((char *)out, n, room, &x);
}

static void large_value(struct http_stream *s, const struct cht_entry *e)
{
    struct cht_str name = {.p = e->name, .n = e->name_len};
    struct cht_err err = {0};
    enum cht_rc rc;
    const struct reading *a = s->r->own;
    http_ndjson_put_head(&s->stage, name, e->key, s->r->text);
    if (a->expires)
        http_ndjson_put_ends(&s->stage, e->ends);
    if (http_stream_large(s, e->key, &cht_ahead, &rc, &err)) {
        if (a->etags)
            http_stream_tag(s, e->key);
        svc_out_text(&s->stage, ",\"size\":");
        svc_out_u64(&s->stage, s->piece.size);
        http_stream_show(s, HTTP_MEMBER_VALUE, "\"}\n");
        return;
    }
    http_stream_no_value(s, ",\"size\":null,\"value\":null", rc);
}

static void scan(struct http_request *r)
{
    static const struct http_stream_kind with = {
        .render = render_with_value, .runs = true, .large = large_value};
    static const struct http_stream_kind without = {
        .render = render_mapping, .runs = true, .large = large_value};
    static const struct http_stream_kind text_without = {
        .render = render_text_mapping, .runs = true, .large = large_value};
    static const struct http_stream_kind extras = {
        .render = render_extras, .runs = true, .large = large_value};
    const struct reading *a = r->own;
    struct cht_scan_config cfg = {
        .kind = CHT_SCAN_PAIRS, .prefix = a->name, .values = a->values, .ends = a->expires};
    if (!http_param_bytes(r, HTTP_P_AFTER, &cfg.after) || !http_param_bytes(r, HTTP_P_UNTIL, &cfg.until) ||
        !http_param_number(r, HTTP_P_LIMIT, 1, UINT64_MAX / 2, 0, &cfg.limit) ||
        !http_param_bool(r, HTTP_P_REVERSE, false, &cfg.reverse))
        return;
    if (a->expires || a->etags)
        http_stream_scan(r, &cfg, &extras);
    else
        http_stream_scan(r, &cfg, cfg.values ? &with : r->text ? &text_without : &without);
}

/* What only a scan has is refused beside 'count' and 'exact', rather than passed over. */
static bool no_range(struct http_request *r, bool count)
{
    static const enum http_param range[] = {HTTP_P_AFTER, HTTP_P_UNTIL, HTTP_P_LIMIT};
    const char *what = NULL;
    bool reverse;
    if (!http_param_bool(r, HTTP_P_REVERSE, false, &reverse))
        return false;
    for (size_t i = 0; i < sizeof range / sizeof *range; i++) {
        if (r->param[range[i]].p != NULL)
            what = http_param_name(range[i]);
    }
    if (reverse)
        what = http_param_name(HTTP_P_REVERSE);
    if (what != NULL)
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'%s' and '%s' exclude each other",
                        http_param_name(count ? HTTP_P_COUNT : HTTP_P_EXACT), what);
    return what == NULL;
}

void http_pairs_get(struct http_request *r)
{
    bool exact, count, children;
    if (!http_param_bool(r, HTTP_P_CHILDREN, false, &children) ||
        !http_param_bool(r, HTTP_P_EXACT, false, &exact))
        return;
    if (r->conditional && !exact) {
        http_reply_fail(r, CHT_UNSUPPORTED_PRECONDITION, "scans and counts have no preconditions");
        return;
    }
    if (children) {
        http_pairs_children(r);
        return;
    }
    if (r->param[HTTP_P_SEPARATOR].p != NULL) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'separator' goes with children=true only");
        return;
    }
    struct reading *a = http_request_own(r, sizeof *a);
    if (!http_param_bool(r, HTTP_P_COUNT, false, &count) ||
        !http_param_bool(r, HTTP_P_VALUES, false, &a->values) || !http_rest_bytes(r, !exact, &a->name))
        return;
    if (!http_param_bool(r, HTTP_P_EXPIRES, false, &a->expires) || !http_param_etags(r, a->values, &a->etags))
        return;
    if (count && (a->values || a->expires || a->etags)) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "a count has neither 'values' nor 'expires' nor 'etags'");
        return;
    }
    if (exact && count) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'exact' and 'count' exclude each other");
        return;
    }
    if ((exact || count) && !no_range(r, count))
        return;
    if (!http_condition_check(r))
        return;
    a->bytes = exact && http_accepts_bytes(r);
    http_request_database(r, false, exact ? read_exact : count ? read_count : scan);
}

/* An exact pair. */
bool http_pairs_quick(const struct http_request *r)
{
    const struct http_param_value *exact = &r->param[HTTP_P_EXACT];
    return exact->p != NULL && CHT_IS(exact->p, exact->n, "true");
}

/* ---- writing -------------------------------------------------------------------------------------------------------- */

static bool failed(struct http_request *r)
{
    const struct cht_op *op = r->own;
    enum cht_rc rc = r->commit.rc != CHT_OK ? r->commit.rc : op->rc;
    if (rc == CHT_PAIR_NOT_FOUND)
        not_found(r);
    else if (rc != CHT_OK)
        http_reply_err(r, rc, &r->commit.err);
    return rc != CHT_OK;
}

static void mapped(struct http_request *r)
{
    if (failed(r))
        return;
    const struct cht_op *op = r->own;
    http_ndjson_put_head(&r->out, op->name, op->key, r->text);
    if (op->kind == CHT_OP_PAIR_PUT) {
        svc_out_text(&r->out, ",\"size\":");
        svc_out_u64(&r->out, op->value.n);
    }
    http_ndjson_put_ends(&r->out, op->ends);
    svc_out_text(&r->out, "}");
    if (op->ask != NULL && op->kind == CHT_OP_PAIR_PUT) /* so that the next one needs no read */
        http_reply_tag(r, http_etag(op->key, op->value.p, op->value.n));
    http_reply_json(r, op->created ? 201 : 200);
}

static void put(struct http_request *r) { http_request_operation(r, r->own, mapped); }

/* {"key":n} or {"value":base64}. */
static bool parse_mapping(struct http_request *r, struct cht_op *op)
{
    json_t *o = http_body_object(r, CHT_INVALID_VALUE);
    if (o == NULL)
        return false;
    const json_t *key = json_object_get(o, "key"), *value = json_object_get(o, "value");
    bool ok = false;
    if ((key == NULL) == (value == NULL)) {
        http_reply_fail(r, CHT_INVALID_VALUE, "either {\"key\":n} or {\"value\":\"<base64>\"} is expected");
    } else if (value != NULL) {
        op->kind = CHT_OP_PAIR_PUT;
        ok = http_body_base64(r, value, &op->value);
    } else if (!json_is_integer(key) || json_integer_value(key) < 1 ||
               json_integer_value(key) > (json_int_t)CHT_KEY_MAX) {
        http_reply_err(r, CHT_INVALID_KEY, NULL);
    } else {
        op->kind = CHT_OP_PAIR_SET;
        op->key = (uint64_t)json_integer_value(key);
        ok = true;
    }
    json_decref(o);
    return ok;
}

/* All that is short. */
bool http_put_quick(const struct http_request *r)
{
    (void)r;
    return true;
}

void http_pairs_put(struct http_request *r)
{
    struct cht_op *op = http_condition_operation(r, CHT_OP_PAIR_PUT);
    if (op == NULL || !http_rest_bytes(r, false, &op->name) || !http_param_ttl(r, &op->ttl_ms))
        return;
    if (!(http_body_is_json(r) ? parse_mapping(r, op) : http_body_value(r, &op->value)))
        return;
    if (op->ttl_ms > 0 && op->kind != CHT_OP_PAIR_PUT)
        http_reply_fail(r, CHT_INVALID_ARGUMENT,
                        "'ttl' goes with a value: a pair ends together with its value");
    else
        http_request_database(r, true, put);
}

static void one_deleted(struct http_request *r)
{
    if (!failed(r))
        http_reply_empty(r, 204);
}

static void namespace_deleted(struct http_request *r)
{
    const struct cht_op *op = r->own;
    if (failed(r))
        return;
    svc_out_text(&r->out, "{\"pairs_deleted\":");
    svc_out_u64(&r->out, op->pairs);
    svc_out_text(&r->out, ",\"values_deleted\":");
    svc_out_u64(&r->out, op->values);
    svc_out_text(&r->out, "}");
    http_reply_json(r, 200);
}

static void delete (struct http_request *r)
{
    struct cht_op *op = r->own;
    http_request_operation(r, op, op->kind == CHT_OP_PREFIX_DEL ? namespace_deleted : one_deleted);
}

void http_pairs_delete(struct http_request *r)
{
    bool recursive, values;
    struct cht_op *op = http_condition_operation(r, CHT_OP_PAIR_DEL);
    if (op == NULL || !http_param_bool(r, HTTP_P_RECURSIVE, false, &recursive) ||
        !http_param_bool(r, HTTP_P_VALUES, false, &values))
        return;
    if (recursive && r->rest_len == 0) { /* a client's empty variable must not empty the database */
        http_reply_fail(r, CHT_INVALID_PAIR, "a prefix is missing; without names= * stands for all");
        return;
    }
    if (recursive && r->conditional) {
        http_reply_fail(r, CHT_UNSUPPORTED_PRECONDITION, "the deletion of a namespace has no preconditions");
        return;
    }
    if (!http_rest_bytes(r, recursive, &op->name))
        return;
    op->kind = recursive ? CHT_OP_PREFIX_DEL : CHT_OP_PAIR_DEL;
    op->with_values = values;
    http_request_database(r, false, delete);
}
