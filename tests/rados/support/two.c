/* two: see two.h. */
#include "rados/support/two.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

struct cht_err err;
struct cht_env *envs[2];
struct cht_store *one, *two;
char name[32];
void (*at_step)(const char *step);
char stop_at[32];

static void step(void *ctx, const char *what)
{
    (void)ctx;
    if (at_step != NULL)
        at_step(what);
}

/* ------------------------------------------------------------------------------------------------------------------ */

void two_stop(const char *what)
{
    if (stop_at[0] != 0 && strcmp(what, stop_at) == 0)
        _exit(9);
}

struct cht_str str(const char *p) { return (struct cht_str){(const uint8_t *)p, strlen(p)}; }

void must(enum cht_rc rc)
{
    if (rc != CHT_OK)
        fail_msg("%s: %s", cht_rc_slug(rc), err.msg);
}

struct cht_rados_config two_config(void)
{
    return (struct cht_rados_config){
        .pool = "cheetah", .conf = getenv("CHT_RADOS_CONF"), .id = getenv("CHT_RADOS_ID")};
}

void two_open_env(struct cht_env **env, struct cht_rados_config cfg, bool steps)
{
    cfg.step = steps ? step : NULL;
    must(cht_rados_open(&cfg, env, &err));
}

void two_new_name(char letter)
{
    static unsigned n;
    (void)snprintf(name, sizeof name, "%c%u-%u", letter, (unsigned)getpid(), n++);
}

void two_open(struct cht_rados_config cfg, unsigned steps)
{
    for (unsigned i = 0; i < 2; i++)
        two_open_env(&envs[i], cfg, (steps & 1u << i) != 0);
    if (cht_env_get(envs[0], name, &one, &err) == CHT_DATABASE_NOT_FOUND) {
        must(cht_env_create(envs[0], name, 4, &err));
        must(cht_env_get(envs[0], name, &one, &err));
    }
    two = NULL;
}

void two_join(void) { must(cht_env_get(envs[1], name, &two, &err)); }

void two_leave(void)
{
    must(cht_env_close(envs[0], &err));
    must(cht_env_close(envs[1], &err));
}

void two_close(void)
{
    at_step = NULL;
    (void)cht_env_drop(envs[0], name, NULL);
    two_leave();
}

enum cht_rc run(struct cht_store *s, struct cht_op *ops, size_t n, unsigned flags)
{
    struct cht_commit c = {.ops = ops, .count = n, .flags = flags};
    enum cht_rc rc = cht_store_commit(s, &c);
    if (rc != CHT_OK)
        err = c.err;
    for (size_t i = 0; i < n && rc == CHT_OK; i++)
        rc = ops[i].rc;
    return rc;
}

bool two_ready(void)
{
    bool ready = getenv("CHT_RADOS_CONF") != NULL;
    if (!ready)
        print_error("CHT_RADOS_CONF is not set: see tests/rados/run.sh\n");
    return ready;
}
