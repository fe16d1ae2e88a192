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

typedef enum cht_rc cht_apply_fn(struct cht_apply *, struct cht_op *, struct cht_err *);
/* By kind; NULL if there is none. */
cht_apply_fn *cht_apply_fn_of(enum cht_op_kind kind);

/* Runs one operation of a commit and sets its rc; `read` bytes were read by those before it. Also notes where the store must
 * stop writing. */
void cht_apply_op(struct cht_apply *a, const struct cht_commit *c, struct cht_op *op, uint64_t read,
                  struct cht_err *err);
