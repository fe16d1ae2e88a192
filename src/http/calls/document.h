/* document: the common shape of a document of POST /ngrams, read without a tree of JSON values:
 *
 *   {"tokens":[1,2,3],"remove":true}      or, where documents are texts,      {"text":"to be or not to be","remove":true}
 *
 * in any order and with any white space; only `tokens` (`text`) must be there. What is written in another way (escapes, null, other
 * members, numbers that are no tokens, anything that is wrong) is not for it: jansson then reads it and says what is wrong.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_document {
    uint32_t
        *tokens; /* the caller's: room for `cap`. A number takes two characters at least, the last one one */
    size_t n, cap;    /* n: how many there are; those beyond cap are read, and not kept */
    const char *text; /* within the line */
    size_t text_n;
    bool texts; /* the caller's: it has `text` and not `tokens` */
    bool has_content, has_remove;
    bool remove; /* if has_remove */
};

/* True if all of the line has that shape; it then means exactly what jansson would read. */
bool http_document_read(const char *p, size_t n, struct http_document *d);
