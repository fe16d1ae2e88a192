/* access_log: see access_log.h. */
#include "http/access_log.h"

#include "base/clock.h"

#define LOG_DELAY_NS UINT64_C(50000000)
#define LOG_BATCH (64u << 10)
#define TEXT(o, s) svc_out_bytes(o, s, sizeof(s) - 1)

static void log_line_json(struct http_worker *w, const struct http_request *r, uint64_t micros, bool aborted)
{
    struct svc_out *o = &w->access_log;
    TEXT(o, "{\"time\":\"");
    svc_out_bytes(o, w->wall, sizeof w->wall);
    TEXT(o, "\",\"level\":\"info\",\"event\":\"request\",\"method\":");
    if (r->method != 0) { /* one of letters */
        TEXT(o, "\"");
        svc_out_bytes(o, r->method_name, strlen(r->method_name));
        TEXT(o, "\"");
    } else {
        svc_out_string(o, r->method_name, strlen(r->method_name));
    }
    TEXT(o, ",\"path\":");
    svc_out_string(o, r->log_path, r->log_path_len);
    TEXT(o, ",\"status\":");
    svc_out_u64(o, (uint64_t)r->status);
    TEXT(o, ",\"bytes\":");
    svc_out_u64(o, r->sent);
    TEXT(o, ",\"micros\":");
    svc_out_u64(o, micros);
    if (aborted)
        TEXT(o, ",\"aborted\":true");
    if (r->in[HTTP_H_REQUEST_ID] == NULL) { /* one of ours */
        TEXT(o, ",\"id\":\"");
        svc_out_bytes(o, r->id, r->id_len);
        TEXT(o, "\"}\n");
        return;
    }
    TEXT(o, ",\"id\":");
    svc_out_string(o, r->id, r->id_len);
    TEXT(o, "}\n");
}

static void log_line_text(struct http_worker *w, const struct http_request *r, uint64_t micros, bool aborted)
{
    struct svc_out *o = &w->access_log;
    svc_out_bytes(o, w->wall, sizeof w->wall);
    TEXT(o, " info request ");
    svc_out_bytes(o, r->method_name, strlen(r->method_name)); /* of printable characters: gate.c */
    TEXT(o, " ");
    svc_out_string(o, r->log_path, r->log_path_len);
    TEXT(o, " ");
    svc_out_u64(o, (uint64_t)r->status);
    TEXT(o, " ");
    svc_out_u64(o, r->sent);
    TEXT(o, " bytes ");
    svc_out_u64(o, micros);
    TEXT(o, " us");
    if (aborted)
        TEXT(o, ", client gone,");
    TEXT(o, " ");
    svc_out_string(o, r->id, r->id_len);
    TEXT(o, "\n");
}

/* ------------------------------------------------------------------------------------------------------------ */

void http_access_log(const struct http_request *r, uint64_t micros, bool aborted)
{
    struct http_worker *w = r->w;
    if (w->now - w->wall_at >= 1000000 || w->wall_at == 0) { /* a line tells milliseconds */
        svc_log_time(w->wall, cht_wall_ns());
        w->wall_at = w->now;
    }
    if (svc_log_json(w->srv->log))
        log_line_json(w, r, micros, aborted);
    else
        log_line_text(w, r, micros, aborted);
    if (w->access_lines++ == 0)
        w->access_since = w->now;
}

void http_access_log_flush(struct http_worker *w)
{
    if (w->access_lines == 0 || (w->access_log.n < LOG_BATCH && w->now - w->access_since < LOG_DELAY_NS &&
                                 !atomic_load_explicit(&w->srv->stop, memory_order_relaxed)))
        return;
    if (!w->access_log.failed)
        svc_log_lines(w->srv->log, w->access_log.p, w->access_log.n, w->access_lines);
    svc_out_reset(&w->access_log, 2 * LOG_BATCH);
    w->access_lines = 0;
}
