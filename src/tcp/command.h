/* command: one line of the line protocol, read into its parts. Touches nothing but the line.
 *
 *   INSERT[:size] VALUE                       READ KEY      EDIT[:size] KEY VALUE      DELETE KEY
 *   PAIR_SET PAIR KEY                         PAIR_GET PAIR                            PAIR_DEL PAIR
 *   PAIR_SCAN PREFIX [limit] [after]          PAIR_REDUCE MODE PREFIX [limit] [after]
 *   PAIR_PUT_BATCH items=JSON [keys=FLAG] [continue_on_error=FLAG] [hidden=FLAG]       PAIR_PURGE PREFIX [page]
 *   PREDICT_SET, _QUERY, _TRAIN, _CTX, _INHERIT, _BACKEND: see predict.h
 *   DATABASE NAME                             AUTH TOKEN                               EXIT
 *   RESET_DB [NAME]
 *
 * Command words in any case; one or more blanks between arguments, exactly one before a VALUE, which is all that follows.
 * PAIR, PREFIX and after: * is empty, x and an even number of hexadecimal digits are those bytes, anything else itself.
 * After PREFIX of a scan words with a = may stand in any place: limit=, cursor=, include_hidden= (there are no hidden pairs, so it
 * means nothing).
 *
 * A line may end in "\r\n": one \r before the newline is not part of the line. If a size is given, it decides: a value that
 * ends in \r is safe with its size.
 *
 * Threads: any; no state.
 */
#pragma once

#include "cheetah/store.h"

enum line_verb {
    LINE_NONE, /* not one of ours */
    LINE_INSERT,
    LINE_READ,
    LINE_EDIT,
    LINE_DELETE,
    LINE_PAIR_SET,
    LINE_PAIR_GET,
    LINE_PAIR_DEL,
    LINE_PAIR_SCAN,
    LINE_PAIR_REDUCE,
    LINE_PAIR_PUT_BATCH, /* from here to LINE_DATABASE: words (words.h), done by a job */
    LINE_PAIR_PURGE,
    LINE_PREDICT_SET,
    LINE_PREDICT_QUERY,
    LINE_PREDICT_TRAIN,
    LINE_PREDICT_CTX,
    LINE_PREDICT_INHERIT,
    LINE_PREDICT_BACKEND,
    LINE_DATABASE, /* from here on: not of a database that is open */
    LINE_RESET_DB,
    LINE_AUTH,
    LINE_EXIT,
    LINE_VERBS
};

#define LINE_LIMIT_DEFAULT 256
#define LINE_LIMIT_MAX 4096
#define LINE_OVERHEAD \
    20480u /* the most bytes of a line beside its value: two names in hexadecimal and more */

struct line_command {
    enum line_verb verb;
    const char *error; /* NULL, or the stable word: static */
    bool http;  /* a request line of HTTP, or its Host: the connection ends, and nothing after it is run */
    bool sizes; /* error value_size_mismatch: expected and got say more */
    uint64_t expected, got;
    uint64_t key;
    struct cht_str name;  /* PAIR, PREFIX, database or token; points into the line */
    struct cht_str value; /* VALUE; of a command of words all that follows the verb */
    struct cht_str after;
    struct cht_str mode;
    uint64_t limit; /* 0: none */
};

/* p[0..n): a line without its newline; hexadecimal is decoded in place, so a line is parsed once. */
void line_command_parse(char *p, size_t n, uint32_t max_value_size, struct line_command *out);
const char *line_verb_name(enum line_verb c);
