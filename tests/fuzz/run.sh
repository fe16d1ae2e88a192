#!/bin/sh
# run: every fuzz target for so many minutes each, on as many cores as there are; or those that are named.
#   tests/fuzz/run.sh MINUTES [TARGET ...]
# Builds them (preset fuzz: clang, address and undefined behaviour sanitizers). What was learnt is kept in build/fuzz/corpus/TARGET, the log of a
# run in build/fuzz/corpus/TARGET.log, a finding in build/fuzz/corpus/TARGET-crash-... (or -timeout, -oom): take it to tests/fuzz/findings/TARGET
# under a name that says what it is. Ends with a table; exit code 1 if anything was found.
set -eu

[ $# -ge 1 ] || {
    echo "usage: tests/fuzz/run.sh MINUTES [TARGET ...]" >&2
    exit 2
}
seconds=$(($1 * 60))
shift
cd "$(dirname "$0")/../.."
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz
corpus=$PWD/build/fuzz/corpus
mkdir -p "$corpus"

if [ $# -eq 0 ]; then
    for f in tests/fuzz/target_*.c; do
        name=${f##*/target_}
        set -- "$@" "${name%.c}"
    done
fi

# What keeps a store or threads from one input to the next cannot have its leaks counted after each; they are at the end.
cat >"$corpus/one.sh" <<'EOF'
name=$1 seconds=$2 corpus=$3
mkdir -p "$corpus/$name" tests/fuzz/findings/$name
max=4096
leaks=1
case $name in
database | backup) max=131072 leaks=0 ;;
http) max=16384 leaks=0 ;;
line) max=8192 leaks=0 ;;
export) max=16384 ;;
esac
nice -n 10 build/fuzz/tests/fuzz/fuzz_$name -max_total_time=$seconds -max_len=$max -timeout=60 -rss_limit_mb=3000 \
    -detect_leaks=$leaks -use_value_profile=0 -print_final_stats=1 -artifact_prefix="$corpus/$name-" \
    "$corpus/$name" tests/fuzz/seeds/$name tests/fuzz/findings/$name >"$corpus/$name.log" 2>&1 </dev/null || echo "$name: $corpus/$name.log" >>"$corpus/found"
rmdir tests/fuzz/findings/$name 2>/dev/null || true
EOF
rm -f "$corpus/found"
for name in "$@"; do
    echo "$name"
done | xargs -P "$(nproc)" -I NAME sh "$corpus/one.sh" NAME "$seconds" "$corpus"

printf '%-10s %12s %10s %8s %8s %8s\n' target executions a_second edges features inputs
for name in "$@"; do
    awk -v name="$name" '
        /cov: / { for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i + 1); if ($i == "ft:") ft = $(i + 1); if ($i == "corp:") corp = $(i + 1) } }
        /number_of_executed_units/ { n = $2 }
        /average_exec_per_sec/ { s = $2 }
        END { sub("/.*", "", corp); printf "%-10s %12s %10s %8s %8s %8s\n", name, n, s, cov, ft, corp }' "$corpus/$name.log"
done
if [ -e "$corpus/found" ]; then
    echo "found:"
    cat "$corpus/found"
    exit 1
fi
