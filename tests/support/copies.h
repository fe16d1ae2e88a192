/* copies: what the tests of backup and restore share: a database on a simulated disk beside its model, streams, and what is
 * restored from them.
 */
#pragma once

#include "cheetah/backup.h"
#include "support/model.h"
#include "support/simdisk.h"

/* One database, its model, and the disk it is on. */
struct copy_source {
    struct simdisk *disk;
    struct cht_env *env;
    struct cht_store *s;
    struct model m;
    struct cht_rng r;
};

/* A number from the environment. */
uint64_t copy_number(const char *name, uint64_t fallback);
void copy_must(enum cht_rc rc, const struct cht_err *err);
/* Two directories, three shards, short log segments; checkpoints when they are asked for. */
struct cht_env_config copy_config(struct simdisk *d);
void copy_source_open(struct copy_source *o, uint64_t seed);
void copy_source_close(struct copy_source *o);
void copy_commit(struct copy_source *o);
/* Something that a server does meanwhile. */
void copy_go_on(struct copy_source *o);
void copy_add(struct cht_buf *to, const uint8_t *p, size_t n);
/* The rest of a backup; with `busy` commits and checkpoints between the reads. */
enum cht_rc copy_read_all(struct copy_source *o, struct cht_backup *b, bool busy, struct cht_buf *stream,
                          struct cht_err *err);
/* The first bytes of a stream, in pieces of any length, into a disk. */
enum cht_rc copy_restore(struct simdisk *d, const struct cht_buf *stream, size_t upto, const char *name,
                         struct cht_err *err);
void copy_finding(void *ctx, const char *where, const char *what);
/* How many databases a disk has. */
unsigned copy_databases(struct simdisk *d);
/* The restored database is the model, also after a clean stop, which check finds whole. */
void copy_verify(struct simdisk *d, const char *name, const struct model *m, const char *what);
/* An upsert of a value that begins with n and goes on with its low byte. */
void copy_put(struct cht_op *op, char *name, size_t cap, uint8_t *value, size_t len, uint64_t n,
              const char *fmt, unsigned index);
enum cht_rc copy_check_stream(const uint8_t *p, size_t n, struct cht_err *err);
/* Commits, then a backup. */
void copy_make_stream(struct copy_source *o, struct cht_buf *stream, unsigned commits);
