/* target: the database that an import writes to, in a running server, a batch at a time.
 *
 * Keys are moved, all by the same distance: first a range is reserved that holds every key of the source (CHT_OP_RESERVE), then
 * key k of the source is key offset + k here. In a database that is fresh the offset is 0: the keys stay what they were, and so
 * do the gaps between them. Names that shared a key share one here, and a pair without a value has none here.
 *
 * How far it is stands in the database, under a name of its own that no client uses: the marker. Each batch is atomic and
 * takes the marker along, so that whatever is killed, and when, a second run goes on after the last batch that was
 * committed. The marker is made by the batch that reserves the range and gets the next key of its shard after it, which tells
 * a second run what the range is although the first one may not have seen the answer. It goes with the last step.
 *
 * A server on Ceph RADOS (`lengths` is null) gives the marker a key of another kind: there the answer says what the range is, and from the
 * second batch on the marker has it. A run that was killed between reserves another range: nothing lies in the first.
 */
#pragma once

#include "cheetah/store.h"
#include "tools/http_client.h"

#define TOOL_TARGET_MARKER "\0cheetah-import"
#define TOOL_TARGET_MARKER_B64 "AGNoZWV0YWgtaW1wb3J0"

struct tool_target_state {
    uint64_t position, line; /* the source's */
    uint64_t pairs, values;  /* written */
    uint64_t undecoded;
    uint64_t
        ended;   /* pairs that had ended before they were written: the server removes them and their values */
    bool second; /* the second of two parts of the source */
    char *cursor; /* owned; of the source; NULL: none */
};

struct tool_target {
    struct tool_client *client; /* owned */
    const char *database;       /* borrowed */
    char source[160];           /* what is imported */
    uint64_t shards, reserved, offset;
    uint64_t had_pairs, had_values;
    bool remote;                    /* the server's databases lie in a Ceph cluster */
    bool placed;                    /* offset is known */
    bool resumed;                   /* the marker was there */
    bool keeps_ends;                /* the server knows of pairs that end */
    bool occupied;                  /* it was not, the database is not empty, and this is no merge */
    struct tool_target_state state; /* written with the next batch */
    struct cht_buf batch;           /* owned */
    uint64_t ops, max_ops, max_bytes;
    int64_t failed; /* the operation of a batch that failed, -1: none */
};

struct tool_target_config {
    struct tool_connect connect;
    const char *database;
    const char *source;
    bool merge;      /* the database need not be empty */
    uint64_t shards; /* of a database that is made; 0: the server's choice */
};
/* Looks at the database, makes it if need be, and finds out whether an import of this source is to go on. CHT_DATABASE_BUSY
 * if another import has not finished, or the database is not empty (`occupied`). Close it in any case. */
enum cht_rc tool_target_open(struct tool_target *t, const struct tool_target_config *cfg,
                             struct cht_err *err);
void tool_target_close(struct tool_target *t);
/* Reserves keys 1 to last_key, unless that has been done. */
enum cht_rc tool_target_begin(struct tool_target *t, uint64_t last_key, struct cht_err *err);
/* Adds an operation to the batch; keys are the source's, text is base64. CHT_KEYS_EXHAUSTED if a key cannot be moved. */
enum cht_rc tool_target_value(struct tool_target *t, uint64_t key, const char *text, size_t n,
                              struct cht_err *err);
/* expires: in seconds since 1970; 0: never. */
enum cht_rc tool_target_pair(struct tool_target *t, const char *text, size_t n, uint64_t key,
                             uint64_t expires, struct cht_err *err);
static inline bool tool_target_full(const struct tool_target *t)
{
    return t->ops >= t->max_ops || t->batch.len >= t->max_bytes;
}
/* Writes the batch and t->state. CHT_BATCH_TOO_LARGE and CHT_BODY_TOO_LARGE: the server takes less at once. After a failure
 * nothing of the batch is there, and it is empty. */
enum cht_rc tool_target_commit(struct tool_target *t, struct cht_err *err);
/* Halves what a batch may hold; false if it is one operation already. */
bool tool_target_smaller(struct tool_target *t);
/* Takes the marker away. */
enum cht_rc tool_target_end(struct tool_target *t, struct cht_err *err);
