/* ledger: see ledger.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "support/ledger.h"
#include "support/model.h"

#define OPS 6

struct batch {
    struct cht_op ops[OPS];
    char name[OPS][16];
    unsigned which[OPS];
    uint32_t version[OPS];
    uint8_t *value[OPS]; /* owned */
    unsigned n;
};

static uint32_t length(unsigned name, uint32_t version) { return 1 + (name * 977 + version * 331) % 2500; }

static struct cht_str name_of(unsigned i, char *text)
{
    return (struct cht_str){(const uint8_t *)text, (size_t)snprintf(text, 16, "name %u", i)};
}

static void make(struct ledger *l, struct batch *b)
{
    unsigned first = (unsigned)cht_rng_below(&l->r, LEDGER_NAMES);
    memset(b, 0, sizeof *b);
    b->n = 1 + (unsigned)cht_rng_below(&l->r, OPS);
    for (unsigned i = 0; i < b->n; i++) {
        unsigned which = (first + i * 5) % LEDGER_NAMES; /* different ones */
        struct cht_op *op = &b->ops[i];
        b->which[i] = which;
        op->name = name_of(which, b->name[i]);
        op->with_values = true;
        op->kind = CHT_OP_PAIR_DEL;
        if (l->version[which] != 0 && cht_rng_below(&l->r, 3) == 0)
            continue;
        b->version[i] = ++l->next;
        uint32_t n = length(which, b->version[i]);
        b->value[i] = malloc(n);
        model_fill(b->value[i], n, b->version[i]);
        op->kind = CHT_OP_PAIR_PUT;
        op->value = (struct cht_str){b->value[i], n};
    }
}

/* The version of a name in the store: 0 none, UINT32_MAX none that was ever written, or a read that failed (why). */
static uint32_t stored(struct ledger *l, struct cht_store *s, unsigned which, uint32_t a, uint32_t b)
{
    char text[16];
    uint64_t key;
    uint32_t size = 0, found = UINT32_MAX;
    struct cht_buf buf = {0};
    struct cht_err err = {0};
    enum cht_rc rc = cht_store_pair_value(s, name_of(which, text), &key, &buf, &size, &err);
    if (rc == CHT_PAIR_NOT_FOUND)
        found = 0;
    else if (rc != CHT_OK)
        (void)snprintf(l->why, sizeof l->why, "name %u: %s", which, err.msg);
    uint32_t tries[2] = {a, b};
    for (int i = 0; i < 2 && rc == CHT_OK && found == UINT32_MAX; i++) {
        uint32_t n = length(which, tries[i]);
        uint8_t *want = malloc(n);
        model_fill(want, n, tries[i]);
        if (tries[i] != 0 && buf.len == n && memcmp(buf.data, want, n) == 0)
            found = tries[i];
        free(want);
    }
    cht_buf_free(&buf);
    return found;
}

/* What the refused batch touched must read as it was. */
static void look(struct ledger *l, struct cht_store *s, const struct batch *b)
{
    for (unsigned i = 0; i < b->n && !l->shown; i++) {
        uint32_t old = l->version[b->which[i]];
        if (b->version[i] != old && stored(l, s, b->which[i], old, b->version[i]) == b->version[i]) {
            l->shown = true;
            (void)snprintf(l->why, sizeof l->why, "name %u: version %u was refused and is read", b->which[i],
                           b->version[i]);
        }
    }
}

static void apply(uint32_t *version, const struct batch *b)
{
    for (unsigned i = 0; i < b->n; i++)
        version[b->which[i]] = b->version[i];
}

/* -------------------------------------------------------------------------------------------------------------- */

void ledger_init(struct ledger *l, uint64_t seed)
{
    memset(l, 0, sizeof *l);
    cht_rng_seed(&l->r, seed);
}

void ledger_copy(struct ledger *to, const struct ledger *from) { *to = *from; }

enum cht_rc ledger_commits(struct ledger *l, struct cht_store *s, unsigned commits)
{
    enum cht_rc last = CHT_OK;
    for (unsigned i = 0; i < commits && !l->doubt; i++) {
        struct batch b;
        make(l, &b);
        struct cht_commit c = {.ops = b.ops, .count = b.n, .flags = CHT_COMMIT_ATOMIC};
        enum cht_rc rc = cht_store_commit(s, &c);
        if (rc == CHT_BATCH_FAILED)
            rc = b.ops[c.failed].rc;
        if (rc == CHT_OK) {
            apply(l->version, &b);
        } else {
            last = rc;
            look(l, s, &b);
            if (!l->shown)
                (void)snprintf(l->why, sizeof l->why, "%s: %s", cht_rc_slug(rc), c.err.msg);
            if (rc == CHT_OUTCOME_UNKNOWN) {
                memcpy(l->maybe, l->version, sizeof l->maybe);
                apply(l->maybe, &b);
                l->doubt = true;
            }
        }
        for (unsigned k = 0; k < b.n; k++)
            free(b.value[k]);
    }
    return last;
}

bool ledger_compare(struct ledger *l, struct cht_store *s)
{
    bool old = true, with = l->doubt;
    char old_why[120] = "";
    for (unsigned i = 0; i < LEDGER_NAMES; i++) {
        uint32_t maybe = l->doubt ? l->maybe[i] : l->version[i];
        uint32_t now = stored(l, s, i, l->version[i], maybe);
        if (now != l->version[i] && old)
            (void)snprintf(old_why, sizeof old_why, "name %u: version %d, not %u%s", i, (int)now,
                           l->version[i], l->doubt ? " (nor all of the commit in doubt)" : "");
        old = old && now == l->version[i];
        with = with && now == maybe;
    }
    uint64_t pairs = 0, want = 0;
    struct cht_err err = {0};
    if (with)
        memcpy(l->version, l->maybe, sizeof l->version);
    for (unsigned i = 0; i < LEDGER_NAMES; i++)
        want += l->version[i] != 0;
    if (!old && !with) {
        memcpy(l->why, old_why, sizeof old_why);
        return false;
    }
    l->doubt = false;
    if (cht_store_count(s, (struct cht_str){NULL, 0}, &pairs, &err) == CHT_OK && pairs == want)
        return true;
    (void)snprintf(l->why, sizeof l->why, "%llu pairs, not %llu %s", (unsigned long long)pairs,
                   (unsigned long long)want, err.msg);
    return false;
}
