//! The depthwise convolution for `f32`: output rows are shared between threads, and every output
//! pixel is a sum of products of neighbouring channel vectors.

use rayon::prelude::*;

/// Channels handled together: their sums stay in registers over the whole kernel window.
const LANES: usize = 32;

pub(super) fn forward(
    x: &[f32],
    (_, height, width, channels): (usize, usize, usize, usize),
    weight: &[f32],
    side: usize,
    bias: &[f32],
) -> Vec<f32> {
    let mut out = vec![0f32; x.len()];
    let row_length = width * channels;
    if out.is_empty() {
        return out;
    }
    let image = height * row_length;
    out.par_chunks_mut(row_length).enumerate().for_each(|(row, out)| {
        let (entry, y) = (row / height, row % height);
        let x = &x[entry * image..(entry + 1) * image];
        let window = Window { x, weight, side, y, height, width, channels };
        for (column, out) in out.chunks_exact_mut(channels).enumerate() {
            out.copy_from_slice(bias);
            window.add(column, out);
        }
    });
    out
}

struct Window<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    side: usize,
    y: usize,
    height: usize,
    width: usize,
    channels: usize,
}

impl Window<'_> {
    /// Adds the products of the window around `column` of this row to `out`.
    fn add(&self, column: usize, out: &mut [f32]) {
        let half = self.side / 2;
        // The part of the kernel that lies inside the picture; the rest meets zeros.
        let rows = half.saturating_sub(self.y)..self.side.min(self.height + half - self.y);
        let columns = half.saturating_sub(column)..self.side.min(self.width + half - column);
        for start in (0..self.channels).step_by(LANES) {
            let lanes = LANES.min(self.channels - start);
            let out = &mut out[start..start + lanes];
            let mut sums = [0f32; LANES];
            for i in rows.clone() {
                for j in columns.clone() {
                    let pixel = (self.y + i - half) * self.width + column + j - half;
                    let x = &self.x[pixel * self.channels + start..][..lanes];
                    let weight =
                        &self.weight[(i * self.side + j) * self.channels + start..][..lanes];
                    for ((sum, x), weight) in sums.iter_mut().zip(x).zip(weight) {
                        *sum += x * weight;
                    }
                }
            }
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
        }
    }
}
