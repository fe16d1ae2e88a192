/* writer: puts and deletes of pairs, committed many thousands at a time (not atomic as a whole: each pair by itself), while the
 * caller goes on with the next ones.
 *
 * Zero-initialise with the store; names and values are copied. A name is used once between two flushes. Threads: one at a time
 * per object.
 */
#pragma once

#include "cheetah/store.h"
#include "os/thread.h"

/* A commit is at most that, or one value. Larger ones sync less often; others' commits wait for them longer. Memory: two
 * of them, about 11 MiB. */
#define LM_WRITER_OPS 16384u
#define LM_WRITER_BYTES ((size_t)4 << 20)

struct lm_writer_half {
    struct lm_writer *writer;
    struct cht_op *ops; /* owned */
    size_t n;
    struct cht_buf bytes; /* names and values of the operations */
    struct cht_commit commit;
    bool under_way; /* guarded by mu: the store has it */
    bool unread;    /* its result was not looked at */
};

struct lm_writer {
    struct cht_store *store;
    unsigned flags;                /* of its commits, beside CHT_COMMIT_UNORDERED */
    struct lm_writer_half half[2]; /* one is filled while the other is committed */
    unsigned at;                   /* the one that is filled */
    bool up;                       /* mu and done are there */
    struct cht_mutex mu;
    struct cht_cond done;
};

/* Room in one commit for that number of operations, and for the bytes of their names and values: the next ones are not parted. */
enum cht_rc lm_writer_reserve(struct lm_writer *w, size_t ops, size_t bytes, struct cht_err *err);
/* Starts an upsert of a name with at most value_max bytes: writes the name and says where the value goes; the previous
 * operations are handed to the store first if room is short. NULL: *rc says why; also for operations handed over before. */
uint8_t *lm_writer_put(struct lm_writer *w, struct cht_str name, size_t value_max, enum cht_rc *rc,
                       struct cht_err *err);
/* Ends the upsert: the value has n bytes. */
void lm_writer_put_end(struct lm_writer *w, size_t n);
/* Unmaps the name and deletes its value; a name that is not there any more is fine. */
enum cht_rc lm_writer_del(struct lm_writer *w, struct cht_str name, struct cht_err *err);
/* Commits what is left and waits for all of it. The first failure since the last flush. */
enum cht_rc lm_writer_flush(struct lm_writer *w, struct cht_err *err);
void lm_writer_free(struct lm_writer *w); /* drops what was not handed over; waits for the rest */
