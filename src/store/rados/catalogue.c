/* catalogue: see catalogue.h. */
#include "store/rados/catalogue.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "os/code.h"
#include "os/io.h"

#include <string.h>
#include <strings.h>

#define STATE_SIZE (1u + CHT_RDB_UUID + 8u)
#define MAKING_NS UINT64_C(60000000000)
#define PAGE 256u

static void write_state(uint8_t *out, const struct cht_listed *e, char state)
{
    out[0] = (uint8_t)state;
    memcpy(out + 1, e->uuid, CHT_RDB_UUID);
    cht_put64(out + 1 + CHT_RDB_UUID, e->since);
}

static bool read_state(struct cht_str row, struct cht_str value, struct cht_listed *e)
{
    if (row.n < 2 || row.n > CHT_DATABASE_NAME_MAX + 1 || value.n != STATE_SIZE)
        return false;
    *e = (struct cht_listed){.state = (char)value.p[0], .since = cht_get64(value.p + 1 + CHT_RDB_UUID)};
    memcpy(e->name, row.p + 1, row.n - 1);
    memcpy(e->uuid, value.p + 1, CHT_RDB_UUID);
    return true;
}

/* Compares the row with what it was in state `from` (0: it was not there) and makes it what `now` says, in state `to` (0: removes it). */
static int replace(struct cht_renv *env, const struct cht_listed *e, char from, const struct cht_listed *now,
                   char to)
{
    char row[CHT_DATABASE_NAME_MAX + 2];
    uint8_t was[STATE_SIZE], is[STATE_SIZE];
    struct cht_call call = cht_call_write();
    (void)snprintf(row, sizeof row, "d%s", e->name);
    struct cht_str name = {(const uint8_t *)row, strlen(row)};
    write_state(was, e, from);
    write_state(is, now, to);
    cht_call_compare(&call, name, (struct cht_str){was, from != 0 ? STATE_SIZE : 0});
    if (to != 0)
        cht_call_set(&call, name, (struct cht_str){is, STATE_SIZE});
    else
        cht_call_remove(&call, name);
    return cht_call_run(&call, env->link.root, CHT_CATALOGUE);
}

static int change(struct cht_renv *env, const struct cht_listed *e, char from, char to)
{
    return replace(env, e, from, e, to);
}

static void take_entry(void *ctx, struct cht_str row, struct cht_str value)
{
    struct cht_catalogue *l = ctx;
    if (l->n == l->cap && l->rc == CHT_OK) {
        size_t cap = l->cap == 0 ? 64 : l->cap * 2;
        struct cht_listed *v = cht_realloc(l->v, cap * sizeof *v);
        l->rc = v == NULL ? CHT_NO_MEMORY : CHT_OK;
        l->v = v != NULL ? v : l->v;
        l->cap = v != NULL ? cap : l->cap;
    }
    if (l->rc == CHT_OK && !read_state(row, value, &l->v[l->n++]))
        l->rc = CHT_CORRUPT;
}

/* One page of the catalogue, after a row. */
static enum cht_rc list_page(struct cht_renv *env, const char *after, struct cht_catalogue *l, bool *more,
                             struct cht_err *err)
{
    struct cht_call call = cht_call_read();
    rados_omap_iter_t it = NULL;
    unsigned char pmore = 0;
    int part = 0;
    char *k = NULL, *v = NULL;
    size_t kn = 0, vn = 0;
    rados_read_op_omap_get_vals2(call.r, after, "d", PAGE, &it, &pmore, &part);
    int r = cht_call_run(&call, env->link.root, CHT_CATALOGUE);
    while (r == 0 && it != NULL && rados_omap_get_next2(it, &k, &v, &kn, &vn) == 0 && k != NULL)
        take_entry(l, (struct cht_str){(const uint8_t *)k, kn}, (struct cht_str){(const uint8_t *)v, vn});
    if (it != NULL)
        rados_omap_get_end(it);
    *more = pmore != 0;
    return r < 0 ? cht_link_answer(&env->link, r, CHT_CATALOGUE, err) : CHT_OK;
}

static void take_one(void *ctx, struct cht_str row, struct cht_str value)
{
    struct cht_catalogue *l = ctx;
    l->rc = read_state(row, value, l->v) ? CHT_OK : CHT_CORRUPT;
    l->n = 1;
}

static enum cht_rc admit(struct cht_renv *env, const char *name, struct cht_err *err)
{
    struct cht_catalogue l;
    enum cht_rc rc = cht_catalogue_list(env, &l, err);
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
    int r = cht_call_run(&call, env->link.root, CHT_CATALOGUE);
    return cht_os_code(r) == CHT_OS_THERE ? CHT_OK : cht_link_answer(&env->link, r, CHT_CATALOGUE, err);
}

/* The row was not as it was. CHT_OK: one's own word of a moment ago was written, though its answer did not come; e is as the row now. */
static enum cht_rc look_again(struct cht_renv *env, struct cht_listed *e, struct cht_err *err)
{
    struct cht_listed now;
    enum cht_rc rc = cht_catalogue_find(env, e->name, &now, err);
    if (rc == CHT_OK &&
        (now.state != e->state || now.since == e->since || memcmp(now.uuid, e->uuid, sizeof now.uuid) != 0))
        rc = CHT_FAIL(err, CHT_DATABASE_BUSY, "another server has given up the database %s", e->name);
    if (rc == CHT_OK)
        e->since = now.since;
    return rc;
}

/* By who makes it. */
static enum cht_rc change_own(struct cht_renv *env, struct cht_listed *e, char to, uint64_t since,
                              struct cht_err *err)
{
    struct cht_listed now = *e;
    enum cht_rc rc = CHT_OK;
    int r = 0;
    now.since = since;
    while (rc == CHT_OK && cht_os_code(r = replace(env, e, e->state, &now, to)) == CHT_OS_CANCELED)
        rc = look_again(env, e, err);
    return rc == CHT_OK ? cht_link_answer(&env->link, r, CHT_CATALOGUE, err) : rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_catalogue_open(struct cht_renv *env, struct cht_err *err)
{
    const char *name = "format";
    size_t len = 6;
    uint32_t format = 0;
    enum cht_rc rc = env->cfg.look ? CHT_OK : make_catalogue(env, err);
    if (rc != CHT_OK)
        return rc;
    int r = cht_link_rows(env->link.root, CHT_CATALOGUE, &(struct cht_rows_wanted){&name, &len, 1},
                          take_format, &format);
    if (env->cfg.look && cht_os_code(r) == CHT_OS_NOT_THERE)
        return CHT_FAIL(err, CHT_NOT_FOUND, "there are no databases in pool %s", env->pool);
    if (r < 0)
        return cht_link_answer(&env->link, r, CHT_CATALOGUE, err);
    if (format != CHT_RDB_FORMAT)
        return CHT_FAIL(err, CHT_VERSION, "pool %s has databases of format %u; this program knows %u",
                        env->pool, format, CHT_RDB_FORMAT);
    return CHT_OK;
}

enum cht_rc cht_catalogue_list(struct cht_renv *env, struct cht_catalogue *l, struct cht_err *err)
{
    char after[CHT_DATABASE_NAME_MAX + 2] = "";
    bool more = true;
    enum cht_rc rc = CHT_OK;
    *l = (struct cht_catalogue){0};
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

enum cht_rc cht_catalogue_find(struct cht_renv *env, const char *name, struct cht_listed *e,
                               struct cht_err *err)
{
    char row[CHT_DATABASE_NAME_MAX + 2];
    const char *p = row;
    struct cht_catalogue l = {.v = e};
    *e = (struct cht_listed){0};
    if (!cht_database_name_valid(name))
        return CHT_FAIL(err, CHT_INVALID_DATABASE_NAME, "'%.80s': %s", name,
                        cht_rc_text(CHT_INVALID_DATABASE_NAME));
    (void)snprintf(row, sizeof row, "d%s", name);
    size_t n = strlen(row);
    int r = cht_link_rows(env->link.root, CHT_CATALOGUE, &(struct cht_rows_wanted){&p, &n, 1}, take_one, &l);
    if (r < 0)
        return cht_link_answer(&env->link, r, CHT_CATALOGUE, err);
    if (l.rc != CHT_OK)
        return CHT_FAIL(err, CHT_CORRUPT, "the row of database %s cannot be read", name);
    if (l.n == 0)
        (void)snprintf(e->name, sizeof e->name, "%s", name);
    return CHT_OK;
}

enum cht_rc cht_catalogue_remove(struct cht_renv *env, struct cht_listed *e, struct cht_err *err)
{
    if (e->state != 'd') {
        if (env->cfg.step != NULL)
            env->cfg.step(env->cfg.step_ctx, "drop");
        int r = change(env, e, e->state, 'd');
        if (cht_os_code(r) == CHT_OS_CANCELED)
            return CHT_FAIL(err, CHT_DATABASE_BUSY, "database %s is being changed by another server",
                            e->name);
        if (r < 0)
            return cht_link_answer(&env->link, r, CHT_CATALOGUE, err);
    }
    if (env->cfg.step != NULL)
        env->cfg.step(env->cfg.step_ctx, "dropping");
    enum cht_rc rc = cht_rdb_unmake(env, e->uuid, err);
    if (rc != CHT_OK)
        return rc;
    int r = change(env, e, 'd', 0);
    return cht_os_code(r) == CHT_OS_CANCELED ? CHT_OK : cht_link_answer(&env->link, r, CHT_CATALOGUE, err);
}

bool cht_listed_is_left(const struct cht_listed *e)
{
    uint64_t now = cht_wall_ns();
    return e->state == 'd' || (e->state == 'c' && e->since + MAKING_NS < now) ||
           (e->state == 'r' && e->since + CHT_RESTORING_NS < now);
}

/* The name is free, or it is answered why not. What a server that ended on the way left of it is removed. */
static enum cht_rc take_place(struct cht_renv *env, const char *name, struct cht_listed *e,
                              struct cht_err *err)
{
    enum cht_rc rc = cht_catalogue_find(env, name, e, err);
    if (rc == CHT_OK && e->state == 'l')
        return CHT_FAIL(err, CHT_DATABASE_EXISTS, "database %s exists already", name);
    if (rc == CHT_OK && cht_listed_is_left(e)) {
        rc = cht_catalogue_remove(env, e, err);
        e->state = 0;
    }
    if (rc == CHT_OK && e->state != 0)
        return CHT_FAIL(err, CHT_DATABASE_BUSY, "database %s is being made, restored or dropped", name);
    return rc == CHT_OK ? admit(env, name, err) : rc;
}

enum cht_rc cht_catalogue_begin(struct cht_renv *env, const char *name, unsigned shards, char state,
                                struct cht_listed *e, struct cht_err *err)
{
    unsigned level;
    enum cht_rc rc = level_of(env, shards, &level, err);
    if (rc == CHT_OK)
        rc = take_place(env, name, e, err);
    if (rc != CHT_OK)
        return rc;
    new_uuid(e->uuid);
    e->since = cht_wall_ns();
    int r = change(env, e, 0, state);
    if (cht_os_code(r) == CHT_OS_CANCELED)
        return CHT_FAIL(err, CHT_DATABASE_BUSY, "database %s is being made by another server", name);
    if (r < 0)
        return cht_link_answer(&env->link, r, CHT_CATALOGUE, err);
    e->state = state;
    rc = cht_rdb_make(env, e->uuid, level, err);
    if (rc != CHT_OK && rc != CHT_TIMEOUT)
        (void)cht_catalogue_remove(env, e, NULL); /* else it is unfinished work */
    return rc;
}

enum cht_rc cht_catalogue_end(struct cht_renv *env, struct cht_listed *e, struct cht_err *err)
{
    enum cht_rc rc = change_own(env, e, 'l', e->since, err);
    if (rc == CHT_DATABASE_BUSY)
        (void)cht_rdb_unmake(env, e->uuid,
                             NULL); /* its objects may be newer than that server's look for them */
    else if (rc != CHT_OK && rc != CHT_TIMEOUT)
        (void)cht_catalogue_remove(env, e, NULL); /* else it is unfinished work, or live */
    return rc;
}

enum cht_rc cht_catalogue_go_on(struct cht_renv *env, struct cht_listed *e, struct cht_err *err)
{
    uint64_t now = cht_wall_ns();
    enum cht_rc rc = change_own(env, e, e->state, now, err);
    if (rc == CHT_OK)
        e->since = now;
    return rc;
}
