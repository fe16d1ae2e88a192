#!/bin/sh
# run: from a checkout on a bare Debian 12 to a running server: installs what the build needs (as root or with sudo),
# builds the release, and becomes the server.
#   deploy/run.sh [OPTION ...]     options of `cheetah-db serve`, e.g. --listen 127.0.0.1:9000 --log-format text
#   deploy/run.sh --help
# On a terminal the log is text, unless --log-format, CHEETAH_LOG_FORMAT or a --config file says otherwise.
# It listens on 127.0.0.1:8080 and keeps its data in ./cheetah_data of the directory it is called from, unless --listen
# and --data, CHEETAH_LISTEN and CHEETAH_DATA, or a --config file say otherwise. What was built already is not built again.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
program=$root/build/release/cheetah-db

for arg in "$@"; do
    case $arg in
    -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"
        if [ -x "$program" ]; then
            echo
            "$program" serve --help
        fi
        exit 0
        ;;
    esac
done

# Progress goes to stderr, in a subshell: the server starts in the caller's directory.
(
    cd -- "$root"
    deploy/install-deps.sh build
    cmake --preset release --log-level=WARNING
    cmake --build --preset release --target cheetah-db
) </dev/null >&2

# On a terminal people read the log, unless they have said what it is to look like.
if [ -t 2 ] && [ -z "${CHEETAH_LOG_FORMAT:-}${CHEETAH_CONFIG:-}" ]; then
    case " $* " in
    *" --log-format"* | *" --config"*) ;;
    *) set -- --log-format text "$@" ;;
    esac
fi
echo "The program is $program; another terminal can ask this server with it: $program --help" >&2

# The address and the directory are the defaults of the program, so the environment can still change them.
exec "$program" serve "$@"
