//! Elementary functions on vectors, with their errors.

use super::simd::Simd;

/// `e^x`, relative error below 3e-7 over -87 to 88; 0 below that range, `e^88` above it.
///
/// `x = n ln 2 + r` with |r| <= ln 2 / 2; a polynomial for `e^r` (Cephes' `expf`), then the power of
/// two.
///
/// # Safety
/// The processor has the instructions of `S`, here and below.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        // ln 2 in two parts: the first has few enough bits for n * LN2_HIGH to be exact.
        const LN2_HIGH: f32 = 0.693_359_4;
        const LN2_LOW: f32 = -2.121_944_4e-4;
        // Adding and subtracting 1.5 * 2^23 rounds to the nearest whole number.
        const ROUND: f32 = 12_582_912.0;
        let low = S::splat(-87.0);
        // In this order what is no number stays so.
        let clamped = S::min(S::splat(88.0), S::max(low, x));
        let round = S::splat(ROUND);
        let n = S::sub(S::mul_add(clamped, S::splat(std::f32::consts::LOG2_E), round), round);
        let r = S::mul_add(n, S::splat(-LN2_HIGH), clamped);
        let r = S::mul_add(n, S::splat(-LN2_LOW), r);
        let mut p = S::splat(1.987_569_2e-4);
        p = S::mul_add(p, r, S::splat(1.398_199_9e-3));
        p = S::mul_add(p, r, S::splat(8.333_452e-3));
        p = S::mul_add(p, r, S::splat(4.166_579_6e-2));
        p = S::mul_add(p, r, S::splat(0.166_666_66));
        p = S::mul_add(p, r, S::splat(0.5));
        let one = S::splat(1.0);
        let y = S::add(S::mul_add(S::mul(p, r), r, r), one);
        S::if_less(x, low, S::splat(0.0), S::mul(y, S::power_of_two(n)))
    }
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        let one = S::splat(1.0);
        S::div(one, S::add(one, exp::<S>(S::sub(S::splat(0.0), x))))
    }
}

/// GELU with the tanh approximation, written with `sigmoid(2z) = (1 + tanh z) / 2`.
#[inline(always)]
pub(crate) unsafe fn gelu_tanh<S: Simd>(x: S::V) -> S::V {
    const SQRT_2_OVER_PI: f32 = 0.797_884_6;
    // SAFETY: the caller's promise.
    unsafe {
        let cubic = S::mul(S::mul(x, x), S::splat(0.044_715));
        let z = S::mul(S::mul_add(cubic, x, x), S::splat(2.0 * SQRT_2_OVER_PI));
        S::mul(x, sigmoid::<S>(z))
    }
}

/// Exact GELU, `x Phi(x)`, absolute error below 4e-7 for |x| <= 10.
///
/// The complementary error function by the rational approximation of Abramowitz and Stegun 7.1.26
/// loses too much, so it is the Chebyshev fit of Numerical Recipes (`erfcc`, relative error below
/// 1.2e-7): `erfc(z) = t exp(-z^2 + P(t))` with `t = 1 / (1 + z / 2)`.
#[inline(always)]
pub(crate) unsafe fn gelu_erf<S: Simd>(x: S::V) -> S::V {
    const P: [f32; 10] = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_9,
        -1.135_204,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_7,
        -1.265_512_2,
    ];
    // SAFETY: the caller's promise.
    unsafe {
        let (zero, one, half) = (S::splat(0.0), S::splat(1.0), S::splat(0.5));
        let magnitude = S::max(x, S::sub(zero, x));
        let z = S::mul(magnitude, S::splat(std::f32::consts::FRAC_1_SQRT_2));
        let t = S::div(one, S::mul_add(half, z, one));
        let mut p = S::splat(P[0]);
        for coefficient in &P[1..] {
            p = S::mul_add(p, t, S::splat(*coefficient));
        }
        let exponent = S::sub(p, S::mul(z, z));
        let half_erfc = S::mul(S::mul(half, t), exp::<S>(exponent));
        let phi = S::if_less(x, zero, half_erfc, S::sub(one, half_erfc));
        S::mul(x, phi)
    }
}
