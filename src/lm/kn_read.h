/* kn_read: reads a live model for questions: the head, and the records of contexts, each once however many tokens and questions
 * need it.
 *
 *   open -> { begin -> lm_kn_level ... -> lm_kn_again } ... -> close
 *
 * Between begin and lm_kn_again is one question. What was read stays, for the next question too, as long as no commit has come in between
 * and it is not too much (LM_KN_READER_BYTES). lm_kn_again says whether a commit came in between, so that what was read may be of two
 * moments: the question is asked again, at most LM_KN_TRIES times.
 *
 * After close it stays as well, for the next reader of the database, up to lm_engine_keep's bytes in all. A commit of the model moves the
 * sequence (kn_live.h), and what anybody else writes to the model's pairs the watch over them: nothing old is believed. Over a store on
 * other machines nothing tells what others write, and nothing is kept.
 *
 * Threads: one at a time per reader; any number of readers. Opening one allocates nothing in the usual case.
 */
#pragma once

#include "lm/fm_format.h"
#include "lm/kn_live.h"

#define LM_KN_READER_BYTES ((size_t)32 << 20) /* of records; what is more is forgotten */
#define LM_KN_TRIES 3u
#define LM_KN_WATCHED 65536u /* pairs that a watch's filter is made for, of 16 bits each */

#define LM_KN_TOGETHER 64u /* contexts that are asked for in one call */

#define LM_KN_MANY 12u /* followers from which on more is made of a context */

struct lm_kn_ranks;
struct lm_kn_kept_best;
/* What is made of a context that is asked often. NULL: it is not kept. */
struct lm_kn_more {
    /* followers by a hash of their token, a power of two; count 0: free. In place of looking through a record that is asked often */
    const struct lm_follower *index;
    unsigned shift;                 /* of the hash, to a slot of the index */
    struct lm_kn_ranks *high, *low; /* of its list (kn_lists.h) */
    struct lm_kn_kept_best *best;   /* what came next the last time (kn_derive.h) */
    uint32_t lists, finds;          /* lists that were made; followers looked for without an index */
};
/* What is kept of a record. */
struct lm_kn_held {
    uint64_t total;
    struct lm_kn_more
        *more;       /* NULL: nothing yet. It stands before this if there are LM_KN_MANY followers or more */
    uint8_t bytes[]; /* its followers; of a fixed model: the tokens of its name, its entries */
};
/* What is known of one context, or of one page of the root. There are millions of them, each of which is one more place in memory. */
struct lm_kn_level {
    /* Of a context: the level of the context of one token less, + 1 (0: of the empty one), and its farthest token. Of a page of the root: UINT32_MAX,
     * and its number. Of a page of a fixed model: a hash of its name, which is in `held`. */
    uint32_t parent, token;
    uint8_t order;
    bool there, wide; /* it has a record; of which form */
    uint8_t asked;    /* questions about what comes next in which it was met, up to 255 */
    uint32_t n;       /* followers */
    double gamma;     /* the weight of the order below: 1 without a record */
    union {
        struct lm_kn_held *held; /* NULL: it has no record */
        const uint32_t *page;    /* of a page of the root: a of each of its tokens, 0 if there is none */
    };
};
_Static_assert(sizeof(struct lm_kn_level) == 32, "two in a line of the cache");

struct lm_kn_block;
struct lm_kn_reader {
    struct lm_kn_reader *next; /* the engine's, between questions */
    struct lm_engine *engine;
    struct cht_store *store;
    struct lm_kn_live *live;
    struct cht_wait *wait; /* NULL: reads wait; else they may be CHT_PENDING */
    struct lm_kn_head head;
    struct lm_kn_discounts discounts[LM_ORDER_MAX + 1];
    struct lm_kn_level root; /* sums of the whole root */
    struct lm_kn_held root_held;
    struct lm_kn_more root_more;
    double p0; /* of any token before anything is known: 1 / V */
    struct lm_fm_head
        fixed; /* of a fixed model; order 0: it is a live one. In `head` are then order, bos, eos and types */
    struct cht_watch *watch; /* borrowed from `live`; NULL: nothing tells what others write */
    uint64_t sequence;       /* of what is known */
    uint64_t version;        /* the watch's, likewise */
    uint64_t place;          /* of the watch, if sweeping */
    bool known;              /* head and levels are of `sequence` and `version` */
    bool sweeping;           /* something is being read under the watch */
    bool stale;              /* the version was another when more was read */
    bool fleeting;           /* a pair was read that ends */
    unsigned tries;
    bool mixed;                /* the question was answered from two moments at last */
    struct lm_kn_level *level; /* owned */
    size_t levels, level_cap;
    uint32_t *slot; /* owned: a table of levels by hash, 0: free, else the level + 1 */
    size_t slots;
    struct lm_kn_block *blocks; /* owned: payloads */
    size_t block_bytes;         /* in blocks */
    size_t bytes;               /* of these used */
    size_t kept;                /* booked while it lies with the engine */
    uint64_t seed;
    struct cht_buf buf;
    /* for the questions: memory that is kept */
    struct cht_buf work[4];
};

/* CHT_NO_MEMORY. */
enum cht_rc lm_kn_reader_open(struct lm_engine *e, struct cht_store *s, struct cht_wait *w,
                              struct lm_kn_reader **out, struct cht_err *err);
/* For one long question, which may wait for its client: it uses nothing that is kept, and keeps nothing. Watched, it would keep all keys in mind
 * that are written meanwhile. CHT_NO_MEMORY. */
enum cht_rc lm_kn_reader_open_apart(struct lm_engine *e, struct cht_store *s, struct lm_kn_reader **out,
                                    struct cht_err *err);
void lm_kn_reader_close(struct lm_kn_reader *r); /* NULL is legal */
/* What is kept of a database between questions has its memory back. */
void lm_kn_readers_forget(struct lm_engine *e, const struct cht_store *s);

/* Before a question: reads the head unless what is known still holds. CHT_PAIR_NOT_FOUND: no live model, and no fixed one;
 * CHT_NOTHING_COUNTED; CHT_FIXED_MODEL: one is being read in; CHT_MALFORMED_PAYLOAD; CHT_PENDING (with a `wait`). */
enum cht_rc lm_kn_begin(struct lm_kn_reader *r, struct cht_err *err);
/* After it: true if it must be asked again. Once the tries are used up r->mixed is set and it is false. */
bool lm_kn_again(struct lm_kn_reader *r);

/* The context of order-1 tokens before `end`, after those of fewer tokens, from order 2 on: *chain is 0 before the first, and is carried on
 * (it names the one before, which is all that is needed to find this one). *out is borrowed until the next level is read. */
enum cht_rc lm_kn_level_next(struct lm_kn_reader *r, unsigned order, const uint32_t *end, uint32_t *chain,
                             const struct lm_kn_level **out, struct cht_err *err);
/* Several contexts of one order: what they touch of memory is fetched side by side. Order 1: the pages of the root with `end`. */
struct lm_kn_wish {
    const uint32_t *end;
    uint32_t chain; /* in and out: as of lm_kn_level_next; order 1: not used */
    uint32_t level; /* out: its number */
};
/* n is at most LM_KN_TOGETHER. */
enum cht_rc lm_kn_levels_next(struct lm_kn_reader *r, unsigned order, struct lm_kn_wish *w, unsigned n,
                              struct cht_err *err);
/* A level of that number; borrowed until the next call that may read one. */
static inline const struct lm_kn_level *lm_kn_level_at(const struct lm_kn_reader *r, uint32_t number)
{
    return &r->level[number];
}
/* a of a token of that page of the root. */
static inline uint32_t lm_kn_page_find(const struct lm_kn_level *page, uint32_t token)
{
    return page->there ? page->page[token & ((1u << LM_KN_PAGE_SHIFT) - 1)] : 0;
}
/* a of the token after the context of l, which has a record and may be a copy; 0: it is no follower. */
uint32_t lm_kn_find(struct lm_kn_reader *r, const struct lm_kn_level *l, uint32_t token);
/* Several of them side by side; n is at most LM_KN_TOGETHER. */
struct lm_kn_find {
    const struct lm_kn_level *level;
    uint32_t token;
    uint32_t a; /* out */
};
void lm_kn_find_all(struct lm_kn_reader *r, struct lm_kn_find *f, unsigned n);
/* a of a token in the root. */
enum cht_rc lm_kn_root_count(struct lm_kn_reader *r, uint32_t token, uint32_t *a, struct cht_err *err);
/* Of a fixed model: the n-gram of `order` tokens, of which `token` is the last; context: those before it, nearest first. */
enum cht_rc lm_fm_lookup(struct lm_kn_reader *r, unsigned order, const uint32_t *context, uint32_t token,
                         struct lm_fm_entry *out, bool *found, struct cht_err *err);
/* At a point of a question where no level is held: forgets what is known if it has become too much. */
void lm_kn_spare(struct lm_kn_reader *r);
/* Memory that lasts as long as what is known. NULL: there is none. */
void *lm_kn_keep(struct lm_kn_reader *r, size_t n);
/* For kn_read.c: forgets all levels; nothing is read any more. */
void lm_kn_forget(struct lm_kn_reader *r);
void lm_kn_sweep_end(struct lm_kn_reader *r);

/* u of README.md: what a follower with the count a gets at this level, apart from the order below. */
static inline double lm_kn_share_of(const struct lm_kn_reader *r, unsigned order, uint64_t total, uint32_t a)
{
    return a == 0 ? 0.0 : ((double)a - r->discounts[order].d[a < 3 ? a : 3]) / (double)total;
}
static inline double lm_kn_share(const struct lm_kn_reader *r, const struct lm_kn_level *l, uint32_t a)
{
    return a == 0 ? 0.0 : lm_kn_share_of(r, l->order, l->held->total, a);
}

/* The followers of a level that has a record. */
static inline struct lm_kn_row lm_kn_row(const struct lm_kn_level *l)
{
    return (struct lm_kn_row){.p = l->held->bytes, .n = l->n, .wide = l->wide};
}
/* What is made of it can be kept there. NULL: there is no memory. */
static inline struct lm_kn_more *lm_kn_more(struct lm_kn_reader *r, const struct lm_kn_level *l)
{
    if (l->held->more == NULL) {
        struct lm_kn_more *m = lm_kn_keep(r, sizeof *m);
        if (m != NULL)
            *m = (struct lm_kn_more){0};
        l->held->more = m;
    }
    return l->held->more;
}

/* The weight of the order below, of a context of this order with that record. */
static inline double lm_kn_gamma(const struct lm_kn_reader *r, unsigned order, const struct lm_kn_record *c)
{
    const double *d = r->discounts[order].d;
    return (d[1] * (double)c->b[1] + d[2] * (double)c->b[2] + d[3] * (double)c->b[3]) / (double)c->total;
}
