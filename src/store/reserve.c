/* reserve: space that is kept so that a full disk does not stop a checkpoint, which is what gives space back.
 *
 *   journal   as long as pages of the last checkpoint are dirty, the journal of the shard has the space that writing them down can
 *             take. A shard of some size always has a little, for those that only delete
 *   spare     files that deletes let grow keep some pages for them (pagefile.c)
 *   tails     what other page files have got ahead of need is given up when deletes find no room for their log
 *
 * The journal's space goes when it is dropped and is taken again at once. If it cannot be had, the next checkpoint is due now:
 * it makes the need small again (commit_check.c).
 */
#include "store/journal.h"

#define STEP (UINT64_C(64) << 10)
#define PAGE_MOST 4352u /* of a page with all of its ranges, see journal.h */
#define SUM_MOST 64u    /* what its sum can add */
#define LOOK_AGAIN 16u  /* dirty pages more than when they were last counted, or an eighth more */
#define EXTRA 8u        /* pages that a checkpoint itself changes: headers, lists */
#define SOME_PAGES 256u /* of all files: from here on a shard keeps a step for deletes */

/* Dirty pages that the last checkpoint has: those that go through the journal. */
static uint64_t home_dirty(const struct cht_pagefile *pf)
{
    uint64_t n = 0, end = pf->home_pages < pf->map_pages ? pf->home_pages : pf->map_pages;
    for (uint64_t w = 0; w < end / 64; w++)
        n += (uint64_t)__builtin_popcountll(pf->dirty[w]);
    if (end % 64 != 0)
        n += (uint64_t)__builtin_popcountll(pf->dirty[end / 64] & ((UINT64_C(1) << end % 64) - 1));
    return n;
}

static uint64_t slack(uint64_t dirty) { return dirty / 8 > LOOK_AGAIN ? dirty / 8 : LOOK_AGAIN; }

static uint64_t need_of(struct cht_shard *sh, uint64_t dirty)
{
    uint64_t pages = 0, home = 0;
    cht_rwlock_read(&sh->lock);
    for (int k = 0; k < CHT_PF_KINDS; k++) {
        pages += sh->pf[k]->home_pages;
        home += home_dirty(sh->pf[k]);
    }
    cht_rwlock_read_end(&sh->lock);
    if (home == 0 && pages < SOME_PAGES)
        return 0;
    uint64_t more = slack(dirty),
             others = pages - home; /* of the last checkpoint: more than those cannot get dirty */
    uint64_t n = CHT_JOURNAL_HEADER + (home + (more < others ? more : others) + EXTRA) * PAGE_MOST +
                 (dirty + more) * SUM_MOST;
    return (n + STEP - 1) / STEP * STEP;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_shard_reserve(struct cht_shard *sh, struct cht_err *err)
{
    uint64_t dirty = 0;
    for (int k = 0; k < CHT_PF_KINDS; k++)
        dirty += sh->pf[k]->dirty_count;
    if (sh->journal_busy || (sh->journal_space > 0 && dirty < sh->reserved_at + slack(sh->reserved_at)))
        return CHT_OK;
    uint64_t need = need_of(sh, dirty);
    struct cht_file *f = NULL;
    char path[CHT_PATH_MAX];
    enum cht_rc rc = CHT_OK;
    if (need > sh->journal_space) {
        rc = cht_path_join(path, sizeof path, sh->path, "journal", err);
        if (rc == CHT_OK)
            rc = cht_pf_same(sh->pf[CHT_PF_KEYS], err);
        if (rc == CHT_OK)
            rc = cht_io_open(sh->io, path, CHT_OPEN_CREATE, &f, err);
        if (rc == CHT_OK)
            rc = sh->io->ops->allocate(f, sh->journal_space, need - sh->journal_space, err);
        cht_file_close(f);
    }
    if (rc != CHT_OK)
        return rc;
    sh->reserved_at = dirty;
    sh->journal_space = need > sh->journal_space ? need : sh->journal_space;
    return CHT_OK;
}

enum cht_rc cht_shard_unreserve(struct cht_shard *sh, struct cht_err *err)
{
    struct cht_file *f = NULL;
    char path[CHT_PATH_MAX];
    if (sh->journal_space == 0)
        return CHT_OK;
    enum cht_rc rc = cht_path_join(path, sizeof path, sh->path, "journal", err);
    if (rc == CHT_OK)
        rc = cht_pf_same(sh->pf[CHT_PF_KEYS], err);
    if (rc == CHT_OK)
        rc = cht_io_open(sh->io, path, 0, &f, err);
    if (rc == CHT_OK)
        rc = sh->io->ops->truncate(f, 0, err);
    if (rc == CHT_OK) /* before the log says that nothing is left to do */
        rc = cht_file_sync(f, err);
    cht_file_close(f);
    if (rc == CHT_OK)
        sh->journal_space = 0;
    return rc;
}

void cht_shard_use_spare(struct cht_shard *sh, bool may)
{
    sh->pf[CHT_PF_RECYCLE]->use_spare = may;
    sh->pf[CHT_PF_PAIRS]->use_spare = may;
}

void cht_shard_give_tails(struct cht_shard *sh)
{
    struct cht_err ignored; /* what cannot be given up now is not gained */
    cht_rwlock_write(&sh->lock);
    for (int k = 0; k < CHT_PF_SUMS; k++) {
        struct cht_pagefile *pf = sh->pf[k];
        bool used =
            k == CHT_PF_RECYCLE || k == CHT_PF_PAIRS || (pf->snap != NULL && pf->snap_pages > pf->fast.pages);
        if (!used && pf->file_pages > pf->fast.pages)
            (void)cht_pf_trim(pf, &ignored);
    }
    cht_rwlock_write_end(&sh->lock);
}
