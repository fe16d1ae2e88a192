/* nearest: see nearest.h. The distance is that of Damerau and Levenshtein, restricted: no letter is moved twice ("optimal string
 * alignment"), which three rows of the usual table are enough for.
 */
#include "base/nearest.h"

#include <stddef.h>
#include <string.h>

#define LETTERS_MAX 64u

static unsigned least(unsigned a, unsigned b) { return a < b ? a : b; }

static unsigned difference(const char *a, size_t n, const char *b, size_t m)
{
    unsigned rows[3][LETTERS_MAX + 1];
    unsigned *before = rows[0], *last = rows[1], *now = rows[2];
    memset(rows, 0, sizeof rows);
    for (size_t j = 0; j <= m; j++)
        last[j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            unsigned d = last[j - 1] + (a[i - 1] != b[j - 1]);
            d = least(d, least(last[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d = least(d, before[j - 2] + 1);
            now[j] = d;
        }
        unsigned *free_row = before;
        before = last;
        last = now;
        now = free_row;
    }
    return last[m];
}

/* ------------------------------------------------------------------------------------------------------------ */

void cht_nearest_try(struct cht_nearest *n, const char *word)
{
    size_t typed = strlen(n->word), known = strlen(word);
    if (typed == 0 || typed > LETTERS_MAX || known > LETTERS_MAX)
        return;
    unsigned d = difference(n->word, typed, word, known);
    unsigned allowed = typed < 6 ? 1 : (unsigned)(typed / 3);
    if (d > allowed && typed >= 2 && known > typed && memcmp(word, n->word, typed) == 0)
        d = LETTERS_MAX; /* after all that differ by letters */
    else if (d > allowed)
        return;
    if (n->best == NULL || d < n->difference) {
        n->best = word;
        n->difference = d;
    }
}
