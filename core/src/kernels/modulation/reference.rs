//! The definition of modulation, run by run. On the CPU the norm is the one of `norm/`.

use candle_core::{DType, Result, Tensor};

use super::super::activation::Activation;
use super::super::norm::{self, Kind};
use super::{Gated, Shifted};

pub(super) fn modulate(x: &Tensor, runs: &[Shifted], eps: f64) -> Result<Tensor> {
    let mut start = 0;
    let mut parts = Vec::with_capacity(runs.len());
    for Shifted { rows, shift, scale } in runs {
        // A norm with weight `1 + scale` and bias `shift` is what modulation of a norm without them is.
        let weight = (scale.to_dtype(DType::F32)? + 1.0)?;
        let weights = norm::Weights::new(Kind::Layer, &weight, shift, eps)?;
        let x = x.narrow(0, start, *rows)?;
        parts.push(norm::forward(&x, &weights, Activation::Identity, None)?);
        start += rows;
    }
    join(parts)
}

pub(super) fn add_gated(x: &Tensor, y: &Tensor, runs: &[Gated]) -> Result<Tensor> {
    let mut start = 0;
    let mut parts = Vec::with_capacity(runs.len());
    for Gated { rows, gate } in runs {
        let gated = y.narrow(0, start, *rows)?.broadcast_mul(gate)?;
        parts.push((x.narrow(0, start, *rows)? + gated)?);
        start += rows;
    }
    join(parts)
}

fn join(mut parts: Vec<Tensor>) -> Result<Tensor> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Tensor::cat(&parts, 0),
    }
}
