/* followers: who waits for changes (changes.h). */
#include "store/commit_int.h"

uint64_t cht_followers_end(const struct cht_db *db)
{
    return db->committer->cfg.durability == CHT_DURABLE_OS ? cht_wal_seq(db->wal) : cht_wal_synced(db->wal);
}

static void unlist_locked(struct cht_followers *f, struct cht_follower *c)
{
    if (c->wait == NULL)
        return;
    *c->at = c->listed;
    if (c->listed != NULL)
        c->listed->at = c->at;
    c->wait = NULL;
    atomic_fetch_sub_explicit(&f->waiting, 1, memory_order_acq_rel);
}

enum cht_rc cht_followers_init(struct cht_followers *f, struct cht_err *err)
{
    return cht_mutex_init(&f->mu, err);
}

void cht_followers_fini(struct cht_followers *f) { cht_mutex_fini(&f->mu); }

void cht_followers_tell(struct cht_db *db)
{
    struct cht_followers *f = &db->followers;
    if (atomic_fetch_add_explicit(&f->waiting, 0, memory_order_acq_rel) == 0)
        return;
    cht_mutex_lock(&f->mu);
    uint64_t end = cht_followers_end(db);
    bool news = end != f->told; /* who is listed has seen all up to then, or up to `told` */
    f->told = end;
    while (news && f->listed != NULL) {
        struct cht_wait *w = f->listed->wait;
        unlist_locked(f, f->listed);
        w->done(w);
    }
    cht_mutex_unlock(&f->mu);
}

enum cht_rc cht_follower_await(struct cht_changes *base, struct cht_wait *w)
{
    struct cht_follower *c = cht_follower(base);
    struct cht_followers *f = &c->db->followers;
    cht_mutex_lock(&f->mu);
    unlist_locked(f, c);
    c->wait = w;
    c->listed = f->listed;
    c->at = &f->listed;
    if (c->listed != NULL)
        c->listed->at = &c->listed;
    f->listed = c;
    atomic_fetch_add_explicit(&f->waiting, 1, memory_order_acq_rel);
    bool more = cht_followers_end(c->db) >= c->place.next;
    if (more)
        unlist_locked(f, c);
    cht_mutex_unlock(&f->mu);
    return more ? CHT_OK : CHT_PENDING;
}

void cht_follower_forget(struct cht_changes *base)
{
    struct cht_follower *c = cht_follower(base);
    struct cht_followers *f = &c->db->followers;
    cht_mutex_lock(&f->mu);
    unlist_locked(f, c);
    cht_mutex_unlock(&f->mu);
}
