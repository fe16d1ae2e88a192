#!/bin/sh
# build: makes console/dist from the sources: types are checked, the page is built, and dist.sha256 says of which sources it is.
#   console/build.sh                builds into console/dist; commit what changed
#   console/build.sh --check DIR    builds into DIR, and compares it with console/dist
#   console/build.sh --install      only what the build and tests/console need: npm ci, of the versions in package-lock.json
# Exit code 77: Node, npm or its registry are not there.
set -eu
cd "$(dirname "$0")"

install()
{
    if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
        echo "console/build.sh: nodejs and npm are not installed (deploy/install-deps.sh test)"
        exit 77
    fi
    wanted=$(sha256sum <package-lock.json)
    [ "$(cat node_modules/.made-of 2>/dev/null)" != "$wanted" ] || return 0
    for pause in 1 5 15; do
        if npm ci --ignore-scripts --no-audit --no-fund >node_modules.log 2>&1; then
            rm -f node_modules.log
            echo "$wanted" >node_modules/.made-of
            return 0
        fi
        sleep $pause
    done
    cat node_modules.log
    echo "console/build.sh: npm ci failed"
    exit 77
}

sums() # of what the build reads, then of what it makes
{
    find index.html package.json package-lock.json tsconfig.json vite.config.ts public src dist -type f | LC_ALL=C sort | xargs sha256sum
}

case ${1-} in
--install)
    install
    ;;
--check)
    out=$(realpath -m "$2")
    install
    npx tsc --noEmit
    npx vite build --logLevel warn --outDir "$out" --emptyOutDir
    diff -r dist "$out" || {
        echo "console/dist is not what console/build.sh makes: run it, and commit console/dist and console/dist.sha256"
        exit 1
    }
    ;;
*)
    install
    npx tsc --noEmit
    npx vite build --logLevel warn
    sums >dist.sha256
    ;;
esac
