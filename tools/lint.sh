#!/bin/bash
# clang-tidy and cppcheck over C sources:  tools/lint.sh FILE.c...     Silent but for what they find.
set -euo pipefail
flags="-std=c11 -D_GNU_SOURCE -I. -Iinclude -DHALFTONE_PROGRAM=\"halftone\""

flags_of() { # the instruction sets of the Makefile
    case "$1" in
    cpu/avx512vnni*) echo "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mavx512vnni" ;;
    cpu/amx*) echo "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c -mamx-tile -mamx-int8" ;;
    cpu/avx512*) echo "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c" ;;
    cpu/avx2*) echo "-mavx2 -mfma -mf16c" ;;
    cli/ranks.c) pkg-config --exists ompi 2>/dev/null && echo "-DHALFTONE_MPI $(pkg-config --cflags ompi | sed 's/-I/-isystem /g')" ;;
    esac
}

checks_of() { # stb_image and stb_image_write are part of two, and the analyzer misjudges their buffers; tests run under sanitizers
    case "$1" in
    core/png.c | core/image_decode.c) echo "--checks=-clang-analyzer-unix.Malloc" ;;
    cli/ranks.c) echo "--checks=-clang-analyzer-optin.mpi.MPI-Checker" ;; # knows MPI_Wait alone, not MPI_Test
    tests/*) echo "--checks=-clang-analyzer-*" ;;
    esac
}

tidy() {
    local found
    # shellcheck disable=SC2046,SC2086
    found=$(clang-tidy --quiet $(checks_of "$1") "$1" -- $flags $(flags_of "$1") 2>&1) || { echo "$found"; exit 1; }
    found=$(echo "$found" | grep -v -E '^[0-9]+ warnings? generated|^$' || true)
    [ -z "$found" ] || { echo "$found"; exit 1; }
}
export -f tidy flags_of checks_of
export flags

printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -c 'tidy {}'
# Tests are left out of cppcheck: it takes the macros of cmocka and jansson for broken code.  readdir is safe on a DIR of one's own; arenas of bytes
# are cast to what lies in them.
# shellcheck disable=SC2046
cppcheck -q --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 --library=posix \
    --suppress=missingIncludeSystem --suppress=readdirCalled --suppress=invalidPointerCast \
    -D_GNU_SOURCE -I. -Iinclude -j "$(nproc)" $(printf '%s\n' "$@" | grep -v '^tests/')
echo "lint is clean: $# files"
