#!/bin/bash
# Run fuzzers for a bounded time:  tools/fuzz.sh SECONDS FUZZER...
# The corpus of FUZZER stays in build/fuzz/corpus/NAME, so that the next run begins where this one ended; what crashes is left in build/fuzz/.
set -euo pipefail
seconds=$1
shift
[ $# -gt 0 ] || { echo "tools/fuzz.sh: no tests/fuzz_*.c" >&2; exit 1; }
for fuzzer in "$@"; do
    name=$(basename "$fuzzer")
    corpus=build/fuzz/corpus/$name
    log=build/fuzz/$name.log
    mkdir -p "$corpus"
    seeds=()
    [ ! -d "tests/fuzz/${name#fuzz_}" ] || seeds=("tests/fuzz/${name#fuzz_}")
    echo "$name: $seconds s"
    if ! "$fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -artifact_prefix="build/fuzz/$name-" -print_final_stats=1 \
        "$corpus" "${seeds[@]}" >"$log" 2>&1; then
        tail -n 60 "$log"
        echo "$name: FAILED, see build/fuzz/"
        exit 1
    fi
    grep -E '^stat::(number_of_executed_units|average_exec_per_sec)' "$log" | sed 's/^stat::/    /'
done
echo "fuzzing found nothing"
