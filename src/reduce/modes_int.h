/* modes_int: the modes that modes.c lists; each is defined in its own file mode_*.c. */
#pragma once

#include "reduce/mode.h"

extern const struct reduce_mode reduce_mode_counts;
extern const struct reduce_mode reduce_mode_probabilities;
extern const struct reduce_mode reduce_mode_continuations;
extern const struct reduce_mode reduce_mode_topk;
extern const struct reduce_mode reduce_mode_contexts;
extern const struct reduce_mode reduce_mode_cache, reduce_mode_bias, reduce_mode_meta; /* mode_json.c */
extern const struct reduce_mode reduce_mode_links;
extern const struct reduce_mode reduce_mode_matrix;
extern const struct reduce_mode reduce_mode_payloads;
extern const struct reduce_mode reduce_mode_queue;
extern const struct reduce_mode reduce_mode_stats;
extern const struct reduce_mode reduce_mode_totals;
extern const struct reduce_mode reduce_mode_counts_of_counts;
extern const struct reduce_mode reduce_mode_similar;
