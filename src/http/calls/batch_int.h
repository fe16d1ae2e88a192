/* batch_int: what the files of a batch share: batch.c (its body and its answer), batch_line.c (what a line says). */
#pragma once

#include "http/lines.h"
#include "http/request.h"

#include <jansson.h>

struct http_change;

/* Memory for decoded bytes. */
struct http_batch_block {
    struct http_batch_block *next;
    size_t n, cap;
    uint8_t data[];
};

/* What the store's operation does not say. */
struct http_batch_entry {
    enum cht_rc rc;     /* of parsing; CHT_OK: op is valid */
    bool conditional;   /* op.ask is a struct http_condition */
    const char *detail; /* static; for rc */
};

struct http_batch {
    struct cht_op *ops; /* owned, like entries: count of cap */
    struct http_batch_entry *entries;
    size_t count, cap;
    struct cht_buf *values; /* owned: one for each operation that reads, in order */
    size_t reads;
    struct http_batch_block *blocks;
    struct http_change *changes; /* owned: a list */
    size_t bytes;                /* in blocks */
    struct http_lines lines;
    bool writes; /* not reads alone */
    bool atomic, results, etags;
    struct cht_op *run; /* owned: the operations given to the store */
    size_t *place;      /* owned: of run[i] in ops */
    size_t runs;
    size_t at, read_at, failed, count_failed;
    bool ended;
};

/* Memory until the batch is freed; NULL: r->err says why. */
uint8_t *http_batch_memory(struct http_request *r, size_t n);
enum cht_rc http_batch_no_memory(struct http_request *r); /* notes it in r->err */
/* The line is no operation: false. detail is static. */
bool http_batch_refuse(struct http_batch_entry *e, enum cht_rc rc, const char *detail);
/* Reads the members of a line into op; what is wrong is noted in e. *fatal: the batch is over, and r->err says why. */
void http_batch_line(struct http_request *r, const json_t *o, struct cht_op *op, struct http_batch_entry *e,
                     bool *fatal);
