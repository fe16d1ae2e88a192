/* prepared: response objects of libmicrohttpd that are used again.
 *
 * An object of its own for each answer costs about a dozen allocations. A short JSON answer takes one that has been used
 * for an answer of the same length instead, and puts its own text and its own X-Request-Id into it. Each worker has a list;
 * the worker's thread alone touches it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct MHD_Response;

#define HTTP_PREPARED_BYTES 512u /* of a body, at most */
#define HTTP_PREPARED_ID 16u     /* exactly: those that the server makes */

struct http_prepared {
    struct MHD_Response *response; /* owned: it outlives the answer that libmicrohttpd has a part in */
    struct http_prepared *next;
    char *id;   /* X-Request-Id, in the response */
    char *etag; /* likewise; NULL: it has none */
    size_t size;
    char body[]; /* what the response sends */
};
struct http_prepared_list {
    struct http_prepared
        *free[2][HTTP_PREPARED_BYTES + 1]; /* without and with an ETag, by the length of the body */
    unsigned count;
};

/* An object with this body, id (HTTP_PREPARED_ID characters) and ETag (HTTP_ETAG_LEN; NULL: none); NULL without memory. */
struct http_prepared *http_prepared_take(struct http_prepared_list *l, const char *body, size_t n,
                                         const char *id, const char *etag);
/* It was sent: libmicrohttpd will not read body or headers again. NULL is legal. */
void http_prepared_give(struct http_prepared_list *l, struct http_prepared *p);
void http_prepared_clear(struct http_prepared_list *l);
