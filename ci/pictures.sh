#!/usr/bin/env bash
# Makes the README's pictures, docs/pictures/top.png and page.png, anew from a real run: about 75 s, on a machine that
# does nothing else. Needs Python 3.9, chromium and chromedriver (Debian: chromium, chromium-driver, fonts-dejavu-core).
set -euo pipefail
cd "$(dirname "$0")/.."

for program in python3 chromium chromedriver; do
    if ! command -v "$program" >/dev/null; then
        echo "there is no $program (Debian: python3, chromium, chromium-driver)" >&2
        exit 1
    fi
done
cargo build --release --bin miniflow --example watched --example screenshot
export MINIFLOW_BINARIES="${CARGO_TARGET_DIR:-target}/release"
mkdir -p docs/pictures
python3 -B tests/page/pictures.py docs/pictures
ls -l docs/pictures
