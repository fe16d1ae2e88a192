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

bool cht_store_enter(struct cht_store *s, struct cht_wait *w) { return s->ops->enter(s, w); }

void cht_store_leave(struct cht_store *s) { s->ops->leave(s); }

void cht_store_forget(struct cht_store *s, struct cht_wait *w) { s->ops->forget(s, w); }

size_t cht_store_prefetch(struct cht_store *s, const struct cht_hint *h, size_t n)
{
    return s->ops->prefetch(s, h, n);
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

enum cht_rc cht_store_commit(struct cht_store *s, struct cht_commit *c) { return s->ops->commit(s, c); }

enum cht_rc cht_store_submit(struct cht_store *s, struct cht_commit *c) { return s->ops->submit(s, c); }

enum cht_rc cht_store_checkpoint(struct cht_store *s, struct cht_err *err)
{
    return s->ops->checkpoint(s, err);
}

enum cht_rc cht_store_stats(struct cht_store *s, struct cht_store_stats *out, struct cht_err *err)
{
    return s->ops->stats(s, out, err);
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
    return cht_watches_add(s->ops->watches(s), prefix, out, err);
}

enum cht_rc cht_backup_open(struct cht_store *s, struct cht_backup **out, struct cht_err *err)
{
    return s->ops->backup_open(s, out, err);
}
