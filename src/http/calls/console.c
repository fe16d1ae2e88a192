/* console: the page /console/ and its three files, which are part of the program (http/console.S), and where / leads.
 *
 * They hold nothing of anybody: they are served without a token, and what the page shows it asks with the token that its user gives it.
 * A file is asked for anew each time and answered 304 unless the program has another one: its ETag says its length and CRC-32C.
 */
#include "http/accept.h"
#include "http/calls/handlers.h"
#include "http/reply.h"
#include "http/server.h"

#include "base/crc32c.h"
#include "base/literal.h"
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

static const char *header_of(struct http_request *r, const char *name)
{
    const char *v = MHD_lookup_connection_value(r->mc, MHD_HEADER_KIND, name);
    return v != NULL ? v : "";
}

/* Is gzip named, and not with q=0? */
static bool takes_gzip(struct http_request *r)
{
    const char *p = strstr(header_of(r, MHD_HTTP_HEADER_ACCEPT_ENCODING), "gzip");
    if (p == NULL)
        return false;
    p += sizeof "gzip" - 1;
    p += strspn(p, " \t");
    if (*p != ';')
        return *p == ',' || *p == 0;
    p += 1 + strspn(p + 1, " \t");
    if (!CHT_BEGINS(p, "q=0"))
        return true;
    p += 3;
    p += strspn(p, ".0");
    return *p >= '1' && *p <= '9';
}

static void send_file(struct http_request *r, const struct console_file *f)
{
    bool packed = f->packed != NULL && takes_gzip(r);
    const uint8_t *bytes = packed ? f->packed : f->bytes;
    size_t n = packed ? *f->packed_size : *f->size;
    char tag[48];
    (void)snprintf(tag, sizeof tag, "\"%zx-%08x\"", n, (unsigned)cht_crc32c(0, bytes, n)); /* it fits */
    r->fixed = headers;
    r->packed = true; /* as it is to be */
    http_reply_header(r, "ETag", "%s", tag);
    if (strstr(header_of(r, MHD_HTTP_HEADER_IF_NONE_MATCH), tag) != NULL) {
        http_reply_empty(r, 304);
        return;
    }
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
