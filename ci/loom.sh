#!/usr/bin/env bash
# Explores the loom models of the protocols in shared memory (src/shm/*/model.rs), and checks that
# the sabotaged ones fail. About 2 minutes to build and 1 to run on two free cores (45 s of CPU).
#
# Executions explored with LOOM_MAX_PREEMPTIONS=3 (the run prints them):
#   doorbell, two tasks and two threads, announced one by one      107 564
#   doorbell, the same, announced at once                           19 675
#   doorbell, three tasks and three threads (1 preemption)         193 425
#   host epoch, two sleepers, one poller, one worker                95 645
#   host epoch, the same, one sleeper leaves for its own reasons    72 894
#   host epoch, a flip that is held back behind a long task            101
#   ring, three descriptors, two cells, two consumers              130 574
#   slots, done words and bitmap, three dispatches, two threads      4 695
#   slot, start of a dispatch                                            6
# With 4 it takes some ten times as long. Sabotaged models run with 2.
set -euo pipefail
cd "$(dirname "$0")/.."

export RUSTFLAGS="--cfg loom"
export CARGO_TARGET_DIR=target/loom
export LOOM_MAX_PREEMPTIONS="${LOOM_MAX_PREEMPTIONS:-3}"
# As fast to run, twice as fast to build.
export CARGO_PROFILE_RELEASE_LTO=off
export CARGO_PROFILE_RELEASE_DEBUG=0
export CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16

exec cargo test --locked --release --lib -- --test-threads=2 --nocapture model::
