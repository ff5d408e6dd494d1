//! Numbers on their way to JavaScript.

use napi::bindgen_prelude::{BigInt, Either};

/// A number of the core as people wrote it: 0.35, and not 0.3499999940395355. The nearest `f32` of it is
/// the number itself.
pub(crate) fn decimal(number: f32) -> f64 {
    // Rust prints the shortest text that is read back as the same `f32`, and that text is a number.
    number.to_string().parse().unwrap_or_else(|_| f64::from(number))
}

/// A number, or a `bigint` where a number would not be exact.
pub(crate) fn exact(number: u64) -> Either<f64, BigInt> {
    const LARGEST: u64 = (1 << 53) - 1;
    match number {
        0..=LARGEST => Either::A(number as f64),
        _ => Either::B(BigInt::from(number)),
    }
}
