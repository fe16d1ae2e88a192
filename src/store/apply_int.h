/* apply_int: what the files of apply share: apply.c (commits), apply_team.c (large commits by several threads), apply_one.c (one
 * operation), apply_ops.c (what each kind does), apply_take.c (locks and undos). Each needs those after it. */
#pragma once

#include "store/apply.h"

/* The shard, locked, with an undo if one is wanted. */
struct cht_shard *cht_apply_take(struct cht_apply *a, unsigned i, bool undo);

/* Ends the undos of all shards that have one: rolled back, or forgotten. Notes if the store must stop writing. */
void cht_apply_end_undo(struct cht_apply *a, bool rollback);

/* Deletes, and reads beside them: need hardly any room, and give some back. */
bool cht_op_frees(enum cht_op_kind k);

/* May it be run twice, if the first time has changed nothing? Its results are no inputs, and nobody who decides about it counts. */
bool cht_op_again(const struct cht_op *op);

/* apply_expiry.c. Before an operation by name: one whose pair has ended is deleted first, with its value; *ends is when it will
 * end, 0 never. CHT_PENDING in a part: the committer's. Then: notes the pair's new end; the shard has an undo if there is one to note. */
enum cht_rc cht_apply_ended(struct cht_apply *a, const struct cht_op *op, uint64_t *ends,
                            struct cht_err *err);
enum cht_rc cht_apply_ends(struct cht_apply *a, struct cht_op *op, uint64_t ends, struct cht_err *err);
/* PURGE: deletes up to CHT_PURGE_OPS pairs that have ended, in the order of time, and logs at most CHT_PURGE_BYTES. */
enum cht_rc cht_apply_purge(struct cht_apply *a, struct cht_op *op, struct cht_err *err);
#define CHT_PURGE_OPS 4096u
/* apply_ops.c: deletes a value and logs it. CHT_KEY_NOT_FOUND. */
enum cht_rc cht_apply_delete_value(struct cht_apply *a, uint64_t key, bool undo, struct cht_err *err);
enum cht_rc cht_apply_delete_pair(struct cht_apply *a, struct cht_op *op, struct cht_err *err);

typedef enum cht_rc cht_apply_fn(struct cht_apply *, struct cht_op *, struct cht_err *);
/* By kind; NULL if there is none. CHT_OP_PURGE is not among them: cht_apply_purge. */
cht_apply_fn *cht_apply_fn_of(enum cht_op_kind kind);

/* Runs one operation of a commit and sets its rc; `read` bytes were read by those before it. Also notes where the store must
 * stop writing. */
void cht_apply_op(struct cht_apply *a, const struct cht_commit *c, struct cht_op *op, uint64_t read,
                  struct cht_err *err);
