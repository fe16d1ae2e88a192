/* dump_verify: reads an export from its first to its last line before anything is done with it (see dump.h). */
#include "tools/dump.h"

#include "base/alloc.h"
#include "base/b64.h"
#include "base/crc32c.h"
#include "base/literal.h"

#include <inttypes.h>
#include <string.h>

#define TICK_LINES 1024u
#define HEADER_BEGIN "{\"cheetah\":\"export\"" /* as tool_dump_header writes it */
#define HEADER_MAX 160u                        /* bytes of it */

struct verify {
    struct tool_dump_reader r;
    struct tool_dump_info *info;
    struct cht_buf bytes; /* owned: of the base64 of the line */
    uint64_t last_key;    /* of the values so far */
    bool ended;
};

static enum cht_rc bad(const struct verify *v, const char *what, struct cht_err *err)
{
    return CHT_DAMAGED(err, "%.100s: line %" PRIu64 ": %s", v->r.path, v->r.line, what);
}

static enum cht_rc decode(struct verify *v, const struct tool_dump_line *l, struct cht_err *err)
{
    size_t n;
    enum cht_rc rc = cht_buf_reserve(&v->bytes, cht_b64_decoded_max(l->text_n) + 4, err);
    if (rc != CHT_OK)
        return rc;
    if (!cht_b64_decode(v->bytes.data, l->text, l->text_n, &n))
        return bad(v, "not base64", err);
    v->bytes.len = n;
    return n > 0 ? CHT_OK : bad(v, "an empty name or value", err);
}

static enum cht_rc header(struct verify *v, const struct tool_dump_line *l, struct cht_err *err)
{
    if (l->kind != TOOL_DUMP_HEADER)
        return bad(v, "not the header of an export", err);
    if (l->format < TOOL_DUMP_FORMAT || l->format > TOOL_DUMP_FORMAT_ENDS)
        return CHT_FAIL(err, CHT_VERSION, "%.100s: format %" PRIu64 ", this program knows %u and %u",
                        v->r.path, l->format, TOOL_DUMP_FORMAT, TOOL_DUMP_FORMAT_ENDS);
    v->info->format = (unsigned)l->format;
    if (l->text_n > 64)
        return bad(v, "not the name of a database", err);
    memcpy(v->info->database, l->text, l->text_n);
    v->info->database[l->text_n] = 0;
    if (!cht_database_name_valid(v->info->database))
        return bad(v, "not the name of a database", err);
    v->info->pairs_at = tool_dump_position(&v->r);
    return CHT_OK;
}

static int compare(const uint8_t *a, size_t an, const uint8_t *b, size_t bn)
{
    int c = memcmp(a, b, an < bn ? an : bn);
    return c != 0 ? c : (an > bn) - (an < bn);
}

static enum cht_rc pair(struct verify *v, const struct tool_dump_line *l, struct cht_err *err)
{
    struct tool_dump_info *info = v->info;
    enum cht_rc rc = decode(v, l, err);
    if (rc != CHT_OK)
        return rc;
    if (info->values > 0)
        return bad(v, "a pair after the values", err);
    if (l->expires > 0 && (info->format < TOOL_DUMP_FORMAT_ENDS || l->expires > CHT_EXPIRES_MAX))
        return bad(v,
                   info->format < TOOL_DUMP_FORMAT_ENDS ? "a pair that ends, which format 1 has not"
                                                        : "an end that is too late",
                   err);
    if (v->bytes.len > CHT_NAME_MAX)
        return bad(v, cht_rc_text(CHT_INVALID_PAIR), err);
    if (info->pairs > 0 && compare(info->last_name, info->last_name_n, v->bytes.data, v->bytes.len) >= 0)
        return bad(v, "the names are not in order", err);
    memcpy(info->last_name, v->bytes.data, v->bytes.len);
    info->last_name_n = v->bytes.len;
    info->pairs++;
    info->ending += l->expires > 0;
    return CHT_OK;
}

static enum cht_rc value(struct verify *v, const struct tool_dump_line *l, uint64_t start,
                         struct cht_err *err)
{
    struct tool_dump_info *info = v->info;
    enum cht_rc rc = decode(v, l, err);
    if (rc != CHT_OK)
        return rc;
    if (v->bytes.len > CHT_VALUE_MAX)
        return bad(v, "a value of more than 1 GiB", err);
    if (l->key <= info->last_key)
        return bad(v, "the keys are not in order", err);
    if (info->values == 0) {
        info->values_at = start;
        info->values_line = v->r.line - 1;
    }
    info->last_key = l->key;
    info->values++;
    return CHT_OK;
}

static enum cht_rc entry(struct verify *v, const struct tool_dump_line *l, uint64_t start,
                         struct cht_err *err)
{
    struct tool_dump_info *info = v->info;
    enum cht_rc rc;
    if (l->kind != TOOL_DUMP_PAIR && l->kind != TOOL_DUMP_VALUE)
        return bad(v, "neither a pair nor a value", err);
    if (l->key == 0 || l->key > CHT_KEY_MAX)
        return bad(v, cht_rc_text(CHT_INVALID_KEY), err);
    if (l->kind == TOOL_DUMP_PAIR)
        rc = pair(v, l, err);
    else
        rc = value(v, l, start, err);
    info->highest_key = l->key > info->highest_key ? l->key : info->highest_key;
    info->last = l->kind;
    return rc;
}

static enum cht_rc end(struct verify *v, const struct tool_dump_line *l, struct cht_err *err)
{
    const struct tool_dump_info *info = v->info;
    v->ended = true;
    if (l->pairs != info->pairs || l->values != info->values || l->last_key != info->last_key)
        return bad(v, "lines are missing: the counts are others", err);
    if (l->crc != info->crc)
        return bad(v, "the checksum does not match: a line has been changed", err);
    return CHT_OK;
}

/* One line, which began at `start`. */
static enum cht_rc one(struct verify *v, const char *p, size_t n, uint64_t start, struct cht_err *err)
{
    struct tool_dump_info *info = v->info;
    struct tool_dump_line l;
    enum cht_rc rc;
    if (v->ended)
        return bad(v, "something stands after the end", err);
    tool_dump_parse(&l, p, n);
    if (v->r.line > 1 && l.kind == TOOL_DUMP_END)
        return end(v, &l, err);
    if (v->r.line == 1)
        rc = header(v, &l, err);
    else
        rc = entry(v, &l, start, err);
    info->crc = cht_crc32c(info->crc, p, n + 1); /* with its line break */
    info->end_at = tool_dump_position(&v->r);
    return rc;
}

/* A file that has no whole line: can it be an export that was cut off in its first one? Whoever goes on with it writes over that. */
static bool may_begin(const struct tool_dump_reader *r)
{
    size_t n = r->buf.len - r->at, known = CHT_LEN(HEADER_BEGIN);
    return n < HEADER_MAX && memcmp(r->buf.data + r->at, HEADER_BEGIN, n < known ? n : known) == 0;
}

enum cht_rc tool_dump_verify(const char *path, bool partial, struct tool_dump_info *info,
                             void (*tick)(void *ctx, uint64_t bytes), void *ctx, struct cht_err *err)
{
    struct verify v = {.info = info};
    const char *p = NULL;
    size_t n;
    memset(info, 0, sizeof *info);
    info->last = TOOL_DUMP_HEADER;
    enum cht_rc rc = tool_dump_open(&v.r, path, err);
    while (rc == CHT_OK) {
        uint64_t start = tool_dump_position(&v.r);
        rc = tool_dump_next(&v.r, &p, &n, err);
        if (rc != CHT_OK || p == NULL)
            break;
        rc = one(&v, p, n, start, err);
        if (tick != NULL && v.r.line % TICK_LINES == 0)
            tick(ctx, tool_dump_position(&v.r));
    }
    if (info->values == 0) {
        info->values_at = info->end_at;
        info->values_line = v.r.line - (v.ended ? 1 : 0);
    }
    info->complete = rc == CHT_OK && v.ended;
    info->size = tool_dump_position(&v.r);
    if (rc == CHT_OK && !partial && (!v.ended || v.r.cut)) {
        v.r.line++;
        rc = bad(&v,
                 v.ended ? "something stands after the end"
                         : "the file ends here, without an end line: go on with export --resume",
                 err);
    }
    if (rc == CHT_OK && v.ended && v.r.cut)
        rc = bad(&v, "something stands after the end", err);
    if (rc == CHT_OK && partial && v.r.line == 0 && v.r.cut && !may_begin(&v.r)) {
        v.r.line++;
        rc = bad(&v, "not the header of an export", err);
    }
    if (rc == CHT_OK && v.r.line == 0 && !partial)
        rc = CHT_DAMAGED(err, "%.100s: is empty", path);
    tool_dump_reader_close(&v.r);
    cht_buf_free(&v.bytes);
    return rc;
}
