//! See `tagbrush::fuzzing::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tagbrush::fuzzing::config(data));
