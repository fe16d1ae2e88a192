/* conf: the options of the server, from one table: flags, environment, file, help and --print-config cannot drift apart.
 *
 * A value comes from the first that has one: the command line (--name VALUE or --name=VALUE), the environment
 * (CHEETAH_NAME, dashes as underscores), the file of --config (lines "name = value", # begins a comment), the default.
 * Numbers of bytes may end in K, M or G (powers of 1024).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "cheetah/err.h"

struct conf {
    /* set by conf_read, then read-only but for the connections that find no descriptors; strings are owned */
    char *listen, *port_file, *data, *durability, *tokens, *tls_cert, *tls_key, *log_format, *log_level;
    char *admin_listen, *admin_port_file, *line_listen, *line_port_file, *create_databases;
    char *tls_min, *tls_ciphers, *tls_client_ca, *tls_client_crl;
    char *allow_hosts, *cors_origins;
    char *config;
    char *value_order;
    char *read_ahead;
    char *store, *rados_pool, *rados_conf, *rados_id, *rados_spool;
    bool allow_anonymous, access_log, line_tls, console;
    uint64_t http_threads, scan_workers, shards, interval_ms;
    uint64_t max_value_size, max_batch_ops, max_batch_bytes, max_connections, max_connections_per_address;
    uint64_t max_streams, header_timeout, body_timeout, idle_timeout, drain_seconds, header_bytes;
    uint64_t checkpoint_log_bytes, changes_bytes, dirty_bytes, reduce_cache_bytes, reduce_memory_bytes,
        scrub_bytes_per_second, idle_close_seconds;
    uint64_t line_threads, line_connections, line_idle_timeout, line_answer_bytes;
    uint64_t rados_timeout, rados_spool_bytes;
    uint64_t max_document_tokens, max_ngrams_bytes, max_databases, request_memory_bytes, memory_bytes;
    unsigned char source[80]; /* where it came from (conf.c), by row of the table */
    bool help, print;         /* --help, --print-config */
    /* no options: what the limit of open files leaves; set before anything listens */
    uint64_t file_limit, connections_over; /* over: told that they are too many; those beyond are closed */
};

/* Reads everything. argv: what stands after "serve"; getenv_fn: NULL means the process's environment (tests give their
 * own). CHT_INVALID_ARGUMENT with a message that names option, source, value and the legal range. conf_fini in any case. */
enum cht_rc conf_read(struct conf *c, int argc, char **argv, const char *(*getenv_fn)(const char *),
                      struct cht_err *err);
/* Was the option set, whatever to? False: it has its default. */
bool conf_given(const struct conf *c, const char *name);
void conf_fini(struct conf *c);
/* Every option with its default, meaning and environment variable. */
void conf_help(FILE *out);
/* "name = value  # source", a line an option; a file that --config reads back. A value that no file can say (blanks around it, a blank
 * before a #) is a comment. */
void conf_print(const struct conf *c, FILE *out);
