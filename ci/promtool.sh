#!/usr/bin/env bash
# What `miniflow metrics` prints of a running engine is what Prometheus wants, as promtool checks it (Debian:
# prometheus; else says SKIP).
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v promtool >/dev/null; then
    echo "SKIP: no promtool (Debian: prometheus)"
    exit 0
fi
cargo build --release --bin miniflow --example watched
bin="${CARGO_TARGET_DIR:-target}/release"
name="promtool-$$"
coproc ENGINE { exec "$bin/examples/watched" "$name"; }
trap 'kill "$ENGINE_PID"' EXIT
read -r _ <&"${ENGINE[0]}" # it runs

text=
for _ in {1..200}; do # until workers have been measured, so that there is all that there can be
    text=$("$bin/miniflow" metrics "$name")
    if grep -q '^miniflow_worker_resident_memory_bytes' <<<"$text"; then break; fi
    sleep 0.1
done
promtool check metrics <<<"$text"
echo "promtool finds nothing wrong with $(grep -c '^# TYPE' <<<"$text") metrics"
