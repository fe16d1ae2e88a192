/* copies: see copies.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "support/copies.h"

uint64_t copy_number(const char *name, uint64_t fallback)
{
    const char *s = getenv(name);
    return s != NULL ? strtoull(s, NULL, 10) : fallback;
}

void copy_must(enum cht_rc rc, const struct cht_err *err)
{
    if (rc != CHT_OK)
        fail_msg("rc %d: %s", (int)rc, err->msg);
}

static const char *const dirs[] = {"/a", "/b"};

struct cht_env_config copy_config(struct simdisk *d)
{
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 2,
                                   .default_shards = 3,
                                   .log_segment_bytes = 1u << 16,
                                   .scan_workers = 1,
                                   .manual_checkpoint = true,
                                   .value_order = CHT_ORDER_ALWAYS,
                                   .io = simdisk_io(d)};
}

void copy_source_open(struct copy_source *o, uint64_t seed)
{
    struct cht_err err = {0};
    memset(o, 0, sizeof *o);
    cht_rng_seed(&o->r, seed);
    model_init(&o->m, 80, seed);
    o->disk = simdisk_new();
    struct cht_env_config cfg = copy_config(o->disk);
    copy_must(cht_env_open(&cfg, &o->env, &err), &err);
    copy_must(cht_env_create(o->env, "default", 0, &err), &err);
    copy_must(cht_env_get(o->env, "default", &o->s, &err), &err);
}

void copy_source_close(struct copy_source *o)
{
    struct cht_err err = {0};
    copy_must(cht_env_close(o->env, &err), &err);
    simdisk_free(o->disk);
    model_free(&o->m);
}

void copy_commit(struct copy_source *o)
{
    struct model_batch *b = malloc(sizeof *b);
    uint32_t max = cht_rng_below(&o->r, 6) == 0 ? 400000 : 3000;
    model_random_batch(&o->m, &o->r, max, b);
    struct cht_commit c = {.ops = b->ops, .count = b->count, .flags = b->flags};
    (void)cht_store_commit(o->s, &c);
    model_apply(&o->m, b, &c);
    model_batch_free(b);
    free(b);
}

/* Something that a server does meanwhile. */
void copy_go_on(struct copy_source *o)
{
    struct cht_err err = {0};
    for (unsigned n = (unsigned)cht_rng_below(&o->r, 4); n > 0; n--)
        copy_commit(o);
    if (cht_rng_below(&o->r, 3) == 0)
        copy_must(cht_store_checkpoint(o->s, &err), &err);
}

void copy_add(struct cht_buf *to, const uint8_t *p, size_t n)
{
    if (to->len + n > to->cap)
        assert_int_equal(cht_buf_reserve(to, (to->len + n) * 2, NULL), CHT_OK);
    memcpy(to->data + to->len, p, n);
    to->len += n;
}

/* The rest of a backup; with `busy` commits and checkpoints between the reads. */
enum cht_rc copy_read_all(struct copy_source *o, struct cht_backup *b, bool busy, struct cht_buf *stream,
                          struct cht_err *err)
{
    uint8_t *buf = malloc(CHT_BACKUP_BUFFER_MIN);
    enum cht_rc rc;
    size_t n;
    while ((rc = cht_backup_read(b, buf, CHT_BACKUP_BUFFER_MIN, &n, err)) == CHT_OK && n > 0) {
        copy_add(stream, buf, n);
        if (busy)
            copy_go_on(o);
    }
    free(buf);
    return rc;
}

static enum cht_rc feed(struct cht_restore *r, const struct cht_buf *stream, size_t upto, uint64_t seed,
                        struct cht_err *err)
{
    struct cht_rng rng;
    cht_rng_seed(&rng, seed);
    enum cht_rc rc = CHT_OK;
    for (size_t at = 0, n; at < upto && rc == CHT_OK; at += n) {
        n = 1 + (size_t)cht_rng_below(&rng, cht_rng_below(&rng, 4) == 0 ? 100 : 200000);
        n = n < upto - at ? n : upto - at;
        rc = cht_restore_feed(r, stream->data + at, n, err);
    }
    return rc;
}

enum cht_rc copy_restore(struct simdisk *d, const struct cht_buf *stream, size_t upto, const char *name,
                         struct cht_err *err)
{
    struct cht_env_config cfg = copy_config(d);
    struct cht_env *env;
    struct cht_restore *r = NULL;
    enum cht_rc rc = cht_env_open(&cfg, &env, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_restore_new(env, name, &r, err);
    if (rc == CHT_OK)
        rc = feed(r, stream, upto, upto, err);
    if (rc == CHT_OK)
        rc = cht_restore_finish(r, err);
    cht_restore_free(r);
    cht_env_abandon(env);
    return rc;
}

void copy_finding(void *ctx, const char *where, const char *what)
{
    (void)ctx;
    print_message("check: %s: %s\n", where, what);
}

static void note_name(void *ctx, const char *name)
{
    (void)name;
    ++*(unsigned *)ctx;
}

/* How many databases a disk has. */
unsigned copy_databases(struct simdisk *d)
{
    struct cht_env_config cfg = copy_config(d);
    struct cht_err err = {0};
    struct cht_env *env;
    unsigned n = 0;
    copy_must(cht_env_open(&cfg, &env, &err), &err);
    copy_must(cht_env_list(env, note_name, &n, &err), &err);
    cht_env_abandon(env);
    return n;
}

/* The restored database is the model, also after a clean stop, which check finds whole. */
void copy_verify(struct simdisk *d, const char *name, const struct model *m, const char *what)
{
    struct cht_env_config cfg = copy_config(d);
    struct cht_err err = {0};
    struct cht_env *env;
    struct cht_store *s;
    char why[300] = "";
    uint64_t findings = 0;
    copy_must(cht_check(&cfg, NULL, copy_finding, NULL, &findings, &err), &err);
    if (findings != 0)
        fail_msg("%s: check of the restored files: %llu findings", what, (unsigned long long)findings);
    copy_must(cht_env_open(&cfg, &env, &err), &err);
    copy_must(cht_env_get(env, name, &s, &err), &err);
    if (model_compare(m, s, why, sizeof why) != 0)
        fail_msg("%s: %s", what, why);
    uint8_t v[100] = {1};
    struct cht_op op = {
        .kind = CHT_OP_PAIR_PUT, .name = {(const uint8_t *)"again", 5}, .value = {v, sizeof v}};
    struct cht_commit c = {.ops = &op, .count = 1};
    copy_must(cht_store_commit(s, &c), &c.err);
    copy_must(cht_env_close(env, &err), &err);
    copy_must(cht_check(&cfg, NULL, copy_finding, NULL, &findings, &err), &err);
    if (findings != 0)
        fail_msg("%s: check after a clean stop: %llu findings", what, (unsigned long long)findings);
}

void copy_put(struct cht_op *op, char *name, size_t cap, uint8_t *value, size_t len, uint64_t n,
              const char *fmt, unsigned index)
{
    (void)snprintf(name, cap, fmt, index, (unsigned long long)n);
    memset(value, (int)(n & 255), len);
    cht_put64(value, n);
    *op = (struct cht_op){
        .kind = CHT_OP_PAIR_PUT, .name = {(const uint8_t *)name, strlen(name)}, .value = {value, len}};
}

enum cht_rc copy_check_stream(const uint8_t *p, size_t n, struct cht_err *err)
{
    struct cht_backup_check *c;
    copy_must(cht_backup_check_new(&c, err), err);
    enum cht_rc rc = cht_backup_check_feed(c, p, n, err);
    if (rc == CHT_OK)
        rc = cht_backup_check_finish(c, err);
    cht_backup_check_free(c);
    return rc;
}

void copy_make_stream(struct copy_source *o, struct cht_buf *stream, unsigned commits)
{
    struct cht_err err = {0};
    struct cht_backup *b;
    for (unsigned i = 0; i < commits; i++)
        copy_commit(o);
    copy_must(cht_backup_open(o->s, &b, &err), &err);
    copy_must(copy_read_all(o, b, false, stream, &err), &err);
    cht_backup_close(b);
}
