//! See `tagbrush::fuzzing::labels`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tagbrush::fuzzing::labels(data));
