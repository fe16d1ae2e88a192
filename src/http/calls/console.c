/* console: the page /console/ and its three files, which are part of the program (http/console.S), and where / leads.
 *
 * They hold nothing of anybody: they are served without a token, and what the page shows it asks with the token that its user gives it.
 * A file is asked for anew each time and answered 304 unless the program has another one, which its ETag says.
 */
#include "http/accept.h"
#include "http/calls/condition.h"
#include "http/calls/handlers.h"
#include "http/reply.h"
#include "http/server.h"

#include "conf/conf.h"

#include <string.h>

#define EMBEDDED(name)                          \
    extern const uint8_t http_console_##name[]; \
    extern const uint64_t http_console_##name##_size;

EMBEDDED(page)
EMBEDDED(icon)
EMBEDDED(script)
EMBEDDED(style)
EMBEDDED(script_gz)
EMBEDDED(style_gz)

struct console_file {
    const char *name;
    enum http_media media;
    const uint8_t *bytes, *packed; /* packed: by gzip; NULL: it is not worth it */
    const uint64_t *size, *packed_size;
};

static const struct console_file files[] = {
    {"", HTTP_MEDIA_HTML, http_console_page, NULL, &http_console_page_size, NULL},
    {"icon.svg", HTTP_MEDIA_SVG, http_console_icon, NULL, &http_console_icon_size, NULL},
    {"console.js", HTTP_MEDIA_SCRIPT, http_console_script, http_console_script_gz, &http_console_script_size,
     &http_console_script_gz_size},
    {"console.css", HTTP_MEDIA_STYLE, http_console_style, http_console_style_gz, &http_console_style_size,
     &http_console_style_gz_size},
};
#define FILES (sizeof files / sizeof *files)

/* Nothing but these files runs or is loaded, nothing is sent to another host, and no other page frames this one. */
static const struct http_fixed_header headers[] = {
    {"Content-Security-Policy",
     "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
     "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
    {"Cache-Control", "no-cache"},
    {"Vary", "Accept-Encoding"},
    {"X-Content-Type-Options", "nosniff"},
    {"Referrer-Policy", "no-referrer"},
    {"Cross-Origin-Opener-Policy", "same-origin"},
    {NULL, NULL},
};

static void send_file(struct http_request *r, const struct console_file *f)
{
    bool packed = f->packed != NULL && http_accepts_gzip(r);
    const uint8_t *bytes = packed ? f->packed : f->bytes;
    size_t n = packed ? *f->packed_size : *f->size;
    r->fixed = headers;
    r->packed = true; /* as it is to be */
    if (!http_condition_check(r) || !http_condition_found(r, packed, bytes, n))
        return;
    if (packed)
        http_reply_header(r, "Content-Encoding", "gzip");
    svc_out_bytes(&r->out, bytes, n);
    http_reply_media(r, 200, f->media);
}

static bool is_off(struct http_request *r)
{
    if (!r->w->srv->conf->console)
        http_reply_fail(r, CHT_NOT_FOUND, "there is nothing at this path; see /openapi.yaml");
    return !r->w->srv->conf->console;
}

/* ------------------------------------------------------------------------------------------------------------------------ */

void http_console_get(struct http_request *r)
{
    if (is_off(r))
        return;
    for (size_t i = 0; i < FILES; i++) {
        if (strlen(files[i].name) == r->rest_len && memcmp(files[i].name, r->rest, r->rest_len) == 0) {
            send_file(r, &files[i]);
            return;
        }
    }
    http_reply_fail(r, CHT_NOT_FOUND, "there is no such file of /console/");
}

void http_console_root(struct http_request *r)
{
    if (r->w->srv->conf->console && http_accepts_html(r)) {
        http_reply_header(r, "Location", "/console/");
        http_reply_empty(r, 303);
        return;
    }
    svc_out_text(&r->out, "{\"name\":\"cheetah-db\",\"version\":\"" CHEETAH_VERSION
                          "\",\"links\":{\"contract\":\"/openapi.yaml\","
                          "\"databases\":\"/databases\",\"metrics\":\"/metrics\"");
    if (r->w->srv->conf->console)
        svc_out_text(&r->out, ",\"console\":\"/console/\"");
    svc_out_text(&r->out, "}}");
    http_reply_json(r, 200);
}
