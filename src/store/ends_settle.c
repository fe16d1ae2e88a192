/* ends_settle: who reads waits until what has ended is removed. See ends.h. */
#include "store/calm.h"
#include "store/commit.h"
#include "store/db.h"
#include "store/ends.h"

void cht_ends_ask(struct cht_db *db)
{
    cht_calm_ask(&db->calm);
    cht_committer_purge(db->committer);
}

enum cht_rc cht_ends_settle(struct cht_db *db, struct cht_wait *w)
{
    if (w == &cht_ahead)
        return CHT_OK;
    uint64_t since = w != NULL && w->since != 0 ? w->since : cht_ends_now(db);
    while (cht_ends_due(db, since)) {
        if (w != NULL)
            w->since = since;
        cht_ends_ask(db);
        if (cht_calm_await(&db->calm, w) == CHT_PENDING)
            return CHT_PENDING;
    }
    if (w != NULL)
        w->since = 0;
    return CHT_OK;
}
