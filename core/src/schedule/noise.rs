//! Noise that equals `torch.Generator("cpu").manual_seed(seed)` with `torch.randn` in f32, so that a
//! seed means the same picture as in the reference.
//!
//! The bits come from mt19937. torch makes normal numbers of them by
//! the method of Box and Muller in two ways: up to 15 numbers one by one in f64, and from 16 on in
//! blocks of 16 in f32, where eight logarithms meet eight angles. Each way uses the bits up
//! differently, so both are needed, and a generator that is drawn from several times goes on where
//! torch's would.
//!
//! The f32 functions are those of torch's build for AVX2, which every common x86 machine runs:
//! polynomials of the Cephes library, with the products and sums that its compiler fused. On other
//! machines torch itself differs in the last bit.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::mersenne::Mersenne;

/// From this many numbers on, they are made in blocks of as many.
const BLOCK: usize = 16;

/// A random number generator with the state of `torch.Generator("cpu")`.
#[derive(Clone)]
pub(crate) struct TorchGenerator {
    bits: Mersenne,
    /// The second number of a pair of the one-by-one way, if it was not taken yet.
    second: Option<f64>,
}

impl TorchGenerator {
    /// As after `manual_seed(seed)`: torch seeds with the lower 32 bits. A negative seed of Python is
    /// its two's complement.
    pub(crate) fn new(seed: u64) -> Self {
        Self { bits: Mersenne::new(seed as u32), second: None }
    }

    /// A seed that nobody knows; of 32 bits, which are all that the generator takes.
    pub(crate) fn drawn_seed() -> u64 {
        RandomState::new().build_hasher().finish() >> 32
    }

    /// `torch.randn(count)` in f32.
    pub(crate) fn normal(&mut self, count: usize) -> Vec<f32> {
        if count < BLOCK {
            return (0..count).map(|_| self.one_normal() as f32).collect();
        }
        let mut numbers: Vec<f32> = (0..count).map(|_| self.uniform()).collect();
        for block in numbers.as_chunks_mut().0 {
            box_muller(block);
        }
        // What does not fill a block belongs to the last 16 numbers, and these are drawn anew.
        if !count.is_multiple_of(BLOCK)
            && let Some(block) = numbers.last_chunk_mut()
        {
            block.fill_with(|| self.uniform());
            box_muller(block);
        }
        numbers
    }

    /// One number from the distribution between 0 and 1, 1 excluded, with all 24 bits of an f32.
    fn uniform(&mut self) -> f32 {
        const SCALE: f32 = 1.0 / (1 << 24) as f32;
        (self.bits.word() & 0xFF_FFFF) as f32 * SCALE
    }

    /// The same in f64, with 53 bits.
    fn uniform_f64(&mut self) -> f64 {
        const BITS: u64 = (1 << 53) - 1;
        let high = u64::from(self.bits.word()) << 32;
        ((high | u64::from(self.bits.word())) & BITS) as f64 / (BITS + 1) as f64
    }

    fn one_normal(&mut self) -> f64 {
        if let Some(number) = self.second.take() {
            return number;
        }
        let angle = 2.0 * std::f64::consts::PI * self.uniform_f64();
        let radius = (-2.0 * (-self.uniform_f64()).ln_1p()).sqrt();
        self.second = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

/// Makes 16 uniform numbers normal ones: the first eight give radii, the others angles.
fn box_muller(block: &mut [f32; BLOCK]) {
    let (radii, angles) = block.split_at_mut(BLOCK / 2);
    for (first, second) in radii.iter_mut().zip(angles) {
        // 1 minus the number is never 0.
        let radius = (-2.0 * ln(1.0 - *first)).sqrt();
        let (sin, cos) = sin_cos(std::f32::consts::TAU * *second);
        *first = radius * cos;
        *second = radius * sin;
    }
}

/// The natural logarithm of a normal number above 0, as Cephes' `logf`: `x = m * 2^e` with `m`
/// around 1, and a polynomial for `ln m`.
fn ln(x: f32) -> f32 {
    // ln 2 in two parts, of which the first has few enough bits for its multiples to be exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_87e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    let bits = x.to_bits();
    let mut exponent = (bits >> 23) as f32 - 126.0;
    // Between a half and 1, then moved around 0.
    let mut m = f32::from_bits((bits & 0x7F_FFFF) | 0x3F00_0000);
    if m < std::f32::consts::FRAC_1_SQRT_2 {
        exponent -= 1.0;
        m = (m - 1.0) + m;
    } else {
        m -= 1.0;
    }
    let square = m * m;
    let polynomial = horner(&COEFFICIENTS, m) * m;
    let tail = polynomial.mul_add(square, exponent * LN2_LOW);
    let tail = square.mul_add(-0.5, tail);
    exponent.mul_add(LN2_HIGH, m + tail)
}

/// Sine and cosine of an angle from 0 to about a turn, as Cephes' `sinf` and `cosf`: the angle is
/// brought to an eighth of a turn around a multiple of a quarter, and which polynomial is which, and
/// their signs, follow from that multiple.
fn sin_cos(angle: f32) -> (f32, f32) {
    // A quarter of pi in three parts, as for ln 2 above.
    const PARTS: [f32; 3] = [-0.785_156_25, -2.418_756_5e-4, -3.774_895e-8];
    const SIN: [f32; 3] = [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1];
    const COS: [f32; 3] = [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2];
    let eighths = ((angle * (4.0 / std::f32::consts::PI)) as u32 + 1) & !1;
    let x = PARTS.iter().fold(angle, |x, part| (eighths as f32).mul_add(*part, x));
    let square = x * x;
    let cos = (horner(&COS, square) * square).mul_add(square, -(square * 0.5)) + 1.0;
    let sin = (horner(&SIN, square) * square).mul_add(x, x);
    match eighths / 2 % 4 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// A polynomial with the highest coefficient first.
fn horner(coefficients: &[f32], x: f32) -> f32 {
    let (first, others) = coefficients.split_first().map_or((0.0, &[][..]), |(f, o)| (*f, o));
    others.iter().fold(first, |sum, coefficient| sum.mul_add(x, *coefficient))
}
