/* err: the one list of error codes and the message that travels with them.
 *
 * A function that can fail returns enum cht_rc and takes a struct cht_err last. CHT_OK is 0. A code that is an
 * ordinary answer ("no such key") leaves the message untouched; every other code fills it. err may be NULL.
 * Numbers and slugs are stable: they are never reused, and the slug is what a client sees as "code".
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define CHT_DATABASE_NAME_RULE "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"

/* X(name, number, HTTP status, slug, default text). A text that names a limit is the one place where it is written for people; a
 * message that says no more than that is cht_rc_text. */
/* clang-format off: a new row changes no other */
#define CHT_ERRORS(X)                                                                                        \
    X(OK, 0, 200, "ok", "success")                                                                           \
    X(PENDING, 1, 202, "pending", "the call completes later")                                                \
    X(KEY_NOT_FOUND, 2, 404, "key_not_found", "no value under this key")                                     \
    X(PAIR_NOT_FOUND, 3, 404, "pair_not_found", "no such pair")                                              \
    X(DATABASE_NOT_FOUND, 4, 404, "database_not_found", "no such database")                                  \
    X(DATABASE_EXISTS, 5, 409, "database_exists", "the database exists already")                             \
    X(INVALID_KEY, 10, 400, "invalid_key", "keys are integers from 1 to 281474976710655")                    \
    X(INVALID_VALUE, 11, 400, "invalid_value", "not a value")                                                \
    X(EMPTY_VALUE, 12, 400, "empty_value", "values have 1 byte or more")                                     \
    X(VALUE_TOO_LARGE, 13, 413, "value_too_large", "the value is too large")                                 \
    X(INVALID_PAIR, 14, 400, "invalid_pair", "pair names have 1 to 4096 bytes")                              \
    X(INVALID_DATABASE_NAME, 15, 400, "invalid_database_name", "database names are " CHT_DATABASE_NAME_RULE) \
    X(INVALID_ARGUMENT, 16, 400, "invalid_parameter", "a parameter is out of range")                         \
    X(BATCH_FAILED, 17, 409, "batch_failed", "an operation of an atomic batch failed")                       \
    X(BATCH_TOO_LARGE, 18, 413, "batch_too_large", "the batch is too large")                                 \
    X(KEYS_EXHAUSTED, 19, 507, "keys_exhausted", "all keys of a shard have been given out")                  \
    X(CORRUPT, 30, 500, "corrupt_value", "stored bytes do not match their checksum")                         \
    X(READ_ONLY, 31, 503, "read_only", "writing stopped after a disk fault; restart recovers")               \
    X(DISK_FULL, 32, 507, "disk_full", "no space left on the disk")                                          \
    X(IO, 33, 500, "io_error", "an operation on a file failed")                                              \
    X(NO_MEMORY, 34, 503, "out_of_memory", "out of memory")                                                  \
    X(LOCKED, 35, 503, "locked", "the directory is in use by another process")                               \
    X(VERSION, 36, 500, "format_version", "written by another format version")                               \
    X(SHARD_MISSING, 37, 500, "shard_missing", "a shard of the database is not there")                       \
    X(SHARD_MISPLACED, 38, 500, "shard_misplaced", "a shard folder does not belong here")                    \
    X(CANCELLED, 39, 499, "cancelled", "the call was cancelled")                                             \
    X(NO_FILE, 40, 500, "no_such_file", "no such file")                                                      \
    X(CLOSED, 41, 503, "closed", "the store is closing")                                                     \
    X(NO_DESCRIPTORS, 42, 503, "no_descriptors", "no file descriptor is free")                               \
    X(READ_ONLY_DISK, 43, 503, "read_only_disk", "the file system is mounted read-only")                     \
    X(NOT_FOUND, 50, 404, "not_found", "there is nothing at this path")                                      \
    X(METHOD, 51, 405, "method_not_allowed", "the method is not for this path")                              \
    X(UNKNOWN_PARAMETER, 52, 400, "unknown_parameter", "no such query parameter here")                       \
    X(INVALID_HEX, 53, 400, "invalid_hex", "odd or invalid hexadecimal")                                     \
    X(INVALID_ENCODING, 54, 400, "invalid_encoding", "a malformed percent escape")                           \
    X(INVALID_OPERATION, 55, 400, "invalid_operation", "not an operation")                                   \
    X(INVALID_BODY, 56, 400, "invalid_body", "the body cannot be read")                                      \
    X(BODY_TOO_LARGE, 57, 413, "body_too_large", "the body is too large")                                    \
    X(UNAUTHORIZED, 58, 401, "unauthorized", "a valid token is needed")                                      \
    X(FORBIDDEN, 59, 403, "forbidden", "the token does not allow this")                                      \
    X(OVERLOADED, 60, 503, "overloaded", "too many connections or streams")                                  \
    X(STARTING, 61, 503, "starting", "the server is starting")                                               \
    X(DRAINING, 62, 503, "draining", "the server is stopping")                                               \
    X(UNKNOWN_MODE, 63, 404, "unknown_reducer_mode", "no such reducer mode")                                 \
    X(INVALID_TREE, 64, 400, "invalid_tree", "the tree cannot be encoded")                                   \
    X(INVALID_TOKENS, 65, 400, "invalid_tokens", "tokens are integers from 0 to 4294967295")                 \
    X(DATABASE_BUSY, 66, 409, "database_busy", "the database is being dropped or created")                   \
    X(DATABASE_DROPPED, 67, 410, "database_dropped", "the database was dropped meanwhile")                   \
    X(MALFORMED_PAYLOAD, 68, 409, "malformed_payload", "a stored payload is not what it must be")            \
    X(FOREIGN_FILES, 70, 409, "foreign_files", "what is there was not made by a database")                   \
    X(DATABASE_INCOMPLETE, 71, 503, "database_incomplete", "a part of the database is not there")            \
    X(DIRECTORY_MISSING, 72, 503, "directory_missing", "a data directory of the set is not there")           \
    X(DIRECTORY_MISPLACED, 73, 503, "directory_misplaced", "a data directory belongs to another set")        \
    X(OUTCOME_UNKNOWN, 75, 503, "outcome_unknown", "whether a write was done is not known before a restart") \
    X(FORBIDDEN_HOST, 90, 403, "forbidden_host", "the server is not asked under this name")                  \
    X(FORBIDDEN_ORIGIN, 91, 403, "forbidden_origin", "pages of this origin may not ask that")                \
    X(UNSUPPORTED_TRANSFER_CODING, 92, 501, "unsupported_transfer_coding", "chunked is the one coding")      \
    X(INVALID_REQUEST, 93, 400, "invalid_request", "the request cannot be read")                             \
    X(URI_TOO_LONG, 94, 414, "uri_too_long", "the target is too long")                                       \
    X(HEADERS_TOO_LARGE, 95, 431, "headers_too_large", "the headers are too long")                           \
    X(TOO_MANY_DATABASES, 96, 503, "too_many_databases", "there are as many databases as may be")            \
    X(DATABASE_CASE, 97, 409, "database_case_conflict", "another database has this name in other letters")   \
    X(REQUEST_TOO_LARGE, 98, 413, "request_too_large", "the request would need too much memory")             \
    X(GONE, 104, 410, "gone", "the log does not reach back as far any more")                                 \
    X(INVALID_BACKUP, 103, 400, "invalid_backup", "the bytes are no whole backup")                           \
    X(HTTP_VERSION, 125, 505, "unsupported_http_version", "HTTP/1.1 and HTTP/1.0 are spoken here")           \
    X(UNSUPPORTED_CODING, 134, 415, "unsupported_content_coding",                                            \
      "bodies come as they are, with zstd or gzip")                                                          \
    X(INVALID_CODING, 135, 400, "invalid_content_coding", "the body is not what its Content-Encoding says")  \
    X(NOT_A_NUMBER, 130, 409, "not_a_number", "the value is no decimal integer")                             \
    X(NUMBER_OVERFLOW, 131, 409, "number_overflow", "the number would not fit in 64 bits")                   \
    X(PRECONDITION_FAILED, 132, 412, "precondition_failed",                                                  \
      "what is there is not what the request asks for")                                                      \
    X(UNSUPPORTED_PRECONDITION, 133, 400, "unsupported_precondition", "this call has no preconditions")      \
    X(INVALID_PRECONDITION, 99, 400, "invalid_precondition",                                                 \
      "a precondition is * or a list of tags in quotes")                                                     \
    X(NOT_COUNTED, 110, 409, "not_counted", "what is to be taken away was not counted")                      \
    X(NOTHING_COUNTED, 111, 409, "nothing_counted", "the live model has counted nothing yet")                \
    X(ORDER_MISMATCH, 112, 409, "order_mismatch", "the live model has another order")                        \
    X(NOT_LIVE, 113, 409, "not_live", "the database has no live model")                                      \
    X(MODEL_FIXED, 114, 409, "model_fixed", "the model's parameters cannot change any more")                 \
    X(FIXED_MODEL, 115, 409, "fixed_model", "the database has a model that was read in")                     \
    X(INVALID_ARPA, 116, 400, "invalid_arpa", "the text is no model in ARPA format")                         \
    X(MODEL_EXISTS, 117, 409, "model_exists", "the database has a model already")                            \
    X(MODELS_DIFFER, 118, 409, "models_differ", "the two databases do not have models of one kind")          \
    X(PREDICTION_NOT_FOUND, 106, 404, "prediction_entry_not_found", "the table has no such key")             \
    X(SOURCES_MISSING, 107, 404, "inherit_sources_missing", "none of the sources is there")                  \
    X(INVALID_NUMBER, 108, 400, "invalid_number", "a number is not finite, or would become so")              \
    X(NOT_SMOOTHED, 120, 409, "not_smoothed", "the database was not smoothed")                               \
    X(NO_LINKS, 127, 409, "no_links", "no links of counts: POST /reduce/links/cnt: finds them")              \
    X(NAMES_TAKEN, 128, 409, "names_taken", "pairs that were not made by this call are in its way")          \
    X(NO_WORD, 121, 409, "no_word", "a token of the model has no word that can be written")                  \
    X(NOT_SUPPORTED, 136, 501, "not_supported", "the store that holds the data cannot do this")              \
    X(TIMEOUT, 137, 503, "timeout", "the store did not answer in time; a write may have been done")
/* clang-format on */

enum cht_rc {
#define CHT_ERR_ENUM(name, num, http, slug, text) CHT_##name = (num),
    CHT_ERRORS(CHT_ERR_ENUM)
#undef CHT_ERR_ENUM
};

/* What went wrong and where. Zero-initialise; a later failure overwrites an earlier one. */
struct cht_err {
    enum cht_rc code;
    int sys;          /* errno at the failing call, 0 if none */
    int line;         /* source place that raised it */
    const char *file; /* static string */
    char msg[200];    /* for people: the object, the offending value, the legal range */
};

/* The stable slug ("key_not_found") and the HTTP status of a code. Unknown codes give "io_error" / 500. */
const char *cht_rc_slug(enum cht_rc rc);
const char *cht_rc_text(enum cht_rc rc);
int cht_rc_http(enum cht_rc rc);

/* True of what can end by itself and has lost nothing: no room, no memory, no descriptor, a file system that is mounted
 * read-only. Nothing may be done twice because of it but by whoever knows that the failed call has changed nothing. */
static inline bool cht_rc_passing(enum cht_rc rc)
{
    return rc == CHT_DISK_FULL || rc == CHT_NO_MEMORY || rc == CHT_NO_DESCRIPTORS || rc == CHT_READ_ONLY_DISK;
}

/* Fills err (if not NULL) and returns code, so that a failure is `return CHT_FAIL(err, CHT_IO, "...", ...)`. */
enum cht_rc cht_err_set(struct cht_err *err, enum cht_rc code, int sys, const char *file, int line,
                        const char *fmt, ...) __attribute__((format(printf, 6, 7)));
#define CHT_FAIL(err, code, ...) \
    ((void)cht_err_set((err), (code), 0, __FILE__, __LINE__, __VA_ARGS__), (code))
/* Damage found in stored bytes: the one place to set a breakpoint. Message names file and offset. */
#define CHT_DAMAGED(err, ...) \
    ((void)cht_err_set((err), CHT_CORRUPT, 0, __FILE__, __LINE__, __VA_ARGS__), CHT_CORRUPT)

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
