//! Activation functions for `f32` slices, without branches so that loops over them vectorise.

use rayon::prelude::*;

use super::super::host;
use super::Activation;

/// Applies the function in place, on all threads.
pub(in super::super) fn apply(activation: Activation, values: &mut [f32]) {
    let chunk = host::rows_per_task(values.len(), 1);
    values.par_chunks_mut(chunk).for_each(|values| apply_here(activation, values));
}

/// Applies the function in place, on this thread.
pub(in super::super) fn apply_here(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::GeluErf => values.iter_mut().for_each(|x| *x = gelu_erf(*x)),
        Activation::GeluTanh => values.iter_mut().for_each(|x| *x = gelu_tanh(*x)),
        Activation::QuickGelu => values.iter_mut().for_each(|x| *x *= sigmoid(1.702 * *x)),
        Activation::Silu => values.iter_mut().for_each(|x| *x *= sigmoid(*x)),
        Activation::Relu => values.iter_mut().for_each(|x| *x = x.max(0.0)),
        Activation::Identity => {}
    }
}

/// `e^x`, relative error below 3e-7 over -87 to 88; 0 below that range, `e^88` above it.
///
/// `x = n ln 2 + r` with |r| <= ln 2 / 2; a polynomial for `e^r`, the exponent set by bits.
#[inline(always)]
pub(in super::super) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts: the first has few enough bits for n * LN2_HIGH to be exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest whole number.
    const ROUND: f32 = 12_582_912.0;
    let underflow = x < -87.0;
    let x = x.clamp(-87.0, 88.0);
    let n = (x * LOG2_E + ROUND) - ROUND;
    let r = x - n * LN2_HIGH - n * LN2_LOW;
    let mut p = 1.987_569_2e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 0.166_666_66;
    p = p * r + 0.5;
    let y = p * r * r + r + 1.0;
    let power = f32::from_bits(((n as i32 + 127) << 23) as u32);
    if underflow { 0.0 } else { y * power }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// GELU with the tanh approximation, written with `sigmoid(2z) = (1 + tanh z) / 2`.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    x * sigmoid(2.0 * SQRT_2_OVER_PI * (x + 0.044_715 * x * x * x))
}

/// Exact GELU, `x Phi(x)`, absolute error below 4e-7 for |x| <= 10.
///
/// The complementary error function by the rational approximation of Abramowitz and Stegun 7.1.26
/// loses too much, so it is the Chebyshev fit of Numerical Recipes (`erfcc`, relative error below
/// 1.2e-7): `erfc(z) = t exp(-z^2 + P(t))` with `t = 1 / (1 + z / 2)`.
#[inline(always)]
fn gelu_erf(x: f32) -> f32 {
    let z = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let mut p = 0.170_872_77;
    p = p * t - 0.822_152_23;
    p = p * t + 1.488_515_9;
    p = p * t - 1.135_204;
    p = p * t + 0.278_868_07;
    p = p * t - 0.186_288_06;
    p = p * t + 0.096_784_18;
    p = p * t + 0.374_091_96;
    p = p * t + 1.000_023_7;
    p = p * t - 1.265_512_2;
    let half_erfc = 0.5 * t * exp(p - z * z);
    let phi = if x < 0.0 { half_erfc } else { 1.0 - half_erfc };
    x * phi
}
