/* exec: see exec.h. */
#include "store/rados/exec_int.h"

#include "base/bytes.h"
#include "base/clock.h"

#include <string.h>

/* A row with the operation's value under this key. A long one is written as an object first, once. */
static enum cht_rc make_value(struct cht_exec *x, struct cht_exec_op *o, uint64_t key, struct cht_row *r)
{
    struct cht_str v = o->op->value;
    *r = (struct cht_row){CHT_ROW_VALUE, key, (uint32_t)v.n, cht_row_crc(key, v), v, 0};
    if (v.n <= CHT_ROW_INLINE_MAX)
        return CHT_OK;
    if (o->parts != 0 && (o->parts_len != r->len || o->parts_crc != cht_row_crc(1, v))) {
        cht_parts_remove(x->db, o->parts); /* a question that was asked again had another answer */
        o->parts = 0;
    }
    if (o->parts == 0) {
        enum cht_rc rc = cht_parts_write(x->db, v, &o->parts, x->err);
        if (rc != CHT_OK) {
            o->parts = 0;
            return rc;
        }
        o->parts_len = r->len;
        o->parts_crc = cht_row_crc(1, v);
    }
    uint8_t *number = cht_rowset_alloc(x->set, 8);
    if (number == NULL)
        return CHT_FAIL(x->err, CHT_NO_MEMORY, "no memory for a row");
    cht_put64(number, o->parts);
    r->flags = CHT_ROW_PARTS;
    r->body = (struct cht_str){number, 8};
    return CHT_OK;
}

static bool is_mapped(const struct cht_exec_value *v) { return v->row.key != 0; }

static enum cht_rc write_value(struct cht_exec *x, struct cht_exec_op *o, size_t at, uint64_t key,
                               uint64_t ends)
{
    struct cht_row r;
    enum cht_rc rc = make_value(x, o, key, &r);
    r.ends = ends;
    if (rc == CHT_OK)
        rc = cht_exec_set(x, at, &r);
    if (rc == CHT_OK) {
        o->op->key = key;
        o->op->size = r.len;
    }
    return rc;
}

/* The same; told as a change of the pair or value whose row is at `told`. */
static enum cht_rc write_noted(struct cht_exec *x, struct cht_exec_op *o, size_t at, size_t told,
                               uint64_t key, uint64_t ends)
{
    enum cht_rc rc = write_value(x, o, at, key, ends);
    return rc == CHT_OK ? cht_exec_note(x, told) : rc;
}

static enum cht_rc check_value(const struct cht_exec *x, struct cht_str v)
{
    if (v.n == 0)
        return CHT_FAIL(x->err, CHT_EMPTY_VALUE, "values have 1 byte or more");
    if (v.n > x->db->env->cfg.max_value_size)
        return CHT_FAIL(x->err, CHT_VALUE_TOO_LARGE, "a value of %zu bytes; at most %u are allowed", v.n,
                        x->db->env->cfg.max_value_size);
    return CHT_OK;
}

static enum cht_rc check_key(const struct cht_exec *x, uint64_t key)
{
    if (key == 0 || key > CHT_KEY_MAX)
        return CHT_FAIL(x->err, CHT_INVALID_KEY, "key %llu; keys are 1 to 2^48-1", (unsigned long long)key);
    return CHT_OK;
}

static enum cht_rc check_name(const struct cht_exec *x, struct cht_str name)
{
    if (name.n == 0 || name.n > CHT_NAME_MAX)
        return CHT_FAIL(x->err, CHT_INVALID_PAIR, "a pair name of %zu bytes; 1 to %u are allowed", name.n,
                        CHT_NAME_MAX);
    return CHT_OK;
}

/* Takes a value away; *was: whether there was one. */
static enum cht_rc delete_value(struct cht_exec *x, uint64_t key, bool *was)
{
    struct cht_exec_value v;
    enum cht_rc rc = cht_exec_find(x, key, &v);
    *was = rc == CHT_OK && v.live;
    if (rc != CHT_OK || !v.live)
        return rc;
    rc = cht_exec_drop(x, v.key_at);
    if (rc == CHT_OK)
        rc = cht_exec_note(x, v.key_at);
    if (rc == CHT_OK && v.under_name)
        rc = cht_exec_set(x, v.at, &(struct cht_row){.key = key, .ends = v.row.ends});
    return rc;
}

/* The value that a name's row has moves into the row of its key, which is in the same shard (R2), and lasts. */
static enum cht_rc move_out(struct cht_exec *x, const struct cht_exec_value *v)
{
    struct cht_exec_value k;
    struct cht_row row = v->row;
    row.ends = 0;
    enum cht_rc rc = cht_exec_key(x, row.key, false, &k);
    return rc == CHT_OK ? cht_exec_set(x, k.at, &row) : rc;
}

/* A pair that ends is to be written: from now on programs that do not know of ends do not open the database. */
static enum cht_rc begin_ends(struct cht_exec *x, uint64_t ends)
{
    return ends != 0 ? cht_rdb_ends(x->db, x->err) : CHT_OK;
}

/* The pair has this key already: only its end is another. */
static enum cht_rc change_end(struct cht_exec *x, const struct cht_exec_value *v, uint64_t ends)
{
    struct cht_row row = v->row;
    row.ends = ends;
    enum cht_rc rc = v->row.ends == ends ? CHT_OK : cht_exec_set(x, v->at, &row);
    return rc == CHT_OK && !v->live && (ends != 0 || v->row.ends != 0) ? cht_exec_end_value(x, row.key, ends)
                                                                       : rc;
}

/* Maps a name. */
static enum cht_rc map_name(struct cht_exec *x, struct cht_op *op, uint64_t key, uint64_t ends)
{
    struct cht_exec_value v;
    enum cht_rc rc = begin_ends(x, ends);
    if (rc == CHT_OK)
        rc = cht_exec_name(x, op->name, false, &v);
    if (rc != CHT_OK)
        return rc;
    op->created = !is_mapped(&v);
    rc = cht_exec_note(x, v.at);
    if (rc != CHT_OK)
        return rc;
    if (is_mapped(&v) && v.row.key == key)
        return change_end(x, &v, ends);
    if (v.live)
        rc = move_out(x, &v);
    else if (v.row.ends != 0)
        rc = cht_exec_end_value(x, v.row.key, 0);
    if (rc == CHT_OK)
        rc = cht_exec_set(x, v.at, &(struct cht_row){.key = key, .ends = ends});
    return rc == CHT_OK && ends != 0 ? cht_exec_end_value(x, key, ends) : rc;
}

/* ---- operations --------------------------------------------------------------------------------------------------- */

static enum cht_rc do_insert(struct cht_exec *x, struct cht_exec_op *o)
{
    enum cht_rc rc = check_value(x, o->op->value);
    while (rc == CHT_OK) {
        struct cht_exec_value v;
        if (o->fresh == 0)
            rc = cht_leases_key(x->db, &o->fresh, x->err);
        if (rc == CHT_OK)
            rc = cht_exec_key(x, o->fresh, x->guess, &v);
        if (rc == CHT_OK && v.row.key == 0)
            return write_noted(x, o, v.at, v.at, o->fresh, 0);
        if (rc == CHT_OK)
            o->fresh = 0; /* PUT has given it a value before it was given out */
    }
    return rc;
}

static enum cht_rc do_edit(struct cht_exec *x, struct cht_exec_op *o)
{
    struct cht_exec_value v;
    enum cht_rc rc = check_key(x, o->op->key);
    if (rc == CHT_OK)
        rc = check_value(x, o->op->value);
    if (rc == CHT_OK)
        rc = cht_exec_find(x, o->op->key, &v);
    if (rc == CHT_OK && !v.live)
        return CHT_KEY_NOT_FOUND;
    return rc == CHT_OK ? write_noted(x, o, v.at, v.key_at, o->op->key, v.row.ends) : rc;
}

static enum cht_rc do_put(struct cht_exec *x, struct cht_exec_op *o)
{
    struct cht_exec_value v;
    bool given = true;
    enum cht_rc rc = check_key(x, o->op->key);
    if (rc == CHT_OK)
        rc = check_value(x, o->op->value);
    if (rc == CHT_OK)
        rc = cht_exec_find(x, o->op->key, &v);
    if (rc == CHT_OK && !v.live)
        rc = cht_leases_given(x->db, o->op->key, &given, x->err);
    if (rc == CHT_OK && !given)
        return CHT_KEY_NOT_FOUND;
    if (rc == CHT_OK && !v.live && atomic_load(&x->db->format) >= CHT_RDB_FORMAT_ENDS)
        v.row.ends =
            CHT_ROW_SINCE | x->now; /* names that have ended may still be there: not for what comes now */
    if (rc == CHT_OK)
        rc = write_noted(x, o, v.at, v.key_at, o->op->key, v.row.ends);
    o->op->created = rc == CHT_OK && !v.live;
    return rc;
}

static enum cht_rc do_delete(struct cht_exec *x, struct cht_exec_op *o)
{
    bool was = false;
    enum cht_rc rc = check_key(x, o->op->key);
    if (rc == CHT_OK)
        rc = delete_value(x, o->op->key, &was);
    return rc == CHT_OK && !was ? CHT_KEY_NOT_FOUND : rc;
}

static enum cht_rc do_pair_set(struct cht_exec *x, struct cht_exec_op *o)
{
    uint64_t most = CHT_EXPIRES_MAX * 1000, ends = o->op->until_ms < most ? o->op->until_ms : most;
    enum cht_rc rc = check_name(x, o->op->name);
    if (rc == CHT_OK)
        rc = check_key(x, o->op->key);
    return rc == CHT_OK ? map_name(x, o->op, o->op->key, ends) : rc;
}

/* A new key, whose value is in the name's row (at). */
static enum cht_rc put_new(struct cht_exec *x, struct cht_exec_op *o, size_t at, uint64_t ends)
{
    struct cht_exec_value k;
    for (;;) {
        enum cht_rc rc = CHT_OK;
        if (o->fresh == 0)
            rc = cht_leases_key_for(x->db, cht_row_bucket(o->op->name), &o->fresh, x->err);
        if (rc == CHT_OK)
            rc = cht_exec_key(x, o->fresh, x->guess, &k);
        if (rc != CHT_OK)
            return rc;
        if (k.row.key == 0)
            break;
        o->fresh = 0;
    }
    enum cht_rc rc =
        cht_exec_set(x, k.at, &(struct cht_row){.flags = CHT_ROW_NAME, .key = o->fresh, .body = o->op->name});
    return rc == CHT_OK ? write_noted(x, o, at, at, o->fresh, ends) : rc;
}

/* Of a name (v) whose value lies elsewhere. */
static enum cht_rc put_elsewhere(struct cht_exec *x, struct cht_exec_op *o, const struct cht_exec_value *v)
{
    struct cht_exec_value home;
    enum cht_rc rc = change_end(x, v, o->op->ends);
    if (rc == CHT_OK)
        rc = cht_exec_find(x, v->row.key, &home); /* it may have moved */
    return rc == CHT_OK ? write_noted(x, o, home.at, v->at, v->row.key, home.row.ends) : rc;
}

static enum cht_rc do_pair_put(struct cht_exec *x, struct cht_exec_op *o)
{
    struct cht_exec_value v, k;
    struct cht_op *op = o->op;
    enum cht_rc rc = check_name(x, op->name);
    if (rc == CHT_OK)
        rc = check_value(x, op->value);
    if (rc == CHT_OK)
        rc = begin_ends(x, op->ttl_ms);
    if (rc == CHT_OK)
        rc = cht_exec_name(x, op->name, x->guess && op->ask == NULL, &v);
    if (rc != CHT_OK)
        return rc;
    op->created = !is_mapped(&v);
    op->ends = op->ttl_ms > 0 ? x->now + (op->ttl_ms < CHT_TTL_MAX_MS ? op->ttl_ms : CHT_TTL_MAX_MS) : 0;
    if (op->keep_end && v.row.ends != 0)
        op->ends = v.row.ends;
    if (v.live)
        return write_noted(x, o, v.at, v.at, v.row.key, op->ends);
    if (is_mapped(&v)) {
        rc = cht_exec_find(x, v.row.key, &k);
        if (rc != CHT_OK || k.live)
            return rc == CHT_OK ? put_elsewhere(x, o, &v) : rc;
    }
    return put_new(x, o, v.at, op->ends);
}

static enum cht_rc do_pair_del(struct cht_exec *x, struct cht_exec_op *o)
{
    struct cht_op *op = o->op;
    struct cht_exec_value v;
    bool was = false;
    op->values = 0;
    enum cht_rc rc = check_name(x, op->name);
    if (rc == CHT_OK)
        rc = cht_exec_name(x, op->name, false, &v);
    if (rc != CHT_OK)
        return rc;
    if (!is_mapped(&v))
        return CHT_PAIR_NOT_FOUND;
    op->key = v.row.key;
    op->pairs = 1;
    if (op->with_values)
        rc = delete_value(x, v.row.key, &was);
    else if (v.live)
        rc = move_out(x, &v);
    else if (v.row.ends != 0)
        rc = cht_exec_end_value(x, v.row.key, 0);
    op->values = was;
    if (rc == CHT_OK)
        rc = cht_exec_drop(x, v.at);
    return rc == CHT_OK ? cht_exec_note(x, v.at) : rc;
}

/* Of an atomic commit. The names are those that are there now, with those that operations before it have made: all of them are in the
 * set; rows that are added meanwhile are of keys. */
static enum cht_rc do_prefix_del(struct cht_exec *x, struct cht_exec_op *o)
{
    uint8_t row[CHT_ROW_NAME_MAX], name[CHT_ROW_NAME_MAX];
    struct cht_op *op = o->op, one;
    struct cht_exec_op each = {.op = &one};
    bool pending = false;
    op->pairs = op->values = 0;
    if (op->name.n > CHT_NAME_MAX)
        return CHT_FAIL(x->err, CHT_INVALID_PAIR, "a prefix of %zu bytes", op->name.n);
    enum cht_rc rc = cht_under_look(x->set, op->name, &o->under, x->err);
    size_t n = cht_row_of_name(row, 'P', op->name);
    for (size_t i = 0; i < x->set->n && (rc == CHT_OK || rc == CHT_PAIR_NOT_FOUND); i++) {
        const struct cht_rowset_row *r = &x->set->rows[i];
        if (r->now.p == NULL || r->name.n < n || memcmp(r->name.p, row, n) != 0)
            continue;
        size_t len = cht_row_unescape(name, r->name.p + 1, r->name.n - 1);
        if (len == SIZE_MAX)
            return cht_exec_damaged(x, "the row of a name cannot be read");
        one = (struct cht_op){.kind = CHT_OP_PAIR_DEL, .name = {name, len}, .with_values = op->with_values};
        rc = do_pair_del(x, &each);
        if (rc == CHT_PAIR_NOT_FOUND) /* it had ended, and is taken away */
            continue;
        pending = pending || rc == CHT_PENDING;
        op->pairs += rc == CHT_OK;
        op->values += rc == CHT_OK ? one.values : 0;
        rc = rc == CHT_PENDING ? CHT_OK : rc; /* all that is wanted is read at once */
    }
    rc = rc == CHT_PAIR_NOT_FOUND ? CHT_OK : rc;
    return rc == CHT_OK && pending ? CHT_PENDING : rc;
}

static enum cht_rc copy_out(struct cht_exec *x, struct cht_op *op, const struct cht_exec_value *v)
{
    struct cht_str bytes;
    op->size = v->row.len;
    if (op->buf == NULL)
        return CHT_OK;
    enum cht_rc rc = cht_exec_bytes(x, v, &bytes);
    if (rc == CHT_OK)
        rc = cht_buf_reserve(op->buf, bytes.n, x->err);
    if (rc == CHT_OK) {
        memcpy(op->buf->data, bytes.p, bytes.n);
        op->buf->len = bytes.n;
        x->read += bytes.n;
    }
    return rc;
}

static enum cht_rc do_read(struct cht_exec *x, struct cht_exec_op *o)
{
    struct cht_exec_value v;
    enum cht_rc rc = check_key(x, o->op->key);
    if (rc == CHT_OK)
        rc = cht_exec_find(x, o->op->key, &v);
    if (rc == CHT_OK && !v.live)
        return CHT_KEY_NOT_FOUND;
    return rc == CHT_OK ? copy_out(x, o->op, &v) : rc;
}

static enum cht_rc do_pair_read(struct cht_exec *x, struct cht_exec_op *o)
{
    struct cht_exec_value v, k;
    o->op->size = 0;
    if (o->op->buf != NULL)
        o->op->buf->len = 0;
    enum cht_rc rc = check_name(x, o->op->name);
    if (rc == CHT_OK)
        rc = cht_exec_name(x, o->op->name, false, &v);
    if (rc != CHT_OK)
        return rc;
    if (!is_mapped(&v))
        return CHT_PAIR_NOT_FOUND;
    o->op->key = v.row.key;
    o->op->ends = v.row.ends;
    if (!o->op->with_values)
        return CHT_OK;
    k = v;
    if (!v.live)
        rc = cht_exec_find(x, v.row.key, &k);
    return rc == CHT_OK && k.live ? copy_out(x, o->op, &k) : rc;
}

static enum cht_rc do_pair_link(struct cht_exec *x, struct cht_exec_op *o)
{
    struct cht_op *op = o->op;
    struct cht_exec_value v;
    uint64_t key = 0;
    enum cht_rc rc = check_name(x, op->name);
    if (rc == CHT_OK)
        rc = check_name(x, op->value);
    if (rc != CHT_OK)
        return rc;
    if (op->back > 0) {
        if ((op - op->back)->rc != CHT_OK)
            return CHT_PAIR_NOT_FOUND;
        key = (op - op->back)->key;
    } else {
        rc = cht_exec_name(x, op->value, false, &v);
        if (rc != CHT_OK || !is_mapped(&v))
            return rc == CHT_OK ? CHT_PAIR_NOT_FOUND : rc;
        key = v.row.key;
    }
    rc = map_name(x, op, key, 0);
    if (rc == CHT_OK)
        op->key = key;
    return rc;
}

static enum cht_rc do_reserve(struct cht_exec *x, struct cht_exec_op *o)
{
    if (o->fresh == 0 && (o->op->key == 0 || o->op->key > CHT_RESERVE_MAX))
        return CHT_FAIL(x->err, CHT_INVALID_ARGUMENT, "keys to reserve: 1 to %llu, not %llu",
                        (unsigned long long)CHT_RESERVE_MAX, (unsigned long long)o->op->key);
    enum cht_rc rc = CHT_OK;
    if (o->fresh == 0)
        rc = cht_leases_range(x->db, o->op->key, &o->fresh, x->err);
    if (rc == CHT_OK)
        o->op->key = o->fresh;
    return rc;
}

/* Of a name, by ends.c: it goes if it has ended. Without one there is nothing to do: the store removes what has ended by itself. */
static enum cht_rc do_purge(struct cht_exec *x, struct cht_exec_op *o)
{
    struct cht_exec_value v = {0};
    if (o->op->name.n == 0)
        return CHT_OK;
    enum cht_rc rc = check_name(x, o->op->name);
    if (rc == CHT_OK)
        rc = cht_exec_name(x, o->op->name, false, &v);
    o->op->pairs = rc == CHT_OK && !is_mapped(&v) && x->set->rows[v.at].was.p != NULL; /* else another has */
    return rc;
}

/* ---- of a restore ------------------------------------------------------------------------------------------------- */

static enum cht_rc redo_value(struct cht_exec *x, struct cht_exec_op *o)
{
    struct cht_exec_value v;
    enum cht_rc rc = cht_exec_key(x, o->op->key, x->guess, &v);
    if (rc == CHT_OK && v.row.flags == CHT_ROW_NAME)
        rc = cht_exec_find(x, o->op->key, &v);
    return rc == CHT_OK ? write_value(x, o, v.at, o->op->key, v.row.ends) : rc;
}

static enum cht_rc redo_name(struct cht_exec *x, struct cht_exec_op *o)
{
    struct cht_exec_value v;
    enum cht_rc rc = cht_exec_name(x, o->op->name, x->guess, &v);
    return rc == CHT_OK ? map_name(x, o->op, o->op->key, v.row.ends) : rc;
}

static enum cht_rc redo_both(struct cht_exec *x, struct cht_exec_op *o)
{
    struct cht_exec_value v, k;
    struct cht_op *op = o->op;
    enum cht_rc rc = cht_exec_name(x, op->name, x->guess, &v);
    enum cht_rc other = cht_exec_key(x, op->key, x->guess, &k);
    rc = rc == CHT_OK ? other : rc;
    if (rc == CHT_OK && !is_mapped(&v) && k.row.key == 0) {
        rc =
            cht_exec_set(x, k.at, &(struct cht_row){.flags = CHT_ROW_NAME, .key = op->key, .body = op->name});
        return rc == CHT_OK ? write_value(x, o, v.at, op->key, 0) : rc;
    }
    if (rc == CHT_OK)
        rc = redo_value(x, o);
    return rc == CHT_OK ? redo_name(x, o) : rc;
}

static enum cht_rc redo_end(struct cht_exec *x, struct cht_exec_op *o)
{
    struct cht_exec_value v;
    enum cht_rc rc = begin_ends(x, o->op->until_ms);
    if (rc == CHT_OK)
        rc = cht_exec_name(x, o->op->name, false, &v);
    if (rc != CHT_OK)
        return rc;
    return is_mapped(&v) ? change_end(x, &v, o->op->until_ms) : CHT_PAIR_NOT_FOUND;
}

typedef enum cht_rc exec_fn(struct cht_exec *, struct cht_exec_op *);
static exec_fn *const table[] = {
    [CHT_OP_INSERT] = do_insert,
    [CHT_OP_EDIT] = do_edit,
    [CHT_OP_DELETE] = do_delete,
    [CHT_OP_PAIR_SET] = do_pair_set,
    [CHT_OP_PAIR_PUT] = do_pair_put,
    [CHT_OP_PAIR_DEL] = do_pair_del,
    [CHT_OP_READ] = do_read,
    [CHT_OP_PAIR_READ] = do_pair_read,
    [CHT_OP_PAIR_LINK] = do_pair_link,
    [CHT_OP_PUT] = do_put,
    [CHT_OP_RESERVE] = do_reserve,
    [CHT_OP_PURGE] = do_purge,
    [CHT_OP_PREFIX_DEL] = do_prefix_del,
    [CHT_REDO_VALUE] = redo_value,
    [CHT_REDO_NAME] = redo_name,
    [CHT_REDO_BOTH] = redo_both,
    [CHT_REDO_END] = redo_end,
};

static enum cht_rc find_asked(struct cht_exec *x, const struct cht_op *op, struct cht_found *found,
                              struct cht_exec_value *v)
{
    bool named = op->kind == CHT_OP_PAIR_SET || op->kind == CHT_OP_PAIR_PUT || op->kind == CHT_OP_PAIR_DEL ||
                 op->kind == CHT_OP_PAIR_READ;
    enum cht_rc rc = named ? check_name(x, op->name) : check_key(x, op->key);
    if (rc == CHT_OK)
        rc = named ? cht_exec_name(x, op->name, false, v) : cht_exec_find(x, op->key, v);
    if (rc != CHT_OK)
        return rc;
    found->key = named ? v->row.key : op->key;
    found->mapped = named ? is_mapped(v) : v->live;
    return named && is_mapped(v) && !v->live ? cht_exec_find(x, v->row.key, v) : CHT_OK;
}

static enum cht_rc ask(struct cht_exec *x, struct cht_op *op)
{
    struct cht_found found = {.key = 0};
    struct cht_exec_value v;
    if (op->kind == CHT_OP_INSERT || op->kind == CHT_OP_PAIR_LINK || op->kind == CHT_OP_RESERVE)
        return CHT_FAIL(x->err, CHT_INVALID_ARGUMENT, "nothing decides about operations of kind %d",
                        (int)op->kind);
    enum cht_rc rc = find_asked(x, op, &found, &v);
    if (rc != CHT_OK)
        return rc;
    found.live = v.live;
    if (v.live)
        rc = cht_exec_bytes(x, &v, &found.value);
    if (rc == CHT_CORRUPT) {
        found.damage = rc;
        rc = CHT_OK;
    }
    return rc == CHT_OK ? op->ask->decide(op->ask, op, &found, x->err) : rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

static bool grows(enum cht_op_kind kind)
{
    return kind == CHT_OP_INSERT || kind == CHT_OP_EDIT || kind == CHT_OP_PUT || kind == CHT_OP_PAIR_SET ||
           kind == CHT_OP_PAIR_PUT || kind == CHT_OP_PAIR_LINK || kind >= CHT_REDO_VALUE;
}

enum cht_rc cht_exec_run(struct cht_exec *x, struct cht_exec_op *o)
{
    struct cht_op *op = o->op;
    size_t mark = cht_rowset_mark(x->set);
    bool known = (unsigned)op->kind < sizeof table / sizeof *table && table[op->kind] != NULL;
    enum cht_rc rc = CHT_OK;
    op->ends = 0;
    x->now = x->db->remade ? 0 : cht_wall_ns() / 1000000;
    if (!known)
        rc = CHT_FAIL(x->err, CHT_INVALID_ARGUMENT, "operation kind %d", (int)op->kind);
    else if (x->full && grows(op->kind))
        rc = CHT_FAIL(x->err, CHT_DISK_FULL, "the pool is full: what is deleted makes room");
    else if (op->buf != NULL && x->read_max > 0 && x->read >= x->read_max)
        rc = CHT_FAIL(x->err, CHT_BATCH_TOO_LARGE, "the commit has read its %llu bytes",
                      (unsigned long long)x->read_max);
    x->missing = o->missing;
    if (rc == CHT_OK && op->ask != NULL)
        rc = ask(x, op);
    if (rc == CHT_OK)
        rc = table[op->kind](x, o);
    o->missing = x->missing; /* it may be run again by another */
    if (rc != CHT_OK)
        cht_rowset_rewind(x->set, mark);
    if (rc != CHT_PENDING)
        op->rc = rc;
    return rc;
}
