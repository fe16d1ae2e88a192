/* access: who may do what. A file of tokens, one a line: TOKEN RIGHT DATABASES
 *
 *   TOKEN      1 to 256 characters without blanks (take 32 random ones)
 *   RIGHT      read | write | admin; each holds the ones before it
 *   DATABASES  names separated by commas, or * for all
 *
 * # begins a comment line. The file is read at the start and again on SIGHUP.
 *
 * Threads: any. A table that was replaced is kept until nobody can use it.
 */
#pragma once

#include "cheetah/err.h"

#include <stdbool.h>
#include <stddef.h>

enum right { RIGHT_OPEN, RIGHT_READ, RIGHT_WRITE, RIGHT_ADMIN };

struct access; /* all tokens */
struct token;  /* one of them, borrowed from the table */

/* CHT_NO_FILE, CHT_INVALID_ARGUMENT with the line's number (never its text). */
enum cht_rc access_load(const char *path, struct access **out, struct cht_err *err);
void access_free(struct access *a); /* NULL is legal */
/* The token in the value of an Authorization header ("Bearer ..."), NULL if none fits. Takes as long for a wrong token as
 * for a right one: every token is compared in full. */
const struct token *access_find(const struct access *a, const char *header);
/* The same for the bare token. */
const struct token *access_find_text(const struct access *a, const char *text, size_t n);
bool access_allows(const struct token *t, enum right right, const char *database);
/* The right whatever the database. */
bool access_has_right(const struct token *t, enum right right);
