/* command: one line of the line protocol, read into its parts. Touches nothing but the line.
 *
 *   INSERT[:size] VALUE                       READ KEY      EDIT[:size] KEY VALUE      DELETE KEY
 *   PAIR_SET PAIR KEY                         PAIR_GET PAIR                            PAIR_DEL PAIR
 *   PAIR_ADD PAIR BY                          PAIR_COUNTS_ADD PAIR ORDER TOKEN:DELTA,...
 *   PAIR_SET_HIDDEN PAIR KEY
 *   PAIR_SCAN PREFIX [limit] [after]          PAIR_REDUCE MODE PREFIX [limit] [after]
 *   PAIR_SUMMARY PREFIX [depth] [branch_limit]                                         PAIR_PURGE PREFIX [page]
 *   AUTH TOKEN                                EXIT
 *
 * The others (LINE_WORDS) read their arguments themselves: batch.c, purge.c, many.h, detached.h, model.h, predict.h, databases.c, system.c.
 *
 * Command words in any case; one or more blanks between arguments, exactly one before a VALUE, which is all that follows.
 * PAIR, PREFIX and after: * is empty, x and an even number of hexadecimal digits are those bytes, anything else itself.
 * After PREFIX of a scan words with a = may stand in any place: limit=, cursor=, include_hidden=
 * (hidden.h).
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
    LINE_PAIR_SUMMARY,
    LINE_PAIR_SET_HIDDEN,
    LINE_PAIR_ADD,
    LINE_PAIR_COUNTS_ADD,
    LINE_PAIR_PUT_BATCH,
    LINE_PAIR_PURGE,
    LINE_DEL,
    LINE_NGRAMS,
    LINE_PREDICT,
    LINE_SCORE,
    LINE_PREDICT_SET,
    LINE_PREDICT_QUERY,
    LINE_PREDICT_TRAIN,
    LINE_PREDICT_CTX,
    LINE_PREDICT_INHERIT,
    LINE_PREDICT_BACKEND,
    LINE_PREDICT_BENCH,
    LINE_PREDICT_INHERIT_BATCH,
    LINE_PREDICT_INHERIT_ASYNC,
    LINE_PREDICT_INHERIT_STATUS,
    LINE_PREDICT_INHERIT_FETCH,
    LINE_PAIR_REDUCE_ASYNC,
    LINE_PAIR_REDUCE_STATUS,
    LINE_PAIR_REDUCE_FETCH,
    LINE_BATCH,
    LINE_JOB,
    LINE_FILE_CHECKPOINT,
    LINE_SYSTEM_STATS,
    LINE_LOG_FLUSH,
    LINE_DATABASE,
    LINE_RESET_DB,
    LINE_DB_CREATE,
    LINE_DB_CONFIG,
    LINE_DB_LIST,
    LINE_DURABILITY,
    LINE_AUTH,
    LINE_EXIT,
    LINE_VERBS
};

/* What is true of all commands of a verb. */
#define LINE_CHECKED \
    1u /* the client must have a right in the session's database: read, unless one below says more */
#define LINE_OPENS 2u  /* the session's database is open while it runs */
#define LINE_WRITES 4u /* right `write`; it makes a database that is missing */
#define LINE_ADMIN 8u  /* right `admin` */
#define LINE_WORDS 16u /* its arguments are left to it, in `value`: words (words.h) */
#define LINE_LONG 32u  /* it may take long */
unsigned line_verb_traits(enum line_verb c);

#define LINE_LIMIT_DEFAULT 256
#define LINE_LIMIT_MAX 4096
#define LINE_NUMBER_MAX INT32_MAX
#define LINE_OVERHEAD \
    20480u /* the most bytes of a line beside its value: two names in hexadecimal and more */

struct line_command {
    enum line_verb verb;
    const char *error; /* NULL, or the stable word: static */
    bool http;  /* a request line of HTTP, or its Host: the connection ends, and nothing after it is run */
    bool sizes; /* error value_size_mismatch: expected and got say more */
    uint64_t expected, got;
    uint64_t key;
    struct cht_str name; /* PAIR, PREFIX, database or token; points into the line */
    struct cht_str
        value; /* VALUE; of PAIR_ADD and PAIR_COUNTS_ADD what follows PAIR; of a command of words all that follows the verb */
    struct cht_str after;
    struct cht_str mode;
    uint64_t limit; /* 0: none */
    bool show_hidden;
    int64_t depth, branches; /* of PAIR_SUMMARY: negative, none: all */
};

/* p[0..n): a line without its newline; hexadecimal is decoded in place, so a line is parsed once. */
void line_command_parse(char *p, size_t n, uint32_t max_value_size, struct line_command *out);
const char *line_verb_name(enum line_verb c);
