/* ends: see ends.h. */
#include "store/ends.h"

#include "base/clock.h"
#include "store/db.h"
#include "store/expiry.h"

#define PAUSE_MS 1000u

/* Both clocks, in ms. */
static void clocks(const struct cht_db *db, uint64_t *wall, uint64_t *steady)
{
    const struct cht_env_config *cfg = &db->env->cfg;
    if (cfg->clock != NULL) {
        cfg->clock(cfg->clock_ctx, wall, steady);
        return;
    }
    *steady = cht_now_ns() / 1000000;
    *wall = cht_wall_ns() / 1000000;
}

static uint64_t steady_ms(const struct cht_db *db)
{
    uint64_t wall, steady;
    clocks(db, &wall, &steady);
    return steady;
}

/* -------------------------------------------------------------------------------------------------------------------- */

void cht_ends_open(struct cht_db *db)
{
    uint64_t wall, steady, known = 0;
    bool any = false;
    clocks(db, &wall, &steady);
    for (unsigned i = 0; i < db->nshards; i++) {
        struct cht_pagefile *pairs = cht_shard_pairs(&db->shards[i]);
        uint64_t at = cht_expiry_clock(pairs);
        any = any || cht_expiry_any(pairs);
        known = at > known ? at : known;
    }
    atomic_store_explicit(&db->ends.ahead_ms, (int64_t)(wall > known ? wall : known) - (int64_t)steady,
                          memory_order_relaxed);
    atomic_store_explicit(&db->ends.next, any ? 1 : CHT_ENDS_NONE, memory_order_relaxed);
}

uint64_t cht_ends_now(struct cht_db *db)
{
    uint64_t wall, steady;
    clocks(db, &wall, &steady);
    int64_t ahead = (int64_t)wall - (int64_t)steady;
    int64_t most = atomic_load_explicit(&db->ends.ahead_ms, memory_order_relaxed);
    while (ahead > most && !atomic_compare_exchange_weak_explicit(&db->ends.ahead_ms, &most, ahead,
                                                                  memory_order_relaxed, memory_order_relaxed))
        ;
    return steady + (uint64_t)(ahead > most ? ahead : most);
}

bool cht_ends_none(const struct cht_db *db)
{
    return atomic_load_explicit(&db->ends.next, memory_order_relaxed) == CHT_ENDS_NONE;
}

uint64_t cht_ends_since(struct cht_db *db) { return cht_ends_none(db) ? 0 : cht_ends_now(db); }

bool cht_ends_paused(struct cht_db *db)
{
    uint64_t until = atomic_load_explicit(&db->ends.pause_ms, memory_order_relaxed);
    return until != 0 && steady_ms(db) < until;
}

void cht_ends_pause(struct cht_db *db)
{
    atomic_store_explicit(&db->ends.pause_ms, steady_ms(db) + PAUSE_MS, memory_order_relaxed);
}

bool cht_ends_due(struct cht_db *db, uint64_t at)
{
    return atomic_load_explicit(&db->ends.next, memory_order_acquire) <= at && !cht_ends_paused(db);
}

bool cht_ends_clear(struct cht_db *db)
{
    uint64_t now = cht_ends_now(db);
    uint64_t next = atomic_load_explicit(&db->ends.next, memory_order_relaxed);
    if (next > now)
        atomic_store_explicit(&db->ends.clear, now, memory_order_release);
    return next > now || cht_ends_paused(db);
}

void cht_ends_look(struct cht_db *db)
{
    uint64_t next = CHT_ENDS_NONE;
    for (unsigned i = 0; i < db->nshards; i++) {
        struct cht_shard *sh = &db->shards[i];
        uint8_t name[CHT_NAME_MAX];
        size_t len;
        uint64_t at = 0;
        struct cht_err ignored;
        cht_rwlock_read(&sh->lock);
        enum cht_rc rc = cht_expiry_first(cht_shard_pairs(sh), &at, name, &len, &ignored);
        cht_rwlock_read_end(&sh->lock);
        if (rc != CHT_OK) {
            cht_ends_pause(db); /* next stays what it was, and is tried again */
            return;
        }
        next = at != 0 && at < next ? at : next;
    }
    atomic_store_explicit(&db->ends.next, next,
                          memory_order_release); /* with cht_ends_due: nothing is left of before */
}
