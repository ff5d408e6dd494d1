//! Vectors of `f32` for one instruction set each, so that a kernel is written once.
//!
//! A kernel is a value that implements [`Kernel`]; [`run`](super::run) calls it compiled for the
//! instruction set of this machine. Everything it calls must be `#[inline(always)]`: only then is
//! it compiled with the instructions of the function that [`run`](super::run) entered.

/// Lanes of the widest vector of all sets: a line of memory.
pub(crate) const MAX_LANES: usize = 16;

/// One instruction set.
///
/// # Safety
/// All functions may only be called where the processor has the instructions of the set, which
/// [`run`](super::run) makes sure of, and pointers must be valid for [`LANES`](Simd::LANES) values
/// unless a count is given.
pub(crate) trait Simd: Copy + 'static {
    /// A vector of [`LANES`](Simd::LANES) values.
    type V: Copy;
    /// How many values a vector has; of all but [groups](super::Group), a divisor of [`MAX_LANES`].
    const LANES: usize;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// bfloat16 values, widened.
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    /// Rounds to the nearest bfloat16, ties to even.
    unsafe fn store_bf16(p: *mut u16, v: Self::V);
    /// Rounds the values of two vectors likewise, one behind the other.
    #[inline(always)]
    unsafe fn store_bf16_pair(p: *mut u16, first: Self::V, second: Self::V) {
        // SAFETY: the caller's promise for twice the lanes.
        unsafe {
            Self::store_bf16(p, first);
            Self::store_bf16(p.add(Self::LANES), second);
        }
    }
    /// Asks for the line at `p`, which may be any address: a hint.
    #[inline(always)]
    unsafe fn fetch(_p: *const u8) {}
    /// Bytes as numbers.
    unsafe fn load_u8(p: *const u8) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// The larger one; `b` if one of them is no number.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller one; `b` if one of them is no number.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, in one rounding where the set has it.
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `x` where `a < b`, else `y`.
    unsafe fn if_less(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V;
    /// `2^n` for whole `n` from -126 to 127.
    unsafe fn power_of_two(n: Self::V) -> Self::V;

    /// `y * 2^n` for such `n`, 0 where `x < low`.
    #[inline(always)]
    unsafe fn scale_or_zero(y: Self::V, n: Self::V, x: Self::V, low: Self::V) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe {
            let scaled = Self::mul(y, Self::power_of_two(n));
            Self::if_less(x, low, Self::splat(0.0), scaled)
        }
    }

    /// `1 / x`, off by one unit in the last place at most, for `x` whose inverse is a normal number; 0
    /// or such an inverse beyond.
    #[inline(always)]
    unsafe fn reciprocal(x: Self::V) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { Self::div(Self::splat(1.0), x) }
    }

    /// As [`reciprocal`](Simd::reciprocal), but only 14 bits of it have to be right.
    #[inline(always)]
    unsafe fn rough_reciprocal(x: Self::V) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { Self::reciprocal(x) }
    }

    /// The first `count` values, zeros behind them.
    #[inline(always)]
    unsafe fn load_part(p: *const f32, count: usize) -> Self::V {
        let mut values = [0f32; MAX_LANES];
        // SAFETY: the caller's promise for `count` values, of which a vector has at most as many
        // as `values`.
        unsafe {
            std::ptr::copy_nonoverlapping(p, values.as_mut_ptr(), count.min(Self::LANES));
            Self::load(values.as_ptr())
        }
    }

    /// Stores the first `count` values.
    #[inline(always)]
    unsafe fn store_part(p: *mut f32, v: Self::V, count: usize) {
        let mut values = [0f32; MAX_LANES];
        // SAFETY: as for `load_part`.
        unsafe {
            Self::store(values.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(values.as_ptr(), p, count.min(Self::LANES));
        }
    }

    /// The sum of all values.
    #[inline(always)]
    unsafe fn sum(v: Self::V) -> f32 {
        let mut values = [0f32; MAX_LANES];
        // SAFETY: `values` has room for a vector.
        unsafe { Self::store(values.as_mut_ptr(), v) };
        let mut width = Self::LANES;
        while width > 1 {
            width /= 2;
            for i in 0..width {
                values[i] += values[i + width];
            }
        }
        values[0]
    }

    /// The largest value.
    #[inline(always)]
    unsafe fn largest(v: Self::V) -> f32 {
        let mut values = [f32::NEG_INFINITY; MAX_LANES];
        // SAFETY: `values` has room for a vector.
        unsafe { Self::store(values.as_mut_ptr(), v) };
        values.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

/// Work that is compiled once for every instruction set.
pub(crate) trait Kernel {
    /// What the work gives.
    type Output;

    /// Does the work. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The processor has the instructions of `S`.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Plain Rust, for processors without the other sets; four lanes fit the vectors that every x86-64
/// and ARM64 processor has.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

macro_rules! lanes {
    (|$i:ident| $value:expr) => {{
        let mut lanes = [0f32; 4];
        for $i in 0..4 {
            lanes[$i] = $value;
        }
        lanes
    }};
}

impl Simd for Portable {
    type V = [f32; 4];
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: the caller's promise; an unaligned read.
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: the caller's promise; an unaligned write.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self::V {
        // SAFETY: the caller's promise.
        let bits = unsafe { p.cast::<[u16; 4]>().read_unaligned() };
        lanes!(|i| f32::from_bits(u32::from(bits[i]) << 16))
    }
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: Self::V) {
        let bits = v.map(|x| half::bf16::from_f32(x).to_bits());
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[u16; 4]>().write_unaligned(bits) }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { p.cast::<[u8; 4]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        lanes!(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // One instruction on ARM64; elsewhere a call of a function, unless it is two.
        if cfg!(target_arch = "aarch64") {
            return lanes!(|i| a[i].mul_add(b[i], c[i]));
        }
        lanes!(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn if_less(a: Self::V, b: Self::V, x: Self::V, y: Self::V) -> Self::V {
        lanes!(|i| if a[i] < b[i] { x[i] } else { y[i] })
    }
    #[inline(always)]
    unsafe fn power_of_two(n: Self::V) -> Self::V {
        lanes!(|i| f32::from_bits(((n[i] as i32 + 127) << 23) as u32))
    }
}
