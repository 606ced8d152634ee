#!/bin/bash
# Run test programs, as many at once as there are processors, and say how it went:  tools/test.sh PROGRAM...
# A line a program, the whole output of those that failed, and at the end "N passed, N failed", counting test functions.
# A program that crashes has failed the tests that it did not come to.  RUNNER: a command to run them under (valgrind).
# JOBS: how many at once.
set -u
export CMOCKA_MESSAGE_OUTPUT=TAP
unset CMOCKA_XML_FILE
results=$(mktemp -d "${TMPDIR:-/tmp}/halftone-test.XXXXXX") || exit 1
export results
trap 'rm -rf "$results"' EXIT

run() { # PROGRAM: prints its lines at once, and leaves "passed failed name" in $results
    local start status seconds planned ok bad skipped missed name
    name=$(basename "$1")
    local log=$results/$name.log
    start=$(date +%s.%N)
    ${RUNNER:-} "$1" >"$log" 2>&1 </dev/null
    status=$?
    seconds=$(echo "$start $(date +%s.%N)" | awk '{printf "%.1f", $2 - $1}')
    read -r planned ok bad skipped < <(awk '/^1\.\.[0-9]+/ { planned += substr($0, 4) }
        /^ok / { if (/# SKIP/) skipped++; else ok++ } /^not ok / { bad++ }
        END { print planned + 0, ok + 0, bad + 0, skipped + 0 }' "$log")
    missed=$((planned - ok - bad - skipped))
    bad=$((bad + skipped + (missed > 0 ? missed : 0))) # a test that skips has not shown what its name claims
    if [ "$bad" = 0 ] && { [ "$status" != 0 ] || [ "$planned" = 0 ]; }; then bad=1; fi
    echo "$ok $bad $name" >"$results/$name.count"
    if [ "$bad" = 0 ]; then
        printf '%-28s %4d passed  %6s s\n' "$name" "$ok" "$seconds"
    else
        printf '%-28s %4d passed, %d failed (%d skipped), exit code %d, %s s\n%s\n' "$name" "$ok" "$bad" "$skipped" "$status" \
            "$seconds" "$(grep -v '^ok ' "$log" | sed 's/^/    /')"
    fi
}
export -f run

printf '%s\0' "$@" | xargs -0 -P "${JOBS:-$(nproc)}" -I{} bash -c 'run "$1"' - {}
cat "$results"/*.count | awk -v wanted=$# '{ passed += $1; failed += $2; if ($2) broken = broken " " $3 }
    END { if (NR < wanted) { failed += wanted - NR; broken = broken " (a program that left no result)" }
          if (broken) print "failed:" broken; print passed + 0 " passed, " failed + 0 " failed"; exit failed > 0 }'
