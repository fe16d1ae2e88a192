/* engine_int: the engine from within, for engine.c, kn_live.c and kn_reader.c. */
#pragma once

#include "lm/engine.h"
#include "os/thread.h"

struct lm_kn_live;
struct lm_kn_reader;
struct lm_fm_import;
struct lm_engine {
    struct cht_mutex mu;
    struct cht_cond left;       /* a gate was left */
    struct lm_gate *gates;      /* guarded by mu, like all below; owned */
    struct lm_kn_live *live;    /* owned: of the databases with a live model that were asked lately */
    struct lm_kn_reader *spare; /* owned: for the next questions */
    unsigned spares;
    struct lm_kn_reader *kept; /* owned: with what they have read, the last one used first */
    size_t kept_bytes;         /* of these; at most kept_max, which is set at start */
    size_t kept_max;
    struct lm_fm_import *imports; /* under way */
};

/* kn_live.c, kn_reader.c; no call may be under way. */
void lm_kn_live_free_all(struct lm_engine *e);
void lm_kn_reader_free_all(struct lm_engine *e);
