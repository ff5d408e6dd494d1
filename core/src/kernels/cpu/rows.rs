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

    /// Asks for the memory of `count` values from `start` on, which need not be there: a hint.
    #[inline(always)]
    pub(crate) unsafe fn fetch<S: Simd>(&self, start: usize, count: usize) {
        let (values, size): (*const u8, usize) = match self {
            Self::F32(values) => (values.as_ptr().cast(), 4),
            Self::Bf16(values) => (values.as_ptr().cast(), 2),
            Self::U8(values) => (values.as_ptr(), 1),
        };
        for at in (0..count * size).step_by(64) {
            // SAFETY: any address may be asked for.
            unsafe { S::fetch(values.wrapping_add(start * size + at)) };
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
                    let values = values.as_ptr().add(start);
                    for i in (0..whole).step_by(S::LANES) {
                        S::store(out.add(i), S::load(values.add(i)));
                    }
                    for i in whole..count {
                        *out.add(i) = *values.add(i);
                    }
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

impl Sink {
    /// Stores the first `count` values of two vectors from `start` on.
    ///
    /// # Safety
    /// As for [`write`](Self::write).
    #[inline(always)]
    pub(crate) unsafe fn write_pair<S: Simd>(self, start: usize, pair: [S::V; 2], count: usize) {
        debug_assert!(start + count <= self.len());
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Self::F32(out, _) if count == 2 * S::LANES => {
                    S::store(out.add(start), pair[0]);
                    S::store(out.add(start + S::LANES), pair[1]);
                }
                Self::Bf16(out, _) if count == 2 * S::LANES => {
                    S::store_bf16_pair(out.add(start), pair[0], pair[1]);
                }
                _ => {
                    let whole = S::LANES.min(count);
                    self.write::<S>(start, pair[0], whole);
                    if count > whole {
                        self.write::<S>(start + whole, pair[1], count - whole);
                    }
                }
            }
        }
    }
}

/// A window that moves over a picture, as a convolution's does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Rows and columns of pixels that it shows.
    pub(crate) size: (usize, usize),
    /// How far it moves down and across.
    pub(crate) stride: (usize, usize),
    /// Rows of zeros above and below the picture.
    pub(crate) rows: (usize, usize),
    /// Columns of zeros left and right of the picture.
    pub(crate) columns: (usize, usize),
}

impl Window {
    /// Three by three pixels, around each of a picture.
    pub(crate) const AROUND: Self =
        Self { size: (3, 3), stride: (1, 1), rows: (1, 1), columns: (1, 1) };

    /// Patches next to each other; what does not fill a patch is left out.
    pub(crate) fn patches(size: (usize, usize)) -> Self {
        Self { size, stride: size, rows: (0, 0), columns: (0, 0) }
    }

    /// Whether there are zeros around the picture.
    pub(crate) fn is_padded(&self) -> bool {
        (self.rows, self.columns) != ((0, 0), (0, 0))
    }

    /// How often it fits over a picture: down and across.
    pub(crate) fn grid(&self, height: usize, width: usize) -> (usize, usize) {
        let count = |length: usize, size: usize, stride: usize| match length.checked_sub(size) {
            Some(rest) if stride > 0 => rest / stride + 1,
            _ => 0,
        };
        (
            count(self.rows.0 + height + self.rows.1, self.size.0, self.stride.0),
            count(self.columns.0 + width + self.columns.1, self.size.1, self.stride.1),
        )
    }
}

/// What a window shows of pictures `(b, height, width, channels)`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patches {
    /// Pixels in a column of the picture.
    pub(crate) height: usize,
    /// Pixels in a row of the picture.
    pub(crate) width: usize,
    /// Values of a pixel.
    pub(crate) channels: usize,
    /// Which pixels a patch has.
    pub(crate) window: Window,
}

impl Patches {
    /// Patches of one picture: down and across.
    pub(crate) fn grid(&self) -> (usize, usize) {
        self.window.grid(self.height, self.width)
    }

    /// Reads patch `index`, counted through all pictures: rows of pixels, zeros where there is none.
    ///
    /// # Safety
    /// There is such a patch in `values`, `out` has room for it, and the processor has the
    /// instructions of `S`.
    #[inline(always)]
    pub(crate) unsafe fn read<S: Simd>(&self, values: &Values<'_>, index: usize, out: *mut f32) {
        let (down, across) = self.grid();
        let (picture, patch) = (index / (down * across), index % (down * across));
        let Window { size, stride, rows, columns } = self.window;
        let (y, x) = (patch / across * stride.0, patch % across * stride.1);
        // The columns of the window that lie inside the picture, which are the same in all rows.
        let first = columns.0.saturating_sub(x).min(size.1);
        let last = (columns.0 + self.width).saturating_sub(x).clamp(first, size.1);
        let length = size.1 * self.channels;
        for i in 0..size.0 {
            let inside = (rows.0..rows.0 + self.height).contains(&(y + i)) && first < last;
            // SAFETY: the caller's promise; `first..last` are columns of the picture in the window.
            unsafe {
                let out = out.add(i * length);
                if !inside {
                    std::ptr::write_bytes(out, 0, length);
                    continue;
                }
                let (start, end) = (first * self.channels, last * self.channels);
                std::ptr::write_bytes(out, 0, start);
                std::ptr::write_bytes(out.add(end), 0, length - end);
                let row = picture * self.height + y + i - rows.0;
                let pixel = row * self.width + x + first - columns.0;
                values.read::<S>(pixel * self.channels, end - start, out.add(start));
            }
        }
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
