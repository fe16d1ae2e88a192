/* links_keep: what a run keeps in the database (links.h): its results so far, how far it is, and the switch at its end.
 *
 *   linkrun:<metric>   version=1 u8 | digest u64 | contexts u64 | links u64 | the name that is done last (none: nothing is); big-endian
 *                      version=2 u8 | digest u64 | contexts u64 | links u64: all is done, and the links get their names (move.h); what they replace is gone
 */
#include "reduce/links_int.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "reduce/move.h"

#include <string.h>

#define RECORD_HEAD 25u
#define RECORD_RUN 1u
#define RECORD_SWITCH 2u

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
    uint8_t from[64], to[64], run[64], record[RECORD_HEAD], old[CHT_NAME_MAX + REDUCE_LINKS_NAME_EXTRA];
    struct cht_op first, last;
    struct reduce_move move;
};

/* digest, contexts, links: at p, as in the record. */
static void put_switch(const struct reduce_links *l, const uint8_t *p, struct switching *w)
{
    struct cht_str none = {0}, run = {w->run, put_name(w->run, REDUCE_LINKRUN, l->cfg->metric, NULL)};
    uint64_t contexts = get64(p + 8);
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
        .bytes =
            contexts * (REDUCE_MOVE_EACH + 2 * REDUCE_LINKS_NAME_EXTRA + 2 * (uint64_t)l->left.longest_name),
        .cancel = l->cfg->cancel};
}

enum cht_rc reduce_links_switch(struct reduce_links *l, struct cht_err *err)
{
    struct switching w;
    uint8_t record[RECORD_HEAD];
    struct cht_str none = {0};
    (void)put_record(l, none, record);
    put_switch(l, record + 1, &w);
    w.first =
        (struct cht_op){.kind = CHT_OP_PREFIX_DEL,
                        .with_values = true,
                        .name = {w.old, put_name(w.old, REDUCE_LINKS, l->cfg->metric, &l->cfg->prefix)}};
    w.move.n_first = 1;
    enum cht_rc rc = reduce_links_free_names(l, err);
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
static enum cht_rc finish_switch(struct reduce_links *l, const uint8_t *record, struct cht_err *err)
{
    struct switching w;
    put_switch(l, record + 1, &w);
    l->done = get64(record + 1) == l->digest;
    return reduce_move(&l->run, &w.move, err);
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
    if (some && (size < RECORD_HEAD || after->data[0] < RECORD_RUN || after->data[0] > RECORD_SWITCH))
        return CHT_FAIL(err, CHT_NAMES_TAKEN, "the pair %.*s is in the way: it was not made by this call",
                        (int)record.n, (const char *)record.p);
    rc = CHT_OK;
    if (some && after->data[0] == RECORD_SWITCH)
        rc = finish_switch(l, after->data, err);
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

enum cht_rc reduce_links_read(struct cht_store *s, struct cht_str name, struct cht_buf *out, uint32_t *size,
                              struct cht_err *err)
{
    uint8_t other[CHT_NAME_MAX];
    uint64_t key;
    enum cht_rc rc = cht_store_pair_value(s, name, &key, out, size, err);
    if (rc != CHT_PAIR_NOT_FOUND)
        return rc;
    rc = cht_store_pair_value(s, (struct cht_str){other, other_name(other, REDUCE_LINKRUN, name, false)},
                              &key, out, size, err);
    if (rc != CHT_OK && rc != CHT_PAIR_NOT_FOUND)
        return rc;
    bool switching = rc == CHT_OK && *size > 0 && out->data[0] == RECORD_SWITCH;
    size_t n = switching ? other_name(other, REDUCE_LINKING, name, true) : 0;
    rc = n > 0 ? cht_store_pair_value(s, (struct cht_str){other, n}, &key, out, size, err)
               : CHT_PAIR_NOT_FOUND;
    if (rc == CHT_PAIR_NOT_FOUND) /* unless it has got its name meanwhile, or the switch has ended */
        rc = cht_store_pair_value(s, name, &key, out, size, err);
    return rc;
}
