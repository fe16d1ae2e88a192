/* words: the arguments of the commands that take them by name: name=value words between blanks, in any order. Names in any case, cut
 * at the first =; a later word of the same name counts, and unknown names are passed over.
 *
 * Threads: any; no state.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "cheetah/store.h"

struct line_word {
    struct cht_str name, value; /* point into the line */
};

/* The next word of the line, which is shortened by it; n == 0: there is none. */
struct cht_str line_words_next(struct cht_str *line);
/* False: the word has no =. */
bool line_word_split(struct cht_str word, struct line_word *out);
bool line_word_is(const struct line_word *w, const char *name);
/* The value of the last word of one of these names (other may be NULL); false if there is none. */
bool line_words_get(struct cht_str line, const char *name, const char *other, struct cht_str *out);
/* 1, true, yes and on, in any case, are true; all else, and no word at all, is false. */
bool line_flag(struct cht_str value);
bool line_words_flag(struct cht_str line, const char *name, const char *other);
/* The bytes that a text means: x and hexadecimal, or the text itself. Decoded to `to`, which has room for the text and may be
 * where it stands. False: bad hexadecimal. */
bool line_bytes(uint8_t *to, struct cht_str text, struct cht_str *out);
/* JSON itself (it begins with [ or {), or base64 of it, padded or not. A new reference; NULL: it is none, or *no_memory. */
json_t *line_json(struct cht_str text, bool *no_memory);
