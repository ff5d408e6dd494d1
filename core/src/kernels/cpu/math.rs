//! Elementary functions on vectors, with their errors.

use std::f32::consts::LOG2_E;

use super::simd::Simd;

/// 1.5 * 2^23: adding and subtracting it rounds to the nearest whole number.
const ROUND: f32 = 12_582_912.0;

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
        let low = S::splat(-87.0);
        // In this order what is no number stays so.
        let clamped = S::min(S::splat(88.0), S::max(low, x));
        let round = S::splat(ROUND);
        let n = S::sub(S::mul_add(clamped, S::splat(LOG2_E), round), round);
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
        S::scale_or_zero(y, n, x, low)
    }
}

/// `2^x` for `x` below 127, relative error below 3e-7, or below 8e-5 if it may be `rough`: a
/// twentieth of what rounding to bfloat16 loses. 0 below -126.
///
/// `x = n + r` with |r| <= 1/2, and a polynomial for `2^r` of the least possible relative error. The
/// softmax of attention is a quotient of such powers, with the logarithm's base in the scale of scores.
#[inline(always)]
pub(crate) unsafe fn exp2<S: Simd>(x: S::V, rough: bool) -> S::V {
    const FINE: [f32; 6] =
        [0.001_327_647_2, 0.009_675_541, 0.055_507_13, 0.240_221_2, 0.693_146_94, 1.000_000_1];
    const SHORT: [f32; 4] = [0.055_171_67, 0.242_611_13, 0.693_260_97, 0.999_928_06];
    // SAFETY: the caller's promise.
    unsafe {
        let low = S::splat(-126.0);
        let round = S::splat(ROUND);
        let n = S::sub(S::add(x, round), round);
        let r = S::sub(x, n);
        let terms: &[f32] = if rough { &SHORT } else { &FINE };
        let mut p = S::splat(terms[0]);
        for term in &terms[1..] {
            p = S::mul_add(p, r, S::splat(*term));
        }
        S::scale_or_zero(p, n, x, low)
    }
}

/// `1 / (1 + e^-x)`, at least `e^-87`.
///
/// Below that, numbers are smaller than the normal ones, and processors take a hundred times longer
/// to multiply them: a layer whose activations were large took five times its time.
#[inline(always)]
pub(crate) unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        let one = S::splat(1.0);
        let negative = S::min(S::splat(87.0), S::sub(S::splat(0.0), x));
        S::reciprocal(S::add(one, exp::<S>(negative)))
    }
}

/// `1 / (1 + 2^x)`, relative error below 2e-4: for results that are rounded to bfloat16.
#[inline(always)]
pub(crate) unsafe fn rough_sigmoid2<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        let power = exp2::<S>(S::min(x, S::splat(126.0)), true);
        S::rough_reciprocal(S::add(S::splat(1.0), power))
    }
}

/// `x / (1 + e^-x)`; if it may be `rough`, with the error of [`rough_sigmoid2`].
#[inline(always)]
pub(crate) unsafe fn silu<S: Simd>(x: S::V, rough: bool) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        match rough {
            true => S::mul(x, rough_sigmoid2::<S>(S::mul(x, S::splat(-LOG2_E)))),
            false => S::mul(x, sigmoid::<S>(x)),
        }
    }
}

/// GELU with the tanh approximation, written with `sigmoid(2z) = (1 + tanh z) / 2`; if it may be
/// `rough`, with the error of [`rough_sigmoid2`].
#[inline(always)]
pub(crate) unsafe fn gelu_tanh<S: Simd>(x: S::V, rough: bool) -> S::V {
    const CUBIC: f32 = 0.044_715;
    const TWICE: f32 = 2.0 * 0.797_884_6; // 2 sqrt(2 / pi)
    // SAFETY: the caller's promise.
    unsafe {
        let square = S::mul(x, x);
        if rough {
            let factor = S::splat(-LOG2_E * TWICE);
            let factor = S::mul_add(square, S::splat(-LOG2_E * TWICE * CUBIC), factor);
            return S::mul(x, rough_sigmoid2::<S>(S::mul(x, factor)));
        }
        let z = S::mul(S::mul_add(S::mul(square, S::splat(CUBIC)), x, x), S::splat(TWICE));
        S::mul(x, sigmoid::<S>(z))
    }
}

/// [`gelu_erf`] for results that are rounded to bfloat16: relative error below 1e-3 for `x > -4`, absolute
/// error below 3e-7 below that.
///
/// `Phi(x) = 1 / (1 + e^-z)` with `z = x p(x^2)`: `p` has the least possible error of the product for |x|
/// up to 5.5, and stays what it is there.
#[inline(always)]
unsafe fn rough_gelu_erf<S: Simd>(x: S::V) -> S::V {
    const P: [f32; 4] = [6.320_18e-6, -9.214_05e-4, 0.075_423_53, 1.593_093_3];
    // SAFETY: the caller's promise.
    unsafe {
        let square = S::min(S::mul(x, x), S::splat(5.5 * 5.5));
        let mut p = S::splat(-LOG2_E * P[0]);
        for coefficient in &P[1..] {
            p = S::mul_add(p, square, S::splat(-LOG2_E * coefficient));
        }
        S::mul(x, rough_sigmoid2::<S>(S::mul(x, p)))
    }
}

/// Exact GELU, `x Phi(x)`, absolute error below 4e-7 for |x| <= 10.
///
/// The complementary error function by the rational approximation of Abramowitz and Stegun 7.1.26
/// loses too much, so it is the Chebyshev fit of Numerical Recipes (`erfcc`, relative error below
/// 1.2e-7): `erfc(z) = t exp(-z^2 + P(t))` with `t = 1 / (1 + z / 2)`.
#[inline(always)]
pub(crate) unsafe fn gelu_erf<S: Simd>(x: S::V, rough: bool) -> S::V {
    if rough {
        // SAFETY: the caller's promise.
        return unsafe { rough_gelu_erf::<S>(x) };
    }
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
        let t = S::reciprocal(S::mul_add(half, z, one));
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
