#!/bin/sh
# Install what building and testing need and is missing, on Debian and what derives from it.
#   tools/deps.sh          to build
#   tools/deps.sh test     also what `make test` needs
#   tools/deps.sh lint     also what `make lint`, `make format` need
#   tools/deps.sh fuzz     also what `make fuzz` needs
#   tools/deps.sh valgrind also what `make valgrind` needs
# Quiet and quick when nothing is missing.
set -eu

packages="gcc libc6-dev make libstb-dev libjansson-dev libmd-dev zlib1g-dev libzip-dev libjpeg-dev liblapacke-dev libopenblas0-pthread libutf8proc-dev libcmocka-dev"
case "${1:-}" in
"") ;;
test) packages="$packages pkgconf libopenmpi-dev openmpi-bin" ;;
lint) packages="$packages clang clang-tidy clang-format cppcheck" ;;
fuzz) packages="$packages clang libclang-rt-dev" ;;
valgrind) packages="$packages valgrind" ;;
*)
    echo "tools/deps.sh: unknown argument '$1' (test, lint, fuzz, valgrind, or none)" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    echo "tools/deps.sh: this is not a Debian-like system; if the build fails, install what corresponds to: $packages" >&2
    exit 0
fi

installed=$(dpkg-query -W -f='${Package}=${db:Status-Status} ' $packages 2>/dev/null || true)
missing=
for package in $packages; do
    case " $installed" in
    *" $package=installed "*) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    as_root="sudo"
    if ! command -v sudo >/dev/null; then
        echo "tools/deps.sh: missing, and there is no sudo: as root, run  apt-get install$missing" >&2
        exit 1
    fi
fi
echo "tools/deps.sh: installing$missing"
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update
$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install $missing >/dev/null
echo "tools/deps.sh: installed"
