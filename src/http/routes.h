/* routes: the calls of the service, handed to server_start. */
#pragma once

#include "http/request.h"

extern const struct routes http_routes;
