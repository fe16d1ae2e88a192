/* handlers: what the routes run (http/routes.c). Each takes a request whose parameters and body are in, and ends as request.h
 * says.
 */
#pragma once

#include "http/request.h"
#include "reduce/mode.h"

void http_kv_get(struct http_request *r);
bool http_kv_quick(const struct http_request *r);
void http_kv_insert(struct http_request *r);
void http_kv_put(struct http_request *r);
void http_kv_delete(struct http_request *r);
void http_kv_list(struct http_request *r);

void http_pairs_get(struct http_request *r);
bool http_pairs_quick(const struct http_request *r);
bool http_put_quick(const struct http_request *r); /* of pairs, and by key */
void http_pairs_children(struct http_request *r);  /* GET /pairs/ with children=true */
void http_pairs_put(struct http_request *r);
void http_pairs_delete(struct http_request *r);
void http_pairs_post(struct http_request *r);

void http_changes_get(struct http_request *r);

void http_batch_post(struct http_request *r);

void http_reduce_get(struct http_request *r);
void http_reduce_post(struct http_request *r);
/* The methods of /reduce/ with this after it: they depend on the mode. */
unsigned http_reduce_methods(const char *rest, size_t n);
/* GET /reduce/ with a mode that is an aggregate. prefix is borrowed from the URI. */
void http_aggregate_get(struct http_request *r, const struct reduce_mode *mode, struct cht_str prefix);
void http_links_post(struct http_request *r);
void http_links_get(struct http_request *r);
void http_matrix_post(struct http_request *r);
void http_matrix_get(struct http_request *r);
void http_associations_get(struct http_request *r);
/* GET /reduce/ with a payload mode, its parameters being known. prefix is copied, at most CHT_NAME_MAX bytes; shown: decoded unless the request says
 * otherwise. */
void http_payloads_get(struct http_request *r, const struct reduce_mode *mode, struct cht_str prefix,
                       bool shown);
void http_smooth_post(struct http_request *r); /* r->rest is what follows smooth/ */

void http_ngrams_post(struct http_request *r);
void http_predict_post(struct http_request *r);
void http_score_post(struct http_request *r);
void http_contexts_post(struct http_request *r);
void http_vocabulary_get(struct http_request *r);
void http_arpa_get(struct http_request *r);
void http_arpa_post(struct http_request *r);
/* A part of the body of POST /arpa. */
bool http_arpa_feed(struct http_request *r, const char *data, size_t n);

/* POST /tables/{table}/... */
void http_tables_set(struct http_request *r);
void http_tables_query(struct http_request *r);
void http_tables_train(struct http_request *r);
void http_tables_shift(struct http_request *r);
void http_tables_inherit(struct http_request *r);

void http_databases_list(struct http_request *r);
void http_databases_get(struct http_request *r);
void http_databases_put(struct http_request *r);
void http_databases_delete(struct http_request *r);
void http_databases_checkpoint(struct http_request *r);
void http_databases_merge(struct http_request *r);
void http_databases_backup(struct http_request *r);
void http_databases_restore(struct http_request *r);
bool http_databases_restore_feed(struct http_request *r, const char *data, size_t n);
/* The name at the start of the rest of the path, len bytes; false after answering: no name, or not this token's. */
bool http_database_name(struct http_request *r, size_t len, char name[CHT_DATABASE_NAME_MAX + 1]);
/* On a job thread: what GET /databases/{name} says of r->db, to r->out; r->rc says whether it worked. */
void http_database_describe(struct http_request *r);

void http_service_health(struct http_request *r);
void http_service_ready(struct http_request *r);
void http_service_version(struct http_request *r);
void http_service_metrics(struct http_request *r);
void http_service_openapi(struct http_request *r);
void http_service_access(struct http_request *r);

void http_console_get(struct http_request *r); /* /console, /console/ and what is below it */
void http_console_root(struct http_request *r);
