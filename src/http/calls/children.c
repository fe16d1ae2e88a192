/* children: GET /pairs/{prefix}?children=true: one page of the names under a prefix, a level at a time, by a job. */
#include "cheetah/children.h"

#include "http/calls/handlers.h"
#include "http/ndjson.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/stream.h"

#define CHILDREN_DEFAULT 1000u
#define CHILDREN_MAX 10000u
#define PAGE_BYTES (1u << 20) /* a page ends after the child that reaches it */
#define SEPARATOR_MAX 16u

struct children {
    struct cht_str prefix, after, separator; /* borrowed from the URI */
    uint64_t limit, shown;
    bool more;
    size_t last_len;
    uint8_t last[CHT_NAME_MAX];
};

static bool show(void *ctx, const struct cht_child *c)
{
    struct http_request *r = ctx;
    struct children *a = r->own;
    struct svc_out *o = &r->out;
    a->more = a->shown == a->limit || o->n >= PAGE_BYTES;
    if (a->more || o->failed)
        return false;
    svc_out_text(o, "{");
    http_ndjson_put_member(o, c->key != 0 ? HTTP_MEMBER_PAIR : HTTP_MEMBER_PREFIX, c->name, r->text);
    svc_out_text(o, c->key != 0 ? ",\"key\":" : ",\"pairs\":");
    svc_out_u64(o, c->key != 0 ? c->key : c->pairs);
    svc_out_text(o, "}\n");
    a->shown++;
    a->last_len = c->name.n;
    memcpy(a->last, c->name.p, c->name.n);
    return true;
}

static void work(struct http_request *r)
{
    struct children *a = r->own;
    struct cht_children_config cfg = {.prefix = a->prefix,
                                      .after = a->after,
                                      .separator = a->separator,
                                      .cancel = &r->cancel,
                                      .each = show,
                                      .ctx = r};
    r->rc = cht_store_children(r->db->store, &cfg, &r->err);
    if (r->rc != CHT_OK)
        return;
    svc_out_format(&r->out, "{\"end\":{\"count\":%llu,\"next\":", (unsigned long long)a->shown);
    if (a->more)
        http_ndjson_put_cursor(&r->out, r->names, (struct cht_str){a->last, a->last_len});
    svc_out_text(&r->out, a->more ? "}}\n" : "null}}\n");
}

static void answer(struct http_request *r)
{
    if (r->rc != CHT_OK)
        http_reply_err(r, r->rc, &r->err);
    else
        http_stream_out(r);
}

static void begin(struct http_request *r) { http_request_job(r, work, answer); }

void http_pairs_children(struct http_request *r)
{
    static const enum http_param others[] = {HTTP_P_COUNT,   HTTP_P_EXACT,   HTTP_P_UNTIL, HTTP_P_VALUES,
                                             HTTP_P_REVERSE, HTTP_P_EXPIRES, HTTP_P_ETAGS};
    _Static_assert(sizeof(struct children) <= HTTP_REQUEST_OWN_MAX, "it fits into the request");
    struct children *a = http_request_own(r, sizeof *a);
    *a = (struct children){.limit = CHILDREN_DEFAULT};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (r->param[others[i]].p != NULL) {
            http_reply_fail(r, CHT_INVALID_ARGUMENT, "'children' and '%s' exclude each other",
                            http_param_name(others[i]));
            return;
        }
    }
    if (!http_param_bytes(r, HTTP_P_AFTER, &a->after) ||
        !http_param_bytes(r, HTTP_P_SEPARATOR, &a->separator) ||
        !http_param_number(r, HTTP_P_LIMIT, 1, CHILDREN_MAX, CHILDREN_DEFAULT, &a->limit) ||
        !http_rest_bytes(r, true, &a->prefix))
        return;
    if (r->param[HTTP_P_SEPARATOR].p != NULL && (a->separator.n == 0 || a->separator.n > SEPARATOR_MAX)) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "a separator has 1 to %u bytes", SEPARATOR_MAX);
        return;
    }
    http_request_database(r, false, begin);
}
