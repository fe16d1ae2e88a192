/* routes: the calls of the service, handed to server_start. */
#pragma once

#include "http/request.h"

extern const struct http_routes http_routes;
