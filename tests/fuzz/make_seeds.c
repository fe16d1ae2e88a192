/* make_seeds: writes the seeds that are not written by hand: databases as images (target_database.c) and backups of them. They are in the
 * repository, and stay as they are when the formats go on: run this to add some of a new version, under other names.
 *
 *   build/PRESET/tests/fuzz/fuzz_make_seeds tests/fuzz/seeds SUFFIX
 */
#include "fuzz/image.h"

#include "cheetah/backup.h"

static uint8_t bytes[20000], packed[1 << 20];
static const char *folder, *suffix;
static bool with_ends; /* every other pair ends, after a minute and more */

static void write_file(const char *target, const char *name, const uint8_t *p, size_t n)
{
    char path[400];
    (void)snprintf(path, sizeof path, "%s/%s/%s-%s", folder, target, name, suffix);
    FILE *f = fopen(path, "wbx");
    FUZZ_CHECK(f != NULL && fwrite(p, 1, n, f) == n && fclose(f) == 0);
}

static void put(struct cht_store *s, unsigned i, size_t length, bool del)
{
    uint8_t name[4200];
    size_t n;
    switch (i % 4) { /* as target_database.c asks for them */
    case 0:
        n = (size_t)sprintf((char *)name, "%c%u", 'A' + (int)(i % 50), i);
        break;
    case 1:
        n = (size_t)sprintf((char *)name, "a/common/prefix/%03u", i);
        break;
    case 2:
        n = 900 + i % 7 * 400;
        memset(name, 'x', n);
        n += (size_t)sprintf((char *)name + n, "%u", i % 40);
        break;
    default:
        n = 1 + i % 60;
        memset(name, 'p', n);
    }
    struct cht_op op = {.kind = del ? CHT_OP_PAIR_DEL : CHT_OP_PAIR_PUT,
                        .name = {name, n},
                        .value = {bytes, length},
                        .ttl_ms = with_ends && !del && i % 2 == 0 ? 60000 + i % 5 * 1000 : 0,
                        .with_values = true};
    struct cht_commit c = {.ops = &op, .count = 1};
    FUZZ_CHECK(cht_store_commit(s, &c) == CHT_OK);
}

static void back_up(struct cht_store *s, const char *name)
{
    static uint8_t stream[4 << 20];
    size_t n = 1, at = 0;
    struct cht_backup *b;
    struct cht_err err = {0};
    fuzz_must(cht_backup_open(s, &b, &err), &err);
    while (n > 0) {
        FUZZ_CHECK(sizeof stream - at >= CHT_BACKUP_BUFFER_MIN);
        fuzz_must(cht_backup_read(b, stream + at, sizeof stream - at, &n, &err), &err);
        at += n;
    }
    cht_backup_close(b);
    struct image im = {.n = 1, .file[0] = {.name = "backup", .p = stream, .n = at}};
    FUZZ_CHECK(at <= IMAGE_FILE_MAX);
    size_t len = image_write(&im, packed + 2, sizeof packed - 2);
    FUZZ_CHECK(len > 0);
    write_file("backup", name, packed, len + 2);
}

static void database(const char *name, unsigned shards, unsigned names, bool clean)
{
    static struct image im;
    static const size_t lengths[] = {1, 8, 8, 40, 100, 700, 5000};
    struct simdisk *d = simdisk_new();
    struct cht_env_config cfg = fuzz_config(d);
    struct cht_env *env;
    struct cht_store *s;
    struct cht_err err = {0};
    fuzz_must(cht_env_open(&cfg, &env, &err), &err);
    fuzz_must(cht_env_create(env, "default", shards, &err), &err);
    fuzz_must(cht_env_get(env, "default", &s, &err), &err);
    for (unsigned i = 0; i < names; i++)
        put(s, i, lengths[i % 7], false);
    for (unsigned i = 0; i < names; i += 3)
        put(s, i, 0, true);
    fuzz_must(cht_store_checkpoint(s, &err), &err);
    for (unsigned i = 0; i < names; i += 4)
        put(s, i, lengths[(i + 3) % 7], false);
    if (clean)
        back_up(s, name);
    if (clean)
        fuzz_must(cht_env_close(env, &err), &err);
    else
        cht_env_abandon(env);
    image_take(&im, d, "/d");
    packed[0] = clean ? 8 + 32 : 4 + 64;
    packed[1] = (uint8_t)names;
    size_t n = image_write(&im, packed + 2, sizeof packed - 2);
    FUZZ_CHECK(n > 0);
    write_file("database", name, packed, n + 2);
    packed[0] = 2;
    (void)snprintf((char *)bytes, sizeof bytes, "%s-checked", name);
    write_file("database", (const char *)bytes, packed, n + 2);
    memset(bytes, 'v', sizeof bytes);
    simdisk_free(d);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        (void)fprintf(stderr, "usage: fuzz_make_seeds FOLDER SUFFIX\n");
        return 2;
    }
    folder = argv[1];
    suffix = argv[2];
    memset(bytes, 'v', sizeof bytes);
    database("empty", 1, 0, true);
    database("small", 1, 12, true);
    database("log", 1, 9, false);
    database("two", 2, 8, true);
    database("two-log", 2, 8, false);
    database("larger", 1, 40, true);
    with_ends = true;
    database("ends", 1, 12, true);
    database("ends-log", 2, 9, false);
    return 0;
}
