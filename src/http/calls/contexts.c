/* contexts: POST /contexts: the contexts of a smoothed n-gram database under a tree, on a job thread. */
#include "http/body.h"
#include "http/calls/handlers.h"
#include "http/calls/lm_int.h"
#include "http/calls/spell.h"
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
    json_t *text;         /* owned: the words of the context, in place of a tree; NULL: there is one */
    bool words;           /* text=true: contexts are shown with their words */
    struct http_spell spell;
    enum lm_contexts_match match;
    long depth; /* -1: all of it */
    uint64_t limit;
    struct cht_str after; /* borrowed from the body */
    uint64_t shown;       /* contexts so far */
    size_t last_len;      /* the cursor of the last of them */
    uint8_t last[CHT_NAME_MAX];
};

static void release(struct http_request *r)
{
    struct matching *a = r->own;
    cht_free(a->tree);
    json_decref(a->text);
    http_spell_fini(&a->spell);
}

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

static void put_ranked(struct matching *a, struct svc_out *o, const struct lm_context *c)
{
    svc_out_text(o, ",\"ranked\":[");
    for (size_t i = 0; i < c->ranked_n; i++) {
        svc_out_text(o, i > 0 ? ",[" : "[");
        svc_out_u64(o, c->ranked[i].token);
        svc_out_text(o, ",");
        svc_out_u64(o, c->ranked[i].q);
        if (a->words) {
            svc_out_text(o, ",");
            http_spell_put(o, &a->spell, c->ranked[i].token);
        }
        svc_out_text(o, "]");
    }
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
        svc_out_text(o, "]");
        if (a->words) {
            svc_out_text(o, ",\"words\":");
            http_spell_list(o, &a->spell, c->tokens, c->n);
        }
        put_ranked(a, o, c);
        svc_out_text(o, "]}\n");
    }
    a->shown++;
    a->last_len = c->cursor.n < sizeof a->last ? c->cursor.n : sizeof a->last;
    memcpy(a->last, c->cursor.p, a->last_len);
    return o->n < ANSWER_MAX;
}

/* The tree [[w1], [w2], ...] of the words of the text. One that is not in the vocabulary is in no context. */
static enum cht_rc tree_of_words(struct matching *a, struct cht_err *err)
{
    const char *p = json_string_value(a->text), *end = p + json_string_length(a->text);
    size_t n = 0, len;
    for (const char *at = p; (len = lm_word_next(&at, end)) > 0; at += len)
        n++;
    if (n > LM_AVO_CHILDREN_MAX)
        return CHT_FAIL(err, CHT_INVALID_TREE, "a context of more than %u words", LM_AVO_CHILDREN_MAX);
    a->tree = cht_calloc(1 + 2 * n, sizeof *a->tree);
    if (a->tree == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the tree");
    struct lm_node *lists = a->tree + 1, *words = lists + n;
    a->tree[0] = (struct lm_node){.list = true, .n = n, .children = n > 0 ? lists : NULL};
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        len = lm_word_next(&p, end);
        lists[i] = (struct lm_node){.list = true, .n = 1, .children = &words[i]};
        words[i].value = LM_WORD_UNKNOWN;
        if (len <= LM_WORD_MAX)
            rc = lm_word_token(a->spell.store, (struct cht_str){(const uint8_t *)p, len}, &words[i].value,
                               &a->spell.buf, err);
        if (rc == CHT_PAIR_NOT_FOUND) {
            words[i].value = LM_WORD_UNKNOWN;
            rc = CHT_OK;
        }
        p += len;
    }
    return rc;
}

static void contexts_work(struct http_request *r)
{
    struct matching *a = r->own;
    a->spell.store = r->db->store;
    if (a->words)
        r->rc = http_spell_ends(&a->spell, &r->err);
    if (r->rc == CHT_OK && a->text != NULL)
        r->rc = tree_of_words(a, &r->err);
    if (r->rc != CHT_OK)
        return;
    const struct lm_contexts_query q = {.tree = a->tree,
                                        .match = a->match,
                                        .depth = a->depth,
                                        .limit = a->limit,
                                        .after = a->after,
                                        .cancel = &r->cancel};
    bool more = false;
    r->rc = lm_contexts(r->db->store, &q, put_context, r, &more, &r->err);
    if (r->rc == CHT_OK && a->spell.rc != CHT_OK) {
        r->rc = a->spell.rc;
        r->err = a->spell.err;
    }
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

/* With text=true "text" may stand in place of the tree. */
static bool take_text(struct http_request *r, const json_t *o, json_t **out)
{
    json_t *v = json_object_get(o, "text");
    if (!r->text || v == NULL)
        return true;
    if (!json_is_string(v) || json_object_get(o, "tree") != NULL) {
        http_reply_fail(r, CHT_INVALID_TREE, "\"text\" is the words of a context, in place of \"tree\"");
        return false;
    }
    *out = json_incref(v);
    return true;
}

static bool take_tree(struct http_request *r, const json_t *o, struct lm_node **out)
{
    struct matching *a = r->own;
    const json_t *v = json_object_get(o, "tree");
    if (a->text != NULL)
        return true;
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
    *a = (struct matching){.words = r->text};
    r->release = release;
    json_t *o = http_body_object(r, CHT_INVALID_BODY);
    if (o == NULL)
        return;
    const json_t *d = json_object_get(o, "depth");
    bool ok = take_text(r, o, &a->text) && take_tree(r, o, &a->tree) && take_match(r, o, &a->match) &&
              take_after(r, o, &a->after) &&
              http_number_member(r, o, "limit", 1, CONTEXTS_MAX, 32, &a->limit) &&
              http_number_member(r, o, "depth", 0, 1000000, 0, &depth);
    if (ok)
        a->depth = d == NULL || json_is_null(d) ? -1 : (long)depth;
    json_decref(o);
    if (ok)
        http_request_database(r, false, contexts);
}
