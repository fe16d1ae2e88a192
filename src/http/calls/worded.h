/* worded: payloads of tokens shown with the words that they stand for (text=true&decode=true), and names of contexts with theirs.
 *
 * Words are point reads, so such a stream is made by a job and not by the workers of a scan.
 */
#pragma once

#include "cheetah/store.h"
#include "http/calls/spell.h"
#include "http/request.h"

struct reduce_mode;

/* Of one answer. */
struct http_worded {
    struct http_spell spell;
    struct cht_buf context;               /* of the name under way */
    bool (*flush)(struct http_worded *w); /* o may be handed over; false: nobody takes it. NULL: it is kept */
};
void http_worded_fini(struct http_worded *w);

/* Appends ,"words":[...] of the context that a name PREFIX:n:HASH stands for; nothing if it is none, or is not registered. */
void http_worded_context(struct svc_out *o, struct http_worded *w, struct cht_str name);
/* Lines of the aggregates totals and similar, with the word of each token, or the name as text and the words of its context. The codes of
 * reads, CHT_NO_MEMORY. */
enum cht_rc http_worded_lines(struct svc_out *o, struct http_worded *w, const uint8_t *lines, size_t n,
                              struct cht_err *err);
/* The name under the counts of an order of the context that these words are (the root without any), in out; its bytes. 0: a word is not in the
 * vocabulary, or they are too many. */
enum cht_rc http_worded_name(struct http_worded *w, struct cht_str words, uint8_t out[CHT_NAME_MAX],
                             size_t *n, struct cht_err *err);
/* In place of what was appended since `start`: the payload as it is, and that it is malformed; ends the line. */
void http_worded_malformed(struct svc_out *o, size_t start, struct cht_str payload);

/* Appends what stands after the head of a line, and ends it. */
typedef void http_worded_put(struct svc_out *o, struct http_worded *w, struct cht_str name,
                             struct cht_str payload);
/* The pairs under a prefix (copied), with `after`, `until` and `limit` of the request, as `put` shows them. */
void http_worded_get(struct http_request *r, struct cht_str prefix, http_worded_put *put);
/* How a mode's payloads are shown so; NULL: there are no tokens in them. */
http_worded_put *http_worded_mode(const struct reduce_mode *mode);
