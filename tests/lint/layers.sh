#!/bin/sh
# layers: dependencies point down only. Checked over src/:
#   1  a folder includes none that lies above it: base < os < exec < store < reduce < lm < http < tcp < tools < main.c (conf: beside exec)
#   2  includes of ours are rooted ("store/wal.h"): no "../", no bare file name
#   3  headers of the operating system appear in src/os only
#   4  errno appears in src/os only
#   5  __builtin_prefetch appears in base/prefetch.h only
#   tests/lint/layers.sh [ROOT]
set -u
cd "${1:-$(dirname "$0")/../..}/src" || exit 2

bad=0
complain()
{
    echo "layers: src/$1: $2" >&2
    bad=1
}

rank()
{
    case $1 in
    cheetah) echo 0 ;; # include/cheetah: declarations that anyone may use
    base) echo 1 ;;
    os) echo 2 ;;
    exec) echo 3 ;;
    conf) echo 3 ;;
    store) echo 4 ;;
    reduce) echo 5 ;;
    lm) echo 6 ;;
    http) echo 7 ;;
    tcp) echo 8 ;;
    tools) echo 9 ;;
    main) echo 10 ;;
    *) echo none ;;
    esac
}

check_includes() # file, folder
{
    own=$(rank "$2")
    [ "$own" != none ] || complain "$1" "the folder '$2' has no place in the order of layers"
    for header in $(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$1"); do
        theirs=$(rank "${header%%/*}")
        if [ "$theirs" = none ] || [ "${header#*/}" = "$header" ]; then
            complain "$1" "includes \"$header\", which does not start with a layer"
        elif [ "$own" != none ] && [ "$theirs" -gt "$own" ]; then
            complain "$1" "includes \"$header\" of a layer above"
        fi
    done
}

check_system() # file
{
    for header in $(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*<\([^>]*\)>.*/\1/p' "$1"); do
        case $header in
        unistd.h | fcntl.h | sys/* | linux/* | pthread.h | dirent.h | errno.h | poll.h | sched.h | semaphore.h)
            complain "$1" "includes <$header>, which belongs to src/os"
            ;;
        esac
    done
    # The preprocessor takes the comments out and leaves the rest as it is.
    if ${CC:-cc} -fpreprocessed -dD -E -P "$1" 2>/dev/null | grep -qw errno; then
        complain "$1" "uses errno, which is read in src/os only"
    fi
}

check_prefetch() # file
{
    if [ "$1" != base/prefetch.h ] && grep -q __builtin_prefetch "$1"; then
        complain "$1" "uses __builtin_prefetch: take base/prefetch.h"
    fi
}

count=0
for file in $(find . -name '*.[ch]' | sed 's|^\./||' | sort); do
    folder=${file%%/*}
    [ "$folder" != main.c ] || folder=main
    check_includes "$file" "$folder"
    [ "$folder" = os ] || check_system "$file"
    check_prefetch "$file"
    count=$((count + 1))
done
[ "$count" -gt 0 ] || complain . "no source file found"
exit $bad
