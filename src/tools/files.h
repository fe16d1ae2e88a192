/* files: the budget of descriptors of `cheetah-db serve`: as many clients as leave the databases and the log one whenever they need it. */
#pragma once

#include "conf/conf.h"
#include "service/log.h"

/* Raises the limit of open files as far as it goes, and lowers max_connections, line_connections and connections_over to what
 * fits; says in the log what is in force. Before anything listens. CHT_NO_DESCRIPTORS if not even a few clients fit. */
enum cht_rc tool_files_budget(struct conf *c, struct svc_log *log, struct cht_err *err);
