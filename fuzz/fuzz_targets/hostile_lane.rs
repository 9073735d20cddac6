//! A worker that writes anything at all; see `src/engine/hostile.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| miniflow::fuzzing::hostile_lane(data));
