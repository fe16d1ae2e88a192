/* slots: the catalogue of byte lengths and the slots of their extents (records in values_format.h). */
#include "store/values_format.h"

static enum cht_rc code(const struct cht_err *e, struct cht_err *err)
{
    if (err != NULL)
        *err = *e;
    return e->code;
}

static enum cht_rc broken(struct cht_values *v, uint32_t ref, const char *what, struct cht_err *err)
{
    return CHT_DAMAGED(err, "%s: offset %llu: %s", cht_pf_path(v->recycle), (unsigned long long)ref * 64,
                       what);
}

enum cht_rc cht_class_of(struct cht_values *v, uint32_t len, bool create, uint32_t *ref, struct cht_err *err)
{
    struct cht_err e = {0};
    enum cht_rc rc =
        cht_radix_get(v->recycle, CHT_RC_LENGTHS, len - 1, ref, err); /* lengths to 2^30 in 30 bits */
    if (rc != CHT_OK)
        return rc;
    if (*ref != 0) {
        const uint8_t *c = cht_record(v, *ref, err);
        if (c == NULL)
            return CHT_CORRUPT;
        return cht_get32(c + CHT_CL_LENGTH) == len ? CHT_OK
                                                   : broken(v, *ref, "the record of another length", err);
    }
    if (!create)
        return CHT_OK;
    rc = cht_arena_alloc(v->recycle, 0, ref, err);
    uint8_t *c = rc == CHT_OK ? cht_record_write(v, *ref, &e) : NULL;
    if (c == NULL)
        return rc != CHT_OK ? rc : code(&e, err);
    cht_put32(c + CHT_CL_LENGTH, len);
    return cht_radix_set(v->recycle, CHT_RC_LENGTHS, len - 1, *ref, err);
}

static uint32_t choose_slots(uint32_t len, uint64_t have)
{
    if (len > CHT_ONE_SLOT)
        return 1;
    uint64_t target = have * len / 8;
    target = target < len ? len : target > CHT_EXTENT_BYTES ? CHT_EXTENT_BYTES : target;
    uint64_t slots = (target / len * len + CHT_GRANULE - 1) / CHT_GRANULE * CHT_GRANULE /
                     len; /* the last granule is used too */
    return (uint32_t)(slots > CHT_SLOTS_MAX ? CHT_SLOTS_MAX : slots);
}

enum cht_rc cht_class_add_extent(struct cht_values *v, uint32_t cls, uint32_t slots, struct cht_err *err)
{
    struct cht_err e = {0};
    uint8_t *c = cht_record_write(v, cls, &e);
    if (c == NULL)
        return code(&e, err);
    cht_put64(c + CHT_CL_SLOTS, cht_get64(c + CHT_CL_SLOTS) + slots);
    cht_put64(c + CHT_CL_EXTENTS, cht_get64(c + CHT_CL_EXTENTS) + 1);
    return CHT_OK;
}

/* A new extent for the class, listed as having free slots. */
static enum cht_rc add_extent(struct cht_values *v, uint32_t cls, uint32_t len, struct cht_err *err)
{
    struct cht_err e = {0};
    const uint8_t *c = cht_record(v, cls, err);
    if (c == NULL)
        return CHT_CORRUPT;
    uint32_t slots = choose_slots(len, cht_get64(c + CHT_CL_SLOTS)), ref;
    enum cht_rc rc = cht_extent_alloc(v, (uint32_t)(((uint64_t)slots * len + CHT_GRANULE - 1) / CHT_GRANULE),
                                      false, &ref, err);
    uint8_t *x = rc == CHT_OK ? cht_record_write(v, ref, &e) : NULL;
    if (x == NULL)
        return rc != CHT_OK ? rc : code(&e, err);
    cht_put32(x + CHT_EX_LENGTH, len);
    cht_put32(x + CHT_EX_SLOTS, slots);
    x[CHT_EX_LISTED] = 1;
    uint8_t copy[64];
    memcpy(copy, x, sizeof copy);
    if (slots > 1)
        rc = cht_extent_map(v, copy, ref, true, err);
    if (rc == CHT_OK)
        rc = cht_class_add_extent(v, cls, slots, err);
    return rc == CHT_OK ? cht_extent_link(v, cls, CHT_CL_PARTIAL, ref, err) : rc;
}

/* The lowest free slot of a bitmap from `hint` on. */
static uint32_t find_clear(const uint8_t *bits, uint32_t hint, uint32_t end)
{
    for (uint32_t i = hint / 64 * 64; i < end; i += 64) {
        uint64_t free_bits = ~cht_get64(bits + i / 8);
        if (free_bits != 0)
            return i + (unsigned)__builtin_ctzll(free_bits);
    }
    return end;
}

/* The bitmap of an extent with slots in bounds: it lies in one page. For reading or writing; NULL with err. */
static bool bitmap_ok(struct cht_values *v, const uint8_t *x, struct cht_err *err)
{
    uint32_t ref = cht_get32(x + CHT_EX_BITMAP),
             units = 1u << cht_arena_class((cht_get32(x + CHT_EX_SLOTS) + 7) / 8);
    return (ref & (units - 1)) == 0 || broken(v, ref, "a bitmap out of place", err) == CHT_OK;
}

/* Sanity of an extent record with slots. */
static bool extent_ok(const uint8_t *x, uint32_t len)
{
    uint32_t slots = cht_get32(x + CHT_EX_SLOTS);
    return x[CHT_EX_STATE] == CHT_EXT_USED && cht_get32(x + CHT_EX_LENGTH) == len && slots > 0 &&
           slots <= CHT_SLOTS_MAX && cht_get32(x + CHT_EX_BUMP) <= slots &&
           cht_get32(x + CHT_EX_USED) <= cht_get32(x + CHT_EX_BUMP) &&
           (uint64_t)slots * len <= (uint64_t)cht_get32(x + CHT_EX_GRANULES) * CHT_GRANULE;
}

/* The slot that is given out next: the lowest free one, else the one at bump (which it then equals). */
static uint32_t next_slot(const uint8_t *x, const uint8_t *bits)
{
    uint32_t bump = cht_get32(x + CHT_EX_BUMP);
    return bits != NULL && cht_get32(x + CHT_EX_USED) < bump
               ? find_clear(bits, cht_get32(x + CHT_EX_HINT), bump)
               : bump;
}

/* Does a place lie on a page that cannot be read or does not match its sum? A hole gets its space before it is read, which on
 * some file systems takes space, too; without it whoever takes the place is told. */
static bool is_damaged(struct cht_values *v, uint64_t off, uint32_t len)
{
    struct cht_err e = {0};
    for (uint64_t page = off / CHT_PAGE; page * CHT_PAGE < off + len; page++) {
        if (page >= cht_pf_pages(v->values))
            break;
        if (!cht_bit(v->values->dirty, page) && cht_pf_back(v->values, page, &e) != CHT_OK)
            return false;
        if (cht_page_read(v->values, page, &e) == NULL)
            return e.code == CHT_CORRUPT;
    }
    return false;
}

/* Has any page of the values turned out so? */
static bool damage_known(const struct cht_values *v)
{
    return cht_pf_losses(v->values) != 0 ||
           atomic_load_explicit(&v->values->corrupt, memory_order_relaxed) != 0;
}

/* Would the next slot of a listed extent be such a place? */
static bool next_is_damaged(struct cht_values *v, uint32_t ref, uint32_t len)
{
    struct cht_err e = {0};
    const uint8_t *x = cht_extent(v, ref, &e), *bits = NULL;
    if (x == NULL || !extent_ok(x, len))
        return false; /* told by who takes the slot */
    if (cht_get32(x + CHT_EX_BITMAP) != 0) {
        bits = bitmap_ok(v, x, &e) ? cht_record(v, cht_get32(x + CHT_EX_BITMAP), &e) : NULL;
        if (bits == NULL)
            return false;
    }
    uint64_t off = (uint64_t)cht_get32(x + CHT_EX_START) * CHT_GRANULE + (uint64_t)next_slot(x, bits) * len;
    return is_damaged(v, off, len);
}

/* Takes a slot of a listed extent. */
static enum cht_rc take_slot(struct cht_values *v, uint32_t cls, uint32_t ref, uint32_t len, uint64_t *off,
                             struct cht_err *err)
{
    struct cht_err e = {0};
    uint8_t *c = cht_record_write(v, cls, &e), *x = cht_record_write(v, ref, &e);
    if (c == NULL || x == NULL)
        return code(&e, err);
    if (!extent_ok(x, len) || cht_get32(x + CHT_EX_USED) >= cht_get32(x + CHT_EX_SLOTS))
        return broken(v, ref, "an extent with wrong counts", err);
    uint32_t bitmap = cht_get32(x + CHT_EX_BITMAP), bump = cht_get32(x + CHT_EX_BUMP);
    uint8_t *bits = bitmap != 0 && bitmap_ok(v, x, &e) ? cht_record_write(v, bitmap, &e) : NULL;
    if (bitmap != 0 && bits == NULL)
        return code(&e, err);
    uint32_t slot = next_slot(x, bits);
    if (slot >= cht_get32(x + CHT_EX_SLOTS) || (slot == bump && cht_get32(x + CHT_EX_USED) < bump))
        return broken(v, ref, "an extent without the free slot it counts", err);
    if (slot < bump)
        cht_put32(x + CHT_EX_HINT, slot + 1);
    else
        cht_put32(x + CHT_EX_BUMP, bump + 1);
    if (bits != NULL)
        bits[slot / 8] |= (uint8_t)(1u << (slot % 8));
    cht_put32(x + CHT_EX_USED, cht_get32(x + CHT_EX_USED) + 1);
    cht_put64(c + CHT_CL_LIVE, cht_get64(c + CHT_CL_LIVE) + 1);
    *off = (uint64_t)cht_get32(x + CHT_EX_START) * CHT_GRANULE + (uint64_t)slot * len;
    if (cht_get32(x + CHT_EX_USED) < cht_get32(x + CHT_EX_SLOTS))
        return CHT_OK;
    x[CHT_EX_LISTED] = 0;
    return cht_extent_unlink(v, cls, CHT_CL_PARTIAL, ref, err);
}

/* The extent and the slot at a place. */
static enum cht_rc locate(struct cht_values *v, uint64_t off, uint32_t len, uint32_t *ref, uint32_t *slot,
                          struct cht_err *err)
{
    enum cht_rc rc = off / CHT_GRANULE >= CHT_MAP_MAX
                         ? CHT_CORRUPT
                         : cht_radix_get(v->recycle, CHT_RC_MAP, (uint32_t)(off / CHT_GRANULE), ref, err);
    const uint8_t *x = rc == CHT_OK && *ref != 0 ? cht_extent(v, *ref, err) : NULL;
    uint64_t start = x == NULL ? 0 : (uint64_t)cht_get32(x + CHT_EX_START) * CHT_GRANULE;
    if (x == NULL || !extent_ok(x, len) || off < start || (off - start) % len != 0 ||
        (off - start) / len >= cht_get32(x + CHT_EX_BUMP) || cht_get32(x + CHT_EX_USED) == 0 ||
        !bitmap_ok(v, x, err))
        return CHT_DAMAGED(err, "%s: offset %llu: no slot of %u bytes", cht_pf_path(v->values),
                           (unsigned long long)off, len);
    *slot = (uint32_t)((off - start) / len);
    return CHT_OK;
}

/* Makes the bitmap of an extent that had none: all slots given out so far are in use. */
static enum cht_rc make_bitmap(struct cht_values *v, uint32_t ref, struct cht_err *err)
{
    struct cht_err e = {0};
    const uint8_t *x = cht_record(v, ref, err);
    if (x == NULL)
        return CHT_CORRUPT;
    uint32_t bitmap, bump = cht_get32(x + CHT_EX_BUMP);
    enum cht_rc rc =
        cht_arena_alloc(v->recycle, cht_arena_class((cht_get32(x + CHT_EX_SLOTS) + 7) / 8), &bitmap, err);
    uint8_t *w = rc == CHT_OK ? cht_record_write(v, ref, &e) : NULL,
            *bits = w != NULL ? cht_record_write(v, bitmap, &e) : NULL;
    if (bits == NULL)
        return rc != CHT_OK ? rc : code(&e, err);
    cht_put32(w + CHT_EX_BITMAP, bitmap);
    cht_put32(w + CHT_EX_HINT, bump);
    memset(bits, 0xFF, bump / 8);
    if (bump % 8 != 0)
        bits[bump / 8] = (uint8_t)((1u << (bump % 8)) - 1);
    return CHT_OK;
}

/* The last slot of an extent was given back: the extent goes, and with the last one its class. */
static enum cht_rc drop_extent(struct cht_values *v, uint32_t cls, uint32_t ref, uint32_t len,
                               struct cht_err *err)
{
    struct cht_err e = {0};
    uint8_t *x = cht_record_write(v, ref, &e);
    if (x == NULL)
        return code(&e, err);
    enum cht_rc rc = CHT_OK;
    uint32_t slots = cht_get32(x + CHT_EX_SLOTS);
    if (x[CHT_EX_LISTED]) {
        x[CHT_EX_LISTED] = 0;
        rc = cht_extent_unlink(v, cls, CHT_CL_PARTIAL, ref, err);
    }
    if (rc == CHT_OK)
        rc = cht_extent_retire(v, ref, err);
    uint8_t *c = rc == CHT_OK ? cht_record_write(v, cls, &e) : NULL;
    if (c == NULL)
        return rc != CHT_OK ? rc : code(&e, err);
    cht_put64(c + CHT_CL_SLOTS, cht_get64(c + CHT_CL_SLOTS) - slots);
    cht_put64(c + CHT_CL_EXTENTS, cht_get64(c + CHT_CL_EXTENTS) - 1);
    if (cht_get64(c + CHT_CL_EXTENTS) != 0)
        return CHT_OK;
    rc = cht_radix_set(v->recycle, CHT_RC_LENGTHS, len - 1, 0, err);
    return rc == CHT_OK ? cht_arena_free(v->recycle, 0, cls, err) : rc;
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_slot_alloc(struct cht_values *v, uint32_t len, uint64_t *off, struct cht_err *err)
{
    uint32_t cls;
    enum cht_rc rc = cht_class_of(v, len, true, &cls, err);
    const uint8_t *c = rc == CHT_OK ? cht_record(v, cls, err) : NULL;
    if (c == NULL)
        return rc != CHT_OK ? rc : CHT_CORRUPT;
    if (cht_get32(c + CHT_CL_PARTIAL) == 0) {
        rc = add_extent(v, cls, len, err);
        c = rc == CHT_OK ? cht_record(v, cls, err) : NULL;
        if (c == NULL)
            return rc != CHT_OK ? rc : CHT_CORRUPT;
    }
    uint32_t ref = cht_get32(c + CHT_CL_PARTIAL);
    if (damage_known(v) && next_is_damaged(v, ref, len)) {
        /* what is damaged stays as it is; a new extent is first in the list */
        rc = add_extent(v, cls, len, err);
        c = rc == CHT_OK ? cht_record(v, cls, err) : NULL;
        if (c == NULL)
            return rc != CHT_OK ? rc : CHT_CORRUPT;
        ref = cht_get32(c + CHT_CL_PARTIAL);
    }
    return take_slot(v, cls, ref, len, off, err);
}

enum cht_rc cht_slot_alloc_fast(struct cht_values *v, uint32_t len, bool *fast, struct cht_err *err)
{
    uint32_t cls;
    *fast = false;
    enum cht_rc rc = cht_class_of(v, len, false, &cls, err);
    if (rc != CHT_OK || cls == 0)
        return rc;
    struct cht_err e = {0};
    const uint8_t *c = cht_record_write(v, cls, &e);
    uint32_t ref = c == NULL ? 0 : cht_get32(c + CHT_CL_PARTIAL);
    if (c != NULL && ref == 0)
        return CHT_OK;
    const uint8_t *x = c == NULL ? NULL : cht_record_write(v, ref, &e);
    if (x == NULL)
        return code(&e, err);
    if (!extent_ok(x, len))
        return broken(v, ref, "an extent with wrong counts", err);
    bool last = cht_get32(x + CHT_EX_USED) + 1 >=
                cht_get32(x + CHT_EX_SLOTS); /* leaves the list: neighbours change too */
    uint32_t bitmap = cht_get32(x + CHT_EX_BITMAP);
    const uint8_t *bits = bitmap != 0 && bitmap_ok(v, x, &e) ? cht_record_write(v, bitmap, &e) : NULL;
    if (bitmap != 0 && bits == NULL)
        return code(&e, err);
    uint64_t off = (uint64_t)cht_get32(x + CHT_EX_START) * CHT_GRANULE + (uint64_t)next_slot(x, bits) * len;
    bool there =
        cht_pf_write_range(v->values, off, len, &e) != NULL; /* a damaged page is known from here on */
    *fast = there && !last;
    return there || e.code == CHT_CORRUPT ? CHT_OK : code(&e, err);
}

enum cht_rc cht_slot_free(struct cht_values *v, uint64_t off, uint32_t len, struct cht_err *err)
{
    struct cht_err e = {0};
    uint32_t ref, slot, cls;
    enum cht_rc rc = locate(v, off, len, &ref, &slot, err);
    if (rc == CHT_OK)
        rc = cht_class_of(v, len, false, &cls, err);
    if (rc == CHT_OK && cls == 0)
        rc = broken(v, ref, "an extent of a length without a record", err);
    const uint8_t *now = rc == CHT_OK ? cht_record(v, ref, err) : NULL;
    if (rc == CHT_OK && now == NULL)
        rc = CHT_CORRUPT;
    if (rc == CHT_OK && cht_get32(now + CHT_EX_BITMAP) == 0 && cht_get32(now + CHT_EX_USED) > 1)
        rc = make_bitmap(v, ref, err);
    uint8_t *c = rc == CHT_OK ? cht_record_write(v, cls, &e) : NULL,
            *x = c != NULL ? cht_record_write(v, ref, &e) : NULL;
    if (x == NULL)
        return rc != CHT_OK ? rc : code(&e, err);
    uint32_t bitmap = cht_get32(x + CHT_EX_BITMAP), used = cht_get32(x + CHT_EX_USED);
    if (bitmap != 0) {
        uint8_t *bits = cht_record_write(v, bitmap, &e);
        if (bits == NULL)
            return code(&e, err);
        if ((bits[slot / 8] >> (slot % 8) & 1) == 0 || used == 0)
            return broken(v, ref, "a slot is given back twice", err);
        bits[slot / 8] &= (uint8_t) ~(1u << (slot % 8));
        if (slot < cht_get32(x + CHT_EX_HINT))
            cht_put32(x + CHT_EX_HINT, slot);
    }
    cht_put32(x + CHT_EX_USED, used - 1);
    cht_put64(c + CHT_CL_LIVE, cht_get64(c + CHT_CL_LIVE) - 1);
    if (used == 1)
        return drop_extent(v, cls, ref, len, err);
    if (x[CHT_EX_LISTED])
        return CHT_OK;
    x[CHT_EX_LISTED] = 1;
    return cht_extent_link(v, cls, CHT_CL_PARTIAL, ref, err);
}

enum cht_rc cht_slot_free_fast(struct cht_values *v, uint64_t off, uint32_t len, bool *fast,
                               struct cht_err *err)
{
    struct cht_err e = {0};
    uint32_t ref, slot, cls;
    *fast = false;
    enum cht_rc rc = locate(v, off, len, &ref, &slot, err);
    if (rc == CHT_OK)
        rc = cht_class_of(v, len, false, &cls, err);
    if (rc != CHT_OK || cls == 0)
        return rc;
    const uint8_t *c = cht_record_write(v, cls, &e), *x = c != NULL ? cht_record_write(v, ref, &e) : NULL;
    if (x == NULL)
        return code(&e, err);
    if (!x[CHT_EX_LISTED] || cht_get32(x + CHT_EX_USED) <= 1 || cht_get32(x + CHT_EX_BITMAP) == 0)
        return CHT_OK;
    if (cht_record_write(v, cht_get32(x + CHT_EX_BITMAP), &e) == NULL)
        return code(&e, err);
    *fast = true;
    return CHT_OK;
}
