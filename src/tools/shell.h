/* shell: what the parts of `cheetah-db shell` share. */
#pragma once

#include "tools/shell_link.h"

struct shell {
    const char *connect; /* borrowed */
    char *token;         /* owned; NULL: none */
    struct cht_dirs dirs;
    struct link *link;
    char place[64]; /* in the prompt: "cheetah_data" */
    char database[CHT_DATABASE_NAME_MAX + 1];
};

/* Opens s->link. */
enum cht_rc shell_connect(struct shell *s, struct cht_err *err);
/* shell_edit.c: prompt, read, ask, show, until the end. */
enum cht_rc shell_interact(struct shell *s, struct cht_err *err);
