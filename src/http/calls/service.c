/* service: health, readiness, version, metrics, the contract, what a token may do. */
#include "http/calls/handlers.h"
#include "http/reply.h"
#include "http/server.h"

extern const char http_openapi[]; /* openapi.S, as the next */
extern const uint64_t http_openapi_size;

void http_service_health(struct http_request *r)
{
    svc_out_text(&r->out, "{\"status\":\"ok\"}");
    http_reply_json(r, 200);
}

static void any_read_only(void *ctx, struct svc_database *d)
{
    struct http_request *r = ctx;
    struct cht_store_stats st;
    if (cht_store_remote(d->store)) /* it has no state of its own */
        return;
    if (r->rc == CHT_OK && cht_store_stats(d->store, &st, &r->err) == CHT_OK && st.read_only)
        r->rc = CHT_FAIL(&r->err, CHT_READ_ONLY, "%s: %.130s", d->name, st.trouble.msg);
}

static void check_ready(struct http_request *r)
{
    r->rc = cht_env_health(r->w->srv->env, &r->err);
    if (r->rc == CHT_OK)
        svc_dbs_each(r->w->srv->dbs, any_read_only, r);
}

static void answer_ready(struct http_request *r)
{
    if (r->rc != CHT_OK && r->rc != CHT_READ_ONLY) {
        http_reply_fail(r, r->rc, "%s", r->err.msg);
        return;
    }
    if (r->rc != CHT_OK) {
        http_reply_fail(r, r->rc, "writing stopped until restart: %s", r->err.msg);
        return;
    }
    svc_out_text(&r->out, "{\"status\":\"ready\"}");
    http_reply_json(r, 200);
}

void http_service_ready(struct http_request *r)
{
    int state = atomic_load_explicit(&r->w->srv->state, memory_order_acquire);
    if (state == HTTP_SERVER_STARTING)
        http_reply_fail(r, CHT_STARTING, "the server is starting");
    else if (state != HTTP_SERVER_READY)
        http_reply_fail(r, CHT_DRAINING, "the server is stopping");
    else
        http_request_care_job(r, check_ready, answer_ready);
}

void http_service_version(struct http_request *r)
{
    svc_out_text(&r->out,
                 "{\"name\":\"cheetah-db\",\"version\":\"" CHEETAH_VERSION "\",\"api\":1,\"libmicrohttpd\":");
    svc_out_string(&r->out, MHD_get_version(), strlen(MHD_get_version()));
    svc_out_text(&r->out, "}");
    http_reply_json(r, 200);
}

static void print_metrics(struct http_request *r) { http_metrics_print(r->w->srv, r->token, &r->out); }
static void answer_metrics(struct http_request *r) { http_reply_media(r, 200, HTTP_MEDIA_METRICS); }

void http_service_metrics(struct http_request *r) { http_request_care_job(r, print_metrics, answer_metrics); }

void http_service_openapi(struct http_request *r)
{
    svc_out_bytes(&r->out, http_openapi, http_openapi_size);
    http_reply_media(r, 200, HTTP_MEDIA_YAML);
}

static void add_database(void *ctx, const char *name, size_t n)
{
    struct http_request *r = ctx;
    if (r->out.p[r->out.n - 1] != '[')
        svc_out_text(&r->out, ",");
    svc_out_string(&r->out, name, n);
}

void http_service_access(struct http_request *r)
{
    static const char *const rights[] = {"open", "read", "write", "admin"};
    enum svc_right right = r->token != NULL ? svc_access_right(r->token) : SVC_RIGHT_ADMIN;
    svc_out_format(&r->out, "{\"right\":\"%s\",\"databases\":", rights[right]);
    if (r->token == NULL || svc_access_all(r->token)) {
        svc_out_text(&r->out, "null}");
    } else {
        svc_out_text(&r->out, "[");
        svc_access_databases(r->token, add_database, r);
        svc_out_text(&r->out, "]}");
    }
    http_reply_json(r, 200);
}
