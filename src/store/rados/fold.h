/* fold: many rows in one step of an operation. A step costs the OSD a look at the object whatever it does: 250 rows that are compared one a
 * step take it several times as long as in one. Sets and removals have a step for many in librados; compares are a call of the class
 * `cmpomap` of the OSDs, with the same meaning as one step each: absent is the empty value, and one row that is another refuses all.
 *
 * begin -> { add } -> end. What is added is borrowed until end. Nothing is allocated here. Threads: one.
 */
#pragma once

#include "store/rados/link.h"

#define CHT_FOLD_ROWS 256u
#define CHT_FOLD_BYTES ((size_t)32 << 10) /* of compares in a step; a larger row has its own */

enum cht_fold_kind { CHT_FOLD_SET, CHT_FOLD_REMOVE, CHT_FOLD_COMPARE };

struct cht_fold {
    struct cht_call *call;
    enum cht_fold_kind kind;
    bool apart; /* compares have a step each: the OSDs have no class for them */
    unsigned n;
    size_t bytes;
    struct cht_str names[CHT_FOLD_ROWS], values[CHT_FOLD_ROWS];
};

static inline void cht_fold_begin(struct cht_fold *f, enum cht_fold_kind kind, struct cht_call *call)
{
    f->call = call;
    f->kind = kind;
    f->apart = false;
    f->n = 0;
    f->bytes = 0;
}
/* value: not of CHT_FOLD_REMOVE. Each row once. */
void cht_fold_add(struct cht_fold *f, struct cht_str name, struct cht_str value);
void cht_fold_end(struct cht_fold *f);

/* Have the OSDs the class? Asked of the one that has the object; false only if it says that it has not. Another may still not have it: then
 * the write says so, and is made again without (cht_rowset_refused). */
bool cht_fold_works(rados_ioctx_t io, const char *object);
