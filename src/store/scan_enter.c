/* scan_enter: the turn of a task of a scan, when what has ended is removed. See scan_int.h. */
#include "store/ends.h"
#include "store/scan_int.h"

enum cht_calm_turn cht_scan_enter(struct cht_db_scan *sc, struct cht_pool *pool, struct cht_task *t)
{
    if (sc->since != 0 && cht_ends_due(sc->db, sc->since))
        cht_ends_ask(sc->db);
    return cht_calm_enter(&sc->db->calm, pool, t, &sc->cancelled);
}
