//! The states of a prompt: both text encoders, weights, and all texts of an image in one row.
//!
//! As Fooocus does it. Both encoders give the states before their last layers ("CLIP skip"), side by side
//! in every token. Tokens with a weight are moved away from what an empty text gives there, and a chunk
//! that has any is scaled to the mean that it had before. The chunks of all texts are one row; the vector of
//! the prompt is the sum of the texts' vectors, each of which is that of its first chunk.

use std::sync::Arc;

use candle_core::{D, DType, Device, Tensor};

use super::chunks::{Chunk, chunks};
use crate::device::classify;
use crate::error::{Error, Result};
use crate::models::clip::{ClipText, ClipTextModel};
use crate::tokens::clip::ClipTokenizer;

/// What the larger encoder was trained to see behind a text.
const LARGE_PADDING: u32 = 0;
/// Chunks that go through an encoder at once: enough to fill matrix products.
pub(crate) const MOST_CHUNKS: usize = 4;

/// The text encoders of a model. The refiner has only the larger one.
pub(crate) struct TextEncoders {
    pub(crate) tokenizer: Arc<ClipTokenizer>,
    pub(crate) small: Option<Arc<ClipTextModel>>,
    pub(crate) large: Arc<ClipTextModel>,
}

/// What the network reads of the prompts of one image.
#[derive(Clone, Debug)]
pub(crate) struct Conditioning {
    /// `(1, tokens, width)`.
    pub(crate) states: Tensor,
    /// `(1, width of the larger encoder's projection)`.
    pub(crate) pooled: Tensor,
}

impl Conditioning {
    /// How many tokens the network reads.
    pub(crate) fn tokens(&self) -> usize {
        self.states.dims().get(1).copied().unwrap_or_default()
    }

    /// Bytes that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        let tensors = [&self.states, &self.pooled];
        tensors.map(|tensor| 4 * tensor.elem_count() as u64).iter().sum()
    }
}

impl TextEncoders {
    /// Encodes the texts of one image, of which the first `counted` make its vector. `skip` is 1 for the
    /// states of the last layer, 2 for those before it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for texts that are too long, and a `skip` beyond
    /// the encoders' layers.
    pub(crate) fn encode(
        &self,
        texts: &[&str],
        counted: usize,
        skip: usize,
    ) -> Result<Conditioning> {
        let skipped = skip
            .checked_sub(1)
            .ok_or_else(|| Error::invalid_input("0 is no layer").with("field", "clip_skip"))?;
        let texts: Vec<Vec<Chunk>> = texts
            .iter()
            .map(|text| chunks(&self.tokenizer, text, self.length()))
            .collect::<Result<_>>()?;
        // The first chunk of each text.
        let mut firsts = Vec::with_capacity(texts.len());
        let mut all: Vec<Chunk> = Vec::new();
        for text in texts {
            firsts.push(all.len() as u32);
            all.extend(text);
        }
        let (large, pooled) = self.states(&self.large, &all, LARGE_PADDING, skipped)?;
        let small = match &self.small {
            Some(small) => Some(self.states(small, &all, self.tokenizer.end, skipped)?.0),
            None => None,
        };
        let join = || {
            let states = match small {
                Some(small) => Tensor::cat(&[small, large], D::Minus1)?,
                None => large,
            };
            let (count, length, width) = states.dims3()?;
            firsts.truncate(counted.max(1));
            let firsts = Tensor::new(firsts, &Device::Cpu)?.to_device(pooled.device())?;
            Ok(Conditioning {
                states: states.reshape((1, count * length, width))?,
                pooled: pooled.index_select(&firsts, 0)?.sum_keepdim(0)?,
            })
        };
        join().map_err(|e| classify(e, "cannot encode a prompt"))
    }

    /// Tokens of a chunk: what both encoders have places for.
    fn length(&self) -> usize {
        let small = self.small.as_ref().map_or(usize::MAX, |small| small.positions());
        small.min(self.large.positions())
    }

    /// The weighted states of chunks `(chunks, length, width)`, and the vectors of each.
    fn states(
        &self,
        encoder: &ClipTextModel,
        chunks: &[Chunk],
        padding: u32,
        skipped: usize,
    ) -> Result<(Tensor, Tensor)> {
        let length = self.length();
        let is_weighted = chunks.iter().any(Chunk::is_weighted);
        let mut ids: Vec<_> =
            chunks.iter().map(|chunk| chunk.ids(&self.tokenizer, padding, length)).collect();
        if is_weighted {
            ids.push(Chunk::default().ids(&self.tokenizer, padding, length));
        }
        let texts = ids.chunks(MOST_CHUNKS).map(|ids| encoder.encode(ids, skipped));
        let texts: Vec<_> = texts.collect::<Result<_>>()?;
        let all = |part: fn(&ClipText) -> &Tensor| {
            let parts: Vec<_> = texts.iter().map(part).collect();
            let all = if let [all] = parts[..] { Ok(all.clone()) } else { Tensor::cat(&parts, 0) };
            all.map_err(|e| classify(e, "cannot encode a prompt"))
        };
        let (states, pooled) = (all(|text| &text.states)?, all(|text| &text.pooled)?);
        if !is_weighted {
            return Ok((states, pooled));
        }
        let weigh = || {
            let states = states.to_dtype(DType::F32)?;
            let empty = states.get(chunks.len())?;
            let weighted: Vec<Tensor> = chunks
                .iter()
                .enumerate()
                .map(|(i, chunk)| match chunk.is_weighted() {
                    true => weigh(&states.get(i)?, &empty, chunk.weights(length)),
                    false => states.get(i),
                })
                .collect::<candle_core::Result<_>>()?;
            Ok((Tensor::stack(&weighted, 0)?, pooled.narrow(0, 0, chunks.len())?))
        };
        weigh().map_err(|e| classify(e, "cannot weigh a prompt"))
    }
}

/// `(states - empty) * weights + empty`, scaled to the mean of `states`.
fn weigh(states: &Tensor, empty: &Tensor, weights: Vec<f32>) -> candle_core::Result<Tensor> {
    let weights = Tensor::new(weights, &Device::Cpu)?.to_device(states.device())?.unsqueeze(1)?;
    let weighted = ((states - empty)?.broadcast_mul(&weights)? + empty)?;
    let scale = (states.mean_all()? / weighted.mean_all()?)?;
    weighted.broadcast_mul(&scale)
}

#[cfg(test)]
mod tests;
