/* arpa_post: POST /arpa, a text in ARPA format becomes a fixed model. The body is read in pieces of PIECE bytes, each by a job; while one is
 * read, nothing more of it is taken from the connection, so the memory does not depend on its length. Between two pieces the database is not
 * held: it may be closed, or dropped, which the next piece finds.
 *
 * What fails is taken away again before it is answered. If the client goes, a job of its own does that.
 */
#include "http/calls/handlers.h"
#include "http/calls/shared.h"
#include "http/params.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/alloc.h"
#include "lm/fm_import.h"
#include "service/text.h"

#define PIECE (1u << 20)
#define DEFAULT_BOS 2u /* DB-SLM's */
#define DEFAULT_EOS 3u

struct arpa_call {
    char name[CHT_DATABASE_NAME_MAX + 1]; /* of the database */
    struct lm_fm_parameters parameters;
    struct lm_fm_import *import; /* owned; NULL: not begun, or failed */
    struct svc_out text, piece;  /* what comes in; what the job reads */
    bool begun, last, booked;
    uint64_t made; /* the database, by this call: its `fresh`; 0: it was there */
};

/* Takes away what an import has left. */
struct cleaning {
    struct cht_job job; /* first */
    struct http_server *srv;
    uint64_t id;
    uint64_t made; /* the database was made for it: its `fresh` */
    char name[CHT_DATABASE_NAME_MAX + 1];
};

static void clean(const struct cleaning *c)
{
    struct cht_err err = {0};
    struct svc_database *db;
    if (svc_dbs_visit(c->srv->dbs, c->name, &db, &err) != CHT_OK)
        return; /* it is gone, or what is left goes with the next import */
    (void)lm_fm_drop(http_shared(c->srv)->lm, db->store, c->id, &err);
    svc_dbs_put(db);
    if (c->made != 0)
        svc_dbs_undo(c->srv->dbs, c->name, c->made);
}

static void clean_job(struct cht_job *j)
{
    struct cleaning *c = (struct cleaning *)(void *)j;
    clean(c);
    cht_free(c);
}

/* The client has gone. While the server stops, or without memory, what is left stays: it is no model, and the next import takes it away. */
static void clean_later(struct http_server *srv, const struct arpa_call *a, uint64_t id)
{
    bool closing = atomic_load_explicit(&srv->state, memory_order_relaxed) == HTTP_SERVER_CLOSING;
    struct cleaning *c = closing ? NULL : cht_calloc(1, sizeof *c);
    if (c == NULL)
        return;
    c->srv = srv;
    c->id = id;
    c->made = a->made;
    memcpy(c->name, a->name, sizeof c->name);
    c->job.run = clean_job;
    c->job.owner = cht_jobs_owner(c->name, strlen(c->name));
    c->job.exclusive = HTTP_ALONE_COUNT;
    cht_jobs_submit(srv->long_jobs, &c->job);
}

static void release(struct http_request *r)
{
    struct arpa_call *a = r->own;
    if (a == NULL)
        return;
    uint64_t id = a->import != NULL ? lm_fm_import_id(a->import) : 0;
    bool left = a->import != NULL;
    lm_fm_import_free(a->import);
    if (left)
        clean_later(r->w->srv, a, id);
    svc_out_free(&a->text);
    svc_out_free(&a->piece);
    cht_free(a);
    r->own = NULL;
}

/* ---- the job ------------------------------------------------------------------------------------------------------ */

static enum cht_rc book(void *ctx, uint64_t bytes, struct cht_err *err)
{
    struct http_request *r = ctx;
    return svc_memory_take(&r->memory, bytes, err);
}

static enum cht_rc read_text(struct http_request *r, struct svc_database *db)
{
    struct arpa_call *a = r->own;
    enum cht_rc rc = CHT_OK;
    if (atomic_load_explicit(&db->dropping, memory_order_relaxed))
        return CHT_FAIL(&r->err, CHT_DATABASE_DROPPED, "%s", cht_rc_text(CHT_DATABASE_DROPPED));
    if (atomic_load_explicit(&r->cancel, memory_order_relaxed))
        return CHT_FAIL(&r->err, CHT_CANCELLED, "cancelled");
    if (!a->begun) {
        a->parameters.book = book;
        a->parameters.ctx = r;
        rc = lm_fm_import_begin(http_shared(r->w->srv)->lm, db->store, &a->parameters, &a->import, &r->err);
        a->begun = true;
    }
    if (rc == CHT_OK)
        rc = lm_fm_import_feed(a->import, db->store, a->piece.p, a->piece.n, &r->err);
    if (rc == CHT_OK && a->last)
        rc = lm_fm_import_end(a->import, db->store, &r->err);
    return rc;
}

static void describe(struct http_request *r, const struct arpa_call *a)
{
    static const struct {
        unsigned flag;
        const char *code;
    } warnings[] = {{LM_ARPA_NO_UNK, "no_unk"},
                    {LM_ARPA_NO_MARKS, "no_marks"},
                    {LM_ARPA_LAST_BACKOFF, "backoff_at_highest_order"},
                    {LM_ARPA_TEXT_AFTER_END, "text_after_end"}};
    const struct lm_arpa *t = lm_fm_import_text(a->import);
    const char *comma = "";
    svc_out_format(&r->out, "{\"order\":%u,\"bos\":%lu,\"eos\":%lu,\"unk\":%lu,\"ngrams\":[", t->order,
                   (unsigned long)t->bos, (unsigned long)t->eos, (unsigned long)t->unk);
    for (unsigned m = 1; m <= t->order; m++)
        svc_out_format(&r->out, "%s%llu", m > 1 ? "," : "", (unsigned long long)t->n[m]);
    svc_out_format(&r->out, "],\"lines\":%llu,", (unsigned long long)t->lines);
    if (a->parameters.words)
        svc_out_format(&r->out, "\"new_words\":%zu,", lm_fm_import_fresh(a->import));
    svc_out_text(&r->out, "\"warnings\":[");
    for (size_t i = 0; i < sizeof warnings / sizeof *warnings; i++) {
        if ((t->warnings & warnings[i].flag) == 0)
            continue;
        svc_out_format(&r->out, "%s\"%s\"", comma, warnings[i].code);
        comma = ",";
    }
    svc_out_text(&r->out, "]}");
}

/* Held. It is asked for once, then only looked at: what others ask for is kept (service/dbs.h). */
static enum cht_rc open_database(struct http_request *r, struct svc_database **db)
{
    struct arpa_call *a = r->own;
    struct svc_dbs *dbs = r->w->srv->dbs;
    enum cht_rc rc;
    bool created = false;
    if (!a->begun)
        rc = svc_dbs_open(dbs, a->name, r->w->srv->writes_create, 0, db, &created, &r->err);
    else
        rc = svc_dbs_visit(dbs, a->name, db, &r->err);
    if (rc == CHT_OK && created)
        a->made = atomic_load_explicit(&(*db)->fresh, memory_order_relaxed);
    if (rc == CHT_DATABASE_NOT_FOUND && a->begun)
        rc = CHT_FAIL(&r->err, CHT_DATABASE_DROPPED, "%s", cht_rc_text(CHT_DATABASE_DROPPED));
    return rc;
}

static void work(struct http_request *r)
{
    struct arpa_call *a = r->own;
    struct svc_database *db;
    r->rc = open_database(r, &db);
    if (r->rc == CHT_OK) {
        r->rc = read_text(r, db);
        if (r->rc == CHT_OK && a->last)
            describe(r, a);
        uint64_t id = a->import != NULL ? lm_fm_import_id(a->import) : 0;
        bool left = a->import != NULL && r->rc != CHT_OK;
        if (left || a->last) {
            lm_fm_import_free(a->import);
            a->import = NULL;
        }
        if (left)
            (void)lm_fm_drop(http_shared(r->w->srv)->lm, db->store, id, NULL);
        svc_dbs_put(db);
        if (r->rc != CHT_OK && a->made != 0)
            svc_dbs_undo(r->w->srv->dbs, a->name, a->made);
    }
    a->piece.n = 0;
}

/* ---- on the HTTP thread ------------------------------------------------------------------------------------------- */

static bool token_param(struct http_request *r, enum http_param p, uint32_t fallback, uint32_t *out)
{
    uint64_t v;
    if (!http_param_number(r, p, 0, UINT32_MAX, fallback, &v))
        return false;
    *out = (uint32_t)v;
    return true;
}

/* May it be a word? Texts of requests are UTF-8. */
static bool is_text(const char *word, size_t n)
{
    size_t len = 1;
    for (const char *end = word + n; word < end && len > 0; word += len)
        len = svc_text_character((const uint8_t *)word, (size_t)(end - word));
    return len > 0;
}

static bool begin(struct http_request *r)
{
    struct lm_fm_parameters p = {0};
    char name[CHT_DATABASE_NAME_MAX + 1];
    if (!token_param(r, HTTP_P_BOS, DEFAULT_BOS, &p.bos) ||
        !token_param(r, HTTP_P_EOS, DEFAULT_EOS, &p.eos) ||
        !token_param(r, HTTP_P_UNK, LM_FM_NO_ID, &p.unk) ||
        !http_param_bool(r, HTTP_P_UNMARKED, false, &p.unmarked) ||
        !http_param_bool(r, HTTP_P_TEXT, false, &p.words) || !http_request_database_name(r, name))
        return false;
    struct arpa_call *a = cht_calloc(1, sizeof *a);
    if (a == NULL) {
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for a model");
        return false;
    }
    a->parameters = p;
    a->parameters.is_text = is_text;
    memcpy(a->name, name, sizeof name);
    r->own = a;
    r->release = release;
    http_request_owner(r, a->name);
    return true;
}

/* The job reads what has come in, and what comes in goes to the other buffer. */
static void swap(struct arpa_call *a)
{
    struct svc_out read = a->piece;
    a->piece = a->text;
    a->text = read;
}

static void piece_read(struct http_request *r)
{
    const struct arpa_call *a = r->own;
    if (r->rc != CHT_OK)
        http_reply_err(r, r->rc, &r->err);
    else if (a->text.failed) /* what came in meanwhile */
        http_reply_fail(r, CHT_NO_MEMORY, "no memory for the body");
}

static enum cht_rc keep(struct http_request *r, const char *data, size_t n)
{
    struct arpa_call *a = r->own;
    enum cht_rc rc = CHT_OK;
    if (http_request_in_piece(r)) { /* a job has the request; little comes in once more */
        svc_out_bytes(&a->text, data, n);
        return CHT_OK;
    }
    if (!a->booked && a->text.n + n > SVC_MEMORY_SMALL) {
        a->booked = true;
        rc = svc_memory_take(&r->memory, (uint64_t)4 * PIECE, &r->err);
    }
    if (rc == CHT_OK)
        svc_out_bytes(&a->text, data, n);
    if (rc == CHT_OK && a->text.failed)
        rc = CHT_FAIL(&r->err, CHT_NO_MEMORY, "no memory for the body");
    return rc;
}

static void answer(struct http_request *r)
{
    if (r->rc != CHT_OK)
        http_reply_err(r, r->rc, &r->err);
    else
        http_reply_json(r, 201);
}

/* ------------------------------------------------------------------------------------------------------------ */

bool http_arpa_feed(struct http_request *r, const char *data, size_t n)
{
    if (r->own == NULL && !begin(r))
        return true;
    struct arpa_call *a = r->own;
    r->moved_ns = r->w->now;
    enum cht_rc rc = keep(r, data, n);
    if (rc != CHT_OK) {
        http_reply_err(r, rc, &r->err);
    } else if (a->text.n >= PIECE && !http_request_in_piece(r)) {
        swap(a);
        http_request_piece(r, HTTP_ALONE_COUNT, work, piece_read);
    }
    return true;
}

void http_arpa_post(struct http_request *r)
{
    if (r->own == NULL && !begin(r))
        return;
    struct arpa_call *a = r->own;
    a->last = true;
    swap(a);
    http_request_long_job(r, HTTP_ALONE_COUNT, work, answer);
}
