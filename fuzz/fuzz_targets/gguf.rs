//! See `tagbrush::fuzzing::gguf`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tagbrush::fuzzing::gguf(data));
