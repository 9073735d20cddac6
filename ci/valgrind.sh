#!/usr/bin/env bash
# Prints the path of a valgrind that knows pidfd_open (3.22 or newer): the installed one, or, on a Debian
# whose own is older, that of the next release, unpacked under target/ and not installed. Prints nothing if
# neither can be had.
set -euo pipefail
cd "$(dirname "$0")/.."

installed=$(valgrind --version 2>/dev/null | sed 's/^valgrind-//' || true)
if [ -n "$installed" ] && [ "$(printf '%s\n3.22\n' "$installed" | sort -V | head -1)" = 3.22 ]; then
    command -v valgrind
    exit 0
fi
home="$PWD/target/valgrind"
if [ ! -x "$home/run" ]; then
    sources=/etc/apt/sources.list.d/debian.sources
    [ -r "$sources" ] || exit 0
    mkdir -p "$home/lists/partial" "$home/cache/archives/partial"
    sed 's/bookworm/trixie/g' "$sources" >"$home/debian.sources"
    options=(-o "Dir::Etc::sourcelist=$home/debian.sources" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$home/lists" -o "Dir::Cache=$home/cache" -qq)
    { timeout 120 apt-get "${options[@]}" update && cd "$home" &&
        timeout 120 apt-get "${options[@]}" download valgrind && dpkg -x valgrind_*.deb unpacked; } >&2 || exit 0
    printf '#!/bin/sh\nVALGRIND_LIB=%s exec %s "$@"\n' \
        "$home/unpacked/usr/libexec/valgrind" "$home/unpacked/usr/bin/valgrind" >"$home/run"
    chmod +x "$home/run"
fi
echo "$home/run"
