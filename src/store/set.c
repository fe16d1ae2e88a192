/* set: see set.h. */
#include "store/set.h"

#include "base/alloc.h"
#include "base/bytes.h"
#include "base/crc32c.h"

#include <string.h>

_Static_assert(sizeof((struct cht_set_entry *)0)->name == 65, "the format has room for names of this length");
#define HEAD 512u
#define ENTRY 128u
#define ENTRIES_MAX (1u << 20)

static const char magic[8] = "CHEETAHD";

static void make_head(const struct cht_set *s, uint8_t b[HEAD])
{
    memset(b, 0, HEAD);
    memcpy(b, magic, 8);
    cht_put32(b + 8, CHT_SET_VERSION);
    memcpy(b + 16, s->id, 16);
    cht_put32(b + 32, s->place);
    cht_put32(b + 36, s->places);
    cht_put32(b + 508, cht_crc32c(0, b, 508));
}

static void make_entry(const struct cht_set_entry *e, uint8_t b[ENTRY])
{
    memset(b, 0, ENTRY);
    if (e->name[0] == 0)
        return;
    memcpy(b, e->name, strlen(e->name));
    memcpy(b + 72, e->uuid, 16);
    cht_put32(b + 124, cht_crc32c(0, b, 124));
}

static enum cht_rc read_head(struct cht_set *s, const char *path, const uint8_t b[HEAD], struct cht_err *err)
{
    bool sealed = cht_get32(b + 508) == cht_crc32c(0, b, 508);
    if (memcmp(b, magic, 8) != 0)
        return CHT_DAMAGED(err, "%s: offset 0: not a set file", path);
    if (!sealed)
        return CHT_DAMAGED(err, "%s: offset 0: does not match its checksum", path);
    if (cht_get32(b + 8) != CHT_SET_VERSION)
        return CHT_FAIL(err, CHT_VERSION, "%s: format version %u, this program knows %u", path,
                        cht_get32(b + 8), CHT_SET_VERSION);
    memcpy(s->id, b + 16, 16);
    s->place = cht_get32(b + 32);
    s->places = cht_get32(b + 36);
    if (s->place >= s->places)
        return CHT_DAMAGED(err, "%s: offset 32: place %u of %u", path, s->place, s->places);
    return CHT_OK;
}

static enum cht_rc grow(struct cht_set *s, struct cht_err *err)
{
    if (s->n < s->cap)
        return CHT_OK;
    size_t cap = s->cap == 0 ? 16 : s->cap * 2;
    void *v = cht_realloc(s->v, cap * sizeof *s->v);
    if (v == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "no memory for the list of databases");
    s->v = v;
    s->cap = cap;
    return CHT_OK;
}

static enum cht_rc read_entries(struct cht_set *s, const char *path, const uint8_t *b, size_t n,
                                struct cht_err *err)
{
    static const uint8_t zeros[ENTRY];
    for (size_t i = 0; i < n; i++, b += ENTRY) {
        bool used = memcmp(b, zeros, ENTRY) != 0;
        if (used && (b[0] == 0 || memchr(b, 0, sizeof s->v->name) == NULL ||
                     cht_get32(b + 124) != cht_crc32c(0, b, 124)))
            return CHT_DAMAGED(err, "%s: offset %zu: does not match its checksum", path, HEAD + i * ENTRY);
        enum cht_rc rc = grow(s, err);
        if (rc != CHT_OK)
            return rc;
        struct cht_set_entry *e = &s->v[s->n++];
        memcpy(e->name, b, sizeof e->name);
        memcpy(e->uuid, b + 72, 16);
    }
    return CHT_OK;
}

static enum cht_rc read_file(struct cht_set *s, struct cht_file *f, struct cht_err *err)
{
    uint64_t size = 0;
    enum cht_rc rc = f->io->ops->size(f, &size, err);
    if (rc == CHT_OK && (size < HEAD || size > HEAD + (uint64_t)ENTRIES_MAX * ENTRY))
        rc = CHT_DAMAGED(err, "%s: is %llu bytes long", f->path, (unsigned long long)size);
    if (rc != CHT_OK)
        return rc;
    uint8_t *b = cht_malloc((size_t)size);
    if (b == NULL)
        return CHT_FAIL(err, CHT_NO_MEMORY, "%s: no memory", f->path);
    rc = cht_file_read(f, b, (size_t)size, 0, err);
    if (rc == CHT_OK)
        rc = read_head(s, f->path, b, err);
    if (rc == CHT_OK)
        rc = read_entries(s, f->path, b + HEAD, ((size_t)size - HEAD) / ENTRY, err);
    cht_free(b);
    return rc;
}

/* Of all files of the set: T1. */
static unsigned places_of(const struct cht_set *sets, size_t n)
{
    unsigned places = 0;
    for (size_t i = 0; i < n; i++) {
        if (sets[i].there && sets[i].places > places)
            places = sets[i].places;
    }
    return places;
}

static enum cht_rc place_missing(unsigned place, unsigned places, char *const *dirs,
                                 const struct cht_set *sets, size_t n, struct cht_err *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!sets[i].there)
            return CHT_FAIL(err, CHT_DIRECTORY_MISSING,
                            "%.90s: is not of this set of %u directories, whose number %u is missing: is its "
                            "disk not mounted?",
                            dirs[i], places, place + 1);
    }
    return CHT_FAIL(err, CHT_DIRECTORY_MISSING,
                    "data directory %u of %u is missing: name all of them (%.90s belongs to the same set)",
                    place + 1, places, dirs[0]);
}

/* Writes the whole file under its name and opens it. */
static enum cht_rc make_file(struct cht_io *io, const char *dir, struct cht_set *s, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    uint8_t b[HEAD];
    enum cht_rc rc = cht_path_join(path, sizeof path, dir, CHT_SET_FILE, err);
    make_head(s, b);
    if (rc == CHT_OK)
        rc = cht_io_replace(io, dir, CHT_SET_FILE, b, sizeof b, err);
    if (rc == CHT_OK)
        rc = cht_io_open(io, path, 0, &s->file, err);
    s->there = rc == CHT_OK;
    return rc;
}

/* Writes the head over if it says something else. */
static enum cht_rc tell_places(struct cht_set *s, unsigned places, struct cht_err *err)
{
    uint8_t b[HEAD];
    if (s->places == places)
        return CHT_OK;
    unsigned before = s->places;
    s->places = places;
    make_head(s, b);
    enum cht_rc rc = cht_file_write(s->file, b, sizeof b, 0, err);
    if (rc == CHT_OK)
        rc = cht_file_sync(s->file, err);
    if (rc != CHT_OK)
        s->places = before;
    return rc;
}

static enum cht_rc write_entry(struct cht_set *s, size_t i, const struct cht_set_entry *e,
                               struct cht_err *err)
{
    uint8_t b[ENTRY];
    make_entry(e, b);
    return cht_file_write(s->file, b, sizeof b, HEAD + i * ENTRY, err);
}

/* ------------------------------------------------------------------------------------------------------------ */

enum cht_rc cht_set_read(struct cht_io *io, const char *dir, struct cht_set *s, struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    struct cht_file *f;
    enum cht_io_kind kind = CHT_IO_NOTHING;
    memset(s, 0, sizeof *s);
    enum cht_rc rc = cht_path_join(path, sizeof path, dir, CHT_SET_FILE, err);
    if (rc == CHT_OK)
        rc = cht_io_kind(io, path, &kind, err);
    if (rc != CHT_OK || kind == CHT_IO_NOTHING)
        return rc;
    rc = cht_io_open(io, path, CHT_OPEN_RDONLY, &f, err);
    if (rc != CHT_OK)
        return rc;
    rc = read_file(s, f, err);
    cht_file_close(f);
    if (rc != CHT_OK)
        cht_set_fini(s);
    else
        s->there = true;
    return rc;
}

void cht_set_fini(struct cht_set *s)
{
    cht_file_close(s->file);
    cht_free(s->v);
    memset(s, 0, sizeof *s);
}

enum cht_rc cht_set_judge(char *const *dirs, const struct cht_set *sets, size_t n, struct cht_err *err)
{
    size_t first = 0;
    while (first < n && !sets[first].there)
        first++;
    for (size_t i = first + 1; i < n; i++) {
        if (!sets[i].there)
            continue;
        if (memcmp(sets[i].id, sets[first].id, 16) != 0)
            return CHT_FAIL(err, CHT_DIRECTORY_MISPLACED,
                            "%.80s belongs to another set of data directories than %.80s", dirs[i],
                            dirs[first]);
        for (size_t j = first; j < i; j++) {
            if (sets[j].there && sets[j].place == sets[i].place)
                return CHT_FAIL(err, CHT_DIRECTORY_MISPLACED,
                                "%.80s and %.80s are both number %u of their set: one is a copy of the other",
                                dirs[j], dirs[i], sets[i].place + 1);
        }
    }
    unsigned places = places_of(sets, n);
    for (unsigned p = 0; p < places; p++) {
        size_t i = 0;
        while (i < n && !(sets[i].there && sets[i].place == p))
            i++;
        if (i == n)
            return place_missing(p, places, dirs, sets, n, err);
    }
    return CHT_OK;
}

enum cht_rc cht_set_join(struct cht_io *io, char *const *dirs, struct cht_set *sets, size_t n,
                         struct cht_err *err)
{
    char path[CHT_PATH_MAX];
    uint8_t id[16];
    unsigned places = places_of(sets, n);
    enum cht_rc rc = CHT_OK;
    cht_os_random(id, sizeof id);
    for (size_t i = 0; i < n && rc == CHT_OK; i++) {
        if (!sets[i].there)
            continue;
        memcpy(id, sets[i].id, 16);
        rc = cht_path_join(path, sizeof path, dirs[i], CHT_SET_FILE, err);
        if (rc == CHT_OK)
            rc = cht_io_open(io, path, 0, &sets[i].file, err);
        if (rc == CHT_OK)
            rc = tell_places(&sets[i], places, err);
    }
    for (size_t i = 0; i < n && rc == CHT_OK; i++) { /* T3 */
        if (sets[i].there)
            continue;
        memcpy(sets[i].id, id, 16);
        sets[i].place = places;
        sets[i].places = ++places;
        rc = make_file(io, dirs[i], &sets[i], err);
        for (size_t j = 0; j < n && rc == CHT_OK; j++) {
            if (sets[j].there)
                rc = tell_places(&sets[j], places, err);
        }
    }
    return rc;
}

const struct cht_set_entry *cht_set_find(const struct cht_set *s, const char *name)
{
    for (size_t i = 0; i < s->n; i++) {
        if (strcmp(s->v[i].name, name) == 0)
            return &s->v[i];
    }
    return NULL;
}

enum cht_rc cht_set_put(struct cht_set *s, const char *name, const uint8_t uuid[16], struct cht_err *err)
{
    const struct cht_set_entry *there = cht_set_find(s, name);
    struct cht_set_entry e = {.name = {0}};
    if (s->file == NULL || (there != NULL && memcmp(there->uuid, uuid, 16) == 0))
        return CHT_OK;
    enum cht_rc rc = grow(s, err);
    if (there == NULL)
        there = cht_set_find(s, "");
    size_t i = there == NULL ? s->n : (size_t)(there - s->v);
    if (rc == CHT_OK && i == ENTRIES_MAX)
        rc = CHT_FAIL(err, CHT_INVALID_ARGUMENT, "%s: is full", s->file->path);
    memcpy(e.name, name, strlen(name)); /* a valid name */
    memcpy(e.uuid, uuid, 16);
    if (rc == CHT_OK)
        rc = write_entry(s, i, &e, err);
    if (rc != CHT_OK)
        return rc;
    s->v[i] = e;
    s->n += i == s->n;
    return CHT_OK;
}

enum cht_rc cht_set_remove(struct cht_set *s, const char *name, struct cht_err *err)
{
    static const struct cht_set_entry none;
    const struct cht_set_entry *there = cht_set_find(s, name);
    if (s->file == NULL || there == NULL)
        return CHT_OK;
    size_t i = (size_t)(there - s->v);
    enum cht_rc rc = write_entry(s, i, &none, err);
    if (rc == CHT_OK)
        s->v[i] = none;
    return rc;
}

enum cht_rc cht_set_sync(struct cht_set *s, struct cht_err *err)
{
    return s->file == NULL ? CHT_OK : cht_file_sync(s->file, err);
}
