/* snapshot: the page files of all shards as their last checkpoints left them, readable while the next checkpoints and the
 * large values go on to write to them. A backup is made from it.
 *
 * All pages of all files stand in one line, shard by shard, file by file; `cursor` moves along it as they are read:
 *
 *      read already                cursor              not yet read
 *   +----------------------------+---------------------------------------+- - - - - - - - - - - - - - - -
 *   | written over freely        | the old bytes go to the side file     | pages after the end of the last
 *   |                            | before the page is written over       | checkpoint: not part of it
 *   +----------------------------+---------------------------------------+- - - - - - - - - - - - - - - -
 *
 * The side file has the old bytes of a page at its place in this line (sparse: a page that was zeros is a hole). It has no
 * name: it is unlinked as soon as it is open, so a crash leaves nothing.
 *
 * Why every page that is read is the page of the snapshot:
 *   writer   W1 under mu: nothing to do if the page is read already or saved        reader   R1 reads the file
 *            W2 copies the old bytes to the side file                                        R2 under mu: moves the cursor,
 *            W3 under mu: marks it saved                                                        notes which pages are saved
 *            W4 writes over the page                                                         R3 takes those from the side file
 *   A page is not marked at R2: then W3 comes after R2, so W4 after R1: R1 has read the old bytes. It is marked: then W2 is
 *   complete, and nobody writes this place of the side file again. After R2 the page does not matter any more.
 *   No page has two writers at a time (a checkpoint writes pages in use, direct writes go to free ones), and no lock is held
 *   over I/O.
 *
 * What calls the writer's part (all that changes a page file below the end of its last checkpoint): the journal when it is
 * applied, direct writes, released pages, the undo of direct writes. A full disk or a failed read there ends the snapshot
 * (its next read says so), never the write.
 *
 * Locking: attached and detached with check_mu and commit_mu of the committer held; every writer holds one of them.
 */
#pragma once

#include "os/thread.h"
#include "store/pagefile_int.h"
#include "store/shard.h"

struct cht_snapshot {
    struct cht_shard *shards; /* set at attach, then read-only, as are the next four */
    unsigned nshards;
    uint64_t *pages;        /* owned: of each file, CHT_PF_KINDS a shard */
    uint64_t total;         /* pages */
    struct cht_file *side;  /* owned */
    struct cht_mutex mu;    /* taken with any other lock held; no other is taken under it */
    uint64_t cursor;        /* guarded by mu */
    uint64_t *saved;        /* owned; the bits guarded by mu */
    bool failed;            /* guarded by mu */
    struct cht_err why;     /* guarded by mu */
    _Atomic uint64_t aside; /* pages saved; statistics */
};

#define CHT_SNAPSHOT_STEP 64u /* pages */

/* Opens the side file in `dir`, nothing else. */
enum cht_rc cht_snapshot_new(struct cht_io *io, const char *dir, struct cht_snapshot **out,
                             struct cht_err *err);
void cht_snapshot_free(struct cht_snapshot *s); /* detached; NULL is legal */
/* See Locking. From attach on the files may change. CHT_NO_MEMORY changes nothing. */
enum cht_rc cht_snapshot_attach(struct cht_snapshot *s, struct cht_shard *shards, unsigned nshards,
                                struct cht_err *err);
void cht_snapshot_detach(struct cht_snapshot *s);
/* Pages of one file. */
uint64_t cht_snapshot_pages(const struct cht_snapshot *s, unsigned shard, enum cht_pf_kind kind);
/* Reads n <= CHT_SNAPSHOT_STEP pages and moves the cursor after them: in the order of the line, none left out. */
enum cht_rc cht_snapshot_read(struct cht_snapshot *s, unsigned shard, enum cht_pf_kind kind, uint64_t first,
                              unsigned n, uint8_t *buf, struct cht_err *err);
/* Reads one page at or after the cursor, which stays. */
enum cht_rc cht_snapshot_peek(struct cht_snapshot *s, unsigned shard, enum cht_pf_kind kind, uint64_t page,
                              uint8_t *buf, struct cht_err *err);
/* The writer's part: pages [first, first+n) of pf will be written over. old: their bytes, or NULL. */
void cht_snapshot_save(struct cht_pagefile *pf, uint64_t first, uint64_t n, const uint8_t *old);
