/* revoked: see revoked.h. */
#include "service/revoked.h"

#include "base/alloc.h"
#include "os/thread.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct svc_revoked {
    struct cht_mutex mu;
    struct svc_revoked_id *list; /* owned, ascending; guarded by mu */
    size_t n;                    /* guarded by mu */
    _Atomic bool some; /* n > 0: a hint that saves the lock; who misses a new list is a moment early */
};

static int compare(const void *a, const void *b) { return memcmp(a, b, sizeof(struct svc_revoked_id)); }

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc svc_revoked_new(struct svc_revoked **out, struct cht_err *err)
{
    struct svc_revoked *s = cht_calloc(1, sizeof *s);
    if (s == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for TLS");
    enum cht_rc rc = cht_mutex_init(&s->mu, err);
    if (rc != CHT_OK) {
        cht_free(s);
        return rc;
    }
    *out = s;
    return CHT_OK;
}

void svc_revoked_free(struct svc_revoked *s)
{
    if (s == NULL)
        return;
    cht_mutex_fini(&s->mu);
    cht_free(s->list);
    cht_free(s);
}

struct svc_revoked_id svc_revoked_id(const void *issuer, size_t issuer_n, const void *serial, size_t serial_n)
{
    struct svc_revoked_id part[2], id;
    cht_sha256(issuer, issuer_n, part[0].hash);
    cht_sha256(serial, serial_n, part[1].hash);
    cht_sha256(part, sizeof part, id.hash);
    return id;
}

void svc_revoked_replace(struct svc_revoked *s, struct svc_revoked_id *list, size_t n)
{
    if (n > 1)
        qsort(list, n, sizeof *list, compare);
    cht_mutex_lock(&s->mu);
    struct svc_revoked_id *old = s->list;
    s->list = list;
    s->n = n;
    atomic_store_explicit(&s->some, n > 0, memory_order_relaxed);
    cht_mutex_unlock(&s->mu);
    cht_free(old);
}

bool svc_revoked_has(struct svc_revoked *s, const struct svc_revoked_id *id)
{
    if (!atomic_load_explicit(&s->some, memory_order_relaxed))
        return false;
    cht_mutex_lock(&s->mu);
    bool found = s->n > 0 && bsearch(id, s->list, s->n, sizeof *id, compare) != NULL;
    cht_mutex_unlock(&s->mu);
    return found;
}
