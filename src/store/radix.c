/* radix: tables of 2^30 u32 in pages of the recycle file, made on demand (format in values_format.h). */
#include "store/values_format.h"

static enum cht_rc code(const struct cht_err *e, struct cht_err *err)
{
    if (err != NULL)
        *err = *e;
    return e->code;
}

static unsigned slot_of(uint32_t key, int level) { return key >> (20 - 10 * level) & 1023; }

/* A table page: references into it are whole pages. */
static const uint8_t *table(struct cht_pagefile *rc, uint32_t ref, struct cht_err *err)
{
    if ((ref & 63) != 0) {
        (void)CHT_DAMAGED(err, "%s: a table reference %u that is not a page", cht_pf_path(rc), ref);
        return NULL;
    }
    return cht_arena_read(rc, ref, err);
}

enum cht_rc cht_radix_get(struct cht_pagefile *rc, unsigned root_at, uint32_t key, uint32_t *value,
                          struct cht_err *err)
{
    const uint8_t *p = cht_page_read(rc, 0, err);
    uint32_t ref = p == NULL ? 0 : cht_get32(p + root_at);
    for (int level = 0; p != NULL && ref != 0 && level < 3; level++) {
        p = table(rc, ref, err);
        ref = p == NULL ? 0 : cht_get32(p + 4 * slot_of(key, level));
    }
    *value = ref;
    return p == NULL ? CHT_CORRUPT : CHT_OK;
}

enum cht_rc cht_radix_set(struct cht_pagefile *rc, unsigned root_at, uint32_t key, uint32_t value,
                          struct cht_err *err)
{
    struct cht_err e = {0};
    uint8_t *p = cht_page_write(rc, 0, &e);
    size_t at = root_at;
    uint32_t in = 0; /* the page that p points into */
    for (int level = 0; p != NULL && level < 3; level++) {
        uint32_t ref = cht_get32(p + at);
        if (ref == 0) {
            enum cht_rc r = cht_arena_alloc(rc, 6, &ref, err);
            if (r != CHT_OK)
                return r;
            p = cht_arena_write(rc, in, &e); /* the map may have moved */
            if (p == NULL)
                break;
            cht_put32(p + at, ref);
        }
        if (table(rc, ref, err) == NULL)
            return CHT_CORRUPT;
        p = cht_arena_write(rc, ref, &e);
        in = ref;
        at = 4 * (size_t)slot_of(key, level);
    }
    if (p == NULL)
        return code(&e, err);
    cht_put32(p + at, value);
    return CHT_OK;
}

enum cht_rc cht_radix_next(struct cht_pagefile *rc, unsigned root_at, uint32_t *key, uint32_t *value,
                           struct cht_err *err)
{
    uint64_t k = *key;
    while (k < CHT_MAP_MAX) {
        const uint8_t *p = cht_page_read(rc, 0, err);
        uint32_t ref = p == NULL ? 0 : cht_get32(p + root_at);
        int level = 0;
        for (; p != NULL && ref != 0 && level < 3; level++) {
            p = table(rc, ref, err);
            ref = p == NULL ? 0 : cht_get32(p + 4 * slot_of((uint32_t)k, level));
        }
        if (p == NULL)
            return CHT_CORRUPT;
        if (ref != 0) {
            *key = (uint32_t)k;
            *value = ref;
            return CHT_OK;
        }
        if (level == 0)
            break;
        uint64_t span = UINT64_C(1) << (30 - 10 * level); /* nothing in this stretch */
        k = (k / span + 1) * span;
    }
    return CHT_KEY_NOT_FOUND;
}
