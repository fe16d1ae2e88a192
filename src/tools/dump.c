/* dump: see dump.h. */
#include "tools/dump.h"

#include "base/alloc.h"
#include "base/b64.h"
#include "base/crc32c.h"
#include "base/literal.h"
#include "tools/flat.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define PIECE (1u << 20)
#define LINE_MAX ((size_t)1536 << 20) /* a value of 1 GiB in base64, and what is around it */

/* ---- writing ------------------------------------------------------------------------------------------------------- */

static enum cht_rc open_file(struct tool_dump_writer *w, const char *path, uint64_t at, uint64_t most,
                             struct cht_err *err)
{
    uint64_t size;
    enum cht_rc rc = cht_io_open(cht_io_posix(), path, CHT_OPEN_CREATE | CHT_OPEN_LOCK, &w->file, err);
    if (rc == CHT_LOCKED)
        return CHT_FAIL(err, CHT_LOCKED, "%.150s: another process is writing to it", path);
    if (rc == CHT_OK)
        rc = w->file->io->ops->size(w->file, &size, err);
    if (rc == CHT_OK && (size < at || size > most))
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%.150s: another process has just written to it", path);
    return rc == CHT_OK ? w->file->io->ops->truncate(w->file, at, err) : rc;
}

enum cht_rc tool_dump_create(struct tool_dump_writer *w, const char *path, uint64_t at, uint64_t most,
                             struct cht_err *err)
{
    enum cht_rc rc = CHT_OK;
    *w = (struct tool_dump_writer){.offset = at};
    if (path != NULL)
        rc = open_file(w, path, at, most, err);
    if (rc == CHT_OK)
        rc = cht_buf_reserve(&w->buf, PIECE + 8192, err);
    if (rc != CHT_OK)
        tool_dump_close(w);
    return rc;
}

static void flush(struct tool_dump_writer *w)
{
    if (w->rc == CHT_OK && w->buf.len > 0) {
        w->crc = cht_crc32c(w->crc, w->buf.data, w->buf.len);
        if (w->nowhere)
            w->rc = CHT_OK;
        else if (w->file != NULL)
            w->rc = cht_file_write(w->file, w->buf.data, w->buf.len, w->offset, &w->err);
        else if (fwrite(w->buf.data, 1, w->buf.len, stdout) != w->buf.len)
            w->rc = CHT_FAIL(&w->err, CHT_IO, "the output could not be written");
        w->offset += w->buf.len;
    }
    w->buf.len = 0;
}

/* Room for n more bytes, which the caller then fills; NULL after a failure. */
static char *room(struct tool_dump_writer *w, size_t n)
{
    if (w->buf.len >= PIECE)
        flush(w);
    if (w->rc == CHT_OK)
        w->rc = cht_buf_reserve(&w->buf, w->buf.len + n, &w->err);
    return w->rc == CHT_OK ? (char *)w->buf.data + w->buf.len : NULL;
}

static void add(struct tool_dump_writer *w, const char *p, size_t n)
{
    char *to = room(w, n);
    if (to == NULL)
        return;
    memcpy(to, p, n);
    w->buf.len += n;
}

static void add_base64(struct tool_dump_writer *w, const uint8_t *p, size_t n)
{
    char *to = room(w, cht_b64_encoded(n));
    if (to != NULL)
        w->buf.len += cht_b64_encode(to, p, n);
}

#define TEXT(w, s) add((w), (s), sizeof(s) - 1)

static void pair_end(struct tool_dump_writer *w, uint64_t key, uint64_t expires)
{
    char s[80];
    int n;
    if (expires > 0 && w->format < TOOL_DUMP_FORMAT_ENDS && w->rc == CHT_OK)
        w->rc = CHT_FAIL(
            &w->err, CHT_DATABASE_BUSY,
            "the first pair that ends came meanwhile, which this file cannot say: once more, with --force");
    if (expires > 0)
        n = snprintf(s, sizeof s, "\",\"key\":%" PRIu64 ",\"expires\":%" PRIu64 "}\n", key, expires);
    else
        n = snprintf(s, sizeof s, "\",\"key\":%" PRIu64 "}\n", key);
    add(w, s, (size_t)n); /* fits: at most 62 */
    w->pairs++;
}

static void value_begin(struct tool_dump_writer *w, uint64_t key)
{
    char s[48];
    int n = snprintf(s, sizeof s, "{\"key\":%" PRIu64 ",\"value\":\"", key);
    add(w, s, (size_t)n); /* fits: at most 38 */
    w->values++;
    w->last_key = key;
}

void tool_dump_header(struct tool_dump_writer *w, const char *database, unsigned format)
{
    char s[160];
    int n = snprintf(s, sizeof s, "{\"cheetah\":\"export\",\"format\":%u,\"database\":\"%.64s\"}\n", format,
                     database);
    w->format = format;
    add(w, s, (size_t)n); /* fits: a name of a database has at most 64 characters */
}

void tool_dump_pair_text(struct tool_dump_writer *w, const char *b64, size_t n, uint64_t key,
                         uint64_t expires)
{
    TEXT(w, "{\"pair\":\"");
    add(w, b64, n);
    pair_end(w, key, expires);
}

void tool_dump_value_text(struct tool_dump_writer *w, uint64_t key, const char *b64, size_t n)
{
    value_begin(w, key);
    add(w, b64, n);
    TEXT(w, "\"}\n");
}

void tool_dump_pair(struct tool_dump_writer *w, struct cht_str name, uint64_t key, uint64_t expires)
{
    TEXT(w, "{\"pair\":\"");
    add_base64(w, name.p, name.n);
    pair_end(w, key, expires);
}

void tool_dump_value(struct tool_dump_writer *w, uint64_t key, const uint8_t *p, size_t n)
{
    value_begin(w, key);
    add_base64(w, p, n);
    TEXT(w, "\"}\n");
}

enum cht_rc tool_dump_finish(struct tool_dump_writer *w, struct cht_err *err)
{
    char s[160];
    flush(w);
    int n = snprintf(s, sizeof s,
                     "{\"end\":{\"pairs\":%" PRIu64 ",\"values\":%" PRIu64 ",\"last_key\":%" PRIu64
                     ",\"crc32c\":\"%08" PRIx32 "\"}}\n",
                     w->pairs, w->values, w->last_key, w->crc);
    add(w, s, (size_t)n); /* fits: three numbers of 20 digits */
    uint32_t crc = w->crc;
    flush(w);
    w->crc = crc; /* the end line is not part of it */
    if (w->rc == CHT_OK && w->file != NULL)
        w->rc = cht_file_sync(w->file, &w->err);
    else if (w->rc == CHT_OK && fflush(stdout) != 0)
        w->rc = CHT_FAIL(&w->err, CHT_IO, "the output could not be written");
    if (w->rc != CHT_OK && err != NULL)
        *err = w->err;
    return w->rc;
}

void tool_dump_close(struct tool_dump_writer *w)
{
    flush(w);
    cht_file_close(w->file);
    cht_buf_free(&w->buf);
    w->file = NULL;
}

/* ---- reading ------------------------------------------------------------------------------------------------------- */

enum cht_rc tool_dump_open(struct tool_dump_reader *r, const char *path, struct cht_err *err)
{
    *r = (struct tool_dump_reader){.path = path};
    return cht_io_open(cht_io_posix(), path, CHT_OPEN_RDONLY, &r->file, err);
}

void tool_dump_reader_close(struct tool_dump_reader *r)
{
    cht_file_close(r->file);
    cht_buf_free(&r->buf);
    r->file = NULL;
}

void tool_dump_seek(struct tool_dump_reader *r, uint64_t offset, uint64_t lines_before)
{
    r->offset = offset;
    r->buf.len = r->at = 0;
    r->line = lines_before;
    r->cut = false;
}

/* Reads more after what is there; *got 0 at the end of the file. */
static enum cht_rc fill(struct tool_dump_reader *r, size_t *got, struct cht_err *err)
{
    if (r->at > 0) {
        memmove(r->buf.data, r->buf.data + r->at, r->buf.len - r->at);
        r->offset += r->at;
        r->buf.len -= r->at;
        r->at = 0;
    }
    size_t want = r->buf.len > PIECE ? r->buf.len : PIECE; /* doubles for a long line */
    enum cht_rc rc = cht_buf_reserve(&r->buf, r->buf.len + want, err);
    if (rc == CHT_OK)
        rc = cht_file_read_some(r->file, r->buf.data + r->buf.len, want, r->offset + r->buf.len, got, err);
    if (rc == CHT_OK)
        r->buf.len += *got;
    return rc;
}

enum cht_rc tool_dump_next(struct tool_dump_reader *r, const char **p, size_t *n, struct cht_err *err)
{
    size_t seen = 0;
    *p = NULL;
    for (;;) {
        size_t have = r->buf.len - r->at, got = 0; /* at first there is no memory */
        const char *start = have > 0 ? (const char *)r->buf.data + r->at : NULL;
        const char *end = have > seen ? memchr(start + seen, '\n', have - seen) : NULL;
        if (end != NULL) {
            *p = start;
            *n = (size_t)(end - start);
            r->at += *n + 1;
            r->line++;
            return CHT_OK;
        }
        if (have > LINE_MAX)
            return CHT_DAMAGED(err, "%.120s: line %" PRIu64 ": too long", r->path, r->line + 1);
        seen = have;
        enum cht_rc rc = fill(r, &got, err);
        if (rc != CHT_OK)
            return rc;
        if (got == 0) {
            r->cut = seen > 0;
            return CHT_OK;
        }
    }
}

static bool parse_end(struct tool_dump_line *l, const struct tool_flat_field *field)
{
    struct tool_flat f;
    const char *p;
    size_t n;
    if (field->kind != TOOL_FLAT_NESTED || !tool_flat_parse(&f, field->p, field->n) || f.n != 4 ||
        !tool_flat_number(&f, "pairs", &l->pairs) || !tool_flat_number(&f, "values", &l->values) ||
        !tool_flat_number(&f, "last_key", &l->last_key) || !tool_flat_string(&f, "crc32c", &p, &n) || n != 8)
        return false;
    for (size_t i = 0; i < 8; i++) {
        const char *digits = "0123456789abcdef", *d = strchr(digits, p[i]);
        if (d == NULL || p[i] == 0)
            return false;
        l->crc = l->crc << 4 | (uint32_t)(d - digits);
    }
    return true;
}

void tool_dump_parse(struct tool_dump_line *l, const char *p, size_t n)
{
    struct tool_flat f;
    const char *what;
    size_t what_n;
    *l = (struct tool_dump_line){.kind = TOOL_DUMP_BAD};
    if (!tool_flat_parse(&f, p, n))
        return;
    if (f.n == 2 && tool_flat_string(&f, "pair", &l->text, &l->text_n) &&
        tool_flat_number(&f, "key", &l->key))
        l->kind = TOOL_DUMP_PAIR;
    else if (f.n == 3 && tool_flat_string(&f, "pair", &l->text, &l->text_n) &&
             tool_flat_number(&f, "key", &l->key) && tool_flat_number(&f, "expires", &l->expires) &&
             l->expires > 0)
        l->kind = TOOL_DUMP_PAIR;
    else if (f.n == 2 && tool_flat_string(&f, "value", &l->text, &l->text_n) &&
             tool_flat_number(&f, "key", &l->key))
        l->kind = TOOL_DUMP_VALUE;
    else if (f.n == 1 && tool_flat_get(&f, "end") != NULL && parse_end(l, tool_flat_get(&f, "end")))
        l->kind = TOOL_DUMP_END;
    else if (tool_flat_string(&f, "cheetah", &what, &what_n) && CHT_IS(what, what_n, "export") &&
             tool_flat_number(&f, "format", &l->format) &&
             tool_flat_string(&f, "database", &l->text, &l->text_n))
        l->kind = TOOL_DUMP_HEADER;
}
