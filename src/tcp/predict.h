/* predict: the PREDICT_ commands of today's client of DB-SLM: prediction tables (lm/tables.h), asked by words of a line. */
#pragma once

#include "lm/tables.h"
#include "tcp/session.h"

/* What a command works with; zero-initialise. */
struct line_predict {
    struct line_session *s;
    struct cht_str table; /* as it was sent */
    uint8_t *text; /* owned: what was decoded; the line stays as it is, its words are looked up later */
    size_t used;
    struct lm_matrix ctx; /* owned */
    struct cht_str *list; /* owned: a list of byte strings */
    struct lm_table t;    /* owned */
    struct svc_memory_use memory;
};

/* predict_args.c: the words of the line. */
/* Empty: there is no such word. */
struct cht_str line_predict_text(const struct line_predict *p, const char *name, const char *other);
/* In any case. */
bool line_predict_is(struct cht_str s, const char *word);
/* The bytes of an argument. False: missing or bad. */
bool line_predict_bytes(struct line_predict *p, const char *name, struct cht_str *out);
/* a,b,c to p->list, *n of them. CHT_INVALID_HEX, CHT_NO_MEMORY. */
enum cht_rc line_predict_list(struct line_predict *p, struct cht_str text, size_t *n);
/* A number, or the fallback where the text is none. */
double line_predict_number(const struct line_predict *p, const char *name, double fallback);
/* ctx= to p->ctx, deepened. An error word, or NULL; *given says whether there is one. */
const char *line_predict_ctx(struct line_predict *p, bool *given);
/* weights= to l. An error word, or NULL. */
const char *line_predict_weights(struct line_predict *p, struct lm_learned *l);

/* predict.c: a PREDICT_ command; the session holds its database. */
void line_session_predict(struct line_session *s);
