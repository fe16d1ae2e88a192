/* tables_int: what tables.c (the calls) and tables_store.c (values in the store) share. */
#pragma once

#include "lm/tables.h"

/* Makes the prefix for this key. CHT_INVALID_PAIR: too long. */
enum cht_rc lm_table_key(struct lm_table *t, struct cht_str key, struct cht_err *err);
enum cht_rc lm_table_count(struct lm_table *t, uint64_t *values, struct cht_err *err);
/* The value; *found false: there is none, and out is a new one. */
enum cht_rc lm_table_load(struct lm_table *t, struct cht_str value, struct lm_learned *out, bool *found,
                          struct cht_err *err);
/* Notes that the value is to be written; `made`: it is new. CHT_INVALID_NUMBER, CHT_VALUE_TOO_LARGE. */
enum cht_rc lm_table_put(struct lm_table *t, struct cht_str value, const struct lm_learned *l, bool made,
                         struct cht_err *err);
/* Calls fn with each value of the key in byte order. */
typedef enum cht_rc lm_table_fn(void *ctx, struct cht_str value, struct lm_learned *l, struct cht_err *err);
enum cht_rc lm_table_each(struct lm_table *t, lm_table_fn *fn, void *ctx, struct cht_err *err);
/* Makes room for the new values of the key, then writes what was noted, in one durable commit; nothing is noted afterwards. */
enum cht_rc lm_table_commit(struct lm_table *t, struct cht_err *err);
/* Forgets what was noted. */
void lm_table_drop(struct lm_table *t);
