/* restore: the calls of cheetah/backup.h that make a database of a backup, passed on to who implements them. */
#include "base/alloc.h"
#include "store/backup_format.h"
#include "store/store_int.h"

#include <string.h>

enum cht_rc cht_restore_new(struct cht_env *env, const char *name, struct cht_restore **out,
                            struct cht_err *err)
{
    const struct cht_env_ops *ops = cht_env_ops(env);
    *out = NULL;
    enum cht_rc rc = ops->restore_new != NULL ? ops->restore_new(env, name, out, err)
                                              : cht_db_restore_new(env, name, out, err);
    if (rc == CHT_OK && name != NULL)
        memcpy((*out)->name, name, strlen(name) + 1);
    return rc;
}

enum cht_rc cht_restore_feed(struct cht_restore *r, const void *p, size_t n, struct cht_err *err)
{
    return cht_backup_parse(&r->p, p, n, err);
}

enum cht_rc cht_restore_finish(struct cht_restore *r, struct cht_err *err)
{
    enum cht_rc rc = cht_backup_parse_end(&r->p, err);
    return rc == CHT_OK ? r->ops->finish(r, err) : rc;
}

void cht_restore_ask(struct cht_restore *r, bool (*over)(void *ctx), void *ctx)
{
    r->over = over;
    r->over_ctx = ctx;
}

void cht_restore_free(struct cht_restore *r)
{
    if (r == NULL)
        return;
    r->ops->free(r);
    cht_backup_parser_fini(&r->p);
    cht_free(r);
}

const struct cht_backup_info *cht_restore_info(const struct cht_restore *r, uint64_t *done)
{
    *done = cht_backup_parsed(&r->p);
    return r->p.has_head ? &r->p.info : NULL;
}

const char *cht_restore_name(const struct cht_restore *r) { return r->name[0] != 0 ? r->name : NULL; }
