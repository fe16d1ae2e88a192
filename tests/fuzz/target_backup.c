/* backup: the stream of a backup, checked and restored. Input: how (u8), how it comes in pieces (u8), an image with one file "backup". Its checksums
 * are made right first, each frame's over the one before it, unless how is odd. What the check takes is restored, and the other way
 * round; and what was restored is opened and read, or refused with a reason.
 */
#include "fuzz/image.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "cheetah/backup.h"
#include "store/backup_format.h"

static struct fuzz_store store;
static struct image image;

static void seal(struct image_file *f)
{
    if (f->n < CHT_BACKUP_HEAD)
        return;
    cht_put32(f->p + 508, cht_crc32c(0, f->p, 508));
    uint32_t crc = cht_get32(f->p + 508);
    for (size_t at = CHT_BACKUP_HEAD; f->n - at >= CHT_BACKUP_FRAME;) {
        uint64_t len = cht_get32(f->p + at + 8);
        if (len > f->n - at - CHT_BACKUP_FRAME)
            return;
        crc = cht_crc32c(crc, f->p + at + 4, CHT_BACKUP_FRAME - 4 + len);
        cht_put32(f->p + at, crc);
        at += CHT_BACKUP_FRAME + len;
    }
}

static size_t piece_of(struct cht_rng *r, uint8_t how, size_t left)
{
    size_t n = how == 0 ? left : 1 + cht_rng_below(r, how < 128 ? 100 * (uint64_t)how : 40000);
    return n < left ? n : left;
}

static enum cht_rc check(const uint8_t *p, size_t n, uint8_t pieces)
{
    struct cht_backup_check *c;
    struct cht_err err = {0};
    struct cht_rng r;
    uint64_t done;
    cht_rng_seed(&r, pieces);
    fuzz_must(cht_backup_check_new(&c, &err), &err);
    enum cht_rc rc = CHT_OK;
    for (size_t at = 0, k; at < n && rc == CHT_OK; at += k) {
        k = piece_of(&r, pieces, n - at);
        rc = cht_backup_check_feed(c, p + at, k, &err);
    }
    if (rc == CHT_OK)
        rc = cht_backup_check_finish(c, &err);
    FUZZ_CHECK(rc == CHT_OK || rc == CHT_CORRUPT || rc == CHT_VERSION || rc == CHT_CANCELLED);
    FUZZ_CHECK(rc == CHT_OK || err.msg[0] != 0);
    const struct cht_backup_info *info = cht_backup_check_info(c, &done);
    FUZZ_CHECK(info == NULL || done <= info->bytes);
    FUZZ_CHECK(rc != CHT_OK || (info != NULL && done == info->bytes));
    cht_backup_check_free(c);
    return rc;
}

static void read_it(void)
{
    struct cht_store *s;
    struct cht_err err = {0};
    struct cht_buf b = {0};
    uint64_t pairs;
    bool closed;
    enum cht_rc rc = cht_env_get(store.env, "restored", &s, &err);
    FUZZ_CHECK(rc == CHT_OK || err.msg[0] != 0);
    if (rc == CHT_OK) {
        static const uint8_t name[] = "new", value[] = "value";
        struct cht_op op = {
            .kind = CHT_OP_PAIR_PUT, .name = {name, sizeof name - 1}, .value = {value, sizeof value - 1}};
        struct cht_commit c = {.ops = &op, .count = 1};
        (void)cht_store_count(s, (struct cht_str){(const uint8_t *)"", 0}, &pairs, &err);
        for (uint64_t key = 1; key < 20; key++)
            (void)cht_store_get(s, key, &b, NULL, &err);
        (void)cht_store_commit(s, &c);
        (void)cht_env_release(store.env, "restored", &closed, &err);
    }
    cht_buf_free(&b);
    if (cht_env_drop(store.env, "restored", &err) !=
        CHT_OK) /* open still, since it could not be brought home */
        store.used = 0;
}

static void restore(const uint8_t *p, size_t n, uint8_t pieces, enum cht_rc checked)
{
    struct cht_restore *to;
    struct cht_err err = {0};
    struct cht_rng r;
    cht_rng_seed(&r, pieces);
    fuzz_must(cht_restore_new(store.env, "restored", &to, &err), &err);
    enum cht_rc rc = CHT_OK;
    for (size_t at = 0, k; at < n && rc == CHT_OK; at += k) {
        k = piece_of(&r, pieces, n - at);
        rc = cht_restore_feed(to, p + at, k, &err);
    }
    if (rc == CHT_OK)
        rc = cht_restore_finish(to, &err);
    FUZZ_CHECK(rc == CHT_OK || err.msg[0] != 0);
    FUZZ_CHECK(rc != CHT_OK || checked == CHT_OK);
    cht_restore_free(to);
    if (rc == CHT_OK)
        read_it();
    else
        FUZZ_CHECK(cht_env_get(store.env, "restored", &(struct cht_store *){NULL}, &err) ==
                   CHT_DATABASE_NOT_FOUND);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct fuzz_in in = {data, n};
    uint8_t how = fuzz_u8(&in), pieces = fuzz_u8(&in);
    if (store.used++ % 64 == 0) {
        if (store.env != NULL)
            fuzz_store_close(&store);
        fuzz_store_open(&store, false);
        store.used = 1;
    }
    image_read(&image, &in);
    struct image_file *f = image_find(&image, "backup");
    if (f == NULL)
        return 0;
    if (how % 2 == 0)
        seal(f);
    uint8_t *p = fuzz_exact(f->p, f->n);
    restore(p, f->n, pieces, check(p, f->n, pieces));
    free(p);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t n, size_t max, unsigned seed)
{
    static struct image im;
    struct cht_rng r;
    cht_rng_seed(&r, seed);
    if (n < 3 || cht_rng_below(&r, 10) == 0)
        return LLVMFuzzerMutate(data, n, max);
    if (cht_rng_below(&r, 4) == 0)
        data[cht_rng_below(&r, 2)] = (uint8_t)cht_rng_below(&r, 256);
    struct fuzz_in in = {data + 2, n - 2};
    image_read(&im, &in);
    image_mutate(&im, &r);
    size_t len = image_write(&im, data + 2, max - 2);
    return len > 0 ? 2 + len : LLVMFuzzerMutate(data, n, max);
}
