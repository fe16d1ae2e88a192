/* place_rados: see place_rados.h. */
#include "tools/place_rados.h"

#include "cheetah/rados.h"
#include "os/io.h"
#include "tools/tools.h"

#include <stdio.h>
#include <string.h>

/* What the cluster decides, or what is about files. */
static const char *const of_files[] = {
    "data",        "durability",           "sync-interval-ms",       "scan-workers",
    "dirty-bytes", "checkpoint-log-bytes", "scrub-bytes-per-second", "value-order",
    "read-ahead"};
static const char *const of_rados[] = {"rados-pool",    "rados-conf",  "rados-id",
                                       "rados-timeout", "rados-spool", "rados-spool-bytes"};

enum cht_rc tool_rados_check(const struct conf *c, struct cht_err *err)
{
    bool rados = tool_rados_wanted(c);
    for (size_t i = 0; i < sizeof of_rados / sizeof *of_rados && !rados; i++) {
        if (conf_given(c, of_rados[i]))
            return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--%s is for --store rados", of_rados[i]);
    }
    for (size_t i = 0; i < sizeof of_files / sizeof *of_files && rados; i++) {
        if (conf_given(c, of_files[i]))
            return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--%s means nothing with --store rados", of_files[i]);
    }
    if (rados && c->rados_pool[0] == 0)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "--store rados needs --rados-pool");
#ifndef CHEETAH_RADOS
    if (rados)
        return CHT_FAIL(err, CHT_INVALID_ARGUMENT,
                        "this program was built without --store rados (-DCHEETAH_RADOS=ON)");
#endif
    return CHT_OK;
}

int tool_rados_options(const char *command, const struct tool_rados *r, const char *other)
{
    const char *wrong = NULL;
    char text[96];
    if (!tool_rados_named(r) && (r->pool != NULL || r->conf != NULL || r->id != NULL || r->timeout > 0))
        wrong = "--rados-... is for --store rados";
    else if (tool_rados_named(r) && strcmp(r->store, "rados") != 0)
        wrong = "--store is rados; files are --data";
    else if (tool_rados_named(r) && other != NULL) {
        (void)snprintf(text, sizeof text, "--store rados is a place of its own, and so is %.40s", other);
        wrong = text;
    } else if (tool_rados_named(r) && r->pool == NULL)
        wrong = "--store rados needs --rados-pool";
#ifndef CHEETAH_RADOS
    else if (tool_rados_named(r))
        wrong = "this program was built without --store rados (-DCHEETAH_RADOS=ON)";
#endif
    return wrong == NULL ? TOOL_EXIT_OK : tool_usage(command, wrong);
}

#ifdef CHEETAH_RADOS
static struct cht_rados_config pool_config(const struct tool_rados *r)
{
    return (struct cht_rados_config){.pool = r->pool,
                                     .conf = r->conf,
                                     .id = r->id,
                                     .timeout_seconds = (unsigned)r->timeout,
                                     .spool_dir = r->spool,
                                     .spool_bytes = r->spool != NULL ? UINT64_MAX / 2 : 0,
                                     .max_value_size = CHT_VALUE_MAX};
}

enum cht_rc tool_rados_open(const struct conf *c, struct cht_env **out, struct cht_err *err)
{
    const struct cht_rados_config cfg = {.pool = c->rados_pool,
                                         .conf = c->rados_conf[0] != 0 ? c->rados_conf : NULL,
                                         .id = c->rados_id[0] != 0 ? c->rados_id : NULL,
                                         .timeout_seconds = (unsigned)c->rados_timeout,
                                         .spool_dir = c->rados_spool,
                                         .spool_bytes = c->rados_spool_bytes,
                                         .changes_bytes =
                                             c->changes_bytes > 0 ? c->changes_bytes : CHT_CHANGES_NONE,
                                         .default_shards = (unsigned)c->shards,
                                         .max_value_size = (uint32_t)c->max_value_size,
                                         .max_databases = c->max_databases};
    cht_os_few_heaps(); /* librados receives on its threads what ours free */
    return cht_rados_open(&cfg, out, err);
}

enum cht_rc tool_rados_open_pool(const struct tool_rados *r, bool writes, struct cht_env **out,
                                 struct cht_err *err)
{
    struct cht_rados_config cfg = pool_config(r);
    cfg.look = !writes;
    return cht_rados_open(&cfg, out, err);
}

enum cht_rc tool_rados_verify(const struct tool_rados *r, const char *database,
                              void (*finding)(void *ctx, const char *where, const char *what),
                              void (*notice)(void *ctx, const char *database, const char *what), void *ctx,
                              uint64_t *findings, struct cht_err *err)
{
    const struct cht_rados_config cfg = pool_config(r);
    struct cht_rados_check check = {.database = database, .finding = finding, .notice = notice, .ctx = ctx};
    enum cht_rc rc = cht_rados_check(&cfg, &check, err);
    *findings = check.findings;
    return rc;
}
#else
static enum cht_rc not_built(struct cht_err *err)
{
    return CHT_FAIL(err, CHT_INVALID_ARGUMENT, "there is no --store rados in this program");
}

enum cht_rc tool_rados_open(const struct conf *c, struct cht_env **out, struct cht_err *err)
{
    (void)c;
    (void)out;
    return not_built(err);
}

enum cht_rc tool_rados_open_pool(const struct tool_rados *r, bool writes, struct cht_env **out,
                                 struct cht_err *err)
{
    (void)r;
    (void)writes;
    (void)out;
    return not_built(err);
}

enum cht_rc tool_rados_verify(const struct tool_rados *r, const char *database,
                              void (*finding)(void *ctx, const char *where, const char *what),
                              void (*notice)(void *ctx, const char *database, const char *what), void *ctx,
                              uint64_t *findings, struct cht_err *err)
{
    (void)r;
    (void)database;
    (void)finding;
    (void)notice;
    (void)ctx;
    (void)findings;
    return not_built(err);
}
#endif
