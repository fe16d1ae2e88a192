/* image: see image.h. */
#include "fuzz/image.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/literal.h"
#include "store/pagefile_int.h"

#define GAP 16u /* so many zeros end a run */
#define RUN_MAX 65535u
#define RUNS_MAX 65535u

static struct image_file *add_file(struct image *im, const char *name, size_t name_n)
{
    if (im->n == IMAGE_FILES || name_n >= IMAGE_NAME)
        return NULL;
    struct image_file *f = &im->file[im->n++];
    if (f->p == NULL)
        f->p = malloc(IMAGE_FILE_MAX);
    FUZZ_CHECK(f->p != NULL);
    memset(f->p, 0, f->n > 0 ? f->n : IMAGE_FILE_MAX); /* n: of its last life */
    memcpy(f->name, name, name_n);
    f->name[name_n] = 0;
    f->n = 0;
    return f;
}

static uint32_t take(struct fuzz_in *in, unsigned bytes)
{
    uint32_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v |= (uint32_t)fuzz_u8(in) << 8 * i;
    return v;
}

static bool plain(const uint8_t *p, size_t n)
{
    bool ok = n > 0 && p[0] != '/' && p[n - 1] != '/';
    for (size_t i = 0; i < n && ok; i++) {
        ok = (p[i] >= 'a' && p[i] <= 'z') || (p[i] >= '0' && p[i] <= '9') || p[i] == '-' || p[i] == '/' ||
             (p[i] == '.' && i > 0 && p[i - 1] != '.' && p[i - 1] != '/');
        ok = ok && (p[i] != '/' || p[i - 1] != '/');
    }
    return ok;
}

static void read_runs(struct image_file *f, struct fuzz_in *in)
{
    size_t size = take(in, 4), runs = take(in, 2), n;
    f->n = size < IMAGE_FILE_MAX ? size : IMAGE_FILE_MAX;
    for (size_t i = 0; i < runs && in->n > 0; i++) {
        size_t at = take(in, 4), len = take(in, 2);
        const uint8_t *p = fuzz_bytes(in, len, &n);
        if (at < f->n)
            memcpy(f->p + at, p, n < f->n - at ? n : f->n - at);
    }
}

void image_read(struct image *im, struct fuzz_in *in)
{
    im->n = 0;
    while (in->n > 0 && im->n < IMAGE_FILES) {
        size_t n;
        const uint8_t *name = fuzz_bytes(in, fuzz_u8(in) % IMAGE_NAME, &n);
        if (!plain(name, n))
            return;
        char text[IMAGE_NAME];
        memcpy(text, name, n);
        text[n] = 0;
        if (image_find(im, text) != NULL)
            return;
        read_runs(add_file(im, text, n), in);
    }
}

/* The next bytes from `at` on that are not zeros, up to GAP zeros in a row. */
static bool next_run(const struct image_file *f, size_t *at, size_t *len)
{
    static const uint8_t none[64];
    size_t zeros = 0, end;
    while (f->n - *at >= sizeof none && memcmp(f->p + *at, none, sizeof none) == 0)
        *at += sizeof none;
    while (*at < f->n && f->p[*at] == 0)
        (*at)++;
    if (*at == f->n)
        return false;
    for (end = *at; end < f->n && zeros < GAP && end - *at < RUN_MAX; end++)
        zeros = f->p[end] == 0 ? zeros + 1 : 0;
    *len = end - *at - zeros;
    return true;
}

static void put(uint8_t **out, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        *(*out)++ = (uint8_t)(v >> 8 * i);
}

size_t image_write(const struct image *im, uint8_t *out, size_t max)
{
    uint8_t *to = out;
    for (size_t i = 0; i < im->n; i++) {
        const struct image_file *f = &im->file[i];
        size_t name = strlen(f->name), runs = 0, len = 0;
        if (max - (size_t)(to - out) < 1 + name + 6)
            return 0;
        put(&to, name, 1);
        memcpy(to, f->name, name);
        to += name;
        put(&to, f->n, 4);
        uint8_t *count = to;
        put(&to, 0, 2);
        for (size_t at = 0; next_run(f, &at, &len) && runs < RUNS_MAX; at += len) {
            if (max - (size_t)(to - out) < 6 + len)
                return 0;
            put(&to, at, 4);
            put(&to, len, 2);
            memcpy(to, f->p + at, len);
            to += len;
            runs++;
        }
        put(&count, runs, 2);
    }
    return (size_t)(to - out);
}

void image_free(struct image *im)
{
    for (size_t i = 0; i < IMAGE_FILES; i++)
        free(im->file[i].p);
    memset(im, 0, sizeof *im);
}

struct image_file *image_find(struct image *im, const char *name)
{
    for (size_t i = 0; i < im->n; i++) {
        if (strcmp(im->file[i].name, name) == 0)
            return &im->file[i];
    }
    return NULL;
}

/* ---- a disk ------------------------------------------------------------------------------------------------------------ */

static const char *const folders[] = {"", "default", "default/log", "default/shard-000", "default/shard-001"};

static void path_of(char *out, size_t cap, const char *dir, const char *folder, const char *name)
{
    (void)snprintf(out, cap, "%s/%s%s%s", dir, folder, folder[0] != 0 ? "/" : "", name);
}

/* Calls fn for each file in the folders that databases have. */
static void each_file(struct simdisk *d, const char *dir, void (*fn)(void *ctx, const char *path), void *ctx)
{
    struct cht_io *io = simdisk_io(d);
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        struct cht_io_names l = {0};
        char path[400];
        path_of(path, sizeof path, dir, folders[i], "");
        if (path[strlen(path) - 1] == '/')
            path[strlen(path) - 1] = 0;
        if (cht_io_names(io, path, &l, NULL) == CHT_OK) {
            for (size_t k = 0; k < l.n; k++) {
                path_of(path, sizeof path, dir, folders[i], l.v[k]);
                if (l.kind[k] == CHT_IO_FILE && strcmp(l.v[k], "LOCK") != 0)
                    fn(ctx, path);
            }
        }
        cht_io_names_fini(&l);
    }
}

struct taking {
    struct image *im;
    struct simdisk *d;
    size_t dir_n;
};

static void take_file(void *ctx, const char *path)
{
    struct taking *t = ctx;
    struct cht_file *f;
    uint64_t size;
    struct image_file *to = add_file(t->im, path + t->dir_n + 1, strlen(path + t->dir_n + 1));
    FUZZ_CHECK(to != NULL && cht_io_open(simdisk_io(t->d), path, CHT_OPEN_RDONLY, &f, NULL) == CHT_OK);
    FUZZ_CHECK(f->io->ops->size(f, &size, NULL) == CHT_OK && size <= IMAGE_FILE_MAX);
    to->n = size;
    FUZZ_CHECK(cht_file_read(f, to->p, size, 0, NULL) == CHT_OK);
    cht_file_close(f);
}

void image_take(struct image *im, struct simdisk *d, const char *dir)
{
    struct taking t = {im, d, strlen(dir)};
    im->n = 0;
    each_file(d, dir, take_file, &t);
}

struct putting {
    const struct image *im;
    struct simdisk *d;
    const char *dir;
};

static void remove_file(void *ctx, const char *path)
{
    struct putting *t = ctx;
    const char *name = path + strlen(t->dir) + 1;
    if (image_find((struct image *)t->im, name) == NULL && strchr(name, '/') != NULL)
        (void)simdisk_io(t->d)->ops->unlink(simdisk_io(t->d), path, NULL);
}

static void put_file(struct putting *t, const struct image_file *f)
{
    struct cht_file *to;
    char path[200];
    path_of(path, sizeof path, t->dir, "", f->name);
    if (cht_io_open(simdisk_io(t->d), path, CHT_OPEN_CREATE, &to, NULL) != CHT_OK)
        return; /* in a folder that is not there */
    FUZZ_CHECK(to->io->ops->truncate(to, 0, NULL) == CHT_OK &&
               to->io->ops->truncate(to, f->n, NULL) == CHT_OK);
    for (size_t at = 0, len; next_run(f, &at, &len); at += len)
        FUZZ_CHECK(cht_file_write(to, f->p + at, len, at, NULL) == CHT_OK);
    cht_file_close(to);
}

void image_put(const struct image *im, struct simdisk *d, const char *dir)
{
    struct putting t = {im, d, dir};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char path[200];
        bool used = i == 0;
        for (size_t k = 0; k < im->n; k++)
            used = used || strncmp(im->file[k].name, folders[i], strlen(folders[i])) == 0;
        path_of(path, sizeof path, dir, "", folders[i]);
        if (i == 0)
            path[strlen(path) - 1] = 0;
        if (used)
            (void)simdisk_io(d)->ops->mkdir(simdisk_io(d), path, NULL); /* it may be there */
    }
    each_file(d, dir, remove_file, &t);
    for (size_t i = 0; i < im->n; i++)
        put_file(&t, &im->file[i]);
}

/* ---- checksums ---------------------------------------------------------------------------------------------------------- */

static void seal_head(struct image_file *f)
{
    if (f != NULL && f->n >= 512)
        cht_put32(f->p + 508, cht_crc32c(0, f->p, 508));
}

static void seal_log(struct image_file *f)
{
    seal_head(f);
    if (f->n < 512)
        return;
    uint32_t seed = cht_crc32c(0, f->p + 40, 8);
    for (size_t at = 512; f->n - at >= 32;) {
        uint64_t len = cht_get64(f->p + at + 8);
        if (len > f->n - at - 32 || cht_get64(f->p + at + 16) == 0)
            return;
        cht_put32(f->p + at, cht_crc32c(seed, f->p + at + 4, 28 + len));
        at += (32 + len + 7) & ~(size_t)7;
        if (at > f->n)
            return;
    }
}

static void seal_journal(struct image_file *f)
{
    if (f->n < 512)
        return;
    uint64_t body = cht_get64(f->p + 48);
    if (body <= f->n - 512)
        cht_put32(f->p + 36, cht_crc32c(0, f->p + 512, body));
    static const char magic[8] = "CHEETAHJ";
    if (memcmp(f->p, magic, 8) == 0)
        seal_head(f);
}

static void seal_set(struct image_file *f)
{
    seal_head(f);
    for (size_t at = 512; at + 128 <= f->n; at += 128) {
        if (f->p[at] != 0)
            cht_put32(f->p + at + 124, cht_crc32c(0, f->p + at, 124));
    }
}

static void seal_pages(const struct image_file *f, unsigned kind, struct image_file *sums)
{
    for (size_t page = 0; (page + 1) * CHT_PAGE <= f->n; page++) {
        size_t at = (1 + page / CHT_SUMS_PER_PAGE * 4 + kind) * CHT_PAGE + page % CHT_SUMS_PER_PAGE * 4;
        if (sums == NULL || at + 4 > sums->n)
            return;
        if (cht_get32(sums->p + at) != 0 || !cht_page_is_zeros(f->p + page * CHT_PAGE))
            cht_put32(sums->p + at, cht_page_sum(f->p + page * CHT_PAGE));
    }
}

static void seal_shard(struct image *im, unsigned shard)
{
    static const char *const names[CHT_PF_KINDS] = {"keys", "values", "recycle", "pairs", "sums"};
    struct image_file *f[CHT_PF_KINDS];
    char name[IMAGE_NAME];
    for (unsigned k = 0; k < CHT_PF_KINDS; k++) {
        (void)snprintf(name, sizeof name, "default/shard-%03u/%s", shard, names[k]);
        f[k] = image_find(im, name);
        seal_head(f[k]);
    }
    for (unsigned k = 0; k < CHT_PF_SUMS; k++) {
        if (f[k] != NULL)
            seal_pages(f[k], k, f[CHT_PF_SUMS]);
    }
    for (size_t at = 0; f[CHT_PF_SUMS] != NULL && at + CHT_PAGE <= f[CHT_PF_SUMS]->n; at += CHT_PAGE)
        cht_put32(f[CHT_PF_SUMS]->p + at + CHT_PAGE - 4, cht_crc32c(0, f[CHT_PF_SUMS]->p + at, CHT_PAGE - 4));
}

void image_seal(struct image *im)
{
    for (size_t i = 0; i < im->n; i++) {
        struct image_file *f = &im->file[i];
        if (CHT_BEGINS(f->name, "default/log/"))
            seal_log(f);
        else if (strstr(f->name, "/journal") != NULL)
            seal_journal(f);
        else if (strcmp(f->name, "cheetah.set") == 0)
            seal_set(f);
        else if (strcmp(f->name, "default/manifest") == 0)
            seal_head(f);
    }
    seal_shard(im, 0);
    seal_shard(im, 1);
}

/* ---- mutants ------------------------------------------------------------------------------------------------------------ */

static uint64_t odd_number(struct cht_rng *r, uint64_t old, uint64_t pages)
{
    static const uint64_t odd[] = {0,          1,         2,        63,         64,         255,
                                   256,        4095,      4096,     4097,       32768,      32769,
                                   65535,      1u << 30,  1u << 31, UINT32_MAX, 1ull << 47, (1ull << 48) - 1,
                                   1ull << 63, UINT64_MAX};
    switch (cht_rng_below(r, 6)) {
    case 0:
        return old + 1;
    case 1:
        return old - 1;
    case 2:
        return old ^ UINT64_C(1) << cht_rng_below(r, 64);
    case 3:
        return cht_rng_below(r, pages * 64 + 2); /* a block */
    case 4:
        return cht_rng_below(r, pages + 2) * (cht_rng_below(r, 2) == 0 ? 64 : 8); /* a page, a granule */
    default:
        return odd[cht_rng_below(r, sizeof odd / sizeof *odd)];
    }
}

/* Most likely a place that is not zero, or just after one. */
static size_t place(const struct image_file *f, struct cht_rng *r)
{
    size_t at = cht_rng_below(r, f->n), page = at / CHT_PAGE * CHT_PAGE;
    if (cht_rng_below(r, 4) == 0)
        page = 0;
    at = page + cht_rng_below(r, f->n - page < CHT_PAGE ? f->n - page : CHT_PAGE);
    for (size_t i = 0; i < CHT_PAGE && f->p[at] == 0 && cht_rng_below(r, 50) != 0; i++)
        at = at + 1 < f->n && (at + 1) % CHT_PAGE != 0 ? at + 1 : page;
    return at;
}

static void change_field(struct image_file *f, struct cht_rng *r)
{
    size_t at = place(f, r), width = 1u << cht_rng_below(r, 4), pages = f->n / CHT_PAGE;
    at = at / width * width;
    if (at + width > f->n)
        return;
    uint64_t v = 0;
    for (size_t i = 0; i < width; i++)
        v |= (uint64_t)f->p[at + i] << 8 * i;
    v = odd_number(r, v, pages);
    for (size_t i = 0; i < width; i++)
        f->p[at + i] = (uint8_t)(v >> 8 * i);
}

static void move_block(struct image_file *f, struct cht_rng *r)
{
    size_t size = (size_t)64 << cht_rng_below(r, 7);
    if (f->n < size)
        return;
    size_t blocks = f->n / size, to = cht_rng_below(r, blocks) * size;
    memmove(f->p + to, f->p + cht_rng_below(r, blocks) * size, size);
}

static void change_size(struct image_file *f, struct cht_rng *r)
{
    size_t unit = cht_rng_below(r, 4) == 0 ? 1 : cht_rng_below(r, 2) == 0 ? 512 : CHT_PAGE;
    size_t n = cht_rng_below(r, f->n / unit + 2) * unit;
    n = n < IMAGE_FILE_MAX ? n : IMAGE_FILE_MAX;
    if (n < f->n)
        memset(f->p + n, 0, f->n - n);
    f->n = n;
}

static struct image_file *choose(struct image *im, struct cht_rng *r)
{
    struct image_file *f = NULL;
    for (unsigned i = 0; i < 8; i++) { /* those with a structure more often */
        f = &im->file[cht_rng_below(r, im->n)];
        if (f->n > 0 && (strstr(f->name, "pairs") != NULL || strstr(f->name, "recycle") != NULL ||
                         strstr(f->name, "log/") != NULL || cht_rng_below(r, 3) == 0))
            return f;
    }
    return f;
}

static void drop_file(struct image *im, struct image_file *f)
{
    struct image_file last = im->file[--im->n];
    im->file[im->n] = *f; /* its memory is used again */
    *f = last;
}

void image_mutate(struct image *im, struct cht_rng *r)
{
    for (uint64_t k = 1 + cht_rng_below(r, 4); k > 0 && im->n > 0; k--) {
        struct image_file *f = choose(im, r);
        switch (f->n == 0 ? 14 : cht_rng_below(r, 16)) {
        case 0:
        case 1:
            move_block(f, r);
            break;
        case 14:
            change_size(f, r);
            break;
        case 15:
            if (cht_rng_below(r, 10) == 0)
                drop_file(im, f);
            break;
        default:
            change_field(f, r);
        }
    }
}
