/* batch: PAIR_PUT_BATCH: many pairs in one line.
 *
 *   PAIR_PUT_BATCH items=JSON [keys=FLAG] [continue_on_error=FLAG] [hidden=FLAG]      JSON: [{"k":BYTES,"v":BYTES},...], 1 to 10 000
 *   SUCCESS,command=PAIR_PUT_BATCH,requested=3,applied=1,failed=1,first_error=item_1:_invalid_key,payload=base64([4,null])
 *
 * Upserts in one durable commit: those before the first bad one, or with continue_on_error all good ones. With keys=1 `payload` has
 * the key of each item that was tried, null if it failed. With hidden=1 plain scans leave them out (hidden.h).
 */
#include "tcp/session.h"

#include "tcp/answer.h"
#include "tcp/hidden.h"
#include "tcp/words.h"

#include "base/alloc.h"

#include <string.h>

#define ITEMS_MAX 10000u

struct batch {
    struct line_session *s;
    json_t *items; /* borrowed */
    size_t requested, tried, failed, first;
    const char *why; /* what the first failure was */
    struct cht_op *ops;
    size_t *at;    /* of an item that was tried: its operation + 1, 0: it failed */
    uint8_t *text; /* decoded names and values, and the names of marks */
    size_t n, used;
    bool hide, marks; /* the pairs are to be hidden; the database has marks, or will have */
};

static size_t string_room(const json_t *v) { return json_is_string(v) ? json_string_length(v) : 0; }

/* The bytes of a member; false: it is no string, or bad hexadecimal. */
static bool member(struct batch *b, const json_t *v, struct cht_str *out)
{
    if (!json_is_string(v))
        return false;
    struct cht_str text = {.p = (const uint8_t *)json_string_value(v), .n = json_string_length(v)};
    if (!line_bytes(b->text + b->used, text, out))
        return false;
    b->used += out->n;
    return true;
}

static const char *item(struct batch *b, const json_t *o, struct cht_op *op)
{
    size_t most = b->hide ? LINE_HIDDEN_NAME_MAX : CHT_NAME_MAX;
    if (!member(b, json_object_get(o, "k"), &op->name) || op->name.n > most)
        return "invalid_key";
    if (op->name.n == 0)
        return "pair_value_cannot_be_empty";
    if (!member(b, json_object_get(o, "v"), &op->value))
        return "invalid_value";
    if (op->value.n == 0 || op->value.n > b->s->host->max_value_size)
        return "invalid_value_size";
    return NULL;
}

static void note_failure(struct batch *b, size_t i, const char *why)
{
    if (b->failed++ == 0) {
        b->first = i;
        b->why = why;
    }
}

/* The operation that sets or takes the mark of a pair, after that which writes it. */
static void add_mark(struct batch *b, struct cht_str name)
{
    const size_t head = sizeof LINE_HIDDEN - 1;
    uint8_t *mark = b->text + b->used;
    if (!b->marks || name.n > LINE_HIDDEN_NAME_MAX)
        return;
    memcpy(mark, LINE_HIDDEN, head);
    memcpy(mark + head, name.p, name.n);
    b->used += head + name.n;
    b->ops[b->n] = (struct cht_op){.kind = CHT_OP_PAIR_DEL, .name = {mark, head + name.n}};
    if (b->hide) {
        b->ops[b->n].kind = CHT_OP_PAIR_LINK;
        b->ops[b->n].value = name;
        b->ops[b->n].back = 1;
    }
    b->n++;
}

static void take_items(struct batch *b, bool go_on)
{
    for (size_t i = 0; i < b->requested && (go_on || b->failed == 0); i++) {
        struct cht_op op = {.kind = CHT_OP_PAIR_PUT};
        const char *why = item(b, json_array_get(b->items, i), &op);
        b->tried++;
        b->at[i] = 0;
        if (why != NULL) {
            note_failure(b, i, why);
        } else {
            b->ops[b->n++] = op;
            b->at[i] = b->n;
            add_mark(b, op.name);
        }
    }
}

static enum cht_rc write_items(struct batch *b)
{
    struct cht_commit c = {.ops = b->ops, .count = b->n, .flags = b->s->durability};
    enum cht_rc rc = b->n > 0 ? cht_store_commit(b->s->db->store, &c) : CHT_OK;
    for (size_t i = 0; rc == CHT_OK && i < b->tried; i++) {
        const struct cht_op *op = b->at[i] > 0 ? &b->ops[b->at[i] - 1] : NULL;
        if (op != NULL && (op->rc != CHT_OK || (b->hide && op[1].rc != CHT_OK))) {
            note_failure(b, i, "pair_set_failed");
            b->at[i] = 0;
        }
    }
    return rc;
}

/* base64 of the keys as JSON */
static void put_keys(struct batch *b)
{
    struct svc_out json = {0}, *o = &b->s->out;
    svc_out_text(&json, "[");
    for (size_t i = 0; i < b->tried; i++) {
        svc_out_text(&json, i > 0 ? "," : "");
        if (b->at[i] > 0)
            svc_out_u64(&json, b->ops[b->at[i] - 1].key);
        else
            svc_out_text(&json, "null");
    }
    svc_out_text(&json, "]");
    svc_out_text(o, ",payload=");
    if (!json.failed && svc_out_room(o, cht_b64_encoded(json.n)))
        o->n += cht_b64_encode(o->p + o->n, (const uint8_t *)json.p, json.n);
    o->failed = o->failed || json.failed;
    svc_out_free(&json);
}

static void put_answer(struct batch *b, bool keys)
{
    struct svc_out *o = &b->s->out;
    line_session_counted(b->s, LINE_PAIR_PUT_BATCH, false);
    svc_out_format(o, "SUCCESS,command=PAIR_PUT_BATCH,requested=%zu,applied=%zu,failed=%zu", b->requested,
                   b->tried - b->failed, b->failed);
    if (b->failed > 0)
        svc_out_format(o, ",first_error=item_%zu:_%s", b->first, b->why);
    if (keys)
        put_keys(b);
    svc_out_text(o, "\n");
}

static const char *room_for(struct batch *b)
{
    size_t room = 1, i;
    json_t *o;
    json_array_foreach(b->items, i, o) room +=
        string_room(json_object_get(o, "k")) + string_room(json_object_get(o, "v"));
    if (b->marks)
        room += room + b->requested * (sizeof LINE_HIDDEN - 1);
    b->ops = cht_calloc(b->requested, (b->marks ? 2 : 1) * sizeof *b->ops);
    b->at = cht_calloc(b->requested, sizeof *b->at);
    b->text = cht_malloc(room);
    return b->ops == NULL || b->at == NULL || b->text == NULL ? cht_rc_slug(CHT_NO_MEMORY) : NULL;
}

static void run_batch(struct batch *b, struct cht_str words)
{
    b->hide = line_words_flag(words, "hidden", NULL);
    b->marks = b->hide || line_hidden_any(b->s->db);
    if (b->hide)
        line_hidden_begin(b->s->db);
    const char *error = room_for(b);
    enum cht_rc rc = CHT_OK;
    if (error == NULL) {
        take_items(b, line_words_flag(words, "continue_on_error", "continueonerror"));
        rc = write_items(b);
        error = rc != CHT_OK ? cht_rc_slug(rc) : NULL;
    }
    if (error != NULL)
        line_session_error(b->s, LINE_PAIR_PUT_BATCH, error);
    else
        put_answer(b, line_words_flag(words, "keys", NULL));
    cht_free(b->ops);
    cht_free(b->at);
    cht_free(b->text);
}

static void too_many(struct batch *b)
{
    line_session_counted(b->s, LINE_PAIR_PUT_BATCH, true);
    svc_out_format(&b->s->out, "ERROR,pair_put_batch_too_many_items (max %u, got %zu)\n", ITEMS_MAX,
                   b->requested);
}

/* ------------------------------------------------------------------------------------------------------------ */

void line_session_put_batch(struct line_session *s)
{
    struct cht_str words = s->command.value, items;
    struct batch b = {.s = s};
    if (!line_words_get(words, "items", "json", &items) || items.n == 0) {
        line_session_error(s, LINE_PAIR_PUT_BATCH, "pair_put_batch_requires_items");
        return;
    }
    bool no_memory;
    b.items = line_json(items, &no_memory);
    b.requested = json_array_size(b.items);
    if (no_memory)
        line_session_error(s, LINE_PAIR_PUT_BATCH, cht_rc_slug(CHT_NO_MEMORY));
    else if (!json_is_array(b.items))
        line_session_error(s, LINE_PAIR_PUT_BATCH, "invalid_items: a JSON list of {k, v} is expected");
    else if (b.requested == 0)
        line_session_error(s, LINE_PAIR_PUT_BATCH, "pair_put_batch_requires_nonempty_items");
    else if (b.requested > ITEMS_MAX)
        too_many(&b);
    else
        run_batch(&b, words);
    json_decref(b.items);
}
