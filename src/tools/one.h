/* one: what the one-shot commands share: a name from the command line, a body from an argument, a file or stdin, paths, and answers as
 * people (a table on a terminal) or programs (NDJSON) read them.
 *
 * A name is what stands on the command line, byte by byte; with --hex its hexadecimal digits. It is sent in hexadecimal, so nothing in
 * it means anything else. In answers a name or value that is text (tool_json_is_text) is "name" or "text"; other bytes are
 * "pair" or "value", in base64.
 */
#pragma once

#include "service/out.h"
#include "tools/flat.h"
#include "tools/place.h"

#include <jansson.h>
#include <stdio.h>

/* Zero-initialise; the options fill it in. */
struct tool_one {
    struct tool_place place;
    const char *command; /* borrowed: "get" */
    const char *database;
    bool hex, json, help;
    bool table; /* set by tool_one_begin: stdout is a terminal and --json was not given */
};

/* Rows of a table of options. */
/* clang-format off */
#define TOOL_ONE_OPTS(o)                                                                           \
    {"database", 'd', TOOL_OPT_STRING, &(o)->database, 0, "NAME", "which one (default: default)"}, \
    {"json", 0, TOOL_OPT_FLAG, &(o)->json, 0, NULL, "JSON, a line an object"},                     \
    TOOL_PLACE_OPTS(&(o)->place),                                                                  \
    {"help", 'h', TOOL_OPT_FLAG, &(o)->help, 0, NULL, NULL}
#define TOOL_ONE_HEX(o) \
    {"hex", 0, TOOL_OPT_FLAG, &(o)->hex, 0, NULL, "names are hexadecimal digits, here and in the answer"}
/* clang-format on */

#define TOOL_ONE_EXITS                                                                                 \
    "\nExit codes: 0 done; 1 it failed, or is not there; 2 the command line is wrong; 3 the value is " \
    "damaged.\n"

/* Checks the database's name and opens the place; the exit code. writes: see tool_place_open. */
int tool_one_begin(struct tool_one *o, bool writes);
int tool_one_end(struct tool_one *o, int code);
/* "cheetah-db get: what" for a wrong command line, and TOOL_EXIT_USAGE. */
int tool_one_usage(const struct tool_one *o, const char *what);
/* "cheetah-db get: http://...: what", and TOOL_EXIT_FAILED or what fits err. */
int tool_one_failed(const struct tool_one *o, const struct cht_err *err);

/* The bytes that an argument names, appended to out. CHT_INVALID_ARGUMENT: no hexadecimal. CHT_NO_MEMORY. */
enum cht_rc tool_one_name(const struct tool_one *o, const char *arg, struct cht_buf *out,
                          struct cht_err *err);
/* Appends `before`, x and the name in hexadecimal (* for the empty one), and "?db=...". */
void tool_one_path(const struct tool_one *o, struct svc_out *out, const char *before,
                   const struct cht_buf *name);
/* Appends &after=x..., or &after=* for the empty name. */
void tool_one_parameter(struct svc_out *out, const char *parameter, const struct cht_buf *name);
/* The whole of a file, or of stdin (file NULL or "-"), at most 1 GiB, with a zero after it. CHT_NO_FILE, CHT_IO, CHT_INVALID_ARGUMENT (too large). */
enum cht_rc tool_one_read(const char *file, struct cht_buf *out, struct cht_err *err);

/* One request whose answer is small (r->answer_max), into out, with a zero after it. */
enum cht_rc tool_one_ask(struct tool_one *o, struct tool_request *r, struct cht_buf *out,
                         struct cht_err *err);

/* Appends "name":"...", or "pair":"base64", or, with --hex, "hex":"...". value: "text" or "value". */
void tool_one_name_member(const struct tool_one *o, struct svc_out *out, const void *p, size_t n);
void tool_one_value_member(struct svc_out *out, const void *p, size_t n);
/* The columns that text takes on a terminal: two for what is written so in East Asia, one for any other character. */
size_t tool_one_columns(const void *p, size_t n);
/* Text in one line, without control characters? */
bool tool_one_is_line(const void *p, size_t n);
/* Appends a name for a table: as it is if it is text in one line, else x and hexadecimal; with --hex its digits. */
void tool_one_name_cell(const struct tool_one *o, struct svc_out *out, const void *p, size_t n);
/* Appends such a name, and blanks up to that many columns. */
void tool_one_padded_cell(const struct tool_one *o, struct svc_out *out, const void *p, size_t n,
                          size_t width);
/* The problem that a stream's last line {"error":{...}} tells; `otherwise` if it cannot be read. */
enum cht_rc tool_one_stream_error(const struct tool_one *o, const struct tool_flat_field *error,
                                  const char *otherwise, struct cht_err *err);
/* A line of at most `columns` characters, "..." at the end of one that is cut; 0: whole. */
void tool_one_line(FILE *out, const struct svc_out *line, unsigned columns);
/* An object for people: a line for each member, "name value"; what is no plain value, as JSON. */
void tool_one_object(FILE *out, json_t *o);
#define TOOL_ONE_COLUMNS 12u
/* An array of objects as a table whose columns are the first TOOL_ONE_COLUMNS members of the first object. */
void tool_one_table(FILE *out, json_t *rows);
