/* prepared: see prepared.h. */
#include "http/prepared.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "base/recycle.h"
#include "http/etag.h"

#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SECOND_NS UINT64_C(1000000000)
#define FREE_MAX 256u /* a worker: about 200 KiB */

static const char id_header[] = "X-Request-Id";

/* The value of a header, to be written over: removing and adding it for each answer would be six calls of the allocator.
 * libmicrohttpd keeps a copy of the value and its length, and reads it when it writes the header; the length stays. */
static char *value_of(struct MHD_Response *response, const char *name)
{
    return (char *)(uintptr_t)MHD_get_response_header(/* NOLINT(performance-no-int-to-ptr): const */
                                                      response, name);
}

static bool add_headers(struct http_prepared *p, const char *date, const char *id, const char *etag)
{
    char text[HTTP_PREPARED_ID + 1];
    memcpy(text, id, HTTP_PREPARED_ID);
    text[HTTP_PREPARED_ID] = 0;
    if (MHD_add_response_header(p->response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json") != MHD_YES ||
        MHD_add_response_header(p->response, MHD_HTTP_HEADER_DATE, date) != MHD_YES ||
        MHD_add_response_header(p->response, id_header, text) != MHD_YES)
        return false;
    p->date = value_of(p->response, MHD_HTTP_HEADER_DATE);
    p->id = value_of(p->response, id_header);
    p->etag = NULL;
    if (etag == NULL)
        return true;
    if (MHD_add_response_header(p->response, MHD_HTTP_HEADER_ETAG, etag) != MHD_YES ||
        MHD_add_response_header(p->response, MHD_HTTP_HEADER_VARY, "Accept") != MHD_YES)
        return false;
    p->etag = value_of(p->response, MHD_HTTP_HEADER_ETAG);
    return true;
}

static struct http_prepared *make(const struct http_prepared_list *l, size_t n, const char *id,
                                  const char *etag)
{
    struct http_prepared *p = cht_malloc(sizeof *p + n);
    if (p == NULL)
        return NULL;
    p->size = n;
    p->dated = l->made;
    p->response = MHD_create_response_from_buffer(n, p->body, MHD_RESPMEM_PERSISTENT);
    if (p->response != NULL && add_headers(p, l->date, id, etag))
        return p;
    MHD_destroy_response(p->response);
    cht_free(p);
    return NULL;
}

static void destroy(struct http_prepared *p)
{
    MHD_destroy_response(p->response);
    cht_free(p);
}

/* A wall clock that is set is seen when the second it was made in is over. */
static void make_date(struct http_prepared_list *l, uint64_t now)
{
    uint64_t wall = cht_wall_ns();
    http_prepared_date(l->date, wall);
    l->made = now;
    l->until = now + SECOND_NS - wall % SECOND_NS;
}

/* ------------------------------------------------------------------------------------------------------------ */

void http_prepared_date(char text[HTTP_PREPARED_DATE + 1], uint64_t wall_ns)
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t seconds = (time_t)(wall_ns / SECOND_NS);
    struct tm t;
    (void)gmtime_r(&seconds, &t); /* fails for years that 64 bits of nanoseconds do not reach */
    (void)snprintf(text, HTTP_PREPARED_DATE + 1, "%s, %02u %s %04u %02u:%02u:%02u GMT", days[t.tm_wday],
                   (unsigned)t.tm_mday, months[t.tm_mon], (unsigned)t.tm_year + 1900, (unsigned)t.tm_hour,
                   (unsigned)t.tm_min, (unsigned)t.tm_sec);
}

const char *http_prepared_today(struct http_prepared_list *l, uint64_t now)
{
    if (now >= l->until)
        make_date(l, now);
    return l->date;
}

struct http_prepared *http_prepared_take(struct http_prepared_list *l, uint64_t now, const char *body,
                                         size_t n, const char *id, const char *etag)
{
    (void)http_prepared_today(l, now);
    struct http_prepared **list = &l->free[etag != NULL][n], *p = *list;
    if (p != NULL) {
        *list = p->next;
        l->count--;
        memcpy(p->id, id, HTTP_PREPARED_ID);
        if (p->dated != l->made)
            memcpy(p->date, l->date, HTTP_PREPARED_DATE);
        p->dated = l->made;
        if (etag != NULL)
            memcpy(p->etag, etag, HTTP_ETAG_LEN);
    } else {
        p = make(l, n, id, etag);
    }
    if (p != NULL)
        memcpy(p->body, body, n);
    return p;
}

void http_prepared_give(struct http_prepared_list *l, struct http_prepared *p)
{
    if (p == NULL)
        return;
    if (!CHT_RECYCLE) {
        destroy(p);
        return;
    }
    if (l->count == FREE_MAX) /* answers have other lengths now, or many: begin again */
        http_prepared_clear(l);
    struct http_prepared **list = &l->free[p->etag != NULL][p->size];
    p->next = *list;
    *list = p;
    l->count++;
}

void http_prepared_clear(struct http_prepared_list *l)
{
    for (size_t i = 0; i <= 2 * HTTP_PREPARED_BYTES + 1 && l->count > 0; i++) {
        struct http_prepared **list = &l->free[i / (HTTP_PREPARED_BYTES + 1)][i % (HTTP_PREPARED_BYTES + 1)];
        while (*list != NULL) {
            struct http_prepared *p = *list;
            *list = p->next;
            l->count--;
            destroy(p);
        }
    }
}
