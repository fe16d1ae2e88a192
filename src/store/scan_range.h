/* scan_range: the other way of a scan, for long lists of rendered entries: parts of the name space instead of shards.
 *
 * A range is the names after `after` up to `upto`. One task reads it from all shards, merges and renders: what the reader gets
 * is finished text, in order (cht_scan_config.runs). Each range's end is the name that a shard of the scan, the
 * reference, has some entries after its start; as names are spread over the shards by a hash, all have about as many there. The
 * task that works on a range finds its end first, then lets another begin after it.
 *
 *   ring   the ranges under way, in order; the reader takes from `head` only
 *     IDLE -> QUEUED (a worker's) -> READY (the reader's) -> IDLE, the next one is head
 *                                                         -> HUNGRY if the block was full before the end -> QUEUED
 *
 * With values, those of a shard's entries are copied under the same lock as the entries are read. An entry that the reader has to see by itself
 * (its value is long, or damaged) stands between two runs.
 *
 * Memory: CHT_RANGES_MAX blocks and CHT_RANGE_TASKS_MAX work areas, within CHT_SCAN_MEMORY.
 */
#pragma once

#include "store/scan_int.h"

#define CHT_RANGE_MIN_PAIRS 4096u                      /* fewer are not worth it */
#define CHT_RANGE_MAX_SHARDS 16u                       /* a range looks for its start in each */
#define CHT_RANGE_TARGET 4096u                         /* entries of a range, less if lines are long */
#define CHT_RANGE_TEXT (224u << 10)                    /* of a block; over CHT_SCAN_RENDER_MAX */
#define CHT_RANGE_ROOM (CHT_RANGE_TEXT + CHT_NAME_MAX) /* the last name of the last part */
#define CHT_RANGE_PARTS 64u
#define CHT_RANGES_MAX 6u
#define CHT_RANGE_TASKS_MAX 4u
#define CHT_RANGE_TASKS_VALUES 3u /* with values */
#define CHT_RANGE_ITEMS (CHT_RANGE_TARGET / 4 * 5 + 64 * CHT_RANGE_MAX_SHARDS)
#define CHT_RANGE_NAME_ROOM (CHT_NAME_MAX + 64u)
#define CHT_RANGE_NAMES \
    (CHT_RANGE_TEXT / 3 * 2 + CHT_RANGE_MAX_SHARDS * CHT_RANGE_NAME_ROOM) /* lines are longer than names */

/* With values: */
#define CHT_RANGE_BYTES (256u << 10) /* of a work area, for values */
#define CHT_RANGE_HOME_BYTES \
    (CHT_RANGE_BYTES - CHT_SCAN_INLINE_MAX) /* of these, for values that lie in the shard of their name */
#define CHT_RANGE_MEAN_MAX 1024u /* longer than that on the average: by shards, whose batches hold more */

struct cht_range_value {
    uint32_t at, len;     /* in bytes; len 0: not carried */
    uint32_t size, flags; /* as in cht_entry; CHT_RANGE_ABROAD */
};
#define CHT_RANGE_ABROAD (1u << 31) /* it lies in another shard than the name, and was not looked for yet */

/* One of the sorted entries: by head first, which is 8 bytes after what all names of the block share. */
struct cht_range_key {
    uint64_t head;
    uint32_t item;
};

/* What a task needs while it runs. */
struct cht_range_work {
    struct cht_range_work *next; /* of those that are idle */
    struct cht_trie_iter *it;    /* owned */
    uint64_t *ends;              /* owned, CHT_RANGE_ITEMS: of `items`; NULL unless cfg.ends */
    struct cht_range_value
        *values;    /* owned, CHT_RANGE_ITEMS, and `bytes` after them; NULL unless cfg.values */
    uint8_t *bytes; /* CHT_RANGE_BYTES */
    size_t used;    /* ... of them */
    struct cht_trie_item items[CHT_RANGE_ITEMS];
    struct cht_range_key keys[2][CHT_RANGE_ITEMS];
    uint8_t names[CHT_RANGE_NAMES + 8]; /* 8 bytes of the last name may be read at once */
};

enum cht_range_state { CHT_RANGE_IDLE, CHT_RANGE_QUEUED, CHT_RANGE_READY, CHT_RANGE_HUNGRY };

struct cht_range {
    struct cht_task task; /* first */
    struct cht_db_scan *scan;
    enum cht_range_state state;  /* guarded by mu; says whose the rest is */
    struct cht_range_work *work; /* while QUEUED */
    uint8_t *text;               /* owned: CHT_RANGE_ROOM */
    size_t used;
    uint8_t *after, *upto; /* owned, CHT_NAME_MAX: the last name dealt with; the range's last one */
    size_t after_len, upto_len;
    uint32_t count; /* entries in text */
    unsigned ref;   /* shards below it have nothing after `after` */
    bool planned;   /* upto is known */
    bool more;      /* text was full */
    struct cht_entry part
        [CHT_RANGE_PARTS]; /* what is given out: runs of text, each with its last name after it, and entries by themselves */
    unsigned parts;
    size_t from; /* where the part that is under way begins */
};

struct cht_ranges {
    struct cht_range range[CHT_RANGES_MAX];
    unsigned n, head, used;      /* guarded by mu */
    struct cht_range_work *idle; /* guarded by mu; owned */
    /* the end of the last range that has one: guarded by mu */
    uint8_t *from; /* owned */
    size_t from_len;
    unsigned ref;
    bool planning, planned_all; /* ... it is being looked for; it is the scan's */
    size_t target;              /* guarded by mu: entries of the next range */
    unsigned given;             /* the reader's: parts of the head that it has */
    bool done;                  /* the reader's */
};

/* Can this scan be done so? */
bool cht_ranges_suit(struct cht_db_scan *sc);
/* Makes sc->ranges; submits nothing. What was made of it before a failure is freed by cht_ranges_free. */
enum cht_rc cht_ranges_new(struct cht_db_scan *sc, struct cht_err *err);
void cht_ranges_free(struct cht_db_scan *sc);   /* no task is under way */
void cht_ranges_submit(struct cht_db_scan *sc); /* mu held */
enum cht_rc cht_ranges_next(struct cht_db_scan *sc, bool wait, struct cht_entry *out, size_t max,
                            size_t *count, struct cht_err *err);

/* scan_range_fill.c: the next block of r, by a worker. Not with mu held. */
enum cht_rc cht_range_fill(struct cht_range *r, struct cht_err *err);
/* For it, in the order of the calls: how many entries the range is to have; its end (r->upto) is found, ref: see cht_ranges;
 * last: nothing lies after it. */
size_t cht_range_target(struct cht_range *r);
void cht_range_planned(struct cht_range *r, unsigned ref, bool last);

/* scan_range_values.c: the values of items [first, first + n), as far as they lie in sh, under its lock; at most up to w->bytes + end. How many of
 * the items were dealt with: at least one if n > 0. *abroad: and how many lie elsewhere. */
uint32_t cht_range_home(struct cht_db *db, struct cht_range_work *w, struct cht_shard *sh, uint32_t first,
                        uint32_t n, size_t end, uint32_t *abroad);
/* The values that lie elsewhere, in the order of the keys; *n: how many of the entries there was room for, at least one. Takes the shards' locks. */
enum cht_rc cht_range_abroad(struct cht_db *db, struct cht_range_work *w, const struct cht_range_key *keys,
                             size_t *n, struct cht_err *err);
