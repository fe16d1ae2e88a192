/* mode_matrix: rows of a matrix (matrix.h) as `"order":2,"metric":"pmi","row":[[token,value],...]`, ascending by token. */
#include "reduce/matrix.h"

#include "reduce/modes_int.h"
#include "reduce/payload.h"
#include "reduce/text.h"

#include <math.h>
#include <string.h>

static const char *const metrics[] = {
    [REDUCE_MATRIX_COUNT] = "count", [REDUCE_MATRIX_P] = "p", [REDUCE_MATRIX_PMI] = "pmi"};

static bool head(const uint8_t *p, size_t have, uint64_t size, struct reduce_head *out)
{
    struct reduce_matrix_row row;
    if (!reduce_matrix_read(p, have, size, &row))
        return false;
    size_t n = reduce_put_str(out->text, "\"order\":");
    n += reduce_put_u64(out->text + n, row.order);
    n += reduce_put_str(out->text + n, ",\"metric\":\"");
    n += reduce_put_str(out->text + n, metrics[row.metric]);
    out->text_len = n + reduce_put_str(out->text + n, "\",\"row\":[");
    out->tail = "]";
    out->offset = REDUCE_MATRIX_HEAD;
    out->record = REDUCE_MATRIX_RECORD;
    out->count = row.n;
    return true;
}

static size_t record(const uint8_t *p, char *out)
{
    double v = reduce_matrix_value(p);
    size_t n = 0;
    out[n++] = '[';
    n += reduce_put_u64(out + n, reduce_payload_get32(p));
    out[n++] = ',';
    n += isfinite(v) ? reduce_put_double(out + n, v) : reduce_put_str(out + n, "null");
    out[n++] = ']';
    return n;
}

/* ------------------------------------------------------------------------------------------------------------ */

bool reduce_matrix_read(const uint8_t *p, size_t have, uint64_t size, struct reduce_matrix_row *out)
{
    if (have < REDUCE_MATRIX_HEAD || p[0] != 1 || p[2] > REDUCE_MATRIX_PMI)
        return false;
    *out = (struct reduce_matrix_row){.order = p[1],
                                      .metric = (enum reduce_matrix_metric)p[2],
                                      .n = reduce_payload_get32(p + 3),
                                      .records = p + REDUCE_MATRIX_HEAD};
    return (size - REDUCE_MATRIX_HEAD) / REDUCE_MATRIX_RECORD >= out->n;
}

size_t reduce_matrix_begin(uint8_t *out, unsigned order, enum reduce_matrix_metric metric, uint32_t n)
{
    out[0] = 1;
    out[1] = (uint8_t)order;
    out[2] = (uint8_t)metric;
    reduce_payload_put32(out + 3, n);
    return REDUCE_MATRIX_HEAD;
}

void reduce_matrix_put(uint8_t *record_at, uint32_t token, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    reduce_payload_put32(record_at, token);
    reduce_payload_put32(record_at + 4, (uint32_t)(bits >> 32));
    reduce_payload_put32(record_at + 8, (uint32_t)bits);
}

double reduce_matrix_value(const uint8_t *p)
{
    uint64_t bits = (uint64_t)reduce_payload_get32(p + 4) << 32 | reduce_payload_get32(p + 8);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

int reduce_matrix_metric(const char *p, size_t n)
{
    for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
        if (strlen(metrics[i]) == n && memcmp(metrics[i], p, n) == 0)
            return (int)i;
    }
    return -1;
}

const char *reduce_matrix_metric_name(enum reduce_matrix_metric m) { return metrics[m]; }

static const struct reduce_decoder decoder = {.head = head, .record = record};
static const char *const names[] = {"matrix", NULL};
const struct reduce_mode reduce_mode_matrix = {.names = names, .kind = REDUCE_PAYLOAD, .decoder = &decoder};
