/* kept: what the tests of the store's calls share: an environment of two real directories, and the database "default" in it. */
#pragma once

#include "cheetah/store.h"

extern char kept_base[], kept_a[64], kept_b[64]; /* the folder of both, and the two */

/* What kept_setup opened; a test may close and open again. */
extern struct kept {
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err;
} kept;

/* How durable commits are: CHT_DURABLE_OS, unless main says otherwise. */
extern enum cht_durability kept_durability;

#define KEPT_TEST(f) cmocka_unit_test_setup_teardown(f, kept_setup, kept_teardown)
/* Runs the tests in directories of their own; the exit code of main. */
#define KEPT_MAIN(tests) (kept_begin() != 0 ? 1 : kept_end(cmocka_run_group_tests(tests, NULL, NULL)))
int kept_begin(void);
int kept_end(int failed);

struct cht_env_config kept_config(void);
struct cht_str kept_str(const char *p);
int kept_setup(void **state);
int kept_teardown(void **state);
/* Opens what lies in the directories: after a close, or after cht_env_abandon. */
void kept_open(void);
void kept_reopen(void);
/* Runs operations as one commit; returns its code, each operation has its own. */
enum cht_rc kept_commit(struct cht_op *ops, size_t n, unsigned flags);
/* Runs one operation; returns its code. */
enum cht_rc kept_run(struct cht_op *op, unsigned flags);
uint64_t kept_insert(const char *v);
enum cht_rc kept_put(const char *name, const char *v, uint64_t *key);
void kept_has_value(uint64_t key, const void *want, size_t n);
