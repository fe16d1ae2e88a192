/* predict: the prediction tables that today's client of DB-SLM trains while it generates (PREDICT_*): table -> key -> values, each with
 * a score and weights (lm/learned.h). A value is a pair:
 *
 *   name   0x10 "pt:" TABLE 0x00 | u16 length of KEY, big-endian | KEY | VALUE
 *
 * in the log like all else. A table's name has other characters than A-Za-z0-9_- as _, and at most 64; none is "default".
 * A key keeps its newest LINE_PREDICT_VALUES_MAX values and LINE_PREDICT_BYTES_MAX bytes: what is older goes, so that setting one never fails for
 * want of room.
 *
 * Threads: commands that change a table go one after the other, in all sessions of the process.
 */
#pragma once

#include "lm/learned.h"
#include "tcp/session.h"

#define LINE_PREDICT_VALUES_MAX 65536u
#define LINE_PREDICT_BYTES_MAX ((uint64_t)256 << 20)
#define LINE_PREDICT_COMMIT_MAX (2 * LINE_PREDICT_BYTES_MAX) /* bytes of values that a command writes */
#define LINE_PREDICT_NEGATIVES_MAX 10000u

/* What a command works with; zero-initialise. */
struct line_predict {
    struct line_session *s;
    struct cht_str table; /* as it was sent */
    uint8_t *text; /* owned: what was decoded; the line stays as it is, its words are looked up later */
    size_t used;
    struct cht_buf name;  /* owned: the prefix of the key's values, room for a value after it */
    struct lm_matrix ctx; /* owned */
    struct cht_op *ops;   /* owned, like their names and values: what is to be written */
    size_t n, cap;
    size_t made;    /* of the operations: those of new values */
    uint64_t bytes; /* of values that are to be written */
};

/* predict_table.c. All: CHT_NO_MEMORY and what the store says. */
/* Makes the prefix for p->table and this key. CHT_INVALID_PAIR: too long. */
enum cht_rc line_predict_key(struct line_predict *p, struct cht_str key, struct cht_err *err);
enum cht_rc line_predict_count(struct line_predict *p, uint64_t *values, struct cht_err *err);
/* The value; *found false: there is none, and out is a new one. */
enum cht_rc line_predict_load(struct line_predict *p, struct cht_str value, struct lm_learned *out,
                              bool *found, struct cht_err *err);
/* Notes that the value is to be written; `made`: it is new. CHT_INVALID_ARGUMENT: it has a number that is not finite;
 * CHT_VALUE_TOO_LARGE: it, or all that is noted, is too large. */
enum cht_rc line_predict_put(struct line_predict *p, struct cht_str value, const struct lm_learned *l,
                             bool made, struct cht_err *err);
/* Calls fn with each value of the key in byte order. The session's buffer is used. */
typedef enum cht_rc line_predict_fn(void *ctx, struct cht_str value, struct lm_learned *l,
                                    struct cht_err *err);
enum cht_rc line_predict_each(struct line_predict *p, line_predict_fn *fn, void *ctx, struct cht_err *err);
/* Makes room for the new values, then writes what was noted, in one durable commit. */
enum cht_rc line_predict_commit(struct line_predict *p, struct cht_err *err);
void line_predict_free(struct line_predict *p);

/* predict_args.c: the words of the line. */
/* Empty: there is no such word. */
struct cht_str line_predict_text(const struct line_predict *p, const char *name, const char *other);
/* In any case. */
bool line_predict_is(struct cht_str s, const char *word);
/* The bytes that a text means, in p->text, which has room: each word of the line is decoded once. False: bad hexadecimal. */
bool line_predict_decode(struct line_predict *p, struct cht_str text, struct cht_str *out);
/* The bytes of an argument. False: missing or bad. */
bool line_predict_bytes(struct line_predict *p, const char *name, struct cht_str *out);
/* The next of a,b,c; *more false: that was all. False: bad hexadecimal. */
bool line_predict_next(struct line_predict *p, struct cht_str *list, struct cht_str *out, bool *more);
/* A number, or the fallback where the text is none. */
double line_predict_number(const struct line_predict *p, const char *name, double fallback);
/* ctx= to p->ctx, deepened. An error word, or NULL; *given says whether there is one. */
const char *line_predict_ctx(struct line_predict *p, bool *given);
/* weights= to l. An error word, or NULL. */
const char *line_predict_weights(struct line_predict *p, struct lm_learned *l);

/* predict.c: a PREDICT_ command; the session holds its database. */
void line_session_predict(struct line_session *s);
