/* prepared: see prepared.h. */
#include "http/prepared.h"

#include "base/alloc.h"
#include "base/recycle.h"
#include "http/etag.h"

#include <microhttpd.h>
#include <string.h>

#define FREE_MAX 256u /* a worker: about 200 KiB */

static const char id_header[] = "X-Request-Id";

/* The value of a header, to be written over: removing and adding it for each answer would be six calls of the allocator.
 * libmicrohttpd keeps a copy of the value and its length, and reads it when it writes the header; the length stays. */
static char *value_of(struct MHD_Response *response, const char *name)
{
    return (char *)(uintptr_t)MHD_get_response_header(/* NOLINT(performance-no-int-to-ptr): const */
                                                      response, name);
}

static bool add_headers(struct http_prepared *p, const char *id, const char *etag)
{
    char text[HTTP_PREPARED_ID + 1];
    memcpy(text, id, HTTP_PREPARED_ID);
    text[HTTP_PREPARED_ID] = 0;
    if (MHD_add_response_header(p->response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json") != MHD_YES ||
        MHD_add_response_header(p->response, id_header, text) != MHD_YES)
        return false;
    p->id = value_of(p->response, id_header);
    p->etag = NULL;
    if (etag == NULL)
        return true;
    if (MHD_add_response_header(p->response, MHD_HTTP_HEADER_ETAG, etag) != MHD_YES)
        return false;
    p->etag = value_of(p->response, MHD_HTTP_HEADER_ETAG);
    return true;
}

static struct http_prepared *make(size_t n, const char *id, const char *etag)
{
    struct http_prepared *p = cht_malloc(sizeof *p + n);
    if (p == NULL)
        return NULL;
    p->size = n;
    p->response = MHD_create_response_from_buffer(n, p->body, MHD_RESPMEM_PERSISTENT);
    if (p->response != NULL && add_headers(p, id, etag))
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

/* ------------------------------------------------------------------------------------------------------------ */

struct http_prepared *http_prepared_take(struct http_prepared_list *l, const char *body, size_t n,
                                         const char *id, const char *etag)
{
    struct http_prepared **list = &l->free[etag != NULL][n], *p = *list;
    if (p != NULL) {
        *list = p->next;
        l->count--;
        memcpy(p->id, id, HTTP_PREPARED_ID);
        if (etag != NULL)
            memcpy(p->etag, etag, HTTP_ETAG_LEN);
    } else {
        p = make(n, id, etag);
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
