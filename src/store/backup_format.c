/* backup_format: see backup_format.h. */
#include "store/backup_format.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"

#include <string.h>

#define PARSE_MAX (CHT_BACKUP_FRAME + CHT_BACKUP_STEP)

static const char magic[8] = "CHEETAHB";

size_t cht_backup_put_head(uint8_t *to, const struct cht_backup_info *info, unsigned files)
{
    memset(to, 0, CHT_BACKUP_HEAD);
    memcpy(to, magic, 8);
    cht_put32(to + 8, CHT_BACKUP_VERSION);
    cht_put32(to + 12, CHT_BACKUP_HEAD);
    memcpy(to + 16, info->uuid, 16);
    cht_put32(to + 32, info->shards);
    cht_put32(to + 36, files);
    cht_put64(to + 40, info->position);
    cht_put64(to + 48, info->bytes);
    cht_put64(to + 56, info->created);
    memcpy(to + 64, info->database, strlen(info->database));
    cht_put32(to + 508, cht_crc32c(0, to, 508));
    return CHT_BACKUP_HEAD;
}

void cht_backup_seed(struct cht_backup_chain *c, const uint8_t *head)
{
    *c = (struct cht_backup_chain){.crc = cht_get32(head + 508)};
}

size_t cht_backup_put_frame(struct cht_backup_chain *c, uint8_t *to, const struct cht_frame *f)
{
    uint32_t len = f->kind == CHT_FRAME_DATA ? f->len : 8;
    memset(to, 0, CHT_BACKUP_FRAME);
    to[4] = (uint8_t)f->kind;
    to[5] = (uint8_t)f->file;
    cht_put16(to + 6, (uint16_t)f->shard);
    cht_put32(to + 8, len);
    cht_put64(to + 16, f->at);
    cht_put64(to + 24, c->number++);
    if (f->kind != CHT_FRAME_DATA)
        cht_put64(to + CHT_BACKUP_FRAME, f->size);
    else if (f->data != to + CHT_BACKUP_FRAME)
        memmove(to + CHT_BACKUP_FRAME, f->data, len);
    c->crc = cht_crc32c(c->crc, to + 4, CHT_BACKUP_FRAME - 4 + len);
    cht_put32(to, c->crc);
    return CHT_BACKUP_FRAME + len;
}

/* ---- parsing --------------------------------------------------------------------------------------------------- */

static enum cht_rc bad(const struct cht_backup_parser *p, const char *what, struct cht_err *err)
{
    return CHT_DAMAGED(err, "the backup is damaged: offset %llu: %s", (unsigned long long)p->offset, what);
}

static enum cht_rc take_head(struct cht_backup_parser *p, struct cht_err *err)
{
    const uint8_t *h = p->buf;
    struct cht_backup_info *i = &p->info;
    bool sealed = cht_get32(h + 508) == cht_crc32c(0, h, 508);
    if (memcmp(h, magic, 8) != 0)
        return CHT_DAMAGED(err, "this is not a backup of cheetah-db");
    if (sealed && cht_get32(h + 8) != CHT_BACKUP_VERSION)
        return CHT_FAIL(err, CHT_VERSION, "a backup of format version %u, this program knows %u",
                        cht_get32(h + 8), CHT_BACKUP_VERSION);
    if (!sealed || cht_get32(h + 12) != CHT_BACKUP_HEAD)
        return bad(p, "the head does not match its checksum", err);
    memcpy(i->uuid, h + 16, 16);
    i->shards = cht_get32(h + 32);
    p->files = cht_get32(h + 36);
    i->position = cht_get64(h + 40);
    i->bytes = cht_get64(h + 48);
    i->created = cht_get64(h + 56);
    memcpy(i->database, h + 64, sizeof i->database);
    if (i->shards == 0 || i->shards > 256 || p->files < i->shards * CHT_PF_KINDS ||
        i->database[sizeof i->database - 1] != 0 || !cht_database_name_valid(i->database))
        return bad(p, "the head makes no sense", err);
    cht_backup_seed(&p->chain, h);
    p->has_head = true;
    return p->head != NULL ? p->head(p->ctx, i, p->files, err) : CHT_OK;
}

/* A file begins: in the order of the format, and the one before it may have zeros at its end. */
static const char *begin_file(struct cht_backup_parser *p, const struct cht_frame *f)
{
    unsigned logs = p->files - p->info.shards * CHT_PF_KINDS, pages = p->begun - logs;
    if (p->begun == p->files || (f->kind == CHT_FRAME_LOG) != (p->begun < logs))
        return "a file too many";
    if (f->size > p->info.bytes - p->total)
        return "a file longer than the head says";
    if (f->kind == CHT_FRAME_LOG && p->begun > 0 && f->at != p->log_number + 1)
        return "a segment of the log is missing";
    if (f->kind == CHT_FRAME_PAGES && (f->shard != pages / CHT_PF_KINDS || f->file != pages % CHT_PF_KINDS))
        return "a file out of its order";
    if (f->kind == CHT_FRAME_PAGES && (f->size == 0 || f->size % CHT_PAGE != 0))
        return "a file that is not of whole pages";
    p->log_number = f->at;
    p->begun++;
    p->size = f->size;
    p->at = 0;
    p->total += f->size;
    return NULL;
}

static enum cht_rc take_frame(struct cht_backup_parser *p, struct cht_err *err)
{
    const uint8_t *b = p->buf, *payload = b + CHT_BACKUP_FRAME;
    struct cht_frame f = {.kind = (enum cht_frame_kind)b[4],
                          .file = b[5],
                          .shard = cht_get16(b + 6),
                          .at = cht_get64(b + 16),
                          .data = payload,
                          .len = cht_get32(b + 8)};
    uint32_t crc = cht_crc32c(p->chain.crc, b + 4, CHT_BACKUP_FRAME - 4 + f.len);
    if (crc != cht_get32(b))
        return bad(p, "a frame does not match its checksum", err);
    if (cht_get64(b + 24) != p->chain.number)
        return bad(p, "a frame is out of its order", err);
    p->chain.crc = crc;
    p->chain.number++;
    if (f.kind != CHT_FRAME_DATA && f.len != 8)
        return bad(p, "a frame of a wrong length", err);
    f.size = f.kind != CHT_FRAME_DATA ? cht_get64(payload) : 0;
    const char *wrong = NULL;
    switch (f.kind) {
    case CHT_FRAME_LOG:
    case CHT_FRAME_PAGES:
        wrong = begin_file(p, &f);
        break;
    case CHT_FRAME_DATA:
        if (f.len == 0 || f.at < p->at || f.at > p->size || f.len > p->size - f.at)
            wrong = "data outside of its file";
        else
            p->at = f.at + f.len;
        break;
    case CHT_FRAME_END:
        if (p->begun != p->files || p->total != p->info.bytes || f.size != p->total)
            wrong = "it ends before its last file";
        p->ended = true;
        break;
    default:
        wrong = "a frame of an unknown kind";
    }
    if (wrong != NULL)
        return bad(p, wrong, err);
    return p->frame != NULL ? p->frame(p->ctx, &f, err) : CHT_OK;
}

/* How many bytes must be in buf before something can be made of it. */
static size_t needed(const struct cht_backup_parser *p)
{
    if (!p->has_head)
        return CHT_BACKUP_HEAD;
    return p->have < CHT_BACKUP_FRAME ? CHT_BACKUP_FRAME : CHT_BACKUP_FRAME + (size_t)cht_get32(p->buf + 8);
}

static const char mark[] = "{\"error\":", detail[] = "\"detail\":\"";

/* The beginning of the line that a server sends when it gives up; the rest of it is to come. */
static bool is_line(const struct cht_backup_parser *p)
{
    return memcmp(p->buf, mark, sizeof mark - 1) == 0 && memchr(p->buf, '\n', p->have) == NULL &&
           p->have < PARSE_MAX;
}

/* What such a line says. */
static enum cht_rc told(const struct cht_backup_parser *p, struct cht_err *err)
{
    char line[CHT_BACKUP_FRAME + 300];
    size_t n = p->have < sizeof line - 1 ? p->have : sizeof line - 1;
    memcpy(line, p->buf, n);
    line[n] = 0;
    if (strncmp(line, mark, sizeof mark - 1) != 0)
        return CHT_OK;
    char *from = strstr(line, detail), *end = from == NULL ? NULL : strchr(from + sizeof detail - 1, '"');
    if (end == NULL)
        return CHT_FAIL(err, CHT_CANCELLED, "the server gave up the backup");
    *end = 0;
    return CHT_FAIL(err, CHT_CANCELLED, "the server gave up the backup: %.140s", from + sizeof detail - 1);
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_backup_parse(struct cht_backup_parser *p, const void *data, size_t n, struct cht_err *err)
{
    const uint8_t *from = data;
    if (p->buf == NULL && (p->buf = cht_malloc(PARSE_MAX)) == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory to read a backup");
    while (n > 0) {
        if (p->ended)
            return bad(p, "bytes after its end", err);
        size_t want = needed(p);
        if (want > PARSE_MAX) { /* what a cut-off server says, or damage: a few more bytes tell */
            size_t some = n < PARSE_MAX - p->have ? n : PARSE_MAX - p->have;
            memcpy(p->buf + p->have, from, some);
            p->have += some;
            if (is_line(p) && some > 0) {
                from += some;
                n -= some;
                continue;
            }
            enum cht_rc rc = told(p, err);
            return rc != CHT_OK ? rc : bad(p, "a frame of an impossible length", err);
        }
        size_t some = n < want - p->have ? n : want - p->have;
        memcpy(p->buf + p->have, from, some);
        p->have += some;
        from += some;
        n -= some;
        if (p->have < needed(p))
            continue;
        enum cht_rc rc = p->has_head ? take_frame(p, err) : take_head(p, err);
        if (rc != CHT_OK)
            return rc;
        p->offset += p->have;
        p->have = 0;
    }
    return CHT_OK;
}

enum cht_rc cht_backup_parse_end(const struct cht_backup_parser *p, struct cht_err *err)
{
    if (p->ended)
        return CHT_OK;
    enum cht_rc rc = p->has_head && p->have > 0 ? told(p, err) : CHT_OK;
    if (rc != CHT_OK)
        return rc;
    return CHT_DAMAGED(err, "the backup is not complete: it ends at offset %llu",
                       (unsigned long long)(p->offset + p->have));
}

void cht_backup_parser_fini(struct cht_backup_parser *p)
{
    cht_free(p->buf);
    p->buf = NULL;
}

uint64_t cht_backup_parsed(const struct cht_backup_parser *p) { return p->total - p->size + p->at; }

/* ---- what restoring begins with ----------------------------------------------------------------------------------- */

enum cht_rc cht_restore_begin(size_t size, const struct cht_restore_ops *ops,
                              const struct cht_backup_parser *p, struct cht_restore **out,
                              struct cht_err *err)
{
    struct cht_restore *r = cht_calloc(1, size);
    if (r == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory to restore a backup");
    r->ops = ops;
    r->p = *p;
    r->p.ctx = r;
    *out = r;
    return CHT_OK;
}

enum cht_rc cht_restore_wanted(const struct cht_restore *r, struct cht_err *err)
{
    return r->over == NULL || !r->over(r->over_ctx) ? CHT_OK : CHT_FAIL(err, CHT_CANCELLED, "cancelled");
}

/* ---- the sink that only checks ---------------------------------------------------------------------------------- */

struct cht_backup_check {
    struct cht_backup_parser p;
};

enum cht_rc cht_backup_check_new(struct cht_backup_check **out, struct cht_err *err)
{
    *out = cht_calloc(1, sizeof **out);
    return *out != NULL ? CHT_OK : CHT_FAIL(err, CHT_NO_MEMORY, "no memory to read a backup");
}

enum cht_rc cht_backup_check_feed(struct cht_backup_check *c, const void *p, size_t n, struct cht_err *err)
{
    return cht_backup_parse(&c->p, p, n, err);
}

enum cht_rc cht_backup_check_finish(struct cht_backup_check *c, struct cht_err *err)
{
    return cht_backup_parse_end(&c->p, err);
}

void cht_backup_check_free(struct cht_backup_check *c)
{
    if (c == NULL)
        return;
    cht_backup_parser_fini(&c->p);
    cht_free(c);
}

const struct cht_backup_info *cht_backup_check_info(const struct cht_backup_check *c, uint64_t *done)
{
    *done = cht_backup_parsed(&c->p);
    return c->p.has_head ? &c->p.info : NULL;
}
