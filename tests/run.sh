#!/bin/sh
# run: builds and runs every test; the last line printed is "N passed, N failed" over all builds.
#   tests/run.sh           release and address sanitizer: all tests; thread sanitizer: those with threads
#   tests/run.sh --quick   release: the tests labelled quick
#   tests/run.sh --long    as without, with CHT_TEST_LONG=1 and ten times the time-outs; then tests/arm64 and five minutes of tests/soak
#   --werror               warnings are errors (what CI does)
# A build that fails counts as one failed test. Exit code 0 only if something passed and nothing failed.
set -u
exec </dev/null # a caller may have closed it, and then the first file opened would be number 0
cd "$(dirname "$0")/.." || exit 2

mode=all werror=OFF factor=1
for arg in "$@"; do
    case $arg in
    --quick) mode=quick ;;
    --long) mode=long factor=10 ;;
    --werror) werror=ON ;;
    -h | --help)
        sed -n '2,/^set /{/^#/s/^# \{0,1\}//p;}' "$0"
        exit 0
        ;;
    *)
        echo "run.sh: unknown option '$arg' (--quick, --long, --werror)" >&2
        exit 2
        ;;
    esac
done
[ $mode != long ] || export CHT_TEST_LONG=1

passed=0 failed=0
finish()
{
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
    exit
}

deploy/install-deps.sh build test || {
    failed=1
    finish
}
jobs=$(($(nproc) + 1)) # many tests wait more than they compute
log=$(mktemp) || exit 2
trap 'rm -f "$log"' EXIT

# Builds a preset and runs its tests. $1 preset, $2 command to run under or "", $3... more for ctest
run_preset()
{
    preset=$1 under=$2
    shift 2
    times=$factor
    [ "$preset" = release ] || times=$((factor * 2)) # sanitized programs take several times as long
    echo "== $preset"
    if ! { cmake --preset "$preset" -DCHEETAH_WERROR=$werror -DCHEETAH_TIMEOUT_FACTOR=$times >"$log" 2>&1 &&
        cmake --build --preset "$preset" -- -k 0 >"$log" 2>&1; }; then
        cat "$log"
        echo "== $preset: the build failed"
        failed=$((failed + 1))
        return
    fi
    grep -A 5 'warning:' "$log"
    # shellcheck disable=SC2086 # $under is a command with arguments
    $under ctest --test-dir "build/$preset" -j "$jobs" --output-on-failure --no-tests=ignore "$@" 2>&1 | tee "$log"
    # "90% tests passed, 1 tests failed out of 10"; nothing of the kind where no test was chosen
    counts=$(sed -n 's/.* tests passed, \([0-9]*\) tests failed out of \([0-9]*\)$/\1 \2/p' "$log")
    if [ -n "$counts" ]; then
        failed=$((failed + ${counts% *}))
        passed=$((passed + ${counts#* } - ${counts% *}))
    elif ! grep -q 'No tests were found' "$log"; then
        echo "== $preset: ctest did not finish"
        failed=$((failed + 1))
    fi
}

if [ $mode = quick ]; then
    run_preset release "" -L quick
    finish
fi
run_preset release ""
# Sanitized programs are several times slower: fewer operations, every 7th place of a fault or a cut (release has all).
[ $mode = long ] || export CHT_TEST_OPS=150000 CHT_TEST_STRIDE=7
run_preset asan ""
unset CHT_TEST_OPS CHT_TEST_STRIDE
# test_http_threads_* look at all but the streams of a large database (they take it 6 minutes).
# The thread sanitizer of this gcc does not start where addresses are randomised over more than 28 bits.
export TSAN_OPTIONS="suppressions=$PWD/tests/tsan.supp"
fixed="setarch $(uname -m) -R"
$fixed true 2>/dev/null || fixed=
run_preset tsan "$fixed" -R '^test_(os|wal|durable|pipe|calm|jobs|fault|smooth_switch)$|concurren|thread'
if [ $mode = long ]; then
    echo "== arm64"
    if deploy/install-deps.sh arm64 && tests/arm64/run.sh build/release/cheetah-db; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
    echo "== soak"
    if tests/soak/run.sh 5 --binary build/release/cheetah-db; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
    fi
fi
finish
