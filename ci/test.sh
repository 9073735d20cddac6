#!/usr/bin/env bash
# Everything that must hold before a change lands; about 25 minutes on 2 cores. Each step is a script or a
# command that also runs by hand. Needs Rust, a C compiler and Python; steps that need more say SKIP.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n=== %s\n' "$*"; }

step "format"
cargo fmt --all -- --check

step "source files are ASCII"
if grep -rnP '[^\x00-\x7F]' --include='*.rs' --include='*.toml' --include='*.h' --include='*.c' --include='*.py' \
    src tests examples include python Cargo.toml cbindgen.toml; then
    echo "the files above are not ASCII" >&2
    exit 1
fi

step "lints"
cargo clippy --all-targets -- -D warnings
cargo clippy --all-targets --features kill-points -- -D warnings

step "the library without the command line"
cargo check --lib --no-default-features

step "AArch64"
if rustup target list --installed 2>/dev/null | grep -q '^aarch64-unknown-linux-gnu$'; then
    cargo check --lib --target aarch64-unknown-linux-gnu
else
    echo "SKIP: the standard library for aarch64-unknown-linux-gnu is not installed"
fi

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --lib

step "models of the lane protocols (loom)"
ci/loom.sh

step "tests"
cargo test --release

step "the Python package: wheel, tests, types, style"
ci/python.sh

step "the live page in a browser"
ci/page.sh

step "metrics, as promtool reads them"
ci/promtool.sh

step "chaos, short form"
cargo run --release -- chaos --kills 2000

step "kill at every store"
cargo test --release --features kill-points --test kill_points
