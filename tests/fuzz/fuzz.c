/* fuzz: see fuzz.h. */
#include "fuzz/fuzz.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

_Noreturn void fuzz_failed(const char *file, int line, const char *what)
{
    (void)fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

void fuzz_must(enum cht_rc rc, const struct cht_err *err)
{
    if (rc == CHT_OK)
        return;
    (void)fprintf(stderr, "%s: %s\n", cht_rc_slug(rc), err->msg);
    abort();
}

void *fuzz_exact(const void *data, size_t n)
{
    void *p = malloc(n > 0 ? n : 1);
    FUZZ_CHECK(p != NULL);
    if (n > 0)
        memcpy(p, data, n);
    return p;
}

const char *fuzz_file(const void *data, size_t n)
{
    static char path[32];
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("fuzz", 0);
        FUZZ_CHECK(fd >= 0);
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    FUZZ_CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data, n, 0) == (ssize_t)n);
    return path;
}

uint8_t fuzz_u8(struct fuzz_in *in)
{
    if (in->n == 0)
        return 0;
    in->n--;
    return *in->p++;
}

uint32_t fuzz_u32(struct fuzz_in *in)
{
    uint32_t v = 0;
    for (int i = 0; i < 4; i++)
        v = v << 8 | fuzz_u8(in);
    return v;
}

const uint8_t *fuzz_bytes(struct fuzz_in *in, size_t n, size_t *got)
{
    const uint8_t *p = in->p;
    *got = n < in->n ? n : in->n;
    in->p += *got;
    in->n -= *got;
    return p;
}

/* ---- a store --------------------------------------------------------------------------------------------------------- */

struct cht_env_config fuzz_config(struct simdisk *d)
{
    static const char *const dirs[] = {"/d"};
    return (struct cht_env_config){.dirs = dirs,
                                   .dir_count = 1,
                                   .default_shards = 1,
                                   .log_segment_bytes = 1u << 16,
                                   .scan_workers = 1,
                                   .commit_threads = 1,
                                   .durability = CHT_DURABLE_OS,
                                   .manual_checkpoint = true,
                                   .max_value_size = 1u << 20,
                                   .max_databases = 8,
                                   .io = simdisk_io(d)};
}

void fuzz_store_open(struct fuzz_store *f, bool with_dbs)
{
    struct cht_err err = {0};
    memset(f, 0, sizeof *f);
    f->disk = simdisk_new();
    simdisk_forget(f->disk);
    struct cht_env_config cfg = fuzz_config(f->disk);
    fuzz_must(cht_env_open(&cfg, &f->env, &err), &err);
    if (!with_dbs) {
        fuzz_must(cht_env_create(f->env, CHT_DATABASE_DEFAULT, 1, &err), &err);
        fuzz_must(cht_env_get(f->env, CHT_DATABASE_DEFAULT, &f->store, &err), &err);
        return;
    }
    struct svc_database *d;
    bool created;
    fuzz_must(svc_dbs_new(f->env, &f->dbs, &err), &err);
    fuzz_must(svc_dbs_open(f->dbs, CHT_DATABASE_DEFAULT, true, 1, &d, &created, &err), &err);
    f->store = d->store;
    svc_dbs_put(d);
}

void fuzz_store_close(struct fuzz_store *f)
{
    svc_dbs_free(f->dbs);
    cht_env_abandon(f->env);
    simdisk_free(f->disk);
    memset(f, 0, sizeof *f);
}

void fuzz_store_empty(struct fuzz_store *f)
{
    struct cht_op all = {.kind = CHT_OP_PREFIX_DEL, .name = {(const uint8_t *)"", 0}, .with_values = true};
    struct cht_commit c = {.ops = &all, .count = 1};
    struct svc_database *d = NULL;
    struct cht_err err = {0};
    bool created;
    if (f->dbs != NULL) { /* the input may have dropped it, or it was closed */
        fuzz_must(svc_dbs_open(f->dbs, CHT_DATABASE_DEFAULT, true, 1, &d, &created, &err), &err);
        f->store = d->store;
    }
    FUZZ_CHECK(cht_store_commit(f->store, &c) == CHT_OK && all.rc == CHT_OK);
    svc_dbs_put(d);
}
