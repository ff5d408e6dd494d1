//! Adaptive layer norm (Peebles and Xie, arXiv 2212.09748): rows `(n, c)` whose shift, scale and gate
//! differ between runs of them. Vectors are `(c)`, of the type of the rows.

mod cuda;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{Result, Tensor};

/// Rows of one shift and scale.
pub(crate) struct Shifted {
    pub(crate) rows: usize,
    pub(crate) shift: Tensor,
    pub(crate) scale: Tensor,
}

/// Rows of one gate.
pub(crate) struct Gated {
    pub(crate) rows: usize,
    pub(crate) gate: Tensor,
}

/// `norm(x) (1 + scale) + shift` of every row; the norm has no weights.
pub(crate) fn modulate(x: &Tensor, runs: &[Shifted], eps: f64) -> Result<Tensor> {
    let width = x.dims2()?.1;
    let fits = |run: &Shifted| [&run.shift, &run.scale].into_iter().all(|v| is_for(v, x, width));
    check(x, runs.iter().map(|run| run.rows), runs.iter().all(fits))?;
    if super::norm::cuda::takes(x, width) {
        return cuda::modulate(x, runs, eps);
    }
    reference::modulate(x, runs, eps)
}

/// `x + gate y` for every row.
pub(crate) fn add_gated(x: &Tensor, y: &Tensor, runs: &[Gated]) -> Result<Tensor> {
    let width = x.dims2()?.1;
    let fit = y.dims() == x.dims() && y.dtype() == x.dtype();
    let fits = |run: &Gated| is_for(&run.gate, x, width);
    check(x, runs.iter().map(|run| run.rows), fit && runs.iter().all(fits))?;
    if cuda::takes(x, width) {
        return cuda::add_gated(x, y, runs);
    }
    reference::add_gated(x, y, runs)
}

/// Whether a vector is one for rows of `x`: the kernels read both as one type.
fn is_for(vector: &Tensor, x: &Tensor, width: usize) -> bool {
    vector.dims() == [width] && vector.dtype() == x.dtype()
}

fn check(x: &Tensor, rows: impl Iterator<Item = usize>, fit: bool) -> Result<()> {
    if fit && rows.sum::<usize>() == x.dims()[0] {
        return Ok(());
    }
    candle_core::bail!("modulation of {:?} by vectors of other shapes, or of other rows", x.dims())
}
