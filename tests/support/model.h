/* model: what a database must hold, kept in plain arrays, and a generator of random commits over a fixed universe of
 * names (prefixes of each other, NUL and 0xFF bytes, up to 4096 bytes). Compares a whole database with itself.
 */
#pragma once

#include "base/rng.h"
#include "cheetah/scan.h"
#include "cheetah/store.h"

#define MODEL_OPS_MAX 64

struct model_value {
    uint32_t len;
    uint32_t seed;
}; /* len 0: none */
struct model {
    unsigned names; /* size of the universe */
    uint8_t **name; /* owned; sorted */
    uint16_t *name_len;
    uint64_t *key;             /* by name; 0: not mapped */
    struct model_value *value; /* by key */
    uint64_t keys_cap, max_key;
    bool sparse; /* few of the keys are in use: of the others only some are asked for */
};

void model_init(struct model *m, unsigned names, uint64_t seed);
void model_copy(struct model *to, const struct model *from); /* shares the names */
void model_copy_free(struct model *m);
void model_free(struct model *m);

/* A random commit: ops point into `arena` buffers owned by the batch. */
struct model_batch {
    struct cht_op ops[MODEL_OPS_MAX];
    unsigned count, flags;
    uint32_t seed[MODEL_OPS_MAX];  /* of the value of each op */
    unsigned name[MODEL_OPS_MAX];  /* index in the universe */
    unsigned other[MODEL_OPS_MAX]; /* the name that a PAIR_LINK follows; how many keys a RESERVE is for */
    uint8_t *bytes[MODEL_OPS_MAX]; /* owned */
    struct cht_buf buf[MODEL_OPS_MAX];
};
void model_random_batch(const struct model *m, struct cht_rng *r, uint32_t max_value, struct model_batch *b);
void model_batch_free(struct model_batch *b);
/* After the commit: checks each operation's result against the model and applies it. Fails the test on a difference. An
 * atomic commit that failed changes nothing. */
void model_apply(struct model *m, struct model_batch *b, const struct cht_commit *c);
/* 0 if the database holds exactly the model; else prints the first difference to `why`. */
int model_compare(const struct model *m, struct cht_store *s, char *why, size_t n);
void model_fill(uint8_t *p, uint32_t len, uint32_t seed);
