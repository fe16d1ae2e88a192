/* answer: answers of HTTP/1.1 read as they arrive: the status, Content-Type, ETag, and a body of known length or in chunks. For our own
 * server (here.h, bench), where libcurl has no way in or costs too much; what is no such answer is TOOL_ANSWER_BAD.
 *
 * Threads: the state is the caller's.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tool_answer_next {
    TOOL_ANSWER_MORE, /* all that was given is read, the answer goes on */
    TOOL_ANSWER_BODY, /* some of the body is at `body`; ask again with the rest */
    TOOL_ANSWER_DONE, /* the answer ends here; what is left belongs to the next one */
    TOOL_ANSWER_BAD
};

struct tool_answer {
    unsigned status; /* 0 before it is known */
    bool closes;     /* the server ends the connection after it */
    char type[64];   /* Content-Type, "" for none; a longer one is cut */
    char etag[48];   /* ETag, "" for none; a longer one is cut */
    /* inside */
    unsigned char at;
    bool head, chunked, sized;
    uint64_t left; /* of the body or the chunk */
    size_t n;      /* of the line */
    char line[256];
};

/* head: the request was HEAD, so that no body follows. */
void tool_answer_begin(struct tool_answer *a, bool head);
/* Reads from p[0..n); *used of it are done with. *body, *body_n: with TOOL_ANSWER_BODY, within p. */
enum tool_answer_next tool_answer_read(struct tool_answer *a, const char *p, size_t n, size_t *used,
                                       const char **body, size_t *body_n);
