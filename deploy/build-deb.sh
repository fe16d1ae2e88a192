#!/bin/sh
# build-deb: Debian packages of this checkout, with debhelper: cheetah-db (program, units, user, manual pages, completion), libcheetah0.2, libcheetah-dev.
#   deploy/build-deb.sh [OUTPUT]      a folder, made if it is not there (default build/deb)
# What is built is what git has, or all of a source archive. The same sources give the same bytes, wherever they lie and whoever builds them: the date is
# that of the release in CHANGELOG.md. lintian must have nothing to say.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
case ${1:-} in
-h | --help)
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"
    exit 0
    ;;
esac
output=${1:-$root/build/deb}
mkdir -p "$output"
output=$(CDPATH='' cd -- "$output" && pwd)
"$root/deploy/install-deps.sh" build package >&2

version=$(sed -n 's/^project(cheetah-db VERSION \([0-9.]*\) .*/\1/p' "$root/CMakeLists.txt")
day=$(sed -n "s/^## \[$version\] - \(.*\)$/\1/p" "$root/CHANGELOG.md")
[ -n "$day" ] || {
    echo "build-deb: CHANGELOG.md has no section of $version" >&2
    exit 1
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM # dash runs the other at an exit only
mkdir "$work/cheetah-db-$version"
"$root/deploy/sources.sh" "$root" | (cd "$root" && tar -cf - --no-recursion -T -) | tar -xf - -C "$work/cheetah-db-$version"
cd "$work/cheetah-db-$version"
cp -R deploy/debian debian
{
    printf 'cheetah-db (%s) bookworm; urgency=medium\n\n' "$version"
    printf '  * See /usr/share/doc/cheetah-db/changelog.gz.\n\n'
    printf ' -- cheetah-db maintainers <maintainers@users.noreply.b-seed-46d8f036.example>  %s\n' "$(LC_ALL=C date -u -R -d "$day 00:00:00 UTC")"
} >debian/changelog
SOURCE_DATE_EPOCH=$(date -u -d "$day 00:00:00 UTC" +%s)
export SOURCE_DATE_EPOCH CCACHE_DISABLE="${CCACHE_DISABLE:-}"
[ -n "$CCACHE_DISABLE" ] || unset CCACHE_DISABLE
umask 022
LC_ALL=C.UTF-8 dpkg-buildpackage --build=binary --no-sign --jobs=auto >"$work/log" 2>&1 || {
    tail -n 50 "$work/log" >&2
    exit 1
}
lintian --fail-on error,warning --allow-root --tag-display-limit 0 "$work"/*.deb
for package in "$work"/*.deb; do
    case $package in
    *-dbgsym_*) ;;
    *) cp "$package" "$output/" && echo "$output/${package##*/}" ;;
    esac
done
