/* buf: the growable buffer of cheetah/store.h. */
#include "base/alloc.h"
#include "cheetah/store.h"

enum cht_rc cht_buf_reserve(struct cht_buf *b, size_t cap, struct cht_err *err)
{
    if (cap <= b->cap)
        return CHT_OK;
    size_t want = cap < 64 ? 64 : cap;
    uint8_t *p = cht_realloc(b->data, want);
    if (p == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a buffer of %zu bytes", want);
    b->data = p;
    b->cap = want;
    return CHT_OK;
}

void cht_buf_free(struct cht_buf *b)
{
    cht_free(b->data);
    *b = (struct cht_buf){NULL, 0, 0};
}
