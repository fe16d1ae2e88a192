/* backup_empty: the page files of an empty database, for a backup of a store that has none (backup_format.h). They are made as on a disk, by
 * the same functions, but in memory.
 */
#include "os/io.h"
#include "store/backup_format.h"
#include "store/expiry.h"
#include "store/pagefile_int.h"
#include "store/shard.h"

static enum cht_rc read_file(struct cht_file *f, struct cht_buf *out, struct cht_err *err)
{
    uint64_t size = 0;
    enum cht_rc rc = f->io->ops->size(f, &size, err);
    size &= ~(uint64_t)(CHT_PAGE - 1);
    if (rc == CHT_OK)
        rc = cht_buf_reserve(out, size, err);
    if (rc == CHT_OK)
        rc = cht_file_read(f, out->data, size, 0, err);
    out->len = rc == CHT_OK ? size : 0;
    return rc;
}

/* The maps of ends, which raise the version (expiry.h): a log that has ends is for such files only. */
static enum cht_rc make_ends(struct cht_shard *sh, struct cht_err *err)
{
    enum cht_rc rc = cht_shard_seal(sh, err); /* as of one that is in use: else a checkpoint is its first */
    if (rc != CHT_OK)
        return rc;
    cht_shard_undo_begin(sh);
    rc = cht_expiry_make(cht_shard_pairs(sh), err);
    if (rc == CHT_OK)
        cht_shard_undo_end(sh);
    else
        cht_shard_undo_rollback(sh);
    return rc == CHT_OK ? cht_shard_checkpoint(sh, err) : rc;
}

/* ------------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_backup_empty(const struct cht_backup_shard *s, struct cht_buf out[CHT_PF_KINDS],
                             struct cht_err *err)
{
    struct cht_io *io;
    struct cht_shard sh;
    enum cht_rc rc = cht_io_unnamed_new(NULL, NULL, &io, err);
    if (rc != CHT_OK)
        return rc;
    rc = cht_shard_create(io, "shard", s->uuid, s->index, s->count, &sh, err);
    if (rc == CHT_OK) {
        if (s->ends)
            rc = make_ends(&sh, err);
        for (unsigned k = 0; k < CHT_PF_KINDS && rc == CHT_OK; k++)
            rc = read_file(sh.pf[k]->file, &out[k], err);
        cht_shard_close(&sh);
    }
    cht_io_unnamed_free(io);
    return rc;
}
