#!/bin/sh
# run: the soak test. A mixed load on one server, which is killed, stopped, and meets full disks and missing ones, while a
# checker knows every acknowledged write. README.md says what is checked.
#   tests/soak/run.sh MINUTES [--seed N] [--binary FILE] [--disk auto|tmpfs|ext4|plain] [--keep DIR]
# The disks that fill up are mounts of its own name space (root, or a user who may make one); without them the disks never
# fill, and it says so. Exit code: 0 nothing found, 1 findings, 2 it could not run.
set -u
exec </dev/null
here=$(cd "$(dirname "$0")" && pwd)
case ${1:-} in
'' | -h | --help)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"
    exit 2
    ;;
esac
under=
if [ "$(id -u)" = 0 ] && unshare --mount true 2>/dev/null; then
    under="unshare --mount --propagation private"
elif unshare --mount --map-root-user true 2>/dev/null; then
    under="unshare --mount --map-root-user"
fi
# shellcheck disable=SC2086 # $under is a command with arguments
PYTHONDONTWRITEBYTECODE=1 PYTHONPATH="$here/../lm" CHT_SOAK_MOUNTS=${under:+yes} exec $under /usr/bin/python3 "$here/soak.py" "$@"
