/* handlers: what the routes run (http/routes.c). Each takes a request whose parameters and body are in, and ends as request.h
 * says.
 */
#pragma once

#include "http/request.h"
#include "reduce/mode.h"

void kv_get(struct request *r);
void kv_insert(struct request *r);
void kv_put(struct request *r);
void kv_delete(struct request *r);
void kv_list(struct request *r);

void pairs_get(struct request *r);
void pairs_put(struct request *r);
void pairs_delete(struct request *r);

void batch_post(struct request *r);

void reduce_get(struct request *r);
void reduce_post(struct request *r);
/* The methods of /reduce/ with this behind it: they depend on the mode. */
unsigned reduce_methods(const char *rest, size_t n);
/* GET /reduce/ with a mode that is an aggregate. prefix is borrowed from the URI. */
void aggregate_get(struct request *r, const struct reduce_mode *mode, struct cht_str prefix);
void lm_smooth_post(struct request *r); /* r->rest is what follows smooth/ */

void ngrams_post(struct request *r);
void predict_post(struct request *r);
void score_post(struct request *r);
void contexts_post(struct request *r);

void databases_list(struct request *r);
void databases_get(struct request *r);
void databases_put(struct request *r);
void databases_delete(struct request *r);
void databases_checkpoint(struct request *r);
void databases_backup(struct request *r);

void service_health(struct request *r);
void service_ready(struct request *r);
void service_version(struct request *r);
void service_metrics(struct request *r);
void service_openapi(struct request *r);
