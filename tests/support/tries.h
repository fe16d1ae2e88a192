/* tries: what the tests of the trie share: a file of pairs in a folder of its own, a sorted array as its model, names of many kinds, and
 * operations that are done to both and compared.
 */
#pragma once

#include "base/rng.h"
#include "store/pagefile_int.h"
#include "store/trie.h"
#include "store/trie_format.h"

#define TRIES_NAME_MAX 4096u

struct tries {
    char dir[64];
    struct cht_pagefile *sums, *pf;
    struct cht_rng rng;
};

struct tries_pair {
    uint8_t *name;
    size_t len;
    uint64_t key;
};

struct tries_model {
    struct tries_pair *v;
    size_t n, cap;
};

struct tries_seen {
    const struct tries_model *m;
    size_t i;
    int bad;
};

typedef size_t tries_family(struct tries *f, uint8_t *out);

/* The n-th extension of a file from now on fails, and all after it; 0: none. And how many have. */
extern uint64_t tries_extend_fail_at, tries_extend_failures;

uint64_t tries_seed(uint64_t fixed);
void tries_open(struct tries *f, uint64_t seed);
void tries_close(struct tries *f);
int tries_compare(const uint8_t *a, size_t na, const uint8_t *b, size_t nb);
size_t tries_find(const struct tries_model *m, const uint8_t *name, size_t len, bool *found);
uint64_t tries_set(struct tries_model *m, const uint8_t *name, size_t len, uint64_t key);
uint64_t tries_del(struct tries_model *m, const uint8_t *name, size_t len);
void tries_range(const struct tries_model *m, const uint8_t *s, size_t n, size_t *from, size_t *to);
void tries_free(struct tries_model *m);
void tries_on_bad(void *ctx, uint64_t off, const char *what);
void tries_on_pair(void *ctx, const uint8_t *name, size_t len, uint64_t key);
void tries_check_all(struct tries *f, const struct tries_model *m);
void tries_check_get(struct tries *f, const struct tries_model *m, const uint8_t *name, size_t len);
void tries_check_count(struct tries *f, const struct tries_model *m, const uint8_t *s, size_t n);
/* At most `limit` entries, by next, by batches of odd sizes, or by keys of which the last one has a name. */
void tries_check_scan(struct tries *f, const struct tries_model *m, const uint8_t *prefix, size_t np,
                      const uint8_t *after, size_t na, bool reverse, size_t limit);
size_t tries_fam_tiny(struct tries *f, uint8_t *out);
size_t tries_fam_twelve(struct tries *f, uint8_t *out);
size_t tries_fam_runs(struct tries *f, uint8_t *out);  /* runs of one byte, prefixes of each other */
size_t tries_fam_long(struct tries *f, uint8_t *out);  /* long names that part at few places */
size_t tries_fam_words(struct tries *f, uint8_t *out); /* contexts: words joined by spaces */
size_t tries_fam_number(struct tries *f, uint8_t *out);
size_t tries_fam_medium(struct tries *f,
                        uint8_t *out); /* few to a leaf, so that it splits and bursts all the time */
size_t tries_fam_any(struct tries *f, uint8_t *out);
/* A neighbour of a name: shortened, lengthened, or one byte changed. */
size_t tries_vary(struct tries *f, uint8_t *name, size_t n);
/* A name that is there, near one that is, or any. */
size_t tries_pick(struct tries *f, const struct tries_model *m, tries_family *fam, uint8_t *out);
enum cht_rc tries_do_set(struct tries *f, struct tries_model *m, const uint8_t *name, size_t len);
enum cht_rc tries_do_del(struct tries *f, struct tries_model *m, const uint8_t *name, size_t len);
enum cht_rc tries_do_del_prefix(struct tries *f, struct tries_model *m, const uint8_t *name, size_t len);
