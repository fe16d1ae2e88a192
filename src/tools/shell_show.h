/* shell_show: answers of the line protocol, for people: tables, decoded payloads, values that are not text in hexadecimal.
 *
 * Threads: any; no state.
 */
#pragma once

#include "cheetah/store.h"

#include <stdio.h>

/* Shows an answer. `columns` wide; longer lines are cut, with "..." at their end. */
void tool_show_answer(FILE *out, struct cht_str answer, unsigned columns);
/* HELP, or HELP WORD. */
void tool_show_help(FILE *out, const char *word);
