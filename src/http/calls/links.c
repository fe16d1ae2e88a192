/* links: /reduce/links/: finding all links of a namespace (POST), and showing them (GET), with text=true by words. */
#include "http/feed.h"
#include "http/calls/handlers.h"
#include "http/calls/shared.h"
#include "http/calls/worded.h"
#include "http/ndjson.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/literal.h"
#include "cheetah/scan.h"
#include "lm/counts.h"
#include "lm/names.h"
#include "reduce/links.h"
#include "reduce/payload.h"
#include "reduce/text.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- POST --------------------------------------------------------------------------------------------------------- */

/* What is asked, until it is given to a job. */
struct asked {
    struct cht_str prefix, to; /* borrowed from the request */
    bool has_to;
    enum reduce_metric metric;
    uint64_t k;
    double min;
};

struct links_job {
    struct http_feed feed; /* first */
    struct reduce_links_config cfg;
    struct reduce_progress progress;
    const char *phase; /* guarded by feed.mu: what was said last */
    struct svc_memory_use memory;
    uint8_t bytes[]; /* prefix, to */
};

static void progress_line(struct svc_out *o, const char *phase, uint64_t done, uint64_t total)
{
    svc_out_format(o, "{\"progress\":{\"phase\":\"%s\",\"done\":%llu,\"total\":%llu}}\n", phase,
                   (unsigned long long)done, (unsigned long long)(done > total ? done : total));
}

/* struct reduce_links_config: say */
static void say(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    struct links_job *j = ctx;
    struct svc_out line = {0};
    cht_mutex_lock(&j->feed.mu);
    j->phase = phase;
    cht_mutex_unlock(&j->feed.mu);
    progress_line(&line, phase, done, total);
    http_feed_put(&j->feed, &line);
    svc_out_free(&line);
}

/* The tick's. */
static void repeat_progress(struct http_feed *f, struct svc_out *o)
{
    struct links_job *j = (struct links_job *)f;
    progress_line(o, j->phase != NULL ? j->phase : "waiting",
                  atomic_load_explicit(&j->progress.done, memory_order_relaxed),
                  atomic_load_explicit(&j->progress.total, memory_order_relaxed));
}

static void count_run(struct http_links_sums *s, enum cht_rc rc, const struct reduce_links_result *n,
                      uint64_t ns)
{
    atomic_fetch_add(&s->runs, 1);
    atomic_fetch_add(&s->failed, rc != CHT_OK);
    atomic_fetch_add(&s->contexts, rc == CHT_OK ? n->contexts - n->resumed : 0);
    atomic_fetch_add(&s->links, rc == CHT_OK ? n->links : 0);
    atomic_fetch_add(&s->compared, n->compared);
    atomic_fetch_add(&s->pruned, n->pruned);
    atomic_fetch_add(&s->ns, ns);
}

static void find_links(struct http_feed *f)
{
    struct links_job *j = (struct links_job *)f;
    uint64_t begun = cht_now_ns();
    struct reduce_links_result n;
    struct cht_err err = {0};
    struct svc_out line = {0};
    enum cht_rc rc = reduce_links_run(f->db->store, &j->cfg, &n, &err);
    count_run(&http_shared(f->srv)->links, rc, &n, cht_now_ns() - begun);
    if (rc == CHT_OK) {
        svc_out_format(
            &line,
            "{\"metric\":\"%s\",\"contexts\":%llu,\"links\":%llu,\"resumed\":%llu,\"too_long\":%llu}\n",
            reduce_links_metric_name(j->cfg.metric), (unsigned long long)n.contexts,
            (unsigned long long)n.links, (unsigned long long)n.resumed, (unsigned long long)n.too_long);
        svc_out_format(&line, "{\"end\":{\"count\":1,\"next\":null,\"malformed\":%llu}}\n",
                       (unsigned long long)n.malformed);
    } else {
        http_problem_line(&line, rc, &err);
    }
    http_feed_end(f, &line);
    svc_out_free(&line);
}

static void fini_job(struct http_feed *f) { svc_memory_end(&((struct links_job *)f)->memory); }

/* struct reduce_links_config: book, unbook */
static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *err)
{
    return svc_memory_take(&((struct links_job *)ctx)->memory, bytes, err);
}

static void unbook(void *ctx, uint64_t bytes) { svc_memory_give(&((struct links_job *)ctx)->memory, bytes); }

static void start(struct http_request *r)
{
    static const struct http_feed_kind kind = {
        .work = find_links, .progress = repeat_progress, .fini = fini_job};
    const struct asked *a = r->own;
    struct links_job *j = cht_calloc(1, sizeof *j + a->prefix.n + a->to.n);
    if (j == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
        return;
    }
    if (a->prefix.n > 0)
        memcpy(j->bytes, a->prefix.p, a->prefix.n);
    if (a->to.n > 0)
        memcpy(j->bytes + a->prefix.n, a->to.p, a->to.n);
    j->feed.kind = &kind;
    j->feed.job.exclusive = HTTP_ALONE_LINKS;
    j->memory.budget = &r->w->srv->memory;
    j->cfg = (struct reduce_links_config){.prefix = {j->bytes, a->prefix.n},
                                          .to = {j->bytes + a->prefix.n, a->to.n},
                                          .has_to = a->has_to,
                                          .metric = a->metric,
                                          .k = (unsigned)a->k,
                                          .min = a->min,
                                          .memory_max = r->w->srv->conf->reduce_memory_bytes,
                                          .progress = &j->progress,
                                          .say = say,
                                          .say_ctx = j,
                                          .book = book,
                                          .unbook = unbook,
                                          .book_ctx = j,
                                          .cancel = &j->feed.cancel};
    http_feed_begin(r, &j->feed);
}

/* cosine, jaccard or pmi; fallback if it is not given. */
static bool take_metric(struct http_request *r, enum reduce_metric *out)
{
    const struct http_param_value *v = &r->param[HTTP_P_METRIC];
    int m = v->p != NULL ? reduce_links_metric(v->p, v->n) : REDUCE_COSINE;
    if (m < 0)
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'metric' is cosine, jaccard or pmi");
    else
        *out = (enum reduce_metric)m;
    return m >= 0;
}

/* A decimal number from 0 to 1. */
static bool take_min(struct http_request *r, double *out)
{
    const struct http_param_value *v = &r->param[HTTP_P_MIN];
    char text[32], *end = text;
    *out = REDUCE_LINKS_MIN_DEFAULT;
    if (v->p == NULL)
        return true;
    if (v->n > 0 && v->n < sizeof text && strspn(v->p, "0123456789.eE-+") >= v->n && v->p[0] != '+') {
        memcpy(text, v->p, v->n);
        text[v->n] = 0;
        *out = strtod(text, &end);
    }
    bool ok = end != text && *end == 0 && *out >= 0.0 && *out <= 1.0;
    if (!ok)
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'min' is a number from 0 to 1");
    return ok;
}

void http_links_post(struct http_request *r)
{
    struct asked *a = http_request_own(r, sizeof *a);
    *a = (struct asked){.has_to = r->param[HTTP_P_TO].p != NULL};
    if (!http_rest_bytes(r, true, &a->prefix) || !http_param_bytes(r, HTTP_P_TO, &a->to) ||
        !take_metric(r, &a->metric) || !take_min(r, &a->min) ||
        !http_param_number(r, HTTP_P_K, 1, REDUCE_LINKS_K_MAX, REDUCE_LINKS_K_DEFAULT, &a->k))
        return;
    if (a->prefix.n > CHT_NAME_MAX - REDUCE_LINKS_NAME_EXTRA)
        http_reply_fail(r, CHT_INVALID_PAIR, "a prefix of links has at most %u bytes",
                        CHT_NAME_MAX - REDUCE_LINKS_NAME_EXTRA);
    else
        http_request_database(r, false, start);
}

/* ---- GET ---------------------------------------------------------------------------------------------------------- */

#define PIECE (64u << 10) /* of an answer, handed over together */

/* What is shown. */
struct showing {
    size_t prefix_n;
    uint8_t prefix[CHT_NAME_MAX + 2 * REDUCE_LINKS_NAME_EXTRA];
};

/* After the head of a line. The name without link:<metric>: is that of the context. */
static void put_links(struct svc_out *o, struct http_worded *w, struct cht_str name, struct cht_str payload)
{
    size_t at = 0, start = o->n, colon = CHT_LEN(REDUCE_LINKS);
    uint32_t left = 0;
    struct reduce_link link;
    bool malformed, first = true;
    while (colon < name.n && name.p[colon] != ':')
        colon++;
    if (colon + 1 < name.n)
        http_worded_context(o, w, (struct cht_str){name.p + colon + 1, name.n - colon - 1});
    while (reduce_links_next(payload.p, payload.n, &at, &left, &link, &malformed)) {
        malformed = !isfinite(link.weight); /* no number that JSON has */
        if (malformed)
            break;
    }
    if (malformed) {
        http_worded_malformed(o, start, payload);
        return;
    }
    svc_out_text(o, ",\"links\":[");
    at = left = 0;
    while (reduce_links_next(payload.p, payload.n, &at, &left, &link, &malformed)) {
        svc_out_text(o, first ? "{" : ",{");
        http_ndjson_put_member(o, HTTP_MEMBER_PAIR, link.name, true);
        http_worded_context(o, w, link.name);
        svc_out_text(o, ",\"weight\":");
        if (svc_out_room(o, REDUCE_DOUBLE_TEXT))
            o->n += reduce_links_put_weight(o->p + o->n, link.weight);
        svc_out_text(o, "}");
        first = false;
        if (o->n >= PIECE && w->flush != NULL && !w->flush(w))
            return;
    }
    svc_out_text(o, "]}\n");
}

/* link:... as it is; any other prefix is that of the contexts whose links are wanted. */
static bool take_prefix(struct http_request *r, struct showing *a)
{
    struct cht_str prefix;
    enum reduce_metric metric;
    if (!http_rest_bytes(r, true, &prefix) || !take_metric(r, &metric))
        return false;
    a->prefix_n = 0;
    if (r->param[HTTP_P_METRIC].p != NULL || !CHT_STARTS(prefix.p, prefix.n, REDUCE_LINKS))
        a->prefix_n = (size_t)snprintf((char *)a->prefix, sizeof a->prefix,
                                       REDUCE_LINKS "%s:", reduce_links_metric_name(metric));
    if (prefix.n > 0)
        memcpy(a->prefix + a->prefix_n, prefix.p, prefix.n);
    a->prefix_n += prefix.n;
    if (a->prefix_n > CHT_NAME_MAX)
        http_reply_fail(r, CHT_INVALID_PAIR, "%s", cht_rc_text(CHT_INVALID_PAIR));
    return a->prefix_n <= CHT_NAME_MAX;
}

void http_links_get(struct http_request *r)
{
    struct showing *a = http_request_own(r, sizeof *a);
    bool decode;
    if (!take_prefix(r, a) || !http_param_bool(r, HTTP_P_DECODE, true, &decode))
        return;
    if (r->text && decode)
        http_worded_get(r, (struct cht_str){a->prefix, a->prefix_n}, put_links);
    else
        http_payloads_get(r, reduce_mode_find(CHT_LITERAL("links")), (struct cht_str){a->prefix, a->prefix_n},
                          true);
}
