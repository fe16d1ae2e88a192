/* reading: how the pages of databases come from the disk.
 *
 * A page that is not in memory is read when it is touched, and the kernel reads what lies around it, too: as much as the disk is set to
 * read ahead, 128 KiB to megabytes. While all databases fit into memory that is the quickest way to have them there. Where they do not it
 * is ruin: each page that is wanted pushes out hundreds that will be. So there each page is read alone, and whoever knows what is going to
 * be read (scans, sweeps, many names at once) asks the disk for it beforehand (cht_pf_soon).
 *
 *   over 3/4 of the memory this process may use, all page files together: alone
 *   under 5/8 again: with what lies around
 *
 * A database looks when it is opened and after each checkpoint; another one that is open looks at its own next checkpoint. The sums and the
 * free lists are small, and read as ever.
 *
 * Threads: cht_db_note_size is called by the thread that opens the database, then by the one that makes its checkpoint.
 */
#include "store/db.h"
#include "store/pagefile_int.h"

static uint64_t files_of(struct cht_db *db)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < db->nshards; i++) {
        struct cht_shard *sh = &db->shards[i];
        cht_rwlock_read(&sh->lock);
        for (int k = 0; k < CHT_PF_KINDS; k++)
            n += sh->pf[k]->file_pages;
        cht_rwlock_read_end(&sh->lock);
    }
    return n * CHT_PAGE;
}

static bool wanted(const struct cht_env *env, bool alone, uint64_t mapped)
{
    if (env->cfg.read_ahead != CHT_READ_AHEAD_AUTO)
        return env->cfg.read_ahead == CHT_READ_AHEAD_NEVER;
    return mapped > env->cfg.memory / 8 * (alone ? 5 : 6);
}

static void set_size(struct cht_db *db, uint64_t size)
{
    uint64_t more = size - db->mapped; /* modulo 2^64, as is the sum */
    db->mapped = size;
    atomic_fetch_add_explicit(&db->env->mapped, more, memory_order_relaxed);
}

/* ------------------------------------------------------------------------------------------------------------ */

void cht_db_note_size(struct cht_db *db)
{
    static const enum cht_pf_kind kinds[] = {CHT_PF_KEYS, CHT_PF_VALUES, CHT_PF_PAIRS};
    bool was = atomic_load_explicit(&db->alone, memory_order_relaxed);
    set_size(db, files_of(db));
    bool now = wanted(db->env, was, atomic_load_explicit(&db->env->mapped, memory_order_relaxed));
    if (now == was)
        return;
    atomic_store_explicit(&db->alone, now, memory_order_relaxed);
    for (unsigned i = 0; i < db->nshards; i++) {
        struct cht_shard *sh = &db->shards[i];
        cht_rwlock_write(&sh->lock);
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
            cht_pf_read_alone(sh->pf[kinds[k]], now);
        cht_rwlock_write_end(&sh->lock);
    }
}

void cht_db_forget_size(struct cht_db *db) { set_size(db, 0); }
