/* backup_format: the bytes of a backup, and the parser that both sinks use.
 *
 *   0        512
 *   +--------+-------+------+------+- - -+-------+------+- - -+-----+
 *   | head   | LOG   | DATA | DATA |     | PAGES | DATA |     | END |      LOG or PAGES begins a file, DATA are its bytes
 *   +--------+-------+------+------+- - -+-------+------+- - -+-----+
 *
 * First the segments of the log, ascending; then for shard 0, 1, ... the files keys, values, recycle, pairs, sums.
 *
 * head, 512 bytes, little-endian: 0 magic[8] "CHEETAHB"  8 version u32  12 head bytes u32 (512)  16 uuid[16]  32 shards u32
 *   36 files u32  40 position u64  48 bytes of all files u64  56 created u64 (ns since 1970)  64 database[72], zeros after
 *   136 zeros  508 crc u32 of 0..507
 * frame: 0 crc u32 (seeded with the crc of the frame before it, the first one with the head's; over bytes 4.. and the
 *   payload)  4 kind u8  5 file u8 (of PAGES: enum cht_pf_kind)  6 shard u16  8 payload bytes u32  12 zeros u32  16 at u64
 *   24 number u64 (0, 1, 2, ...)  32 payload
 *   LOG    at: number of the segment      payload: its bytes u64
 *   PAGES  file, shard                    payload: its bytes u64, a multiple of 4096
 *   DATA   at: offset in the file begun last, ascending; what is in no DATA is zeros. At most CHT_BACKUP_STEP bytes
 *   END    at: frames before it (= number)     payload: the bytes of all files u64
 *
 * Invariants
 *   B1 Each frame's crc covers the one before it: a frame that is missing, doubled or out of place is found like a changed
 *      byte. A stream without END is cut off; bytes after END are damage.
 *   B2 The page files are those of checkpoints (snapshot.h), the log has every record after the oldest of these up to
 *      `position` and no later one: what lies in a backup is what a power cut at this moment would leave on a disk that
 *      has written all it was given. Opening it is recovery as always.
 *   B3 A server that cannot go on sends no END, but a line of text {"error":...}.
 */
#pragma once

#include "cheetah/backup.h"
#include "store/pagefile.h"

#define CHT_BACKUP_VERSION 1u
#define CHT_BACKUP_HEAD 512u
#define CHT_BACKUP_FRAME 32u
#define CHT_BACKUP_STEP (256u << 10)

enum cht_frame_kind { CHT_FRAME_LOG = 1, CHT_FRAME_PAGES = 2, CHT_FRAME_DATA = 3, CHT_FRAME_END = 4 };

struct cht_frame {
    enum cht_frame_kind kind;
    unsigned file, shard;
    uint64_t at, size; /* size: of the file that LOG and PAGES begin */
    const uint8_t *data;
    uint32_t len;
};

/* Writing: head and frames into a buffer; return their length. */
size_t cht_backup_put_head(uint8_t *to, const struct cht_backup_info *info, unsigned files);
struct cht_backup_chain { /* zero-initialise; put_head sets crc through cht_backup_seed */
    uint32_t crc;
    uint64_t number;
};
void cht_backup_seed(struct cht_backup_chain *c, const uint8_t *head);
/* f->data may lie at its place in `to` already. */
size_t cht_backup_put_frame(struct cht_backup_chain *c, uint8_t *to, const struct cht_frame *f);

/* The page files of a shard of a database in which there is nothing; the caller frees them, also after a failure. */
struct cht_backup_shard {
    const uint8_t *uuid;
    unsigned index, count;
    bool ends; /* its log has pairs that end */
};
enum cht_rc cht_backup_empty(const struct cht_backup_shard *s, struct cht_buf out[CHT_PF_KINDS],
                             struct cht_err *err);

/* Reading: bytes in any pieces; calls fn for every frame that is right by itself and in its place. */
struct cht_backup_parser {
    enum cht_rc (*head)(void *ctx, const struct cht_backup_info *info, unsigned files, struct cht_err *err);
    enum cht_rc (*frame)(void *ctx, const struct cht_frame *f, struct cht_err *err);
    void *ctx;
    struct cht_backup_info info;
    unsigned files; /* by the head */
    bool has_head, ended;
    uint8_t *buf; /* owned: the bytes of what is not whole yet */
    size_t have;
    struct cht_backup_chain chain;
    uint64_t offset; /* of buf in the stream */
    /* what has come */
    unsigned begun;
    uint64_t size, at;   /* of the file begun last: its bytes; where its next DATA may begin */
    uint64_t log_number; /* of the last LOG */
    bool in_pages;
    uint64_t total; /* bytes of the files begun */
};
enum cht_rc cht_backup_parse(struct cht_backup_parser *p, const void *data, size_t n, struct cht_err *err);
enum cht_rc cht_backup_parse_end(const struct cht_backup_parser *p, struct cht_err *err);
void cht_backup_parser_fini(struct cht_backup_parser *p);
uint64_t cht_backup_parsed(const struct cht_backup_parser *p); /* bytes of files so far */

/* Restoring: what every implementation begins with; it sets the parser's head and frame. */
struct cht_restore {
    const struct cht_restore_ops *ops;
    struct cht_backup_parser p;
    char name[CHT_DATABASE_NAME_MAX + 1]; /* of the database; "": the head of the backup says it */
    bool (*over)(void *ctx);              /* cht_restore_ask; NULL: nobody is asked */
    void *over_ctx;
};
struct cht_restore_ops {                                           /* cheetah/backup.h */
    enum cht_rc (*finish)(struct cht_restore *, struct cht_err *); /* after the parser has seen the end */
    void (*free)(struct cht_restore *); /* all but the parser, and the memory of itself */
};
/* A struct of `size` bytes, zeros but for this beginning of it; frames come with it as their context. CHT_NO_MEMORY. */
enum cht_rc cht_restore_begin(size_t size, const struct cht_restore_ops *ops,
                              const struct cht_backup_parser *p, struct cht_restore **out,
                              struct cht_err *err);
/* CHT_CANCELLED: whoever waits for it does not want it any more. */
enum cht_rc cht_restore_wanted(const struct cht_restore *r, struct cht_err *err);
/* backup_restore.c: into files. */
enum cht_rc cht_db_restore_new(struct cht_env *env, const char *name, struct cht_restore **out,
                               struct cht_err *err);
