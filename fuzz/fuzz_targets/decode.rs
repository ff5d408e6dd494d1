//! See `tagbrush::fuzzing::decode`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tagbrush::fuzzing::decode(data));
