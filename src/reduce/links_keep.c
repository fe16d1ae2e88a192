/* links_keep: what a run keeps in the database (links.h): its results so far, how far it is, and the switch at its end.
 *
 *   linkrun:<metric>   version=1 u8 | digest u64 | contexts u64 | links u64 | the name that is done last (none: nothing is); big-endian
 *                      version=2 u8 | digest u64 | contexts u64 | links u64: all is done, and the links get their names (move.h); what they replace is gone
 *                      version=3 u8 | digest u64 | contexts u64 | links u64 | prefix: all is done, and the links of what has this prefix go, which are more than
 *                      one commit takes away (reduce_too_many). Whoever reads them with reduce_links_read finds the new ones only. Then version 2
 */
#include "reduce/links_int.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "cheetah/scan.h"
#include "reduce/move.h"

#include <string.h>

#define RECORD_HEAD 25u
#define RECORD_RUN 1u
#define RECORD_SWITCH 2u
#define RECORD_CLEAR 3u
#define RECORD_ROOM (RECORD_HEAD + CHT_NAME_MAX)
#define RECORD_MAX \
    (RECORD_ROOM - REDUCE_LINKS_NAME_EXTRA) /* of ours: pairs of a longer prefix have no room for links */

static void put64(uint8_t *p, uint64_t v)
{
    reduce_payload_put32(p, (uint32_t)(v >> 32));
    reduce_payload_put32(p + 4, (uint32_t)v);
}

static uint64_t get64(const uint8_t *p)
{
    return (uint64_t)reduce_payload_get32(p) << 32 | reduce_payload_get32(p + 4);
}

/* <space><metric>[:<name>]; returns the bytes. */
static size_t put_name(uint8_t *to, const char *space, enum reduce_metric m, const struct cht_str *name)
{
    const char *metric = reduce_links_metric_name(m);
    size_t n = strlen(space), k = strlen(metric);
    memcpy(to, space, n);
    memcpy(to + n, metric, k);
    n += k;
    if (name == NULL)
        return n;
    to[n++] = ':';
    if (name->n > 0)
        memcpy(to + n, name->p, name->n);
    return n + name->n;
}

static size_t put_record(const struct reduce_links *l, struct cht_str after, uint8_t *to)
{
    to[0] = RECORD_RUN;
    put64(to + 1, l->digest);
    put64(to + 9, l->result->contexts);
    put64(to + 17, l->result->links);
    if (after.n > 0)
        memcpy(to + RECORD_HEAD, after.p, after.n);
    return RECORD_HEAD + after.n;
}

static bool is_record(struct cht_str v)
{
    return v.n >= RECORD_HEAD && v.n <= RECORD_MAX && v.p[0] >= RECORD_RUN && v.p[0] <= RECORD_CLEAR;
}

static enum cht_rc begin_anew(struct reduce_links *l, struct cht_err *err)
{
    uint8_t all[64], name[64], record[RECORD_HEAD];
    struct cht_str none = {0}, left = {all, put_name(all, REDUCE_LINKING, l->cfg->metric, &none)};
    enum cht_rc rc = reduce_links_check(l->run.store, left, reduce_links_payload, l->cfg->cancel, err);
    if (rc == CHT_OK)
        rc = reduce_clear(l->run.store, left, err);
    if (rc != CHT_OK)
        return rc;
    struct cht_op ops[2] = {{.kind = CHT_OP_PREFIX_DEL, .with_values = true, .name = left},
                            {.kind = CHT_OP_PAIR_PUT,
                             .name = {name, put_name(name, REDUCE_LINKRUN, l->cfg->metric, NULL)},
                             .value = {record, put_record(l, none, record)}}};
    return reduce_commit(l->run.store, ops, 2, err);
}

static uint64_t links_of(const struct reduce_links_found *f)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < f->n; i++)
        n += reduce_payload_get16(f->payload[i] + 1);
    return n;
}

/* ---- the switch --------------------------------------------------------------------------------------------------- */

enum cht_rc reduce_links_free_names(struct reduce_links *l, struct cht_err *err)
{
    uint8_t text[CHT_NAME_MAX + REDUCE_LINKS_NAME_EXTRA];
    struct cht_str old = {text, put_name(text, REDUCE_LINKS, l->cfg->metric, &l->cfg->prefix)};
    return reduce_links_check(l->run.store, old, reduce_links_payload, l->cfg->cancel, err);
}

/* How the links of a run get their names. */
struct switching {
    uint8_t from[64], to[64], run[64], record[RECORD_ROOM], old[CHT_NAME_MAX + REDUCE_LINKS_NAME_EXTRA];
    struct cht_op first, last;
    struct reduce_move move;
};

/* digest, contexts, links: at p, as in the record, of which nobody knows that it is true. */
static void put_switch(const struct reduce_links *l, const uint8_t *p, struct switching *w)
{
    struct cht_str none = {0}, run = {w->run, put_name(w->run, REDUCE_LINKRUN, l->cfg->metric, NULL)};
    uint64_t contexts = get64(p + 8), most = UINT64_C(1) << 32;
    memcpy(w->record + 1, p, RECORD_HEAD - 1);
    w->record[0] = RECORD_SWITCH;
    w->last = (struct cht_op){.kind = CHT_OP_PAIR_DEL, .with_values = true, .name = run};
    w->move = (struct reduce_move){
        .from = {{w->from, put_name(w->from, REDUCE_LINKING, l->cfg->metric, &none)}},
        .to = {{w->to, put_name(w->to, REDUCE_LINKS, l->cfg->metric, &none)}},
        .n = 1,
        .first = &w->first,
        .last = &w->last,
        .n_last = 1,
        .under_way = {.kind = CHT_OP_PAIR_PUT, .name = run, .value = {w->record, RECORD_HEAD}},
        .bytes = (contexts < most ? contexts : most) *
                 (REDUCE_MOVE_EACH + 2 * REDUCE_LINKS_NAME_EXTRA + 2 * (uint64_t)l->left.longest_name),
        .cancel = l->cfg->cancel};
}

/* The old ones go before the new ones get their names. From the record on (RECORD_CLEAR) nobody finds them with reduce_links_read. */
static enum cht_rc clear_old(struct reduce_links *l, struct switching *w, struct cht_str prefix,
                             struct cht_err *err)
{
    struct cht_op op = w->move.under_way;
    if (prefix.n > 0)
        memcpy(w->record + RECORD_HEAD, prefix.p, prefix.n);
    w->record[0] = RECORD_CLEAR;
    op.value.n = RECORD_HEAD + prefix.n;
    enum cht_rc rc = reduce_commit(l->run.store, &op, 1, err);
    if (rc == CHT_OK)
        rc = reduce_clear(l->run.store, w->first.name, err);
    w->record[0] = RECORD_SWITCH;
    w->move.n_first = 0;
    return rc;
}

static void put_first(const struct reduce_links *l, struct cht_str prefix, struct switching *w)
{
    w->first = (struct cht_op){.kind = CHT_OP_PREFIX_DEL,
                               .with_values = true,
                               .name = {w->old, put_name(w->old, REDUCE_LINKS, l->cfg->metric, &prefix)}};
    w->move.n_first = 1;
}

enum cht_rc reduce_links_switch(struct reduce_links *l, struct cht_err *err)
{
    struct switching w;
    uint8_t record[RECORD_HEAD];
    struct cht_str none = {0};
    bool many = false;
    (void)put_record(l, none, record);
    put_switch(l, record + 1, &w);
    put_first(l, l->cfg->prefix, &w);
    enum cht_rc rc = reduce_links_free_names(l, err);
    if (rc == CHT_OK) /* of the metric: all of them are looked at by a commit (store/rados/under.h) */
        rc = reduce_too_many(l->run.store, &w.move.to[0], 1, &many, err);
    if (rc == CHT_OK && many)
        rc = clear_old(l, &w, l->cfg->prefix, err);
    return rc == CHT_OK ? reduce_move(&l->run, &w.move, err) : rc;
}

/* ---- results ------------------------------------------------------------------------------------------------------ */

/* A record of this digest: are its results all there? */
static enum cht_rc goes_on(struct reduce_links *l, const uint8_t *record, bool *does, struct cht_err *err)
{
    uint8_t results[64];
    struct cht_str none = {0}, under = {results, put_name(results, REDUCE_LINKING, l->cfg->metric, &none)};
    uint64_t kept = 0;
    *does = false;
    if (get64(record + 1) != l->digest)
        return CHT_OK;
    enum cht_rc rc = cht_store_count(l->run.store, under, &kept, err);
    *does = kept == get64(record + 9);
    return rc;
}

/* Brings a switch that was cut off to its end, whatever it was of. */
static enum cht_rc finish_switch(struct reduce_links *l, struct cht_str record, struct cht_err *err)
{
    struct switching w;
    enum cht_rc rc = CHT_OK;
    put_switch(l, record.p + 1, &w);
    if (record.p[0] == RECORD_CLEAR) {
        struct cht_str prefix = {record.p + RECORD_HEAD, record.n - RECORD_HEAD};
        put_first(l, prefix, &w);
        rc = reduce_links_check(l->run.store, w.first.name, reduce_links_payload, l->cfg->cancel, err);
        if (rc == CHT_OK && cht_store_remote(l->run.store))
            rc = clear_old(l, &w, prefix, err);
    }
    l->done = get64(record.p + 1) == l->digest;
    return rc == CHT_OK ? reduce_move(&l->run, &w.move, err) : rc;
}

enum cht_rc reduce_links_resume(struct reduce_links *l, struct cht_buf *after, struct cht_err *err)
{
    uint8_t name[64];
    struct cht_str record = {name, put_name(name, REDUCE_LINKRUN, l->cfg->metric, NULL)};
    uint64_t key;
    uint32_t size = 0;
    enum cht_rc rc = cht_store_pair_value(l->run.store, record, &key, after, &size, err);
    bool some = rc == CHT_OK, does = false;
    if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND && rc != CHT_CORRUPT)
        return rc;
    if (some && !is_record((struct cht_str){after->data, size}))
        return CHT_FAIL(err, CHT_NAMES_TAKEN, "the pair %.*s is in the way: it was not made by this call",
                        (int)record.n, (const char *)record.p);
    rc = CHT_OK;
    if (some && after->data[0] != RECORD_RUN)
        rc = finish_switch(l, (struct cht_str){after->data, size}, err);
    else if (some)
        rc = goes_on(l, after->data, &does, err);
    if (rc != CHT_OK)
        return rc;
    if (!does && !l->done) {
        after->len = 0;
        return begin_anew(l, err);
    }
    l->result->resumed = l->result->contexts = get64(after->data + 9);
    l->result->links = get64(after->data + 17);
    after->len = size - RECORD_HEAD;
    memmove(after->data, after->data + RECORD_HEAD, after->len);
    return CHT_OK;
}

enum cht_rc reduce_links_keep(struct reduce_links *l, const struct reduce_links_rows *left,
                              const struct reduce_links_found *f, struct cht_err *err)
{
    size_t room = (size_t)left->name_at[left->n] + ((size_t)left->n + 1) * REDUCE_LINKS_NAME_EXTRA + 64,
           used = 0;
    uint64_t booked = room + (left->n + 1u) * sizeof(struct cht_op);
    uint8_t record[RECORD_HEAD + CHT_NAME_MAX];
    enum cht_rc rc = reduce_take_memory(&l->run, booked, err);
    if (rc != CHT_OK)
        return rc;
    struct cht_op *ops = cht_calloc(left->n + 1u, sizeof *ops);
    uint8_t *text = cht_malloc(room);
    if (ops == NULL || text == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the links of %u contexts", left->n);
    for (uint32_t i = 0; rc == CHT_OK && i < left->n; i++) {
        struct cht_str name = reduce_links_name(left, i);
        size_t n = put_name(text + used, REDUCE_LINKING, l->cfg->metric, &name);
        ops[i] = (struct cht_op){
            .kind = CHT_OP_PAIR_PUT, .name = {text + used, n}, .value = {f->payload[i], f->size[i]}};
        used += n;
    }
    if (rc == CHT_OK) {
        l->result->contexts += left->n;
        l->result->links += links_of(f);
        ops[left->n] = (struct cht_op){
            .kind = CHT_OP_PAIR_PUT,
            .name = {text + used, put_name(text + used, REDUCE_LINKRUN, l->cfg->metric, NULL)},
            .value = {record, put_record(l, reduce_links_name(left, left->n - 1), record)}};
        rc = reduce_commit(l->run.store, ops, left->n + 1u, err);
    }
    cht_free(ops);
    cht_free(text);
    reduce_give_memory(&l->run, booked);
    return rc;
}

/* ---- one list ----------------------------------------------------------------------------------------------------- */

/* <space> and what comes after link: in a name, as far as the next colon or all of it; the bytes, 0: too long. */
static size_t other_name(uint8_t *to, const char *space, struct cht_str name, bool all)
{
    size_t n = strlen(space);
    memcpy(to, space, n);
    for (size_t i = CHT_LEN(REDUCE_LINKS); i < name.n && (all || name.p[i] != ':'); i++) {
        if (n == CHT_NAME_MAX)
            return 0;
        to[n++] = name.p[i];
    }
    return n;
}

/* Does the record say that this list goes, if it is there? */
static bool goes(struct cht_str record, struct cht_str name)
{
    const uint8_t *colon = memchr(name.p + CHT_LEN(REDUCE_LINKS), ':', name.n - CHT_LEN(REDUCE_LINKS));
    if (!is_record(record) || record.p[0] != RECORD_CLEAR || colon == NULL)
        return false;
    size_t n = record.n - RECORD_HEAD, left = name.n - (size_t)(colon + 1 - name.p);
    return n <= left && memcmp(colon + 1, record.p + RECORD_HEAD, n) == 0;
}

/* The record of the metric, and with `list` the list, both with one question; its value is at the begin of out. */
struct ask {
    struct cht_str name;            /* of the list */
    uint8_t run_name[CHT_NAME_MAX]; /* of the record */
    struct cht_pair_read r[2];      /* of the record, of the list */
    bool switching, goes;           /* what the record says: all new lists are there; the old list is void */
};

static enum cht_rc ask(struct cht_store *s, struct ask *a, bool list, struct cht_buf *out,
                       struct cht_err *err)
{
    struct cht_pair_read *r = a->r;
    r[0] = (struct cht_pair_read){
        .name = {a->run_name, other_name(a->run_name, REDUCE_LINKRUN, a->name, false)}};
    r[1] = (struct cht_pair_read){.name = a->name};
    enum cht_rc rc = cht_store_pair_values(s, r, list ? 2 : 1, out, NULL, err);
    bool one = r[0].rc != CHT_OK && r[0].rc != CHT_PAIR_NOT_FOUND;
    if (rc != CHT_OK && (one || !list))
        return rc;
    struct cht_str record = {out->data + r[0].at, r[0].rc == CHT_OK ? r[0].size : 0};
    a->switching = is_record(record) && record.p[0] != RECORD_RUN;
    a->goes = goes(record, a->name);
    out->len = 0;
    if (list && r[1].rc == CHT_OK && r[1].size > 0) {
        memmove(out->data, out->data + r[1].at, r[1].size);
        out->len = r[1].size;
    }
    return rc;
}

static enum cht_rc has_pairs(struct cht_store *s, struct cht_str prefix, bool *has, struct cht_err *err)
{
    struct cht_scan_config cfg = {.kind = CHT_SCAN_PAIRS, .prefix = prefix, .limit = 1};
    struct cht_scan *scan = NULL;
    struct cht_entry e;
    size_t n = 0;
    uint64_t pairs = 0;
    enum cht_rc rc;
    if (!cht_store_remote(s)) { /* it knows how many there are without going through them */
        rc = cht_store_count(s, prefix, &pairs, err);
        *has = pairs > 0;
        return rc;
    }
    rc = cht_scan_open(s, &cfg, &scan, err);
    if (rc == CHT_OK)
        rc = cht_scan_next(scan, &e, 1, &n, err);
    cht_scan_close(scan);
    *has = n > 0;
    return rc;
}

/* The steps are in the order of a switch: what has left one place since it was looked at is in the next. */
enum cht_rc reduce_links_read(struct cht_store *s, struct cht_str name, struct cht_buf *out, uint32_t *size,
                              struct cht_err *err)
{
    struct ask a = {.name = name};
    uint8_t other[CHT_NAME_MAX];
    uint64_t key;
    enum cht_rc rc = ask(s, &a, true, out, err);
    if (rc == CHT_CORRUPT && a.r[0].rc == CHT_CORRUPT) /* the record, which cannot say anything */
        return cht_store_pair_value(s, name, &key, out, size, err);
    if (rc != CHT_OK)
        return rc;
    if (a.r[1].rc == CHT_OK && !a.goes) {
        *size = a.r[1].size;
        return CHT_OK;
    }
    if (!a.goes)
        rc = ask(s, &a, false, out, err);
    size_t n = rc == CHT_OK && a.switching ? other_name(other, REDUCE_LINKING, name, true) : 0;
    if (n > 0) {
        rc = cht_store_pair_value(s, (struct cht_str){other, n}, &key, out, size, err);
        if (rc != CHT_PAIR_NOT_FOUND)
            return rc;
        rc = a.goes ? ask(s, &a, false, out, err) : CHT_OK;
        if (rc == CHT_OK && a.goes)
            return CHT_PAIR_NOT_FOUND;
    }
    return rc == CHT_OK ? cht_store_pair_value(s, name, &key, out, size, err) : rc;
}

enum cht_rc reduce_links_any(struct cht_store *s, struct cht_str prefix, bool *any, struct cht_err *err)
{
    struct ask a = {.name = prefix};
    struct cht_buf record = {0};
    enum cht_rc rc = has_pairs(s, prefix, any, err);
    if (rc == CHT_OK && !*any) { /* all old ones may be gone before the first new one has its name */
        rc = ask(s, &a, false, &record, err);
        *any = rc == CHT_OK && a.switching;
    }
    cht_buf_free(&record);
    return rc;
}
