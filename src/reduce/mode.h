/* mode: the reducers by name. A mode is one file src/reduce/mode_*.c that defines one struct reduce_mode, and one line in
 * the table of modes.c. See README.md for how to add one.
 *
 * Threads: all functions may be called from any thread; the table is constant.
 */
#pragma once

#include "cheetah/store.h"

enum reduce_kind {
    REDUCE_PAYLOAD,  /* walks the namespace in byte order and shows each payload */
    REDUCE_QUEUE,    /* the same, and can take the entries away */
    REDUCE_AGGREGATE /* sweeps the namespace in parallel, few lines */
};

/* What the head of a payload says: members to print at once, then a list of records of equal length. */
struct reduce_head {
    char text[96]; /* `"order":3,"followers":[`, or all of it if there is no list */
    size_t text_len;
    const char *tail; /* "]" after the list, "" without one; static */
    size_t offset;    /* of the first record in the payload */
    uint32_t record;  /* bytes of a record */
    uint64_t count;   /* records */
};

#define REDUCE_RECORD_TEXT 48u /* room that `record` needs */

/* How decode=true shows a payload: by head and records (so that a long one is shown in pieces), or as a whole. */
struct reduce_decoder {
    /* `have` bytes at p of a payload of `size` bytes (all of it, or at least REDUCE_PAYLOAD_HEAD_MAX). False: malformed. */
    bool (*head)(const uint8_t *p, size_t have, uint64_t size, struct reduce_head *out);
    /* One record as JSON, without a comma; returns its characters. */
    size_t (*record)(const uint8_t *p, char *out);
    /* In place of the two: all members as text (no line break) appended at out; returns its characters, SIZE_MAX if
     * room is too small, 0 if the payload is malformed. NULL for record decoders. */
    size_t (*whole)(const uint8_t *p, size_t n, char *out, size_t room);
};

struct reduce_mode {
    const char *const *names; /* the first is the name, the others are aliases; NULL ends the list */
    enum reduce_kind kind;
    const struct reduce_decoder *decoder;     /* payload modes; NULL: payloads stay as they are */
    const struct reduce_aggregate *aggregate; /* aggregate modes (aggregate.h) */
};

/* The mode with this name or alias; NULL if there is none. */
const struct reduce_mode *reduce_mode_find(const char *name, size_t len);
/* Mode number i of the table, payload modes before aggregates; NULL after the last. */
const struct reduce_mode *reduce_mode_at(unsigned i);
/* The known names, "counts, probabilities, ...", static. */
const char *reduce_mode_names(void);

/* Decodes a payload that is wholly in memory: members (no leading comma) appended at out; returns the characters,
 * SIZE_MAX if room is too small, 0 if the payload is malformed. */
size_t reduce_decode(const struct reduce_decoder *d, const uint8_t *p, size_t n, char *out, size_t room);
