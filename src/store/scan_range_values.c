/* scan_range_values: values for a block of a range (scan_range.h), copied to the work area. A value that does not fit there ends the block, or, if it
 * is the first one, is not carried.
 */
#include "store/scan_range.h"

#define AHEAD CHT_SCAN_AHEAD

/* The value of an item, at most up to `end`; false if it does not fit any more. `first`: nothing is in front of it. */
static bool carry(struct cht_db *db, struct cht_range_work *w, struct cht_values *from, uint32_t item,
                  const struct cht_value_ref *ref, size_t end, bool first)
{
    struct cht_range_value *v = &w->values[item];
    bool fits = w->used < end && ref->len <= end - w->used;
    v->size = ref->len;
    if (ref->len > CHT_SCAN_INLINE_MAX || (first && !fits)) {
        v->flags = CHT_ENTRY_LARGE;
        return true;
    }
    if (!fits)
        return false;
    v->flags = cht_scan_copy(db, from, w->items[item].key, ref, w->bytes + w->used);
    if (v->flags != 0)
        return true;
    v->at = (uint32_t)w->used;
    v->len = ref->len;
    w->used += ref->len;
    return true;
}

/* The place of the item's value, if it is in this shard; its bytes will be fetched. ref->len 0: there is nothing to be carried. */
static void look_up(struct cht_db *db, struct cht_range_work *w, struct cht_shard *sh, uint32_t item,
                    struct cht_value_ref *ref, uint32_t *abroad)
{
    uint64_t key = w->items[item].key;
    struct cht_range_value *v = &w->values[item];
    *v = (struct cht_range_value){0};
    if (cht_shard_of_key(key, sh->count) != sh->index) {
        v->flags = CHT_RANGE_ABROAD;
        (*abroad)++;
        ref->len = 0;
        return;
    }
    enum cht_rc rc = cht_values_find(&sh->values, key, ref, NULL);
    if (rc == CHT_OK) {
        cht_values_prefetch_value(&sh->values, ref);
        return;
    }
    ref->len = 0;
    v->flags = cht_scan_no_value(db, rc);
}

/* Item i is asked for, the one AHEAD before it looked up, the one AHEAD before that copied. */
uint32_t cht_range_home(struct cht_db *db, struct cht_range_work *w, struct cht_shard *sh, uint32_t first,
                        uint32_t n, size_t end, uint32_t *abroad)
{
    struct cht_value_ref refs[AHEAD];
    if (n > 0)
        cht_values_soon(&sh->values, &w->items[first].key, sizeof *w->items, n, end);
    for (uint32_t i = 0; i < n + 2 * AHEAD; i++) {
        if (i < n) /* for nothing, if it is of another shard */
            cht_values_prefetch_entry(&sh->values, w->items[first + i].key);
        if (i >= 2 * AHEAD) {
            uint32_t at = i - 2 * AHEAD;
            const struct cht_value_ref *ref = &refs[at % AHEAD];
            if (ref->len != 0 && !carry(db, w, &sh->values, first + at, ref, end, at == 0))
                return at;
        }
        if (i >= AHEAD && i - AHEAD < n)
            look_up(db, w, sh, first + i - AHEAD, &refs[(i - AHEAD) % AHEAD], abroad);
    }
    return n;
}

enum cht_rc cht_range_abroad(struct cht_db *db, struct cht_range_work *w, const struct cht_range_key *keys,
                             size_t *n, struct cht_err *err)
{
    for (size_t i = 0; i < *n; i++) {
        uint32_t item = keys[i].item;
        struct cht_range_value *v = &w->values[item];
        uint64_t key = w->items[item].key;
        struct cht_value_ref ref;
        bool fits = true;
        if (v->flags != CHT_RANGE_ABROAD)
            continue;
        struct cht_shard *sh = &db->shards[cht_shard_of_key(key, db->nshards)];
        enum cht_rc rc = cht_db_enter(sh, err);
        if (rc != CHT_OK)
            return rc;
        rc = cht_values_find(&sh->values, key, &ref, NULL);
        if (rc == CHT_OK)
            fits = carry(db, w, &sh->values, item, &ref, CHT_RANGE_BYTES, i == 0);
        else
            v->flags = cht_scan_no_value(db, rc);
        cht_rwlock_read_end(&sh->lock);
        if (!fits)
            *n = i;
    }
    return CHT_OK;
}
