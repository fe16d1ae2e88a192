/* apply_ops: the operations of a commit, each all or nothing by itself or under an undo (apply.c).
 *
 *   a single change (EDIT, DELETE, PAIR_SET, ...)  the structure below is all or nothing by itself
 *   upsert of a new name   the name first, then the value; if the value fails the name is taken away again, which needs
 *                          nothing that could fail (its pages are writable since a moment ago)
 *   PAIR_DEL and PREFIX_DEL with values, PREFIX_DEL   several changes, perhaps in several shards: under an undo
 */
#include "store/apply_int.h"
#include "store/expiry.h"

#include <string.h>

/* The lowest key that was never given out, all shards considered: 1, 2, 3, ... in a fresh database. */
static uint64_t lowest_new_key(const struct cht_db *db)
{
    uint64_t best = UINT64_MAX;
    for (unsigned i = 0; i < db->nshards; i++) {
        uint64_t k = cht_values_next_key(&db->shards[i].values); /* only the committer moves it */
        best = k < best ? k : best;
    }
    return best;
}

/* The last group that is. Seen late it costs readers a longer wait. */
static uint64_t decided(const struct cht_apply *a)
{
    return atomic_load_explicit(&a->db->durable.decided, memory_order_relaxed);
}

/* Before a change, with the shard's lock held: readers wait for the group from then on. */
static void mark_key(const struct cht_apply *a, struct cht_shard *sh, uint64_t key)
{
    if (a->group != 0)
        cht_marks_add(&sh->marks, a->group, decided(a), cht_mark_of_key(key));
}

static void mark_name(const struct cht_apply *a, struct cht_shard *sh, struct cht_str name)
{
    if (a->group != 0)
        cht_marks_add(&sh->marks, a->group, decided(a), cht_mark_of_name(name));
}

/* No key is given out if nobody knows which were. */
static enum cht_rc lost_counter(struct cht_err *err)
{
    return CHT_DAMAGED(err, "the header of a file of keys cannot be read");
}

static enum cht_rc put_large(struct cht_apply *a, struct cht_shard *sh, uint64_t key, struct cht_str v,
                             struct cht_err *err)
{
    struct cht_large l;
    enum cht_rc rc = cht_values_large_reserve(&sh->values, (uint32_t)v.n, &l, err);
    if (rc != CHT_OK)
        return rc;
    if (!a->atomic && a->undo_count == 0) { /* the bytes are written while readers go on */
        cht_apply_release(a);
        rc = cht_values_large_write(&sh->values, &l, v.p, err);
        (void)cht_apply_take(a, sh->index, false);
    } else {
        rc = cht_values_large_write(&sh->values, &l, v.p, err);
    }
    if (rc == CHT_OK)
        rc = cht_values_large_put(&sh->values, key, &l, cht_value_crc(key, v.p, v.n), err);
    if (rc != CHT_OK)
        cht_values_large_abandon(&sh->values, &l);
    return rc;
}

static enum cht_rc put_value(struct cht_apply *a, struct cht_shard *sh, uint64_t key, struct cht_str v,
                             struct cht_err *err)
{
    enum cht_rc rc = cht_logbuf_reserve(&a->log, 1, v.n < CHT_LOG_BORROW ? v.n : 0, err);
    if (rc != CHT_OK)
        return rc;
    if (key > CHT_KEY_MAX)
        return CHT_FAIL(err, CHT_KEYS_EXHAUSTED, "the keys of shard %u are exhausted", sh->index);
    mark_key(a, sh, key);
    if (v.n < CHT_LARGE_VALUE)
        rc = cht_values_put(&sh->values, key, v.p, (uint32_t)v.n, err);
    else
        rc = put_large(a, sh, key, v, err);
    if (rc == CHT_OK) {
        cht_logbuf_add(&a->log, CHT_LOG_VALUE_PUT, key, v);
        a->inserted += v.n;
    }
    return rc;
}

static enum cht_rc check_value(const struct cht_apply *a, struct cht_str v, struct cht_err *err)
{
    if (v.n == 0)
        return CHT_FAIL(err, CHT_EMPTY_VALUE, "values have 1 byte or more");
    if (v.n > a->max_value)
        return CHT_FAIL(err, CHT_VALUE_TOO_LARGE, "a value of %zu bytes; at most %u are allowed", v.n,
                        a->max_value);
    return CHT_OK;
}

static enum cht_rc check_key(uint64_t key, struct cht_err *err)
{
    if (key == 0 || key > CHT_KEY_MAX)
        return CHT_FAIL(err, CHT_INVALID_KEY, "key %llu; keys are 1 to 2^48-1", (unsigned long long)key);
    return CHT_OK;
}

static enum cht_rc check_name(struct cht_str name, bool may_be_empty, struct cht_err *err)
{
    if ((name.n == 0 && !may_be_empty) || name.n > CHT_NAME_MAX)
        return CHT_FAIL(err, CHT_INVALID_PAIR, "a pair name of %zu bytes; 1 to %u are allowed", name.n,
                        CHT_NAME_MAX);
    return CHT_OK;
}

static bool key_lives(struct cht_apply *a, uint64_t key, struct cht_err *err, enum cht_rc *rc)
{
    struct cht_value_ref ref;
    struct cht_shard *sh = cht_apply_take(a, cht_shard_of_key(key, a->db->nshards), a->atomic);
    *rc = cht_values_find(&sh->values, key, &ref, err);
    bool lives = *rc == CHT_OK;
    if (*rc == CHT_KEY_NOT_FOUND)
        *rc = CHT_OK;
    return lives;
}

/* ---- operations ---------------------------------------------------------------------------------------------- */

static enum cht_rc do_insert(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    enum cht_rc rc = check_value(a, op->value, err);
    if (rc != CHT_OK)
        return rc;
    uint64_t key = lowest_new_key(a->db);
    if (key == 0)
        return lost_counter(err);
    if (key > CHT_KEY_MAX)
        return CHT_FAIL(err, CHT_KEYS_EXHAUSTED, "all keys have been given out");
    struct cht_shard *sh = cht_apply_take(a, cht_shard_of_key(key, a->db->nshards), a->atomic);
    rc = put_value(a, sh, key, op->value, err);
    if (rc == CHT_OK) {
        op->key = key;
        op->size = (uint32_t)op->value.n;
    }
    return rc;
}

static enum cht_rc do_edit(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    enum cht_rc rc = check_key(op->key, err);
    if (rc == CHT_OK)
        rc = check_value(a, op->value, err);
    if (rc != CHT_OK)
        return rc;
    if (!key_lives(a, op->key, err, &rc))
        return rc == CHT_OK ? CHT_KEY_NOT_FOUND : rc;
    struct cht_shard *sh = cht_apply_take(a, cht_shard_of_key(op->key, a->db->nshards), a->atomic);
    rc = put_value(a, sh, op->key, op->value, err);
    if (rc == CHT_OK)
        op->size = (uint32_t)op->value.n;
    return rc;
}

/* A key that its shard has given out, by itself or as one of those it skipped. */
static bool key_given(const struct cht_db *db, uint64_t key)
{
    return key < cht_values_next_key(&db->shards[cht_shard_of_key(key, db->nshards)].values);
}

static enum cht_rc do_put(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    enum cht_rc rc = check_key(op->key, err);
    if (rc == CHT_OK)
        rc = check_value(a, op->value, err);
    if (rc != CHT_OK)
        return rc;
    bool lives = key_lives(a, op->key, err, &rc);
    if (rc != CHT_OK || !key_given(a->db, op->key))
        return rc == CHT_OK ? CHT_KEY_NOT_FOUND : rc;
    struct cht_shard *sh = cht_apply_take(a, cht_shard_of_key(op->key, a->db->nshards), a->atomic);
    rc = put_value(a, sh, op->key, op->value, err);
    op->created = rc == CHT_OK && !lives;
    if (rc == CHT_OK)
        op->size = (uint32_t)op->value.n;
    return rc;
}

/* Deletes a value and logs it; KEY_NOT_FOUND is the caller's to judge. */
enum cht_rc cht_apply_delete_value(struct cht_apply *a, uint64_t key, bool undo, struct cht_err *err)
{
    struct cht_shard *sh = cht_apply_take(a, cht_shard_of_key(key, a->db->nshards), undo);
    enum cht_rc rc = cht_logbuf_reserve(&a->log, 1, 0, err);
    mark_key(a, sh, key);
    if (rc == CHT_OK)
        rc = cht_values_del(&sh->values, key, err);
    if (rc == CHT_OK)
        cht_logbuf_add(&a->log, CHT_LOG_VALUE_DEL, key, (struct cht_str){NULL, 0});
    return rc;
}

static enum cht_rc do_delete(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    enum cht_rc rc = check_key(op->key, err);
    return rc == CHT_OK ? cht_apply_delete_value(a, op->key, a->atomic, err) : rc;
}

/* The last key of each shard gets a value and loses it again, which moves next_key after it: what the log can say. */
static enum cht_rc do_reserve(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    static const uint8_t zero;
    uint64_t n = op->key, shards = a->db->nshards, last = 0;
    if (n == 0 || n > CHT_RESERVE_MAX || shards == 0)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "keys to reserve: 1 to %llu, not %llu",
                        (unsigned long long)CHT_RESERVE_MAX, (unsigned long long)n);
    for (unsigned i = 0; i < shards; i++) {
        uint64_t next = cht_values_next_key(&a->db->shards[i].values);
        if (next == 0)
            return lost_counter(err);
        last = next > shards && next - shards > last ? next - shards : last;
    }
    uint64_t base = (last + shards - 1) / shards * shards;
    if (base > CHT_KEY_MAX - n)
        return CHT_FAIL(err, CHT_KEYS_EXHAUSTED, "there are no %llu keys left", (unsigned long long)n);
    enum cht_rc rc = CHT_OK;
    for (uint64_t i = 0; i < shards && i < n && rc == CHT_OK; i++) {
        uint64_t key = base + n - i;
        struct cht_shard *sh = cht_apply_take(a, cht_shard_of_key(key, a->db->nshards), true);
        rc = put_value(a, sh, key, (struct cht_str){&zero, 1}, err);
        if (rc == CHT_OK)
            rc = cht_apply_delete_value(a, key, true, err);
    }
    if (rc == CHT_OK)
        op->key = base + 1;
    return rc;
}

static enum cht_rc set_pair(struct cht_apply *a, struct cht_shard *sh, struct cht_str name, uint64_t key,
                            uint64_t *old, struct cht_err *err)
{
    enum cht_rc rc = cht_logbuf_reserve(&a->log, 1, name.n, err);
    mark_name(a, sh, name);
    if (rc == CHT_OK)
        rc = cht_trie_set(cht_shard_pairs(sh), name.p, name.n, key, old, err);
    if (rc == CHT_OK) {
        cht_logbuf_add(&a->log, CHT_LOG_PAIR_SET, key, name);
        a->inserted += name.n;
    }
    return rc;
}

static enum cht_rc do_pair_set(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    enum cht_rc rc = check_name(op->name, false, err);
    if (rc == CHT_OK)
        rc = check_key(op->key, err);
    if (rc != CHT_OK)
        return rc;
    uint64_t old;
    struct cht_shard *sh = cht_apply_take(a, cht_shard_of_name(op->name, a->db->nshards), a->atomic);
    rc = set_pair(a, sh, op->name, op->key, &old, err);
    op->created = rc == CHT_OK && old == 0;
    return rc;
}

/* The log gets a plain PAIR_SET: the key is decided here. */
static enum cht_rc do_pair_link(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    enum cht_rc rc = check_name(op->name, false, err);
    if (rc == CHT_OK)
        rc = check_name(op->value, false, err);
    if (rc != CHT_OK)
        return rc;
    uint64_t key, old;
    struct cht_shard *sh;
    if (op->back > 0) {
        const struct cht_op *put = op - op->back;
        if (a->part && put->rc == CHT_PENDING)
            return CHT_PENDING;
        rc = put->rc == CHT_OK ? CHT_OK : CHT_PAIR_NOT_FOUND;
        key = put->key;
    } else {
        sh = cht_apply_take(a, cht_shard_of_name(op->value, a->db->nshards), a->atomic);
        rc = cht_trie_get(cht_shard_pairs(sh), op->value.p, op->value.n, &key, err);
    }
    if (rc != CHT_OK)
        return rc;
    sh = cht_apply_take(a, cht_shard_of_name(op->name, a->db->nshards), a->atomic);
    rc = set_pair(a, sh, op->name, key, &old, err);
    op->created = rc == CHT_OK && old == 0;
    if (rc == CHT_OK)
        op->key = key;
    return rc;
}

/* A name that leads to no live value: a new key of the name's own shard. */
static enum cht_rc put_new(struct cht_apply *a, struct cht_shard *sh, struct cht_op *op, struct cht_err *err)
{
    uint64_t key = cht_values_next_key(&sh->values), old, ignored;
    struct cht_logmark mark = cht_logbuf_mark(&a->log);
    if (key == 0)
        return lost_counter(err);
    if (key > CHT_KEY_MAX)
        return CHT_FAIL(err, CHT_KEYS_EXHAUSTED, "the keys of shard %u are exhausted", sh->index);
    bool large = op->value.n >= CHT_LARGE_VALUE;
    enum cht_rc rc =
        large ? put_value(a, sh, key, op->value, err) : CHT_OK; /* lets the lock go: nothing else before */
    if (rc == CHT_OK)
        rc = set_pair(a, sh, op->name, key, &old, err);
    if (rc != CHT_OK) {
        if (large && cht_logbuf_mark(&a->log).bytes != mark.bytes) {
            cht_logbuf_rewind(&a->log, mark);
            a->inserted -= op->value.n;
            a->stuck |= cht_values_del(&sh->values, key, &a->stuck_err) != CHT_OK;
        }
        return rc;
    }
    if (!large && (rc = put_value(a, sh, key, op->value, err)) != CHT_OK) {
        cht_logbuf_rewind(&a->log, mark);
        a->inserted -= op->name.n;
        enum cht_rc back =
            old != 0 ? cht_trie_set(cht_shard_pairs(sh), op->name.p, op->name.n, old, &ignored, &a->stuck_err)
                     : cht_trie_del(cht_shard_pairs(sh), op->name.p, op->name.n, &ignored, &a->stuck_err);
        a->stuck |= back != CHT_OK;
        return rc;
    }
    op->key = key;
    op->created = old == 0;
    return CHT_OK;
}

/* A short value under a name that is not mapped; *mapped is its key if it is, and nothing was changed. */
static enum cht_rc put_absent(struct cht_apply *a, struct cht_shard *sh, struct cht_op *op, uint64_t *mapped,
                              struct cht_err *err)
{
    uint64_t key = cht_values_next_key(&sh->values), ignored;
    struct cht_logmark mark = cht_logbuf_mark(&a->log);
    if (key == 0)
        return lost_counter(err);
    enum cht_rc rc = cht_logbuf_reserve(&a->log, 1, op->name.n, err);
    mark_name(a, sh, op->name);
    if (rc == CHT_OK)
        rc = cht_trie_add(cht_shard_pairs(sh), op->name.p, op->name.n, key, mapped, err);
    if (rc != CHT_OK || *mapped != 0)
        return rc;
    cht_logbuf_add(&a->log, CHT_LOG_PAIR_SET, key, op->name);
    a->inserted += op->name.n;
    rc = put_value(a, sh, key, op->value, err);
    if (rc != CHT_OK) {
        cht_logbuf_rewind(&a->log, mark);
        a->inserted -= op->name.n;
        a->stuck |=
            cht_trie_del(cht_shard_pairs(sh), op->name.p, op->name.n, &ignored, &a->stuck_err) != CHT_OK;
        return rc;
    }
    op->key = key;
    op->created = true;
    return CHT_OK;
}

static enum cht_rc do_pair_put(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    enum cht_rc rc = check_name(op->name, false, err);
    if (rc == CHT_OK)
        rc = check_value(a, op->value, err);
    if (rc != CHT_OK)
        return rc;
    unsigned at = cht_shard_of_name(op->name, a->db->nshards);
    struct cht_shard *sh = cht_apply_take(a, at, a->atomic);
    uint64_t key = 0;
    op->size = (uint32_t)op->value.n;
    if (op->value.n < CHT_LARGE_VALUE && cht_values_next_key(&sh->values) <= CHT_KEY_MAX) {
        rc = put_absent(a, sh, op, &key, err);
        if (rc != CHT_OK || key == 0)
            return rc;
    } else {
        rc = cht_trie_get(cht_shard_pairs(sh), op->name.p, op->name.n, &key, err);
    }
    if (rc == CHT_OK && a->part && cht_shard_of_key(key, a->db->nshards) != at)
        return CHT_PENDING;
    bool lives = rc == CHT_OK && key_lives(a, key, err, &rc);
    if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND)
        return rc;
    if (lives) {
        if (a->names) /* room for both */
            rc = cht_logbuf_reserve(&a->log, 2, op->name.n + (op->value.n < CHT_LOG_BORROW ? op->value.n : 0),
                                    err);
        if (rc == CHT_OK)
            rc = put_value(a, cht_apply_take(a, cht_shard_of_key(key, a->db->nshards), a->atomic), key,
                           op->value, err);
        if (rc == CHT_OK && a->names)
            cht_logbuf_add(&a->log, CHT_LOG_PAIR_SET, key, op->name);
        op->key = key;
        op->created = false;
    } else {
        rc = put_new(a, sh, op, err);
    }
    return rc;
}

enum cht_rc cht_apply_delete_pair(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    enum cht_rc rc = check_name(op->name, false, err);
    if (rc != CHT_OK)
        return rc;
    bool undo = a->atomic || op->with_values;
    struct cht_shard *sh = cht_apply_take(a, cht_shard_of_name(op->name, a->db->nshards), undo);
    rc = cht_logbuf_reserve(&a->log, 1, op->name.n, err);
    mark_name(a, sh, op->name);
    if (rc == CHT_OK)
        rc = cht_trie_del(cht_shard_pairs(sh), op->name.p, op->name.n, &op->key, err);
    if (rc != CHT_OK)
        return rc;
    cht_logbuf_add(&a->log, CHT_LOG_PAIR_DEL, 0, op->name);
    op->pairs = 1;
    if (op->with_values) {
        rc = cht_apply_delete_value(a, op->key, true, err);
        op->values = rc == CHT_OK;
        if (rc == CHT_KEY_NOT_FOUND)
            rc = CHT_OK;
    }
    return rc;
}

/* Deletes the values that the pairs under the prefix in one shard lead to. */
static enum cht_rc delete_values_under(struct cht_apply *a, struct cht_shard *sh, struct cht_op *op,
                                       struct cht_err *err)
{
    struct cht_trie_iter *it;
    enum cht_rc rc = cht_trie_iter_new(&it, err);
    if (rc != CHT_OK)
        return rc;
    uint64_t losses = cht_pf_losses(cht_shard_pairs(sh));
    rc = cht_trie_iter_seek(it, cht_shard_pairs(sh), op->name.p, op->name.n, NULL, 0, false, err);
    while (rc == CHT_OK) {
        const uint8_t *name;
        size_t len;
        uint64_t key;
        rc = cht_trie_iter_next(it, &name, &len, &key, err);
        if (rc != CHT_OK)
            break;
        rc = cht_apply_delete_value(a, key, true, err);
        op->values += rc == CHT_OK;
        if (rc == CHT_KEY_NOT_FOUND) /* dangling, or another name of a value that is gone by now */
            rc = CHT_OK;
    }
    cht_trie_iter_free(it);
    if (rc == CHT_PAIR_NOT_FOUND &&
        cht_pf_losses(cht_shard_pairs(sh)) != losses) /* who knows what was passed over */
        return CHT_DAMAGED(err, "%s: a page was lost while it was read", cht_pf_path(cht_shard_pairs(sh)));
    return rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
}

static enum cht_rc do_prefix_del(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    enum cht_rc rc = check_name(op->name, true, err);
    op->pairs = op->values = 0;
    if (rc == CHT_OK)
        rc = cht_logbuf_reserve(&a->log, 1, op->name.n, err);
    for (unsigned i = 0; i < a->db->nshards && rc == CHT_OK && op->with_values; i++)
        rc = delete_values_under(a, cht_apply_take(a, i, true), op, err);
    for (unsigned i = 0; i < a->db->nshards && rc == CHT_OK; i++) {
        uint64_t n = 0;
        struct cht_shard *sh = cht_apply_take(a, i, true);
        if (a->group != 0)
            cht_marks_all(&sh->marks, a->group, decided(a));
        rc = cht_expiry_forget(cht_shard_pairs(sh), op->name, err);
        if (rc == CHT_OK)
            rc = cht_trie_del_prefix(cht_shard_pairs(sh), op->name.p, op->name.n, &n, err);
        op->pairs += n;
    }
    if (rc == CHT_OK)
        rc = cht_logbuf_reserve(&a->log, 1, op->name.n, err);
    if (rc == CHT_OK)
        cht_logbuf_add(&a->log, CHT_LOG_PREFIX_DEL, 0, op->name);
    return rc;
}

static enum cht_rc copy_value(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    struct cht_value_ref ref;
    const uint8_t *p;
    struct cht_shard *sh = cht_apply_take(a, cht_shard_of_key(op->key, a->db->nshards), a->atomic);
    enum cht_rc rc = cht_values_find(&sh->values, op->key, &ref, err);
    if (rc == CHT_OK)
        rc = cht_values_view(&sh->values, op->key, &ref, &p, err);
    if (rc == CHT_CORRUPT)
        atomic_fetch_add_explicit(&a->db->corrupt, 1, memory_order_relaxed);
    if (rc != CHT_OK)
        return rc;
    op->size = ref.len;
    if (op->buf == NULL)
        return CHT_OK;
    rc = cht_buf_reserve(op->buf, ref.len, err);
    if (rc == CHT_OK) {
        memcpy(op->buf->data, p, ref.len);
        op->buf->len = ref.len;
        rc = cht_values_copied(&sh->values, &ref, err);
    }
    return rc;
}

static enum cht_rc do_read(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    enum cht_rc rc = check_key(op->key, err);
    return rc == CHT_OK ? copy_value(a, op, err) : rc;
}

static enum cht_rc do_pair_read(struct cht_apply *a, struct cht_op *op, struct cht_err *err)
{
    enum cht_rc rc = check_name(op->name, false, err);
    if (rc != CHT_OK)
        return rc;
    struct cht_shard *sh = cht_apply_take(a, cht_shard_of_name(op->name, a->db->nshards), a->atomic);
    rc = cht_trie_get(cht_shard_pairs(sh), op->name.p, op->name.n, &op->key, err);
    op->size = 0;
    if (op->buf != NULL)
        op->buf->len = 0;
    if (rc == CHT_OK && op->with_values) {
        rc = copy_value(a, op, err);
        if (rc == CHT_KEY_NOT_FOUND)
            rc = CHT_OK;
    }
    return rc;
}

static cht_apply_fn *const op_table[] = {
    [CHT_OP_INSERT] = do_insert,
    [CHT_OP_EDIT] = do_edit,
    [CHT_OP_DELETE] = do_delete,
    [CHT_OP_PAIR_SET] = do_pair_set,
    [CHT_OP_PAIR_PUT] = do_pair_put,
    [CHT_OP_PAIR_DEL] = cht_apply_delete_pair,
    [CHT_OP_PREFIX_DEL] = do_prefix_del,
    [CHT_OP_READ] = do_read,
    [CHT_OP_PAIR_READ] = do_pair_read,
    [CHT_OP_PAIR_LINK] = do_pair_link,
    [CHT_OP_PUT] = do_put,
    [CHT_OP_RESERVE] = do_reserve,
};
cht_apply_fn *cht_apply_fn_of(enum cht_op_kind kind)
{
    return (unsigned)kind < sizeof op_table / sizeof *op_table ? op_table[kind] : NULL;
}
