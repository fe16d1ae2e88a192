/* snaps: see snaps.h. */
#include "store/rados/snaps.h"

#include "base/alloc.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PREFIX "cheetah-"
#define LIST 8 /* of the first try; then four times as many */
#define LIST_MAX 65536

void cht_snaps_name(char out[CHT_SNAPS_NAME_MAX], const char *uuid, uint64_t number)
{
    (void)snprintf(out, CHT_SNAPS_NAME_MAX, PREFIX "%s-%016" PRIx64, uuid, number); /* fits */
}

/* All snapshots of the pool by the map that is here, *n of them; NULL: not known. The caller frees them. */
static rados_snap_t *list(rados_ioctx_t io, int *n)
{
    for (int room = LIST; room <= LIST_MAX; room *= 4) {
        rados_snap_t *v = cht_malloc((size_t)room * sizeof *v);
        *n = v != NULL ? rados_ioctx_snap_list(io, v, room) : -1;
        if (*n >= 0)
            return v;
        cht_free(v); /* more than there is room for */
    }
    *n = 0;
    return NULL;
}

static bool is_of(rados_ioctx_t io, rados_snap_t snap, const char *uuid, char name[CHT_SNAPS_NAME_MAX])
{
    char prefix[CHT_SNAPS_NAME_MAX];
    int n = snprintf(prefix, sizeof prefix, PREFIX "%s-", uuid);
    return rados_ioctx_snap_get_name(io, snap, name, CHT_SNAPS_NAME_MAX) == 0 &&
           strncmp(name, prefix, (size_t)n) == 0;
}

bool cht_snaps_any(rados_ioctx_t io, const char *uuid)
{
    char name[CHT_SNAPS_NAME_MAX];
    int n = 0;
    bool any = false;
    rados_snap_t *snaps = list(io, &n);
    for (int i = 0; i < n && !any; i++)
        any = is_of(io, snaps[i], uuid, name);
    cht_free(snaps);
    return any;
}

void cht_snaps_remove(rados_ioctx_t io, const char *uuid)
{
    char name[CHT_SNAPS_NAME_MAX];
    int n = 0;
    (void)rados_wait_for_latest_osdmap(
        rados_ioctx_get_cluster(io)); /* of old ones that are known it is true all the same */
    rados_snap_t *snaps = list(io, &n);
    for (int i = 0; i < n; i++)
        if (is_of(io, snaps[i], uuid, name))
            (void)rados_ioctx_snap_remove(io, name);
    cht_free(snaps);
}
