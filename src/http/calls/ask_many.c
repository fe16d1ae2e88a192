/* ask_many: see ask_many.h. One job asks one question after the other; what it has read of the model it keeps for those that
 * follow. A line that is no question, or cannot be answered, is {"error":{...}} and the others are answered. */
#include "http/calls/ask_many.h"

#include "http/body.h"
#include "http/calls/asker.h"
#include "http/calls/live.h"
#include "http/calls/shared.h"
#include "http/feed.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"
#include "reduce/text.h"

#define PIECE (64u << 10)         /* of the answer, handed over together */
#define WAITING (4u << 20)        /* of it, not taken yet: the job waits */
#define TOGETHER_BYTES (16 << 10) /* of lines that are asked together, and the rest of the last one */

struct many {
    struct http_feed feed; /* first */
    struct http_asker asker;
    uint8_t *body; /* owned */
    size_t n;
    uint64_t lines, failed;
};

static const uint8_t *skip_blank(const uint8_t *p, const uint8_t *end)
{
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
        p++;
    return p;
}

static void one_line(struct many *m, struct cht_str line)
{
    struct cht_err err = {0};
    uint64_t lines;
    m->lines++;
    enum cht_rc rc = http_asker_ask(&m->asker, (const char *)line.p, line.n, &lines, &err);
    if (rc == CHT_OK)
        return;
    struct svc_out *o = &m->asker.text;
    m->failed++;
    svc_out_text(o, "{\"error\":");
    http_problem_text(o, rc, err.msg[0] != 0 ? err.msg : cht_rc_text(rc));
    svc_out_text(o, "}}\n");
}

/* The next lines of the body, from *p on: at most `most`, and not more than are asked together. */
static size_t next_lines(const uint8_t **p, const uint8_t *end, struct cht_str *line, size_t most)
{
    const uint8_t *from = *p;
    size_t n = 0;
    while (n < most && *p - from < TOGETHER_BYTES && (*p = skip_blank(*p, end)) < end) {
        const uint8_t *stop = memchr(*p, '\n', (size_t)(end - *p));
        line[n] = (struct cht_str){*p, stop != NULL ? (size_t)(stop - *p) : (size_t)(end - *p)};
        *p += line[n++].n;
    }
    return n;
}

static void some_lines(struct many *m, const struct cht_str *line, size_t n)
{
    if (n > 1 && http_asker_score(&m->asker, line, n)) {
        m->lines += n;
        return;
    }
    for (size_t i = 0; i < n && !m->asker.text.failed; i++)
        one_line(m, line[i]);
}

/* ---- the job ------------------------------------------------------------------------------------------------------- */

static bool hand_over(struct many *m)
{
    http_feed_put(&m->feed, &m->asker.text);
    bool ok = !m->asker.text.failed;
    m->asker.text.n = 0;
    return ok && http_feed_room(&m->feed, WAITING);
}

static void end_line(struct many *m)
{
    svc_out_format(&m->asker.text, "{\"end\":{\"count\":%llu,\"failed\":%llu,\"next\":null",
                   (unsigned long long)m->lines, (unsigned long long)m->failed);
    if (!m->asker.predict) {
        svc_out_format(&m->asker.text, ",\"documents\":%llu,\"tokens\":%llu,\"oov\":%llu,\"log10\":",
                       (unsigned long long)(m->lines - m->failed), (unsigned long long)m->asker.sum.tokens,
                       (unsigned long long)m->asker.sum.oov);
        if (svc_out_room(&m->asker.text, REDUCE_DOUBLE_TEXT))
            m->asker.text.n += reduce_put_double(m->asker.text.p + m->asker.text.n, m->asker.sum.log10);
        if (!m->asker.any_deepest) {
            svc_out_text(&m->asker.text, ",");
            http_live_perplexities(&m->asker.text, &m->asker.sum);
        }
    }
    svc_out_text(&m->asker.text, "}}\n");
}

static void many_work(struct http_feed *f)
{
    struct many *m = (struct many *)f;
    struct svc_out *o = &m->asker.text;
    const uint8_t *p = m->body, *end = p + m->n;
    struct cht_str line[HTTP_ASKED_TOGETHER];
    size_t n;
    bool on = true;
    m->asker.lm = http_shared(f->srv)->lm;
    m->asker.lookups = &http_shared(f->srv)->lookups;
    m->asker.budget = &f->srv->memory;
    m->asker.store = f->db->store;
    while (on && (n = next_lines(&p, end, line, m->asker.predict ? 1 : HTTP_ASKED_TOGETHER)) > 0) {
        some_lines(m, line, n);
        if (m->asker.text.n >= PIECE || m->asker.text.failed)
            on = hand_over(m);
    }
    if (on) {
        end_line(m);
    } else {
        enum cht_rc rc = o->failed ? CHT_NO_MEMORY : CHT_CANCELLED;
        o->failed = false;
        svc_out_text(o, "{\"error\":");
        http_problem_text(o, rc, cht_rc_text(rc));
        svc_out_text(o, "}}\n");
    }
    (void)hand_over(m);
}

static void progress(struct http_feed *f, struct svc_out *o)
{
    (void)f, (void)o; /* it says nothing between two answers */
}

static void fini(struct http_feed *f)
{
    struct many *m = (struct many *)f;
    cht_free(m->body);
    http_asker_fini(&m->asker);
}

static void begin(struct http_request *r)
{
    static const struct http_feed_kind kind = {.work = many_work, .progress = progress, .fini = fini};
    const bool *predict = r->own;
    struct many *m = cht_calloc(1, sizeof *m);
    if (m == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
        return;
    }
    m->feed.kind = &kind;
    m->asker.predict = *predict;
    m->asker.words = r->text;
    m->body = r->body; /* the job may outlive the request */
    m->n = r->body_len;
    r->body = NULL;
    r->body_len = r->body_cap = 0;
    http_feed_begin(r, &m->feed);
}

/* ------------------------------------------------------------------------------------------------------------ */

bool http_ask_many_is(const struct http_request *r)
{
    const uint8_t *end = r->body + r->body_len, *p = skip_blank(r->body, end);
    const uint8_t *stop = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
    if (stop == NULL || skip_blank(stop, end) == end)
        return false;
    if (http_body_is_ndjson(r))
        return true;
    if (*p != '{')
        return false;
    const uint8_t *last = stop - 1;
    while (last > p && (*last == ' ' || *last == '\t' || *last == '\r'))
        last--;
    return *last == '}';
}

void http_ask_many(struct http_request *r, bool predict)
{
    bool *own = http_request_own(r, sizeof *own);
    *own = predict;
    http_request_database(r, false, begin);
}
