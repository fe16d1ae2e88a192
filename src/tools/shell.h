/* shell: what the parts of `cheetah-db shell` share. */
#pragma once

#include "tools/shell_link.h"

struct tool_shell {
    const char *connect; /* borrowed */
    char *token;         /* owned; NULL: none */
    bool secure;         /* TLS, as `tls` says */
    struct svc_tls_config tls;
    struct tool_dirs dirs;
    struct tool_link *link;
    char place[64]; /* in the prompt: "cheetah_data" */
    char database[CHT_DATABASE_NAME_MAX + 1];
};

/* Opens s->link. */
enum cht_rc tool_shell_connect(struct tool_shell *s, struct cht_err *err);
/* shell_edit.c: prompt, read, ask, show, until the end. */
enum cht_rc tool_shell_interact(struct tool_shell *s, struct cht_err *err);
