/* fold: see fold.h.
 *
 * What cmpomap.cmp_vals takes, little-endian:
 *   u8 1 | u8 1 | u32 bytes after this | u8 mode: 1, strings | u8 operator: 1, equal | u32 rows | { u32 length | name | u32 length | value } ...
 *   | u8 1: what is absent has this value | u32 0
 */
#include "store/rados/fold.h"

#include "base/bytes.h"
#include "os/code.h"

#include <stdlib.h>
#include <string.h>

#define HEAD 12u
#define TAIL 5u
#define FEW 4u /* as steps of their own they cost less than the call */

static int by_name(const void *a, const void *b)
{
    const struct cht_str *x = a, *y = b;
    int d = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return d != 0 ? d : (x->n > y->n) - (x->n < y->n);
}

static uint8_t *put_str(uint8_t *p, struct cht_str s)
{
    cht_put32(p, (uint32_t)s.n);
    if (s.n > 0)
        memcpy(p + 4, s.p, s.n);
    return p + 4 + s.n;
}

/* The class keeps them in an array in order of their names: it is quicker with what comes in order. */
static size_t encode(const struct cht_fold *f, uint8_t *out)
{
    struct row {
        struct cht_str name; /* first */
        struct cht_str value;
    } rows[CHT_FOLD_ROWS];
    for (unsigned i = 0; i < f->n; i++)
        rows[i] = (struct row){f->names[i], f->values[i]};
    if (f->n > 1)
        qsort(rows, f->n, sizeof *rows, by_name);
    uint8_t *p = out + HEAD;
    for (unsigned i = 0; i < f->n; i++)
        p = put_str(put_str(p, rows[i].name), rows[i].value);
    *p++ = 1;
    p = put_str(p, (struct cht_str){NULL, 0});
    out[0] = out[1] = 1;
    cht_put32(out + 2, (uint32_t)(p - out) - 6);
    out[6] = out[7] = 1;
    cht_put32(out + 8, f->n);
    return (size_t)(p - out);
}

static void compare(struct cht_fold *f)
{
    uint8_t in[HEAD + CHT_FOLD_BYTES + TAIL];
    if (f->n >= FEW && !f->apart) {
        size_t n = encode(f, in);
        rados_write_op_exec(f->call->w, "cmpomap", "cmp_vals", (const char *)in, n, NULL);
        return;
    }
    for (unsigned i = 0; i < f->n; i++)
        cht_call_compare(f->call, f->names[i], f->values[i]);
}

static void change(struct cht_fold *f)
{
    const char *names[CHT_FOLD_ROWS], *values[CHT_FOLD_ROWS];
    size_t name_lens[CHT_FOLD_ROWS], value_lens[CHT_FOLD_ROWS];
    for (unsigned i = 0; i < f->n; i++) {
        names[i] = (const char *)f->names[i].p;
        name_lens[i] = f->names[i].n;
        values[i] = (const char *)f->values[i].p;
        value_lens[i] = f->values[i].n;
    }
    if (f->kind == CHT_FOLD_SET)
        rados_write_op_omap_set2(f->call->w, names, values, name_lens, value_lens, f->n);
    else
        rados_write_op_omap_rm_keys2(f->call->w, names, name_lens, f->n);
}

void cht_fold_end(struct cht_fold *f)
{
    if (f->n > 0 && f->kind == CHT_FOLD_COMPARE)
        compare(f);
    else if (f->n > 0)
        change(f);
    f->n = 0;
    f->bytes = 0;
}

void cht_fold_add(struct cht_fold *f, struct cht_str name, struct cht_str value)
{
    size_t bytes = 8 + name.n + value.n;
    if (f->kind == CHT_FOLD_COMPARE && bytes > CHT_FOLD_BYTES) {
        cht_call_compare(f->call, name, value);
        return;
    }
    if (f->n == CHT_FOLD_ROWS || (f->kind == CHT_FOLD_COMPARE && f->bytes + bytes > CHT_FOLD_BYTES))
        cht_fold_end(f);
    f->names[f->n] = name;
    f->values[f->n++] = value;
    f->bytes += bytes;
}

static bool is_missing(int result)
{
    return cht_os_code(result) == CHT_OS_UNSUPPORTED || cht_os_code(result) == CHT_OS_OTHER;
}

bool cht_fold_works(rados_ioctx_t io, const char *object)
{
    struct cht_fold none = {.kind = CHT_FOLD_COMPARE};
    uint8_t in[HEAD + TAIL];
    char out[8]; /* it answers with nothing */
    size_t used = 0;
    int result = 0;
    struct cht_call call = cht_call_read();
    rados_read_op_exec_user_buf(call.r, "cmpomap", "cmp_vals", (const char *)in, encode(&none, in), out,
                                sizeof out, &used, &result);
    int r = cht_call_run(&call, io, object);
    return !is_missing(r) && !is_missing(result);
}
