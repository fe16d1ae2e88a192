/* db_scrub: compares the page files of an open database with their sums, slowly, beside everything else. */
#include "base/clock.h"
#include "store/commit.h"
#include "store/db_store.h"
#include "store/pagefile_int.h"

#define SCRUB_STEP 64u        /* pages */
#define SCRUB_DEAD_MAX 16384u /* changed pages of a file up to which pages of dead keys are added to them */
#define SCRUB_NAP_NS UINT64_C(100000000)

/* A page of dead keys that nothing has changed since it could be given back (an older version made it so): the next checkpoint
 * looks at it. A few at a time, since they count as changed memory until then. */
static void give_back_later(struct cht_shard *sh, struct cht_pagefile *pf, uint64_t page)
{
    cht_rwlock_write(&sh->lock);
    if (!sh->poisoned && pf->dirty_count < SCRUB_DEAD_MAX)
        cht_pf_redirty(pf, page);
    cht_rwlock_write_end(&sh->lock);
}

/* One page while a checkpoint is not under way. */
static enum cht_rc scrub_page(struct cht_shard *sh, struct cht_pagefile *pf, uint64_t p, uint8_t *buf,
                              struct cht_err *err)
{
    enum cht_rc rc = cht_db_enter(sh, err);
    if (rc != CHT_OK)
        return rc;
    /* after a checkpoint that was given up or is not finished the sum may be that of the page to be */
    bool ahead = sh->unfinished != NULL || (sh->sums_ahead && cht_bit(pf->dirty, p));
    rc = ahead ? CHT_OK : cht_pf_scrub_page(pf, p, buf, err);
    bool dead = !ahead && rc == CHT_OK && pf->kind == CHT_PF_KEYS && !cht_page_is_zeros(buf) &&
                cht_values_dead_page(&sh->values, p, buf);
    cht_rwlock_read_end(&sh->lock);
    if (dead)
        give_back_later(sh, pf, p);
    return rc;
}

/* Compares a few pages as they are on disk with their sums. Between a write home and its sum, or for a large value being
 * written, they may differ for a moment: such a page is looked at again with nothing else going on. *end: there are no
 * more; how many there are is a checkpoint's to change. */
static enum cht_rc scrub_pages(struct cht_db *db, struct cht_shard *sh, struct cht_pagefile *pf,
                               uint64_t first, bool *end, struct cht_scrub *scrub, struct cht_err *err)
{
    uint8_t buf[CHT_PAGE];
    cht_committer_pause(db->committer, false);
    *end = first + SCRUB_STEP >= pf->home_pages;
    for (uint64_t p = first; p < first + SCRUB_STEP && p < pf->home_pages; p++) {
        scrub->bytes += CHT_PAGE;
        struct cht_err local = {0};
        enum cht_rc rc = scrub_page(sh, pf, p, buf, &local);
        if (rc == CHT_CORRUPT || rc == CHT_IO) {
            cht_committer_resume(db->committer, false);
            cht_committer_pause(db->committer, true);
            rc = cht_pf_scrub_page(pf, p, buf, &local);
            cht_committer_resume(db->committer, true);
            cht_committer_pause(db->committer, false);
        }
        if (rc == CHT_CORRUPT ||
            rc == CHT_IO) { /* what cannot be read is damaged, and the rest is looked at */
            atomic_fetch_add_explicit(&db->corrupt, 1, memory_order_relaxed);
            if (scrub->bad++ == 0)
                scrub->first = local;
        } else if (rc != CHT_OK) {
            cht_committer_resume(db->committer, false);
            if (err != NULL)
                *err = local;
            return rc;
        }
    }
    cht_committer_resume(db->committer, false);
    return CHT_OK;
}

/* Sleeps until that many bytes may have been compared. True if the caller wants no more. */
static bool scrub_rest(struct cht_scrub *scrub, uint64_t start)
{
    for (;;) {
        if (scrub->stop != NULL && scrub->stop(scrub->ctx))
            return true;
        uint64_t rate = scrub->bytes_per_second, now = cht_now_ns() - start;
        uint64_t due = rate == 0 ? 0 : (uint64_t)((double)scrub->bytes / (double)rate * 1e9);
        if (due <= now)
            return false;
        cht_sleep_ns(due - now < SCRUB_NAP_NS ? due - now : SCRUB_NAP_NS);
    }
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_db_scrub(struct cht_store *s, struct cht_scrub *scrub, struct cht_err *err)
{
    struct cht_db *db = cht_db(s);
    uint64_t start = cht_now_ns();
    scrub->bytes = scrub->bad = 0;
    for (unsigned i = 0; i < db->nshards; i++) {
        for (int k = 0; k < CHT_PF_KINDS; k++) {
            struct cht_pagefile *pf = db->shards[i].pf[k];
            bool end = false;
            for (uint64_t p = 0; !end; p += SCRUB_STEP) {
                enum cht_rc rc = scrub_pages(db, &db->shards[i], pf, p, &end, scrub, err);
                if (rc != CHT_OK)
                    return rc;
                if (scrub_rest(scrub, start))
                    return CHT_FAIL(err, CHT_CANCELLED, "the scrub was stopped");
            }
        }
    }
    return CHT_OK;
}
