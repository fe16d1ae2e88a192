/* admit: which databases may be made, beside what lies under the name itself (db.c).
 *
 * Names that differ in upper and lower case only would be one folder on a file system that does not tell them apart, and one name to
 * whoever reads it aloud, so the second is refused; those that an older release has made stay. Turns (db.h) of such names go one
 * after the other, so two creations at once cannot both pass.
 *
 * How many there are: those in the lists, and those that other calls are making right now. A call is in the list before its turn
 * ends, and both are looked at under the same locks, so none is missed or counted twice.
 */
#include "store/db.h"

#include "base/alloc.h"

#include <string.h>

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c; }

static enum cht_rc refuse_case(const char *name, const char *other, struct cht_err *err)
{
    return CHT_FAIL(err, CHT_DATABASE_CASE,
                    "the name %.64s differs from that of database %.64s in upper and lower case only", name,
                    other);
}

/* It is a database, or cannot be shown to be none. */
static bool counts(struct cht_env *env, const struct cht_dirs_name *e)
{
    struct cht_manifest m;
    return e->listed || (e->folder && cht_db_find(env->io, env->dirs, env->ndirs, e->name, &m, NULL) !=
                                          CHT_DATABASE_NOT_FOUND);
}

static bool is_listed(const struct cht_dirs_name *v, size_t n, const char *name)
{
    size_t i = 0;
    while (i < n && (!v[i].listed || strcmp(v[i].name, name) != 0))
        i++;
    return i < n;
}

/* Both locks are held. */
static uint64_t count_others(const struct cht_env *env, const struct cht_dirs_name *v, size_t n,
                             const char *name)
{
    uint64_t others = 0;
    for (size_t i = 0; i < n; i++)
        others += v[i].listed;
    for (const struct cht_turn *t = env->turns; t != NULL; t = t->next)
        others += t->making && strcmp(t->name, name) != 0 && !is_listed(v, n, t->name);
    return others;
}

/* ------------------------------------------------------------------------------------------------------------ */

bool cht_db_same_letters(const char *a, const char *b)
{
    while (*a != 0 && lower(*a) == lower(*b))
        a++, b++;
    return *a == 0 && *b == 0;
}

enum cht_rc cht_db_admit(struct cht_env *env, const char *name, struct cht_err *err)
{
    struct cht_dirs_name *v = NULL;
    size_t n = 0;
    uint64_t others = 0, max = env->cfg.max_databases;
    if (strcmp(name, CHT_DATABASE_DEFAULT) == 0)
        return CHT_OK; /* every server has it */
    if (cht_db_same_letters(name, CHT_DATABASE_DEFAULT))
        return refuse_case(name, CHT_DATABASE_DEFAULT, err);
    cht_mutex_lock(&env->set_mu);
    enum cht_rc rc = cht_dirs_names(env->io, env->dirs, env->sets, env->ndirs, &v, &n, err);
    cht_mutex_lock(&env->mu);
    others = count_others(env, v, n, name);
    cht_mutex_unlock(&env->mu);
    cht_mutex_unlock(&env->set_mu);
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        if (cht_db_same_letters(v[i].name, name) && strcmp(v[i].name, name) != 0 && counts(env, &v[i]))
            rc = refuse_case(name, v[i].name, err);
    }
    if (rc == CHT_OK && max > 0 && others >= max)
        rc = CHT_FAIL(err, CHT_TOO_MANY_DATABASES,
                      "there are %llu databases, and at most %llu may be made (--max-databases)",
                      (unsigned long long)others, (unsigned long long)max);
    cht_free(v);
    return rc;
}
