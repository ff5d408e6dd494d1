//! Normalisation on the CPU, a few rows for each task.

use rayon::prelude::*;

use super::super::cpu::{Isa, Kernel, NormArgs, Simd, Sink, Values, run};
use super::super::host;

/// Normalises rows of the weight's length; `residual`, if any, has as many values as `x`, and `out`
/// room for as many.
pub(super) fn forward(
    isa: Isa,
    x: Values<'_>,
    norm: &NormArgs<'_>,
    residual: Option<Values<'_>>,
    out: Sink,
) {
    let width = norm.weight.len();
    if width == 0 {
        return;
    }
    assert!(residual.is_none_or(|residual| residual.len() == x.len()) && out.len() == x.len());
    assert!(x.len().is_multiple_of(width) && norm.bias.len() == width);
    let rows = x.len() / width;
    let each = host::rows_per_task(rows, width);
    (0..rows.div_ceil(each)).into_par_iter().for_each(|task| {
        let rows = task * each..rows.min((task + 1) * each);
        run(isa, Rows { x, norm, residual, out, rows });
    });
}

struct Rows<'a> {
    x: Values<'a>,
    norm: &'a NormArgs<'a>,
    residual: Option<Values<'a>>,
    out: Sink,
    rows: std::ops::Range<usize>,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let width = self.norm.weight.len();
        let padded = width.next_multiple_of(S::LANES);
        let mut buffer = vec![0f32; 2 * padded];
        let (row, other) = buffer.split_at_mut(padded);
        for index in self.rows {
            // SAFETY: rows below the number of rows; both buffers hold one.
            unsafe {
                self.x.read::<S>(index * width, width, row.as_mut_ptr());
                self.norm.apply::<S>(row.as_mut_ptr());
                if let Some(residual) = self.residual {
                    residual.read::<S>(index * width, width, other.as_mut_ptr());
                }
                for at in (0..width).step_by(S::LANES) {
                    let mut v = S::load(row.as_ptr().add(at));
                    if self.residual.is_some() {
                        v = S::add(v, S::load(other.as_ptr().add(at)));
                    }
                    self.out.write::<S>(index * width + at, v, S::LANES.min(width - at));
                }
            }
        }
    }
}
