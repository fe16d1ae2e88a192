/* one: see one.h. What was not written to stdout shows in ferror, which main asks once at the end. */
#include "tools/one.h"

#include "tools/json.h"
#include "tools/tools.h"

#include "base/alloc.h"
#include "base/literal.h"
#include "os/io.h"
#include "os/sock.h"
#include "os/terminal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_PIECE (256u << 10)
#define READ_MAX (UINT64_C(1) << 30)
#define CELL_MAX 64 /* characters of a column of a table */

int tool_one_usage(const struct tool_one *o, const char *what) { return tool_usage(o->command, what); }

int tool_one_failed(const struct tool_one *o, const struct cht_err *err)
{
    (void)o;
    return tool_failed(err); /* the message names the server */
}

int tool_one_begin(struct tool_one *o, bool writes)
{
    if (o->database == NULL)
        o->database = CHT_DATABASE_DEFAULT;
    if (!cht_database_name_valid(o->database))
        return tool_one_usage(o, "--database wants a name of " CHT_DATABASE_NAME_RULE);
    o->table = !o->json && cht_os_is_terminal(1);
    return tool_place_open(o->command, &o->place, writes);
}

int tool_one_end(struct tool_one *o, int code) { return tool_place_close(&o->place, code); }

/* ---- names and paths ---------------------------------------------------------------------------------------------- */

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

enum cht_rc tool_one_name(const struct tool_one *o, const char *arg, struct cht_buf *out, struct cht_err *err)
{
    size_t n = strlen(arg);
    enum cht_rc rc = cht_buf_reserve(out, out->len + n + 1, err);
    if (rc != CHT_OK)
        return rc;
    if (!o->hex) {
        memcpy(out->data + out->len, arg, n);
        out->len += n;
        return CHT_OK;
    }
    bool ok = n % 2 == 0;
    for (size_t i = 0; ok && i < n; i += 2) {
        int high = nibble(arg[i]), low = nibble(arg[i + 1]);
        ok = high >= 0 && low >= 0;
        out->data[out->len++] = (uint8_t)((unsigned)high << 4 | (unsigned)low);
    }
    if (!ok)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--hex: '%.60s' is no even number of hexadecimal digits",
                        arg);
    return CHT_OK;
}

static void hexadecimal(struct svc_out *out, const void *p, size_t n)
{
    if (svc_out_room(out, 2 * n))
        out->n += svc_out_hex(out->p + out->n, p, n);
}

void tool_one_path(const struct tool_one *o, struct svc_out *out, const char *before,
                   const struct cht_buf *name)
{
    svc_out_text(out, before);
    if (name != NULL && name->len == 0)
        svc_out_text(out, "*");
    else if (name != NULL) {
        svc_out_text(out, "x");
        hexadecimal(out, name->data, name->len);
    }
    svc_out_text(out, "?db=");
    svc_out_text(out, o->database);
}

void tool_one_parameter(struct svc_out *out, const char *parameter, const struct cht_buf *name)
{
    svc_out_text(out, "&");
    svc_out_text(out, parameter);
    svc_out_text(out, name->len == 0 ? "=*" : "=x"); /* x alone would be the letter */
    hexadecimal(out, name->data, name->len);
}

/* ---- bodies -------------------------------------------------------------------------------------------------------- */

static enum cht_rc more_room(struct cht_buf *out, struct cht_err *err)
{
    if (out->len > READ_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "the input has more than 1 GiB");
    return out->cap - out->len > READ_PIECE ? CHT_OK
                                            : cht_buf_reserve(out, out->len * 2 + 2 * READ_PIECE, err);
}

static enum cht_rc read_stdin(struct cht_buf *out, struct cht_err *err)
{
    for (;;) {
        enum cht_rc rc = more_room(out, err);
        if (rc != CHT_OK)
            return rc;
        ptrdiff_t n = cht_sock_read(0, out->data + out->len, READ_PIECE);
        if (n == 0)
            return CHT_OK;
        if (n < 0)
            return CHT_FAIL(err, CHT_IO, "the standard input cannot be read");
        out->len += (size_t)n;
    }
}

static enum cht_rc read_file(const char *file, struct cht_buf *out, struct cht_err *err)
{
    struct cht_file *f;
    enum cht_rc rc = cht_io_open(cht_io_posix(), file, CHT_OPEN_RDONLY, &f, err);
    if (rc != CHT_OK)
        return rc;
    size_t got = 1;
    uint64_t at = 0;
    while (rc == CHT_OK && got > 0) {
        rc = more_room(out, err);
        if (rc == CHT_OK)
            rc = cht_file_read_some(f, out->data + out->len, READ_PIECE, at, &got, err);
        out->len += rc == CHT_OK ? got : 0;
        at += rc == CHT_OK ? got : 0;
    }
    cht_file_close(f);
    return rc;
}

enum cht_rc tool_one_read(const char *file, struct cht_buf *out, struct cht_err *err)
{
    bool is_stdin = file == NULL || strcmp(file, "-") == 0;
    enum cht_rc rc = is_stdin ? read_stdin(out, err) : read_file(file, out, err);
    if (rc == CHT_OK)
        out->data[out->len] = 0; /* there is room for more than a piece */
    return rc;
}

enum cht_rc tool_one_ask(struct tool_one *o, struct tool_request *r, struct cht_buf *out, struct cht_err *err)
{
    return tool_client_ask(o->place.client, r, out, err);
}

/* ---- answers ------------------------------------------------------------------------------------------------------- */

void tool_one_name_member(const struct tool_one *o, struct svc_out *out, const void *p, size_t n)
{
    if (o->hex) {
        svc_out_text(out, "\"hex\":\"");
        hexadecimal(out, p, n);
        svc_out_text(out, "\"");
    } else if (tool_json_is_text(p, n)) {
        svc_out_text(out, "\"name\":");
        svc_out_string(out, p, n);
    } else {
        svc_out_text(out, "\"pair\":");
        svc_out_b64(out, p, n);
    }
}

void tool_one_value_member(struct svc_out *out, const void *p, size_t n)
{
    bool text = tool_json_is_text(p, n);
    svc_out_text(out, text ? "\"text\":" : "\"value\":");
    if (text)
        svc_out_string(out, p, n);
    else
        svc_out_b64(out, p, n);
}

/* Wide characters, by the first three bytes of their UTF-8: what Unicode calls W or F, in whole blocks. */
static bool is_wide(const uint8_t *p)
{
    unsigned c = (unsigned)p[0] << 16 | (unsigned)p[1] << 8 | p[2];
    static const struct {
        unsigned first, last;
    } blocks[] = {{0xE18480, 0xE1859F},  /* U+1100, Hangul Jamo */
                  {0xE2BA80, 0xEA93BF},  /* U+2E80 to U+A4FF: CJK, kana, Yi */
                  {0xEAB080, 0xED9EAF},  /* U+AC00, Hangul */
                  {0xEFA480, 0xEFABBF},  /* U+F900, CJK */
                  {0xEFB8B0, 0xEFB9AF},  /* U+FE30, forms for the vertical */
                  {0xEFBC80, 0xEFBDA0},  /* U+FF00, full width */
                  {0xF09F8C, 0xF09FAB},  /* U+1F300 to U+1FAFF: pictures */
                  {0xF0A080, 0xF0BFBF}}; /* U+20000: CJK */
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        if (c >= blocks[i].first && c <= blocks[i].last)
            return true;
    }
    return false;
}

size_t tool_one_columns(const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    size_t columns = 0;
    for (size_t i = 0; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80)
            columns += p[i] >= 0xE1 && i + 2 < n && is_wide(p + i) ? 2 : 1;
    }
    return columns;
}

bool tool_one_is_line(const void *p, size_t n)
{
    const uint8_t *c = p;
    for (size_t i = 0; i + 1 < n; i++) {
        if (c[i] == 0xC2 && c[i + 1] < 0xA0) /* U+0080 to U+009F: terminals obey them, too */
            return false;
    }
    return tool_json_is_text(p, n) && memchr(p, '\n', n) == NULL && memchr(p, '\t', n) == NULL;
}

void tool_one_name_cell(const struct tool_one *o, struct svc_out *out, const void *p, size_t n)
{
    if (!o->hex && tool_one_is_line(p, n)) {
        svc_out_bytes(out, p, n);
        return;
    }
    if (!o->hex)
        svc_out_text(out, "x");
    hexadecimal(out, p, n);
}

void tool_one_padded_cell(const struct tool_one *o, struct svc_out *out, const void *p, size_t n,
                          size_t width)
{
    tool_one_name_cell(o, out, p, n);
    for (size_t at = tool_one_columns(out->p, out->n); at < width; at++)
        svc_out_text(out, " ");
}

enum cht_rc tool_one_stream_error(const struct tool_one *o, const struct tool_flat_field *error,
                                  const char *otherwise, struct cht_err *err)
{
    struct tool_flat f;
    const char *p = otherwise, *code = "io_error";
    size_t n = strlen(p), code_n = strlen(code);
    if (tool_flat_parse(&f, error->p, error->n)) {
        (void)tool_flat_string(&f, "detail", &p, &n); /* else what it is */
        (void)tool_flat_string(&f, "code", &code, &code_n);
    }
    return CHT_FAIL(err, CHT_IS(code, code_n, "corrupt_value") ? CHT_CORRUPT : CHT_IO, "%.90s: %.*s (%.*s)",
                    tool_place_name(&o->place), (int)(n < 80 ? n : 80), p, (int)(code_n < 22 ? code_n : 22),
                    code);
}

void tool_one_line(FILE *out, const struct svc_out *line, unsigned columns)
{
    size_t n = line->n;
    bool cut = columns >= 8 && n > columns;
    if (cut) {
        n = columns - 3;
        while (n > 0 && ((uint8_t)line->p[n] & 0xC0) == 0x80) /* not in the middle of a character */
            n--;
    }
    if (n > 0)
        (void)fwrite(line->p, 1, n, out);
    (void)fputs(cut ? "...\n" : "\n", out);
}

/* As JSON, to be freed; NULL: no memory. */
static char *as_json(const json_t *v)
{
    const size_t flags = JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6);
    char *text = json_dumps(v, flags);
    if (text != NULL && !tool_one_is_line(text, strlen(text))) {
        free(text); /* NOLINT: json_dumps uses malloc */
        text = json_dumps(v, flags | JSON_ENSURE_ASCII);
    }
    return text;
}

/* One value for people; long texts are cut. What others have stored is not to command the terminal: a text with control characters is
 * shown as JSON. */
static void cell(char *to, size_t cap, const json_t *v)
{
    char *text = NULL;
    if (json_is_string(v) && tool_one_is_line(json_string_value(v), json_string_length(v)))
        (void)snprintf(to, cap, "%s", json_string_value(v));
    else if (json_is_real(v))
        (void)snprintf(to, cap, "%.6g", json_real_value(v));
    else if (json_is_integer(v))
        (void)snprintf(to, cap, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else {
        text = as_json(v);
        (void)snprintf(to, cap, "%s", text != NULL ? text : "");
        free(text); /* NOLINT: json_dumps uses malloc */
    }
}

void tool_one_object(FILE *out, json_t *o)
{
    const char *name;
    json_t *v;
    char text[512];
    json_object_foreach(o, name, v)
    {
        if (json_is_array(v) && json_is_object(json_array_get(v, 0))) {
            tool_one_table(out, v);
            continue;
        }
        cell(text, sizeof text, v);
        (void)fprintf(out, "%-20s %s\n", name, text);
    }
}

static void table_row(FILE *out, json_t *first, const json_t *row, const int *width)
{
    const char *name;
    json_t *v;
    size_t column = 0;
    char text[CELL_MAX + 1];
    json_object_foreach(first, name, v)
    {
        if (row != NULL)
            cell(text, sizeof text, json_object_get(row, name));
        else
            (void)snprintf(text, sizeof text, "%s", name);
        (void)fprintf(out, "%s%*s", column > 0 ? "  " : "", width[column], text);
        if (++column == TOOL_ONE_COLUMNS)
            break;
    }
    (void)fputc('\n', out);
}

void tool_one_table(FILE *out, json_t *rows)
{
    json_t *first = json_array_get(rows, 0);
    int width[TOOL_ONE_COLUMNS] = {0};
    char text[CELL_MAX + 1];
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const char *name;
        json_t *v;
        size_t column = 0;
        json_object_foreach(first, name, v)
        {
            cell(text, sizeof text, json_object_get(json_array_get(rows, i), name));
            int n = (int)strlen(text), least = (int)strlen(name);
            n = n > least ? n : least;
            width[column] = n > width[column] ? n : width[column];
            if (++column == TOOL_ONE_COLUMNS)
                break;
        }
    }
    if (first != NULL)
        table_row(out, first, NULL, width);
    for (size_t i = 0; i < json_array_size(rows); i++)
        table_row(out, first, json_array_get(rows, i), width);
}
