/* grow: see grow.h. */
#include "store/rados/grow.h"

#include "base/alloc.h"
#include "base/clock.h"
#include "os/io.h"
#include "store/rados/prefix.h"
#include "store/rados/split.h"

#define LARGE_NS UINT64_C(3600000000000) /* between two tries to divide what is too large for it */

void cht_grow(struct cht_rdb *db)
{
    struct cht_shard_counts *c = cht_calloc(CHT_MAP_MAX, sizeof *c);
    unsigned most = 0;
    uint64_t lot = 0;
    if (c == NULL || cht_prefix_totals(db, c, NULL) != CHT_OK) {
        cht_free(c);
        return; /* the next time */
    }
    for (unsigned i = 0; i < CHT_MAP_MAX; i++)
        most = c[i].pairs + c[i].values > c[most].pairs + c[most].values ? i : most;
    bool full = c[most].pairs > db->env->cfg.split_pairs || c[most].values > db->env->cfg.split_pairs;
    cht_free(c);
    cht_os_random(&lot, sizeof lot);
    if (!full || lot % 2 != 0) /* several servers see the same */
        return;
    if (db->too_large != 0 && cht_now_ns() - db->too_large < LARGE_NS)
        return;
    db->too_large = cht_split(db, most, NULL) == CHT_BATCH_TOO_LARGE ? cht_now_ns() : 0;
}
