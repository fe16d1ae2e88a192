/* prepared: see prepared.h. */
#include "http/prepared.h"

#include "base/alloc.h"
#include "base/recycle.h"

#include <microhttpd.h>
#include <string.h>

#define FREE_MAX 256u /* a worker: about 200 KiB */

static const char id_header[] = "X-Request-Id";

static struct http_prepared *make(size_t n, const char *id)
{
    char text[HTTP_PREPARED_ID + 1];
    struct http_prepared *p = cht_malloc(sizeof *p + n);
    if (p == NULL)
        return NULL;
    memcpy(text, id, HTTP_PREPARED_ID);
    text[HTTP_PREPARED_ID] = 0;
    p->size = n;
    p->response = MHD_create_response_from_buffer(n, p->body, MHD_RESPMEM_PERSISTENT);
    if (p->response != NULL &&
        MHD_add_response_header(p->response, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json") == MHD_YES &&
        MHD_add_response_header(p->response, id_header, text) == MHD_YES) {
        /* Removing and adding it for each answer would be six calls of the allocator. libmicrohttpd keeps a copy of the value
         * and its length, and reads it when it writes the header; the length stays. */
        p->id = (char *)(uintptr_t)MHD_get_response_header(/* NOLINT(performance-no-int-to-ptr): const */
                                                           p->response, id_header);
        return p;
    }
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
                                         const char *id)
{
    struct http_prepared *p = l->free[n];
    if (p != NULL) {
        l->free[n] = p->next;
        l->count--;
        memcpy(p->id, id, HTTP_PREPARED_ID);
    } else {
        p = make(n, id);
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
    p->next = l->free[p->size];
    l->free[p->size] = p;
    l->count++;
}

void http_prepared_clear(struct http_prepared_list *l)
{
    for (size_t i = 0; i <= HTTP_PREPARED_BYTES && l->count > 0; i++) {
        while (l->free[i] != NULL) {
            struct http_prepared *p = l->free[i];
            l->free[i] = p->next;
            l->count--;
            destroy(p);
        }
    }
}
