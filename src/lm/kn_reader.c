/* kn_reader: readers between questions (kn_read.h): their memory, and what they keep for the next question of the same database.
 *
 * A reader that is closed keeps its records if a watch over the model's pairs says that they are still what is stored. The next question
 * looks at the watch before it believes them, so the commit of any client is seen at once. Readers that keep something are in one list, the last
 * one first: it is taken first, and if there are too many bytes the one that was not used for the longest time goes.
 */
#include "lm/kn_read.h"

#include <string.h>

#include "base/alloc.h"
#include "lm/engine_int.h"
#include "os/io.h"

#define BLOCK ((size_t)64 << 10)
#define SPARES_MAX 16u                /* readers without records kept for the next questions */
#define SPARE_BYTES ((size_t)1 << 20) /* what one of them keeps in memory */

struct lm_kn_block {
    struct lm_kn_block *next;
    size_t used, size;
    _Alignas(8) uint8_t bytes[];
};

/* ---- memory --------------------------------------------------------------------------------------------------- */

static struct lm_kn_block *add_block(struct lm_kn_reader *r, size_t n)
{
    bool apart = n > BLOCK / 8 && r->blocks != NULL; /* what is left of the first one is still good */
    size_t size = apart || n > BLOCK ? n : BLOCK;
    struct lm_kn_block *b = cht_malloc(sizeof *b + size), **at = apart ? &r->blocks->next : &r->blocks;
    if (b == NULL)
        return NULL;
    *b = (struct lm_kn_block){.next = *at, .size = size};
    *at = b;
    r->block_bytes += size;
    return b;
}

static void drop_block(struct lm_kn_reader *r)
{
    struct lm_kn_block *b = r->blocks;
    r->blocks = b->next;
    r->block_bytes -= b->size;
    cht_free(b);
}

/* All that it has. */
static size_t held(const struct lm_kn_reader *r)
{
    size_t n = r->block_bytes + r->level_cap * sizeof *r->level + r->slots * sizeof *r->slot + r->buf.cap +
               sizeof *r;
    for (unsigned i = 0; i < sizeof r->work / sizeof *r->work; i++)
        n += r->work[i].cap;
    return n;
}

/* The same with the filter of the watch, which stays as long as it is kept. Each reader of a database counts it. */
static size_t held_with_watch(const struct lm_kn_reader *r) { return held(r) + 2 * LM_KN_WATCHED; }

static void reader_free(struct lm_kn_reader *r)
{
    while (r->blocks != NULL)
        drop_block(r);
    for (unsigned i = 0; i < sizeof r->work / sizeof *r->work; i++)
        cht_buf_free(&r->work[i]);
    cht_buf_free(&r->buf);
    cht_free(r->level);
    cht_free(r->slot);
    cht_free(r);
}

static void free_all(struct lm_kn_reader *list)
{
    while (list != NULL) {
        struct lm_kn_reader *r = list;
        list = r->next;
        reader_free(r);
    }
}

/* ---- readers that keep something; the engine's mutex is held --------------------------------------------------- */

/* Takes one out of the list. It goes on using its state of the model. */
static struct lm_kn_reader *take_kept(struct lm_engine *e, struct lm_kn_reader **at)
{
    struct lm_kn_reader *r = *at;
    *at = r->next;
    e->kept_bytes -= r->kept;
    r->kept = 0;
    return r;
}

/* Moves one to a list of those that are to be freed. */
static void give_up(struct lm_engine *e, struct lm_kn_reader **at, struct lm_kn_reader **list)
{
    struct lm_kn_reader *r = take_kept(e, at);
    r->live->users--;
    r->next = *list;
    *list = r;
}

static struct lm_kn_reader **last_kept(struct lm_engine *e)
{
    struct lm_kn_reader **at = &e->kept;
    while ((*at)->next != NULL)
        at = &(*at)->next;
    return at;
}

/* Is what it knows what is stored, and can that be told later, too? */
static bool may_keep(const struct lm_kn_reader *r)
{
    return r->known && r->watch != NULL && !r->stale && !r->fleeting && r->fixed.order == 0 &&
           (r->sequence & 1) == 0 && cht_watch_version(r->watch) == r->version &&
           held_with_watch(r) <= r->engine->kept_max;
}

/* *list: those that had to go. */
static void keep(struct lm_engine *e, struct lm_kn_reader *r, size_t bytes, struct lm_kn_reader **list)
{
    while (e->kept != NULL && e->kept_bytes + bytes > e->kept_max)
        give_up(e, last_kept(e), list);
    r->kept = bytes;
    e->kept_bytes += bytes;
    r->next = e->kept;
    e->kept = r;
}

/* One that knows something of this database already; NULL: there is none. */
static struct lm_kn_reader *take_knowing(struct lm_engine *e, struct lm_kn_live *live)
{
    struct lm_kn_reader **at = &e->kept;
    while (*at != NULL && (*at)->live != live)
        at = &(*at)->next;
    if (*at == NULL)
        return NULL;
    live->users--; /* the reader has been using it all the time */
    return take_kept(e, at);
}

/* One that knows nothing; NULL: there is none. */
static struct lm_kn_reader *take_spare(struct lm_engine *e)
{
    struct lm_kn_reader *r = e->spare;
    if (r != NULL) {
        e->spare = r->next;
        e->spares--;
    }
    return r;
}

/* watched: it uses what is kept, and is kept itself. */
static enum cht_rc reader_open(struct lm_engine *e, struct cht_store *s, bool watched,
                               struct lm_kn_reader **out, struct cht_err *err)
{
    struct lm_kn_live *live;
    *out = NULL;
    enum cht_rc rc = lm_kn_live_get(e, s, &live, err);
    if (rc != CHT_OK)
        return rc;
    cht_mutex_lock(&e->mu);
    struct lm_kn_reader *r = watched ? take_knowing(e, live) : NULL;
    if (r == NULL)
        r = take_spare(e);
    struct cht_watch *watch = watched ? live->watch : NULL;
    cht_mutex_unlock(&e->mu);
    if (r == NULL) {
        r = cht_calloc(1, sizeof *r);
        if (r == NULL) {
            lm_kn_live_put(e, live);
            return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a question");
        }
        cht_os_random(&r->seed, sizeof r->seed);
    }
    r->engine = e;
    r->store = s;
    r->live = live;
    r->watch = watch;
    r->wait = NULL;
    r->mixed = false;
    r->tries = 0;
    *out = r;
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------ */

void *lm_kn_keep(struct lm_kn_reader *r, size_t n)
{
    struct lm_kn_block *b = r->blocks;
    if (b == NULL || b->size - b->used < n)
        b = add_block(r, n);
    if (b == NULL)
        return NULL;
    uint8_t *p = b->bytes + b->used;
    size_t room = b->size - b->used, whole = (n + 7) / 8 * 8; /* the next one is aligned */
    b->used += whole < room ? whole : room;
    r->bytes += n;
    return p;
}

/* One block stays, and tables of a size that is soon cleared. */
void lm_kn_forget(struct lm_kn_reader *r)
{
    while (r->blocks != NULL && (r->blocks->next != NULL || r->blocks->size > SPARE_BYTES))
        drop_block(r);
    if (r->blocks != NULL)
        r->blocks->used = 0;
    r->levels = r->bytes = 0;
    r->root_more = (struct lm_kn_more){0};
    if (r->level_cap * sizeof *r->level > SPARE_BYTES / 2) {
        cht_free(r->level);
        cht_free(r->slot);
        r->level = NULL;
        r->slot = NULL;
        r->level_cap = r->slots = 0;
    }
    if (r->slots > 0)
        memset(r->slot, 0, r->slots * sizeof *r->slot);
}

void lm_kn_sweep_end(struct lm_kn_reader *r)
{
    if (r->sweeping)
        cht_watch_end_at(r->watch, r->place);
    r->sweeping = false;
}

enum cht_rc lm_kn_reader_open(struct lm_engine *e, struct cht_store *s, struct cht_wait *w,
                              struct lm_kn_reader **out, struct cht_err *err)
{
    enum cht_rc rc = reader_open(e, s, true, out, err);
    if (rc == CHT_OK)
        (*out)->wait = w;
    return rc;
}

enum cht_rc lm_kn_reader_open_apart(struct lm_engine *e, struct cht_store *s, struct lm_kn_reader **out,
                                    struct cht_err *err)
{
    return reader_open(e, s, false, out, err);
}

void lm_kn_reader_close(struct lm_kn_reader *r)
{
    if (r == NULL)
        return;
    struct lm_engine *e = r->engine;
    struct lm_kn_reader *gone = NULL;
    struct lm_kn_live *live = r->live;
    lm_kn_sweep_end(r);
    bool kept = may_keep(r);
    if (!kept) {
        lm_kn_forget(r);
        r->known = false;
    }
    size_t bytes = kept ? held_with_watch(r) : held(r);
    cht_mutex_lock(&e->mu);
    if (kept) {
        keep(e, r, bytes, &gone);
    } else {
        live->users--;
        if (bytes <= SPARE_BYTES && e->spares < SPARES_MAX) {
            r->next = e->spare;
            e->spare = r;
            e->spares++;
        } else {
            r->next = NULL;
            gone = r;
        }
    }
    cht_mutex_unlock(&e->mu);
    free_all(gone);
}

void lm_kn_readers_forget(struct lm_engine *e, const struct cht_store *s)
{
    struct lm_kn_reader *gone = NULL, **at = &e->kept;
    cht_mutex_lock(&e->mu);
    while (*at != NULL) {
        if ((*at)->store == s)
            give_up(e, at, &gone);
        else
            at = &(*at)->next;
    }
    cht_mutex_unlock(&e->mu);
    free_all(gone);
}

void lm_kn_reader_free_all(struct lm_engine *e)
{
    free_all(e->spare);
    free_all(e->kept);
    e->spare = e->kept = NULL;
}
