/* durable: see durable.h. */
#include "store/durable.h"

#include "base/alloc.h"
#include "base/crc32c.h"

#include <string.h>

static uint64_t mix(uint64_t h)
{
    h *= UINT64_C(0x9E3779B97F4A7C15);
    h ^= h >> 32;
    return h * UINT64_C(0xD6E8FEB86659FD93);
}

static uint64_t bits_of(uint64_t mark)
{
    return UINT64_C(1) << (mark & 63) | UINT64_C(1) << (mark >> 6 & 63) | UINT64_C(1) << (mark >> 12 & 63);
}

static size_t word_of(uint64_t mark) { return mark >> 40 & (CHT_MARKS_WORDS - 1); }

/* The set for marks of `group`. */
static struct cht_mark_set *set_for(struct cht_marks *m, uint64_t group, uint64_t decided)
{
    struct cht_mark_set *s = &m->sets[m->last];
    if (s->group == group)
        return s;
    if (s->group > decided && m->sets[1 - m->last].group <= decided) {
        m->last = 1 - m->last;
        s = &m->sets[m->last];
    }
    if (s->group <= decided) { /* what is there means nothing any more */
        s->all = false;
        s->count = 0;
    }
    s->group = m->limit = group;
    return s;
}

/* From here on in words. */
static bool spill(struct cht_mark_set *s)
{
    if (s->words == NULL)
        s->words = cht_malloc(CHT_MARKS_WORDS * sizeof *s->words);
    if (s->words == NULL)
        return false;
    memset(s->words, 0, CHT_MARKS_WORDS * sizeof *s->words);
    for (unsigned i = 0; i < CHT_MARKS_FEW; i++)
        s->words[word_of(s->few[i])] |= bits_of(s->few[i]);
    return true;
}

static bool meets(const struct cht_mark_set *s, uint64_t mark)
{
    if (s->all)
        return true;
    if (s->count > CHT_MARKS_FEW) {
        uint64_t bits = bits_of(mark);
        return (s->words[word_of(mark)] & bits) == bits;
    }
    for (unsigned i = 0; i < s->count; i++) {
        if (s->few[i] == mark)
            return true;
    }
    return false;
}

/* ------------------------------------------------------------------------------------------------------------ */

uint64_t cht_mark_of_key(uint64_t key) { return mix(key); }

/* The length as well, so that it is another hash than a key's. */
uint64_t cht_mark_of_name(struct cht_str name)
{
    return mix((uint64_t)cht_crc32c(0x3d0fa5a1, name.p, name.n) << 32 | (name.n << 1) | 1);
}

void cht_marks_add(struct cht_marks *m, uint64_t group, uint64_t decided, uint64_t mark)
{
    struct cht_mark_set *s = set_for(m, group, decided);
    if (s->all)
        return;
    if (s->count < CHT_MARKS_FEW) {
        s->few[s->count++] = mark;
        return;
    }
    if (s->count == CHT_MARKS_FEW) {
        s->all = !spill(s);
        s->count++;
    }
    if (!s->all)
        s->words[word_of(mark)] |= bits_of(mark);
}

void cht_marks_all(struct cht_marks *m, uint64_t group, uint64_t decided)
{
    set_for(m, group, decided)->all = true;
}

uint64_t cht_marks_meet(const struct cht_marks *m, uint64_t decided, uint64_t mark)
{
    uint64_t limit = 0;
    if (m->limit == CHT_FENCED)
        return CHT_FENCED;
    for (unsigned i = 0; i < 2; i++) {
        const struct cht_mark_set *s = &m->sets[i];
        if (s->group > decided && s->group > limit && meets(s, mark))
            limit = s->group;
    }
    return limit;
}

void cht_marks_unfence(struct cht_marks *m, uint64_t decided)
{
    uint64_t last = m->sets[m->last].group; /* the higher of the two */
    m->limit = last > decided ? last : 0;
}

void cht_marks_fini(struct cht_marks *m)
{
    for (unsigned i = 0; i < 2; i++) {
        cht_free(m->sets[i].words);
        m->sets[i].words = NULL;
    }
}

enum cht_rc cht_durable_init(struct cht_durable *d, struct cht_err *err)
{
    enum cht_rc rc = cht_mutex_cond_init(&d->mu, &d->changed, err);
    if (rc != CHT_OK)
        return rc;
    d->state = CHT_DURABLE_NORMAL;
    d->waiting = NULL;
    atomic_init(&d->decided, 0);
    return rc;
}

void cht_durable_fini(struct cht_durable *d)
{
    cht_cond_fini(&d->changed);
    cht_mutex_fini(&d->mu);
}

/* CHT_PENDING while there is something to wait for. mu held. */
static enum cht_rc look(const struct cht_durable *d, uint64_t limit, struct cht_err *err)
{
    if (d->state == CHT_DURABLE_LOST)
        return CHT_FAIL(err, CHT_READ_ONLY,
                        "reading stopped after a disk fault: the pages could not be read again yet");
    if (limit == CHT_FENCED)
        return d->state == CHT_DURABLE_TAKING_BACK ? CHT_PENDING : CHT_OK;
    if (limit <= atomic_load_explicit(&d->decided, memory_order_relaxed))
        return CHT_OK;
    if (d->state == CHT_DURABLE_UNKNOWN)
        return CHT_FAIL(err, CHT_OUTCOME_UNKNOWN,
                        "a write to this failed with the disk, and whether it was done only a restart tells");
    return CHT_PENDING;
}

enum cht_rc cht_durable_await(struct cht_durable *d, uint64_t limit, struct cht_wait *w, struct cht_err *err)
{
    cht_mutex_lock(&d->mu);
    enum cht_rc rc = look(d, limit, err);
    while (rc == CHT_PENDING && w == NULL) {
        cht_cond_wait(&d->changed, &d->mu);
        rc = look(d, limit, err);
    }
    if (rc == CHT_PENDING && w != NULL) {
        w->next = d->waiting;
        d->waiting = w;
    }
    cht_mutex_unlock(&d->mu);
    return rc;
}

void cht_durable_forget(struct cht_durable *d, struct cht_wait *w)
{
    cht_mutex_lock(&d->mu);
    struct cht_wait **at = &d->waiting;
    while (*at != NULL && *at != w)
        at = &(*at)->next;
    if (*at != NULL) /* it waits */
        *at = w->next;
    cht_mutex_unlock(&d->mu);
}

/* All that wait look again. mu held. */
static void tell(struct cht_durable *d)
{
    struct cht_wait *w = d->waiting;
    d->waiting = NULL;
    cht_cond_broadcast(&d->changed);
    while (w != NULL) {
        struct cht_wait *next = w->next; /* w may be gone after this */
        w->done(w);
        w = next;
    }
}

void cht_durable_decide(struct cht_durable *d, uint64_t group)
{
    cht_mutex_lock(&d->mu);
    atomic_store_explicit(&d->decided, group, memory_order_relaxed);
    tell(d);
    cht_mutex_unlock(&d->mu);
}

void cht_durable_change(struct cht_durable *d, enum cht_durable_state state)
{
    cht_mutex_lock(&d->mu);
    d->state = state;
    tell(d);
    cht_mutex_unlock(&d->mu);
}
