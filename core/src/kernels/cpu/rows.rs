//! Rows of numbers as the kernels read them: of any type, dense or cut out of pictures, and
//! normalised on the way.

use super::simd::Simd;

/// Values in memory.
#[derive(Clone, Copy)]
pub(crate) enum Values<'a> {
    /// 32-bit floating point.
    F32(&'a [f32]),
    /// Bits of bfloat16.
    Bf16(&'a [u16]),
    /// Bytes.
    U8(&'a [u8]),
}

impl Values<'_> {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::U8(values) => values.len(),
        }
    }

    /// Widens `count` values from `start` on.
    ///
    /// # Safety
    /// The values are there, `out` has room for them, and the processor has the instructions of `S`.
    #[inline(always)]
    pub(crate) unsafe fn read<S: Simd>(&self, start: usize, count: usize, out: *mut f32) {
        debug_assert!(start + count <= self.len());
        let whole = count - count % S::LANES;
        // SAFETY: the caller's promise; all accesses are below `count`.
        unsafe {
            match self {
                Self::F32(values) => {
                    std::ptr::copy_nonoverlapping(values.as_ptr().add(start), out, count);
                }
                Self::Bf16(values) => {
                    let values = values.as_ptr().add(start);
                    for i in (0..whole).step_by(S::LANES) {
                        S::store(out.add(i), S::load_bf16(values.add(i)));
                    }
                    for i in whole..count {
                        *out.add(i) = f32::from_bits(u32::from(*values.add(i)) << 16);
                    }
                }
                Self::U8(values) => {
                    let values = values.as_ptr().add(start);
                    for i in (0..whole).step_by(S::LANES) {
                        S::store(out.add(i), S::load_u8(values.add(i)));
                    }
                    for i in whole..count {
                        *out.add(i) = f32::from(*values.add(i));
                    }
                }
            }
        }
    }
}

/// Where results go. Threads write different parts of it.
#[derive(Clone, Copy)]
pub(crate) enum Sink {
    /// 32-bit floating point: where, and for how many values there is room.
    F32(*mut f32, usize),
    /// Bits of bfloat16, likewise.
    Bf16(*mut u16, usize),
}

// SAFETY: a plain address; whoever writes through it promises to write a part of their own.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

impl Sink {
    /// For how many values there is room.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(_, len) | Self::Bf16(_, len) => len,
        }
    }

    /// Stores the first `count` values of a vector from `start` on.
    ///
    /// # Safety
    /// The place is valid and nobody else's, and the processor has the instructions of `S`.
    #[inline(always)]
    pub(crate) unsafe fn write<S: Simd>(self, start: usize, v: S::V, count: usize) {
        debug_assert!(start + count <= self.len());
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(out, _) if count >= S::LANES => S::store(out.add(start), v),
                Self::F32(out, _) => S::store_part(out.add(start), v, count),
                Self::Bf16(out, _) if count >= S::LANES => S::store_bf16(out.add(start), v),
                Self::Bf16(out, _) => {
                    let mut bits = [0u16; super::MAX_LANES];
                    S::store_bf16(bits.as_mut_ptr(), v);
                    std::ptr::copy_nonoverlapping(bits.as_ptr(), out.add(start), count);
                }
            }
        }
    }
}

/// Patches of pictures `(b, height, width, channels)`: `(rows, columns)` pixels each, next to each
/// other; what does not fill a patch is left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patches {
    /// Pixels in a column of the picture.
    pub(crate) height: usize,
    /// Pixels in a row of the picture.
    pub(crate) width: usize,
    /// Values of a pixel.
    pub(crate) channels: usize,
    /// Rows and columns of a patch.
    pub(crate) size: (usize, usize),
}

impl Patches {
    /// Patches of one picture: down and across.
    pub(crate) fn grid(&self) -> (usize, usize) {
        (self.height / self.size.0, self.width / self.size.1)
    }
}

/// Normalisation of groups of values; see `kernels::norm`.
#[derive(Clone, Copy)]
pub(crate) struct NormArgs<'a> {
    /// Whether the mean is subtracted.
    pub(crate) centred: bool,
    /// The factors of one group.
    pub(crate) weight: &'a [f32],
    /// What is added; as many.
    pub(crate) bias: &'a [f32],
    /// Added to the variance.
    pub(crate) eps: f32,
}

impl NormArgs<'_> {
    /// Normalises `values` of the length of the weight in place.
    ///
    /// # Safety
    /// The values are there, and the processor has the instructions of `S`.
    #[inline(always)]
    pub(crate) unsafe fn apply<S: Simd>(&self, values: *mut f32) {
        let width = self.weight.len();
        let whole = width - width % S::LANES;
        let rest = width - whole;
        // SAFETY: the caller's promise; all accesses are below `width`. Lanes past the end are
        // loaded as zeros, and taken back to zero before they are summed.
        unsafe {
            let count = width as f32;
            let mut mean = 0.0;
            if self.centred {
                let mut sums = S::splat(0.0);
                for i in (0..whole).step_by(S::LANES) {
                    sums = S::add(sums, S::load(values.add(i)));
                }
                if rest > 0 {
                    sums = S::add(sums, S::load_part(values.add(whole), rest));
                }
                mean = S::sum(sums) / count;
            }
            let means = S::splat(mean);
            let mut squares = S::splat(0.0);
            for i in (0..whole).step_by(S::LANES) {
                let x = S::sub(S::load(values.add(i)), means);
                squares = S::mul_add(x, x, squares);
            }
            let mut sum = S::sum(squares);
            for i in whole..width {
                let x = *values.add(i) - mean;
                sum += x * x;
            }
            let scale = S::splat(1.0 / (sum / count + self.eps).sqrt());
            let (weight, bias) = (self.weight.as_ptr(), self.bias.as_ptr());
            for i in (0..whole).step_by(S::LANES) {
                let x = S::mul(S::sub(S::load(values.add(i)), means), scale);
                S::store(
                    values.add(i),
                    S::mul_add(x, S::load(weight.add(i)), S::load(bias.add(i))),
                );
            }
            if rest > 0 {
                let at = values.add(whole);
                let x = S::mul(S::sub(S::load_part(at, rest), means), scale);
                let (w, b) =
                    (S::load_part(weight.add(whole), rest), S::load_part(bias.add(whole), rest));
                S::store_part(at, S::mul_add(x, w, b), rest);
            }
        }
    }
}
