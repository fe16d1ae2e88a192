/* ledger: what was acknowledged of a small database: the version of each of a few names, and of at most one commit whose fate is
 * not known. Writes, compares. For tests that make calls fail; model.h is the one for everything that a commit can hold.
 */
#pragma once

#include "base/rng.h"
#include "cheetah/store.h"

#define LEDGER_NAMES 24

struct ledger {
    uint32_t version[LEDGER_NAMES]; /* 0: no such pair */
    uint32_t maybe[LEDGER_NAMES];   /* with the commit in doubt */
    bool doubt;
    bool shown;    /* a read showed what a commit that had just been refused would have written */
    uint32_t next; /* version */
    struct cht_rng r;
    char why[300]; /* of the last refusal or difference */
};

void ledger_init(struct ledger *l, uint64_t seed);
void ledger_copy(struct ledger *to, const struct ledger *from);
/* So many commits of puts and deletes; goes on after a refusal, stops after CHT_OUTCOME_UNKNOWN, which leaves a doubt.
 * Returns the code of the last refusal, CHT_OK if there was none. After each refusal what it touched is read. */
enum cht_rc ledger_commits(struct ledger *l, struct cht_store *s, unsigned commits);
/* Does the database hold exactly this, or this and all of the commit in doubt? Settles the doubt. */
bool ledger_compare(struct ledger *l, struct cht_store *s);
