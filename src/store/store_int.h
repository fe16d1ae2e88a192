/* store_int: the store interface as those see it that implement it: a table of functions, and what every handle begins with. store.c
 * checks the arguments of a call and passes it on. cheetah/store.h, children.h, scan.h, sweep.h and backup.h say what each function does.
 * Private to src/store. db_store.h has the implementation on files.
 */
#pragma once

#include "cheetah/backup.h"
#include "cheetah/changes.h"
#include "cheetah/children.h"
#include "cheetah/scan.h"
#include "cheetah/store.h"
#include "cheetah/sweep.h"

struct cht_store_ops {
    bool remote; /* cht_store_remote */
    enum cht_rc (*get)(struct cht_store *, uint64_t, struct cht_buf *, uint32_t *, struct cht_wait *,
                       struct cht_err *);
    enum cht_rc (*pair)(struct cht_store *, struct cht_str, uint64_t *, struct cht_wait *, struct cht_err *);
    enum cht_rc (*pair_value)(struct cht_store *, struct cht_str, struct cht_pair_value *, struct cht_wait *,
                              struct cht_err *);
    enum cht_rc (*pair_values)(struct cht_store *, struct cht_pair_read *, size_t, struct cht_buf *,
                               struct cht_wait *, struct cht_err *); /* all rc CHT_PENDING, out empty */
    void (*forget)(struct cht_store *, struct cht_wait *);
    enum cht_rc (*lock)(struct cht_store *, const char *, struct cht_err *); /* NULL: no other process */
    void (*unlock)(struct cht_store *, const char *);
    enum cht_rc (*locks_kept)(struct cht_store *, struct cht_err *); /* NULL with lock */
    bool (*enter)(struct cht_store *, struct cht_wait *);
    void (*leave)(struct cht_store *);
    size_t (*prefetch)(struct cht_store *, const struct cht_hint *, size_t);
    bool (*settle)(struct cht_store *, bool); /* NULL: nothing ends, and nobody else writes */
    enum cht_rc (*count)(struct cht_store *, struct cht_str, uint64_t *, struct cht_wait *, struct cht_err *);
    enum cht_rc (*children)(struct cht_store *, const struct cht_children_config *, struct cht_err *);
    enum cht_rc (*value_open)(struct cht_store *, uint64_t, struct cht_value **, uint32_t *,
                              struct cht_wait *, struct cht_err *);
    enum cht_rc (*value_read)(struct cht_value *, uint32_t, void *, size_t, size_t *, struct cht_err *);
    void (*value_close)(struct cht_value *);
    enum cht_rc (*commit)(struct cht_store *, struct cht_commit *);
    enum cht_rc (*submit)(struct cht_store *, struct cht_commit *);
    void (*submit_all)(struct cht_store *, struct cht_commit *); /* NULL: one after the other */
    bool many; /* these two take the many operations of a commit; else many.c makes an array of them */
    enum cht_rc (*checkpoint)(struct cht_store *, struct cht_err *);
    enum cht_rc (*stats)(struct cht_store *, struct cht_store_stats *, struct cht_err *);
    /* NULL, both: stats does not wait */
    void (*stats_ask)(struct cht_store *);
    bool (*stats_kept)(struct cht_store *, struct cht_store_stats *, uint64_t *);
    enum cht_rc (*shape)(struct cht_store *, struct cht_shape_stat *, struct cht_err *);
    enum cht_rc (*lengths)(struct cht_store *, void (*)(void *, const struct cht_length_stat *), void *,
                           struct cht_err *);
    enum cht_rc (*shards)(struct cht_store *, void (*)(void *, const struct cht_shard_stat *), void *,
                          struct cht_err *);
    enum cht_rc (*scrub)(struct cht_store *, struct cht_scrub *, struct cht_err *);
    enum cht_rc (*scan_open)(struct cht_store *, const struct cht_scan_config *, struct cht_scan **,
                             struct cht_err *);
    enum cht_rc (*scan_next)(struct cht_scan *, bool wait, struct cht_entry *, size_t, size_t *,
                             struct cht_err *);
    bool (*scan_exhausted)(const struct cht_scan *);
    void (*scan_cancel)(struct cht_scan *);
    void (*scan_close)(struct cht_scan *);
    size_t (*scan_memory)(const struct cht_scan *);
    enum cht_rc (*sweep)(struct cht_store *, const struct cht_sweep_config *, struct cht_err *);
    struct cht_watches *(*watches)(struct cht_store *);
    enum cht_rc (*changes_open)(struct cht_store *, struct cht_str, uint64_t, struct cht_changes **,
                                struct cht_err *);
    enum cht_rc (*changes_range)(struct cht_store *, struct cht_changes_range *, struct cht_err *);
    enum cht_rc (*backup_open)(struct cht_store *, struct cht_backup **, struct cht_err *);
};

struct cht_changes_ops { /* cheetah/changes.h */
    void (*close)(struct cht_changes *);
    enum cht_rc (*next)(struct cht_changes *, bool (*)(void *, const struct cht_change *), void *,
                        struct cht_err *);
    enum cht_rc (*await)(struct cht_changes *, struct cht_wait *);
    void (*forget)(struct cht_changes *);
    uint64_t (*position)(const struct cht_changes *);
};

struct cht_backup_ops { /* cheetah/backup.h */
    enum cht_rc (*read)(struct cht_backup *, uint8_t *, size_t, size_t *, struct cht_err *);
    void (*close)(struct cht_backup *);
};

/* What cheetah/store.h says of the environment. */
struct cht_env_ops {
    enum cht_rc (*close)(struct cht_env *, struct cht_err *);
    void (*abandon)(struct cht_env *);
    void (*quiet)(struct cht_env *);
    enum cht_rc (*create)(struct cht_env *, const char *, unsigned, struct cht_err *);
    enum cht_rc (*get)(struct cht_env *, const char *, struct cht_store **, struct cht_err *);
    enum cht_rc (*release)(struct cht_env *, const char *, bool *, struct cht_err *);
    enum cht_rc (*is_clean)(struct cht_env *, const char *, bool *, struct cht_err *);
    enum cht_rc (*drop)(struct cht_env *, const char *, struct cht_err *);
    enum cht_rc (*list)(struct cht_env *, void (*)(void *, const char *), void *, struct cht_err *);
    enum cht_rc (*finish)(struct cht_env *, void (*)(void *, const char *, enum cht_rc, const char *), void *,
                          struct cht_err *);
    bool (*unfinished)(const struct cht_env *);
    enum cht_rc (*health)(struct cht_env *, struct cht_err *); /* NULL: whoever has it open reaches it */
    void (*remote_stats)(struct cht_env *, struct cht_remote_stats *); /* NULL: it lies here */
    /* NULL: it is the struct cht_env of db.h (cht_db_restore_new) */
    enum cht_rc (*restore_new)(struct cht_env *, const char *, struct cht_restore **, struct cht_err *);
};
/* Every environment begins with it. What else is in one only its implementation knows: that on files has struct cht_env (db.h). */
struct cht_env_head {
    const struct cht_env_ops *ops;
};
static inline const struct cht_env_ops *cht_env_ops(const struct cht_env *env)
{
    return ((const struct cht_env_head *)(const void *)env)->ops;
}

/* many.c: for an implementation that does not take them. */
enum cht_rc cht_many_commit(struct cht_store *s, struct cht_commit *c);

/* An implementation embeds these as the first member of its own. */
struct cht_store {
    const struct cht_store_ops *ops;
};
struct cht_value {
    struct cht_store *store;
};
struct cht_scan {
    struct cht_store *store;
};
struct cht_changes {
    const struct cht_changes_ops *ops;
};
struct cht_backup {
    const struct cht_backup_ops *ops;
    struct cht_backup_info info;
};
