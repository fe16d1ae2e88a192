/* shard: creating, opening and closing the folder of one shard; undo over all its files. */
#include "store/shard.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "store/pagefile_int.h"
#include "store/expiry.h"

#include <string.h>

static const char *const file_names[CHT_PF_KINDS] = {"keys", "values", "recycle", "pairs", "sums"};

unsigned cht_shard_of_name(struct cht_str name, unsigned count)
{
    /* Spread the bits: CRCs of names that differ in their last bits only differ in few low bits. */
    uint64_t h = (uint64_t)cht_crc32c(0x5ca1ab1e, name.p, name.n) * UINT64_C(0x9E3779B97F4A7C15);
    return (unsigned)(((h >> 32) * count) >> 32);
}

static void shard_refs(struct cht_shard *sh)
{
    sh->values = (struct cht_values){sh->pf[CHT_PF_KEYS], sh->pf[CHT_PF_VALUES], sh->pf[CHT_PF_RECYCLE],
                                     sh->index, sh->count};
}

static enum cht_rc open_files(struct cht_shard *sh, bool read_only, struct cht_err *err)
{
    for (int k = 0; k < CHT_PF_KINDS; k++) {
        char path[CHT_PATH_MAX];
        enum cht_rc rc = cht_path_join(path, sizeof path, sh->path, file_names[k], err);
        if (rc == CHT_OK)
            rc = cht_pf_open(sh->io, path, (enum cht_pf_kind)k, read_only, &sh->pf[k], err);
        if (rc != CHT_OK)
            return rc;
    }
    shard_refs(sh);
    return CHT_OK;
}

static enum cht_rc attach_files(struct cht_shard *sh, struct cht_err *err)
{
    for (int k = CHT_PF_KINDS - 1; k >= 0; k--) {
        struct cht_pagefile *sums = k == CHT_PF_SUMS ? NULL : sh->pf[CHT_PF_SUMS];
        enum cht_rc rc = cht_pf_attach(sh->pf[k], sums, sh->uuid, sh->index, sh->count, err);
        if (rc != CHT_OK)
            return rc;
    }
    sh->generation = cht_pf_generation(sh->pf[CHT_PF_SUMS]);
    for (int k = 0; k < CHT_PF_KINDS; k++) {
        if (cht_page_read(sh->pf[k], 0, err) == NULL) /* the whole header page against its sum */
            return CHT_CORRUPT;
        if (cht_pf_generation(sh->pf[k]) != sh->generation)
            return CHT_DAMAGED(err, "%s: is of checkpoint %llu where the shard is at %llu",
                               cht_pf_path(sh->pf[k]), (unsigned long long)cht_pf_generation(sh->pf[k]),
                               (unsigned long long)sh->generation);
    }
    uint64_t seq = cht_get64(sh->pf[CHT_PF_KEYS]->fast.base + CHT_KEYS_SEQ);
    atomic_store_explicit(&sh->checkpoint_seq, seq, memory_order_relaxed);
    sh->applied_seq = seq;
    return cht_values_attach(&sh->values, err);
}

enum cht_rc cht_shard_open(struct cht_io *io, const char *path, const uint8_t uuid[16], unsigned index,
                           unsigned count, enum cht_shard_mode mode, struct cht_shard *sh,
                           struct cht_err *err)
{
    memset(sh, 0, sizeof *sh);
    enum cht_rc rc = cht_rwlock_init(&sh->lock, err);
    if (rc != CHT_OK)
        return rc;
    sh->io = io;
    sh->index = index;
    sh->count = count;
    memcpy(sh->uuid, uuid, 16);
    sh->path = cht_strdup(path);
    if (sh->path == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory", path);
    if (rc == CHT_OK)
        rc = open_files(sh, mode == CHT_SHARD_CHECK, err);
    bool applied = false;
    if (rc == CHT_OK)
        rc = cht_journal_recover(sh, mode, &applied, err);
    if (rc == CHT_OK)
        rc = attach_files(sh, err);
    if (rc != CHT_OK)
        cht_shard_close(sh);
    return rc;
}

void cht_shard_show(struct cht_shard *sh)
{
    atomic_store_explicit(&sh->shown.pairs, cht_trie_pairs(cht_shard_pairs(sh)), memory_order_relaxed);
    atomic_store_explicit(&sh->shown.ending, cht_expiry_count(cht_shard_pairs(sh)), memory_order_relaxed);
    atomic_store_explicit(&sh->shown.values, cht_values_live(&sh->values), memory_order_relaxed);
    atomic_store_explicit(&sh->shown.value_bytes, cht_values_bytes(&sh->values), memory_order_relaxed);
    atomic_store_explicit(&sh->shown.next_key, cht_values_next_key(&sh->values), memory_order_relaxed);
}

void cht_shard_close(struct cht_shard *sh)
{
    cht_checkpoint_abandon(sh);
    for (int k = 0; k < CHT_PF_KINDS; k++) {
        cht_pf_close(sh->pf[k]);
        sh->pf[k] = NULL;
    }
    cht_marks_fini(&sh->marks);
    cht_free(sh->path);
    sh->path = NULL;
    cht_rwlock_fini(&sh->lock);
}

enum cht_rc cht_shard_reread(struct cht_shard *sh, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    bool applied;
    cht_checkpoint_abandon(sh); /* its journal is applied below */
    sh->sums_ahead = false;
    for (int k = 0; k < CHT_PF_KINDS && rc == CHT_OK; k++)
        rc = cht_pf_reset(sh->pf[k], err);
    if (rc == CHT_OK)
        rc = cht_journal_recover(sh, CHT_SHARD_USE, &applied, err);
    if (rc == CHT_OK)
        rc = attach_files(sh, err);
    if (rc == CHT_OK)
        rc = cht_values_recovered(&sh->values, err);
    return rc;
}

/* A new shard is made as five bare headers, then opened, formatted and checkpointed like any other, except that it has no pages
 * of an earlier checkpoint: all go home at once, and there is no journal. */
enum cht_rc cht_shard_create(struct cht_io *io, const char *path, const uint8_t uuid[16], unsigned index,
                             unsigned count, struct cht_shard *sh, struct cht_err *err)
{
    memset(sh, 0, sizeof *sh);
    enum cht_rc rc = io->ops->mkdir(io, path, err);
    for (int k = 0; k < CHT_PF_KINDS && rc == CHT_OK; k++) {
        char file[CHT_PATH_MAX];
        rc = cht_path_join(file, sizeof file, path, file_names[k], err);
        if (rc == CHT_OK)
            rc = cht_pf_create(io, file, (enum cht_pf_kind)k, uuid, index, count, err);
    }
    if (rc == CHT_OK)
        rc = cht_rwlock_init(&sh->lock, err);
    if (rc != CHT_OK)
        return rc;
    sh->io = io;
    sh->unsealed = true;
    sh->index = index;
    sh->count = count;
    memcpy(sh->uuid, uuid, 16);
    sh->path = cht_strdup(path);
    if (sh->path == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory", path);
    else
        rc = open_files(sh, false, err);
    for (int k = CHT_PF_KINDS - 1; k >= 0 && rc == CHT_OK; k--) {
        sh->pf[k]->fast.pages = 1;
        sh->pf[k]->home_pages = 0;
        sh->pf[k]->sums = k == CHT_PF_SUMS ? NULL : sh->pf[CHT_PF_SUMS];
        cht_bit_set((uint64_t *)(void *)sh->pf[k]->fast.verified, 0); /* there is no sum yet */
    }
    if (rc == CHT_OK)
        rc = cht_values_format(&sh->values, err);
    if (rc == CHT_OK)
        rc = cht_trie_format(sh->pf[CHT_PF_PAIRS], err);
    if (rc == CHT_OK)
        rc = cht_shard_checkpoint(sh, err);
    if (rc != CHT_OK)
        cht_shard_close(sh);
    return rc;
}

enum cht_rc cht_shard_seal(struct cht_shard *sh, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (int k = 0; k < CHT_PF_KINDS && rc == CHT_OK; k++)
        rc = cht_file_sync(sh->pf[k]->file, err);
    if (rc == CHT_OK)
        rc = sh->io->ops->sync_dir(sh->io, sh->path, err);
    sh->unsealed = rc != CHT_OK;
    return rc;
}

enum cht_rc cht_shard_checkpoint(struct cht_shard *sh, struct cht_err *err)
{
    struct cht_checkpoint *ck;
    enum cht_rc rc = cht_checkpoint_resume(sh, err);
    if (rc == CHT_OK)
        rc = cht_checkpoint_begin(sh, sh->applied_seq, &ck, err);
    if (rc == CHT_OK)
        rc = cht_checkpoint_run(ck, err);
    if (sh->unfinished == NULL) {
        sh->journal_busy = false;
        sh->journal_space = 0;
    }
    return rc;
}

void cht_shard_undo_begin(struct cht_shard *sh)
{
    for (int k = 0; k < CHT_PF_KINDS; k++)
        cht_pf_undo_begin(sh->pf[k]);
}

void cht_shard_undo_end(struct cht_shard *sh)
{
    for (int k = 0; k < CHT_PF_KINDS; k++)
        cht_pf_undo_end(sh->pf[k]);
}

void cht_shard_undo_rollback(struct cht_shard *sh)
{
    for (int k = 0; k < CHT_PF_KINDS; k++) {
        cht_pf_undo_rollback(sh->pf[k]);
        sh->poisoned |= sh->pf[k]->broken;
    }
}
