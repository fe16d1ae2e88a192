/* listen: what cht_net_listen does of "unix:PATH" and "systemd[:NAME]". For os/net.c. */
#pragma once

#include "cheetah/err.h"

/* A unix socket at an absolute path, for owner and group (0660). A socket there that nobody answers at is removed first.
 * CHT_INVALID_ARGUMENT, CHT_IO (in use, another kind of file, not allowed), CHT_NO_DESCRIPTORS. */
enum cht_rc cht_listen_unix(const char *path, int *fd, struct cht_err *err);
/* The listening socket of that name ("": the only one) that the service manager has passed to this process. CHT_INVALID_ARGUMENT. */
enum cht_rc cht_listen_passed(const char *name, int *fd, struct cht_err *err);
