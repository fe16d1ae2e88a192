#!/bin/sh
# run: everything for 64-bit ARM, built with Debian's cross compiler against Debian's libraries for that machine, and run under qemu-user. (tests/run.sh --long)
#   tests/arm64/run.sh PROGRAM [unit] [data] [library] [server]       PROGRAM: build/release/cheetah-db; default: all four
#
#   unit      the programs of tests/unit, and the fuzz targets over their seeds: store, reducers, language model, HTTP's parts, line protocol
#   data      checksums by the instructions of ARM; data that the released program wrote on x86-64 is opened, counted, written to and checked, and at
#             last this machine's program checks what ARM wrote
#   library   tests/package/embed/main.c, with libcheetah.a and with libcheetah.so
#   server    the whole program: the tests of tests/http for its calls
#
# The libraries are unpacked into build/arm64-root, made once; nothing is installed on this machine, and no chroot is entered. The build is build/arm64.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(CDPATH='' cd -- "$here/../.." && pwd)
[ $# -ge 1 ] || {
    sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0" >&2
    exit 2
}
program=$1
shift
parts=${*:-unit data library server}
for tool in aarch64-linux-gnu-gcc qemu-aarch64-static debootstrap; do
    command -v "$tool" >/dev/null || PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || {
        echo "arm64: $tool is not installed; deploy/install-deps.sh arm64" >&2
        exit 1
    }
done
PATH=$PATH:/usr/sbin:/sbin
export CHEETAH_ARM64_ROOT="$root/build/arm64-root"
build=$root/build/arm64

# What deploy/install-deps.sh installs for a build and for cmocka, with all it needs, as files only: no script of a package is run.
libraries=libc6-dev,libmicrohttpd-dev,libgnutls28-dev,libjansson-dev,libb64-dev,libb2-dev,libcurl4-openssl-dev,libedit-dev,libzstd-dev,zlib1g-dev,libcmocka-dev
unpack()
{
    rm -rf "$CHEETAH_ARM64_ROOT" &&
        mkdir -p "$CHEETAH_ARM64_ROOT" &&
        debootstrap --arch=arm64 --variant=minbase --download-only --include=$libraries bookworm "$CHEETAH_ARM64_ROOT" \
            "${DEBIAN_MIRROR:-http://deb.debian.org/debian}" || return 1
    for folder in bin lib sbin; do
        mkdir -p "$CHEETAH_ARM64_ROOT/usr/$folder" && ln -s usr/$folder "$CHEETAH_ARM64_ROOT/$folder" || return 1
    done
    for package in "$CHEETAH_ARM64_ROOT"/var/cache/apt/archives/*.deb; do
        dpkg-deb --fsys-tarfile "$package" >"$CHEETAH_ARM64_ROOT/files.tar" &&
            tar -xf "$CHEETAH_ARM64_ROOT/files.tar" -C "$CHEETAH_ARM64_ROOT" --keep-directory-symlink --exclude='./dev/*' || return 1
    done
    rm -rf "$CHEETAH_ARM64_ROOT"/var/cache/apt/archives "$CHEETAH_ARM64_ROOT/files.tar"
    echo $libraries >"$CHEETAH_ARM64_ROOT/whole"
}
[ "$(cat "$CHEETAH_ARM64_ROOT/whole" 2>/dev/null)" = $libraries ] || unpack >"$root/build/arm64-root.log" 2>&1 || {
    tail -n 20 "$root/build/arm64-root.log" >&2
    echo "arm64: the libraries could not be had" >&2
    exit 1
}

{
    cmake -G Ninja -S "$root" -B "$build" -DCMAKE_TOOLCHAIN_FILE="$here/toolchain.cmake" -DCMAKE_BUILD_TYPE=Release -DCHEETAH_TIMEOUT_FACTOR=20 &&
        cmake --build "$build"
} >"$root/build/arm64.log" 2>&1 || {
    tail -n 50 "$root/build/arm64.log" >&2
    exit 1
}
emulated()
{
    qemu-aarch64-static -L "$CHEETAH_ARM64_ROOT" "$@"
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
said=

unit()
{
    CHT_TEST_OPS=150000 CHT_TEST_STRIDE=7 ctest --test-dir "$build" -j "$(nproc)" -L quick -E '^test_(cli|lints|readme|circles|names)$' \
        --output-on-failure
}

data()
{
    tar -xJf "$root/tests/fixtures/released-15285a7.tar.xz" -C "$work"
    dirs=$work/released/a,$work/released/b
    got=$(emulated "$build/tests/arm64_engine" "$dirs" default default/)
    [ "$got" = "instruction 199 500" ] || {
        echo "arm64: $got" >&2
        return 1
    }
    "$program" check "$work/released/a" "$work/released/b"
    [ "$("$program" count arm64/ --data "$dirs")" = 500 ]
    said="$said, checksums by $got"
}

library()
{
    cmake --install "$build" --prefix "$work/installed" >/dev/null
    for kind in "$work/installed/lib/libcheetah.a" "-L$work/installed/lib -lcheetah"; do
        # shellcheck disable=SC2086 # words
        aarch64-linux-gnu-gcc --sysroot="$CHEETAH_ARM64_ROOT" -std=c17 -O1 -Wall -Werror -o "$work/embed" "$root/tests/package/embed/main.c" \
            -I"$work/installed/include" $kind -ljansson -lb2 -lb64 -lm -pthread
        rm -rf "$work/embedded"
        emulated -E "LD_LIBRARY_PATH=$work/installed/lib" "$work/embed" "$work/embedded" >"$work/got"
        sed -n '/^WANTED_C = /,/^"""/{s/^WANTED_C = """//;/^"""/!p;}' "$root/tests/package/test_install.py" | diff - "$work/got"
    done
}

# Not: what measures this machine's processor or memory, what other servers, browsers and traces are for, and bodies of tens of megabytes, for which an
# emulator has no time.
server()
{
    printf '#!/bin/sh\nexec qemu-aarch64-static -L "%s" "%s" "$@"\n' "$CHEETAH_ARM64_ROOT" "$build/cheetah-db" >"$work/cheetah-db"
    chmod 755 "$work/cheetah-db"
    tests=
    for name in access add arpa batch children conditions databases golden kv live lm merge names pairs; do
        tests="$tests http/test_$name.py"
    done
    # shellcheck disable=SC2086 # words
    (cd "$root/tests" && PYTHONDONTWRITEBYTECODE=1 CHEETAH_DB="$work/cheetah-db" /usr/bin/python3 -m pytest -q -p no:cacheprovider --tb=short \
        -k "not client_that_goes and not too_large and not ten_thousand" $tests)
}

for part in $parts; do
    case $part in
    unit | data | library | server) "$part" ;;
    *)
        echo "arm64: no part '$part'" >&2
        exit 2
        ;;
    esac
done
echo "arm64: $parts$said"
