//! The depthwise convolution on the CPU: a band of rows and a group of channels at a time, copied
//! with its border of zeros to where the innermost loop reads it without a test for the edges.

use rayon::prelude::*;

use super::super::cpu::{Isa, Kernel, MAX_LANES, Simd, Sink, Values, run, with_lines};

/// Channels of a group: two of the widest vectors.
const GROUP: usize = 2 * MAX_LANES;
/// Neighbouring results that are summed in registers together.
const TILE: usize = 7;
/// Lines of the copy that a task works on; it should stay in the second-level cache.
const BAND_LINES: usize = 4 * 1024;

/// One call: `x` is `(b, height, width, channels)`, `weight` `(side, side, channels)`.
pub(super) struct Call<'a> {
    pub(super) isa: Isa,
    pub(super) x: Values<'a>,
    pub(super) dims: (usize, usize, usize, usize),
    pub(super) weight: &'a [f32],
    pub(super) side: usize,
    pub(super) bias: &'a [f32],
    pub(super) out: Sink,
}

impl Call<'_> {
    /// Computes the result on all threads.
    pub(super) fn run(&self) {
        let (b, height, width, channels) = self.dims;
        let count = b * height * width * channels;
        assert!(self.x.len() == count && self.out.len() == count);
        assert!(self.weight.len() == self.side * self.side * channels);
        assert!(self.bias.len() == channels && self.side % 2 == 1);
        if count == 0 {
            return;
        }
        let groups = channels.div_ceil(GROUP);
        let padded = width.next_multiple_of(TILE) + self.side - 1;
        let row_lines = padded * GROUP / MAX_LANES;
        let rows = (BAND_LINES / row_lines).saturating_sub(self.side - 1).clamp(1, height);
        let bands = height.div_ceil(rows);
        let weight_lines = self.side * self.side * GROUP / MAX_LANES;
        (0..b * bands * groups).into_par_iter().for_each(|task| {
            let (entry, band, group) =
                (task / (bands * groups), task / groups % bands, task % groups);
            let band = band * rows..height.min((band + 1) * rows);
            let lines = weight_lines + (band.len() + self.side - 1) * row_lines;
            with_lines(lines, |lines| {
                let (weight, copy) = lines.split_at_mut(weight_lines);
                let (weight, copy) = (weight.as_mut_ptr().cast(), copy.as_mut_ptr().cast());
                run(self.isa, Band { call: self, entry, band, group, padded, weight, copy });
            });
        });
    }
}

/// A band of rows of a group of channels.
struct Band<'a> {
    call: &'a Call<'a>,
    entry: usize,
    band: std::ops::Range<usize>,
    group: usize,
    /// Pixels in a row of the copy.
    padded: usize,
    weight: *mut f32,
    copy: *mut f32,
}

impl Kernel for Band<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let (_, height, width, channels) = self.call.dims;
        let (side, half) = (self.call.side, self.call.side / 2);
        let start = self.group * GROUP;
        let count = GROUP.min(channels - start);
        // SAFETY: `copy` has a row of `padded` pixels for every row of the band and of the border,
        // `weight` a group for every place of the kernel; pixels are below `height` and `width`.
        unsafe {
            for place in 0..side * side {
                let to = self.weight.add(place * GROUP);
                std::ptr::write_bytes(to, 0, GROUP);
                let from = self.call.weight.as_ptr().add(place * channels + start);
                std::ptr::copy_nonoverlapping(from, to, count);
            }
            for row in 0..self.band.len() + side - 1 {
                let to = self.copy.add(row * self.padded * GROUP);
                std::ptr::write_bytes(to, 0, self.padded * GROUP);
                let y = self.band.start + row;
                if (half..height + half).contains(&y) {
                    let first = (self.entry * height + y - half) * width;
                    for x in 0..width {
                        let from = (first + x) * channels + start;
                        self.call.x.read::<S>(from, count, to.add((half + x) * GROUP));
                    }
                }
            }
            let mut bias = [0f32; GROUP];
            bias[..count].copy_from_slice(&self.call.bias[start..start + count]);
            for y in self.band.clone() {
                for x in (0..width).step_by(TILE) {
                    for part in (0..count).step_by(2 * S::LANES) {
                        let row = y - self.band.start;
                        let from = self.copy.add((row * self.padded + x) * GROUP + part);
                        let sums = self.sums::<S>(from, part, bias.as_ptr());
                        for (i, sums) in sums.iter().enumerate().take(width - x) {
                            let pixel = (self.entry * height + y) * width + x + i;
                            for (half, sum) in sums.iter().enumerate() {
                                let at = part + half * S::LANES;
                                if at < count {
                                    let to = pixel * channels + start + at;
                                    self.call.out.write::<S>(to, *sum, S::LANES.min(count - at));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Band<'_> {
    /// `TILE` neighbouring results of two vectors of channels; `from` is the corner of the first
    /// one's window.
    #[inline(always)]
    unsafe fn sums<S: Simd>(
        &self,
        from: *const f32,
        part: usize,
        bias: *const f32,
    ) -> [[S::V; 2]; TILE] {
        // SAFETY: see `run`: the rows are padded to whole tiles and the border.
        unsafe {
            let bias = [S::load(bias.add(part)), S::load(bias.add(part + S::LANES))];
            let mut sums = [bias; TILE];
            for i in 0..self.call.side {
                let row = from.add(i * self.padded * GROUP);
                for j in 0..self.call.side {
                    let weight = self.weight.add((i * self.call.side + j) * GROUP + part);
                    let weights = [S::load(weight), S::load(weight.add(S::LANES))];
                    for (tile, sums) in sums.iter_mut().enumerate() {
                        let x = row.add((j + tile) * GROUP);
                        sums[0] = S::mul_add(S::load(x), weights[0], sums[0]);
                        sums[1] = S::mul_add(S::load(x.add(S::LANES)), weights[1], sums[1]);
                    }
                }
            }
            sums
        }
    }
}
