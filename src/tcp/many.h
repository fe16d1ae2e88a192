/* many: BATCH: one command many times in one line.
 *
 *   BATCH COMMAND items=JSON [continue_on_error=FLAG] [results=FLAG] [async=FLAG] [name=value ...]
 *   SUCCESS,command=BATCH,target=READ,requested=2,applied=1,failed=1,first_error=item_1:key_not_found,payload=base64([line,...])
 *
 * Items, 1 to 10 000: a string (the rest of the line), a list (words), or an object (name=value words, over those of the line; ""
 * takes one away). They run in order up to the first that fails, or all with continue_on_error; what was not tried is null in
 * payload. Writes in a row share a commit. If an answer is no UTF-8, all are base64, and results_encoding=base64 says so.
 *
 * Threads: one.
 */
#pragma once

#include "tcp/nested.h"

#include <jansson.h>

struct line_many {
    struct line_session *s;
    struct cht_str words; /* borrowed: of the BATCH */
    char target[32];
    bool go_on, results, later; /* later: async=1 */
    json_t *items;              /* owned */
    size_t requested, failed, first;
    struct line_answers answers;
};

/* Reads the words of a BATCH. False: it is answered. */
bool line_many_begin(struct line_many *m, struct line_session *s, struct cht_str words);
/* Runs it. False: it is answered. */
bool line_many_run(struct line_many *m);
/* command=BATCH,... without SUCCESS and newline; *failed: without memory. */
void line_many_put(const struct line_many *m, struct svc_out *o);
/* [from, to) of the answers, and null for what was not tried: results_encoding= if need be, and payload=. */
void line_many_put_payload(const struct line_answers *a, size_t from, size_t to, struct svc_out *o);
void line_many_free(struct line_many *m);
