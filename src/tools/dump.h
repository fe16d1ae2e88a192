/* dump: the file that export writes and import reads. Lines of JSON (NDJSON, UTF-8, ended by one '\n'), format 1:
 *
 *   {"cheetah":"export","format":1,"database":"default"}
 *   {"pair":"Y3R4OmE=","key":4}          every pair, in byte order of the names (the bytes, not their base64)
 *   {"key":4,"value":"aGVsbG8="}         every value, in ascending order of the keys
 *   {"end":{"pairs":1,"values":1,"last_key":4,"crc32c":"9f3c21d0"}}
 *
 * Format 2 is the same, of a database in which pairs end: "expires" says when one does, in seconds since 1970, rounded up. A
 * database without such pairs is written in format 1, which programs that know no ends read.
 *
 *   {"pair":"Y3R4OmE=","key":4,"expires":1795883896}
 *
 * Nothing in it depends on the time, the machine or the program's version, so two exports of the same data are the same bytes.
 * Keys are those of the database. last_key is the highest key with a value. The checksum is over every byte in front of the end
 * line. A file without its end line is an export that did not finish.
 */
#pragma once

#include "cheetah/store.h"
#include "os/io.h"

#define TOOL_DUMP_FORMAT 1u      /* no pair ends */
#define TOOL_DUMP_FORMAT_ENDS 2u /* some do */

/* ---- writing ------------------------------------------------------------------------------------------------------- */

struct tool_dump_writer {
    struct cht_file *file; /* owned; NULL: stdout */
    bool nowhere;          /* only the checksum is wanted */
    struct cht_buf buf;    /* owned: what is not written yet */
    uint64_t offset;       /* of buf in the file */
    uint64_t pairs, values, last_key;
    unsigned format;
    uint32_t crc;
    enum cht_rc rc; /* the first failure; later calls do nothing */
    struct cht_err err;
};

/* path NULL: stdout. at: the length of what the file has and keeps; the rest is cut off. most: what it may have; if somebody has
 * written more to it meanwhile it stays as it is, CHT_INVALID_ARGUMENT. It is locked: CHT_LOCKED. */
enum cht_rc tool_dump_create(struct tool_dump_writer *w, const char *path, uint64_t at, uint64_t most,
                             struct cht_err *err);
void tool_dump_header(struct tool_dump_writer *w, const char *database, unsigned format);
/* Names and values as base64 text, or as bytes. expires: in seconds since 1970, 0: never; an end in a file of format 1 is a failure,
 * CHT_DATABASE_BUSY: it was not to be expected when the header was written. */
void tool_dump_pair_text(struct tool_dump_writer *w, const char *b64, size_t n, uint64_t key,
                         uint64_t expires);
void tool_dump_value_text(struct tool_dump_writer *w, uint64_t key, const char *b64, size_t n);
void tool_dump_pair(struct tool_dump_writer *w, struct cht_str name, uint64_t key, uint64_t expires);
void tool_dump_value(struct tool_dump_writer *w, uint64_t key, const uint8_t *p, size_t n);
/* Writes the end line and syncs the file. */
enum cht_rc tool_dump_finish(struct tool_dump_writer *w, struct cht_err *err);
/* Writes what is buffered (no end line) and closes; also after a failure. */
void tool_dump_close(struct tool_dump_writer *w);

/* ---- reading ------------------------------------------------------------------------------------------------------- */

enum tool_dump_kind { TOOL_DUMP_HEADER, TOOL_DUMP_PAIR, TOOL_DUMP_VALUE, TOOL_DUMP_END, TOOL_DUMP_BAD };

struct tool_dump_line {
    enum tool_dump_kind kind;
    const char *text; /* base64 of name or value; the database of a header. Borrowed until the next line */
    size_t text_n;
    uint64_t key;
    uint64_t expires;                 /* pair; 0: never */
    uint64_t format;                  /* header */
    uint64_t pairs, values, last_key; /* end */
    uint32_t crc;                     /* end */
};

struct tool_dump_reader {
    struct cht_file *file; /* owned */
    const char *path;      /* borrowed */
    struct cht_buf buf;    /* owned */
    size_t at;             /* of the next line in buf */
    uint64_t offset;       /* of buf in the file */
    uint64_t line;         /* number of the line that was read last; 1 is the header */
    bool cut;              /* the file ends within a line */
};

enum cht_rc tool_dump_open(struct tool_dump_reader *r, const char *path, struct cht_err *err);
void tool_dump_reader_close(struct tool_dump_reader *r);
/* Goes on at the start of a line. */
void tool_dump_seek(struct tool_dump_reader *r, uint64_t offset, uint64_t lines_before);
/* The next whole line, without its line break. *p NULL: there is none (`cut` says whether a part of one is left). */
enum cht_rc tool_dump_next(struct tool_dump_reader *r, const char **p, size_t *n, struct cht_err *err);
static inline uint64_t tool_dump_position(const struct tool_dump_reader *r) { return r->offset + r->at; }
/* What a line says; TOOL_DUMP_BAD if it is none of the format's. */
void tool_dump_parse(struct tool_dump_line *l, const char *p, size_t n);

struct tool_dump_info {
    char database[CHT_DATABASE_NAME_MAX + 1];
    unsigned format;
    uint64_t pairs, values;
    uint64_t ending;                 /* of the pairs */
    uint64_t last_key;               /* the highest with a value */
    uint64_t highest_key;            /* of values and pairs */
    uint64_t values_at, values_line; /* where the values begin, and how many lines stand in front */
    uint64_t pairs_at, end_at;       /* likewise the pairs (line 2) and the end line */
    uint64_t size;                   /* of what was read, the end line included */
    uint32_t crc;                    /* over all in front of end_at */
    bool complete;                   /* there is an end line, and it is right */
    enum tool_dump_kind last;        /* of the lines in front of end_at */
    uint8_t last_name[CHT_NAME_MAX]; /* if it is a pair */
    size_t last_name_n;
};
/* Reads the whole file and compares everything that can be compared: the form of each line, base64, limits, order, counts,
 * checksum. CHT_CORRUPT names file and line. `partial`: a file without its end line is taken, up to its last whole line
 * (end_at); otherwise that is CHT_CORRUPT, too. tick is called now and then with the bytes read; may be NULL. */
enum cht_rc tool_dump_verify(const char *path, bool partial, struct tool_dump_info *info,
                             void (*tick)(void *ctx, uint64_t bytes), void *ctx, struct cht_err *err);
