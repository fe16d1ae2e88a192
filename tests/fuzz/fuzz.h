/* fuzz: what the targets share. A target is one file, target_ and its name, with LLVMFuzzerTestOneInput, and if the input has a structure,
 * LLVMFuzzerCustomMutator. With clang's libFuzzer it becomes a fuzzer (preset fuzz), with driver.c an ordinary test that runs the
 * seeds, the findings, and some mutants of both, always the same ones.
 *
 * A target is a function of its input as far as it can be: what it keeps from one input to the next (a store) is emptied in between, and
 * made anew now and then.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cheetah/store.h"
#include "service/dbs.h"
#include "support/simdisk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed);
size_t LLVMFuzzerMutate(uint8_t *data, size_t n, size_t max); /* libFuzzer's, or driver.c's */

/* What must hold, whatever the input. */
#define FUZZ_CHECK(c) ((c) ? (void)0 : fuzz_failed(__FILE__, __LINE__, #c))
_Noreturn void fuzz_failed(const char *file, int line, const char *what);
void fuzz_must(enum cht_rc rc, const struct cht_err *err);

/* The bytes in a block of their own, of exactly that size: the sanitizer sees a step beyond. free() it. */
void *fuzz_exact(const void *data, size_t n);
/* A file with these bytes, for what wants a path; the path holds until the next call. */
const char *fuzz_file(const void *data, size_t n);

/* The front of an input, taken bit by bit; zeros after its end. */
struct fuzz_in {
    const uint8_t *p;
    size_t n;
};
uint8_t fuzz_u8(struct fuzz_in *in);
uint32_t fuzz_u32(struct fuzz_in *in);
/* Up to n bytes; *got says how many there were. */
const uint8_t *fuzz_bytes(struct fuzz_in *in, size_t n, size_t *got);

/* An environment on a simulated disk in memory, with an open database "default" of one shard. */
struct fuzz_store {
    struct simdisk *disk;
    struct cht_env *env;
    struct svc_dbs *dbs; /* NULL unless asked for */
    struct cht_store *store;
    unsigned used;
};
#define FUZZ_STORE_USES 256u /* inputs between two new ones */
void fuzz_store_open(struct fuzz_store *f, bool with_dbs);
void fuzz_store_close(struct fuzz_store *f);
struct cht_env_config fuzz_config(struct simdisk *d);
/* Empty again: no pairs, none of their values. */
void fuzz_store_empty(struct fuzz_store *f);
