/* json: writing JSON by hand, one line a value. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* A string in quotes. The bytes may be anything (a path is bytes): what is not UTF-8 comes out as U+FFFD, byte by byte. */
void tool_json_string(FILE *out, const char *s);
/* UTF-8 without control characters other than tab and newline: what "text" in an answer may be. */
bool tool_json_is_text(const void *bytes, size_t n);
