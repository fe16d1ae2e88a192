/* simdisk_int: what the files of simdisk share. */
#pragma once

#include <pthread.h>

#include "support/simdisk.h"

#define SIM_MOUNTS 4

enum event_kind {
    EV_WRITE,
    EV_TRUNCATE,
    EV_ALLOCATE,
    EV_PUNCH,
    EV_SYNC,
    EV_CREATE,
    EV_MKDIR,
    EV_RENAME,
    EV_UNLINK,
    EV_SYNC_DIR
};

struct event {
    enum event_kind kind;
    unsigned inode;
    uint64_t off, len;
    uint8_t *data;   /* owned */
    char *path, *to; /* owned */
};

struct entry {
    char *path; /* owned */
    int inode;  /* -1: a folder; -2: a link */
    int fs;     /* index of the mount that it is on, -1: none */
    unsigned mode;
    uint64_t id;  /* for stat; of the entry, not of its place in the table */
    char *target; /* of a link; owned */
};

struct names {
    struct entry *v; /* owned */
    size_t n, cap;
    uint64_t next_id;
    struct sim_mount {
        char *path; /* owned; NULL: no more mounts */
        bool mounted;
    } mounts[SIM_MOUNTS];
};

struct simdisk {
    struct cht_io io; /* first */
    pthread_mutex_t mu;
    struct names names;
    int *fds; /* by inode; owned */
    bool *locked;
    size_t inodes;
    struct event *events; /* owned */
    size_t nevents, cap;
    uint64_t countdown, injected;
    enum sim_fault kind;
    bool forever;
    struct sim_plan plan;
    bool planned;
    uint64_t seen;
    struct sim_victim {
        enum sim_call call;
        char *path; /* owned */
    } * victims;    /* owned; calls that the plan made fail */
    size_t nvictims, victims_cap;
    uint64_t capacity; /* 0: none */
    bool forgets;      /* records nothing */
};

void *sim_grow(void *p, size_t n); /* realloc that cannot fail */

/* ENOSPC if [off, off + len) of a file needs more than the capacity leaves, 0 if not. mu held. */
int sim_room(const struct simdisk *d, int fd, uint64_t off, uint64_t len);
/* Bytes of whole pages that [off, off + len) of a file has no space for yet. */
uint64_t sim_missing(int fd, uint64_t off, uint64_t len);
int sim_new_inode(struct simdisk *d); /* an empty file without a name; mu held */

/* names: what is visible. Paths have been resolved but where the name says so. */
struct entry *names_find(struct names *l, const char *path);
void names_add(struct names *l, const char *path, int inode);
void names_drop(struct names *l, const char *path);
void names_apply(struct names *l, const struct event *e);
void names_copy(struct names *to, const struct names *from);
void names_free(struct names *l);
bool names_empty_folder(struct names *l, const char *path);
int names_fs(const struct names *l, const char *path); /* which mount the path lies on */
/* Follows the links in the path, the last component's with `last`; checks that each folder on the way may be searched. 0 or an errno: ENOENT
 * and ENOTDIR also where the folder of the path is not there. */
int names_resolve(struct names *l, const char *path, bool last, char *out, size_t cap);
/* May the folder of the path be written? 0 or EACCES. */
int names_writable(struct names *l, const char *path);
