/* lm: POST /ngrams and the stored procedure of smoothing. Questions are in ask.c and contexts.c. */
#include "http/calls/lm.h"

#include "http/body.h"
#include "http/feed.h"
#include "http/lines.h"
#include "http/calls/document.h"
#include "http/calls/handlers.h"
#include "http/calls/shared.h"
#include "http/calls/lm_int.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "lm/counts.h"
#include "lm/names.h"
#include "lm/ngrams.h"
#include "lm/once.h"
#include "lm/smooth.h"
#include "reduce/text.h"

#include <stdio.h>

/* ---- counting ------------------------------------------------------------------------------------------------------ */

/* What POST /ngrams has read so far. */
struct lm_call {
    struct lm_ngrams *grams;
    struct http_lines lines;
    uint32_t *tokens;
    size_t cap;
    uint64_t count; /* of lines */
    bool remove;    /* all documents are taken away, unless their lines say otherwise */
    bool texts;     /* text=true */
    struct lm_ngrams_result result;
};

static void lm_call_free(struct http_request *r)
{
    struct lm_call *c = r->own;
    if (c == NULL)
        return;
    lm_ngrams_free(c->grams);
    http_lines_fini(&c->lines);
    cht_free(c->tokens);
    cht_free(c);
    r->own = NULL;
}

bool http_tokens(const json_t *list, uint32_t *out)
{
    size_t n = json_array_size(list);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 ||
            json_integer_value(v) > (json_int_t)UINT32_MAX)
            return false;
        out[i] = (uint32_t)json_integer_value(v);
    }
    return true;
}

static enum cht_rc check_length(struct http_request *r, size_t n)
{
    const struct lm_call *c = r->own;
    uint64_t most = r->w->srv->conf->max_document_tokens;
    return n <= most ? CHT_OK
                     : CHT_FAIL(&r->err, CHT_BODY_TOO_LARGE, "line %llu: a document has at most %llu tokens",
                                (unsigned long long)c->count, (unsigned long long)most);
}

/* text=true */
static enum cht_rc add_text(struct http_request *r, struct cht_str s, bool take)
{
    struct lm_call *c = r->own;
    size_t n;
    enum cht_rc rc = lm_ngrams_add_text(c->grams, s, take, &n, &r->err);
    return rc == CHT_OK ? check_length(r, n) : rc;
}

static bool make_room(struct lm_call *c, size_t n)
{
    if (n <= c->cap)
        return true;
    uint32_t *p = cht_realloc(c->tokens, n * sizeof *p);
    if (p == NULL)
        return false;
    c->tokens = p;
    c->cap = n;
    return true;
}

/* The n tokens at c->tokens. */
static enum cht_rc add_tokens(struct http_request *r, size_t n, bool take)
{
    struct lm_call *c = r->own;
    return take ? lm_ngrams_take_document(c->grams, c->tokens, n, &r->err)
                : lm_ngrams_add_document(c->grams, c->tokens, n, &r->err);
}

static enum cht_rc add_document(struct http_request *r, const json_t *list, bool take)
{
    struct lm_call *c = r->own;
    size_t n = json_array_size(list);
    enum cht_rc rc = check_length(r, n);
    if (rc != CHT_OK)
        return rc;
    if (!make_room(c, n))
        return CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for a document");
    if (!http_tokens(list, c->tokens))
        return CHT_FAIL(&r->err, CHT_INVALID_TOKENS, "line %llu: %s", (unsigned long long)c->count,
                        cht_rc_text(CHT_INVALID_TOKENS));
    return add_tokens(r, n, take);
}

/* A line in the common shape, read to c->tokens if it is one of tokens; `cap`: as many as that could be. */
static bool read_plain(struct http_request *r, const char *p, size_t n, size_t cap, enum cht_rc *rc)
{
    struct lm_call *c = r->own;
    if (!c->texts && !make_room(c, cap))
        return false;
    struct http_document d = {.tokens = c->tokens, .cap = c->cap, .texts = c->texts};
    if (!http_document_read(p, n, &d))
        return false;
    bool take = d.has_remove ? d.remove : c->remove;
    c->count++;
    if (c->texts) {
        *rc = add_text(r, (struct cht_str){(const uint8_t *)d.text, d.text_n}, take);
        return true;
    }
    *rc = check_length(r, d.n);
    if (*rc == CHT_OK)
        *rc = add_tokens(r, d.n, take);
    return true;
}

/* lines.plain. The tokens of a long line are booked while they are there, which is less than what jansson would need. */
static bool document_plain(struct http_request *r, const char *p, size_t n, enum cht_rc *rc)
{
    struct lm_call *c = r->own;
    size_t most = r->w->srv->conf->max_document_tokens, cap = n / 2 < most ? n / 2 : most;
    uint64_t cost = !c->texts && n > HTTP_LINES_LONG ? cap * sizeof *c->tokens : 0;
    if (cost > 0 && !svc_memory_try(&r->memory, cost))
        return false;
    bool read = read_plain(r, p, n, cap, rc);
    if (cost > 0) {
        cht_free(c->tokens);
        c->tokens = NULL;
        c->cap = 0;
        svc_memory_give(&r->memory, cost);
    }
    return read;
}

static enum cht_rc add_json(struct http_request *r, const json_t *content, bool take)
{
    const struct lm_call *c = r->own;
    if (!c->texts)
        return add_document(r, content, take);
    return add_text(
        r, (struct cht_str){(const uint8_t *)json_string_value(content), json_string_length(content)}, take);
}

/* lines.take */
static enum cht_rc document_line(struct http_request *r, const char *p, size_t n)
{
    struct lm_call *c = r->own;
    size_t blank = 0;
    json_error_t where;
    enum cht_rc rc;
    c->count++;
    while (blank < n && (p[blank] == ' ' || p[blank] == '\t' || p[blank] == '\r'))
        blank++;
    if (blank == n)
        return CHT_OK;
    json_t *o = json_loadb(p, n, JSON_REJECT_DUPLICATES, &where);
    const json_t *list = json_object_get(o, c->texts ? "text" : "tokens"),
                 *remove = json_object_get(o, "remove");
    if (o == NULL && json_error_code(&where) == json_error_out_of_memory)
        rc = CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for a document");
    else if (o == NULL)
        rc = CHT_FAIL(&r->err, CHT_INVALID_BODY, "line %llu is not JSON: %.100s",
                      (unsigned long long)c->count, where.text);
    else if (c->texts ? !json_is_string(list) : !json_is_array(list))
        rc = CHT_FAIL(&r->err, CHT_INVALID_TOKENS, "line %llu: {\"%s} is expected",
                      (unsigned long long)c->count, c->texts ? "text\":\"...\"" : "tokens\":[...]");
    else if (remove != NULL && !json_is_boolean(remove))
        rc = CHT_FAIL(&r->err, CHT_INVALID_BODY, "line %llu: \"remove\" is true or false",
                      (unsigned long long)c->count);
    else
        rc = add_json(r, list, remove != NULL ? json_is_true(remove) : c->remove);
    json_decref(o);
    return rc;
}

/* lm_ngrams_bound */
static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *err)
{
    struct http_request *r = ctx;
    return svc_memory_take(&r->memory, bytes, err);
}

static bool take_once(struct http_request *r, struct lm_ngrams *g)
{
    const struct http_param_value *v = &r->param[HTTP_P_ONCE];
    char id[LM_ONCE_ID_MAX + 1];
    if (v->p == NULL)
        return true;
    if (!lm_once_id_valid(v->p, v->n)) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'once' is 1 to %u of A-Z, a-z, 0-9, _ and -",
                        LM_ONCE_ID_MAX);
        return false;
    }
    memcpy(id, v->p, v->n);
    id[v->n] = 0;
    lm_ngrams_once(g, id);
    return true;
}

static bool begin_call(struct http_request *r)
{
    uint64_t order;
    bool remove;
    if (!http_param_number(r, HTTP_P_ORDER, 1, LM_ORDER_MAX, LM_NGRAMS_OWN, &order) ||
        !http_param_bool(r, HTTP_P_REMOVE, false, &remove))
        return false;
    struct lm_call *c = cht_calloc(1, sizeof *c);
    r->own = c;
    r->release = lm_call_free;
    if (c == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for the documents");
        return false;
    }
    c->remove = remove;
    c->texts = r->text;
    enum cht_rc rc = lm_ngrams_begin((unsigned)order, &c->grams, &r->err);
    if (rc != CHT_OK) {
        http_reply_err(r, rc, &r->err);
        return false;
    }
    lm_ngrams_bound(c->grams, book, r);
    c->lines = (struct http_lines){
        .take = document_line, .plain = document_plain, .max = r->w->srv->conf->max_ngrams_bytes};
    return take_once(r, c->grams);
}

bool http_ngrams_feed(struct http_request *r, const char *data, size_t n)
{
    if (r->own == NULL && !begin_call(r))
        return true;
    enum cht_rc rc = http_lines_feed(r, &((struct lm_call *)r->own)->lines, data, n);
    if (rc != CHT_OK)
        http_reply_err(r, rc, &r->err);
    return true;
}

static void count_work(struct http_request *r)
{
    struct lm_call *c = r->own;
    r->rc = lm_ngrams_commit(http_shared(r->w->srv)->lm, r->db->store, c->grams, &c->result, &r->err);
}

static void counted(struct http_request *r)
{
    if (r->rc != CHT_OK) {
        http_reply_err(r, r->rc, &r->err);
        return;
    }
    const struct lm_ngrams_result *n = &((const struct lm_call *)r->own)->result;
    svc_out_format(&r->out, "{\"documents\":%llu,\"tokens\":%llu,\"ngrams\":%llu,\"contexts_created\":%llu",
                   (unsigned long long)n->documents, (unsigned long long)n->tokens,
                   (unsigned long long)n->ngrams, (unsigned long long)n->contexts_created);
    if (n->removed > 0 || n->live)
        svc_out_format(&r->out, ",\"removed\":%llu", (unsigned long long)n->removed);
    if (n->live)
        svc_out_format(&r->out, ",\"generation\":%llu", (unsigned long long)n->generation);
    if (n->malformed > 0)
        svc_out_format(&r->out, ",\"malformed\":%llu", (unsigned long long)n->malformed);
    svc_out_text(&r->out, n->repeated ? ",\"repeated\":true}" : "}");
    http_reply_json(r, 200);
}

static void count(struct http_request *r) { http_request_long_job(r, HTTP_ALONE_COUNT, count_work, counted); }

static void all_read(struct http_request *r) { http_request_database(r, true, count); }

void http_ngrams_post(struct http_request *r)
{
    if (r->own != NULL || begin_call(r))
        http_lines_end(r, &((struct lm_call *)r->own)->lines, all_read);
}

/* ---- smoothing ------------------------------------------------------------------------------------------------------- */

/* POST /reduce/smooth/cnt: */
struct smoothing {
    uint64_t lo, hi, topk; /* hi 0: the highest order with counts */
};

struct smooth_job {
    struct http_feed feed; /* first */
    unsigned lo, hi, topk;
    char phase[32];       /* guarded by feed.mu: what was said last */
    uint64_t done, total; /* likewise */
};

static void progress_line(const struct smooth_job *j, struct svc_out *o)
{
    svc_out_format(o, "{\"progress\":{\"phase\":\"%s\",\"done\":%llu,\"total\":%llu}}\n",
                   j->phase[0] != 0 ? j->phase : "waiting", (unsigned long long)j->done,
                   (unsigned long long)j->total);
}

/* The tick's: nothing new for half a second, so it says again where it is. */
static void repeat_progress(struct http_feed *f, struct svc_out *o)
{
    progress_line((struct smooth_job *)f, o);
}

static void put_progress(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    struct smooth_job *j = ctx;
    struct svc_out line = {0};
    cht_mutex_lock(&j->feed.mu);
    (void)snprintf(j->phase, sizeof j->phase, "%s", phase); /* ours, short */
    j->done = done;
    j->total = total;
    progress_line(j, &line);
    cht_mutex_unlock(&j->feed.mu);
    http_feed_put(&j->feed, &line);
    svc_out_free(&line);
}

static void put_double(struct svc_out *o, const char *member, double v)
{
    svc_out_text(o, member);
    if (svc_out_room(o, REDUCE_DOUBLE_TEXT))
        o->n += reduce_put_double(o->p + o->n, v);
}

static void put_result(void *ctx, const struct lm_smooth_result *s)
{
    struct http_feed *f = ctx;
    struct svc_out line = {0};
    svc_out_format(&line, "{\"order\":%u,\"contexts\":%llu,\"types\":%llu", s->order,
                   (unsigned long long)s->contexts, (unsigned long long)s->types);
    put_double(&line, ",\"d1\":", s->d1);
    put_double(&line, ",\"d2\":", s->d2);
    put_double(&line, ",\"d3\":", s->d3);
    svc_out_text(&line, "}\n");
    f->count++;
    http_feed_put(f, &line);
    svc_out_free(&line);
}

/* lm_book */
static enum cht_rc book_beside(void *ctx, uint64_t bytes, struct cht_err *err)
{
    return err != NULL                  ? svc_memory_take(ctx, bytes, err)
           : svc_memory_try(ctx, bytes) ? CHT_OK
                                        : CHT_OVERLOADED;
}

static void give_beside(void *ctx, uint64_t bytes) { svc_memory_give(ctx, bytes); }

static void smooth_work(struct http_feed *f)
{
    struct cht_err err = {0};
    struct svc_out line = {0};
    const struct smooth_job *j = (const struct smooth_job *)f;
    const struct lm_book memory = {.take = book_beside, .give = give_beside, .ctx = &f->memory};
    uint64_t malformed = 0;
    const struct lm_smooth_config cfg = {.book = &memory,
                                         .malformed = &malformed,
                                         .lo = j->lo,
                                         .hi = j->hi,
                                         .topk = j->topk,
                                         .cancel = &f->cancel,
                                         .progress = put_progress,
                                         .result = put_result,
                                         .ctx = f};
    enum cht_rc rc = lm_smooth(http_shared(f->srv)->lm, f->db->store, &cfg, &err);
    if (rc == CHT_OK) {
        svc_out_format(&line, "{\"end\":{\"count\":%llu,\"next\":null,\"malformed\":%llu}}\n",
                       (unsigned long long)f->count, (unsigned long long)malformed);
    } else {
        http_problem_line(&line, rc, &err);
    }
    http_feed_end(f, &line);
    svc_out_free(&line);
}

/* The highest order with counts, 0 if there are none. CHT_PENDING: not known yet, request_await. */
static enum cht_rc highest_order(struct http_request *r, unsigned *order)
{
    *order = 0;
    for (unsigned n = LM_ORDER_MAX; n >= 1; n--) {
        uint8_t name[LM_PREFIX_MAX];
        struct cht_str prefix = {.p = name, .n = lm_prefix(LM_CNT, n, name)};
        uint64_t pairs = 0;
        enum cht_rc rc = cht_store_count_soon(r->db->store, prefix, &pairs, http_request_waiter(r), &r->err);
        if (rc == CHT_OK && pairs > 0)
            *order = n;
        if (rc != CHT_OK || pairs > 0)
            return rc;
    }
    return CHT_OK;
}

static void smooth(struct http_request *r)
{
    static const struct http_feed_kind kind = {.work = smooth_work, .progress = repeat_progress};
    unsigned highest;
    enum cht_rc rc = highest_order(r, &highest);
    if (rc == CHT_PENDING) {
        http_request_await(r, smooth);
        return;
    }
    if (rc != CHT_OK) {
        http_reply_err(r, rc, &r->err);
        return;
    }
    if (highest == 0) {
        http_reply_fail(r, CHT_PAIR_NOT_FOUND, "there are no counts under cnt: in database '%s'",
                        r->db->name);
        return;
    }
    struct smooth_job *j = cht_calloc(1, sizeof *j);
    if (j == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
        return;
    }
    j->feed.kind = &kind;
    j->feed.job.exclusive = HTTP_ALONE_SMOOTH;
    const struct smoothing *a = r->own;
    j->lo = (unsigned)a->lo;
    j->hi = a->hi > 0 ? (unsigned)a->hi : highest;
    j->topk = (unsigned)a->topk;
    http_feed_begin(r, &j->feed);
}

/* "2" or "1-3". */
static bool parse_orders(struct http_request *r, uint64_t *lo, uint64_t *hi)
{
    const struct http_param_value *v = &r->param[HTTP_P_ORDERS];
    *lo = 1;
    *hi = 0;
    if (v->p == NULL)
        return true;
    const char *dash = memchr(v->p, '-', v->n);
    size_t n = dash != NULL ? (size_t)(dash - v->p) : v->n;
    bool ok = http_parse_decimal(v->p, n, LM_ORDER_MAX, lo) && *lo >= 1;
    *hi = *lo;
    if (ok && dash != NULL)
        ok = http_parse_decimal(dash + 1, v->n - n - 1, LM_ORDER_MAX, hi) && *hi >= *lo;
    if (!ok)
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'orders' is N or LOW-HIGH, from 1 to %u", LM_ORDER_MAX);
    return ok;
}

void http_smooth_post(struct http_request *r)
{
    struct smoothing *a = http_request_own(r, sizeof *a);
    struct cht_str prefix;
    if (!http_rest_bytes(r, true, &prefix))
        return;
    if (!CHT_IS(prefix.p, prefix.n, LM_CNT_ALL)) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "smoothing reads the prefix " LM_CNT_ALL);
        return;
    }
    if (parse_orders(r, &a->lo, &a->hi) && http_param_number(r, HTTP_P_TOPK, 1, 32, 20, &a->topk))
        http_request_database(r, false, smooth);
}
