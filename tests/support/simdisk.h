/* simdisk: a disk in memory behind the io table. Files are memfds, so mappings are real; every change and every sync is
 * recorded in one global order, and the disk that a power cut at any point would leave can be built from the record.
 *
 * What survives a cut: the bytes of a file as of its last sync; names as of the last sync_dir (of any folder: a journaling
 * file system commits them in order). Of what came later the mode decides.
 */
#pragma once

#include "base/rng.h"
#include "os/io.h"

enum sim_mode {
    SIM_KEEP,   /* everything not synced is there all the same */
    SIM_DROP,   /* nothing of it is */
    SIM_SUBSET, /* any subset of its 512-byte sectors; a prefix of the changes of names */
    SIM_TORN    /* everything but the end of the last write, cut at a sector */
};
enum sim_fault { SIM_NONE, SIM_FULL, SIM_EIO, SIM_SHORT };

struct simdisk;
struct simdisk *simdisk_new(void);
void simdisk_free(struct simdisk *d);
struct cht_io *simdisk_io(struct simdisk *d);
size_t simdisk_events(const struct simdisk *d);

/* The n-th call that can fail from now on (1: the next) fails, and with `forever` all behind it. simdisk_injected counts. */
void simdisk_fail_at(struct simdisk *d, uint64_t n, enum sim_fault kind, bool forever);
uint64_t simdisk_injected(const struct simdisk *d);

/* Cuts in ascending order: a cursor over the events of a finished run. step moves behind one more event; cut builds the disk. */
struct simcut;
struct simcut *simcut_new(const struct simdisk *d);
bool simcut_step(struct simcut *c);
size_t simcut_at(const struct simcut *c);
struct simdisk *simcut_disk(struct simcut *c, enum sim_mode mode, struct cht_rng *r);
void simcut_free(struct simcut *c);
