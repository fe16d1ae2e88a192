/* simnames: the names of a simulated disk: folders, modes, links, mounts. Declared in simdisk_int.h. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support/simdisk_int.h"

void *sim_grow(void *p, size_t n)
{
    p = realloc(p, n);
    assert(p != NULL);
    return p;
}

/* Is `path` below the folder `dir`? */
static bool below(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && path[n] == '/';
}

int names_fs(const struct names *l, const char *path)
{
    int fs = -1;
    for (int i = 0; i < SIM_MOUNTS && l->mounts[i].path != NULL; i++) {
        if (l->mounts[i].mounted && below(path, l->mounts[i].path))
            fs = i;
    }
    return fs;
}

struct entry *names_find(struct names *l, const char *path)
{
    int fs = names_fs(l, path);
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].fs == fs && strcmp(l->v[i].path, path) == 0)
            return &l->v[i];
    }
    return NULL;
}

void names_add(struct names *l, const char *path, int inode)
{
    if (l->n == l->cap)
        l->v = sim_grow(l->v, (l->cap = l->cap * 2 + 16) * sizeof *l->v);
    l->v[l->n++] = (struct entry){strdup(path), inode, names_fs(l, path), 0700, ++l->next_id, NULL};
}

void names_drop(struct names *l, const char *path)
{
    struct entry *e = names_find(l, path);
    if (e != NULL) {
        free(e->path);
        free(e->target);
        *e = l->v[--l->n];
    }
}

void names_free(struct names *l)
{
    for (size_t i = 0; i < l->n; i++) {
        free(l->v[i].path);
        free(l->v[i].target);
    }
    for (int i = 0; i < SIM_MOUNTS; i++)
        free(l->mounts[i].path);
    free(l->v);
}

void names_copy(struct names *to, const struct names *from)
{
    *to = *from;
    to->v = sim_grow(NULL, (from->cap + 1) * sizeof *to->v);
    for (size_t i = 0; i < from->n; i++) {
        to->v[i] = from->v[i];
        to->v[i].path = strdup(from->v[i].path);
        to->v[i].target = from->v[i].target != NULL ? strdup(from->v[i].target) : NULL;
    }
    for (int i = 0; i < SIM_MOUNTS; i++)
        to->mounts[i].path = from->mounts[i].path != NULL ? strdup(from->mounts[i].path) : NULL;
}

/* A folder takes what is in it with it. */
static void move(struct names *l, const char *from, const char *to)
{
    int fs = names_fs(l, from);
    names_drop(l, to);
    for (size_t i = 0; i < l->n; i++) {
        struct entry *e = &l->v[i];
        if (e->fs != fs || (strcmp(e->path, from) != 0 && !below(e->path, from)))
            continue;
        size_t n = strlen(to) + strlen(e->path) - strlen(from) + 1;
        char *path = sim_grow(NULL, n);
        (void)snprintf(path, n, "%s%s", to, e->path + strlen(from));
        free(e->path);
        e->path = path;
    }
}

void names_apply(struct names *l, const struct event *e)
{
    if (e->kind == EV_CREATE || e->kind == EV_MKDIR) {
        names_drop(l, e->path);
        names_add(l, e->path, e->kind == EV_MKDIR ? -1 : (int)e->inode);
    } else if (e->kind == EV_UNLINK) {
        names_drop(l, e->path);
    } else if (e->kind == EV_RENAME && names_find(l, e->path) != NULL) {
        move(l, e->path, e->to);
    }
}

bool names_empty_folder(struct names *l, const char *path)
{
    char probe[CHT_PATH_MAX + 2];
    (void)snprintf(probe, sizeof probe, "%s/x", path);
    int fs = names_fs(l, probe);
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].fs == fs && below(l->v[i].path, path))
            return false;
    }
    return true;
}

/* The first `n` bytes of the path are a folder that may be searched. */
static int searchable(struct names *l, const char *path, size_t n)
{
    char dir[CHT_PATH_MAX];
    (void)snprintf(dir, sizeof dir, "%.*s", (int)n, path);
    const struct entry *e = names_find(l, dir);
    if (e == NULL)
        return ENOENT;
    if (e->inode >= 0)
        return ENOTDIR;
    return (e->mode & 0100) != 0 ? 0 : EACCES;
}

int names_resolve(struct names *l, const char *path, bool last, char *out, size_t cap)
{
    (void)snprintf(out, cap, "%s", path);
    for (int hops = 0; hops < 8; hops++) {
        bool again = false;
        for (size_t at = 1; !again && out[at - 1] != 0;) { /* the end of each component but the root's */
            size_t end = at + strcspn(out + at, "/");
            bool is_last = out[end] == 0;
            char head[CHT_PATH_MAX], rest[CHT_PATH_MAX];
            (void)snprintf(head, sizeof head, "%.*s", (int)end, out);
            const struct entry *e = names_find(l, head);
            if (e != NULL && e->inode == -2 && (!is_last || last)) {
                (void)snprintf(rest, sizeof rest, "%s", out + end);
                int n = snprintf(out, cap, "%s%s", e->target, rest);
                assert(n > 0 && (size_t)n < cap);
                again = true;
            } else {
                int bad = is_last ? 0 : searchable(l, out, end);
                if (bad != 0)
                    return bad;
                if (is_last)
                    return 0;
                at = end + 1;
            }
        }
        if (!again)
            return 0;
    }
    return ELOOP;
}

int names_writable(struct names *l, const char *path)
{
    const char *slash = strrchr(path, '/');
    char dir[CHT_PATH_MAX];
    if (slash == NULL || slash == path)
        return 0; /* the root */
    (void)snprintf(dir, sizeof dir, "%.*s", (int)(slash - path), path);
    const struct entry *e = names_find(l, dir);
    return e == NULL ? ENOENT : (e->mode & 0300) == 0300 ? 0 : EACCES;
}
