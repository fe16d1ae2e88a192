/* apply_take: the locks and undos of a commit: taken shard by shard as operations need them, given back together. */
#include "base/invariant.h"
#include "store/apply_int.h"

struct cht_shard *cht_apply_take(struct cht_apply *a, unsigned i, bool undo)
{
    struct cht_shard *sh = &a->db->shards[i];
    if (!a->held[i]) {
        cht_rwlock_write(&sh->lock);
        a->held[i] = true;
    }
    cht_shard_use_spare(sh, a->frees);
    if (undo && !a->undoing[i]) {
        cht_shard_undo_begin(sh);
        a->undoing[i] = true;
        a->undo_count++;
    }
    return sh;
}

void cht_apply_end_undo(struct cht_apply *a, bool rollback)
{
    for (unsigned i = 0; i < a->db->nshards && a->undo_count > 0; i++) {
        if (!a->undoing[i])
            continue;
        a->undo_count--;
        struct cht_shard *sh = &a->db->shards[i];
        if (rollback)
            cht_shard_undo_rollback(sh);
        else
            cht_shard_undo_end(sh);
        a->undoing[i] = false;
        if (sh->poisoned) {
            a->stuck = true;
            (void)CHT_FAIL(&a->stuck_err, CHT_IO, "%s: an undone large value could not be given back",
                           sh->path);
        }
    }
}

void cht_apply_release(struct cht_apply *a)
{
    for (unsigned i = 0; i < a->db->nshards; i++) {
        if (!a->held[i])
            continue;
        CHT_INVARIANT(!a->undoing[i]); /* a checkpoint that came in between would freeze what is taken back */
        cht_shard_show(&a->db->shards[i]);
        cht_rwlock_write_end(&a->db->shards[i].lock);
        a->held[i] = false;
    }
    a->locked_ops = 0;
}
