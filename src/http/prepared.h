/* prepared: response objects of libmicrohttpd that are used again.
 *
 * An object of its own for each answer costs about a dozen allocations. A short JSON answer takes one that has been used
 * for an answer of the same length instead, and puts its own text, X-Request-Id and Date into it (libmicrohttpd would make
 * the date for each answer; here it is made once a second). Each worker has a list; the worker's thread alone touches it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct MHD_Response;

#define HTTP_PREPARED_BYTES 512u /* of a body, at most */
#define HTTP_PREPARED_ID 16u     /* exactly: those that the server makes */
#define HTTP_PREPARED_DATE 29u   /* exactly: RFC 9110, 5.6.7 */

struct http_prepared {
    struct MHD_Response *response; /* owned: it outlives the answer that libmicrohttpd has a part in */
    struct http_prepared *next;
    char *id;       /* X-Request-Id, in the response */
    char *etag;     /* likewise; NULL: it has none */
    char *date;     /* likewise */
    uint64_t dated; /* `made` of its list when it was written */
    size_t size;
    char body[]; /* what the response sends */
};
struct http_prepared_list {
    struct http_prepared
        *free[2][HTTP_PREPARED_BYTES + 1]; /* without and with an ETag, by the length of the body */
    unsigned count;
    uint64_t made, until; /* the monotonic clock when the date was made, and when the next second begins */
    char date[HTTP_PREPARED_DATE + 1];
};

/* The Date of an answer at `wall_ns` (since 1970): HTTP_PREPARED_DATE characters and a NUL. */
void http_prepared_date(char text[HTTP_PREPARED_DATE + 1], uint64_t wall_ns);

/* The same for now, made once a second: the list's, until the next call. now: cht_now_ns(), of this round. */
const char *http_prepared_today(struct http_prepared_list *l, uint64_t now);

/* An object with this body, id (HTTP_PREPARED_ID characters) and ETag (HTTP_ETAG_LEN; NULL: none; with it "Vary: Accept"); NULL without memory. now: cht_now_ns(),
 * of this round. */
struct http_prepared *http_prepared_take(struct http_prepared_list *l, uint64_t now, const char *body,
                                         size_t n, const char *id, const char *etag);
/* It was sent: libmicrohttpd will not read body or headers again. NULL is legal. */
void http_prepared_give(struct http_prepared_list *l, struct http_prepared *p);
void http_prepared_clear(struct http_prepared_list *l);
