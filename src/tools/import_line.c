/* import_line: `cheetah-db import --from-line`: out of a server that speaks the line protocol, into a database here.
 *
 *   1  a walk over all pages of PAIR_SCAN counts the pairs and finds the highest key that has a value
 *   2  the range of keys is reserved (target.h)
 *   3  a second walk reads the values, a window of READs in flight at a time, and writes values and pairs in batches; the
 *      cursor of the walk is part of the state that each batch takes along
 *
 * A key is read once however many names it has, but again after a restart, which changes nothing: the value is written under
 * the same key as before.
 */
#include "tools/import.h"
#include "tools/line_client.h"

#include "base/alloc.h"
#include "base/b64.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WINDOW_MAX 512u
#define WINDOW_BYTES (2u << 20)
#define HIGHEST 1024u                 /* keys remembered while looking for the highest with a value */
#define RANGE_MAX (UINT64_C(1) << 34) /* its table of what was copied is 2 GiB */

struct line_job {
    const struct tool_import *in;
    struct tool_line_how how;
    struct tool_line_client line;
    struct tool_target target;
    struct tool_progress progress;
    uint8_t *copied;     /* owned: a bit for each key of the range */
    struct cht_buf text; /* owned: base64 */
    size_t window;
    char *committed; /* owned: the cursor of the last batch; and what was written up to there */
    uint64_t pairs, values, undecoded;
};

/* ---- the first walk -------------------------------------------------------------------------------------------------- */

struct survey {
    uint64_t pairs;
    uint64_t high[HIGHEST]; /* ascending, distinct */
    size_t n;
};

static void note_key(struct survey *s, uint64_t key)
{
    size_t at = s->n;
    if (s->n == HIGHEST && key < s->high[0])
        return;
    while (at > 0 && s->high[at - 1] > key)
        at--;
    if (at > 0 && s->high[at - 1] == key)
        return;
    if (s->n == HIGHEST) { /* the least goes */
        memmove(s->high, s->high + 1, (at - 1) * sizeof *s->high);
        s->high[at - 1] = key;
        return;
    }
    memmove(s->high + at + 1, s->high + at, (s->n - at) * sizeof *s->high);
    s->high[at] = key;
    s->n++;
}

static enum cht_rc survey_page(struct line_job *j, struct survey *s, char **cursor, bool *more,
                               struct cht_err *err)
{
    struct tool_line_page page;
    struct tool_line_item item;
    bool got = true;
    enum cht_rc rc = tool_line_scan(&j->line, *cursor, &page, err);
    while (rc == CHT_OK && got) {
        rc = tool_line_next(&page, &item, &got, err);
        if (rc == CHT_OK && got) {
            note_key(s, item.key);
            s->pairs++;
        }
    }
    *more = rc == CHT_OK && page.next != NULL;
    cht_free(*cursor);
    *cursor = *more ? cht_strdup(page.next) : NULL;
    if (*more && *cursor == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a cursor");
    cht_free(page.text);
    tool_progress_at(&j->progress, s->pairs);
    return rc;
}

static enum cht_rc ask_value(struct line_job *j, uint64_t key, bool *lives, struct cht_err *err)
{
    char text[40];
    const char *p = NULL;
    size_t n;
    bool hidden = false;
    int len = snprintf(text, sizeof text, "READ %" PRIu64 "\n", key);
    enum cht_rc rc = tool_line_send(&j->line, text, (size_t)len, err); /* fits */
    if (rc == CHT_OK)
        rc = tool_line_value(&j->line, &p, &n, &hidden, err);
    *lives = rc == CHT_OK && (p != NULL || hidden);
    return rc;
}

/* The highest key with a value, or one that is not lower. */
static enum cht_rc survey(struct line_job *j, uint64_t *last_key, struct cht_err *err)
{
    struct survey *s = cht_calloc(1, sizeof *s);
    char *cursor = NULL;
    bool more = true, lives = false;
    enum cht_rc rc = s != NULL ? CHT_OK : CHT_FAIL(err, CHT_NO_MEMORY, "no memory to look at the source");
    *last_key = 0;
    tool_progress_begin(&j->progress, "look", 0, false);
    while (rc == CHT_OK && more)
        rc = survey_page(j, s, &cursor, &more, err);
    tool_progress_end(&j->progress);
    cht_free(cursor);
    for (size_t i = rc == CHT_OK ? s->n : 0; i > 0 && rc == CHT_OK && !lives; i--) {
        rc = ask_value(j, s->high[i - 1], &lives, err);
        *last_key = lives || (i == 1 && s->n == HIGHEST) ? s->high[i - 1] : 0;
    }
    if (rc == CHT_OK && *last_key > RANGE_MAX)
        rc = CHT_FAIL(err, CHT_KEYS_EXHAUSTED,
                      "the source has a value under key %" PRIu64 "; at most %" PRIu64 " can be copied",
                      *last_key, RANGE_MAX);
    j->target.state.line = rc == CHT_OK ? s->pairs : 0; /* the total, for a second run */
    cht_free(s);
    return rc;
}

/* ---- the second walk ------------------------------------------------------------------------------------------------- */

static bool is_copied(const struct line_job *j, uint64_t key)
{
    return key <= j->target.reserved && (j->copied[key / 8] >> (key % 8) & 1) != 0;
}

static void set_copied(struct line_job *j, uint64_t key)
{
    if (key <= j->target.reserved)
        j->copied[key / 8] |= (uint8_t)(1u << (key % 8));
}

static enum cht_rc undecodable(struct line_job *j, const struct tool_line_item *item, struct cht_err *err)
{
    if (j->in->keep_undecodable) {
        j->target.state.undecoded++;
        return CHT_OK;
    }
    return CHT_FAIL(err, CHT_INVALID_VALUE,
                    "pair x%.*s: the value of key %" PRIu64
                    " is not base64; --keep-undecodable keeps such values as "
                    "they are",
                    (int)(item->hex_n < 60 ? item->hex_n : 60), item->hex, item->key);
}

static enum cht_rc check_key(const struct line_job *j, const struct tool_line_item *item, struct cht_err *err)
{
    if (item->key > j->target.reserved)
        return CHT_FAIL(err, CHT_IO,
                        "key %" PRIu64 " is new: the source is written to while it is copied. Stop its "
                        "writers, drop database '%s' and start again",
                        item->key, j->target.database);
    return CHT_OK;
}

/* A payload, which is base64 already if it is to be decoded. */
static enum cht_rc add_value(struct line_job *j, const struct tool_line_item *item, const char *p, size_t n,
                             struct cht_err *err)
{
    size_t len;
    if (n == 0)
        return CHT_FAIL(err, CHT_EMPTY_VALUE,
                        "the value of key %" PRIu64 " is empty; values have 1 byte or more", item->key);
    enum cht_rc rc = check_key(j, item, err);
    if (rc == CHT_OK)
        rc = cht_buf_reserve(&j->text, cht_b64_encoded(n) + 4, err);
    if (rc == CHT_OK && j->in->decode_base64) {
        if (cht_b64_decode(j->text.data, p, n, &len) && len > 0)
            return tool_target_value(&j->target, item->key, p, n, err);
        rc = undecodable(j, item, err);
    }
    if (rc != CHT_OK)
        return rc;
    len = cht_b64_encode((char *)j->text.data, (const uint8_t *)p, n);
    return tool_target_value(&j->target, item->key, (const char *)j->text.data, len, err);
}

static unsigned hex_digit(char c) { return (unsigned)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10); }

static enum cht_rc add_pair(struct line_job *j, const struct tool_line_item *item, struct cht_err *err)
{
    uint8_t name[CHT_NAME_MAX];
    char text[CHT_NAME_MAX / 3 * 4 + 8];
    for (size_t i = 0; i < item->hex_n / 2; i++)
        name[i] = (uint8_t)(hex_digit(item->hex[2 * i]) << 4 | hex_digit(item->hex[2 * i + 1]));
    size_t n = cht_b64_encode(text, name, item->hex_n / 2);
    return tool_target_pair(&j->target, text, n, item->key, 0, err);
}

static void note_committed(struct line_job *j)
{
    j->pairs = j->target.state.pairs;
    j->values = j->target.state.values;
    j->undecoded = j->target.state.undecoded;
}

/* The batch, with the name it goes up to. */
static enum cht_rc commit(struct line_job *j, const char *hex, size_t n, struct cht_err *err)
{
    struct tool_target *t = &j->target;
    char *cursor = cht_malloc(n + 1), *keep = cht_malloc(n + 1);
    if (cursor == NULL || keep == NULL) {
        cht_free(cursor);
        cht_free(keep);
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a cursor");
    }
    memcpy(cursor, hex, n);
    cursor[n] = 0;
    memcpy(keep, cursor, n + 1);
    cht_free(t->state.cursor);
    t->state.cursor = cursor;
    enum cht_rc rc = tool_target_commit(t, err);
    if (rc == CHT_OK) {
        cht_free(j->committed);
        j->committed = keep;
        note_committed(j);
    } else {
        cht_free(keep);
    }
    tool_progress_at(&j->progress, t->state.pairs);
    return rc;
}

/* Asks for the values of the items that need it; `asked` says which. */
static enum cht_rc ask_window(struct line_job *j, const struct tool_line_item *item, size_t n, bool *asked,
                              struct cht_err *err)
{
    char text[WINDOW_MAX * 24];
    size_t len = 0;
    for (size_t i = 0; i < n; i++) {
        asked[i] = !is_copied(j, item[i].key);
        if (!asked[i])
            continue;
        set_copied(j, item[i].key); /* also for a second name in this window */
        len +=
            (size_t)snprintf(text + len, sizeof text - len, "READ %" PRIu64 "\n", item[i].key); /* fits: 21 */
    }
    return tool_line_send(&j->line, text, len, err);
}

/* Payloads that READ does not show, when nothing else is in flight. */
static enum cht_rc copy_hidden(struct line_job *j, const struct tool_line_item *item, const bool *hidden,
                               size_t n, struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        const char *p;
        size_t size;
        if (!hidden[i])
            continue;
        if (j->in->decode_base64) /* base64 has no line breaks */
            rc = undecodable(j, &item[i], err);
        if (rc == CHT_OK)
            rc = tool_line_payload(&j->line, item[i].hex, item[i].hex_n, &p, &size, err);
        if (rc == CHT_OK)
            rc = check_key(j, &item[i], err);
        if (rc == CHT_OK)
            rc = tool_target_value(&j->target, item[i].key, p, size, err);
    }
    return rc;
}

/* A batch does not end while a value in front of its end is still to be asked for. */
static enum cht_rc copy_window(struct line_job *j, const struct tool_line_item *item, size_t n,
                               struct cht_err *err)
{
    bool asked[WINDOW_MAX], hidden[WINDOW_MAX] = {false}, any = false;
    uint64_t bytes = 0, values = 0;
    enum cht_rc rc = ask_window(j, item, n, asked, err);
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        const char *p = NULL;
        size_t size = 0;
        if (asked[i])
            rc = tool_line_value(&j->line, &p, &size, &hidden[i], err);
        any = any || hidden[i];
        if (rc == CHT_OK && p != NULL) {
            rc = add_value(j, &item[i], p, size, err);
            bytes += size;
            values++;
        }
        if (rc == CHT_OK)
            rc = add_pair(j, &item[i], err);
        if (rc == CHT_OK && !any && tool_target_full(&j->target))
            rc = commit(j, item[i].hex, item[i].hex_n, err);
    }
    if (rc == CHT_OK && any)
        rc = copy_hidden(j, item, hidden, n, err);
    if (rc == CHT_OK && tool_target_full(&j->target))
        rc = commit(j, item[n - 1].hex, item[n - 1].hex_n, err);
    if (values > 0) { /* the next window by the size of these values */
        uint64_t fit = WINDOW_BYTES / (bytes / values + 1);
        j->window = fit > WINDOW_MAX ? WINDOW_MAX : fit > 0 ? (size_t)fit : 1;
    }
    return rc;
}

static enum cht_rc copy_page(struct line_job *j, struct tool_line_page *page, struct cht_err *err)
{
    struct tool_line_item item[WINDOW_MAX], last = {NULL, 0, 0};
    enum cht_rc rc = CHT_OK;
    bool got = true;
    while (rc == CHT_OK && got) {
        size_t n = 0;
        while (rc == CHT_OK && got && n < j->window) {
            rc = tool_line_next(page, &item[n], &got, err);
            n += rc == CHT_OK && got ? 1 : 0;
        }
        if (rc == CHT_OK && n > 0) {
            last = item[n - 1];
            rc = copy_window(j, item, n, err);
        }
    }
    if (rc == CHT_OK && j->target.ops > 0 && last.hex != NULL)
        rc = commit(j, last.hex, last.hex_n, err);
    return rc;
}

/* From the cursor of the state to the end. */
static enum cht_rc walk(struct line_job *j, struct cht_err *err)
{
    char *cursor = j->committed != NULL ? cht_strdup(j->committed) : NULL;
    enum cht_rc rc = CHT_OK;
    bool more = true;
    if (j->committed != NULL && cursor == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a cursor");
    while (rc == CHT_OK && more) {
        struct tool_line_page page;
        rc = tool_line_scan(&j->line, cursor, &page, err);
        if (rc == CHT_OK)
            rc = copy_page(j, &page, err);
        more = rc == CHT_OK && page.next != NULL;
        cht_free(cursor);
        cursor = more ? cht_strdup(page.next) : NULL;
        if (more && cursor == NULL)
            rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a cursor");
        cht_free(page.text);
    }
    cht_free(cursor);
    return rc;
}

/* The walk again and again, with smaller batches, while the server says that they are too large. */
static enum cht_rc copy(struct line_job *j, struct cht_err *err)
{
    struct tool_target *t = &j->target;
    for (;;) {
        memset(j->copied, 0, t->reserved / 8 + 1);
        j->window = 32;
        enum cht_rc rc = walk(j, err);
        if ((rc != CHT_BATCH_TOO_LARGE && rc != CHT_BODY_TOO_LARGE) || !tool_target_smaller(t))
            return rc;
        t->state.pairs = j->pairs;
        t->state.values = j->values;
        t->state.undecoded = j->undecoded;
        tool_line_close(&j->line); /* answers may be under way */
        rc = tool_line_open(&j->line, &j->how, err);
        if (rc != CHT_OK)
            return rc;
    }
}

static enum cht_rc prepare(struct line_job *j, struct cht_err *err)
{
    struct tool_target *t = &j->target;
    uint64_t last_key = 0;
    enum cht_rc rc = CHT_OK;
    if (!t->resumed)
        rc = survey(j, &last_key, err);
    if (rc == CHT_OK)
        rc = tool_target_begin(t, last_key, err);
    note_committed(j);
    if (rc == CHT_OK && t->state.cursor != NULL && (j->committed = cht_strdup(t->state.cursor)) == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory for a cursor");
    if (rc == CHT_OK && (j->copied = cht_calloc(t->reserved / 8 + 1, 1)) == NULL)
        rc = CHT_FAIL(err, CHT_NO_MEMORY, "no memory to note %" PRIu64 " keys", t->reserved);
    return rc;
}

static bool plain(const char *s)
{
    for (; *s != 0; s++) {
        if (*s <= ' ' || *s >= 127 || *s == '"' || *s == '\\')
            return false;
    }
    return true;
}

enum cht_rc tool_import_line(const struct tool_import *in, struct cht_err *err)
{
    char source[160];
    struct line_job *j = cht_calloc(1, sizeof *j);
    if (j == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for an import");
    if (!plain(in->from_line) || strlen(in->from_line) > 80) {
        cht_free(j);
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--from-line wants HOST:PORT");
    }
    j->in = in;
    j->line.fd = -1;
    const char *there = in->from_database != NULL ? in->from_database : in->database;
    j->how = (struct tool_line_how){.where = in->from_line,
                                    .token_file = in->from_token_file,
                                    .database = there,
                                    .tls = in->from_tls ? &in->tls : NULL};
    (void)snprintf(source, sizeof source, "line protocol of %s%s%s%s", in->from_line,
                   there != NULL ? "/" : "", there != NULL ? there : "",
                   in->decode_base64 ? ", decoded" : ""); /* fits */
    const struct tool_target_config cfg = {.connect = in->place.connect,
                                           .database =
                                               in->database != NULL ? in->database : CHT_DATABASE_DEFAULT,
                                           .source = source,
                                           .merge = in->merge,
                                           .shards = in->shards};
    enum cht_rc rc = tool_line_open(&j->line, &j->how, err);
    if (rc == CHT_OK)
        rc = tool_target_open(&j->target, &cfg, err);
    if (rc == CHT_OK)
        rc = prepare(j, err);
    if (rc == CHT_OK) {
        tool_progress_begin(&j->progress, "import", j->target.state.line, false);
        j->progress.first = j->target.state.pairs;
        rc = copy(j, err);
        tool_progress_end(&j->progress);
    }
    if (rc == CHT_OK)
        rc = tool_import_finish(in, &j->target, in->from_line, err);
    tool_target_close(&j->target);
    tool_line_close(&j->line);
    cht_buf_free(&j->text);
    cht_free(j->copied);
    cht_free(j->committed);
    cht_free(j);
    return rc;
}
