//! What is to be generated, and how.

use super::performance::Performance;
use super::recipe::{MAX_SIDE, MULTIPLE, is_side};
use super::refiner::RefinerSwap;
use super::upscale::Upscale;
use crate::error::{Error, Result};
use crate::models::sdxl::FreeU;
use crate::pixels::Input;
use crate::schedule::{SamplerKind, Scheduler};

/// Most pictures of one request.
const MAX_VARIANTS: usize = 1024;
/// Longest prompt in bytes.
const MAX_PROMPT: usize = 32 << 10;
/// Largest sharpness.
const MAX_SHARPNESS: f32 = 30.0;
/// Most pixels that a mask is made wider by.
const MAX_GROWTH: u32 = 64;
/// Largest weight of a part of the network.
const MAX_FREEU: f64 = 10.0;
/// Largest scale of guidance.
const MAX_GUIDANCE: f32 = 100.0;

/// One prompt.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct GenerateRequest {
    /// What is to be seen. Each line is a text of its own; parts may have weights: `(text:1.3)`.
    pub prompt: String,
    /// What is not to be seen, in the same notation.
    pub negative_prompt: String,
    /// A picture to start from, stretched to the size of the output. How much of it stays is up to
    /// [`GenerateOptions::denoise`].
    pub image: Option<Input>,
    /// What of the picture is made anew: white pixels of a picture of its size. All else stays to the bit, and the
    /// output has the picture's size, with what [`outpaint`](Self::outpaint) adds. How much of it is made anew is up
    /// to [`GenerateOptions::inpaint_strength`].
    pub mask: Option<Input>,
    /// What is added at the sides of the picture.
    pub outpaint: Outpaint,
    /// How much larger the picture is made. The output has the size that this gives ([`Upscale::size`]), and no other
    /// option about sizes counts. How much of it is made anew is up to [`GenerateOptions::upscale_strength`].
    pub upscale: Option<Upscale>,
    /// The seed of the first variant, in place of that of the options.
    pub seed: Option<u64>,
    /// Whether lines of both prompts are texts as they are. Otherwise commas and points at their ends and spaces beside
    /// spaces are left out, as Fooocus does with what people write, but not with its styles.
    pub as_is: bool,
    /// What both prompts are without styles, where they have some: for metadata only.
    pub unstyled: Option<Unstyled>,
}

/// Prompts without the styles around them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unstyled {
    /// What is to be seen.
    pub prompt: String,
    /// What is not to be seen.
    pub negative_prompt: String,
    /// The names of the styles.
    pub styles: Vec<String>,
}

impl GenerateRequest {
    /// A prompt.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self { prompt: prompt.into(), ..Self::default() }
    }

    /// The same request with a negative prompt.
    #[must_use]
    pub fn negative_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.negative_prompt = prompt.into();
        self
    }

    /// The same request, starting from a picture.
    #[must_use]
    pub fn image(mut self, image: impl Into<Input>) -> Self {
        self.image = Some(image.into());
        self
    }

    /// The same request, making anew what is white in a mask.
    #[must_use]
    pub fn mask(mut self, mask: impl Into<Input>) -> Self {
        self.mask = Some(mask.into());
        self
    }

    /// The same request with more at the sides of its picture.
    #[must_use]
    pub fn outpaint(mut self, outpaint: Outpaint) -> Self {
        self.outpaint = outpaint;
        self
    }

    /// The same request with its picture made larger.
    #[must_use]
    pub fn upscale(mut self, upscale: Upscale) -> Self {
        self.upscale = Some(upscale);
        self
    }

    /// The same request with a seed of its own.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        for (field, text) in [("prompt", &self.prompt), ("negative_prompt", &self.negative_prompt)]
        {
            if text.len() > MAX_PROMPT {
                let message = format!("{} bytes of text; at most {MAX_PROMPT}", text.len());
                return Err(Error::invalid_input(message).with("field", field));
            }
        }
        let asks = [
            ("mask", self.mask.is_some(), "there is no picture to make a part of anew"),
            ("outpaint", !self.outpaint.is_none(), "there is no picture to make a part of anew"),
            ("upscale", self.upscale.is_some(), "there is no picture to make larger"),
        ];
        if let Some((field, _, why)) =
            asks.iter().find(|(_, asks, _)| *asks && self.image.is_none())
        {
            return Err(Error::invalid_input(*why).with("field", field));
        }
        match self.upscale {
            Some(_) if self.is_inpainted() => {
                let message = "a picture is made larger or a part of it is made anew, not both in one request";
                Err(Error::invalid_input(message).with("field", "upscale"))
            }
            Some(upscale) => upscale.check(),
            None => Ok(()),
        }
    }

    /// Whether a part of its picture is made anew.
    pub(super) fn is_inpainted(&self) -> bool {
        self.mask.is_some() || !self.outpaint.is_none()
    }
}

/// What a request's pictures are started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Noise.
    Noise,
    /// A picture.
    Picture,
    /// A picture of which a part is made anew.
    Part,
    /// A picture that was made larger.
    Larger,
}

/// Pixels that are added at the sides of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outpaint {
    /// On the left.
    pub left: usize,
    /// Above.
    pub top: usize,
    /// On the right.
    pub right: usize,
    /// Below.
    pub bottom: usize,
}

impl Outpaint {
    /// Whether nothing is added.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How pictures are generated; the same for all requests of a call. The defaults are those of Fooocus' "Speed".
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Pictures for each request.
    pub n: usize,
    /// Width and height in pixels, multiples of 8; the model's own unless set, which for published ones is
    /// 1152 x 896.
    pub size: Option<(usize, usize)>,
    /// Steps of denoising, 1 to 1000.
    pub steps: usize,
    /// How far to go away from the negative prompt. At 1 it is not looked at, and a step takes half of
    /// the time.
    pub guidance_scale: f32,
    /// How steps are made.
    pub sampler: SamplerKind,
    /// Which noise levels steps go through.
    pub scheduler: Scheduler,
    /// The layer of the text encoders whose states are used, counted from the end: 1 is the last.
    pub clip_skip: usize,
    /// Of the first variant of every request; drawn unless set. The next variants have the next seeds.
    pub seed: Option<u64>,
    /// Which sizes the network is told.
    pub size_guidance: SizeGuidance,
    /// Where guidance is stronger than this, it starts from here and grows to its scale as the noise goes.
    pub adaptive_guidance: f32,
    /// How much of its grain a picture keeps that the network would smooth, 0 to 30; only with guidance.
    pub sharpness: f32,
    /// The part of the steps after which a refiner goes on, 0 to 1; only where the model was loaded with one.
    pub refiner_switch: f64,
    /// How samples go to the refiner.
    pub refiner_swap: RefinerSwap,
    /// How the network's parts are weighed; not at all unless set.
    pub freeu: Option<FreeU>,
    /// How much of a request's picture is made anew, above 0 and up to 1: such a part of the noise levels
    /// is gone through, in as many steps. Requests without a picture are not concerned.
    pub denoise: f64,
    /// As `denoise`, for pictures that are made larger.
    pub upscale_strength: f64,
    /// As `denoise`, for the parts of pictures that are made anew; 1 forgets what was there. With
    /// [`GenerateRequest::outpaint`] it is 1.
    pub inpaint_strength: f64,
    /// How much of a picture the network sees at least beside the part that is made anew: 0 for little, 1 for the
    /// whole picture, which it always sees with [`GenerateRequest::outpaint`].
    pub inpaint_field: f64,
    /// Pixels that masks are made wider by, or narrower below 0; -64 to 64.
    pub mask_growth: i32,
    /// What [`performance`](Self::performance) was called with. The LoRA that it needs must be applied to the
    /// model.
    pub performance: Option<Performance>,
    /// Whether [`Generated::values`](super::Generated::values) are kept.
    pub keep_values: bool,
}

/// Other sizes than the real one, which SDXL is told of the picture while most of it is noise: a large
/// one for what is asked for and a small one for what is not sharpen it ("ADM guidance" in Fooocus).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SizeGuidance {
    /// The size that goes with the prompt is so many times the real one.
    pub positive: f32,
    /// As `positive`, for the negative prompt.
    pub negative: f32,
    /// The part of the way after which the real size is told.
    pub end: f32,
}

impl SizeGuidance {
    /// The real size always.
    pub const NONE: Self = Self { positive: 1.0, negative: 1.0, end: 0.0 };
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
            size: None,
            steps: 30,
            guidance_scale: 4.0,
            sampler: SamplerKind::DpmPp2mSdeGpu,
            scheduler: Scheduler::Karras,
            clip_skip: 2,
            seed: None,
            size_guidance: SizeGuidance::default(),
            adaptive_guidance: 7.0,
            sharpness: 2.0,
            refiner_switch: 0.5,
            refiner_swap: RefinerSwap::Joint,
            freeu: None,
            denoise: 0.5,
            upscale_strength: 0.382,
            inpaint_strength: 1.0,
            inpaint_field: 0.618,
            mask_growth: 0,
            performance: None,
            keep_values: false,
        }
    }
}

impl GenerateOptions {
    /// The same options with the steps of a performance, and for a fast one with its sampler, scheduler and no
    /// guidance. What is set after this is as it is set.
    #[must_use]
    pub fn performance(self, performance: Performance) -> Self {
        performance.apply(self)
    }

    /// The same options with another number of variants.
    #[must_use]
    pub fn n(mut self, n: usize) -> Self {
        self.n = n;
        self
    }

    /// The same options with another size in pixels.
    #[must_use]
    pub fn size(mut self, width: usize, height: usize) -> Self {
        self.size = Some((width, height));
        self
    }

    /// The same options with another number of steps.
    #[must_use]
    pub fn steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// The same options with another scale of guidance.
    #[must_use]
    pub fn guidance_scale(mut self, scale: f32) -> Self {
        self.guidance_scale = scale;
        self
    }

    /// The same options with another sampler.
    #[must_use]
    pub fn sampler(mut self, sampler: SamplerKind) -> Self {
        self.sampler = sampler;
        self
    }

    /// The same options with another scheduler.
    #[must_use]
    pub fn scheduler(mut self, scheduler: Scheduler) -> Self {
        self.scheduler = scheduler;
        self
    }

    /// The same options with another layer of the text encoders.
    #[must_use]
    pub fn clip_skip(mut self, layer: usize) -> Self {
        self.clip_skip = layer;
        self
    }

    /// The same options with other sizes that the network is told.
    #[must_use]
    pub fn size_guidance(mut self, sizes: SizeGuidance) -> Self {
        self.size_guidance = sizes;
        self
    }

    /// The same options with another scale that guidance starts from.
    #[must_use]
    pub fn adaptive_guidance(mut self, scale: f32) -> Self {
        self.adaptive_guidance = scale;
        self
    }

    /// The same options with another sharpness.
    #[must_use]
    pub fn sharpness(mut self, sharpness: f32) -> Self {
        self.sharpness = sharpness;
        self
    }

    /// The same options with another part of the steps after which a refiner goes on, and another way to it.
    #[must_use]
    pub fn refiner(mut self, switch: f64, swap: RefinerSwap) -> Self {
        (self.refiner_switch, self.refiner_swap) = (switch, swap);
        self
    }

    /// The same options with the network's parts weighed.
    #[must_use]
    pub fn freeu(mut self, freeu: FreeU) -> Self {
        self.freeu = Some(freeu);
        self
    }

    /// The same options with another part that is made anew.
    #[must_use]
    pub fn denoise(mut self, part: f64) -> Self {
        self.denoise = part;
        self
    }

    /// The same options with another part of pictures made anew that are made larger.
    #[must_use]
    pub fn upscale_strength(mut self, part: f64) -> Self {
        self.upscale_strength = part;
        self
    }

    /// The same options with another strength of what is made anew in pictures, and more or less of what is around.
    #[must_use]
    pub fn inpaint(mut self, strength: f64, field: f64) -> Self {
        (self.inpaint_strength, self.inpaint_field) = (strength, field);
        self
    }

    /// The same options with masks made wider or narrower.
    #[must_use]
    pub fn mask_growth(mut self, pixels: i32) -> Self {
        self.mask_growth = pixels;
        self
    }

    /// The same options with a seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The same options, keeping values or not.
    #[must_use]
    pub fn keep_values(mut self, keep: bool) -> Self {
        self.keep_values = keep;
        self
    }

    /// Whether these options mean something, without any work.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for the first that means nothing.
    pub fn check(&self) -> Result<()> {
        let wrong = |field: &'static str, what: String| {
            Err(Error::invalid_input(what).with("field", field))
        };
        if !(1..=MAX_VARIANTS).contains(&self.n) {
            return wrong("n", format!("n is {}, expected 1 to {MAX_VARIANTS}", self.n));
        }
        let sides = self.size.map(|(width, height)| [("width", width), ("height", height)]);
        for (field, side) in sides.into_iter().flatten() {
            if !is_side(side) {
                let expected = format!("multiples of {MULTIPLE} up to {MAX_SIDE}");
                return wrong(field, format!("the {field} is {side}; there are {expected}"));
            }
        }
        let SizeGuidance { positive, negative, end } = self.size_guidance;
        for (field, value, range) in [
            ("guidance_scale", self.guidance_scale, 0.0..=MAX_GUIDANCE),
            ("adaptive_guidance", self.adaptive_guidance, 0.0..=MAX_GUIDANCE),
            ("sharpness", self.sharpness, 0.0..=MAX_SHARPNESS),
            ("size_guidance.positive", positive, 0.1..=10.0),
            ("size_guidance.negative", negative, 0.1..=10.0),
            ("size_guidance.end", end, 0.0..=1.0),
        ] {
            if !range.contains(&value) {
                let (from, to) = range.into_inner();
                return wrong(field, format!("{field} is {value}, expected {from} to {to}"));
            }
        }
        let switch = self.refiner_switch;
        if !(0.0..=1.0).contains(&switch) {
            return wrong("refiner_switch", format!("refiner_switch is {switch}, expected 0 to 1"));
        }
        for (field, found) in [
            ("inpaint_strength", self.inpaint_strength),
            ("upscale_strength", self.upscale_strength),
        ] {
            if !(found > 0.0 && found <= 1.0) {
                let message = format!("{field} is {found}, expected above 0 and up to 1");
                return wrong(field, message);
            }
        }
        if !(0.0..=1.0).contains(&self.inpaint_field) {
            let found = self.inpaint_field;
            return wrong("inpaint_field", format!("inpaint_field is {found}, expected 0 to 1"));
        }
        if self.mask_growth.unsigned_abs() > MAX_GROWTH {
            let found = self.mask_growth;
            let expected = format!("-{MAX_GROWTH} to {MAX_GROWTH}");
            return wrong("mask_growth", format!("mask_growth is {found}, expected {expected}"));
        }
        let FreeU { b1, b2, s1, s2 } = self.freeu.unwrap_or_default();
        for (field, value) in
            [("freeu.b1", b1), ("freeu.b2", b2), ("freeu.s1", s1), ("freeu.s2", s2)]
        {
            if !(0.0..=MAX_FREEU).contains(&value) {
                return wrong(field, format!("{field} is {value}, expected 0 to {MAX_FREEU}"));
            }
        }
        if self.clip_skip == 0 {
            return wrong("clip_skip", "clip_skip is 0; the last layer is 1".to_owned());
        }
        self.sigmas().map(|_| ())
    }

    /// The sigmas of each kind of request, by [`Start`].
    pub(super) fn sigmas(&self) -> Result<[Vec<f64>; 4]> {
        let sigmas = |denoise| self.scheduler.sigmas(self.sampler, self.steps, denoise);
        Ok([
            sigmas(1.0)?,
            sigmas(self.denoise)?,
            sigmas(self.inpaint_strength)?,
            sigmas(self.upscale_strength)?,
        ])
    }

    /// Whether negative prompts are looked at.
    pub(super) fn is_guided(&self) -> bool {
        self.guidance_scale != 1.0
    }
}
