/* simdisk: a disk in memory behind the io table. Files are memfds, so mappings are real; every change and every sync is
 * recorded in one global order, and the disk that a power cut at any point would leave can be built from the record.
 *
 * What survives a cut: the bytes of a file as of its last sync; names as of the last sync_dir (of any folder: a journaling
 * file system commits them in order). Of what came later the mode decides.
 *
 * It has folders (nothing is made if there is none; the folder "/" is always there), modes, symbolic links, and mounts that
 * can be missing. Any call can fail with any errno.
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

enum sim_call {
    SIM_OPEN,
    SIM_PREAD,
    SIM_PWRITE,
    SIM_SYNC,
    SIM_SIZE,
    SIM_TRUNCATE,
    SIM_ALLOCATE,
    SIM_PUNCH,
    SIM_MAP,
    SIM_REMAP,
    SIM_DISCARD,
    SIM_RENAME,
    SIM_UNLINK,
    SIM_MKDIR,
    SIM_RMDIR,
    SIM_SYNC_DIR,
    SIM_LIST,
    SIM_STAT,
    SIM_USAGE,
    SIM_CALLS
};
const char *sim_call_name(enum sim_call call);

struct simdisk;
struct simdisk *simdisk_new(void);
void simdisk_free(struct simdisk *d);
struct cht_io *simdisk_io(struct simdisk *d);
void simdisk_forget(
    struct simdisk *d); /* from now on nothing is recorded: of a new disk that no cut is made of */
size_t simdisk_events(const struct simdisk *d);
/* Another disk with the same names and bytes, nothing recorded and nothing locked. */
struct simdisk *simdisk_clone(const struct simdisk *d);

/* The n-th call that can fail from now on (1: the next) fails, and with `forever` all after it. Calls that change something,
 * pread and stat count. simdisk_injected counts. */
void simdisk_fail_at(struct simdisk *d, uint64_t n, enum sim_fault kind, bool forever);
uint64_t simdisk_injected(const struct simdisk *d);

/* The first-th matching call from now on fails with `sys`, and so do those after it, `times` in all (UINT64_MAX: from then on).
 * Takes the place of simdisk_fail_at. sys 0: nothing fails, matching calls are counted. */
struct sim_plan {
    int sys;
    uint64_t first, times;
    unsigned calls;   /* bits 1u << enum sim_call; 0: all */
    const char *path; /* only paths that have this in them; NULL: all. Borrowed while the plan holds */
    const char
        *unwritten; /* of writes not those to paths that have this in them; NULL: all. Borrowed likewise */
    bool missing;   /* of writes only those into bytes that have no space yet */
};
void simdisk_plan(struct simdisk *d, const struct sim_plan *plan); /* NULL: no more; the counts stay */
uint64_t simdisk_seen(const struct simdisk *d);                    /* matching calls since then */
/* The first call that a plan made fail: its kind, its path. */
enum sim_call simdisk_victim(const struct simdisk *d, const char **path);
/* Did any of these calls (bits) fail on a path that has `part` in it (NULL: any)? */
bool simdisk_failed(const struct simdisk *d, unsigned calls, const char *part);

/* From now on at most so many bytes of files, holes not counted; 0: no limit. What would need more is ENOSPC. */
void simdisk_capacity(struct simdisk *d, uint64_t bytes);
/* Bytes of all files that have a name, holes not counted. */
uint64_t simdisk_used(struct simdisk *d);

/* What no io table does: an operator's hands. The path must be there (link: must not). */
void simdisk_chmod(struct simdisk *d, const char *path,
                   unsigned mode); /* 0400 read, 0200 write, 0100 search; 0700 at first */
void simdisk_link(struct simdisk *d, const char *path,
                  const char *target); /* symbolic; the target is absolute */
void simdisk_put(struct simdisk *d, const char *path, const void *data,
                 size_t n); /* a file; its folder must be there */
/* From now on the folder is a mount point with another file system on it, which holds what is made below it; mounted or not. What lies in
 * the folder itself shows while it is not mounted. */
void simdisk_mount(struct simdisk *d, const char *path, bool mounted);
/* Over names, kinds, modes, links and bytes of all that is there, mounted or not. skip: paths that end so are left out; NULL: none. */
uint64_t simdisk_digest(const struct simdisk *d, const char *under, const char *skip);

/* Cuts in ascending order: a cursor over the events of a finished run. step moves past one more event; cut builds the disk.
 * Not for disks with mounts or links. */
struct simcut;
struct simcut *simcut_new(const struct simdisk *d);
bool simcut_step(struct simcut *c);
size_t simcut_at(const struct simcut *c);
struct simdisk *simcut_disk(struct simcut *c, enum sim_mode mode, struct cht_rng *r);
void simcut_free(struct simcut *c);
