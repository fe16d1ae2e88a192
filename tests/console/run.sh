#!/bin/sh
# run: the page /console/ in Debian's Chromium.   tests/console/run.sh [PROGRAM] [options of node --test]
# Screenshots go to build/console-screenshots. Exit code 77: Node, its packages or Chromium are not there.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ $# -gt 0 ]; then
    CHEETAH_DB=$1
    export CHEETAH_DB
    shift
fi
command -v chromium >/dev/null || {
    echo "chromium is not installed (deploy/install-deps.sh test)"
    exit 77
}
"$here/../../console/build.sh" --install
exec node --test --test-reporter=spec "$@" "$here/console.test.mjs"
