/* stream: see stream.h. */
#include "http/stream.h"

#include "http/direct.h"
#include "http/reply.h"
#include "http/server.h"
#include "http/wake.h"

#include "base/alloc.h"
#include "service/text.h"

#include <stdio.h>

#define CHECK_BYTES (1u << 20) /* of a long value, looked at at a time */

/* ---- text to libmicrohttpd ------------------------------------------------------------------------------------ */

/* The next text, or the error line if the server ends the stream. */
static enum http_more next_text(struct http_stream *s)
{
    if (s->abort != CHT_OK && !s->ended && s->piece.value == NULL) {
        s->stage.n = 0;
        http_stream_error_line(s, s->abort, cht_rc_text(s->abort));
        s->at = s->stage.p;
        s->left = s->stage.failed ? 0 : s->stage.n;
        s->ended = true;
        return s->stage.failed ? HTTP_MORE_END : HTTP_MORE_TEXT;
    }
    if (s->ended)
        return HTTP_MORE_END;
    bool piece = s->piece.value != NULL; /* is read here, not by a scan's worker */
    if (piece && !http_stream_enter(s))
        return HTTP_MORE_LATER;
    enum http_more m = s->next(s, &s->at, &s->left);
    if (piece)
        http_stream_leave(s);
    s->ended = m == HTTP_MORE_END;
    if (s->ended)
        s->left = 0; /* what found no memory may lack lines, and have a last one all the same */
    return m;
}

void http_stream_wait(struct http_stream *s)
{
    int running = 0;
    MHD_suspend_connection(s->r->mc);
    s->suspended = true;
    if (!atomic_compare_exchange_strong_explicit(&s->wake, &running, 1, memory_order_acq_rel,
                                                 memory_order_acquire)) {
        atomic_store_explicit(&s->wake, 0, memory_order_relaxed);
        s->suspended = false;
        http_worker_resume(s->r->w, s->r->mc);
    }
}

/* Pairs with http_stream_wait: whoever comes second knows of the other. */
void http_stream_wake(struct http_stream *s)
{
    if (atomic_exchange_explicit(&s->wake, 2, memory_order_acq_rel) == 1)
        http_worker_resume(s->r->w, s->r->mc);
}

static void store_calm(struct cht_wait *w)
{
    struct http_stream *s = w->ctx;
    atomic_store_explicit(&s->waiting, false, memory_order_release);
    http_stream_wake(s);
}

/* Pairs with store_calm: asked again before it has been told, it does not wait twice. */
bool http_stream_enter(struct http_stream *s)
{
    if (atomic_load_explicit(&s->waiting, memory_order_acquire))
        return false;
    s->wait.done = store_calm;
    s->wait.ctx = s;
    atomic_store_explicit(&s->waiting, true, memory_order_relaxed);
    if (!cht_store_enter(s->r->db->store, &s->wait))
        return false;
    atomic_store_explicit(&s->waiting, false, memory_order_relaxed);
    return true;
}

void http_stream_leave(struct http_stream *s) { cht_store_leave(s->r->db->store); }

/* memcpy is a call, which for lines of 32 to 64 bytes takes longer than the copying. */
static inline void copy_line(char *to, const void *from, size_t n)
{
    if (n >= 32 && n <= 64) {
        char a[32], b[32];
        memcpy(a, from, 32);
        memcpy(b, (const char *)from + n - 32, 32);
        memcpy(to, a, 32);
        memcpy(to + n - 32, b, 32);
    } else {
        memcpy(to, from, n);
    }
}

/* Has a scan lines at hand? */
static bool has_lines(const struct http_stream *s)
{
    return s->scan != NULL && s->piece.value == NULL && s->abort == CHT_OK && s->pos < s->have;
}

/* Of a scan: the lines that are at hand and fit as a whole. Returns their bytes. */
static size_t copy_lines(struct http_stream *s, char *buf, size_t room)
{
    size_t n = 0, pos = s->pos;
    for (; pos < s->have; pos++) {
        const struct cht_entry *e = &s->entries[pos];
        if (e->value_len > room - n || (e->flags & (CHT_ENTRY_LARGE | CHT_ENTRY_CORRUPT)) != 0)
            break; /* next_of_scan sees to it */
        if (e->value_len > 0)
            copy_line(buf + n, e->value, e->value_len);
        n += e->value_len;
        s->count += e->count;
    }
    s->pos = pos;
    return n;
}

size_t http_stream_take(struct http_stream *s, char *buf, size_t max, enum http_more *more)
{
    size_t n = 0;
    *more = HTTP_MORE_TEXT;
    while (n < max) {
        if (s->left == 0) {
            if (has_lines(s))
                n += copy_lines(s, buf + n, max - n);
            *more = next_text(s);
            if (*more != HTTP_MORE_TEXT)
                break;
        }
        size_t some = s->left < max - n ? s->left : max - n;
        memcpy(buf + n, s->at, some);
        s->at += some;
        s->left -= some;
        n += some;
    }
    s->cut = s->cut || (*more == HTTP_MORE_END && s->stage.failed);
    return n;
}

ssize_t http_stream_read(struct http_request *r, char *buf, size_t max)
{
    struct http_stream *s = r->stream;
    enum http_more more = HTTP_MORE_TEXT;
    (void)atomic_exchange_explicit(&s->wake, 0, memory_order_acq_rel); /* what woke it is seen */
    s->suspended = false;
    if (s->left == 0 && !has_lines(s))
        more = next_text(s);
    if (more == HTTP_MORE_TEXT && http_direct_fits(s))
        return (ssize_t)http_direct_begin(s, buf, max);
    size_t n = more == HTTP_MORE_LATER ? 0 : http_stream_take(s, buf, max, &more);
    s->bytes += n;
    if (n > 0) /* first what there is; then the source is asked again */
        return (ssize_t)n;
    if (more == HTTP_MORE_END) /* with an error: the last chunk is not sent either */
        return s->cut ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
    http_stream_wait(s);
    return 0;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

bool http_stream_new(struct http_request *r,
                     enum http_more (*next)(struct http_stream *, const char **, size_t *))
{
    struct http_server *srv = r->w->srv;
    uint64_t open = atomic_fetch_add_explicit(&srv->streams, 1, memory_order_relaxed);
    if (open >= srv->conf->max_streams) {
        atomic_fetch_sub_explicit(&srv->streams, 1, memory_order_relaxed);
        http_reply_fail(r, CHT_OVERLOADED, "%llu streams are open, which is the limit",
                        (unsigned long long)open);
        return false;
    }
    struct http_stream *s = cht_calloc(1, sizeof *s);
    if (s == NULL) {
        atomic_fetch_sub_explicit(&srv->streams, 1, memory_order_relaxed);
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
        return false;
    }
    s->r = r;
    s->memory = (struct svc_memory_use){.budget = &srv->memory, .beside = true};
    s->free = http_stream_free;
    s->next = next;
    r->stream = s;
    return true;
}

void http_stream_begin(struct http_request *r)
{
    http_reply_media(r, 200, r->stream->arpa ? HTTP_MEDIA_ARPA : HTTP_MEDIA_NDJSON);
}

static void free_source(struct http_stream *s)
{
    s->tick = NULL;
    if (s->wait.done != NULL && s->r->db != NULL)
        cht_store_forget(s->r->db->store, &s->wait);
    cht_value_close(s->piece.value);
    s->piece.value = NULL;
    cht_value_close(s->early.value);
    s->early = (struct http_early){0};
    if (s->scan != NULL) {
        cht_scan_cancel(s->scan);
        cht_scan_close(s->scan);
        s->scan = NULL;
        svc_memory_end(&s->memory);
    }
    if (s->free_source != NULL)
        s->free_source(s);
    s->free_source = NULL;
}

void http_stream_free(struct http_request *r)
{
    struct http_stream *s = r->stream;
    if (s == NULL)
        return;
    struct http_server *srv = r->w->srv;
    free_source(s);
    atomic_fetch_add_explicit(&srv->stream_entries, s->count, memory_order_relaxed);
    atomic_fetch_add_explicit(&srv->stream_bytes, s->bytes, memory_order_relaxed);
    atomic_fetch_sub_explicit(&srv->streams, 1, memory_order_relaxed);
    if (s->pack != NULL)
        s->free_pack(s->pack);
    cht_free(s->entries);
    svc_out_free(&s->stage);
    svc_out_free(&s->last_name);
    cht_free(s);
    r->stream = NULL;
}

/* The source's text that is still to be copied may point into the source, so the rest of that line is saved first: what
 * was sent of it must be followed by its end. */
void http_stream_abort(struct http_stream *s, enum cht_rc why)
{
    struct svc_out rest = {0};
    s->abort = why;
    if (s->piece.value != NULL && why == CHT_DRAINING) {
        http_stream_wake(s); /* the long value is sent to its end first */
        return;
    }
    svc_out_bytes(&rest, s->at, s->left);
    if (s->piece.value != NULL || rest.failed)
        s->ended = s->cut = true;
    free_source(s);
    svc_out_free(&s->last_name);
    s->last_name = rest; /* a home for it until the stream is freed */
    s->at = rest.p;
    s->left = rest.n;
    http_request_forget(s->r);
    svc_dbs_put(s->r->db);
    s->r->db = NULL;
    http_stream_wake(s);
}

void http_stream_end_line(struct http_stream *s, const char *next)
{
    svc_out_text(&s->stage, "{\"end\":{\"count\":");
    svc_out_u64(&s->stage, s->count);
    svc_out_text(&s->stage, ",\"next\":");
    svc_out_text(&s->stage, next != NULL ? next : "null");
    if (s->corrupt > 0) {
        svc_out_text(&s->stage, ",\"corrupt\":");
        svc_out_u64(&s->stage, s->corrupt);
    }
    svc_out_text(&s->stage, "}}\n");
}

void http_stream_no_value(struct http_stream *s, const char *members, enum cht_rc rc)
{
    svc_out_text(&s->stage, members);
    if (rc != CHT_KEY_NOT_FOUND) {
        s->corrupt++;
        svc_out_text(&s->stage, ",\"error\":\"");
        svc_out_text(&s->stage, cht_rc_slug(rc));
        svc_out_text(&s->stage, "\"");
    }
    svc_out_text(&s->stage, "}\n");
}

void http_stream_error_line(struct http_stream *s, enum cht_rc rc, const char *detail)
{
    if (rc == CHT_DATABASE_DROPPED && s->r->db != NULL)
        svc_dbs_gone(s->r->db);
    svc_out_text(&s->stage, "{\"error\":");
    http_problem_text(&s->stage, rc, detail);
    svc_out_text(&s->stage, "}}\n");
    s->failed = true;
}

bool http_stream_broken(struct http_stream *s, enum cht_rc rc, const struct cht_err *err)
{
    if (rc != CHT_TIMEOUT && rc != CHT_CLOSED && rc != CHT_DATABASE_DROPPED)
        return false;
    http_stream_error_line(s, rc, err->code == rc ? err->msg : cht_rc_text(rc));
    s->finished = true;
    return true;
}

/* ---- long values ------------------------------------------------------------------------------------------------- */

bool http_stream_large(struct http_stream *s, uint64_t key, struct cht_wait *w, enum cht_rc *rc,
                       struct cht_err *err)
{
    struct http_piece *p = &s->piece;
    *p = (struct http_piece){.tail = ""};
    if (s->early.key == key && w == &cht_ahead) {
        *rc = s->early.rc;
        p->value = s->early.value;
        p->size = s->early.size;
        s->early = (struct http_early){0};
        return *rc == CHT_OK;
    }
    *rc = cht_value_open_soon(s->r->db->store, key, &p->value, &p->size, w, err);
    if (*rc != CHT_OK)
        p->value = NULL;
    return *rc == CHT_OK;
}

void http_stream_tag(struct http_stream *s, uint64_t key)
{
    struct http_piece *p = &s->piece;
    p->tagged = true;
    http_etag_begin(&p->tag, key, p->size);
}

/* Of a scan, before the line of a long value: is it at hand? On another machine it is opened first, so that the line does not wait. */
static bool open_early(struct http_stream *s, uint64_t key)
{
    struct cht_store *store = s->r->db->store;
    struct http_early *e = &s->early;
    if (!cht_store_remote(store) || e->key == key)
        return true;
    if (atomic_load_explicit(&s->waiting, memory_order_acquire))
        return false;
    s->wait.done = store_calm;
    s->wait.ctx = s;
    atomic_store_explicit(&s->waiting, true, memory_order_relaxed);
    e->rc = cht_value_open_soon(store, key, &e->value, &e->size, &s->wait, NULL);
    if (e->rc == CHT_PENDING)
        return false;
    atomic_store_explicit(&s->waiting, false, memory_order_relaxed);
    if (s->wait.held != NULL)
        cht_store_forget(store, &s->wait);
    if (e->rc != CHT_OK)
        e->value = NULL;
    e->key = key;
    return true;
}

void http_stream_show(struct http_stream *s, enum http_member what, const char *tail)
{
    struct http_piece *p = &s->piece;
    p->form = s->r->text ? HTTP_PIECE_CHECK : HTTP_PIECE_BASE64;
    p->what = what;
    p->tail = tail;
    svc_out_text(&s->stage, ",");
    if (p->form == HTTP_PIECE_BASE64)
        svc_out_text(&s->stage, http_ndjson_begin(what, false));
}

/* The next bytes of it into r->value; 0: all have been read. False: they cannot be. */
static bool read_piece(struct http_stream *s, size_t *got)
{
    struct http_piece *p = &s->piece;
    size_t want = p->size - p->at < HTTP_STREAM_PIECE ? p->size - p->at : HTTP_STREAM_PIECE;
    *got = 0;
    if (want == 0)
        return true;
    if (cht_buf_reserve(&s->r->value, HTTP_STREAM_PIECE, NULL) != CHT_OK ||
        cht_value_read(p->value, p->at, s->r->value.data, want, got, NULL) != CHT_OK || *got == 0)
        return false;
    size_t seen = p->hashed - p->at; /* of these: some pieces are read again */
    if (p->tagged && seen < *got) {
        http_etag_add(&p->tag, s->r->value.data + seen, *got - seen);
        p->hashed = p->at + (uint32_t)*got;
    }
    return true;
}

enum step {
    STEP_TEXT,   /* staged */
    STEP_AGAIN,  /* not yet: others have their turn */
    STEP_DONE,   /* that was all */
    STEP_FAILED, /* it cannot be read */
};

static enum step piece_base64(struct http_stream *s)
{
    size_t got;
    if (!read_piece(s, &got))
        return STEP_FAILED;
    if (got > 0 && svc_out_room(&s->stage, cht_b64_encoded(got)))
        s->stage.n += cht_b64_encode(s->stage.p + s->stage.n, s->r->value.data, got);
    s->piece.at += (uint32_t)got;
    return got > 0 ? STEP_TEXT : STEP_DONE;
}

/* A character may lie across the end of a piece: its bytes are read again with the next one. */
static enum step piece_text(struct http_stream *s)
{
    size_t got;
    if (!read_piece(s, &got))
        return STEP_FAILED;
    size_t n = svc_text_prefix(s->r->value.data, got);
    if (got > 0 && n == 0)
        return STEP_FAILED; /* it was text when it was looked at */
    if (got > 0 && svc_out_room(&s->stage, 2 * n))
        s->stage.n += svc_text_json(s->stage.p + s->stage.n, s->r->value.data, n);
    s->piece.at += (uint32_t)n;
    return got > 0 ? STEP_TEXT : STEP_DONE;
}

/* The name of its member, if that is known after the next megabyte. */
static enum step piece_check(struct http_stream *s)
{
    struct http_piece *p = &s->piece;
    uint32_t from = p->at;
    while (p->at - from < CHECK_BYTES) {
        size_t got;
        if (!read_piece(s, &got))
            return STEP_FAILED;
        size_t n = svc_text_prefix(s->r->value.data, got);
        bool bad = got - n > 3 || (n < got && p->at + got == p->size);
        p->at += (uint32_t)n;
        if (bad || got == 0) {
            p->at = 0;
            p->form = bad ? HTTP_PIECE_BASE64 : HTTP_PIECE_TEXT;
            svc_out_text(&s->stage, http_ndjson_begin(p->what, !bad));
            return STEP_TEXT;
        }
    }
    return STEP_AGAIN;
}

static enum step next_piece(struct http_stream *s)
{
    switch (s->piece.form) {
    case HTTP_PIECE_CHECK:
        return piece_check(s);
    case HTTP_PIECE_TEXT:
        return piece_text(s);
    case HTTP_PIECE_PART:
        return s->piece.part(s) ? STEP_TEXT : s->piece.left > 0 ? STEP_FAILED : STEP_DONE;
    default:
        return piece_base64(s);
    }
}

enum http_more http_stream_piece(struct http_stream *s)
{
    struct http_piece *p = &s->piece;
    s->stage.n = 0;
    enum step step = next_piece(s);
    if (step == STEP_AGAIN) {
        atomic_store_explicit(&s->wake, 2, memory_order_relaxed); /* as if someone had woken it */
        return HTTP_MORE_LATER;
    }
    if (step == STEP_TEXT)
        return s->stage.failed ? HTTP_MORE_END : HTTP_MORE_TEXT;
    cht_value_close(p->value);
    p->value = NULL;
    s->cut = s->cut || step == STEP_FAILED;
    if (p->tagged) {
        svc_out_text(&s->stage, "\"");
        http_ndjson_put_tag(&s->stage, http_etag_end(&p->tag));
    }
    svc_out_text(&s->stage, p->tagged ? p->tail + 1 : p->tail); /* it begins with the quote */
    return step == STEP_FAILED || s->stage.failed ? HTTP_MORE_END : HTTP_MORE_TEXT;
}

/* ---- text that is there already ------------------------------------------------------------------------------------ */

static enum http_more next_of_out(struct http_stream *s, const char **p, size_t *n)
{
    if (s->finished)
        return HTTP_MORE_END;
    s->finished = true;
    *p = s->r->out.p;
    *n = s->r->out.n;
    s->cut = s->r->out.failed;
    return s->cut ? HTTP_MORE_END : HTTP_MORE_TEXT;
}

void http_stream_out(struct http_request *r)
{
    if (r->stream == NULL && !http_stream_new(r, next_of_out))
        return;
    r->stream->next = next_of_out;
    http_stream_begin(r);
}

/* ---- scans -------------------------------------------------------------------------------------------------------- */

static void on_ready(void *ctx) { http_stream_wake(ctx); }

static void remember(struct http_stream *s, const struct cht_entry *e)
{
    s->last_key = e->key;
    s->last_name.n = 0;
    svc_out_bytes(&s->last_name, e->name, e->name_len);
}

static void end_of_scan(struct http_stream *s)
{
    struct svc_out next = {0};
    if (!cht_scan_exhausted(s->scan) && s->count > 0) {
        if (s->is_values)
            svc_out_u64(&next, s->last_key);
        else
            http_ndjson_put_cursor(&next, s->r->names,
                                   (struct cht_str){(const uint8_t *)s->last_name.p, s->last_name.n});
        svc_out_bytes(&next, "", 1);
    }
    if (next.failed || s->last_name.failed)
        http_stream_error_line(s, CHT_NO_MEMORY, "no memory for the cursor");
    else
        http_stream_end_line(s, next.p);
    svc_out_free(&next);
}

static enum http_more give_stage(struct http_stream *s, const char **p, size_t *n)
{
    if (s->stage.failed) {
        s->failed = true;
        return HTTP_MORE_END;
    }
    *p = s->stage.p;
    *n = s->stage.n;
    return HTTP_MORE_TEXT;
}

static void take_large(struct http_stream *s, const struct cht_entry *e)
{
    s->stage.n = 0;
    s->kind->large(s, e);
}

static enum http_more next_of_scan(struct http_stream *s, const char **p, size_t *n)
{
    struct cht_err err = {0};
    if (s->piece.value != NULL) {
        enum http_more m = http_stream_piece(s);
        return m == HTTP_MORE_TEXT ? give_stage(s, p, n) : m;
    }
    if (s->finished)
        return HTTP_MORE_END;
    if (s->pos == s->have) {
        enum cht_rc rc = cht_scan_poll(s->scan, s->entries, HTTP_STREAM_ENTRIES, &s->have, &err);
        s->pos = 0;
        if (rc == CHT_PENDING) {
            s->have = 0;
            return HTTP_MORE_LATER;
        }
        s->stage.n = 0;
        if (rc != CHT_OK || s->have == 0) {
            s->have = 0;
            s->finished = true;
            if (rc != CHT_OK)
                http_stream_error_line(s, rc, err.msg[0] != 0 ? err.msg : cht_rc_text(rc));
            else
                end_of_scan(s);
            return give_stage(s, p, n);
        }
        remember(s, &s->entries[s->have - 1]);
    }
    const struct cht_entry *e = &s->entries[s->pos];
    bool large = (e->flags & CHT_ENTRY_LARGE) != 0;
    if (large && (!open_early(s, e->key) || !http_stream_enter(s)))
        return HTTP_MORE_LATER;
    s->pos++;
    s->count += e->count;
    s->corrupt += (e->flags & CHT_ENTRY_CORRUPT) != 0;
    if (large) {
        take_large(s, e);
        http_stream_leave(s);
        return give_stage(s, p, n);
    }
    *p = (const char *)e->value;
    *n = e->value_len;
    return HTTP_MORE_TEXT;
}

void http_stream_scan(struct http_request *r, struct cht_scan_config *cfg,
                      const struct http_stream_kind *kind)
{
    struct cht_err err = {0};
    if (r->head) { /* the headers are all that is wanted */
        http_reply_media(r, 200, HTTP_MEDIA_NDJSON);
        return;
    }
    if (r->stream == NULL && !http_stream_new(r, next_of_scan))
        return;
    struct http_stream *s = r->stream;
    s->next = next_of_scan;
    s->kind = kind;
    s->is_values = cfg->kind == CHT_SCAN_VALUES;
    s->entries = cht_malloc(HTTP_STREAM_ENTRIES * sizeof *s->entries);
    if (s->entries == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a stream");
        return;
    }
    cfg->render = kind->render;
    cfg->render_ctx = s;
    cfg->runs = kind->runs;
    cfg->ready = on_ready;
    cfg->ready_ctx = s;
    enum cht_rc rc = cht_scan_open(r->db->store, cfg, &s->scan, &err);
    if (rc != CHT_OK)
        s->scan = NULL;
    else /* it has planned what it takes, and nothing of it is filled yet */
        rc = svc_memory_take(&s->memory, cht_scan_memory(s->scan), &err);
    if (rc != CHT_OK) {
        http_reply_err(r, rc, &err);
        return;
    }
    http_stream_begin(r);
}
