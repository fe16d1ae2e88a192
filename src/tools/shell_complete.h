/* shell_complete: what the TAB key finds: commands, modes, databases, and names of pairs, which the server is asked for.
 */
#pragma once

#include "tools/shell.h"

#include <histedit.h>

#define TOOL_SHELL_WORD 64u

/* The first word of a line in capitals; returns what stands after it and its blanks. */
const char *tool_shell_word(const char *line, char out[TOOL_SHELL_WORD]);
/* Completes the word before the cursor; what libedit wants of a function for a key. */
unsigned char tool_shell_complete(struct tool_shell *s, EditLine *el);
