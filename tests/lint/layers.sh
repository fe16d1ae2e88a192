#!/bin/sh
# layers: dependencies point down only. Checked over src/:
#   1  a file includes only what the table below allows its folder
#   2  includes of ours are rooted ("store/wal.h"): no "../", no bare file name
#   3  headers of the operating system appear in src/os only
#   4  errno appears in src/os only
#   5  __builtin_prefetch appears in base/prefetch.h only
#   6  libmicrohttpd appears in src/http only, GnuTLS in src/service only, librados in src/store/rados only
#   tests/lint/layers.sh [ROOT]
set -u
cd "${1:-$(dirname "$0")/../..}/src" || exit 2

bad=0
complain()
{
    echo "layers: src/$1: $2" >&2
    bad=1
}

# The rooms, and which others each may include. "cheetah" is include/cheetah: declarations that anyone may use.
below() # room
{
    case $1 in
    base) echo "cheetah" ;;
    os) echo "cheetah base" ;;
    exec | conf) echo "cheetah base os" ;;
    store) echo "cheetah base os exec" ;;
    store/rados) echo "cheetah base os exec store" ;;                    # store knows nothing of it
    reduce) echo "cheetah base os exec store" ;;
    lm) echo "cheetah base os exec store reduce" ;;
    embed) echo "cheetah base lm reduce" ;;                              # include/cheetah/lm.h and reduce.h over the two
    service) echo "cheetah base os exec store" ;;                        # what every protocol needs
    http) echo "cheetah base os exec conf store service" ;;              # knows no handler, and not what they work with
    http/calls) echo "cheetah base os exec conf store reduce lm service http" ;;
    http/routes.c) echo "cheetah base http http/calls" ;;                # the table names all handlers
    tcp) echo "cheetah base os exec conf store reduce lm service" ;;     # beside http, not over it
    tools) echo "cheetah base os exec conf store reduce lm service http tcp" ;;
    main.c) echo "cheetah base os conf store tools" ;;
    *) echo none ;;
    esac
}

# The room of a file or a header: its folder, unless it has a row of its own.
room() # path below src/
{
    case $1 in
    http/routes.c | main.c) echo "$1" ;;
    *) echo "${1%/*}" ;;
    esac
}

check_includes() # file
{
    own=$(room "$1")
    allowed=$(below "$own")
    [ "$allowed" != none ] || complain "$1" "the folder '$own' has no place in the table of layers"
    for header in $(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*"\([^"]*\)".*/\1/p' "$1"); do
        theirs=$(room "$header")
        if [ "${header#*/}" = "$header" ] || [ "$theirs" != cheetah ] && [ "$(below "$theirs")" = none ]; then
            complain "$1" "includes \"$header\", which does not start with a layer"
        elif [ "$theirs" != "$own" ]; then
            case " $allowed " in
            *" $theirs "* | " none ") ;;
            *) complain "$1" "includes \"$header\" of a layer that it may not know" ;;
            esac
        fi
    done
}

check_system() # file
{
    for header in $(sed -n 's/^[[:space:]]*#[[:space:]]*include[[:space:]]*<\([^>]*\)>.*/\1/p' "$1"); do
        case $header in
        unistd.h | fcntl.h | sys/* | linux/* | pthread.h | dirent.h | errno.h | poll.h | sched.h | semaphore.h)
            [ "${1%/*}" = os ] || complain "$1" "includes <$header>, which belongs to src/os"
            ;;
        rados/*)
            [ "${1%/*}" = store/rados ] || complain "$1" "includes <$header>, which belongs to src/store/rados"
            ;;
        gnutls/*)
            [ "${1%/*}" = service ] || complain "$1" "includes <$header>, which belongs to src/service"
            ;;
        microhttpd.h)
            [ "${1#http/}" != "$1" ] || complain "$1" "includes <$header>, which belongs to src/http"
            ;;
        esac
    done
    [ "${1%/*}" != os ] || return 0
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
    check_includes "$file"
    check_system "$file"
    check_prefetch "$file"
    count=$((count + 1))
done
[ "$count" -gt 0 ] || complain . "no source file found"
exit $bad
