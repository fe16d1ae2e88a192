/* lines: see lines.h. */
#include "http/lines.h"

#include "http/reply.h"
#include "http/server.h"

/* What of a buffer of that many bytes is booked: all of a large one, nothing of a small one. */
static size_t booked(size_t cap) { return cap > SVC_MEMORY_SMALL ? cap : 0; }

/* More room in l->text, booked if it is large. */
static enum cht_rc make_room(struct http_request *r, struct http_lines *l, size_t more)
{
    struct svc_out *o = &l->text;
    size_t cap = o->cap < SVC_MEMORY_SMALL ? SVC_MEMORY_SMALL : o->cap;
    if (o->cap - o->n >= more || o->n + more <= SVC_MEMORY_SMALL)
        return CHT_OK;
    while (cap < o->n + more)
        cap *= 2;
    enum cht_rc rc = svc_memory_take(&r->memory, booked(cap) - booked(o->cap), &r->err);
    if (rc == CHT_OK && !svc_out_grow(o, cap - o->n))
        rc = CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for the body");
    return rc;
}

static enum cht_rc keep(struct http_request *r, struct http_lines *l, const char *data, size_t n)
{
    enum cht_rc rc = make_room(r, l, n);
    if (rc == CHT_OK)
        svc_out_bytes(&l->text, data, n);
    if (rc == CHT_OK && l->text.failed)
        rc = CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for the body");
    return rc;
}

/* What the JSON library takes for a long line is booked meanwhile. */
static enum cht_rc take_line(struct http_request *r, const struct http_lines *l, const char *p, size_t n)
{
    enum cht_rc rc;
    if (l->plain != NULL && l->plain(r, p, n, &rc))
        return rc;
    if (n <= HTTP_LINES_LONG)
        return l->take(r, p, n);
    uint64_t cost = http_json_memory(p, n);
    rc = svc_memory_take(&r->memory, cost, &r->err);
    if (rc != CHT_OK)
        return rc;
    rc = l->take(r, p, n);
    svc_memory_give(&r->memory, cost);
    return rc;
}

/* A line, or a part of one, of len bytes; ended: its line break follows. */
static enum cht_rc take_part(struct http_request *r, struct http_lines *l, const char *data, size_t len,
                             bool ended)
{
    size_t have = l->text.n - l->from;
    enum cht_rc rc = CHT_OK;
    if (have + len > l->max)
        return CHT_FAIL(&r->err, CHT_BATCH_TOO_LARGE, "a line has at most %zu bytes", l->max);
    if (ended && have + len > HTTP_LINES_LONG)
        l->later = true;
    if (ended && !l->later && have == 0)
        return take_line(r, l, data, len);
    rc = keep(r, l, data, len + (ended && l->later)); /* with the line break, which is there */
    if (rc != CHT_OK || !ended)
        return rc;
    if (l->later) {
        l->from = l->text.n;
        return CHT_OK;
    }
    rc = take_line(r, l, l->text.p, l->text.n);
    l->text.n = 0;
    return rc;
}

/* On a job thread. */
static void read_rest(struct http_request *r)
{
    struct http_lines *l = r->lines;
    const char *p = l->text.p, *end = p + l->text.n;
    r->rc = CHT_OK;
    while (p < end && r->rc == CHT_OK) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((stop != NULL ? stop : end) - p);
        if (atomic_load_explicit(&r->cancel, memory_order_relaxed))
            r->rc = CHT_FAIL(&r->err, CHT_CANCELLED, "cancelled");
        else
            r->rc = take_line(r, l, p, n);
        p += n + 1;
    }
    svc_memory_give(&r->memory, booked(l->text.cap));
    svc_out_free(&l->text);
}

static void rest_is_read(struct http_request *r)
{
    if (r->rc != CHT_OK)
        http_reply_err(r, r->rc, &r->err);
    else
        r->lines->then(r);
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc http_lines_feed(struct http_request *r, struct http_lines *l, const char *data, size_t n)
{
    enum cht_rc rc = CHT_OK;
    while (n > 0 && rc == CHT_OK) {
        const char *end = memchr(data, '\n', n);
        size_t len = end == NULL ? n : (size_t)(end - data);
        rc = take_part(r, l, data, len, end != NULL);
        len += end != NULL;
        data += len;
        n -= len;
    }
    return rc;
}

void http_lines_end(struct http_request *r, struct http_lines *l, void (*then)(struct http_request *r))
{
    if (!l->later && l->text.n <= HTTP_LINES_LONG) {
        r->rc = l->text.n > 0 ? take_line(r, l, l->text.p, l->text.n) : CHT_OK;
        l->text.n = 0;
        if (r->rc == CHT_OK)
            then(r);
        else
            http_reply_err(r, r->rc, &r->err);
        return;
    }
    l->then = then;
    r->lines = l;
    http_request_owner_of_db(r);
    http_request_long_job(r, 0, read_rest, rest_is_read);
}

void http_lines_fini(struct http_lines *l) { svc_out_free(&l->text); }

/* Of jansson 2.14 on 64 bits: what each of these begins, the tables that it doubles included. In strings they count as well, which is
 * too much and not too little. */
uint64_t http_json_memory(const char *p, size_t n)
{
    uint64_t total = n;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];
        if (c == ',')
            total += 72;
        else if (c == ':')
            total += 96;
        else if (c == '[')
            total += 144;
        else if (c == '{')
            total += 256;
    }
    return total;
}
