//! Modulation: what the time of a step does to every block (adaptive layer norm; Peebles and Xie,
//! arXiv 2212.09748).
//!
//! Shift, scale and gate depend on the time only, not on prompts or pictures. They are computed once
//! for all steps of a schedule, layer by layer, so that the weights that make them, a third of the
//! published networks, are never all in memory and need not stay.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};

use super::config::TransformerConfig;
use super::layout::Layout;
use crate::device::classify;
use crate::error;
use crate::kernels::activation::Activation;
use crate::kernels::modulation::{self, Gated, Shifted};
use crate::nn::Linear;
use crate::weights::Scope;

/// Values of the sinusoidal embedding of a time.
const FREQUENCIES: usize = 256;
/// Of all layer norms of the transformer.
const EPS: f64 = 1e-6;

/// The vectors of one stream: for each block `(6, c)`, shift, scale and gate of attention and then of
/// the feed-forward layer.
pub(super) struct Vectors(Vec<Tensor>);

/// What one time does to the network. Clones share their values.
#[derive(Clone)]
pub(crate) struct Modulation {
    image: Arc<Vectors>,
    /// For tokens of reference pictures: those of time 0 where the network is built so.
    reference: Arc<Vectors>,
    text: Arc<Vectors>,
    /// `(2, c)`: scale and shift before the last layer. This order is the opposite of the blocks'.
    out: Tensor,
}

impl Modulation {
    /// Whether a checkpoint's tensor is one that [`schedule`](Self::schedule) reads, and no network
    /// keeps.
    pub(crate) fn takes(name: &str) -> bool {
        name.contains(".img_mod.")
            || name.contains(".txt_mod.")
            || name.starts_with("time_text_embed.")
            || name.starts_with("norm_out.")
    }

    /// Fails if a tensor that [`schedule`](Self::schedule) will read is not there or of another shape;
    /// nothing is read.
    pub(crate) fn expect(config: &TransformerConfig, scope: &Scope) -> error::Result<()> {
        let width = config.width();
        let layer = |name: &str, k: usize, n: usize| {
            scope.at(name).expect((n, k), "weight")?;
            scope.at(name).expect(n, "bias")
        };
        layer("time_text_embed.timestep_embedder.linear_1", FREQUENCIES, width)?;
        layer("time_text_embed.timestep_embedder.linear_2", width, width)?;
        layer("norm_out.linear", width, 2 * width)?;
        for block in 0..config.num_layers {
            for name in ["img_mod", "txt_mod"] {
                layer(&format!("transformer_blocks.{block}.{name}.1"), width, 6 * width)?;
            }
        }
        Ok(())
    }

    /// For each of `timesteps` (1 is noise, 0 the picture), with the weights of the whole network.
    pub(crate) fn schedule(
        config: &TransformerConfig,
        scope: &Scope,
        timesteps: &[f32],
    ) -> error::Result<Vec<Self>> {
        if timesteps.is_empty() {
            return Ok(Vec::new());
        }
        let width = config.width();
        let failed = |e| classify(e, "cannot compute the modulation");
        let mut times = timesteps.to_vec();
        times.extend(config.zero_cond_t.then_some(0.0));
        let embedder = scope.at("time_text_embed.timestep_embedder");
        let first = Linear::load(&embedder.at("linear_1"), FREQUENCIES, width, true)?;
        let first = first.then(Activation::Silu);
        // Every layer behind it takes the SiLU of its result, so it is applied here.
        let second = Linear::load(&embedder.at("linear_2"), width, width, true)?;
        let second = second.then(Activation::Silu);
        let embedded = embed(&times, scope)
            .and_then(|sines| second.forward(&first.forward(&sines)?))
            .map_err(failed)?;
        let steps = embedded.narrow(0, 0, timesteps.len()).map_err(failed)?;
        let vectors = |name: String, rows: &Tensor, parts: usize| -> error::Result<Vec<Tensor>> {
            let layer = Linear::load(&scope.at(name), width, parts * width, true)?;
            let all = layer
                .forward(rows)
                .and_then(|all| all.reshape((rows.dim(0)?, parts, width)))
                .map_err(failed)?;
            (0..all.dims()[0]).map(|i| all.get(i).map_err(failed)).collect()
        };
        let mut image: Vec<_> = times.iter().map(|_| Vectors(Vec::new())).collect();
        let mut text: Vec<_> = timesteps.iter().map(|_| Vectors(Vec::new())).collect();
        for block in 0..config.num_layers {
            let block = format!("transformer_blocks.{block}");
            for (stream, rows, name) in
                [(&mut image, &embedded, "img_mod"), (&mut text, &steps, "txt_mod")]
            {
                let all = vectors(format!("{block}.{name}.1"), rows, 6)?;
                stream.iter_mut().zip(all).for_each(|(time, vectors)| time.0.push(vectors));
            }
        }
        let out = vectors("norm_out.linear".to_owned(), &steps, 2)?;
        let mut image: Vec<_> = image.into_iter().map(Arc::new).collect();
        let zero = if config.zero_cond_t { image.pop() } else { None };
        Ok(image
            .into_iter()
            .zip(text)
            .zip(out)
            .map(|((image, text), out)| Self {
                reference: zero.clone().unwrap_or_else(|| image.clone()),
                image,
                text: Arc::new(text),
                out,
            })
            .collect())
    }
}

/// The sinusoidal embedding of times, `(t, 256)`: first cosines, then sines, of
/// `1000 t / 10000^(i / 128)`.
///
/// Times are rounded to the type of the network, as the reference does; all else is in `f32`.
fn embed(times: &[f32], scope: &Scope) -> Result<Tensor> {
    let half = FREQUENCIES / 2;
    let exponent = -(10_000f64.ln()) as f32;
    let frequencies: Vec<f32> =
        (0..half).map(|i| f64::from(exponent * i as f32 / half as f32).exp() as f32).collect();
    let dtype = scope.dtype();
    let times = Tensor::new(times, &Device::Cpu)?.to_dtype(dtype)?.to_dtype(DType::F32)?;
    let times = times.to_vec1::<f32>()?;
    let mut angles = Vec::with_capacity(times.len() * half);
    for time in &times {
        angles.extend(frequencies.iter().map(|frequency| 1000.0 * (time * frequency)));
    }
    let angles = Tensor::from_vec(angles, (times.len(), half), &Device::Cpu)?;
    Tensor::cat(&[angles.cos()?, angles.sin()?], 1)?.to_dtype(dtype)?.to_device(scope.device())
}

/// Which of a block's two halves a vector is for.
#[derive(Clone, Copy)]
pub(super) enum Half {
    Attention,
    FeedForward,
}

/// A run of tokens that are modulated alike.
struct Segment {
    rows: usize,
    vectors: Arc<Vectors>,
}

/// How the tokens of one stream of a batch are modulated.
pub(super) struct Stream(Vec<Segment>);

impl Stream {
    fn new(segments: impl IntoIterator<Item = (usize, Arc<Vectors>)>) -> Self {
        let mut joined: Vec<Segment> = Vec::new();
        for (rows, vectors) in segments.into_iter().filter(|(rows, _)| *rows > 0) {
            match joined.last_mut() {
                Some(last) if Arc::ptr_eq(&last.vectors, &vectors) => last.rows += rows,
                _ => joined.push(Segment { rows, vectors }),
            }
        }
        Self(joined)
    }

    /// `norm(x) (1 + scale) + shift` for every token.
    pub(super) fn modulate(&self, x: &Tensor, block: usize, half: Half) -> Result<Tensor> {
        let run = |segment: &Segment| {
            let vectors = segment.vectors.half(block, half)?;
            let (shift, scale) = (vectors.get(0)?, vectors.get(1)?);
            Ok(Shifted { rows: segment.rows, shift, scale })
        };
        let runs = self.0.iter().map(run).collect::<Result<Vec<_>>>()?;
        modulation::modulate(x, &runs, EPS)
    }

    /// `x + gate y` for every token.
    pub(super) fn add_gated(
        &self,
        x: &Tensor,
        y: &Tensor,
        block: usize,
        half: Half,
    ) -> Result<Tensor> {
        let run = |segment: &Segment| {
            let gate = segment.vectors.half(block, half)?.get(2)?;
            Ok(Gated { rows: segment.rows, gate })
        };
        let runs = self.0.iter().map(run).collect::<Result<Vec<_>>>()?;
        modulation::add_gated(x, y, &runs)
    }
}

impl Vectors {
    /// `(3, c)`: shift, scale, gate.
    fn half(&self, block: usize, half: Half) -> Result<Tensor> {
        let Some(vectors) = self.0.get(block) else {
            candle_core::bail!("a modulation of {} blocks for block {block}", self.0.len())
        };
        match half {
            Half::Attention => vectors.narrow(0, 0, 3),
            Half::FeedForward => vectors.narrow(0, 3, 3),
        }
    }
}

/// The modulations of a batch in one step, laid out over its tokens.
pub(super) struct Streams {
    pub(super) image: Stream,
    /// As `image`, of target pictures only.
    pub(super) targets: Stream,
    pub(super) text: Stream,
    /// Rows of each target, and its scale and shift before the last layer.
    out: Vec<(usize, Tensor)>,
}

impl Streams {
    /// One modulation for each sample of the layout: samples may be at different times.
    pub(super) fn new(layout: &Layout, modulations: &[&Modulation]) -> Result<Self> {
        let places = &layout.places;
        if places.len() != modulations.len() {
            candle_core::bail!("{} modulations for {} samples", modulations.len(), places.len());
        }
        let pairs = || places.iter().zip(modulations);
        Ok(Self {
            image: Stream::new(pairs().flat_map(|(place, modulation)| {
                let references = place.image.len() - place.target;
                [
                    (place.target, modulation.image.clone()),
                    (references, modulation.reference.clone()),
                ]
            })),
            targets: Stream::new(
                pairs().map(|(place, modulation)| (place.target, modulation.image.clone())),
            ),
            text: Stream::new(
                pairs().map(|(place, modulation)| (place.text.len(), modulation.text.clone())),
            ),
            out: pairs()
                .map(|(place, modulation)| (place.target, modulation.out.clone()))
                .collect(),
        })
    }

    /// The norm before the last layer, of the targets' tokens.
    pub(super) fn normalise_out(&self, x: &Tensor) -> Result<Tensor> {
        let run = |(rows, out): &(usize, Tensor)| {
            Ok(Shifted { rows: *rows, shift: out.get(1)?, scale: out.get(0)? })
        };
        let runs = self.out.iter().map(run).collect::<Result<Vec<_>>>()?;
        modulation::modulate(x, &runs, EPS)
    }
}

/// Runs of rows behind each other.
pub(super) fn join(mut parts: Vec<Tensor>) -> Result<Tensor> {
    match parts.len() {
        1 => Ok(parts.remove(0)),
        _ => Tensor::cat(&parts, 0),
    }
}
