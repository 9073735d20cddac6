#!/usr/bin/env bash
# The live page of `miniflow metrics` in a headless Chromium, over a running engine: about 30 s. Needs Python
# 3.9, chromium and chromedriver, else says SKIP.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in python3 chromium chromedriver; do
    if ! command -v "$program" >/dev/null; then
        echo "SKIP: the page is not tested: there is no $program (Debian: chromium, chromium-driver)"
        exit 0
    fi
done
cargo build --release --bin miniflow --example watched
export MINIFLOW_BINARIES="${CARGO_TARGET_DIR:-target}/release"
exec python3 -B tests/page/test_page.py "$@"
