/* reducing: what the tests of the reducers share: a directory with one environment, one database in it, and pairs for that. */
#pragma once

#include "reduce/cache.h"
#include "reduce/payload.h"

/* What reducing_setup opened; a test may close and open again. */
extern struct reducing {
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err;
} red;

/* Runs the tests in a directory of their own; the exit code of main. */
#define REDUCING_MAIN(tests) \
    (reducing_begin() != 0 ? 1 : reducing_end(cmocka_run_group_tests(tests, NULL, NULL)))
#define REDUCING_TEST(f) cmocka_unit_test_setup_teardown(f, reducing_setup, reducing_teardown)
int reducing_begin(void);
int reducing_end(int failed);

int reducing_setup(void **state); /* nothing but an empty database "default" of four shards */
int reducing_teardown(void **state);
void reducing_open(void); /* the environment, after it was closed */
/* Makes a database and puts it into red.s. */
void reducing_database(const char *name, unsigned shards);

struct cht_str str(const char *text);
enum cht_rc run_op(struct cht_op *op);
/* Many at once, but one by one if there are many shards: a commit holds the locks of all it touched, and the thread sanitizer
 * knows no more than 64 locks a thread. */
void run_ops(struct cht_op *ops, size_t n, unsigned shards);
uint64_t put(const char *name, const void *p, size_t n);
const struct reduce_mode *mode(const char *name);
/* n pairs prefix0000000, ... of counts with this many followers, each with the count 1; no token is in two of them. */
void fill_counts(const char *prefix, unsigned n, unsigned followers);
