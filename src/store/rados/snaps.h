/* snaps: the snapshots of a pool that are of a database's backups: cheetah-<uuid>-<number> (moment.h). */
#pragma once

#include "store/rados/link.h"

#define CHT_SNAPS_NAME_MAX 72u

void cht_snaps_name(char out[CHT_SNAPS_NAME_MAX], const char *uuid, uint64_t number);
/* Has the pool any of a database? Asks nobody: the map of the cluster says so that is here. */
bool cht_snaps_any(rados_ioctx_t io, const char *uuid);
/* Removes those of a database, after a question for the newest map; what fails stays. */
void cht_snaps_remove(rados_ioctx_t io, const char *uuid);
