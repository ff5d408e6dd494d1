//! See `tagbrush::fuzzing::lora`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tagbrush::fuzzing::lora(data));
