/* serve: `cheetah-db serve`: configuration, environment, server, signals. */
#pragma once

/* argv: what stands behind "serve". Returns the exit code. */
int serve_main(int argc, char **argv);
