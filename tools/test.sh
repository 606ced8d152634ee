#!/bin/bash
# Run test programs one after another and say how it went:  tools/test.sh PROGRAM...
# A line a program, the whole output of those that failed, and at the end "N passed, N failed", counting test functions.
# A program that crashes has failed the tests that it did not come to.  RUNNER: a command to run them under (valgrind).
set -u
export CMOCKA_MESSAGE_OUTPUT=TAP
unset CMOCKA_XML_FILE
passed=0 failed=0 broken=
log=$(mktemp "${TMPDIR:-/tmp}/halftone-test.XXXXXX") || exit 1
trap 'rm -f "$log"' EXIT

for program in "$@"; do
    start=$(date +%s.%N)
    ${RUNNER:-} "$program" >"$log" 2>&1 </dev/null
    status=$?
    seconds=$(echo "$start $(date +%s.%N)" | awk '{printf "%.1f", $2 - $1}')
    read -r planned ok bad skipped < <(awk '/^1\.\.[0-9]+/ { planned += substr($0, 4) }
        /^ok / { if (/# SKIP/) skipped++; else ok++ } /^not ok / { bad++ }
        END { print planned + 0, ok + 0, bad + 0, skipped + 0 }' "$log")
    missed=$((planned - ok - bad - skipped))
    bad=$((bad + skipped + (missed > 0 ? missed : 0))) # a test that skips has not shown what its name claims
    if [ "$bad" = 0 ] && { [ "$status" != 0 ] || [ "$planned" = 0 ]; }; then bad=1; fi
    passed=$((passed + ok)) failed=$((failed + bad))
    name=$(basename "$program")
    if [ "$bad" = 0 ]; then
        printf '%-28s %4d passed  %6s s\n' "$name" "$ok" "$seconds"
    else
        printf '%-28s %4d passed, %d failed (%d skipped), exit code %d, %s s\n' "$name" "$ok" "$bad" "$skipped" "$status" "$seconds"
        grep -v '^ok ' "$log" | sed 's/^/    /'
        broken="$broken $name"
    fi
done
[ -z "$broken" ] || echo "failed:$broken"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
