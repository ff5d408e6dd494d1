//! How samples of different sizes lie in one batch.
//!
//! A batch is one sequence of picture tokens and one of text tokens, without padding: sample after
//! sample, and in each the target before its references. Linear layers run over all tokens at once;
//! attention and positions are of one sample.

use std::ops::Range;
use std::sync::Arc;

use candle_core::Device;

use super::config::TransformerConfig;
use super::rope;
use crate::device::classify;
use crate::error::{Error, Result};
use crate::kernels::attention::Rotation;

/// Most tokens of one batch; its tables are computed before anything else.
const MAX_TOKENS: usize = 1 << 22;

/// The tokens of one picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl Grid {
    pub(crate) fn tokens(&self) -> usize {
        self.rows.saturating_mul(self.columns)
    }
}

/// The sizes of one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// The picture that is made.
    pub(crate) target: Grid,
    /// The pictures that it is made from.
    pub(crate) references: Vec<Grid>,
    /// Tokens of the prompt.
    pub(crate) text: usize,
}

/// Where a sample's tokens are in the two sequences, and their positions.
pub(super) struct Place {
    pub(super) image: Range<usize>,
    /// How many of the picture tokens are the target's; they come first.
    pub(super) target: usize,
    pub(super) text: Range<usize>,
    pub(super) rotation: Arc<Rotation>,
}

/// The places of all samples of a batch; the same in all steps.
pub(crate) struct Layout {
    pub(super) places: Vec<Place>,
}

impl Layout {
    /// Samples in the order of their tokens.
    pub(crate) fn new(
        samples: &[Sample],
        config: &TransformerConfig,
        device: &Device,
    ) -> Result<Self> {
        let mut places: Vec<Place> = Vec::with_capacity(samples.len());
        let (mut image, mut text) = (0, 0);
        for (index, sample) in samples.iter().enumerate() {
            let pictures: Vec<_> =
                std::iter::once(sample.target).chain(sample.references.iter().copied()).collect();
            let all = pictures.iter().fold(0usize, |sum, grid| sum.saturating_add(grid.tokens()));
            if sample.text == 0 || pictures.iter().any(|grid| grid.tokens() == 0) {
                return Err(Error::invalid_input(format!(
                    "sample {index} has an empty prompt or picture: {sample:?}"
                )));
            }
            let total =
                [image, text, all].iter().fold(sample.text, |sum, n| sum.saturating_add(*n));
            if total > MAX_TOKENS {
                return Err(Error::unsupported(format!("more than {MAX_TOKENS} tokens at once")));
            }
            // Variants of one input share their tables.
            let equal = samples[..index].iter().position(|other| other == sample);
            let rotation = match equal {
                Some(equal) => places[equal].rotation.clone(),
                None => rope::rotation(sample.text, &pictures, config.axes_dims_rope, device)
                    .map(Arc::new)
                    .map_err(|e| classify(e, "cannot make rotary positions"))?,
            };
            places.push(Place {
                image: image..image + all,
                target: sample.target.tokens(),
                text: text..text + sample.text,
                rotation,
            });
            (image, text) = (image + all, text + sample.text);
        }
        Ok(Self { places })
    }

    /// Tokens of all pictures.
    pub(crate) fn image(&self) -> usize {
        self.places.last().map_or(0, |place| place.image.end)
    }

    /// Tokens of all prompts.
    pub(crate) fn text(&self) -> usize {
        self.places.last().map_or(0, |place| place.text.end)
    }
}
