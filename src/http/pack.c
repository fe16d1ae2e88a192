/* pack: see pack.h.
 *
 *            http_stream_take            a job                 libmicrohttpd
 *    source ------------------> block[f] ------> coded[1 - s]    coded[s] ------>
 *                               block[1 - f]
 *
 * A block that is full is handed over when the job has nothing to do and what it made has been taken: f changes. What it made is taken when
 * all of coded[s] has been sent: s changes.
 */
#include "http/pack.h"

#include "http/accept.h"
#include "http/server.h"
#include "http/stream.h"

#include "base/alloc.h"
#include "os/thread.h"

#define BLOCK (128u << 10)

struct http_pack {
    struct http_worker *w;
    struct http_encoder *encoder; /* owned; NULL: nothing is compressed. The job's while it runs */
    struct cht_mutex mu;
    struct cht_job job;
    struct http_stream *stream; /* guarded by mu: NULL when the client has gone */
    bool running;               /* guarded by mu, as the next four */
    bool made;                  /* `len` bytes wait in coded[1 - sending], the last ones if `last` */
    bool last, failed;
    size_t len;
    size_t input;                 /* bytes of the block that the job has; set before it begins */
    bool input_last;              /* likewise */
    unsigned filling, sending;    /* the HTTP thread's, as all below */
    size_t fill, ready, sent;     /* bytes in block[filling]; in coded[sending]; of these sent */
    bool ended, cut;              /* the source has; its stream is not whole */
    bool handed, whole;           /* the last block has been handed over; has been taken */
    bool broken;                  /* the encoder is */
    uint8_t *block[2], *coded[2]; /* owned; coded: NULL without an encoder */
};

static void destroy(struct http_pack *k)
{
    http_encoder_free(k->encoder);
    cht_mutex_fini(&k->mu);
    for (int i = 0; i < 2; i++) {
        cht_free(k->block[i]);
        cht_free(k->coded[i]);
    }
    cht_free(k);
}

/* ---- whole answers ----------------------------------------------------------------------------------------------- */

/* On a job thread. Where it fails or does not pay, the answer stays what it is. */
static void pack_out(struct http_request *r)
{
    struct svc_out coded = {0};
    size_t n = SIZE_MAX, room = http_encoder_room(r->out.n);
    bool booked = room > SVC_MEMORY_SMALL,
         ok = !booked || svc_memory_take(&r->memory, room, &r->err) == CHT_OK;
    struct http_encoder *e = ok ? http_encoder_new(r->coding) : NULL;
    if (e != NULL && svc_out_room(&coded, room))
        n = http_encoder_block(e, r->out.p, r->out.n, true, coded.p);
    http_encoder_free(e);
    if (ok && booked)
        svc_memory_give(&r->memory, room); /* what is sent is booked as any answer is */
    if (n >= r->out.n) {
        svc_out_free(&coded);
        r->coding = HTTP_CODING_NONE;
        return;
    }
    r->plain = r->out.n;
    coded.n = n;
    svc_out_free(&r->out);
    r->out = coded;
}

static void out_packed(struct http_request *r)
{
    r->packed = true;
    if (r->coding != HTTP_CODING_NONE) {
        http_metrics_add(&r->w->metrics.packed, 1);
        http_metrics_add(&r->w->metrics.packed_in, r->plain);
        http_metrics_add(&r->w->metrics.packed_out, r->out.n);
    }
    atomic_store_explicit(&r->phase, HTTP_PHASE_READY, memory_order_relaxed);
}

/* ---- streams ------------------------------------------------------------------------------------------------------ */

static void encode(struct cht_job *t)
{
    struct http_pack *k = (struct http_pack *)(void *)((char *)t - offsetof(struct http_pack, job));
    size_t n = http_encoder_block(k->encoder, k->block[1 - k->filling], k->input, k->input_last,
                                  k->coded[1 - k->sending]);
    cht_mutex_lock(&k->mu);
    k->running = false;
    k->made = true;
    k->failed = n == SIZE_MAX;
    k->len = k->failed ? 0 : n;
    k->last = k->input_last;
    bool gone = k->stream == NULL;
    if (!gone)
        http_stream_wake(k->stream);
    cht_mutex_unlock(&k->mu);
    if (gone)
        destroy(k);
}

/* When the server has stopped its job threads there is one thread left, this one. */
static void hand_over(struct http_pack *k, const struct http_request *r)
{
    struct http_server *srv = k->w->srv;
    struct cht_jobs *jobs = r->route->care ? srv->care_jobs : srv->jobs;
    k->input = k->fill;
    k->input_last = k->handed = k->ended && !k->cut;
    k->filling = 1 - k->filling;
    k->fill = 0;
    k->running = true; /* nobody else looks before it is submitted */
    k->job.run = encode;
    k->job.owner = r->db != NULL ? cht_jobs_owner(r->db->name, strlen(r->db->name)) : 0;
    http_metrics_add(&k->w->metrics.packed_in, k->input);
    if (jobs != NULL && srv->jobs != NULL)
        cht_jobs_submit(jobs, &k->job);
    else
        encode(&k->job);
}

/* A job that works for it frees it when it is done. */
static void let_go(struct http_pack *k)
{
    cht_mutex_lock(&k->mu);
    k->stream = NULL;
    bool running = k->running;
    cht_mutex_unlock(&k->mu);
    if (!running)
        destroy(k);
}

/* Text of the source into the block. False: there is nothing more for now. */
static bool fill_block(struct http_stream *s, struct http_pack *k)
{
    enum http_more more = HTTP_MORE_TEXT;
    if (k->ended || k->fill == BLOCK)
        return true;
    k->fill += http_stream_take(s, (char *)k->block[k->filling] + k->fill, BLOCK - k->fill, &more);
    k->ended = more == HTTP_MORE_END;
    k->cut = k->ended && s->cut;
    return more != HTTP_MORE_LATER;
}

/* Takes what the job has made, if all before it has been sent. True: the job may have the next block. */
static bool collect(struct http_pack *k)
{
    cht_mutex_lock(&k->mu);
    if (k->made && k->sent == k->ready) {
        k->made = false;
        k->sending = 1 - k->sending;
        k->ready = k->len;
        k->sent = 0;
        k->whole = k->last;
        k->broken = k->failed;
    }
    bool idle = !k->running && !k->made;
    cht_mutex_unlock(&k->mu);
    return idle;
}

static ssize_t send_some(struct http_stream *s, struct http_pack *k, const uint8_t *from, size_t have,
                         char *buf, size_t max)
{
    size_t n = have - k->sent < max ? have - k->sent : max;
    memcpy(buf, from + k->sent, n);
    k->sent += n;
    s->bytes += n;
    if (k->encoder != NULL)
        http_metrics_add(&k->w->metrics.packed_out, n);
    return (ssize_t)n;
}

static ssize_t end(const struct http_pack *k)
{
    return k->cut || k->broken ? MHD_CONTENT_READER_END_WITH_ERROR : MHD_CONTENT_READER_END_OF_STREAM;
}

/* What is short, or finds no memory, goes out as it is. */
static ssize_t read_plain(struct http_request *r, struct http_pack *k, char *buf, size_t max)
{
    if (k->sent < k->fill)
        return send_some(r->stream, k, k->block[k->filling], k->fill, buf, max);
    return k->ended ? end(k) : http_stream_read(r, buf, max);
}

static bool make_encoder(struct http_pack *k, enum http_coding coding)
{
    k->block[1] = cht_malloc(BLOCK);
    k->coded[0] = cht_malloc(http_encoder_room(BLOCK));
    k->coded[1] = cht_malloc(http_encoder_room(BLOCK));
    if (k->block[1] != NULL && k->coded[0] != NULL && k->coded[1] != NULL)
        k->encoder = http_encoder_new(coding);
    return k->encoder != NULL;
}

static struct http_pack *make_pack(struct http_request *r)
{
    struct http_pack *k = cht_calloc(1, sizeof *k);
    if (k == NULL || cht_mutex_init(&k->mu, &r->err) != CHT_OK) {
        cht_free(k);
        return NULL;
    }
    k->w = r->w;
    k->stream = r->stream;
    k->block[0] = cht_malloc(BLOCK);
    if (k->block[0] == NULL) {
        destroy(k);
        return NULL;
    }
    return k;
}

static void look_again(struct http_request *r)
{
    (void)atomic_exchange_explicit(&r->stream->wake, 0, memory_order_acq_rel); /* what woke it is seen */
    r->stream->suspended = false;
    atomic_store_explicit(&r->phase, HTTP_PHASE_READY, memory_order_relaxed);
}

/* Is it long enough? Without memory it goes out as it is. True: that is not known yet. */
static bool look_into(struct http_request *r, enum http_coding coding)
{
    struct http_stream *s = r->stream;
    if (s->pack == NULL &&
        svc_memory_take(&r->memory, 2 * BLOCK + 2 * http_encoder_room(BLOCK) + HTTP_ENCODER_BYTES, &r->err) ==
            CHT_OK)
        s->pack = make_pack(r);
    s->free_pack = let_go;
    struct http_pack *k = s->pack;
    if (k == NULL)
        return false;
    bool more = fill_block(s, k);
    if (!more && k->fill == 0) {
        r->resume = look_again;
        atomic_store_explicit(&r->phase, HTTP_PHASE_WAITING, memory_order_relaxed);
        http_stream_wait(s);
        return true;
    }
    if ((k->ended && k->fill <= HTTP_PACK_LEAST) || !make_encoder(k, coding))
        return false;
    r->coding = coding;
    http_metrics_add(&r->w->metrics.packed, 1);
    return false;
}

/* ---------------------------------------------------------------------------------------------------------------- */

bool http_pack_varies(const struct http_request *r)
{
    bool stream = r->stream != NULL || r->media == HTTP_MEDIA_NDJSON || r->media == HTTP_MEDIA_ARPA ||
                  r->media == HTTP_MEDIA_BACKUP;
    return r->status < 300 && (stream || r->out.n > HTTP_PACK_LEAST || r->coding != HTTP_CODING_NONE);
}

bool http_pack_answer(struct http_request *r)
{
    if (r->packed || r->early || !http_pack_varies(r) || r->out.failed)
        return false;
    enum http_coding coding = http_accepts_coding(r);
    bool again = false;
    /* Of a stream HEAD shows nothing, so that it is not looked into: it may not even have been begun. */
    if (coding == HTTP_CODING_NONE || (r->head && (r->stream != NULL || r->out.n == 0))) {
        r->packed = true;
        return false;
    }
    if (r->stream != NULL) {
        again = look_into(r, coding);
        r->packed = !again;
        return again;
    }
    r->coding = coding;
    if (r->route->care)
        http_request_care_job(r, pack_out, out_packed);
    else
        http_request_job(r, pack_out, out_packed);
    return true;
}

ssize_t http_pack_read(struct http_request *r, char *buf, size_t max)
{
    struct http_stream *s = r->stream;
    struct http_pack *k = s->pack;
    (void)atomic_exchange_explicit(&s->wake, 0, memory_order_acq_rel); /* what woke it is seen */
    s->suspended = false;
    if (k->encoder == NULL)
        return read_plain(r, k, buf, max);
    bool idle = collect(k), more = fill_block(s, k);
    bool due = k->fill == BLOCK || (k->ended && !k->handed) || (!more && k->fill > 0);
    if (idle && due && !k->broken && !(k->cut && k->fill == 0)) {
        hand_over(k, r);
        idle = false;
    }
    if (k->sent < k->ready)
        return send_some(s, k, k->coded[k->sending], k->ready, buf, max);
    if (k->broken || k->whole || (k->cut && idle))
        return end(k);
    http_stream_wait(s); /* for the source, or the job */
    return 0;
}
