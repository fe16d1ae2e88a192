/* store: the public calls, handed to the implementation behind the handle; arguments that no implementation accepts
 * are refused here. */
#include "cheetah/store.h"

#include "store/store_int.h"
#include "store/watch.h"

static enum cht_rc bad_name(struct cht_str name, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_INVALID_PAIR, "a pair name of %zu bytes; 1 to %u are allowed", name.n,
                    CHT_NAME_MAX);
}

static bool name_ok(struct cht_str name) { return name.n > 0 && name.n <= CHT_NAME_MAX; }

static enum cht_rc bad_key(uint64_t key, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_INVALID_KEY, "key %llu; keys are 1 to 2^48-1", (unsigned long long)key);
}

/* ---- environments ------------------------------------------------------------------------------------------------ */

enum cht_rc cht_env_close(struct cht_env *env, struct cht_err *err)
{
    return env != NULL ? cht_env_ops(env)->close(env, err) : CHT_OK;
}

void cht_env_abandon(struct cht_env *env)
{
    if (env != NULL)
        cht_env_ops(env)->abandon(env);
}

void cht_env_quiet(struct cht_env *env) { cht_env_ops(env)->quiet(env); }

enum cht_rc cht_env_create(struct cht_env *env, const char *name, unsigned shards, struct cht_err *err)
{
    return cht_env_ops(env)->create(env, name, shards, err);
}

enum cht_rc cht_env_get(struct cht_env *env, const char *name, struct cht_store **out, struct cht_err *err)
{
    return cht_env_ops(env)->get(env, name, out, err);
}

enum cht_rc cht_env_release(struct cht_env *env, const char *name, bool *closed, struct cht_err *err)
{
    return cht_env_ops(env)->release(env, name, closed, err);
}

enum cht_rc cht_env_is_clean(struct cht_env *env, const char *name, bool *clean, struct cht_err *err)
{
    return cht_env_ops(env)->is_clean(env, name, clean, err);
}

enum cht_rc cht_env_drop(struct cht_env *env, const char *name, struct cht_err *err)
{
    return cht_env_ops(env)->drop(env, name, err);
}

enum cht_rc cht_env_list(struct cht_env *env, void (*fn)(void *ctx, const char *name), void *ctx,
                         struct cht_err *err)
{
    return cht_env_ops(env)->list(env, fn, ctx, err);
}

enum cht_rc cht_env_finish(struct cht_env *env,
                           void (*fn)(void *ctx, const char *name, enum cht_rc rc, const char *what),
                           void *ctx, struct cht_err *err)
{
    return cht_env_ops(env)->finish(env, fn, ctx, err);
}

bool cht_env_unfinished(const struct cht_env *env) { return cht_env_ops(env)->unfinished(env); }

enum cht_rc cht_env_health(struct cht_env *env, struct cht_err *err)
{
    return cht_env_ops(env)->health != NULL ? cht_env_ops(env)->health(env, err) : CHT_OK;
}

void cht_env_remote_stats(struct cht_env *env, struct cht_remote_stats *out)
{
    *out = (struct cht_remote_stats){0};
    if (cht_env_ops(env)->remote_stats != NULL)
        cht_env_ops(env)->remote_stats(env, out);
}

/* ---- databases --------------------------------------------------------------------------------------------------- */

struct cht_wait cht_ahead;

enum cht_rc cht_store_get_soon(struct cht_store *s, uint64_t key, struct cht_buf *out, uint32_t *size,
                               struct cht_wait *w, struct cht_err *err)
{
    return key == 0 || key > CHT_KEY_MAX ? bad_key(key, err) : s->ops->get(s, key, out, size, w, err);
}

enum cht_rc cht_store_get(struct cht_store *s, uint64_t key, struct cht_buf *out, uint32_t *size,
                          struct cht_err *err)
{
    return cht_store_get_soon(s, key, out, size, NULL, err);
}

enum cht_rc cht_store_pair_soon(struct cht_store *s, struct cht_str name, uint64_t *key, struct cht_wait *w,
                                struct cht_err *err)
{
    return name_ok(name) ? s->ops->pair(s, name, key, w, err) : bad_name(name, err);
}

enum cht_rc cht_store_pair(struct cht_store *s, struct cht_str name, uint64_t *key, struct cht_err *err)
{
    return cht_store_pair_soon(s, name, key, NULL, err);
}

enum cht_rc cht_store_pair_value_soon(struct cht_store *s, struct cht_str name, struct cht_pair_value *pv,
                                      struct cht_wait *w, struct cht_err *err)
{
    return name_ok(name) ? s->ops->pair_value(s, name, pv, w, err) : bad_name(name, err);
}

enum cht_rc cht_store_pair_value(struct cht_store *s, struct cht_str name, uint64_t *key, struct cht_buf *out,
                                 uint32_t *size, struct cht_err *err)
{
    struct cht_pair_value pv = {.out = out};
    enum cht_rc rc = cht_store_pair_value_soon(s, name, &pv, NULL, err);
    *key = pv.key;
    if (size != NULL)
        *size = pv.size;
    return rc;
}

enum cht_rc cht_store_pair_values(struct cht_store *s, struct cht_pair_read *r, size_t n, struct cht_buf *out,
                                  struct cht_wait *w, struct cht_err *err)
{
    out->len = 0;
    for (size_t i = 0; i < n; i++) {
        r[i] = (struct cht_pair_read){.name = r[i].name, .rc = CHT_PENDING};
        if (!name_ok(r[i].name))
            return r[i].rc = bad_name(r[i].name, err);
    }
    return s->ops->pair_values(s, r, n, out, w, err);
}

bool cht_store_enter(struct cht_store *s, struct cht_wait *w) { return s->ops->enter(s, w); }

void cht_store_leave(struct cht_store *s) { s->ops->leave(s); }

void cht_store_forget(struct cht_store *s, struct cht_wait *w) { s->ops->forget(s, w); }

bool cht_store_remote(const struct cht_store *s) { return s->ops->remote; }

enum cht_rc cht_store_lock(struct cht_store *s, const char *name, struct cht_err *err)
{
    return s->ops->lock != NULL ? s->ops->lock(s, name, err) : CHT_OK;
}

void cht_store_unlock(struct cht_store *s, const char *name)
{
    if (s->ops->unlock != NULL)
        s->ops->unlock(s, name);
}

enum cht_rc cht_store_locks_kept(struct cht_store *s, struct cht_err *err)
{
    return s->ops->locks_kept != NULL ? s->ops->locks_kept(s, err) : CHT_OK;
}

size_t cht_store_prefetch(struct cht_store *s, const struct cht_hint *h, size_t n)
{
    return s->ops->prefetch(s, h, n);
}

bool cht_store_settle(struct cht_store *s, bool wait)
{
    return s->ops->settle == NULL || s->ops->settle(s, wait);
}

enum cht_rc cht_store_count(struct cht_store *s, struct cht_str prefix, uint64_t *pairs, struct cht_err *err)
{
    return cht_store_count_soon(s, prefix, pairs, NULL, err);
}

enum cht_rc cht_store_count_soon(struct cht_store *s, struct cht_str prefix, uint64_t *pairs,
                                 struct cht_wait *w, struct cht_err *err)
{
    return prefix.n <= CHT_NAME_MAX ? s->ops->count(s, prefix, pairs, w, err) : bad_name(prefix, err);
}

enum cht_rc cht_store_children(struct cht_store *s, const struct cht_children_config *cfg,
                               struct cht_err *err)
{
    if (cfg->prefix.n > CHT_NAME_MAX || cfg->after.n > CHT_NAME_MAX)
        return bad_name(cfg->prefix.n > CHT_NAME_MAX ? cfg->prefix : cfg->after, err);
    return s->ops->children(s, cfg, err);
}

enum cht_rc cht_value_open_soon(struct cht_store *s, uint64_t key, struct cht_value **out, uint32_t *size,
                                struct cht_wait *w, struct cht_err *err)
{
    return key == 0 || key > CHT_KEY_MAX ? bad_key(key, err) : s->ops->value_open(s, key, out, size, w, err);
}

enum cht_rc cht_value_open(struct cht_store *s, uint64_t key, struct cht_value **out, uint32_t *size,
                           struct cht_err *err)
{
    return cht_value_open_soon(s, key, out, size, NULL, err);
}

enum cht_rc cht_value_read(struct cht_value *v, uint32_t offset, void *buf, size_t n, size_t *got,
                           struct cht_err *err)
{
    return v->store->ops->value_read(v, offset, buf, n, got, err);
}

void cht_value_close(struct cht_value *v)
{
    if (v != NULL)
        v->store->ops->value_close(v);
}

enum cht_rc cht_store_commit(struct cht_store *s, struct cht_commit *c)
{
    return c->many != NULL && !s->ops->many ? cht_many_commit(s, c) : s->ops->commit(s, c);
}

enum cht_rc cht_store_submit(struct cht_store *s, struct cht_commit *c)
{
    if (c->many != NULL && !s->ops->many)
        return CHT_FAIL(&c->err, CHT_NOT_SUPPORTED, "this store waits for a commit of many operations");
    return s->ops->submit(s, c);
}

void cht_store_submit_all(struct cht_store *s, struct cht_commit *list)
{
    if (s->ops->submit_all != NULL) {
        s->ops->submit_all(s, list);
        return;
    }
    while (list != NULL) {
        struct cht_commit *c = list;
        list = c->next;
        enum cht_rc rc = cht_store_submit(s, c);
        if (rc != CHT_PENDING) {
            c->rc = rc;
            c->done(c); /* c may be gone after this */
        }
    }
}

enum cht_rc cht_store_checkpoint(struct cht_store *s, struct cht_err *err)
{
    return s->ops->checkpoint(s, err);
}

enum cht_rc cht_store_stats(struct cht_store *s, struct cht_store_stats *out, struct cht_err *err)
{
    return s->ops->stats(s, out, err);
}

void cht_store_stats_ask(struct cht_store *s)
{
    if (s->ops->stats_ask != NULL)
        s->ops->stats_ask(s);
}

bool cht_store_stats_kept(struct cht_store *s, struct cht_store_stats *out, uint64_t *asked)
{
    if (s->ops->stats_kept != NULL)
        return s->ops->stats_kept(s, out, asked);
    *asked = UINT64_MAX;
    return s->ops->stats(s, out, NULL) == CHT_OK;
}

enum cht_rc cht_store_lengths(struct cht_store *s, void (*fn)(void *, const struct cht_length_stat *),
                              void *ctx, struct cht_err *err)
{
    return s->ops->lengths(s, fn, ctx, err);
}

enum cht_rc cht_store_shape(struct cht_store *s, struct cht_shape_stat *out, struct cht_err *err)
{
    return s->ops->shape(s, out, err);
}

enum cht_rc cht_store_shards(struct cht_store *s, void (*fn)(void *, const struct cht_shard_stat *),
                             void *ctx, struct cht_err *err)
{
    return s->ops->shards(s, fn, ctx, err);
}

enum cht_rc cht_store_scrub(struct cht_store *s, struct cht_scrub *scrub, struct cht_err *err)
{
    return s->ops->scrub(s, scrub, err);
}

enum cht_rc cht_scan_open(struct cht_store *s, const struct cht_scan_config *cfg, struct cht_scan **out,
                          struct cht_err *err)
{
    if (cfg->prefix.n > CHT_NAME_MAX)
        return bad_name(cfg->prefix, err);
    return s->ops->scan_open(s, cfg, out, err);
}

enum cht_rc cht_scan_next(struct cht_scan *sc, struct cht_entry *out, size_t max, size_t *count,
                          struct cht_err *err)
{
    return sc->store->ops->scan_next(sc, true, out, max, count, err);
}

enum cht_rc cht_scan_poll(struct cht_scan *sc, struct cht_entry *out, size_t max, size_t *count,
                          struct cht_err *err)
{
    return sc->store->ops->scan_next(sc, false, out, max, count, err);
}

bool cht_scan_exhausted(const struct cht_scan *sc) { return sc->store->ops->scan_exhausted(sc); }

void cht_scan_cancel(struct cht_scan *sc) { sc->store->ops->scan_cancel(sc); }

void cht_scan_close(struct cht_scan *sc)
{
    if (sc != NULL)
        sc->store->ops->scan_close(sc);
}

size_t cht_scan_memory(const struct cht_scan *sc) { return sc->store->ops->scan_memory(sc); }

enum cht_rc cht_store_sweep(struct cht_store *s, const struct cht_sweep_config *cfg, struct cht_err *err)
{
    return cfg->prefix.n <= CHT_NAME_MAX ? s->ops->sweep(s, cfg, err) : bad_name(cfg->prefix, err);
}

enum cht_rc cht_watch_new(struct cht_store *s, struct cht_str prefix, struct cht_watch **out,
                          struct cht_err *err)
{
    if (prefix.n > CHT_NAME_MAX)
        return bad_name(prefix, err);
    struct cht_watches *w = s->ops->watches(s);
    if (w == NULL)
        return CHT_FAIL(err, CHT_NOT_SUPPORTED, "nothing tells when pairs of this store change");
    return cht_watches_add(w, prefix, out, err);
}

enum cht_rc cht_changes_open(struct cht_store *s, struct cht_str prefix, uint64_t after,
                             struct cht_changes **out, struct cht_err *err)
{
    if (prefix.n > CHT_NAME_MAX)
        return bad_name(prefix, err);
    return s->ops->changes_open(s, prefix, after, out, err);
}

enum cht_rc cht_changes_range(struct cht_store *s, struct cht_changes_range *out, struct cht_err *err)
{
    *out = (struct cht_changes_range){0};
    return s->ops->changes_range(s, out, err);
}

void cht_changes_close(struct cht_changes *c)
{
    if (c != NULL)
        c->ops->close(c);
}

enum cht_rc cht_changes_next(struct cht_changes *c, bool (*each)(void *ctx, const struct cht_change *change),
                             void *ctx, struct cht_err *err)
{
    struct cht_err local = {0};
    return c->ops->next(c, each, ctx, err == NULL ? &local : err);
}

enum cht_rc cht_changes_await(struct cht_changes *c, struct cht_wait *w) { return c->ops->await(c, w); }

void cht_changes_forget(struct cht_changes *c) { c->ops->forget(c); }

uint64_t cht_changes_position(const struct cht_changes *c) { return c->ops->position(c); }

enum cht_rc cht_backup_open(struct cht_store *s, struct cht_backup **out, struct cht_err *err)
{
    return s->ops->backup_open(s, out, err);
}

const struct cht_backup_info *cht_backup_info(const struct cht_backup *b) { return &b->info; }

enum cht_rc cht_backup_read(struct cht_backup *b, uint8_t *buf, size_t cap, size_t *n, struct cht_err *err)
{
    *n = 0;
    if (cap < CHT_BACKUP_BUFFER_MIN)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "a buffer of %zu bytes; at least %u", cap,
                        CHT_BACKUP_BUFFER_MIN);
    return b->ops->read(b, buf, cap, n, err);
}

void cht_backup_close(struct cht_backup *b)
{
    if (b != NULL)
        b->ops->close(b);
}
