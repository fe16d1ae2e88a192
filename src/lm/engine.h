/* engine: what the language-model calls of one process share: for each database a lock for counting and a lock for
 * smoothing.
 *
 * Counting reads counts, adds and writes them back, so it is serialised per database: any number of threads may count
 * into one database and every n-gram is counted exactly once. Smoothing runs of one database are serialised among
 * themselves but not against counting: a run beside a count uses, context by context, counts from some moment of
 * its run; each context is consistent in itself, and another run afterwards is exact. The locks know nothing of other
 * writers: whoever writes to cnt: pairs by other calls meanwhile may see them overwritten.
 *
 * Lock order: a gate, then whatever the store takes. Two gates of counting are held by lm_merge alone, which
 * takes that of the lower address first.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "cheetah/store.h"

struct lm_engine;

/* Heap; one a process is enough. CHT_NO_MEMORY. */
enum cht_rc lm_engine_new(struct lm_engine **out, struct cht_err *err);
/* No call may be under way. NULL is legal. */
void lm_engine_free(struct lm_engine *e);
/* How many bytes of what was read of live models may be kept in memory between questions, LM_KEPT_BYTES unless said; 0: none. Before any
 * question. */
#define LM_KEPT_BYTES ((size_t)64 << 20)
void lm_engine_keep(struct lm_engine *e, size_t bytes);
size_t lm_engine_kept(struct lm_engine *e); /* now */

/* ---- for the files of src/lm -------------------------------------------------------------------------------- */

enum lm_gate_kind { LM_GATE_COUNT, LM_GATE_SMOOTH };
struct lm_gate;
/* Waits for the gate of this database and takes it; CHT_NO_MEMORY, CHT_CANCELLED within a moment after *cancel (may be NULL)
 * became true. The gate goes away with its last user. */
enum cht_rc lm_gate_enter(struct lm_engine *e, struct cht_store *s, enum lm_gate_kind kind,
                          const _Atomic bool *cancel, struct lm_gate **out, struct cht_err *err);
void lm_gate_leave(struct lm_engine *e, struct lm_gate *g, enum lm_gate_kind kind);

/* Runs the operations as one commit and waits. If an operation failed, the code and message are that operation's,
 * whether the commit was atomic (nothing of it happened) or not. */
enum cht_rc lm_commit(struct cht_store *s, struct cht_op *ops, size_t n, unsigned flags, struct cht_err *err);
/* The same with many more (NULL: none) before them; atomic. */
enum cht_rc lm_commit_many(struct cht_store *s, struct cht_many *many, struct cht_op *ops, size_t n,
                           unsigned flags, struct cht_err *err);
