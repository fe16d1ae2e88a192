/* rados: an environment whose databases lie in a pool of a Ceph cluster (src/store/rados/README.md). All of cheetah/store.h works on it
 * but for what answers CHT_NOT_SUPPORTED. Several processes may have the same pool open: what one has written the others read.
 *
 * What is different from files: an answer takes round trips to other machines. CHT_TIMEOUT: the cluster did not answer in time; of a
 * write it says nothing about whether it was done. CHT_DATABASE_DROPPED: another process has dropped the database. A commit that is
 * not atomic may be partly there after a crash of the process.
 *
 * Only in builds with librados (-DCHEETAH_RADOS=ON).
 */
#pragma once

#include "cheetah/store.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define CHT_SPOOL_BYTES (UINT64_C(8) << 30)
struct cht_rados_config {
    const char *pool;         /* a replicated pool that is there */
    const char *conf;         /* the file ceph.conf; NULL: where Ceph looks for it */
    const char *id;           /* of the user, without "client."; NULL: admin */
    unsigned timeout_seconds; /* of one operation; 0: 10 */
    unsigned
        settle_ms; /* how long the transaction of another process may stand still before it is ended; 0: 5000 */
    unsigned threads;        /* that wait for the cluster; 0: 32, at most 64 */
    unsigned default_shards; /* a power of two; 0: 8 */
    uint32_t max_value_size; /* 0: CHT_VALUE_DEFAULT_MAX */
    uint64_t split_pairs;    /* a shard with more pairs is divided into two (cht_env_quiet); 0: 100000 */
    uint64_t max_databases;  /* as in struct cht_env_config */
    unsigned
        queue_ops; /* of all commits of a database that are under way: more are CHT_OVERLOADED; 0: 65536 */
    size_t
        read_bytes; /* of rows that the operations of a commit look at, and of the names under a prefix that it deletes; 0: 128 MiB */
    uint64_t
        changes_bytes; /* as in struct cht_env_config: how much a database keeps of what changed, once somebody has asked; 0: 64 MiB */
    const char *
        spool_dir; /* where a backup of files is laid out while it is restored (cheetah/backup.h), without a name; NULL: /var/tmp */
    uint64_t spool_bytes; /* what all of them may occupy there; 0: CHT_SPOOL_BYTES */
    bool look; /* a pool in which no server has made anything is CHT_NOT_FOUND, and opening writes nothing */
    /* Tests: called before each step of a protocol with its name. NULL: nobody wants to know. */
    void (*step)(void *ctx, const char *name);
    void *step_ctx;
};

/* Connects. CHT_TIMEOUT: no monitor answers; CHT_NOT_FOUND: there is no such pool, or with `look` no database was ever made in it; CHT_IO: what librados says; CHT_VERSION: the pool was
 * written by another version. Nothing may fork between this and cht_env_close. */
enum cht_rc cht_rados_open(const struct cht_rados_config *cfg, struct cht_env **out, struct cht_err *err);

/* Is what is in the pool as it should be: rows, values, names and keys that belong together, counters? Only reads (config.look is
 * taken for set), beside servers that write; what they write meanwhile is no finding. Like any reader it goes on with a transaction that was
 * committed and that it finds unfinished. */
struct cht_rados_check {
    const char *database; /* NULL: all */
    void (*finding)(void *ctx, const char *where, const char *what);
    void (*notice)(void *ctx, const char *database, const char *what); /* what was not looked at; NULL */
    void *ctx;
    uint64_t findings; /* out */
};
/* As cht_rados_open, and CHT_DATABASE_NOT_FOUND, CHT_NO_MEMORY. With CHT_OK all was looked at but for what was noticed. */
enum cht_rc cht_rados_check(const struct cht_rados_config *cfg, struct cht_rados_check *check,
                            struct cht_err *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
