#!/bin/sh
# sources: the files of a release, one a line: those that git has, or in an unpacked source archive all but what a build leaves.
#   deploy/sources.sh [ROOT]
set -eu
cd "${1:-$(dirname "$0")/..}"
if [ -e .git ]; then
    git ls-files
else
    find . -path ./build -prune -o \( -type f -o -type l \) -print | sed 's|^\./||' | grep -v -e '__pycache__' -e '\.egg-info/'
fi | LC_ALL=C sort
