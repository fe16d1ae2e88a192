/* aggregate: the aggregates of /reduce: taken from the cache on the spot, else computed on a job thread. */
#include "http/feed.h"
#include "http/calls/handlers.h"
#include "http/calls/shared.h"
#include "http/calls/worded.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "reduce/cache.h"

/* What is asked, until it is answered from the cache or given to a job. */
struct asked {
    const struct reduce_mode *mode;
    struct reduce_params params;        /* its strings are borrowed from the request */
    const struct reduce_answer *answer; /* owned: out of the cache; NULL: none */
};

static void release(struct http_request *r) { reduce_answer_release(((const struct asked *)r->own)->answer); }

/* ---- the answer ------------------------------------------------------------------------------------------------ */

/* The answer's lines, then the end line. */
static enum http_more put_answer(struct http_stream *s, const struct reduce_answer *a, const void *lines,
                                 size_t len, const char **p, size_t *n)
{
    if (s->finished)
        return HTTP_MORE_END;
    if (s->count == 0 && len > 0) {
        s->count = a->count;
        *p = lines;
        *n = len;
        return HTTP_MORE_TEXT;
    }
    s->finished = true;
    s->stage.n = 0;
    svc_out_format(&s->stage, "{\"end\":{\"count\":%llu,\"next\":null,\"malformed\":%llu}}\n",
                   (unsigned long long)a->count, (unsigned long long)a->malformed);
    *p = s->stage.p;
    *n = s->stage.n;
    return s->stage.failed ? HTTP_MORE_END : HTTP_MORE_TEXT;
}

static enum http_more next_of_hit(struct http_stream *s, const char **p, size_t *n)
{
    const struct reduce_answer *a = ((const struct asked *)s->r->own)->answer;
    return put_answer(s, a, a->lines, a->len, p, n);
}

/* ---- a miss ---------------------------------------------------------------------------------------------------- */

struct sweep_job {
    struct http_feed feed; /* first */
    const struct reduce_mode *mode;
    struct reduce_params params; /* its strings are in `bytes` */
    struct reduce_progress progress;
    struct svc_memory_use memory;
    const struct reduce_answer *answer; /* owned */
    bool hit;                           /* someone else computed it meanwhile */
    bool text;                          /* with words: */
    struct http_worded worded;
    struct svc_out lines; /* of the answer, with words */
    uint8_t to[CHT_NAME_MAX];
    uint8_t bytes[];
};

/* With text=true `to` may be the words of a context in place of the name of its counts. */
static enum cht_rc take_words(struct sweep_job *j, struct cht_store *s, struct cht_err *err)
{
    struct cht_str *to = &j->params.to;
    uint64_t key;
    j->worded.spell.store = s;
    enum cht_rc rc = to->n > 0 ? cht_store_pair(s, *to, &key, err) : CHT_OK;
    if (rc != CHT_PAIR_NOT_FOUND || CHT_STARTS(to->p, to->n, "cnt:"))
        return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc; /* the aggregate says so */
    size_t n;
    rc = http_worded_name(&j->worded, *to, j->to, &n, err);
    if (rc == CHT_OK)
        *to = (struct cht_str){j->to, n};
    return rc;
}

static void work(struct http_feed *f)
{
    struct sweep_job *j = (struct sweep_job *)f;
    f->rc = j->text ? take_words(j, f->db->store, &f->err) : CHT_OK;
    if (f->rc == CHT_OK)
        f->rc = reduce_cache_run(http_shared(f->srv)->cache, f->db->store, j->mode, &j->params, &f->cancel,
                                 &j->answer, &j->hit, &f->err);
    if (f->rc == CHT_OK && j->text)
        f->rc = svc_memory_take(&j->memory, 2 * j->answer->len, &f->err);
    if (f->rc == CHT_OK && j->text)
        f->rc = http_worded_lines(&j->lines, &j->worded, j->answer->lines, j->answer->len, &f->err);
}

static void begin(struct http_feed *f, struct http_request *r, bool done)
{
    http_reply_header(r, "Cheetah-Cache", done && ((struct sweep_job *)f)->hit ? "hit" : "miss");
}

static void progress(struct http_feed *f, struct svc_out *o)
{
    const struct sweep_job *j = (const struct sweep_job *)f;
    uint64_t done = atomic_load_explicit(&j->progress.done, memory_order_relaxed);
    uint64_t total = atomic_load_explicit(&j->progress.total, memory_order_relaxed);
    svc_out_format(o, "{\"progress\":{\"phase\":\"%s\",\"done\":%llu,\"total\":%llu}}\n", j->mode->names[0],
                   (unsigned long long)done, (unsigned long long)(done > total ? done : total));
}

/* The job is done. */
static enum http_more last(struct http_feed *f, struct http_stream *s, const char **p, size_t *n)
{
    const struct sweep_job *j = (const struct sweep_job *)f;
    if (f->rc == CHT_OK && j->text)
        return put_answer(s, j->answer, j->lines.p, j->lines.n, p, n);
    if (f->rc == CHT_OK)
        return put_answer(s, j->answer, j->answer->lines, j->answer->len, p, n);
    if (s->finished)
        return HTTP_MORE_END;
    s->finished = true;
    s->stage.n = 0;
    http_stream_error_line(s, f->rc,
                           f->err.code == f->rc && f->err.msg[0] != 0 ? f->err.msg : cht_rc_text(f->rc));
    *p = s->stage.p;
    *n = s->stage.n;
    return s->stage.failed ? HTTP_MORE_END : HTTP_MORE_TEXT;
}

static void fini(struct http_feed *f)
{
    struct sweep_job *j = (struct sweep_job *)f;
    reduce_answer_release(j->answer);
    http_worded_fini(&j->worded);
    svc_out_free(&j->lines);
    svc_memory_end(&j->memory);
}

/* struct reduce_params: book, unbook */
static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *err)
{
    return svc_memory_take(&((struct sweep_job *)ctx)->memory, bytes, err);
}

static void unbook(void *ctx, uint64_t bytes) { svc_memory_give(&((struct sweep_job *)ctx)->memory, bytes); }

static struct cht_str copy(uint8_t **at, struct cht_str s)
{
    uint8_t *p = *at;
    if (s.n > 0)
        memcpy(p, s.p, s.n);
    *at += s.n;
    return (struct cht_str){p, s.n};
}

static void compute(struct http_request *r)
{
    static const struct http_feed_kind kind = {
        .work = work, .begin = begin, .progress = progress, .last = last, .fini = fini};
    const struct asked *a = r->own;
    const struct reduce_params *p = &a->params;
    struct sweep_job *j = cht_calloc(1, sizeof *j + p->prefix.n + p->after.n + p->until.n + p->to.n);
    if (j == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for an aggregate");
        return;
    }
    uint8_t *at = j->bytes;
    j->feed.kind = &kind;
    j->mode = a->mode;
    j->text = r->text;
    j->params = *p;
    j->params.prefix = copy(&at, p->prefix);
    j->params.after = copy(&at, p->after);
    j->params.until = copy(&at, p->until);
    j->params.to = copy(&at, p->to);
    j->params.progress = &j->progress;
    j->memory.budget = &r->w->srv->memory;
    j->params.book = book;
    j->params.unbook = unbook;
    j->params.book_ctx = j;
    http_feed_await(r, &j->feed);
}

/* ------------------------------------------------------------------------------------------------------------------ */

static void run(struct http_request *r)
{
    struct asked *a = r->own;
    if (!r->text) /* words are looked up by a job */
        a->answer = reduce_cache_find(http_shared(r->w->srv)->cache, r->db->store, a->mode, &a->params);
    if (a->answer == NULL) {
        compute(r);
        return;
    }
    http_reply_header(r, "Cheetah-Cache", "hit");
    if (r->head)
        http_reply_media(r, 200, HTTP_MEDIA_NDJSON);
    else if (http_stream_new(r, next_of_hit))
        http_stream_begin(r);
}

/* Does text=true mean anything in its lines? */
static bool has_tokens(const struct reduce_mode *mode)
{
    return (mode->aggregate->uses & REDUCE_USES_TO) != 0 || strcmp(mode->names[0], "totals") == 0;
}

/* A parameter that is one of two words. */
static bool choice(struct http_request *r, enum http_param p, const char *zero, const char *one, bool *second)
{
    const struct http_param_value *v = &r->param[p];
    bool is_zero = v->p == NULL || (v->n == strlen(zero) && memcmp(v->p, zero, v->n) == 0);
    *second = v->p != NULL && v->n == strlen(one) && memcmp(v->p, one, v->n) == 0;
    if (!is_zero && !*second)
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'%s' is %s or %s", http_param_name(p), zero, one);
    return is_zero || *second;
}

void http_aggregate_get(struct http_request *r, const struct reduce_mode *mode, struct cht_str prefix)
{
    struct asked *a = http_request_own(r, sizeof *a);
    *a = (struct asked){.mode = mode};
    r->release = release;
    struct reduce_params *p = &a->params;
    unsigned uses = mode->aggregate->uses;
    uint64_t most = (uses & REDUCE_USES_TO) != 0 ? REDUCE_SIMILAR_MAX : UINT64_MAX / 2;
    bool by_count = false, jaccard = false, decode;
    *p = (struct reduce_params){.prefix = prefix, .memory_max = r->w->srv->conf->reduce_memory_bytes};
    if (!http_param_bytes(r, HTTP_P_AFTER, &p->after) || !http_param_bytes(r, HTTP_P_UNTIL, &p->until) ||
        !http_param_bool(r, HTTP_P_DECODE, false, &decode) ||
        !http_param_number(r, HTTP_P_LIMIT, 1, most, 0, &p->limit))
        return;
    if (r->param[HTTP_P_TEXT].p != NULL && !has_tokens(mode)) {
        http_reply_fail(r, CHT_UNKNOWN_PARAMETER, "mode %s takes no parameter 'text'", mode->names[0]);
        return;
    }
    if (((uses & REDUCE_USES_SORT) == 0 && r->param[HTTP_P_SORT].p != NULL) ||
        ((uses & REDUCE_USES_TO) == 0 &&
         (r->param[HTTP_P_TO].p != NULL || r->param[HTTP_P_METRIC].p != NULL))) {
        http_reply_fail(r, CHT_UNKNOWN_PARAMETER,
                        "mode %s takes neither 'sort' nor 'to' nor 'metric' beyond its own", mode->names[0]);
        return;
    }
    if (!choice(r, HTTP_P_SORT, "token", "count", &by_count) ||
        !choice(r, HTTP_P_METRIC, "cosine", "jaccard", &jaccard) || !http_param_bytes(r, HTTP_P_TO, &p->to))
        return;
    if ((uses & REDUCE_USES_TO) != 0 && p->to.n == 0) {
        http_reply_fail(r, CHT_INVALID_ARGUMENT, "'to' names the pair to compare with");
        return;
    }
    p->sort = by_count ? REDUCE_SORT_COUNT : REDUCE_SORT_TOKEN;
    p->metric = jaccard ? REDUCE_JACCARD : REDUCE_COSINE;
    http_request_database(r, false, run);
}
