//! Attention of one sequence whose runs of tokens have norms of their own: text and pictures of MMDiT
//! (Esser et al., arXiv 2403.03206).

use candle_core::{Result, Tensor};

use super::super::activation::Activation;
use super::super::norm;
use super::{Options, Rotation, cuda, forward};

/// Tokens behind each other: `q`, `k` and `v` are `(n, h, d)`, any strides, and not normalised.
pub(crate) struct Run<'a> {
    pub(crate) q: &'a Tensor,
    pub(crate) k: &'a Tensor,
    pub(crate) v: &'a Tensor,
    /// Of queries and of keys.
    pub(crate) norms: (&'a norm::Weights, &'a norm::Weights),
}

/// Attention over all tokens of at least one run, `(1, n, h d)`. `rotation` is that of all of them;
/// `options` has no norms and no windows.
pub(crate) fn forward_joint(
    runs: &[Run<'_>],
    options: &Options,
    rotation: Option<&Rotation>,
) -> Result<Tensor> {
    let (_, heads, d) = match runs {
        [first, ..] if options.norms.is_none() && options.windows.is_none() => first.q.dims3()?,
        _ => candle_core::bail!("joint attention of {} runs, with norms or windows", runs.len()),
    };
    for Run { q, k, v, norms } in runs {
        let shape = [q.dims()[0], heads, d];
        let norms = norms.0.width() == d && norms.1.width() == d;
        if !norms || [q, k, v].iter().any(|x| x.dims() != shape || x.dtype() != runs[0].q.dtype()) {
            candle_core::bail!("a run of {:?}, {:?} and {:?}", q.dims(), k.dims(), v.dims());
        }
    }
    let n = runs.iter().map(|run| run.q.dims()[0]).sum::<usize>();
    let turns = rotation.is_none_or(|r| r.prefix == 0 && r.sin.dims() == [n, d]);
    if cuda::takes_heads(runs[0].q, d) && turns {
        let scale = match options.scale[..] {
            [one] => vec![one; heads],
            _ => options.scale.clone(),
        };
        return cuda::joint(runs, options, &scale, rotation);
    }
    let normed =
        |x: &Tensor, weights: &norm::Weights| norm::forward(x, weights, Activation::Identity, None);
    let join = |part: &dyn Fn(&Run<'_>) -> Result<Tensor>| {
        let parts = runs.iter().map(part).collect::<Result<Vec<_>>>()?;
        Tensor::cat(&parts, 0)?.transpose(0, 1)?.unsqueeze(0)
    };
    let q = join(&|run| normed(run.q, run.norms.0))?;
    let k = join(&|run| normed(run.k, run.norms.1))?;
    let v = join(&|run| Ok(run.v.clone()))?;
    forward(&q, &k, &v, options, rotation)
}
