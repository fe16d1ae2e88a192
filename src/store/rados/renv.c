/* renv: the databases of a pool (cheetah/rados.h).
 *
 * The object `cheetah` in the namespace "": row `format` -> u32, and a row a database:
 *
 *   d<name> -> state (c: being made, l: live, d: being dropped) | uuid, 32 hexadecimal digits | u64 ns since 1970 when it began
 *
 * Every change compares the row as it was. Made: (none) -> c, objects, -> l. Dropped: l -> d, objects, row. What stands in c for
 * MAKING_NS or in d at all is unfinished work: cht_env_finish makes c d, and removes the objects and the row; whoever was still at it finds
 * its compare refused.
 */
#include "store/rados/care.h"
#include "store/rados/rowset.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "os/code.h"
#include "os/io.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CATALOGUE "cheetah"
#define STATE_SIZE (1u + CHT_RDB_UUID + 8u)
#define MAKING_NS UINT64_C(60000000000)
#define PAGE 256u

struct entry {
    char name[CHT_DATABASE_NAME_MAX + 1];
    char state;
    char uuid[CHT_RDB_UUID + 1];
    uint64_t since;
};
struct list {
    struct entry *v; /* owned */
    size_t n, cap;
    enum cht_rc rc;
};

static struct cht_renv *of(struct cht_env *env) { return (struct cht_renv *)(void *)env; }
static const struct cht_renv *of_const(const struct cht_env *env)
{
    return (const struct cht_renv *)(const void *)env;
}

static void write_state(uint8_t *out, const struct entry *e, char state)
{
    out[0] = (uint8_t)state;
    memcpy(out + 1, e->uuid, CHT_RDB_UUID);
    cht_put64(out + 1 + CHT_RDB_UUID, e->since);
}

static bool read_state(struct cht_str row, struct cht_str value, struct entry *e)
{
    if (row.n < 2 || row.n > CHT_DATABASE_NAME_MAX + 1 || value.n != STATE_SIZE)
        return false;
    *e = (struct entry){.state = (char)value.p[0], .since = cht_get64(value.p + 1 + CHT_RDB_UUID)};
    memcpy(e->name, row.p + 1, row.n - 1);
    memcpy(e->uuid, value.p + 1, CHT_RDB_UUID);
    return true;
}

/* Compares the row with the state it had (0: it was not there) and sets it (0: removes it). */
static int change(struct cht_renv *env, const struct entry *e, char from, char to)
{
    char row[CHT_DATABASE_NAME_MAX + 2];
    uint8_t was[STATE_SIZE], now[STATE_SIZE];
    struct cht_call call = cht_call_write();
    (void)snprintf(row, sizeof row, "d%s", e->name);
    struct cht_str name = {(const uint8_t *)row, strlen(row)};
    write_state(was, e, from);
    write_state(now, e, to);
    cht_call_compare(&call, name, (struct cht_str){was, from != 0 ? STATE_SIZE : 0});
    if (to != 0)
        cht_call_set(&call, name, (struct cht_str){now, STATE_SIZE});
    else
        cht_call_remove(&call, name);
    return cht_call_run(&call, env->link.root, CATALOGUE);
}

static void take_entry(void *ctx, struct cht_str row, struct cht_str value)
{
    struct list *l = ctx;
    if (l->n == l->cap && l->rc == CHT_OK) {
        size_t cap = l->cap == 0 ? 64 : l->cap * 2;
        struct entry *v = cht_realloc(l->v, cap * sizeof *v);
        l->rc = v == NULL ? CHT_NO_MEMORY : CHT_OK;
        l->v = v != NULL ? v : l->v;
        l->cap = v != NULL ? cap : l->cap;
    }
    if (l->rc == CHT_OK && !read_state(row, value, &l->v[l->n++]))
        l->rc = CHT_CORRUPT;
}

/* One page of the catalogue, after a row. */
static enum cht_rc list_page(struct cht_renv *env, const char *after, struct list *l, bool *more,
                             struct cht_err *err)
{
    struct cht_call call = cht_call_read();
    rados_omap_iter_t it = NULL;
    unsigned char pmore = 0;
    int part = 0;
    char *k = NULL, *v = NULL;
    size_t kn = 0, vn = 0;
    rados_read_op_omap_get_vals2(call.r, after, "d", PAGE, &it, &pmore, &part);
    int r = cht_call_run(&call, env->link.root, CATALOGUE);
    while (r == 0 && it != NULL && rados_omap_get_next2(it, &k, &v, &kn, &vn) == 0 && k != NULL)
        take_entry(l, (struct cht_str){(const uint8_t *)k, kn}, (struct cht_str){(const uint8_t *)v, vn});
    if (it != NULL)
        rados_omap_get_end(it);
    *more = pmore != 0;
    return r < 0 ? cht_link_answer(&env->link, r, CATALOGUE, err) : CHT_OK;
}

static enum cht_rc list_all(struct cht_renv *env, struct list *l, struct cht_err *err)
{
    char after[CHT_DATABASE_NAME_MAX + 2] = "";
    bool more = true;
    enum cht_rc rc = CHT_OK;
    *l = (struct list){0};
    while (rc == CHT_OK && more) {
        rc = list_page(env, after, l, &more, err);
        if (rc == CHT_OK && l->rc == CHT_CORRUPT)
            rc = CHT_FAIL(err, CHT_CORRUPT, "the list of databases in pool %s cannot be read", env->pool);
        if (rc == CHT_OK && l->rc != CHT_OK)
            rc = CHT_FAIL(err, l->rc, "no memory for the list of databases");
        more = more && l->n > 0;
        if (rc == CHT_OK && more)
            (void)snprintf(after, sizeof after, "d%s", l->v[l->n - 1].name);
    }
    return rc;
}

static void take_one(void *ctx, struct cht_str row, struct cht_str value)
{
    struct list *l = ctx;
    l->rc = read_state(row, value, l->v) ? CHT_OK : CHT_CORRUPT;
    l->n = 1;
}

/* e->state 0: there is none. */
static enum cht_rc find(struct cht_renv *env, const char *name, struct entry *e, struct cht_err *err)
{
    char row[CHT_DATABASE_NAME_MAX + 2];
    const char *p = row;
    struct list l = {.v = e};
    *e = (struct entry){0};
    if (!cht_database_name_valid(name))
        return CHT_FAIL(err, CHT_INVALID_DATABASE_NAME, "'%.80s': %s", name,
                        cht_rc_text(CHT_INVALID_DATABASE_NAME));
    (void)snprintf(row, sizeof row, "d%s", name);
    size_t n = strlen(row);
    int r = cht_link_rows(env->link.root, CATALOGUE, &(struct cht_rows_wanted){&p, &n, 1}, take_one, &l);
    if (r < 0)
        return cht_link_answer(&env->link, r, CATALOGUE, err);
    if (l.rc != CHT_OK)
        return CHT_FAIL(err, CHT_CORRUPT, "the row of database %s cannot be read", name);
    if (l.n == 0)
        (void)snprintf(e->name, sizeof e->name, "%s", name);
    return CHT_OK;
}

static struct cht_rdb **place_of(struct cht_renv *env, const char *name)
{
    struct cht_rdb **at = &env->open;
    while (*at != NULL && strcmp((*at)->name, name) != 0)
        at = &(*at)->next;
    return at;
}

static struct cht_rdb *find_open(struct cht_renv *env, const char *name)
{
    cht_mutex_lock(&env->mu);
    struct cht_rdb *db = *place_of(env, name);
    cht_mutex_unlock(&env->mu);
    return db;
}

static enum cht_rc admit(struct cht_renv *env, const char *name, struct cht_err *err)
{
    struct list l;
    enum cht_rc rc = list_all(env, &l, err);
    for (size_t i = 0; i < l.n && rc == CHT_OK; i++) {
        if (strcasecmp(l.v[i].name, name) == 0 && strcmp(l.v[i].name, name) != 0)
            rc = CHT_FAIL(err, CHT_DATABASE_CASE, "database %s has this name in other letters", l.v[i].name);
    }
    if (rc == CHT_OK && env->cfg.max_databases > 0 && l.n >= env->cfg.max_databases &&
        strcmp(name, CHT_DATABASE_DEFAULT) != 0)
        rc = CHT_FAIL(err, CHT_TOO_MANY_DATABASES, "%s", cht_rc_text(CHT_TOO_MANY_DATABASES));
    cht_free(l.v);
    return rc;
}

static void new_uuid(char *out)
{
    uint8_t b[CHT_RDB_UUID / 2];
    cht_os_random(b, sizeof b);
    for (size_t i = 0; i < sizeof b; i++)
        (void)snprintf(out + 2 * i, 3, "%02x", b[i]);
}

static enum cht_rc level_of(const struct cht_renv *env, unsigned shards, unsigned *level, struct cht_err *err)
{
    unsigned n = shards != 0 ? shards : env->cfg.default_shards;
    *level = 0;
    while (*level < CHT_MAP_LEVEL_MAX && 1u << *level < n)
        ++*level;
    if (n > 1u << CHT_MAP_LEVEL_MAX)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%u shards; at most %u", n, 1u << CHT_MAP_LEVEL_MAX);
    return CHT_OK; /* the next power of two */
}

/* l or c -> d, objects, row. */
static enum cht_rc remove_all(struct cht_renv *env, struct entry *e, struct cht_err *err)
{
    if (e->state != 'd') {
        if (env->cfg.step != NULL)
            env->cfg.step(env->cfg.step_ctx, "drop");
        int r = change(env, e, e->state, 'd');
        if (cht_os_code(r) == CHT_OS_CANCELED)
            return CHT_FAIL(err, CHT_DATABASE_BUSY, "database %s is being changed by another server",
                            e->name);
        if (r < 0)
            return cht_link_answer(&env->link, r, CATALOGUE, err);
    }
    if (env->cfg.step != NULL)
        env->cfg.step(env->cfg.step_ctx, "dropping");
    enum cht_rc rc = cht_rdb_unmake(env, e->uuid, err);
    if (rc != CHT_OK)
        return rc;
    int r = change(env, e, 'd', 0);
    return cht_os_code(r) == CHT_OS_CANCELED ? CHT_OK : cht_link_answer(&env->link, r, CATALOGUE, err);
}

/* A deletion that was begun, or a creation that takes too long. */
static bool is_left(const struct entry *e)
{
    return e->state == 'd' || (e->state == 'c' && e->since + MAKING_NS < cht_wall_ns());
}

static enum cht_rc make(struct cht_renv *env, const char *name, unsigned shards, struct cht_err *err)
{
    struct entry e;
    unsigned level;
    enum cht_rc rc = level_of(env, shards, &level, err);
    if (rc == CHT_OK)
        rc = find(env, name, &e, err);
    if (rc == CHT_OK && e.state == 'l')
        return CHT_FAIL(err, CHT_DATABASE_EXISTS, "database %s exists already", name);
    if (rc == CHT_OK && is_left(&e)) { /* of a server that ended on the way */
        rc = remove_all(env, &e, err);
        e.state = 0;
    }
    if (rc == CHT_OK && e.state != 0)
        return CHT_FAIL(err, CHT_DATABASE_BUSY, "database %s is being made or dropped", name);
    if (rc == CHT_OK)
        rc = admit(env, name, err);
    if (rc != CHT_OK)
        return rc;
    new_uuid(e.uuid);
    e.since = cht_wall_ns();
    int r = change(env, &e, 0, 'c');
    if (cht_os_code(r) == CHT_OS_CANCELED)
        return CHT_FAIL(err, CHT_DATABASE_BUSY, "database %s is being made by another server", name);
    if (r < 0)
        return cht_link_answer(&env->link, r, CATALOGUE, err);
    rc = cht_rdb_make(env, e.uuid, level, err);
    if (rc == CHT_OK) {
        r = change(env, &e, 'c', 'l');
        rc = cht_link_answer(&env->link, r, CATALOGUE, err);
        if (cht_os_code(r) == CHT_OS_CANCELED)
            rc = CHT_FAIL(err, CHT_DATABASE_BUSY, "another server has given up the database %s", name);
        if (rc == CHT_DATABASE_BUSY) /* its objects may be newer than that server's look for them */
            (void)cht_rdb_unmake(env, e.uuid, NULL);
    }
    if (rc != CHT_OK && rc != CHT_TIMEOUT) {
        e.state = 'c';
        (void)remove_all(env, &e, NULL); /* else it is unfinished work */
    }
    return rc;
}

/* ---- the table ----------------------------------------------------------------------------------------------------- */

static void renv_free(struct cht_renv *env)
{
    cht_pulse_stop(&env->pulse);
    cht_guards_fini(&env->guards);
    cht_jobs_free(env->jobs);
    cht_link_close(&env->link);
    cht_mutex_fini(&env->making);
    cht_mutex_fini(&env->mu);
    cht_free(env->pool);
    cht_free(env->conf);
    cht_free(env->id);
    cht_free(env);
}

static enum cht_rc renv_close(struct cht_env *base, struct cht_err *err)
{
    struct cht_renv *env = of(base);
    (void)err;
    atomic_store(&env->care.over, true);
    for (;;) {
        cht_mutex_lock(&env->mu);
        struct cht_rdb *db = env->open;
        env->open = db != NULL ? db->next : NULL;
        cht_mutex_unlock(&env->mu);
        if (db == NULL)
            break;
        cht_rdb_close(db);
    }
    renv_free(env);
    return CHT_OK;
}

static void renv_abandon(struct cht_env *base)
{
    (void)renv_close(base, NULL); /* there is nothing to bring home */
}

static void renv_quiet(struct cht_env *base) { cht_care(of(base)); }

static enum cht_rc renv_create(struct cht_env *base, const char *name, unsigned shards, struct cht_err *err)
{
    struct cht_renv *env = of(base);
    cht_mutex_lock(&env->making);
    enum cht_rc rc = make(env, name, shards, err);
    cht_mutex_unlock(&env->making);
    return rc;
}

static enum cht_rc renv_get(struct cht_env *base, const char *name, struct cht_store **out,
                            struct cht_err *err)
{
    struct cht_renv *env = of(base);
    struct entry e;
    struct cht_rdb *db = find_open(env, name);
    if (db != NULL) { /* whatever the cluster does */
        *out = &db->base;
        return CHT_OK;
    }
    cht_mutex_lock(&env->making);
    db = find_open(env, name);
    enum cht_rc rc = db == NULL ? find(env, name, &e, err) : CHT_OK;
    if (rc == CHT_OK && db == NULL && e.state != 'l')
        rc = CHT_FAIL(err, CHT_DATABASE_NOT_FOUND, "no database %s", name);
    if (rc == CHT_OK && db == NULL) {
        rc = cht_rdb_open(env, name, e.uuid, &db, err);
        if (rc == CHT_OK) {
            cht_mutex_lock(&env->mu);
            db->next = env->open;
            env->open = db;
            cht_mutex_unlock(&env->mu);
        }
    }
    if (rc == CHT_OK)
        *out = &db->base;
    cht_mutex_unlock(&env->making);
    return rc;
}

static void close_open(struct cht_renv *env, const char *name)
{
    cht_mutex_lock(&env->mu);
    struct cht_rdb **at = place_of(env, name), *db = *at;
    if (db != NULL)
        *at = db->next;
    cht_mutex_unlock(&env->mu);
    if (db != NULL)
        cht_rdb_close(db);
}

static enum cht_rc renv_release(struct cht_env *base, const char *name, bool *closed, struct cht_err *err)
{
    struct cht_renv *env = of(base);
    (void)err;
    cht_mutex_lock(&env->making);
    close_open(env, name);
    *closed = true;
    cht_mutex_unlock(&env->making);
    return CHT_OK;
}

static enum cht_rc renv_is_clean(struct cht_env *base, const char *name, bool *clean, struct cht_err *err)
{
    struct entry e;
    enum cht_rc rc = find(of(base), name, &e, err);
    *clean = true;
    if (rc == CHT_OK && e.state != 'l')
        rc = CHT_FAIL(err, CHT_DATABASE_NOT_FOUND, "no database %s", name);
    return rc;
}

static enum cht_rc renv_drop(struct cht_env *base, const char *name, struct cht_err *err)
{
    struct cht_renv *env = of(base);
    struct entry e;
    cht_mutex_lock(&env->making);
    enum cht_rc rc = find(env, name, &e, err);
    if (rc == CHT_OK && e.state != 'l')
        rc = CHT_FAIL(err, CHT_DATABASE_NOT_FOUND, "no database %s", name);
    if (rc == CHT_OK) {
        close_open(env, name);
        rc = remove_all(env, &e, err);
    }
    cht_mutex_unlock(&env->making);
    return rc;
}

static enum cht_rc renv_list(struct cht_env *base, void (*fn)(void *, const char *), void *ctx,
                             struct cht_err *err)
{
    struct list l;
    enum cht_rc rc = list_all(of(base), &l, err);
    for (size_t i = 0; i < l.n && rc == CHT_OK; i++) {
        if (l.v[i].state == 'l')
            fn(ctx, l.v[i].name);
    }
    cht_free(l.v);
    return rc;
}

static enum cht_rc renv_finish(struct cht_env *base,
                               void (*fn)(void *, const char *, enum cht_rc, const char *), void *ctx,
                               struct cht_err *err)
{
    struct cht_renv *env = of(base);
    struct list l;
    enum cht_rc rc = list_all(env, &l, err);
    for (size_t i = 0; i < l.n && rc == CHT_OK; i++) {
        struct entry *e = &l.v[i];
        struct cht_err why = {0};
        if (!is_left(e))
            continue;
        const char *what =
            e->state == 'c' ? "an unfinished creation is removed" : "an unfinished deletion is completed";
        enum cht_rc one = remove_all(env, e, &why);
        fn(ctx, e->name, one, one == CHT_OK ? what : why.msg);
    }
    cht_free(l.v);
    return rc;
}

static bool renv_unfinished(const struct cht_env *base)
{
    (void)of_const(base);
    return false; /* found at the next start, of any server */
}

static enum cht_rc renv_health(struct cht_env *base, struct cht_err *err)
{
    return cht_pulse_ask(&of(base)->pulse, err);
}

static uint64_t of_counter(const _Atomic uint64_t *v)
{
    return atomic_load_explicit(v, memory_order_relaxed);
}

static void renv_remote_stats(struct cht_env *base, struct cht_remote_stats *out)
{
    struct cht_renv *env = of(base);
    const struct cht_call_counts *c = &cht_call_counts;
    *out = (struct cht_remote_stats){.reads = of_counter(&c->reads),
                                     .writes = of_counter(&c->writes),
                                     .read_ns = of_counter(&c->read_ns),
                                     .write_ns = of_counter(&c->write_ns),
                                     .refused = of_counter(&c->refused),
                                     .timeouts = of_counter(&c->timeouts),
                                     .failed = of_counter(&c->failed),
                                     .reconnects = atomic_load(&env->link.made),
                                     .silent_ns = cht_pulse_silent(&env->pulse),
                                     .locks = atomic_load(&env->guards.locks),
                                     .locks_lost = atomic_load(&env->guards.lost),
                                     .full = atomic_load(&env->link.full)};
    cht_mutex_lock(&env->mu);
    for (const struct cht_rdb *db = env->open; db != NULL; db = db->next)
        out->waiting += of_counter(&db->waiting);
    cht_mutex_unlock(&env->mu);
}

static const struct cht_env_ops renv_ops = {
    .close = renv_close,
    .abandon = renv_abandon,
    .quiet = renv_quiet,
    .create = renv_create,
    .get = renv_get,
    .release = renv_release,
    .is_clean = renv_is_clean,
    .drop = renv_drop,
    .list = renv_list,
    .finish = renv_finish,
    .unfinished = renv_unfinished,
    .health = renv_health,
    .remote_stats = renv_remote_stats,
};

static enum cht_rc copy_config(struct cht_renv *env, const struct cht_rados_config *cfg, struct cht_err *err)
{
    env->cfg = *cfg;
    env->cfg.settle_ms = cfg->settle_ms != 0 ? cfg->settle_ms : 5000;
    env->cfg.threads = cfg->threads != 0 ? cfg->threads : 32;
    env->cfg.queue_ops = cfg->queue_ops != 0 ? cfg->queue_ops : 65536;
    env->cfg.read_bytes = cfg->read_bytes != 0 ? cfg->read_bytes : CHT_ROWSET_READ_MAX;
    env->cfg.split_pairs = cfg->split_pairs != 0 ? cfg->split_pairs : 100000;
    env->cfg.default_shards = cfg->default_shards != 0 ? cfg->default_shards : 8;
    env->cfg.max_value_size = cfg->max_value_size != 0 ? cfg->max_value_size : CHT_VALUE_DEFAULT_MAX;
    env->pool = cht_strdup(cfg->pool);
    env->conf = cfg->conf != NULL ? cht_strdup(cfg->conf) : NULL;
    env->id = cfg->id != NULL ? cht_strdup(cfg->id) : NULL;
    if (env->pool == NULL || (cfg->conf != NULL && env->conf == NULL) || (cfg->id != NULL && env->id == NULL))
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the environment");
    env->cfg.pool = env->pool;
    env->cfg.conf = env->conf;
    env->cfg.id = env->id;
    return CHT_OK;
}

static void take_format(void *ctx, struct cht_str row, struct cht_str value)
{
    (void)row;
    *(uint32_t *)ctx = value.n == 4 ? cht_get32(value.p) : UINT32_MAX;
}

static enum cht_rc make_catalogue(struct cht_renv *env, struct cht_err *err)
{
    uint8_t one[4];
    struct cht_call call = cht_call_write();
    cht_put32(one, CHT_RDB_FORMAT);
    rados_write_op_create(call.w, LIBRADOS_CREATE_EXCLUSIVE, NULL);
    cht_call_set(&call, CHT_ROW_TEXT("format"), (struct cht_str){one, 4});
    int r = cht_call_run(&call, env->link.root, CATALOGUE);
    return cht_os_code(r) == CHT_OS_THERE ? CHT_OK : cht_link_answer(&env->link, r, CATALOGUE, err);
}

/* Made if it is not there, but not by one that only looks: the pool may be named by mistake. */
static enum cht_rc open_catalogue(struct cht_renv *env, struct cht_err *err)
{
    const char *name = "format";
    size_t len = 6;
    uint32_t format = 0;
    enum cht_rc rc = env->cfg.look ? CHT_OK : make_catalogue(env, err);
    if (rc != CHT_OK)
        return rc;
    int r = cht_link_rows(env->link.root, CATALOGUE, &(struct cht_rows_wanted){&name, &len, 1}, take_format,
                          &format);
    if (env->cfg.look && cht_os_code(r) == CHT_OS_NOT_THERE)
        return CHT_FAIL(err, CHT_NOT_FOUND, "there are no databases in pool %s", env->pool);
    if (r < 0)
        return cht_link_answer(&env->link, r, CATALOGUE, err);
    if (format != CHT_RDB_FORMAT)
        return CHT_FAIL(err, CHT_VERSION, "pool %s has databases of format %u; this program knows %u",
                        env->pool, format, CHT_RDB_FORMAT);
    return CHT_OK;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_rados_open(const struct cht_rados_config *cfg, struct cht_env **out, struct cht_err *err)
{
    struct cht_renv *env = cht_calloc(1, sizeof *env);
    if (env == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the environment");
    env->head.ops = &renv_ops;
    enum cht_rc rc = cht_mutex_init(&env->mu, err);
    if (rc == CHT_OK)
        rc = cht_mutex_init(&env->making, err);
    if (rc == CHT_OK)
        rc = copy_config(env, cfg, err);
    cht_os_random(&env->key, sizeof env->key);
    if (rc == CHT_OK)
        rc = cht_guards_init(&env->guards, err);
    if (rc == CHT_OK) {
        struct cht_jobs_config jobs = {.name = "cht-rados",
                                       .threads = env->cfg.threads,
                                       .per_owner = env->cfg.threads,
                                       .idle_ns = UINT64_C(10000000000)};
        rc = cht_jobs_new(&jobs, &env->jobs, err);
    }
    if (rc == CHT_OK)
        rc = cht_link_open(&env->cfg, &env->link, err);
    if (rc == CHT_OK)
        rc = open_catalogue(env, err);
    if (rc == CHT_OK)
        env->pulse.reads = env->cfg.look ? CATALOGUE : NULL;
    if (rc == CHT_OK)
        rc = cht_pulse_start(&env->pulse, &env->link, &env->guards, err);
    if (rc != CHT_OK) {
        renv_free(env);
        return rc;
    }
    *out = (struct cht_env *)(void *)env;
    return CHT_OK;
}
