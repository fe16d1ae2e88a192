/* nearest: "did you mean": of some words the one that a mistyped word is most like.
 *
 *     struct cht_nearest n = {.word = typed};
 *     for (each word that is known)
 *         cht_nearest_try(&n, word);
 *     if (n.best != NULL) ... did you mean n.best?
 *
 * Threads: any; the state is the caller's.
 */
#pragma once

struct cht_nearest {
    const char *word;    /* borrowed: what was typed */
    const char *best;    /* borrowed; NULL: nothing is like it */
    unsigned difference; /* of best */
};

/* Letters put in, left out, changed or swapped with their neighbour count 1 each; a third of the word may differ, at least one letter.
 * A word that begins with what was typed (2 letters or more) is like it, too, if nothing else is. Words of more than 64 letters are
 * like none. */
void cht_nearest_try(struct cht_nearest *n, const char *word);
