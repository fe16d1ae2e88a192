/* pairs: names that are mapped to keys: point calls, counts, scans, namespaces. */
#include "http/body.h"
#include "http/calls/handlers.h"
#include "http/line.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

static void not_found(struct request *r)
{
    reply_fail(r, CHT_PAIR_NOT_FOUND, "no such pair in database '%s'", r->db->name);
}

/* GET /pairs/{prefix} */
struct reading {
    struct cht_str name; /* of the pair, or the prefix: borrowed from the URI */
    bool values;
};

/* ---- reading -------------------------------------------------------------------------------------------------------- */

static void read_exact(struct request *r)
{
    const struct reading *a = r->own;
    bool values = a->values;
    struct cht_str name = a->name;
    struct cht_pair_value pv = {.out = &r->value};
    if (request_ahead(r, name, 0, read_exact))
        return;
    struct cht_wait *w = request_waiter(r);
    enum cht_rc rc = values ? cht_store_pair_value_soon(r->db->store, name, &pv, w, &r->err)
                            : cht_store_pair_soon(r->db->store, name, &pv.key, w, &r->err);
    if (rc == CHT_PENDING) {
        request_await(r, read_exact);
        return;
    }
    if (rc == CHT_PAIR_NOT_FOUND) {
        not_found(r);
        return;
    }
    if (rc != CHT_OK) {
        reply_err(r, rc, &r->err);
        return;
    }
    if (out_room(&r->out, line_room(name.n, pv.size)))
        r->out.n += line_pair(r->out.p, r->out.cap, name, pv.key, values, pv.size > 0 ? r->value.data : NULL,
                              pv.size);
    reply_json(r, 200);
}

static void read_count(struct request *r)
{
    const struct reading *a = r->own;
    uint64_t pairs;
    enum cht_rc rc = cht_store_count_soon(r->db->store, a->name, &pairs, request_waiter(r), &r->err);
    if (rc == CHT_PENDING) {
        request_await(r, read_count);
        return;
    }
    if (rc != CHT_OK) {
        reply_err(r, rc, &r->err);
        return;
    }
    out_text(&r->out, "{\"prefix\":");
    out_b64(&r->out, a->name.p, a->name.n);
    out_text(&r->out, ",\"pairs\":");
    out_u64(&r->out, pairs);
    out_text(&r->out, "}");
    reply_json(r, 200);
}

static size_t render_mapping(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    (void)ctx;
    return line_mapping((char *)out, room, (struct cht_str){.p = e->name, .n = e->name_len}, e->key);
}

static size_t render_with_value(void *ctx, const struct cht_entry *e, uint8_t *out, size_t room)
{
    (void)ctx;
    if ((e->flags & CHT_ENTRY_LARGE) != 0)
        return 0;
    struct cht_str name = {.p = e->name, .n = e->name_len};
    const uint8_t *value = (e->flags & (CHT_ENTRY_DANGLING | CHT_ENTRY_CORRUPT)) != 0 ? NULL : e->value;
    static const char tail[] = ",\"error\":\"corrupt_value\"}\n";
    size_t n = line_pair((char *)out, room, name, e->key, true, value, e->size);
    if (n == SIZE_MAX || n + sizeof tail > room)
        return SIZE_MAX;
    if ((e->flags & CHT_ENTRY_CORRUPT) != 0) {
        memcpy(out + n - 1, tail, sizeof tail - 1);
        return n + sizeof tail - 2;
    }
    out[n] = '\n';
    return n + 1;
}

static void large_value(struct stream *s, const struct cht_entry *e)
{
    struct cht_str name = {.p = e->name, .n = e->name_len};
    struct cht_err err = {0};
    enum cht_rc rc;
    if (!out_room(&s->stage, line_room(name.n, 0)))
        return;
    s->stage.n += line_pair_head(s->stage.p + s->stage.n, s->stage.cap - s->stage.n, name, e->key);
    if (stream_large(s, e->key, &cht_ahead, &rc, &err)) {
        out_text(&s->stage, ",\"size\":");
        out_u64(&s->stage, s->piece.size);
        out_text(&s->stage, ",\"value\":\"");
        s->piece.tail = "\"}\n";
        return;
    }
    stream_no_value(s, ",\"size\":null,\"value\":null", rc);
}

static void scan(struct request *r)
{
    static const struct stream_kind with = {.render = render_with_value, .large = large_value};
    static const struct stream_kind without = {.render = render_mapping, .runs = true, .large = large_value};
    const struct reading *a = r->own;
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = a->name, .values = a->values};
    if (!param_bytes(r, P_AFTER, &cfg.after) || !param_bytes(r, P_UNTIL, &cfg.until) ||
        !param_number(r, P_LIMIT, 1, UINT64_MAX / 2, 0, &cfg.limit) ||
        !param_bool(r, P_REVERSE, false, &cfg.reverse))
        return;
    stream_scan(r, &cfg, cfg.values ? &with : &without);
}

void pairs_get(struct request *r)
{
    struct reading *a = request_own(r, sizeof *a);
    bool exact, count;
    if (!param_bool(r, P_EXACT, false, &exact) || !param_bool(r, P_COUNT, false, &count) ||
        !param_bool(r, P_VALUES, false, &a->values) || !rest_bytes(r, !exact, &a->name))
        return;
    if (exact && count) {
        reply_fail(r, CHT_INVALID_ARGUMENT, "'exact' and 'count' exclude each other");
        return;
    }
    request_database(r, false, exact ? read_exact : count ? read_count : scan);
}

/* ---- writing -------------------------------------------------------------------------------------------------------- */

static bool failed(struct request *r)
{
    const struct cht_op *op = r->own;
    enum cht_rc rc = r->commit.rc != CHT_OK ? r->commit.rc : op->rc;
    if (rc == CHT_PAIR_NOT_FOUND)
        not_found(r);
    else if (rc != CHT_OK)
        reply_err(r, rc, &r->commit.err);
    return rc != CHT_OK;
}

static void mapped(struct request *r)
{
    if (failed(r))
        return;
    const struct cht_op *op = r->own;
    if (out_room(&r->out, line_room(op->name.n, 0) + 32)) {
        r->out.n += line_pair_head(r->out.p, r->out.cap, op->name, op->key);
        if (op->kind == CHT_OP_PAIR_PUT) {
            out_text(&r->out, ",\"size\":");
            out_u64(&r->out, op->value.n);
        }
        out_text(&r->out, "}");
    }
    reply_json(r, op->created ? 201 : 200);
}

static void put(struct request *r) { request_operation(r, r->own, mapped); }

/* {"key":n} or {"value":base64}. */
static bool parse_mapping(struct request *r, struct cht_op *op)
{
    json_t *o = body_object(r, CHT_INVALID_VALUE);
    if (o == NULL)
        return false;
    const json_t *key = json_object_get(o, "key"), *value = json_object_get(o, "value");
    bool ok = false;
    if ((key == NULL) == (value == NULL)) {
        reply_fail(r, CHT_INVALID_VALUE, "either {\"key\":n} or {\"value\":\"<base64>\"} is expected");
    } else if (value != NULL) {
        op->kind = CHT_OP_PAIR_PUT;
        ok = body_base64(r, value, &op->value);
    } else if (!json_is_integer(key) || json_integer_value(key) < 1 ||
               json_integer_value(key) > (json_int_t)CHT_KEY_MAX) {
        reply_err(r, CHT_INVALID_KEY, NULL);
    } else {
        op->kind = CHT_OP_PAIR_SET;
        op->key = (uint64_t)json_integer_value(key);
        ok = true;
    }
    json_decref(o);
    return ok;
}

void pairs_put(struct request *r)
{
    struct cht_op *op = request_own_operation(r, CHT_OP_PAIR_PUT);
    if (!rest_bytes(r, false, &op->name))
        return;
    if (body_is_json(r) ? parse_mapping(r, op) : body_value(r, &op->value))
        request_database(r, true, put);
}

static void one_deleted(struct request *r)
{
    if (!failed(r))
        reply_empty(r, 204);
}

static void namespace_deleted(struct request *r)
{
    const struct cht_op *op = r->own;
    if (failed(r))
        return;
    out_text(&r->out, "{\"pairs_deleted\":");
    out_u64(&r->out, op->pairs);
    out_text(&r->out, ",\"values_deleted\":");
    out_u64(&r->out, op->values);
    out_text(&r->out, "}");
    reply_json(r, 200);
}

static void delete (struct request *r)
{
    struct cht_op *op = r->own;
    request_operation(r, op, op->kind == CHT_OP_PREFIX_DEL ? namespace_deleted : one_deleted);
}

void pairs_delete(struct request *r)
{
    bool recursive, values;
    struct cht_op *op = request_own_operation(r, CHT_OP_PAIR_DEL);
    if (!param_bool(r, P_RECURSIVE, false, &recursive) || !param_bool(r, P_VALUES, false, &values))
        return;
    if (recursive && r->rest_len == 0) { /* a client's empty variable must not empty the database */
        reply_fail(r, CHT_INVALID_PAIR, "a prefix is missing; * stands for all");
        return;
    }
    if (!rest_bytes(r, recursive, &op->name))
        return;
    op->kind = recursive ? CHT_OP_PREFIX_DEL : CHT_OP_PAIR_DEL;
    op->with_values = values;
    request_database(r, false, delete);
}
