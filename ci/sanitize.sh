#!/usr/bin/env bash
# AddressSanitizer and ThreadSanitizer over the Rust tests; needs a nightly toolchain (rustup toolchain install
# nightly), else says SKIP. About 10 minutes from scratch on 2 cores. The C programs run under AddressSanitizer,
# UndefinedBehaviorSanitizer and valgrind in tests/c_abi.rs.
#
#   ci/sanitize.sh            both
#   ci/sanitize.sh address    AddressSanitizer: library, hostile lane, deaths, limits, waiting, exactly once
#   ci/sanitize.sh thread     ThreadSanitizer: waiting, limits. It sees one process at a time; what two processes do
#                             to one page is explored by the models (ci/loom.sh).
set -euo pipefail
cd "$(dirname "$0")/.."

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "SKIP: no nightly toolchain"
    exit 0
fi
target=$(rustc -vV | sed -n 's/^host: //p')
tests() { # ARGUMENT... : of cargo test
    if cargo nextest --version >/dev/null 2>&1; then
        cargo +nightly nextest run --no-fail-fast --target "$target" "$@"
    else
        cargo +nightly test --target "$target" "$@"
    fi
}

case "${1:-both}" in
address | both)
    # No look for leaks: the slabs of the C interface keep their memory for ever, by design.
    CARGO_TARGET_DIR=target/asan RUSTFLAGS="-Zsanitizer=address" ASAN_OPTIONS="detect_leaks=0" \
        tests --lib --test death --test exactly_once --test hostile --test limits --test waiting
    ;;&
thread | both)
    # The standard library has to be built along: it is not instrumented otherwise, and looks like a race.
    # Handler workers are forked and start threads, which the sanitizer allows with die_after_fork=0.
    if ! rustup component list --toolchain nightly 2>/dev/null | grep -q '^rust-src.*installed'; then
        echo "SKIP ThreadSanitizer: needs rustup component add rust-src --toolchain nightly"
    else
        CARGO_TARGET_DIR=target/tsan RUSTFLAGS="-Zsanitizer=thread" TSAN_OPTIONS="die_after_fork=0" \
            tests -Zbuild-std --test limits --test waiting -- \
            --skip a_process_that_a_handler_has_forked # the sanitizer keeps its signals back
    fi
    ;;&
address | thread | both) ;;
*)
    echo "usage: $0 [address|thread]" >&2
    exit 2
    ;;
esac
