/* view: a smoothed model as a question sees it: the old one until a smoothing run is complete, then the new one, never some
 * entries of each.
 *
 * A run writes many commits. Before it changes an entry that questions read, it keeps the entry's old value:
 *
 *   pair                               payload
 *   0x10 "before:" prob:<n>:<context>  the value that pair had; one byte: it had none; two bytes: it could not be read
 *   0x10 "before:" topk:<n>:<context>  likewise
 *   0x10 "before:" model               version = 1 u8, highest order u8, cont: entries u64
 *   prob:1: of the root                the old probabilities and one byte more, which readers of payloads pass over
 *
 * in this order: the root's old value and `before:model`; the root with one byte more, from where on questions look for old
 * values; for each entry its old value, and when that is durable the new one; the new root, from where on the new model
 * answers; then what was kept is deleted. If there was no root, there was no model: nothing is kept, and the root is written last.
 * So the switch is one pair that is put. A run that is cut off, by a crash too, leaves the old model answering; the next run puts
 * everything back before it begins.
 *
 * A question reads the entry first, then what is kept of it. What it has read before a switch and after it do not belong
 * together: it asks lm_view_holds at its end, and begins again if that says no.
 *
 * Threads: any. Internal to src/lm.
 */
#pragma once

#include "cheetah/store.h"
#include "lm/counts.h"
#include "lm/hash.h"

#define LM_BEFORE \
    "\x10"        \
    "before:"
#define LM_BEFORE_MODEL \
    "\x10"              \
    "before:model"
#define LM_BEFORE_MODEL_SIZE 10u
#define LM_BEFORE_NONE 1u    /* bytes of a value that says: there was none */
#define LM_BEFORE_DAMAGED 2u /* it could not be read */
#define LM_BEFORE_NAME_MAX (sizeof LM_BEFORE + LM_PREFIX_MAX + LM_HASH_SIZE)

struct lm_view {
    struct cht_store *store;
    bool smoothed;       /* there is a root */
    bool old;            /* a run is under way or was cut off; then: */
    unsigned highest;    /* order, 0: none */
    uint64_t vocabulary; /* cont: entries */
    uint64_t switches;
};

/* Looks which model answers now. w as of cht_store_pair_value_soon: NULL waits, else CHT_PENDING. */
enum cht_rc lm_view_open(struct lm_view *v, struct cht_store *s, struct cht_wait *w, struct cht_err *err);
/* Is all that was read since lm_view_open of one model? */
bool lm_view_holds(const struct lm_view *v);
/* As cht_store_pair_value_soon, of an entry `prob:<n>:` or `topk:<n>:` of a context. While `old` the key is of no use: what lies under
 * it may be of the new model by then. */
enum cht_rc lm_view_read(const struct lm_view *v, struct cht_str name, struct cht_pair_value *pv,
                         struct cht_wait *w, struct cht_err *err);
/* The highest order with an entry, 0 if there is none; the number of cont: entries. */
enum cht_rc lm_view_highest(const struct lm_view *v, unsigned *order, struct cht_wait *w,
                            struct cht_err *err);
enum cht_rc lm_view_vocabulary(const struct lm_view *v, uint64_t *n, struct cht_err *err);

/* For smoothing: the root has been put. Whoever began before is told. */
void lm_view_switched(const struct cht_store *s);
/* The name under which the old value of an entry is kept; text has LM_BEFORE_NAME_MAX bytes, name is prefix and hash. */
struct cht_str lm_before_name(struct cht_str name, uint8_t *text);
/* `prob:1:` of the root, in LM_PREFIX_MAX + LM_HASH_SIZE bytes. */
struct cht_str lm_root_name(uint8_t *text);
