/* engine_int: the engine from within, for engine.c and kn_live.c. */
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
    struct lm_fm_import *imports; /* under way */
};

/* kn_live.c, kn_read.c; no call may be under way. */
void lm_kn_live_free_all(struct lm_engine *e);
void lm_kn_reader_free_all(struct lm_engine *e);
