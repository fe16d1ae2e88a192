/* journal: where a checkpoint puts the changes to pages that the last checkpoint holds, before it makes them.
 *
 * File "journal" of a shard, little-endian:
 *   header 512 bytes: 0 magic[8] "CHEETAHJ"  8 version u32  12 reserved u32  16 uuid[16]  32 shard u32  36 body crc u32
 *                     40 generation u64  48 body bytes u64  56 records u64  64 reserved..  508 crc u32 of 0..507
 *   body from 512: records, 8-aligned:
 *     0 kind u8 (enum cht_pf_kind)  1 zero  2 ranges u16  4 sum u32 of the whole page as it will be  8 page u64
 *     16 ranges x { off u16, len u16 }, then the bytes of all ranges, zero-padded to 8
 * Only the bytes that differ from the page as it is on disk are kept. That is enough to repair a page torn in the
 * middle of its write: a sector holds either its old or its new bytes, and if they differ the journal has the
 * new ones. Written and synced before the first page is written home; it counts only with header and body intact, so
 * a torn journal is ignored; applying it twice does no harm. Dropped (cut to nothing, synced) when the pages are home and
 * before anything else may change them. Between checkpoints it has space without content (reserve.c): zeros, which are no header.
 */
#pragma once

#include "base/bytes.h"
#include "os/io.h"
#include "store/pagefile_int.h"
#include "store/shard.h"

struct cht_journal {
    struct cht_file *file; /* owned */
    uint8_t *buf;          /* owned staging */
    size_t used;
    uint64_t body; /* bytes of the body so far, staged ones included */
    uint64_t records;
    uint32_t crc;
    bool sealed; /* its header was written */
};
#define CHT_JOURNAL_STAGE (1u << 20)
#define CHT_JOURNAL_HEADER 512u

enum cht_rc cht_journal_open(struct cht_shard *sh, bool read_only, struct cht_journal *j,
                             struct cht_err *err);
void cht_journal_close(struct cht_journal *j);
/* Adds a page of `kind`; `now` is the page to be, `home` scratch for one page. */
enum cht_rc cht_journal_add(struct cht_journal *j, struct cht_pagefile *pf, uint64_t page, const uint8_t *now,
                            uint32_t sum, uint8_t *home, struct cht_err *err);
enum cht_rc cht_journal_commit(struct cht_journal *j, struct cht_shard *sh, uint64_t generation,
                               struct cht_err *err);
/* Writes every record home (to the files, or into the private maps). verify: compare with the sums, as recovery does. */
enum cht_rc cht_journal_apply(struct cht_journal *j, struct cht_shard *sh, bool in_memory, bool verify,
                              struct cht_err *err);
enum cht_rc cht_journal_drop(struct cht_journal *j, struct cht_err *err);
