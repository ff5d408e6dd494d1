//! See `tagbrush::fuzzing::pickle`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tagbrush::fuzzing::pickle(data));
