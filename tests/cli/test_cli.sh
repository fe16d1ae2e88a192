#!/bin/sh
# test_cli: drives the real program: exit codes, what is printed, what is left on disk.
#   tests/cli/test_cli.sh PATH_OF_cheetah-db
set -u
exec </dev/null
[ $# -eq 1 ] || {
    echo "usage: test_cli.sh PATH_OF_cheetah-db" >&2
    exit 2
}
program=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
work=$(mktemp -d "${TMPDIR:-/tmp}/test_cli.XXXXXX") || exit 2
trap 'chmod -R u+rwx "$work"; rm -rf "$work"' EXIT
cd "$work" || exit 2
# Without --data a running server is meant: here one that does not answer, whatever runs on this machine.
CHEETAH_URL=http://127.0.0.1:9
export CHEETAH_URL
data="--data ./cheetah_data"

passed=0 failed=0
complain()
{
    echo "FAILED: $1" >&2
    sed 's/^/    stdout: /' out >&2
    sed 's/^/    stderr: /' err >&2
    failed=$((failed + 1))
}

# expect CODE ARG...: runs the program; out and err keep what it said
expect()
{
    want=$1
    shift
    what="cheetah-db $*"
    "$program" "$@" >out 2>err
    got=$?
    if [ $got -ne "$want" ]; then
        complain "$what: exit code $got, not $want"
    elif [ "$want" -eq 2 ] && { [ ! -s err ] || [ -s out ]; }; then
        complain "$what: a usage error is told on stderr and nowhere else"
    else
        passed=$((passed + 1))
    fi
}
# The last command printed exactly / a line like / nothing like this.
prints()
{
    if [ "$(cat out)" = "$1" ]; then passed=$((passed + 1)); else complain "$what: does not print '$1'"; fi
}
says() # file, pattern
{
    if grep -q -e "$2" "$1"; then passed=$((passed + 1)); else complain "$what: $1 has no line like '$2'"; fi
}
holds() # a command that must succeed
{
    if "$@"; then passed=$((passed + 1)); else complain "$*"; fi
}
state()
{
    find "$1" -type f -exec cksum {} + | sort
}
put_byte() # file, offset, octal
{
    # shellcheck disable=SC2059 # the format is the byte
    printf "\\$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

# ---- the command line
expect 0 --help
says out 'cheetah-db create NAME'
holds test "$(wc -l <out)" -le 24
holds test "$(awk 'length > 110' out | wc -l)" -eq 0
cp out help
expect 0 check --help
holds grep -q "^cheetah-db check " out
for command in create list drop health get put del scan count add ngrams smooth predict score links associations databases; do
    expect 0 $command --help
    holds grep -q "^cheetah-db $command " out
    holds test "$(awk 'length > 110' out | wc -l)" -eq 0
done
expect 0 --version
says out '^cheetah-db [0-9]'
cp out version
expect 0 -V
holds cmp -s out version
expect 2
expect 2 nonsense
says err "unknown command 'nonsense'"
expect 2 --nonsense
expect 2 list --nonsense
says err "unknown option '--nonsense'"
expect 2 list --json=yes
expect 2 list name
expect 2 create
expect 2 create a b
expect 2 create a --shards
expect 2 create a --shards 0
expect 2 create a --shards 257
expect 2 create a --shards 18446744073709551617
expect 2 create a --shards 8x
expect 2 create a --shards=
expect 2 create a --yes
expect 2 create .hidden
expect 2 create ''
expect 2 create "$(printf 'a\nb')"
expect 2 list --data a,,b
expect 2 drop
expect 2 check --database ../x
holds test ! -e cheetah_data

# ---- did you mean
expect 2 sacn
says err 'did you mean scan?'
expect 2 restor
says err 'did you mean restore?'
expect 2 scan --limt 5
says err 'did you mean --limit?'
expect 2 serve --lisen 127.0.0.1:0
says err 'did you mean --listen?'
printf 'lisen = 127.0.0.1:0\n' >conf
expect 2 serve --config conf
says err 'did you mean listen?'
expect 2 put --has-nothing-like-it
holds test "$(grep -c 'did you mean' err)" -eq 0

# ---- nothing there: said, not created
expect 1 list $data
says err 'no such data directory'
expect 1 stat $data
expect 1 check $data
expect 1 drop x --yes $data
holds test ! -e cheetah_data
# no server there: said with its address, and nothing is looked for in another place
for command in "list" "databases" "stat" "create x" "drop x --yes" "get a" "put a b" "del a" "scan" "count" "add a 1" "predict 1" \
    "score 1" "ngrams 1" "smooth" "export -" "top --once"; do
    # shellcheck disable=SC2086 # words
    expect 1 $command
    says err 'http://127.0.0.1:9'
    # shellcheck disable=SC2086
    expect 1 $command --connect 127.0.0.1:10
    says err 'http://127.0.0.1:10'
done
holds test ! -e cheetah_data

# ---- create, list, stat, drop
expect 0 create words --shards 3 $data
prints ''
expect 1 create words $data
says err 'exists'
expect 0 create Other-2 --shards=1 $data
expect 0 list $data
prints "$(printf 'Other-2\nwords')"
expect 0 list --json $data
prints "$(printf '{"database":"Other-2"}\n{"database":"words"}')"
expect 0 stat words $data
says out '^words$'
says out '^  shards  *3$'
says out '^  pairs  *0$'
expect 0 stat --json $data
holds test "$(wc -l <out)" -eq 2
says out '^{"database":"words","shards":3,"pairs":0,"values":0,"value_bytes":0,.*,"lengths":\[\],"places":\[{"shard":0,"dir":"./cheetah_data","pairs":0,.*}\]}$'
expect 1 stat nobody $data
says err 'nobody'
expect 2 drop words $data
says err -- '--yes'
expect 0 list $data
says out '^words$'
expect 0 check $data
prints ''
expect 0 check --json $data
prints '{"findings":0,"complete":true}'
expect 0 check cheetah_data --database words
state cheetah_data >before
expect 0 check $data
state cheetah_data >after
holds cmp -s before after
expect 0 drop words --yes $data
expect 0 list $data
prints Other-2
holds test ! -e cheetah_data/words
expect 1 drop words --yes $data

# ---- several directories; one is missing
expect 0 create spread --shards 4 --data one,two
holds test -d one/spread/shard-000
holds test -d two/spread/shard-001
expect 0 stat spread --data=one,two
expect 0 check one two
expect 1 check one
says out 'shard 1'
expect 1 stat spread --data one
says err 'data directory 2 of 2 is missing'

# ---- in use by another process
if command -v flock >/dev/null; then
    flock cheetah_data/LOCK "$program" list --data cheetah_data >out 2>err
    got=$? what="cheetah-db list on a locked directory"
    holds test $got -eq 1
    says err 'in use by another process'
fi

# ---- damage
cp -R one one-good
put_byte one/spread/manifest 40 377
expect 1 check --data one,two --database spread
says out '^.*manifest.*checksum'
expect 1 check --json one two
says out '^{"where":".*","what":".*manifest.*checksum.*"}$'
says out '^{"findings":[1-9][0-9]*,"complete":true}$'
expect 3 stat spread --data one,two
expect 0 list --data one,two
rm -r one && cp -R one-good one
printf 'xx' >one/spread/log/0000000000000002.log
state one >before
expect 0 check one two # a newest file without a header is what a crash leaves
state one >after
holds cmp -s before after
rm -r one && mv one-good one
put_byte one/spread/shard-000/pairs 700 377
expect 1 check one two
says out 'one/spread/shard-000/pairs.*checksum'
expect 1 check two one --json
says out '^{"where":".*","what":".*one/spread/shard-000/pairs.*checksum.*"}$'

# ---- names that JSON must escape: quote, backslash, newline, a byte that is not UTF-8, and UTF-8
odd=$(printf 'q"b\\n\nl\377u\303\274')
expect 0 create odd --shards 1 --data "$odd"
expect 0 stat odd --json --data "$odd"
holds test "$(wc -l <out)" -eq 1
holds grep -qF "$(printf '"dir":"q\\"b\\\\n\\u000al\\ufffdu\303\274"')" out

# ---- output that gets nowhere
if [ -e /dev/full ]; then
    "$program" list --data cheetah_data >/dev/full 2>err
    got=$? what="cheetah-db list to a full disk"
    holds test $got -eq 1
fi

# ---- started with standard descriptors closed: no file of the data gets their numbers, and with them what is printed
expect 0 put 'closed' 'a value' --data cheetah_data
for redirection in '>&-' '2>&-' '<&- >&-' '>&- 2>&-' '<&- >&- 2>&-'; do
    what="cheetah-db with $redirection"
    for command in 'scan --values' list check 'put one two' 'create words'; do
        # shellcheck disable=SC2086 # words
        CHT_COMMAND="$command" CHT_PROGRAM="$program" sh -c "exec \"\$CHT_PROGRAM\" \$CHT_COMMAND --data cheetah_data $redirection" >/dev/null 2>&1
    done
    holds test ! -s cheetah_data/LOCK
    expect 0 check cheetah_data
    expect 0 get closed --data cheetah_data
    prints 'a value'
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
