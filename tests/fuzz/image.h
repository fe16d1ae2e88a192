/* image: the files of a database as one input: small enough for a fuzzer, whole enough to be kept for ever, whatever later programs write.
 *
 *   files, one after the other:   name length u8, name (below the data directory: "default/shard-000/keys"), size u32, runs u16, and each
 *   run: offset u32, length u16, bytes. What is in no run is zeros. Little-endian. Whatever the bytes, they are some image.
 */
#pragma once

#include "fuzz/fuzz.h"

#include "base/rng.h"

enum { IMAGE_FILES = 24, IMAGE_NAME = 48, IMAGE_FILE_MAX = 256 << 10 };

struct image {
    struct image_file {
        char name[IMAGE_NAME];
        uint8_t *p; /* owned, IMAGE_FILE_MAX bytes; zeros after n */
        size_t n;
    } file[IMAGE_FILES];
    size_t n;
};

void image_read(struct image *im, struct fuzz_in *in); /* all of it; im is zero, or was used before */
/* 0 if it needs more than max bytes. */
size_t image_write(const struct image *im, uint8_t *out, size_t max);
void image_free(struct image *im);
struct image_file *image_find(struct image *im, const char *name);
/* Files from a disk and to it. put removes first what is there. */
void image_take(struct image *im, struct simdisk *d, const char *dir);
void image_put(const struct image *im, struct simdisk *d, const char *dir);
/* All checksums of pages, headers, log records and lists are made right; not those of values. */
void image_seal(struct image *im);
/* Some fields become other numbers, pages change places, files are cut. */
void image_mutate(struct image *im, struct cht_rng *r);
