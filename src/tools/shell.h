/* shell: what the parts of `cheetah-db shell` share. */
#pragma once

#include "tools/shell_link.h"

struct tool_shell {
    const char *connect; /* borrowed */
    char from_url[256];  /* HOST:PORT, of CHEETAH_URL */
    char *token;         /* owned; NULL: none */
    bool secure;         /* TLS, as `tls` says */
    struct svc_tls_config tls;
    struct tool_dirs dirs;
    struct tool_link *link;
    char place[256]; /* in the prompt: "127.0.0.1:4455", of stopped data "cheetah_data" */
    char database[CHT_DATABASE_NAME_MAX + 1];
};

/* Opens s->link. */
enum cht_rc tool_shell_connect(struct tool_shell *s, struct cht_err *err);
/* shell_edit.c: prompt, read, ask, show, until the end. */
enum cht_rc tool_shell_interact(struct tool_shell *s, struct cht_err *err);
