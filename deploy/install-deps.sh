#!/bin/sh
# install-deps: the Debian packages that building, testing and checking need; does nothing where all are there.
#   deploy/install-deps.sh [build] [test] [lint] [bench]      default: build test
set -eu

packages=
for group in ${*:-build test}; do
    case $group in
    build) packages="$packages gcc libc6-dev cmake ninja-build ccache pkg-config libmicrohttpd-dev
            libjansson-dev libb64-dev libb2-dev libcurl4-openssl-dev" ;;
    test) packages="$packages libcmocka-dev curl python3 python3-pytest python3-requests python3-httpx python3-jsonschema
            python3-yaml openssl" ;;
    lint) packages="$packages clang-format clang-tidy cppcheck" ;;
    bench) packages="$packages g++ liblmdb-dev librocksdb-dev libsqlite3-dev wrk redis-server webdis" ;;
    *)
        echo "install-deps: unknown group '$group' (build, test, lint, bench)" >&2
        exit 2
        ;;
    esac
done

missing=
for p in $packages; do
    dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

sudo=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "install-deps: not root and no sudo; please install:$missing" >&2
        exit 1
    }
    sudo=sudo
fi
echo "install-deps: installing$missing"
$sudo apt-get update -q
# shellcheck disable=SC2086 # a list of words
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
