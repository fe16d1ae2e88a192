/* checkpoint: brings a shard's page files from one consistent state to the next.
 *
 *   begin  C1 under the shard lock: pending extents, headers, log position; then the four files are frozen: what is
 *             dirty now is what this checkpoint writes, later changes keep a before-image (pagefile.c)
 *   run    C2 copy the frozen pages, 64 at a time under the shared lock: new ones (after the end of the last
 *             checkpoint) are written home at once, nothing refers to them yet; the others go into the journal
 *          C3 their sums go into the sums file (exclusive, memory only), whose dirty pages are frozen and copied too
 *          C4 sync the page files (new pages, direct pages), then commit the journal: from here on the checkpoint counts
 *          C5 write the journalled pages home, sync, drop the journal
 *          C6 extents that this checkpoint knows free become usable; private copies are given back, and the space of pages
 *             that are zeros (pagefile_holes.c); pages of `keys` with dead keys only were written as zeros
 *
 * A passing condition (no room, no memory, no descriptor, a disk that is mounted read-only) before the end of C4: the journal is
 * dropped, and all pages that were taken are dirty again; the next checkpoint writes them. In C5 the checkpoint counts already
 * and some of its pages may be home, so it is kept as it is, and goes on where it was before the shard's next one
 * (cht_checkpoint_resume); redoing C5 from its start does no harm until the journal is cut. Any other failure poisons the shard.
 *
 * A crash before the end of C4 leaves the last checkpoint as it was (pages after its end do not count), after it the
 * journal completes this one. The log up to the position is durable before begin returns to the caller's commit lock,
 * see commit_check.c.
 */
#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/invariant.h"
#include "store/arena.h"
#include "store/journal.h"
#include "store/snapshot.h"

#include <string.h>

#define SHORTEN 128u /* free pages taken off a list that is too long, at a time */
#define BATCH 64u    /* pages copied in one locked section: 256 KiB */

struct page_list {  /* the pages of one file that this checkpoint writes */
    uint64_t *page; /* owned */
    uint32_t *sum;  /* owned */
    size_t n, cap;
};

struct cht_checkpoint {
    struct cht_shard *sh;
    uint64_t seq, generation;
    struct page_list list[CHT_PF_KINDS];
    struct cht_journal journal;
    bool counts;                 /* C4 is over */
    bool home_synced;            /* C5 is over but for the journal, which may be cut already */
    uint8_t *buf;                /* owned: BATCH pages and one of scratch */
    uint64_t home[CHT_PF_KINDS]; /* pages of the last checkpoint */
};

static void list_fini(struct page_list *l)
{
    cht_free(l->page);
    cht_free(l->sum);
}

static enum cht_rc list_reserve(struct page_list *l, size_t cap, struct cht_err *err)
{
    if (cap <= l->cap)
        return CHT_OK;
    uint64_t *page = cht_realloc(l->page, cap * sizeof *page);
    if (page != NULL)
        l->page = page;
    uint32_t *sum = page == NULL ? NULL : cht_realloc(l->sum, cap * sizeof *sum);
    if (sum == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a checkpoint of %zu pages", cap);
    l->sum = sum;
    l->cap = cap;
    return CHT_OK;
}

static void checkpoint_free(struct cht_checkpoint *ck)
{
    for (int k = 0; k < CHT_PF_KINDS; k++)
        list_fini(&ck->list[k]);
    cht_journal_close(&ck->journal);
    cht_free(ck->buf);
    cht_free(ck);
}

/* The part of C1 that needs no lock any more. */
static enum cht_rc freeze_locked(struct cht_checkpoint *ck, struct cht_err *err)
{
    struct cht_shard *sh = ck->sh;
    if (sh->poisoned)
        return CHT_FAIL(err, CHT_READ_ONLY, "%s: a checkpoint failed before", sh->path);
    cht_shard_use_spare(sh, true);
    enum cht_rc rc = cht_values_checkpoint_freeze(&sh->values, err);
    uint8_t *keys = rc == CHT_OK ? cht_page_write(sh->pf[CHT_PF_KEYS], 0, err) : NULL;
    if (keys == NULL)
        return rc != CHT_OK ? rc : err->code;
    cht_put64(keys + CHT_KEYS_SEQ, ck->seq);
    cht_arena_shorten(sh->pf[CHT_PF_PAIRS], SHORTEN);
    if (cht_arena_has_holes(sh->pf[CHT_PF_PAIRS])) {
        cht_pf_cut_tail(sh->pf[CHT_PF_PAIRS]);
        cht_arena_clear_tail(sh->pf[CHT_PF_PAIRS]);
    }
    ck->generation = sh->generation + 1;
    for (int k = 0; k < CHT_PF_KINDS && rc == CHT_OK; k++)
        rc = cht_pf_seal_header(sh->pf[k], ck->generation, err);
    for (int k = 0; k < CHT_PF_SUMS && rc == CHT_OK; k++)
        rc = list_reserve(&ck->list[k], sh->pf[k]->dirty_count, err);
    if (rc != CHT_OK)
        return rc;
    for (int k = 0; k < CHT_PF_SUMS; k++) {
        ck->home[k] = sh->pf[k]->home_pages;
        cht_pf_freeze(sh->pf[k]);
    }
    ck->home[CHT_PF_SUMS] = sh->pf[CHT_PF_SUMS]->home_pages;
    return CHT_OK;
}

enum cht_rc cht_checkpoint_begin(struct cht_shard *sh, uint64_t seq, struct cht_checkpoint **out,
                                 struct cht_err *err)
{
    struct cht_err local = {0};
    if (err == NULL)
        err = &local;
    struct cht_checkpoint *ck = cht_calloc(1, sizeof *ck);
    if (ck == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a checkpoint");
    ck->sh = sh;
    ck->seq = seq;
    ck->buf = cht_malloc((BATCH + 1) * CHT_PAGE);
    enum cht_rc rc = ck->buf == NULL ? CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a checkpoint") : CHT_OK;
    if (rc == CHT_OK)
        rc = cht_journal_open(sh, false, &ck->journal, err);
    if (rc == CHT_OK) {
        cht_rwlock_write(&sh->lock);
        rc = freeze_locked(ck, err);
        cht_rwlock_write_end(&sh->lock);
    }
    if (rc != CHT_OK) {
        checkpoint_free(ck);
        return rc;
    }
    sh->journal_busy = true;
    *out = ck;
    return CHT_OK;
}

/* Writes pages[i] = buf + i pages home; runs of neighbours in one write. */
static enum cht_rc write_home(struct cht_pagefile *pf, const uint64_t *pages, size_t n, const uint8_t *buf,
                              struct cht_err *err)
{
    for (size_t i = 0, run; i < n; i += run) {
        for (run = 1; i + run < n && pages[i + run] == pages[i] + run; run++)
            ;
        cht_snapshot_save(pf, pages[i], run, NULL); /* of a snapshot from before the tail was cut off */
        enum cht_rc rc =
            cht_file_write(pf->file, buf + i * CHT_PAGE, run * CHT_PAGE, pages[i] * CHT_PAGE, err);
        if (rc != CHT_OK)
            return rc;
        atomic_store_explicit(&pf->unsynced, true, memory_order_relaxed);
        atomic_fetch_add_explicit(&pf->written, run * CHT_PAGE, memory_order_relaxed);
    }
    return CHT_OK;
}

/* The sum of a page as it goes home; a page of sums gets its own. *kept: what the sums will say, 0 of a page of zeros. Free
 * pages of `values` have sum 0 since they were released; a page of zeros there belongs to a value. */
static uint32_t seal_copy(int kind, uint8_t *p, uint32_t *kept)
{
    if (kind == CHT_PF_SUMS)
        cht_put32(p + CHT_PAGE - 4, 0);
    bool zeros = kind != CHT_PF_VALUES && cht_page_is_zeros(p);
    uint32_t sum = kind == CHT_PF_SUMS ? cht_crc32c(0, p, CHT_PAGE - 4) : cht_page_sum(p);
    *kept = zeros ? 0 : sum;
    if (kind == CHT_PF_SUMS)
        cht_put32(p + CHT_PAGE - 4, *kept);
    return sum;
}

/* Copies up to BATCH frozen pages into buf, under the shared lock; pages of dead keys as zeros. */
static enum cht_rc take_batch(struct cht_checkpoint *ck, int kind, uint64_t *cursor, struct cht_err *err)
{
    struct cht_pagefile *pf = ck->sh->pf[kind];
    struct page_list *l = &ck->list[kind];
    size_t first = l->n;
    enum cht_rc rc = CHT_OK;
    cht_rwlock_read(&ck->sh->lock);
    for (uint8_t *p = ck->buf; l->n < first + BATCH && l->n < l->cap; p += CHT_PAGE) {
        if (!cht_pf_take(pf, cursor, &l->page[l->n], p))
            break;
        if (kind == CHT_PF_KEYS && cht_values_dead_page(&ck->sh->values, l->page[l->n], p))
            memset(p, 0, CHT_PAGE);
        l->n++;
    }
    for (size_t i = first; cht_pf_losses(pf) != 0 && i < l->n && rc == CHT_OK; i++) {
        if (cht_pf_lost(pf, l->page[i])) /* what was copied is not what was written */
            rc = cht_pf_say_lost(pf, l->page[i], err);
    }
    cht_rwlock_read_end(&ck->sh->lock);
    return rc;
}

/* C2 for one file: takes batches of frozen pages until none is left. */
static enum cht_rc copy_file(struct cht_checkpoint *ck, int kind, struct cht_err *err)
{
    struct cht_pagefile *pf = ck->sh->pf[kind];
    struct page_list *l = &ck->list[kind];
    uint64_t cursor = 0;
    for (;;) {
        size_t first = l->n;
        enum cht_rc rc = take_batch(ck, kind, &cursor, err);
        size_t n = l->n - first;
        if (n == 0 || rc != CHT_OK)
            return rc;
        size_t fresh = 0; /* of the batch, those in front are after the old end: compacted for write_home */
        uint64_t fresh_page[BATCH];
        for (size_t i = 0; i < n && rc == CHT_OK; i++) {
            uint8_t *p = ck->buf + i * CHT_PAGE;
            uint32_t sum = seal_copy(kind, p, &l->sum[first + i]);
            if (l->page[first + i] < ck->home[kind]) {
                rc = cht_journal_add(&ck->journal, pf, l->page[first + i], p, sum, ck->buf + BATCH * CHT_PAGE,
                                     err);
                continue;
            }
            if (fresh != i)
                memcpy(ck->buf + fresh * CHT_PAGE, p, CHT_PAGE);
            fresh_page[fresh++] = l->page[first + i];
        }
        if (rc == CHT_OK)
            rc = write_home(pf, fresh_page, fresh, ck->buf, err);
        if (rc != CHT_OK)
            return rc;
    }
}

/* C3: sums of all copied pages into the sums file, then freezes that. */
static enum cht_rc store_sums(struct cht_checkpoint *ck, struct cht_err *err)
{
    struct cht_shard *sh = ck->sh;
    struct cht_pagefile *sums = sh->pf[CHT_PF_SUMS];
    enum cht_rc rc = CHT_OK;
    cht_rwlock_write(&sh->lock);
    for (int k = 0; k < CHT_PF_SUMS; k++) {
        for (size_t i = 0; i < ck->list[k].n && rc == CHT_OK; i++)
            rc = cht_sums_set(sums, (enum cht_pf_kind)k, ck->list[k].page[i], ck->list[k].sum[i], err);
    }
    if (rc == CHT_OK)
        rc = cht_pf_seal_header(sums, ck->generation, err); /* it may have grown */
    if (rc == CHT_OK)
        rc = list_reserve(&ck->list[CHT_PF_SUMS], sums->dirty_count, err);
    if (rc == CHT_OK)
        cht_pf_freeze(sums);
    cht_rwlock_write_end(&sh->lock);
    return rc == CHT_OK ? copy_file(ck, CHT_PF_SUMS, err) : rc;
}

static enum cht_rc sync_files(struct cht_shard *sh, struct cht_err *err)
{
    for (int k = 0; k < CHT_PF_KINDS; k++) {
        if (!atomic_exchange_explicit(&sh->pf[k]->unsynced, false, memory_order_relaxed))
            continue;
        enum cht_rc rc = cht_file_sync(sh->pf[k]->file, err);
        if (rc != CHT_OK) {
            atomic_store_explicit(&sh->pf[k]->unsynced, true, memory_order_relaxed);
            return rc;
        }
    }
    return CHT_OK;
}

/* Space that cannot be given back now is only not gained; an I/O error is one. */
static enum cht_rc give_back_space(struct cht_pagefile *pf, const uint64_t *pages, const uint32_t *sums,
                                   size_t n, struct cht_err *err)
{
    enum cht_rc rc = cht_pf_give_back(pf, pages, sums, n, err);
    return rc == CHT_IO ? rc : CHT_OK;
}

/* Pages of sums that the file got only because others after them were needed: no sum has come into them. And what files
 * have reserved ahead of need, if they need much less now. */
static enum cht_rc give_back_rest(struct cht_checkpoint *ck, struct cht_err *err)
{
    struct cht_pagefile *sums = ck->sh->pf[CHT_PF_SUMS];
    enum cht_rc rc = CHT_OK;
    uint64_t page[BATCH];
    uint32_t sum[BATCH];
    for (uint64_t end = ck->home[CHT_PF_SUMS]; rc == CHT_OK;) {
        unsigned n = 0;
        cht_rwlock_read(&ck->sh->lock);
        for (; end < sums->home_pages && n < BATCH; end++) {
            if (cht_pf_known_zeros(sums, end)) {
                page[n] = end;
                sum[n++] = 0;
            }
        }
        if (n > 0)
            rc = give_back_space(sums, page, sum, n, err);
        cht_rwlock_read_end(&ck->sh->lock);
        if (n == 0)
            break;
    }
    cht_rwlock_write(&ck->sh->lock);
    for (int k = 0; k < CHT_PF_KINDS && rc == CHT_OK; k++)
        rc = cht_pf_cut_file(ck->sh->pf[k], err);
    cht_rwlock_write_end(&ck->sh->lock);
    return rc;
}

/* C6. */
static enum cht_rc finish(struct cht_checkpoint *ck, struct cht_err *err)
{
    struct cht_shard *sh = ck->sh;
    cht_rwlock_write(&sh->lock);
    for (int k = 0; k < CHT_PF_KINDS; k++)
        cht_pf_settle(sh->pf[k], true);
    sh->generation = ck->generation;
    sh->sums_ahead = false;
    atomic_store_explicit(&sh->checkpoint_seq, ck->seq, memory_order_release);
    cht_shard_use_spare(sh, true);
    bool pinned = atomic_load_explicit(&sh->pins, memory_order_relaxed) > 0;
    enum cht_rc rc = cht_values_checkpoint_complete(&sh->values, pinned, err);
    cht_rwlock_write_end(&sh->lock);
    if (cht_rc_passing(rc))
        rc = CHT_OK; /* what is pending stays so until the next checkpoint */
    for (int k = 0; k < CHT_PF_KINDS && rc == CHT_OK; k++) {
        for (size_t i = 0; i < ck->list[k].n && rc == CHT_OK; i += BATCH) {
            size_t n = ck->list[k].n - i < BATCH ? ck->list[k].n - i : BATCH;
            cht_rwlock_read(&sh->lock);
            rc = cht_pf_forget(sh->pf[k], ck->list[k].page + i, n, err);
            if (rc == CHT_OK)
                rc = give_back_space(sh->pf[k], ck->list[k].page + i, ck->list[k].sum + i, n, err);
            cht_rwlock_read_end(&sh->lock);
        }
    }
    if (rc == CHT_OK)
        rc = give_back_rest(ck, err);
    return cht_rc_passing(rc) ? CHT_OK : rc; /* copies and space that stay are only not gained */
}

/* Before C4 nothing of the checkpoint counts: the journal goes, and everything that was taken is dirty again. A journal that may
 * have its header and cannot be dropped would be applied by the next opening, over pages that later checkpoints have written:
 * that is no passing condition any more. */
static enum cht_rc give_back(struct cht_checkpoint *ck, enum cht_rc why, struct cht_err *err)
{
    struct cht_shard *sh = ck->sh;
    struct cht_err local = {0};
    bool dropped = cht_journal_drop(&ck->journal, &local) == CHT_OK;
    cht_rwlock_write(&sh->lock);
    sh->sums_ahead = true; /* of pages that the file does not have */
    for (int k = 0; k < CHT_PF_KINDS; k++) {
        struct cht_pagefile *pf = sh->pf[k];
        uint64_t cursor = 0, page;
        for (size_t i = 0; i < ck->list[k].n; i++)
            cht_pf_redirty(pf, ck->list[k].page[i]);
        while (cht_pf_take(pf, &cursor, &page, ck->buf))
            cht_pf_redirty(pf, page);
        cht_pf_settle(pf, false);
    }
    cht_rwlock_write_end(&sh->lock);
    if (dropped || !ck->journal.sealed)
        return why;
    if (err != NULL)
        *err = local;
    return CHT_IO;
}

/* C2 to C4. */
static enum cht_rc write_down(struct cht_checkpoint *ck, struct cht_err *err)
{
    struct cht_shard *sh = ck->sh;
    enum cht_rc rc = CHT_OK;
    cht_rwlock_read(&sh->lock); /* whose files are not growing then */
    for (int k = 0; k < CHT_PF_KINDS && rc == CHT_OK; k++)
        rc = cht_pf_uncut(sh->pf[k], err);
    cht_rwlock_read_end(&sh->lock);
    for (int k = 0; k < CHT_PF_SUMS && rc == CHT_OK; k++)
        rc = copy_file(ck, k, err);
    if (rc == CHT_OK)
        rc = store_sums(ck, err);
    if (rc == CHT_OK && !sh->unsealed)
        rc = sync_files(sh, err);
    if (rc == CHT_OK && !sh->unsealed)
        rc = cht_journal_commit(&ck->journal, sh, ck->generation, err);
    ck->counts = rc == CHT_OK;
    return rc;
}

/* C5 and C6. */
static enum cht_rc bring_home(struct cht_checkpoint *ck, struct cht_err *err)
{
    struct cht_shard *sh = ck->sh;
    if (sh->unsealed) /* nothing counts before it is sealed, and all its pages are home */
        return finish(ck, err);
    enum cht_rc rc = CHT_OK;
    if (!ck->home_synced)
        rc = cht_journal_apply(&ck->journal, sh, false, false, err);
    if (rc == CHT_OK && !ck->home_synced)
        rc = sync_files(sh, err);
    ck->home_synced = rc == CHT_OK;
    if (rc == CHT_OK)
        rc = cht_journal_drop(&ck->journal, err);
    return rc == CHT_OK ? finish(ck, err) : rc;
}

/* What becomes of a checkpoint that was run as far as it went. */
static enum cht_rc conclude(struct cht_checkpoint *ck, enum cht_rc rc, struct cht_err *err)
{
    struct cht_shard *sh = ck->sh;
    if (cht_rc_passing(rc) && ck->counts) {
        sh->unfinished = ck;
        return rc;
    }
    if (cht_rc_passing(rc))
        rc = give_back(ck, rc, err);
    sh->unfinished = NULL;
    if (rc != CHT_OK && !cht_rc_passing(rc)) {
        cht_rwlock_write(&sh->lock);
        sh->poisoned = true;
        cht_rwlock_write_end(&sh->lock);
    }
    checkpoint_free(ck);
    return rc;
}

enum cht_rc cht_checkpoint_run(struct cht_checkpoint *ck, struct cht_err *err)
{
    struct cht_err local = {0};
    if (err == NULL)
        err = &local;
    enum cht_rc rc = write_down(ck, err);
    atomic_fetch_add_explicit(&ck->sh->written_bytes, CHT_JOURNAL_HEADER + ck->journal.body,
                              memory_order_relaxed);
    if (rc == CHT_OK)
        rc = bring_home(ck, err);
    return conclude(ck, rc, err);
}

enum cht_rc cht_checkpoint_resume(struct cht_shard *sh, struct cht_err *err)
{
    struct cht_err local = {0};
    if (sh->unfinished == NULL)
        return CHT_OK;
    if (err == NULL)
        err = &local;
    return conclude(sh->unfinished, bring_home(sh->unfinished, err), err);
}

void cht_checkpoint_abandon(struct cht_shard *sh)
{
    if (sh->unfinished != NULL)
        checkpoint_free(sh->unfinished); /* the journal stays: the next opening applies it */
    sh->unfinished = NULL;
}
