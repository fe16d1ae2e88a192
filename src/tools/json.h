/* json: writing JSON by hand, one line a value. */
#pragma once

#include <stdio.h>

/* A string in quotes. The bytes may be anything (a path is bytes): what is not UTF-8 comes out as U+FFFD, byte by byte. */
void tool_json_string(FILE *out, const char *s);
