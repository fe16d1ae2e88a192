/* contexts: POST /contexts: the contexts of a smoothed n-gram database under a tree, on a job thread. */
#include "http/body.h"
#include "http/calls/handlers.h"
#include "http/calls/lm_int.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/stream.h"

#include "base/alloc.h"
#include "lm/avo.h"
#include "lm/names.h"
#include "lm/predict.h"

#define CONTEXTS_MAX 10000u    /* of one answer */
#define ANSWER_MAX (64u << 20) /* its text */

/* A tree of the request; nodes lie in one block. */
struct tree {
    struct lm_node *nodes;
    size_t n;
};

/* POST /contexts */
struct matching {
    struct lm_node *tree; /* owned */
    enum lm_contexts_match match;
    long depth; /* -1: all of it */
    uint64_t limit;
    struct cht_str after; /* borrowed from the body */
    uint64_t shown;       /* contexts so far */
    size_t last_len;      /* the cursor of the last of them */
    uint8_t last[CHT_NAME_MAX];
};

static void free_tree(struct http_request *r) { cht_free(((struct matching *)r->own)->tree); }

/* NOLINTNEXTLINE(misc-no-recursion): at most LM_AVO_DEPTH_MAX deep */
static size_t count_nodes(const json_t *v, unsigned depth)
{
    size_t n = 1;
    for (size_t i = 0; json_is_array(v) && depth < LM_AVO_DEPTH_MAX && i < json_array_size(v); i++)
        n += count_nodes(json_array_get(v, i), depth + 1);
    return n;
}

/* NOLINTNEXTLINE(misc-no-recursion): likewise */
static bool copy_node(struct tree *t, const json_t *v, struct lm_node *to, unsigned depth)
{
    if (json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= (json_int_t)UINT32_MAX) {
        *to = (struct lm_node){.value = (uint32_t)json_integer_value(v)};
        return true;
    }
    if (!json_is_array(v) || depth >= LM_AVO_DEPTH_MAX)
        return false;
    *to = (struct lm_node){.list = true, .n = json_array_size(v), .children = t->nodes + t->n};
    t->n += to->n;
    for (size_t i = 0; i < to->n; i++) {
        if (!copy_node(t, json_array_get(v, i), &to->children[i], depth + 1))
            return false;
    }
    return true;
}

static bool put_context(void *ctx, const struct lm_context *c)
{
    struct http_request *r = ctx;
    struct matching *a = r->own;
    struct svc_out *o = &r->out;
    svc_out_text(o, "{\"vector\":");
    if (c->vector.n > 0)
        svc_out_b64(o, c->vector.p, c->vector.n);
    else
        svc_out_text(o, "null");
    svc_out_text(o, ",\"key\":");
    svc_out_u64(o, c->key);
    if (c->malformed) {
        svc_out_text(o,
                     ",\"hash\":null,\"order_size\":null,\"tokens\":[],\"ranked\":[],\"problem\":\"malformed_"
                     "payload\"}\n");
    } else {
        svc_out_text(o, ",\"hash\":\"");
        if (memcmp(c->hash, LM_ROOT, LM_HASH_SIZE) == 0)
            svc_out_text(o, LM_ROOT);
        else if (svc_out_room(o, 2 * LM_HASH_SIZE))
            o->n += svc_out_hex(o->p + o->n, c->hash, LM_HASH_SIZE);
        svc_out_text(o, "\",\"order_size\":");
        svc_out_u64(o, c->order_size);
        svc_out_text(o, ",\"tokens\":[");
        for (size_t i = 0; i < c->n; i++) {
            svc_out_text(o, i > 0 ? "," : "");
            svc_out_u64(o, c->tokens[i]);
        }
        svc_out_text(o, "],\"ranked\":[");
        for (size_t i = 0; i < c->ranked_n; i++) {
            svc_out_text(o, i > 0 ? ",[" : "[");
            svc_out_u64(o, c->ranked[i].token);
            svc_out_text(o, ",");
            svc_out_u64(o, c->ranked[i].q);
            svc_out_text(o, "]");
        }
        svc_out_text(o, "]}\n");
    }
    a->shown++;
    a->last_len = c->cursor.n < sizeof a->last ? c->cursor.n : sizeof a->last;
    memcpy(a->last, c->cursor.p, a->last_len);
    return o->n < ANSWER_MAX;
}

static void contexts_work(struct http_request *r)
{
    struct matching *a = r->own;
    const struct lm_contexts_query q = {.tree = a->tree,
                                        .match = a->match,
                                        .depth = a->depth,
                                        .limit = a->limit,
                                        .after = a->after,
                                        .cancel = &r->cancel};
    bool more = false;
    r->rc = lm_contexts(r->db->store, &q, put_context, r, &more, &r->err);
    if (r->rc != CHT_OK)
        return;
    svc_out_format(&r->out, "{\"end\":{\"count\":%llu,\"next\":", (unsigned long long)a->shown);
    if (more && a->shown > 0) {
        svc_out_text(&r->out, "\"x");
        if (svc_out_room(&r->out, 2 * a->last_len))
            r->out.n += svc_out_hex(r->out.p + r->out.n, a->last, a->last_len);
        svc_out_text(&r->out, "\"}}\n");
    } else {
        svc_out_text(&r->out, "null}}\n");
    }
}

static void contexts_answer(struct http_request *r)
{
    if (r->rc != CHT_OK)
        http_reply_err(r, r->rc, &r->err);
    else
        http_stream_out(r);
}

static void contexts(struct http_request *r) { http_request_job(r, contexts_work, contexts_answer); }

static bool take_tree(struct http_request *r, const json_t *o, struct lm_node **out)
{
    const json_t *v = json_object_get(o, "tree");
    if (v == NULL) {
        http_reply_fail(r, CHT_INVALID_TREE, "\"tree\" is missing");
        return false;
    }
    size_t n = count_nodes(v, 0);
    struct tree t = {.nodes = cht_calloc(n + 1, sizeof *t.nodes), .n = 1};
    if (t.nodes == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for the tree");
        return false;
    }
    *out = t.nodes;
    if (copy_node(&t, v, &t.nodes[0], 0))
        return true;
    http_reply_fail(r, CHT_INVALID_TREE,
                    "a tree is lists of lists and integers from 0 to 4294967295, at most %u deep",
                    LM_AVO_DEPTH_MAX);
    return false;
}

static bool take_match(struct http_request *r, const json_t *o, enum lm_contexts_match *out)
{
    const json_t *v = json_object_get(o, "match");
    const char *text = json_string_value(v);
    bool contains = text != NULL && strcmp(text, "contains") == 0;
    *out = contains ? LM_CONTEXTS_CONTAINS : LM_CONTEXTS_EXACT;
    if (v == NULL || contains || (text != NULL && strcmp(text, "exact") == 0))
        return true;
    http_reply_fail(r, CHT_INVALID_ARGUMENT, "\"match\" is exact or contains");
    return false;
}

/* "after":"x<hex>", as "next" says it. */
static bool take_after(struct http_request *r, const json_t *o, struct cht_str *out)
{
    const json_t *v = json_object_get(o, "after");
    *out = (struct cht_str){.p = r->body, .n = 0};
    if (v == NULL || json_is_null(v))
        return true;
    size_t n = json_string_length(v);
    if (!json_is_string(v) || n > 2 * CHT_NAME_MAX + 1) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "\"after\" is what \"next\" said");
        return false;
    }
    r->body_len = 0; /* the document has been read: its memory takes the text, to be decoded in place */
    memcpy(r->body, json_string_value(v), n);
    return http_byte_string(r, (const char *)r->body, n, out);
}

void http_contexts_post(struct http_request *r)
{
    struct matching *a = http_request_own(r, sizeof *a);
    uint64_t depth;
    a->tree = NULL;
    a->shown = 0;
    r->release = free_tree;
    json_t *o = http_body_object(r, CHT_INVALID_BODY);
    if (o == NULL)
        return;
    const json_t *d = json_object_get(o, "depth");
    bool ok = take_tree(r, o, &a->tree) && take_match(r, o, &a->match) && take_after(r, o, &a->after) &&
              http_number_member(r, o, "limit", 1, CONTEXTS_MAX, 32, &a->limit) &&
              http_number_member(r, o, "depth", 0, 1000000, 0, &depth);
    if (ok)
        a->depth = d == NULL || json_is_null(d) ? -1 : (long)depth;
    json_decref(o);
    if (ok)
        http_request_database(r, false, contexts);
}
