/* service: health, readiness, version, metrics, the contract. */
#include "http/calls/handlers.h"
#include "http/reply.h"
#include "http/server.h"

extern const char cheetah_openapi[]; /* openapi.S, as the next */
extern const uint64_t cheetah_openapi_size;

void service_health(struct request *r)
{
    out_text(&r->out, "{\"status\":\"ok\"}");
    reply_json(r, 200);
}

static void any_read_only(void *ctx, struct database *d)
{
    struct request *r = ctx;
    struct cht_store_stats st;
    if (r->rc == CHT_OK && cht_store_stats(d->store, &st, &r->err) == CHT_OK && st.read_only)
        r->rc = CHT_FAIL(&r->err, CHT_READ_ONLY, "%s: %.130s", d->name, st.trouble.msg);
}

static void check_ready(struct request *r) { dbs_each(r->w->srv->dbs, any_read_only, r); }

static void answer_ready(struct request *r)
{
    if (r->rc != CHT_OK) {
        reply_fail(r, r->rc, "writing stopped until restart: %s", r->err.msg);
        return;
    }
    out_text(&r->out, "{\"status\":\"ready\"}");
    reply_json(r, 200);
}

void service_ready(struct request *r)
{
    int state = atomic_load_explicit(&r->w->srv->state, memory_order_acquire);
    if (state == SERVER_STARTING)
        reply_fail(r, CHT_STARTING, "the server is starting");
    else if (state != SERVER_READY)
        reply_fail(r, CHT_DRAINING, "the server is stopping");
    else
        request_job(r, check_ready, answer_ready);
}

void service_version(struct request *r)
{
    out_text(&r->out,
             "{\"name\":\"cheetah-db\",\"version\":\"" CHEETAH_VERSION "\",\"api\":1,\"libmicrohttpd\":");
    out_string(&r->out, MHD_get_version(), strlen(MHD_get_version()));
    out_text(&r->out, "}");
    reply_json(r, 200);
}

static void print_metrics(struct request *r) { metrics_print(r->w->srv, r->token, &r->out); }
static void answer_metrics(struct request *r) { reply_media(r, 200, MEDIA_METRICS); }

void service_metrics(struct request *r) { request_job(r, print_metrics, answer_metrics); }

void service_openapi(struct request *r)
{
    out_bytes(&r->out, cheetah_openapi, cheetah_openapi_size);
    reply_media(r, 200, MEDIA_YAML);
}
