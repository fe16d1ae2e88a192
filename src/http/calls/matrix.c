/* matrix: /reduce/matrix/: making the co-occurrence matrices (POST) and showing their rows, or columns (GET). */
#include "lm/matrix.h"

#include "http/feed.h"
#include "http/calls/doubles.h"
#include "http/calls/handlers.h"
#include "http/calls/worded.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "reduce/payload.h"

#include <math.h>
#include <stdio.h>

#define PIECE (64u << 10) /* of an answer, handed over together */

struct asked {
    struct cht_str prefix; /* borrowed from the request */
    enum reduce_matrix_metric metric;
};

struct matrix_job {
    struct http_feed feed; /* first */
    struct lm_matrix_config cfg;
    char phase[16];       /* guarded by feed.mu: what was said last */
    uint64_t done, total; /* likewise */
    struct svc_memory_use memory;
    uint8_t bytes[]; /* the prefix */
};

static void progress_line(struct http_feed *f, struct svc_out *o)
{
    const struct matrix_job *j = (const struct matrix_job *)f;
    svc_out_format(o, "{\"progress\":{\"phase\":\"%s\",\"done\":%llu,\"total\":%llu}}\n",
                   j->phase[0] != 0 ? j->phase : "waiting", (unsigned long long)j->done,
                   (unsigned long long)j->total);
}

/* struct lm_matrix_config: say, result, book, unbook */
static void say(void *ctx, const char *phase, uint64_t done, uint64_t total)
{
    struct matrix_job *j = ctx;
    struct svc_out line = {0};
    cht_mutex_lock(&j->feed.mu);
    (void)snprintf(j->phase, sizeof j->phase, "%s", phase); /* short */
    j->done = done;
    j->total = total;
    progress_line(&j->feed, &line);
    cht_mutex_unlock(&j->feed.mu);
    http_feed_put(&j->feed, &line);
    svc_out_free(&line);
}

static void put_result(void *ctx, const struct lm_matrix_result *r)
{
    struct matrix_job *j = ctx;
    struct svc_out line = {0};
    svc_out_format(&line,
                   "{\"order\":%u,\"metric\":\"%s\",\"rows\":%llu,\"columns\":%llu,\"entries\":%llu}\n",
                   r->order, reduce_matrix_metric_name(j->cfg.metric), (unsigned long long)r->rows,
                   (unsigned long long)r->columns, (unsigned long long)r->entries);
    j->feed.count++;
    http_feed_put(&j->feed, &line);
    svc_out_free(&line);
}

static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *err)
{
    return svc_memory_take(&((struct matrix_job *)ctx)->memory, bytes, err);
}

static void unbook(void *ctx, uint64_t bytes) { svc_memory_give(&((struct matrix_job *)ctx)->memory, bytes); }

static void make(struct http_feed *f)
{
    struct matrix_job *j = (struct matrix_job *)f;
    struct cht_err err = {0};
    struct svc_out line = {0};
    uint64_t malformed = 0;
    enum cht_rc rc = lm_matrix_run(f->db->store, &j->cfg, &malformed, &err);
    if (rc == CHT_OK) {
        svc_out_format(&line, "{\"end\":{\"count\":%llu,\"next\":null,\"malformed\":%llu}}\n",
                       (unsigned long long)f->count, (unsigned long long)malformed);
    } else {
        http_problem_line(&line, rc, &err);
    }
    http_feed_end(f, &line);
    svc_out_free(&line);
}

static void fini(struct http_feed *f) { svc_memory_end(&((struct matrix_job *)f)->memory); }

/* cnt:, or what leads to it, or an order of it, or what is under that. */
static bool is_counts(struct cht_str p)
{
    static const char orders[] = "cnt:2:";
    for (size_t i = 0; i < p.n && i < CHT_LEN("cnt:2:"); i++) {
        bool fits = i == 4 ? p.p[i] >= '2' && p.p[i] <= '8' : p.p[i] == (uint8_t)orders[i];
        if (!fits)
            return false;
    }
    return true;
}

static void start(struct http_request *r)
{
    static const struct http_feed_kind kind = {.work = make, .progress = progress_line, .fini = fini};
    const struct asked *a = r->own;
    if (!is_counts(a->prefix)) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "a matrix is made of the counts under cnt:2: to cnt:8:");
        return;
    }
    struct matrix_job *j = cht_calloc(1, sizeof *j + a->prefix.n);
    if (j == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
        return;
    }
    if (a->prefix.n > 0)
        memcpy(j->bytes, a->prefix.p, a->prefix.n);
    j->feed.kind = &kind;
    j->feed.job.exclusive = HTTP_ALONE_LINKS;
    j->memory.budget = &r->w->srv->memory;
    j->cfg = (struct lm_matrix_config){.prefix = {j->bytes, a->prefix.n},
                                       .metric = a->metric,
                                       .memory_max = r->w->srv->conf->reduce_memory_bytes,
                                       .book = book,
                                       .unbook = unbook,
                                       .cancel = &j->feed.cancel,
                                       .say = say,
                                       .result = put_result,
                                       .ctx = j};
    http_feed_begin(r, &j->feed);
}

/* ------------------------------------------------------------------------------------------------------------ */

void http_matrix_post(struct http_request *r)
{
    struct asked *a = http_request_own(r, sizeof *a);
    const struct http_param_value *v = &r->param[HTTP_P_METRIC];
    int metric = v->p != NULL ? reduce_matrix_metric(v->p, v->n) : REDUCE_MATRIX_PMI;
    if (!http_rest_bytes(r, true, &a->prefix))
        return;
    a->metric = (enum reduce_matrix_metric)metric;
    if (metric < 0)
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'metric' is pmi, count or p");
    else
        http_request_database(r, false, start);
}

/* After the head of a line (text=true): the row's token and its word; [[token, value, word], ...]. */
static void put_row(struct svc_out *o, struct http_worded *w, struct cht_str name, struct cht_str payload)
{
    struct reduce_matrix_row row;
    if (name.n < 4 || !reduce_matrix_read(payload.p, payload.n, payload.n, &row)) {
        http_worded_malformed(o, o->n, payload);
        return;
    }
    uint32_t token = reduce_payload_get32(name.p + name.n - 4);
    svc_out_format(o, ",\"token\":%u,\"word\":", token);
    http_spell_put(o, &w->spell, token);
    svc_out_format(o, ",\"order\":%u,\"metric\":\"%s\",\"row\":[", row.order,
                   reduce_matrix_metric_name(row.metric));
    for (uint32_t i = 0; i < row.n && !o->failed; i++) {
        const uint8_t *p = row.records + (size_t)i * REDUCE_MATRIX_RECORD;
        double v = reduce_matrix_value(p);
        svc_out_format(o, "%s[%u,", i > 0 ? "," : "", reduce_payload_get32(p));
        if (isfinite(v))
            http_put_double(o, v);
        else
            svc_out_text(o, "null");
        svc_out_text(o, ",");
        http_spell_put(o, &w->spell, reduce_payload_get32(p));
        svc_out_text(o, "]");
        if (o->n >= PIECE && w->flush != NULL && !w->flush(w))
            return;
    }
    svc_out_text(o, "]}\n");
}

static void show(struct http_request *r, struct cht_str prefix, bool decode)
{
    if (r->text && decode)
        http_worded_get(r, prefix, put_row);
    else
        http_payloads_get(r, reduce_mode_find(CHT_LITERAL("matrix")), prefix, true);
}

void http_matrix_get(struct http_request *r)
{
    struct cht_str prefix;
    uint8_t *name = http_request_own(r, CHT_NAME_MAX + CHT_LEN(REDUCE_MATRIX_TRANSPOSED));
    bool transposed, decode;
    if (!http_rest_bytes(r, true, &prefix) || !http_param_bool(r, HTTP_P_TRANSPOSE, false, &transposed) ||
        !http_param_bool(r, HTTP_P_DECODE, true, &decode))
        return;
    struct cht_str rest = prefix;
    if (CHT_STARTS(prefix.p, prefix.n, REDUCE_MATRIX))
        rest = (struct cht_str){prefix.p + CHT_LEN(REDUCE_MATRIX), prefix.n - CHT_LEN(REDUCE_MATRIX)};
    else if (CHT_STARTS(prefix.p, prefix.n, "cnt:")) /* the matrix of those counts */
        rest = (struct cht_str){prefix.p + CHT_LEN("cnt:"), prefix.n - CHT_LEN("cnt:")};
    if (prefix.n > 0 && rest.n == prefix.n && !transposed) { /* as it is */
        show(r, prefix, decode);
        return;
    }
    char *end = transposed ? CHT_PUT(name, REDUCE_MATRIX_TRANSPOSED) : CHT_PUT(name, REDUCE_MATRIX);
    size_t n = (size_t)((uint8_t *)end - name);
    if (rest.n > 0 && n + rest.n <= CHT_NAME_MAX)
        memcpy(end, rest.p, rest.n);
    if (n + rest.n > CHT_NAME_MAX)
        http_reply_fail(r, CHT_INVALID_PAIR, "%s", cht_rc_text(CHT_INVALID_PAIR));
    else
        show(r, (struct cht_str){name, n + rest.n}, decode);
}
