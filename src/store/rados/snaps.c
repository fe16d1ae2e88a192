/* snaps: see snaps.h. */
#include "store/rados/snaps.h"

#include "os/code.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PREFIX "cheetah-"
#define LIST 64

void cht_snaps_name(char out[CHT_SNAPS_NAME_MAX], const char *uuid, uint64_t number)
{
    (void)snprintf(out, CHT_SNAPS_NAME_MAX, PREFIX "%s-%016" PRIx64, uuid, number); /* fits */
}

bool cht_snaps_any(rados_ioctx_t io)
{
    rados_snap_t one;
    int n = rados_ioctx_snap_list(io, &one, 1);
    return n > 0 || cht_os_code(n) != CHT_OS_OK; /* more than one is a failure */
}

void cht_snaps_remove(rados_ioctx_t io, const char *uuid)
{
    rados_snap_t snaps[LIST];
    char name[CHT_SNAPS_NAME_MAX], prefix[CHT_SNAPS_NAME_MAX];
    (void)rados_wait_for_latest_osdmap(
        rados_ioctx_get_cluster(io)); /* of old ones that are known it is true all the same */
    int n = rados_ioctx_snap_list(io, snaps, LIST);
    (void)snprintf(prefix, sizeof prefix, PREFIX "%s-", uuid);
    for (int i = 0; i < n; i++) {
        if (rados_ioctx_snap_get_name(io, snaps[i], name, sizeof name) == 0 &&
            strncmp(name, prefix, strlen(prefix)) == 0)
            (void)rados_ioctx_snap_remove(io, name);
    }
}
