//! Softmax attention, `softmax(scale q k^T + bias) v` for every batch entry and head.
//!
//! `q` is `(b, h, n, d)`, `k` and `v` are `(b, g, m, d)`; any strides, so a permuted view costs
//! nothing. `g` divides `h`: each head of keys and values serves `h / g` neighbouring heads of
//! queries. The result is `(b, n, h d)`, contiguous: what the output projection wants.
//!
//! Queries and keys may first be normalised over `d` and then rotated (rotary positions: `sin` and
//! `cos` are `(n - prefix, d)`, neighbouring values of a row are a pair; the first `prefix` tokens
//! stay). The scale may differ between heads.
//!
//! With windows, attention stays within groups of tokens: `tokens` is `(w, l)` and names for each
//! of `w` windows the `l` tokens in it, every token once. `bias` is `(h, l, l)` then, else
//! `(h, n, m)`. `regions` `(w, l)` separates tokens of a window further: 100 is taken from the score
//! of tokens in different regions, as Swin transformers do for what a shift made neighbours.
//!
//! Causal attention looks back only: the queries are the last `n` of the `m` tokens, and each of them
//! sees its own and those before it; in windows, in the order of the window.

mod cpu;
mod cuda;
mod joint;
mod reference;
#[cfg(test)]
mod tests;

use candle_core::{DType, Result, Tensor};

use super::cpu::NormArgs;
use super::host::{self, Held};
use super::norm;
#[cfg(feature = "gpu-check")]
pub(crate) use cuda::{flash_by, has_warpgroups};
pub(crate) use joint::{Run, forward_joint};

/// What is added to scores between regions.
const MASKED: f32 = -100.0;

/// Rotary positions of the tokens behind the first `prefix`.
pub(crate) struct Rotation {
    /// `(n - prefix, d)`.
    pub(crate) sin: Tensor,
    /// As `sin`.
    pub(crate) cos: Tensor,
    pub(crate) prefix: usize,
}

/// Groups of tokens that attend to each other only.
pub(crate) struct Windows {
    tokens: Tensor,
    /// Where the windows, behind each other, have each token.
    places: Tensor,
    regions: Option<Tensor>,
}

impl Windows {
    /// `tokens` is `(w, l)` as `u32` and names each of `w l` tokens once; `regions`, of the same
    /// shape, as `f32`: numbers of regions, where there is more than one.
    pub(crate) fn new(tokens: Tensor, regions: Option<Tensor>) -> Result<Self> {
        const NOWHERE: u32 = u32::MAX;
        let mut places = vec![NOWHERE; tokens.elem_count()];
        for (place, token) in (0..).zip(tokens.flatten_all()?.to_vec1::<u32>()?) {
            match places.get_mut(token as usize) {
                Some(of) if *of == NOWHERE => *of = place,
                _ => candle_core::bail!("token {token} is in two windows, or there is none"),
            }
        }
        tokens.dims2()?;
        let places = Tensor::new(places, tokens.device())?;
        Ok(Self { tokens: tokens.contiguous()?, places, regions })
    }
}

/// Everything but the tensors of one call.
#[derive(Default)]
pub(crate) struct Options {
    /// A factor for all heads, or one for each.
    pub(crate) scale: Vec<f32>,
    /// Of queries and of keys.
    pub(crate) norms: Option<(norm::Weights, norm::Weights)>,
    pub(crate) bias: Option<Tensor>,
    pub(crate) windows: Option<Windows>,
    /// Whether tokens see none behind them.
    pub(crate) causal: bool,
}

/// Attention of every batch entry and head; see the module for shapes.
pub(crate) fn forward(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    options: &Options,
    rotation: Option<&Rotation>,
) -> Result<Tensor> {
    check(q, k, v, options, rotation)?;
    let (b, heads, n, d) = q.dims4()?;
    let scale = match options.scale[..] {
        [one] => vec![one; heads],
        _ => options.scale.clone(),
    };
    if q.elem_count() == 0 || k.dim(2)? == 0 {
        return Tensor::zeros((b, n, heads * d), q.dtype(), q.device());
    }
    if super::cuda::takes(q) {
        return cuda::forward([q, k, v], options, &scale, rotation);
    }
    if !host::takes(q) {
        return reference::forward(q, k, v, options, &scale, rotation);
    }
    let rows_contiguous = |t: &Tensor| match t.stride().last() {
        Some(1) => Ok(t.clone()),
        _ => t.contiguous(),
    };
    let (q, k, v) = (rows_contiguous(q)?, rows_contiguous(k)?, rows_contiguous(v)?);
    let held = [Held::new(&q), Held::new(&k), Held::new(&v)];
    let views = [view(&held[0])?, view(&held[1])?, view(&held[2])?];
    let norms = options.norms.as_ref().map(|(q, k)| (q.hold(), k.hold()));
    let norms: Option<(NormArgs<'_>, NormArgs<'_>)> = match &norms {
        Some((q, k)) => Some((q.arguments()?, k.arguments()?)),
        None => None,
    };
    let tables = rotation.map(|r| (Held::new(&r.sin), Held::new(&r.cos), r.prefix));
    let rotation = match &tables {
        Some((sin, cos, prefix)) => {
            Some(cpu::Rotation { sin: sin.floats()?, cos: cos.floats()?, prefix: *prefix })
        }
        None => None,
    };
    let bias = options.bias.as_ref().map(Held::new);
    let tokens = options.windows.as_ref().map(|windows| Held::new(&windows.tokens));
    let regions =
        options.windows.as_ref().and_then(|windows| windows.regions.as_ref()).map(Held::new);
    let length = match &options.windows {
        Some(windows) => windows.tokens.dim(1)?,
        None => n,
    };
    let [q_view, k_view, v_view] = views;
    // A factor above one (Swin's go up to 100) multiplies the errors of split operands too.
    let exact = q.dtype() == DType::F32 && scale.iter().any(|scale| *scale > 1.0);
    // SAFETY: the implementation writes the row of every token; windows name each of them once.
    unsafe {
        host::filled(q.dtype(), (b, n, heads * d), |out| {
            cpu::Call {
                isa: host::isa()?,
                format: host::format(q.dtype()),
                exact,
                q: q_view,
                k: k_view,
                v: v_view,
                scale: &scale,
                norms,
                rotation,
                bias: bias.as_ref().map(Held::floats).transpose()?,
                windows: tokens.as_ref().map(Held::indices).transpose()?,
                length,
                regions: regions.as_ref().map(Held::floats).transpose()?,
                causal: options.causal,
                out,
            }
            .run();
            Ok(())
        })
    }
}

fn view<'a>(held: &'a Held<'_>) -> Result<cpu::View<'a>> {
    let layout = held.layout();
    let (b, h, n, d) = layout.shape().dims4()?;
    let strides = <[usize; 4]>::try_from(layout.stride());
    strides
        .ok()
        .and_then(|strides| {
            let values = held.all().ok()?;
            cpu::View::new(values, [b, h, n, d], strides, layout.start_offset())
        })
        .ok_or_else(|| candle_core::Error::Msg("a view reaches past its values".into()))
}

fn check(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    options: &Options,
    rotation: Option<&Rotation>,
) -> Result<()> {
    let (b, h, n, d) = q.dims4()?;
    let (kb, kh, m, kd) = k.dims4()?;
    let mut fits = (kb, kd) == (b, d) && h.is_multiple_of(kh) && v.dims() == k.dims();
    fits &= n <= m || !options.causal;
    fits &= q.dtype() == k.dtype() && k.dtype() == v.dtype();
    fits &= options.scale.len() == 1 || options.scale.len() == h;
    if let Some((q, k)) = &options.norms {
        fits &= q.width() == d && k.width() == d;
    }
    if let Some(rotation) = rotation {
        let shape = [n.saturating_sub(rotation.prefix), d];
        fits &= rotation.sin.dims() == shape && rotation.cos.dims() == shape;
        fits &= n == m && rotation.prefix <= n && d.is_multiple_of(2);
    }
    let mut scores = [n, m];
    if let Some(windows) = &options.windows {
        let (count, length) = windows.tokens.dims2()?;
        scores = [length, length];
        fits &= n == m && count * length == n;
        fits &= windows.regions.as_ref().is_none_or(|r| r.dims() == windows.tokens.dims());
    }
    if let Some(bias) = &options.bias {
        fits &= bias.dims() == [h, scores[0], scores[1]];
    }
    if fits {
        return Ok(());
    }
    candle_core::bail!(
        "attention of q {:?}, k {:?}, v {:?}, {} scales, bias {:?}, windows {:?}, causal {}",
        q.dims(),
        k.dims(),
        v.dims(),
        options.scale.len(),
        options.bias.as_ref().map(Tensor::dims),
        options.windows.as_ref().map(|windows| windows.tokens.dims()),
        options.causal
    )
}
