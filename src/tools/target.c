/* target: see target.h. */
#include "tools/target.h"

#include "base/alloc.h"
#include "base/b64.h"
#include "base/clock.h"
#include "base/literal.h"
#include "tools/flat.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ENDED_NAME 88u /* bytes of base64 */
#define MAX_OPS 10000u
#define MAX_BYTES (8u << 20)
#define PATH                   \
    "/pairs/x0063686565746168" \
    "2d696d706f7274" /* the marker */

static bool buf_add(struct cht_buf *b, const char *p, size_t n)
{
    size_t need = b->len + n + 1, twice = b->cap * 2;
    if (need > b->cap && cht_buf_reserve(b, need > twice ? need : twice, NULL) != CHT_OK)
        return false;
    memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = 0;
    return true;
}

static bool take_answer(void *ctx, const char *p, size_t n) { return buf_add(ctx, p, n); }

/* A request with a small answer. */
static enum cht_rc ask(struct tool_target *t, struct tool_request *r, struct cht_buf *answer,
                       struct cht_err *err)
{
    answer->len = 0;
    r->sink = take_answer;
    r->sink_ctx = answer;
    enum cht_rc rc = tool_client_run(t->client, r, err);
    if (rc == CHT_CANCELLED)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for an answer");
    return rc;
}

/* ---- opening --------------------------------------------------------------------------------------------------------- */

/* With --shards the database is made with that many shards; otherwise the first write makes it. */
static enum cht_rc make(struct tool_target *t, uint64_t shards, struct cht_buf *b, struct cht_err *err)
{
    char path[160], body[64];
    struct tool_request put = {
        .method = "PUT", .path = path, .body = body, .content_type = "application/json"};
    struct tool_request post = {.path = path, .body = "", .content_type = "application/x-ndjson"};
    if (shards > 0) {
        (void)snprintf(path, sizeof path, "/databases/%.64s", t->database); /* fits, like the others */
        put.body_len = (size_t)snprintf(body, sizeof body, "{\"shards\":%" PRIu64 "}", shards);
        return ask(t, &put, b, err);
    }
    (void)snprintf(path, sizeof path, "/batch?db=%.64s", t->database);
    return ask(t, &post, b, err);
}

static enum cht_rc look(struct tool_target *t, struct cht_buf *b, struct cht_err *err)
{
    char path[160];
    (void)snprintf(path, sizeof path, "/databases/%.64s", t->database); /* fits */
    enum cht_rc rc = tool_client_get(t->client, path, b, err);
    if (rc != CHT_OK)
        return rc;
    json_t *o = json_loadb((const char *)b->data, b->len, 0, NULL);
    const json_t *pairs = json_object_get(o, "pairs"), *values = json_object_get(o, "values");
    t->shards = json_array_size(json_object_get(o, "shards"));
    t->had_pairs = (uint64_t)json_integer_value(pairs);
    t->had_values = (uint64_t)json_integer_value(values);
    t->keeps_ends = json_object_get(o, "expiring") != NULL;
    t->remote = json_is_null(json_object_get(o, "lengths"));
    if (!json_is_integer(pairs) || !json_is_integer(values) || t->shards == 0)
        rc = CHT_FAIL(err, CHT_IO, "%s does not describe its databases; is it a cheetah-db server?",
                      tool_client_url(t->client));
    json_decref(o);
    return rc;
}

/* The offset that the marker's own key gives away (see target.h). */
static void place(struct tool_target *t, uint64_t marker_key)
{
    t->offset = (marker_key - t->reserved - 1) / t->shards * t->shards;
    t->placed = true;
}

static enum cht_rc take_state(struct tool_target *t, uint64_t key, const char *text, size_t n,
                              struct cht_err *err)
{
    json_t *o = json_loadb(text, n, 0, NULL);
    const char *source = json_string_value(json_object_get(o, "source"));
    const char *cursor = json_string_value(json_object_get(o, "cursor"));
    uint64_t number[6] = {0};
    static const char *const names[6] = {"reserved", "position", "line", "pairs", "values", "undecoded"};
    bool ok = source != NULL;
    for (size_t i = 0; i < 6; i++) {
        ok = ok && json_is_integer(json_object_get(o, names[i]));
        number[i] = (uint64_t)json_integer_value(json_object_get(o, names[i]));
    }
    enum cht_rc rc = CHT_OK;
    if (!ok || (!t->remote && key <= number[0]))
        rc = CHT_FAIL(err, CHT_DATABASE_BUSY, "what the last import left in database '%s' cannot be read",
                      t->database);
    else if (strcmp(source, t->source) != 0)
        rc = CHT_FAIL(err, CHT_DATABASE_BUSY, "another import into database '%s' has not finished (%.100s)",
                      t->database, source);
    t->reserved = number[0];
    t->state = (struct tool_target_state){.position = number[1],
                                          .line = number[2],
                                          .pairs = number[3],
                                          .values = number[4],
                                          .undecoded = number[5],
                                          .ended = (uint64_t)json_integer_value(json_object_get(o, "ended")),
                                          .second = json_is_true(json_object_get(o, "second"))};
    if (rc == CHT_OK && cursor != NULL && (t->state.cursor = cht_strdup(cursor)) == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the state of an import");
    const json_t *offset = json_object_get(o, "offset");
    t->resumed = true;
    if (rc == CHT_OK && json_is_integer(offset)) {
        t->offset = (uint64_t)json_integer_value(offset);
        t->placed = true;
    } else if (rc == CHT_OK && !t->remote) {
        place(t, key);
    }
    json_decref(o);
    return rc;
}

static enum cht_rc find_marker(struct tool_target *t, struct cht_buf *b, struct cht_err *err)
{
    char path[160];
    struct tool_flat f;
    struct cht_buf text = {0};
    const char *value = NULL;
    size_t value_n = 0;
    uint64_t key = 0;
    (void)snprintf(path, sizeof path, PATH "?db=%.64s&exact=true&values=true", t->database); /* fits */
    enum cht_rc rc = tool_client_get(t->client, path, b, err);
    if (rc == CHT_PAIR_NOT_FOUND)
        return CHT_OK;
    if (rc != CHT_OK)
        return rc;
    rc = cht_buf_reserve(&text, b->len + 4, err);
    if (rc == CHT_OK &&
        (!tool_flat_parse(&f, (const char *)b->data, b->len) ||
         !tool_flat_string(&f, "value", &value, &value_n) || !tool_flat_number(&f, "key", &key) ||
         !cht_b64_decode(text.data, value, value_n, &text.len)))
        rc = CHT_FAIL(err, CHT_DATABASE_BUSY, "what the last import left in database '%s' cannot be read",
                      t->database);
    if (rc == CHT_OK)
        rc = take_state(t, key, (const char *)text.data, text.len, err);
    cht_buf_free(&text);
    return rc;
}

enum cht_rc tool_target_open(struct tool_target *t, const struct tool_target_config *cfg, struct cht_err *err)
{
    struct cht_buf b = {0};
    *t = (struct tool_target){
        .database = cfg->database, .max_ops = MAX_OPS, .max_bytes = MAX_BYTES, .failed = -1};
    (void)snprintf(t->source, sizeof t->source, "%s", cfg->source); /* one cut short still names it */
    enum cht_rc rc = tool_client_new(&cfg->connect, &t->client, err);
    if (rc == CHT_OK)
        rc = make(t, cfg->shards, &b, err);
    if (rc == CHT_OK)
        rc = look(t, &b, err);
    if (rc == CHT_OK)
        rc = find_marker(t, &b, err);
    t->occupied = rc == CHT_OK && !t->resumed && !cfg->merge && (t->had_pairs > 0 || t->had_values > 0);
    if (t->occupied)
        rc = CHT_FAIL(err, CHT_DATABASE_BUSY,
                      "database '%s' is not empty (%" PRIu64 " pairs, %" PRIu64
                      " values): --merge adds to it, under keys of their own",
                      t->database, t->had_pairs, t->had_values);
    cht_buf_free(&b);
    return rc;
}

void tool_target_close(struct tool_target *t)
{
    tool_client_free(t->client);
    cht_buf_free(&t->batch);
    cht_free(t->state.cursor);
    t->client = NULL;
    t->state.cursor = NULL;
}

/* ---- batches --------------------------------------------------------------------------------------------------------- */

static enum cht_rc no_memory(struct cht_err *err)
{
    return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a batch");
}

/* The operation that writes the marker. */
static enum cht_rc add_marker(struct tool_target *t, struct cht_err *err)
{
    const struct tool_target_state *s = &t->state;
    json_t *o = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "source", t->source, "reserved",
                          (json_int_t)t->reserved, "position", (json_int_t)s->position, "line",
                          (json_int_t)s->line, "pairs", (json_int_t)s->pairs, "values", (json_int_t)s->values,
                          "undecoded", (json_int_t)s->undecoded, "second", s->second);
    bool ok = o != NULL;
    if (ok && s->ended > 0)
        ok = json_object_set_new(o, "ended", json_integer((json_int_t)s->ended)) == 0;
    if (ok && t->remote && t->placed)
        ok = json_object_set_new(o, "offset", json_integer((json_int_t)t->offset)) == 0;
    if (ok && s->cursor != NULL)
        ok = json_object_set_new(o, "cursor", json_string(s->cursor)) == 0;
    char *text = ok ? json_dumps(o, JSON_COMPACT) : NULL;
    size_t n = text != NULL ? strlen(text) : 0;
    static const char head[] = "{\"op\":\"pair_put\",\"pair\":\"" TOOL_TARGET_MARKER_B64 "\",\"value\":\"";
    ok = text != NULL &&
         cht_buf_reserve(&t->batch, t->batch.len + sizeof head + cht_b64_encoded(n) + 8, NULL) == CHT_OK;
    if (ok) {
        (void)buf_add(&t->batch, head, sizeof head - 1); /* there is room, as for the others */
        t->batch.len += cht_b64_encode((char *)t->batch.data + t->batch.len, (const uint8_t *)text, n);
        (void)buf_add(&t->batch, CHT_LITERAL("\"}\n"));
        t->ops++;
    }
    free(text); /* NOLINT: json_dumps uses malloc */
    json_decref(o);
    return ok ? CHT_OK : no_memory(err);
}

/* Sends the batch, with the marker after it. results: the answer has a line for each operation. */
static enum cht_rc send(struct tool_target *t, bool results, struct cht_buf *answer, struct cht_err *err)
{
    char path[160];
    enum cht_rc rc = add_marker(t, err);
    (void)snprintf(path, sizeof path, "/batch?db=%.64s&atomic=true&results=%s", t->database,
                   results ? "true" : "false"); /* fits */
    struct tool_request r = {.path = path,
                             .body = (const char *)t->batch.data,
                             .body_len = t->batch.len,
                             .content_type = "application/x-ndjson"};
    t->failed = -1;
    if (rc == CHT_OK)
        rc = ask(t, &r, answer, err);
    if (rc == CHT_BATCH_FAILED)
        t->failed = r.index;
    static const char good[] = ",\"failed\":0}}\n";
    size_t n = sizeof good - 1;
    if (rc == CHT_OK && (answer->len < n || memcmp(answer->data + answer->len - n, good, n) != 0))
        rc = CHT_FAIL(err, CHT_IO, "the server did not say that the batch was written");
    t->batch.len = 0;
    t->ops = 0;
    return rc;
}

/* The key in the last line but one. */
static bool last_result_key(const struct cht_buf *b, uint64_t *key)
{
    struct tool_flat f;
    size_t end = b->len;
    for (int skip = 0; skip < 2; skip++) {
        while (end > 0 && b->data[end - 1] != '\n')
            end--;
        if (end == 0)
            return false;
        end--;
    }
    size_t start = end;
    while (start > 0 && b->data[start - 1] != '\n')
        start--;
    return tool_flat_parse(&f, (const char *)b->data + start, end - start) &&
           tool_flat_number(&f, "key", key);
}

/* The answers to the reservations, a line each: where the range begins. False: it is not in one piece, or that is no such answer. */
static bool place_by_answer(struct tool_target *t, const struct cht_buf *b, uint64_t most)
{
    const char *p = (const char *)b->data, *end = p + b->len;
    uint64_t at = 0;
    while (at < t->reserved) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        struct tool_flat f;
        uint64_t key;
        if (stop == NULL || !tool_flat_parse(&f, p, (size_t)(stop - p)) ||
            !tool_flat_number(&f, "key", &key) || key == 0 || (at > 0 && key != t->offset + at + 1))
            return false;
        t->offset = at == 0 ? key - 1 : t->offset;
        at += t->reserved - at < most ? t->reserved - at : most;
        p = stop + 1;
    }
    t->placed = true;
    return true;
}

enum cht_rc tool_target_begin(struct tool_target *t, uint64_t last_key, struct cht_err *err)
{
    struct cht_buf answer = {0};
    enum cht_rc rc = CHT_OK;
    uint64_t key, most = CHT_RESERVE_MAX / t->shards * t->shards;
    if (t->placed)
        return CHT_OK;
    uint64_t rounds = (last_key + t->shards - 1) / t->shards;
    t->reserved = (rounds > 0 ? rounds : 1) * t->shards;
    for (uint64_t left = t->reserved; left > 0 && rc == CHT_OK;) { /* those of one batch follow each other */
        char s[64];
        uint64_t n = left < most ? left : most;
        int len = snprintf(s, sizeof s, "{\"op\":\"reserve\",\"keys\":%" PRIu64 "}\n", n);
        rc = buf_add(&t->batch, s, (size_t)len) ? CHT_OK : no_memory(err);
        left -= n;
    }
    if (rc == CHT_OK)
        rc = send(t, true, &answer, err);
    if (rc == CHT_OK && t->remote && !place_by_answer(t, &answer, most))
        rc = CHT_FAIL(err, CHT_IO, "the server did not reserve keys in a row: run it again");
    else if (rc == CHT_OK && !t->remote && (!last_result_key(&answer, &key) || key <= t->reserved))
        rc = CHT_FAIL(err, CHT_IO, "the server did not say which keys it reserved");
    else if (rc == CHT_OK && !t->remote)
        place(t, key);
    cht_buf_free(&answer);
    return rc;
}

static enum cht_rc add(struct tool_target *t, const char *head, const char *text, size_t n, const char *tail,
                       struct cht_err *err)
{
    size_t before = t->batch.len;
    if (buf_add(&t->batch, head, strlen(head)) && buf_add(&t->batch, text, n) &&
        buf_add(&t->batch, tail, strlen(tail))) {
        t->ops++;
        return CHT_OK;
    }
    t->batch.len = before;
    return no_memory(err);
}

static enum cht_rc moved(const struct tool_target *t, uint64_t *key, struct cht_err *err)
{
    if (*key > CHT_KEY_MAX - t->offset)
        return CHT_FAIL(err, CHT_KEYS_EXHAUSTED, "key %" PRIu64 " cannot be moved by %" PRIu64, *key,
                        t->offset);
    *key += t->offset;
    return CHT_OK;
}

enum cht_rc tool_target_value(struct tool_target *t, uint64_t key, const char *text, size_t n,
                              struct cht_err *err)
{
    char head[80];
    enum cht_rc rc = moved(t, &key, err);
    if (rc != CHT_OK)
        return rc;
    (void)snprintf(head, sizeof head, "{\"op\":\"put\",\"key\":%" PRIu64 ",\"value\":\"", key); /* fits */
    t->state.values++;
    return add(t, head, text, n, "\"}\n", err);
}

/* A name of its own for a value that goes with a pair that has ended: what the database has under the pair's name is another's, and stays.
 * Base64, as in a batch; returns its bytes. */
static size_t ended_name(uint64_t key, char out[ENDED_NAME])
{
    char name[sizeof TOOL_TARGET_MARKER + 40] = TOOL_TARGET_MARKER;
    size_t n = sizeof TOOL_TARGET_MARKER - 1;
    n += (size_t)snprintf(name + n, sizeof name - n, "-ended-%" PRIu64, key); /* fits */
    return cht_b64_encode(out, (const uint8_t *)name, n);
}

enum cht_rc tool_target_pair(struct tool_target *t, const char *text, size_t n, uint64_t key,
                             uint64_t expires, struct cht_err *err)
{
    char tail[80], own[ENDED_NAME];
    enum cht_rc rc = moved(t, &key, err);
    if (rc != CHT_OK)
        return rc;
    if (n == sizeof TOOL_TARGET_MARKER_B64 - 1 && memcmp(text, TOOL_TARGET_MARKER_B64, n) == 0)
        return CHT_FAIL(err, CHT_INVALID_PAIR, "the name is that of an import's own state");
    if (expires > 0)
        (void)snprintf(tail, sizeof tail, "\",\"key\":%" PRIu64 ",\"expires\":%" PRIu64 "}\n", key,
                       expires); /* fits, as does the other */
    else
        (void)snprintf(tail, sizeof tail, "\",\"key\":%" PRIu64 "}\n", key);
    bool ended = expires > 0 && expires <= cht_wall_ns() / 1000000000;
    t->state.pairs += !ended;
    t->state.ended += ended;
    if (ended) {
        n = ended_name(key, own);
        text = own;
    }
    return add(t, "{\"op\":\"pair_set\",\"pair\":\"", text, n, tail, err);
}

enum cht_rc tool_target_commit(struct tool_target *t, struct cht_err *err)
{
    struct cht_buf answer = {0};
    enum cht_rc rc = send(t, false, &answer, err);
    cht_buf_free(&answer);
    return rc;
}

bool tool_target_smaller(struct tool_target *t)
{
    if (t->max_ops == 1)
        return false;
    t->max_ops = t->max_ops > 1 ? t->max_ops / 2 : 1;
    t->max_bytes = t->max_bytes > 2048 ? t->max_bytes / 2 : 1024;
    return true;
}

enum cht_rc tool_target_end(struct tool_target *t, struct cht_err *err)
{
    char path[160];
    struct cht_buf answer = {0};
    (void)snprintf(path, sizeof path, PATH "?db=%.64s&values=true", t->database); /* fits */
    struct tool_request r = {.method = "DELETE", .path = path};
    enum cht_rc rc = ask(t, &r, &answer, err);
    cht_buf_free(&answer);
    return rc;
}
