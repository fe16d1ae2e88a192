#!/bin/sh
# run: the store for 64-bit ARM, built with Debian's cross compiler and run under qemu-user: its checksums by instruction, then data that the released program
# wrote on x86-64 is opened, counted, written to and checked; at last this machine's program checks what ARM wrote. (tests/run.sh --long)
#   tests/arm64/run.sh PROGRAM       PROGRAM: build/release/cheetah-db
# Not built: what needs libraries of that machine (HTTP, reducers, language model).
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$here/../..
program=$1
compiler=aarch64-linux-gnu-gcc
for tool in $compiler qemu-aarch64-static; do
    command -v "$tool" >/dev/null || {
        echo "arm64: $tool is not installed; deploy/install-deps.sh arm64" >&2
        exit 1
    }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for source in "$root"/src/base/*.c "$root"/src/os/*.c "$root"/src/exec/*.c "$root"/src/store/*.c "$here/engine.c"; do
    case $source in
    */base/b64.c | */os/tap.c) continue ;;
    esac
    echo "$source"
done | xargs -P "$(nproc)" -n 1 sh -c "$compiler -std=c17 -O2 -Wall -Wextra -D_GNU_SOURCE -D_POSIX_C_SOURCE=200809L -I'$root/include' -I'$root/src' \
    -c \"\$1\" -o \"$work/\$(basename \"\$(dirname \"\$1\")\")-\$(basename \"\$1\" .c).o\"" sh
$compiler -static -o "$work/engine" "$work"/*.o -pthread -lm
tar -xJf "$root/tests/fixtures/released-15285a7.tar.xz" -C "$work"
dirs=$work/released/a,$work/released/b
got=$(qemu-aarch64-static "$work/engine" "$dirs" default default/)
[ "$got" = "instruction 199 500" ] || {
    echo "arm64: $got" >&2
    exit 1
}
"$program" check "$work/released/a" "$work/released/b"
[ "$("$program" count arm64/ --data "$dirs")" = 500 ]
echo "arm64: $got, and the same on this machine"
