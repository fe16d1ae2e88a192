/* two: two servers on one database of a pool, two connections of one process: what the programs of tests/rados that have them begin with. The
 * steps of a protocol (struct cht_rados_config) are told to at_step. Needs CHT_RADOS_CONF (run.sh).
 */
#pragma once

#include "cheetah/rados.h"

extern struct cht_err err;
extern struct cht_env *envs[2];
extern struct cht_store *one, *two; /* the database, of the first and of the second server */
extern char name[32];               /* of it */
extern void (*at_step)(const char *step);
extern char
    stop_at[32]; /* with at_step = two_stop: the step before which the process ends, with 9; "": none */
void two_stop(const char *step);

struct cht_str str(const char *p);
void must(enum cht_rc rc); /* fails the test, with err */
/* With pool and conf, and the user of CHT_RADOS_ID, if it is set. */
struct cht_rados_config two_config(void);
/* steps: its steps are told. */
void two_open_env(struct cht_env **env, struct cht_rados_config cfg, bool steps);
/* A name that no database had; it begins with the letter of the program. */
void two_new_name(char letter);
/* Both servers; the database by the first, made of four shards if there is none of this name. steps: bit i, of server i. */
void two_open(struct cht_rados_config cfg, unsigned steps);
void two_join(void);  /* and by the second */
void two_leave(void); /* closes both */
void two_close(void); /* drops the database before that */
/* The first failure, of the commit or of an operation; then err is the commit's. */
enum cht_rc run(struct cht_store *s, struct cht_op *ops, size_t n, unsigned flags);
/* Is CHT_RADOS_CONF set? Else it says so. */
bool two_ready(void);
