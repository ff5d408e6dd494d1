//! What is to be generated, and how.

use super::recipe::MULTIPLE;
use crate::error::{Error, Result};
use crate::schedule::{SamplerKind, Scheduler};

/// Most pictures of one request.
const MAX_VARIANTS: usize = 1024;
/// Longest side of a picture in pixels.
const MAX_SIDE: usize = 1 << 13;
/// Largest scale of guidance.
const MAX_GUIDANCE: f32 = 100.0;

/// One prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GenerateRequest {
    /// What is to be seen. Each line is a text of its own; parts may have weights: `(text:1.3)`.
    pub(crate) prompt: String,
    /// What is not to be seen, in the same notation.
    pub(crate) negative_prompt: String,
    /// The seed of the first variant, in place of that of the options.
    pub(crate) seed: Option<u64>,
}

/// How pictures are generated. The defaults are those of Fooocus' "Speed".
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct GenerateOptions {
    /// Pictures for each request.
    pub(crate) n: usize,
    /// Width and height in pixels, multiples of 8.
    pub(crate) size: (usize, usize),
    /// Steps of denoising, 1 to 1000.
    pub(crate) steps: usize,
    /// How far to go away from the negative prompt. At 1 it is not looked at, and a step takes half of
    /// the time.
    pub(crate) guidance_scale: f32,
    pub(crate) sampler: SamplerKind,
    pub(crate) scheduler: Scheduler,
    /// The layer of the text encoders whose states are used, counted from the end: 1 is the last.
    pub(crate) clip_skip: usize,
    /// Of the first variant of every request; drawn unless set. The next variants have the next seeds.
    pub(crate) seed: Option<u64>,
    pub(crate) size_guidance: SizeGuidance,
    /// Where guidance is stronger than this, it starts from here and grows to its scale as the noise goes.
    pub(crate) adaptive_guidance: f32,
    /// Whether [`Generated::values`](super::Generated::values) are kept.
    pub(crate) keep_values: bool,
}

/// Other sizes than the real one, which SDXL is told of the picture while most of it is noise: a large
/// one for what is asked for and a small one for what is not sharpen it ("ADM guidance" in Fooocus).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct SizeGuidance {
    /// The size that goes with the prompt is so many times the real one.
    pub(crate) positive: f32,
    /// As `positive`, for the negative prompt.
    pub(crate) negative: f32,
    /// The part of the way after which the real size is told.
    pub(crate) end: f32,
}

impl SizeGuidance {
    /// The real size always.
    pub(crate) const NONE: Self = Self { positive: 1.0, negative: 1.0, end: 0.0 };
}

impl Default for SizeGuidance {
    fn default() -> Self {
        Self { positive: 1.5, negative: 0.8, end: 0.3 }
    }
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            n: 1,
            size: (1152, 896),
            steps: 30,
            guidance_scale: 4.0,
            sampler: SamplerKind::DpmPp2mSdeGpu,
            scheduler: Scheduler::Karras,
            clip_skip: 2,
            seed: None,
            size_guidance: SizeGuidance::default(),
            adaptive_guidance: 7.0,
            keep_values: false,
        }
    }
}

impl GenerateOptions {
    /// Fails for the first option that means nothing.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |field: &'static str, what: String| {
            Err(Error::invalid_input(what).with("field", field))
        };
        if !(1..=MAX_VARIANTS).contains(&self.n) {
            return wrong("n", format!("n is {}, expected 1 to {MAX_VARIANTS}", self.n));
        }
        for (field, side) in [("width", self.size.0), ("height", self.size.1)] {
            if !(MULTIPLE..=MAX_SIDE).contains(&side) || !side.is_multiple_of(MULTIPLE) {
                let expected = format!("multiples of {MULTIPLE} up to {MAX_SIDE}");
                return wrong(field, format!("the {field} is {side}; there are {expected}"));
            }
        }
        let SizeGuidance { positive, negative, end } = self.size_guidance;
        for (field, value, range) in [
            ("guidance_scale", self.guidance_scale, 0.0..=MAX_GUIDANCE),
            ("adaptive_guidance", self.adaptive_guidance, 0.0..=MAX_GUIDANCE),
            ("size_guidance.positive", positive, 0.1..=10.0),
            ("size_guidance.negative", negative, 0.1..=10.0),
            ("size_guidance.end", end, 0.0..=1.0),
        ] {
            if !range.contains(&value) {
                let (from, to) = range.into_inner();
                return wrong(field, format!("{field} is {value}, expected {from} to {to}"));
            }
        }
        if self.clip_skip == 0 {
            return wrong("clip_skip", "clip_skip is 0; the last layer is 1".to_owned());
        }
        self.scheduler.sigmas(self.sampler, self.steps, 1.0).map(|_| ())
    }

    /// Whether negative prompts are looked at.
    pub(crate) fn is_guided(&self) -> bool {
        self.guidance_scale != 1.0
    }
}
