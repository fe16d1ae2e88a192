/* exec_rows: see exec_int.h. */
#include "store/rados/exec_int.h"

#include "base/bytes.h"

#include <string.h>

static unsigned shard_of_name(const struct cht_exec *x, struct cht_str name)
{
    return cht_map_locate(x->set->map, cht_row_bucket(name));
}

static unsigned shard_of_key(const struct cht_exec *x, uint64_t key)
{
    return cht_map_locate(x->set->map, cht_row_bucket_of_key(key));
}

enum cht_rc cht_exec_damaged(struct cht_exec *x, const char *what)
{
    return CHT_FAIL(x->err, CHT_CORRUPT, "database %s: %s", x->db->name, what);
}

/* Also one that has ended. */
static enum cht_rc look_at_name(struct cht_exec *x, struct cht_str name, bool guess, struct cht_exec_value *v)
{
    uint8_t row[CHT_ROW_NAME_MAX];
    struct cht_str value, text = {row, cht_row_of_name(row, 'P', name)};
    *v = (struct cht_exec_value){.shard = shard_of_name(x, name), .under_name = true};
    enum cht_rc rc = guess ? cht_rowset_guess(x->set, v->shard, text, x->fresh, &value, &v->at)
                           : cht_rowset_get(x->set, v->shard, text, &value, &v->at);
    if (rc != CHT_OK || value.p == NULL)
        return rc;
    if (!cht_row_read(value.p, value.n, &v->row) || v->row.flags == CHT_ROW_NAME)
        return cht_exec_damaged(x, "the row of a name cannot be read");
    v->name = x->set->rows[v->at].name;
    v->live = cht_row_live(&v->row);
    return CHT_OK;
}

static enum cht_rc look_at_key(struct cht_exec *x, uint64_t key, bool guess, struct cht_exec_value *v)
{
    uint8_t row[CHT_ROW_KEY_SIZE];
    struct cht_str value, text = {row, cht_row_of_key(row, key)};
    *v = (struct cht_exec_value){.shard = shard_of_key(x, key)};
    enum cht_rc rc = guess ? cht_rowset_guess(x->set, v->shard, text, true, &value, &v->at)
                           : cht_rowset_get(x->set, v->shard, text, &value, &v->at);
    v->key_at = v->at;
    if (rc != CHT_OK || value.p == NULL)
        return rc;
    if (!cht_row_read(value.p, value.n, &v->row) || v->row.key != key || v->row.flags == 0)
        return cht_exec_damaged(x, "the row of a key cannot be read");
    v->live = cht_row_live(&v->row);
    return CHT_OK;
}

static bool has_ended(const struct cht_exec *x, const struct cht_row *r)
{
    return r->ends != 0 && r->ends <= x->now;
}

/* The name in whose row the value of a key is, as its K row k says. v->live false: it has been read at another moment, or is damaged. */
static enum cht_rc look_at_home(struct cht_exec *x, const struct cht_exec_value *k, struct cht_exec_value *v)
{
    enum cht_rc rc = look_at_name(x, k->row.body, false, v);
    if (rc == CHT_OK && (v->row.key != k->row.key || v->shard != k->shard))
        v->live = false;
    return rc;
}

/* The value of a K row is not that of a pair which ended then, but came later, or ends with another pair. */
static bool is_later(const struct cht_exec *x, const struct cht_row *k, uint64_t ended)
{
    return k->ends >= CHT_ROW_SINCE ? k->ends >= (CHT_ROW_SINCE | ended) : k->ends > x->now;
}

static enum cht_rc drop_and_note(struct cht_exec *x, size_t at)
{
    enum cht_rc rc = cht_exec_drop(x, at);
    return rc == CHT_OK ? cht_exec_note(x, at) : rc;
}

/* Takes away the value under the key of a pair that ended then, wherever it is. */
static enum cht_rc drop_value(struct cht_exec *x, uint64_t key, uint64_t ended)
{
    struct cht_exec_value k, v;
    enum cht_rc rc = look_at_key(x, key, false, &k);
    if (rc != CHT_OK || k.row.key == 0 || is_later(x, &k.row, ended))
        return rc;
    if (k.row.flags == CHT_ROW_NAME) {
        rc = look_at_home(x, &k, &v);
        if (rc == CHT_OK && v.live)
            rc = cht_exec_set(x, v.at, &(struct cht_row){.key = key, .ends = v.row.ends});
        if (rc != CHT_OK || !v.live)
            return rc;
    }
    return drop_and_note(x, k.at);
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_exec_set(struct cht_exec *x, size_t at, const struct cht_row *r)
{
    size_t n = cht_row_size(r);
    uint8_t *p = cht_rowset_alloc(x->set, n);
    if (p == NULL)
        return CHT_FAIL(x->err, CHT_NO_MEMORY, "no memory for a row");
    cht_row_write(p, r);
    enum cht_rc rc = cht_rowset_set(x->set, at, (struct cht_str){p, n});
    return rc == CHT_OK ? rc : CHT_FAIL(x->err, rc, "no memory for a row");
}

enum cht_rc cht_exec_drop(struct cht_exec *x, size_t at)
{
    enum cht_rc rc = cht_rowset_set(x->set, at, (struct cht_str){NULL, 0});
    return rc == CHT_OK ? rc : CHT_FAIL(x->err, rc, "no memory for a row");
}

enum cht_rc cht_exec_note(struct cht_exec *x, size_t at)
{
    enum cht_rc rc = cht_rowset_note(x->set, at);
    return rc == CHT_OK ? rc : CHT_FAIL(x->err, rc, "no memory for a row");
}

enum cht_rc cht_exec_name(struct cht_exec *x, struct cht_str name, bool guess, struct cht_exec_value *v)
{
    enum cht_rc rc = look_at_name(x, name, guess, v);
    if (rc != CHT_OK || !has_ended(x, &v->row))
        return rc;
    size_t at = v->at;
    rc = drop_value(x, v->row.key, v->row.ends);
    if (rc == CHT_OK)
        rc = drop_and_note(x, at);
    *v = (struct cht_exec_value){.shard = v->shard, .under_name = true, .at = at};
    return rc;
}

enum cht_rc cht_exec_key(struct cht_exec *x, uint64_t key, bool guess, struct cht_exec_value *v)
{
    enum cht_rc rc = look_at_key(x, key, guess, v);
    if (rc != CHT_OK || !has_ended(x, &v->row))
        return rc;
    size_t at = v->at;
    *v = (struct cht_exec_value){.shard = v->shard, .at = at, .key_at = at};
    return drop_and_note(x, at);
}

enum cht_rc cht_exec_end_value(struct cht_exec *x, uint64_t key, uint64_t ends)
{
    struct cht_exec_value k, v;
    enum cht_rc rc = cht_exec_key(x, key, false, &k);
    if (rc != CHT_OK || k.row.key == 0)
        return rc;
    if (k.row.flags != CHT_ROW_NAME) {
        if (k.row.ends == ends || (ends == 0 && k.row.ends >= CHT_ROW_SINCE))
            return CHT_OK;
        k.row.ends = ends != 0 ? ends : CHT_ROW_SINCE | x->now; /* pairs that have ended may be there still */
        return cht_exec_set(x, k.at, &k.row);
    }
    if (ends == 0)
        return CHT_OK;
    rc = cht_exec_name(x, k.row.body, false, &v); /* what has ended there goes, and begins no other life */
    if (rc != CHT_OK || !v.live || v.row.key != key || v.shard != k.shard)
        return rc;
    struct cht_row row = v.row;
    row.ends = ends;
    rc = cht_exec_set(x, k.at, &row);
    return rc == CHT_OK ? cht_exec_set(x, v.at, &(struct cht_row){.key = key, .ends = v.row.ends}) : rc;
}

enum cht_rc cht_exec_find(struct cht_exec *x, uint64_t key, struct cht_exec_value *v)
{
    enum cht_rc rc = cht_exec_key(x, key, false, v);
    if (rc != CHT_OK || v->row.flags != CHT_ROW_NAME)
        return rc;
    size_t key_at = v->key_at;
    rc = cht_exec_name(x, v->row.body, false, v);
    if (rc == CHT_OK && v->row.key == 0 && x->set->rows[key_at].now.p == NULL)
        return cht_exec_key(x, key, false, v); /* it had ended */
    v->key_at = key_at;
    if (rc != CHT_OK || (v->row.key == key && v->live && v->shard == shard_of_key(x, key)))
        return rc;
    if (v->shard == shard_of_key(x, key) && x->set->rows[key_at].round != x->set->rows[v->at].round) {
        cht_rowset_forget_row(x->set, key_at); /* the value has moved between two reads: both at one moment */
        cht_rowset_forget_row(x->set, v->at);
        return CHT_PENDING;
    }
    return cht_exec_damaged(x, "a key says that a name has its value, and the name does not");
}

enum cht_rc cht_exec_bytes(struct cht_exec *x, const struct cht_exec_value *v, struct cht_str *out)
{
    *out = v->row.body;
    if (v->row.flags == CHT_ROW_PARTS && x->soon) {
        x->long_value = true;
        return CHT_PENDING;
    }
    if (v->row.flags == CHT_ROW_PARTS) {
        uint8_t *p = cht_rowset_alloc(x->set, v->row.len);
        if (p == NULL)
            return CHT_FAIL(x->err, CHT_NO_MEMORY, "no memory for a value of %u bytes", v->row.len);
        enum cht_rc rc = cht_parts_read(x->db, cht_get64(v->row.body.p), p, v->row.len, x->err);
        *out = (struct cht_str){p, v->row.len};
        uint64_t number = cht_get64(v->row.body.p);
        if (rc == CHT_NO_FILE &&
            number != x->missing) { /* replaced since its row was read, or lost: the row tells */
            x->missing = number;
            cht_rowset_forget(x->set, (int)v->shard);
            return CHT_PENDING;
        }
        if (rc == CHT_NO_FILE)
            return cht_exec_damaged(x, "the object with a long value is not there");
        if (rc != CHT_OK)
            return rc;
    }
    if (cht_row_crc(v->row.key, *out) == v->row.crc)
        return CHT_OK;
    atomic_fetch_add_explicit(&x->db->corrupt, 1, memory_order_relaxed);
    return cht_exec_damaged(x, "a value does not match its checksum");
}
