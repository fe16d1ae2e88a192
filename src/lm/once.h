/* once: requests that carry an identifier and are counted once, however often they are sent.
 *
 * What a request answered is kept under a name of its own, written in the commit that counts it: after a crash both are there or
 * neither. Layout (integers big-endian):
 *
 *   name   0x10 "once:" ID
 *   value  u8 version 1 | u64 seconds since 1970 | u64 documents | u64 tokens | u64 n-grams | u64 contexts created
 *          | u64 documents removed | u64 generation of the live model, 0: there is none
 *          version 2 only if there were some: | u64 counts that could not be read
 *
 * An entry is kept for ONCE_KEEP_SECONDS at least. Old ones are looked for at every 1024th entry, so that a request costs two point
 * reads more and, on the average, a 1024th of a scan over the entries that are kept.
 *
 * Threads: under the counting gate of the database (engine.h).
 */
#pragma once

#include "lm/ngrams.h"

#define LM_ONCE_ID_MAX 64u /* of [A-Za-z0-9_-] */
#define LM_ONCE_KEEP_SECONDS UINT64_C(172800)
#define LM_ONCE_PREFIX "\x10once:"

/* What is written with the request's commit. */
struct lm_once {
    uint8_t name[sizeof LM_ONCE_PREFIX + LM_ONCE_ID_MAX];
    size_t name_len;
    uint8_t value[65];
};

bool lm_once_id_valid(const char *p, size_t n);
/* Has the request with this identifier been counted? Then *found, and what it answered is in out. An entry that is none of ours:
 * CHT_MALFORMED_PAYLOAD. */
enum cht_rc lm_once_find(struct cht_store *s, const char *id, bool *found, struct lm_ngrams_result *out,
                         struct cht_err *err);
/* Makes the entry and the operation that writes it; the operation borrows from `o`. */
void lm_once_op(struct lm_once *o, const char *id, const struct lm_ngrams_result *answer, uint64_t now_s,
                struct cht_op *op);
/* Now and then: removes the entries that are older than LM_ONCE_KEEP_SECONDS. A failure leaves them for the next time. */
void lm_once_sweep(struct cht_store *s, uint64_t now_s);
