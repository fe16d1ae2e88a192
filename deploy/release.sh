#!/bin/sh
# release: everything of a release in one folder: source archive, Debian packages, Python wheel, the image as an OCI archive, SBOM (SPDX), checksums.
#   deploy/release.sh [--no-deb] [--no-image] [OUTPUT]       default: build/release-VERSION
# The same sources give the same bytes (not of the image, whose base is what the registry or the mirror has today). The image needs root and
# buildah (build-image.sh); without them it is left out, and said so. A release is of a version that CHANGELOG.md has a section of.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
deb=yes image=yes output=
for arg in "$@"; do
    case $arg in
    -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"
        exit 0
        ;;
    --no-deb) deb= ;;
    --no-image) image= ;;
    -*)
        echo "release: unknown option '$arg'; see --help" >&2
        exit 2
        ;;
    *) output=$arg ;;
    esac
done
"$root/tests/lint/version.py" "$root" || exit 1
version=$(sed -n 's/^project(cheetah-db VERSION \([0-9.]*\) .*/\1/p' "$root/CMakeLists.txt")
day=$(sed -n "s/^## \[$version\] - \(.*\)$/\1/p" "$root/CHANGELOG.md")
output=${output:-$root/build/release-$version}
program=$root/build/release/cheetah-db
if [ -z "$deb" ] && [ ! -x "$program" ]; then
    echo "release: with --no-deb the SBOM wants a program to look at, and there is no $program: build it, or the packages" >&2
    exit 1
fi
if [ -e "$output" ] && [ -n "$(ls -A "$output")" ]; then
    echo "release: $output is not empty" >&2
    exit 1
fi
mkdir -p "$output"
output=$(CDPATH='' cd -- "$output" && pwd)
"$root/deploy/install-deps.sh" build package >&2
SOURCE_DATE_EPOCH=$(date -u -d "$day 00:00:00 UTC" +%s)
export SOURCE_DATE_EPOCH PYTHONDONTWRITEBYTECODE=1
umask 022
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM # dash runs the other at an exit only

# One owner, one time, one order, and modes that do not depend on who made the checkout.
name=cheetah-db-$version
"$root/deploy/sources.sh" "$root" >"$work/list"
tar -C "$root" --no-recursion -T "$work/list" --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" --format=ustar \
    --mode='u=rwX,go=rX' --transform="flags=r;s|^|$name/|" -cf - | gzip -9n >"$output/$name.tar.gz"

# All the rest is made of the archive.
tar -xzf "$output/$name.tar.gz" -C "$work"
source=$work/$name
if [ -n "$deb" ]; then
    "$source/deploy/build-deb.sh" "$output" >&2
fi
(cd "$source/clients/python" && rm -rf tests shim && find . -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} + &&
    /usr/bin/python3 -m build --no-isolation --skip-dependency-check --wheel --outdir "$output" . >"$work/wheel.log" 2>&1) || {
    cat "$work/wheel.log" >&2
    exit 1
}
if [ -n "$image" ] && [ "$(id -u)" -eq 0 ]; then
    "$source/deploy/build-image.sh" --tag "localhost/cheetah-db:$version" --output "$output/$name-oci.tar" >&2
elif [ -n "$image" ]; then
    echo "release: no image: build-image.sh needs root" >&2
fi

# The libraries are those of the packaged program, else of the one that was built here.
if [ -n "$deb" ]; then
    dpkg-deb -x "$output"/cheetah-db_"$version"_*.deb "$work/unpacked"
    program=$work/unpacked/usr/bin/cheetah-db
fi
"$root/deploy/sbom.py" "$version" "$day" "$program" "$output"/* >"$work/sbom"
mv "$work/sbom" "$output/$name.spdx.json"
chmod 644 "$output/$name.spdx.json"
(cd "$output" && LC_ALL=C sha256sum -- * >"$work/sums" && mv "$work/sums" SHA256SUMS && chmod 644 SHA256SUMS)
ls -l "$output"
