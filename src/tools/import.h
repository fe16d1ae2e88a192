/* import: what the two kinds of import share. */
#pragma once

#include "service/tls.h"
#include "tools/place.h"
#include "tools/progress.h"
#include "tools/target.h"

struct tool_import {
    const char *file; /* NULL: from_line */
    const char *database;
    const char *from_line, *from_database, *from_token_file;
    struct tool_place place; /* a server or a pool, open */
    bool from_tls;
    struct svc_tls_config tls; /* with from_tls */
    bool merge, json, decode_base64, keep_undecodable;
    uint64_t shards;
};

/* Writes a file that export has made. */
enum cht_rc tool_import_file(const struct tool_import *in, struct cht_err *err);
/* Copies a database out of a server that speaks the line protocol. */
enum cht_rc tool_import_line(const struct tool_import *in, struct cht_err *err);
/* Says what was done, then takes the marker away. */
enum cht_rc tool_import_finish(const struct tool_import *in, struct tool_target *t, const char *from,
                               struct cht_err *err);
void tool_import_report(const struct tool_import *in, const struct tool_target *t, const char *from);
struct tool_dump_info;
/* export.c: the checksum that an export of a database would have, with the name and the format of `header` in its first line. */
enum cht_rc tool_export_crc(const struct tool_connect *connect, const char *database,
                            const struct tool_dump_info *header, uint32_t *crc, struct cht_err *err);
