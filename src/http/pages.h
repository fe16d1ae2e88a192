/* pages: web pages in somebody's browser (openapi.yaml, "Web pages"): under which names the server is asked, and the pages of which origins may ask
 * for more than they could read anyway.
 */
#pragma once

#include "http/request.h"

/* --cors-origins and --allow-hosts say what can be meant. CHT_INVALID_ARGUMENT. */
enum cht_rc http_pages_check(const char *allow_hosts, const char *cors_origins, struct cht_err *err);
/* The request's headers are in. False: answered 403. May set r->cors. */
bool http_pages_admit(struct http_request *r);
/* OPTIONS for a path that takes the methods `allowed` (METHOD_), if --cors-origins is given; false: it is not. */
bool http_pages_options(struct http_request *r, unsigned allowed);
