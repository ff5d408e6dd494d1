//! Normalisation on the CPU, a few rows for each task.

use rayon::prelude::*;

use super::super::activation::{Activation, cpu::apply_to};
use super::super::cpu::{Isa, Kernel, NormArgs, Simd, Sink, Values, run};
use super::super::host;

/// One call: `activation(norm(x)) + residual`.
pub(super) struct Call<'a> {
    /// Rows of the weight's length.
    pub(super) x: Values<'a>,
    pub(super) norm: &'a NormArgs<'a>,
    pub(super) activation: Activation,
    /// As many values as `x`.
    pub(super) residual: Option<Values<'a>>,
    /// Room for as many.
    pub(super) out: Sink,
}

impl Call<'_> {
    /// Computes all rows on all threads.
    pub(super) fn run(&self, isa: Isa) {
        let (x, width) = (self.x, self.norm.weight.len());
        if width == 0 {
            return;
        }
        assert!(self.residual.is_none_or(|residual| residual.len() == x.len()));
        assert!(self.out.len() == x.len() && self.norm.bias.len() == width);
        assert!(x.len().is_multiple_of(width));
        let rows = x.len() / width;
        let each = host::rows_per_task(rows, width);
        (0..rows.div_ceil(each)).into_par_iter().for_each(|task| {
            let rows = task * each..rows.min((task + 1) * each);
            run(isa, Rows { call: self, rows });
        });
    }
}

struct Rows<'a> {
    call: &'a Call<'a>,
    rows: std::ops::Range<usize>,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Call { x, norm, activation, residual, out } = self.call;
        let width = norm.weight.len();
        let padded = width.next_multiple_of(S::LANES);
        let mut buffer = vec![0f32; 2 * padded];
        let (row, other) = buffer.split_at_mut(padded);
        for index in self.rows {
            // SAFETY: rows below the number of rows; both buffers hold one.
            unsafe {
                x.read::<S>(index * width, width, row.as_mut_ptr());
                norm.apply::<S>(row.as_mut_ptr());
                apply_to::<S>(*activation, row.as_mut_ptr(), padded);
                if let Some(residual) = residual {
                    residual.read::<S>(index * width, width, other.as_mut_ptr());
                }
                for at in (0..width).step_by(S::LANES) {
                    let mut v = S::load(row.as_ptr().add(at));
                    if residual.is_some() {
                        v = S::add(v, S::load(other.as_ptr().add(at)));
                    }
                    out.write::<S>(index * width + at, v, S::LANES.min(width - at));
                }
            }
        }
    }
}
