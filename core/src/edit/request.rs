//! What a user asks for: pictures, words and options, checked before any work.

use std::str::FromStr;

use super::recipe::{MAX_AREA, Recipe};
use crate::error::{Error, Result};
use crate::pixels::{Input, Size};

/// Most variants of one edit.
const MAX_VARIANTS: usize = 10;
/// Most steps of denoising.
pub(super) const MAX_STEPS: usize = 1000;
/// Longest prompt in bytes: far beyond what a model can follow.
const MAX_PROMPT: usize = 32 << 10;
/// Most references of one edit.
const MAX_REFERENCES: usize = 16;
/// Largest `max_sequence_length`, as in diffusers.
const MAX_SEQUENCE: usize = 1024;
/// Longest side of an output in pixels.
const MAX_SIDE: usize = 8192;

/// What an edit should move away from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NegativePrompt {
    /// The blank prompt `" "`, as the models' authors use it.
    #[default]
    Blank,
    /// A text.
    Text(String),
    /// Nothing: classifier-free guidance is switched off, whatever its scale is.
    Off,
}

impl From<&str> for NegativePrompt {
    fn from(text: &str) -> Self {
        NegativePrompt::Text(text.to_owned())
    }
}

impl From<String> for NegativePrompt {
    fn from(text: String) -> Self {
        NegativePrompt::Text(text)
    }
}

/// One edit: its pictures are references of one output. Many edits are a slice of these.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EditRequest {
    /// The pictures. The first models take exactly one; from Qwen-Image-Edit-2509 on several, of
    /// which the last gives an output its proportions.
    pub images: Vec<Input>,
    /// The instruction.
    pub prompt: String,
    /// What to move away from.
    pub negative_prompt: NegativePrompt,
    /// The seed of its first variant, in place of [`EditOptions::seed`].
    pub seed: Option<u64>,
}

impl EditRequest {
    /// An edit of one picture.
    pub fn new(image: impl Into<Input>, prompt: impl Into<String>) -> Self {
        Self::with_references([image.into()], prompt)
    }

    /// An edit with several references.
    pub fn with_references(
        images: impl IntoIterator<Item = impl Into<Input>>,
        prompt: impl Into<String>,
    ) -> Self {
        Self {
            images: images.into_iter().map(Into::into).collect(),
            prompt: prompt.into(),
            negative_prompt: NegativePrompt::default(),
            seed: None,
        }
    }

    /// The same edit of each of many pictures: one request for each.
    pub fn for_each(images: impl IntoIterator<Item = impl Into<Input>>, prompt: &str) -> Vec<Self> {
        images.into_iter().map(|image| Self::new(image, prompt)).collect()
    }

    /// The same request with another negative prompt.
    #[must_use]
    pub fn negative_prompt(mut self, prompt: impl Into<NegativePrompt>) -> Self {
        self.negative_prompt = prompt.into();
        self
    }

    /// The same request with a seed of its own.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        let invalid = |field: &'static str, message: String| {
            Err(Error::invalid_input(message).with("field", field))
        };
        if self.images.is_empty() {
            return invalid("images", "there is no picture to edit".to_owned());
        }
        if self.images.len() > MAX_REFERENCES {
            let count = self.images.len();
            return invalid("images", format!("{count} pictures; at most {MAX_REFERENCES}"));
        }
        if self.prompt.trim().is_empty() {
            return invalid("prompt", "the prompt is empty".to_owned());
        }
        let negative = match &self.negative_prompt {
            NegativePrompt::Text(text) => text.as_str(),
            _ => "",
        };
        for (field, text) in [("prompt", self.prompt.as_str()), ("negative_prompt", negative)] {
            if text.len() > MAX_PROMPT {
                let length = text.len();
                return invalid(field, format!("{length} bytes of text; at most {MAX_PROMPT}"));
            }
        }
        Ok(())
    }

    /// The text that guidance moves away from, if there is guidance of this scale.
    pub(super) fn negative(&self, true_cfg_scale: f32) -> Option<&str> {
        match &self.negative_prompt {
            _ if true_cfg_scale <= 1.0 => None,
            NegativePrompt::Blank => Some(" "),
            NegativePrompt::Text(text) => Some(text),
            NegativePrompt::Off => None,
        }
    }
}

/// The size of outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutputSize {
    /// About as many pixels as the model was trained for, with the proportions of the picture.
    #[default]
    Auto,
    /// Width and height in pixels. What is made is the next smaller multiple of 16.
    Exact(u32, u32),
}

impl FromStr for OutputSize {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "auto" {
            return Ok(OutputSize::Auto);
        }
        let sides = text.split_once(['x', 'X', '*']);
        let sides = sides.and_then(|(w, h)| Some((w.trim().parse().ok()?, h.trim().parse().ok()?)));
        sides.map(|(width, height)| OutputSize::Exact(width, height)).ok_or_else(|| {
            Error::invalid_input(format!("`{text}` is no size; expected auto or WIDTHxHEIGHT"))
                .with("field", "size")
        })
    }
}

/// A step-distilled way to use a model. Its LoRA file must be loaded too, unless it is part of the
/// model's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Preset {
    /// Lightning in four steps: a schedule with a fixed shift of 3, and no guidance.
    Lightning4,
    /// Lightning in eight steps.
    Lightning8,
}

impl FromStr for Preset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "lightning-4" => Ok(Preset::Lightning4),
            "lightning-8" => Ok(Preset::Lightning8),
            _ => Err(Error::invalid_input(format!(
                "unknown preset `{text}`; known: lightning-4, lightning-8"
            ))
            .with("field", "preset")),
        }
    }
}

impl Preset {
    fn steps(self) -> usize {
        match self {
            Preset::Lightning4 => 4,
            Preset::Lightning8 => 8,
        }
    }
}

/// How edits are made; the same for all requests of a call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct EditOptions {
    /// Variants of every request, 1 to 10.
    pub n: usize,
    /// The size of outputs.
    pub size: OutputSize,
    /// The seed of the first variant of every request; variant `j` has `seed + j`. A seed gives the
    /// noise of `torch.Generator("cpu").manual_seed(seed)`. Without one it is drawn, and told in
    /// [`Edited::seed`](crate::Edited::seed).
    pub seed: Option<u64>,
    /// Steps of denoising, 1 to 1000; the model's own number unless set (50 in published models).
    pub num_inference_steps: Option<usize>,
    /// Scale of classifier-free guidance; the model's own unless set (4 in published models). 1 or
    /// less switches it off, which halves the time.
    pub true_cfg_scale: Option<f32>,
    /// Of no effect on these models, which were not distilled for it: accepted, and told so by
    /// [`notes`](Self::notes).
    pub guidance_scale: Option<f32>,
    /// Of no effect, as in diffusers, which never cuts a prompt; 1 to 1024.
    pub max_sequence_length: usize,
    /// Pixels of each reference picture for the autoencoder, and of outputs whose size is
    /// [`Auto`](OutputSize::Auto); the model's own unless set (1024 * 1024 in published models).
    pub reference_area: Option<usize>,
    /// What sides of references and of automatic outputs are multiples of; the model's own unless
    /// set (32 in published models). A multiple of 16.
    pub reference_multiple: Option<usize>,
    /// A step-distilled way to use the model.
    pub preset: Option<Preset>,
    /// Keep the values of outputs before they are rounded to 8 bits, as
    /// [`Edited::values`](crate::Edited::values).
    pub keep_values: bool,
}

impl Default for EditOptions {
    fn default() -> Self {
        Self {
            n: 1,
            size: OutputSize::Auto,
            seed: None,
            num_inference_steps: None,
            true_cfg_scale: None,
            guidance_scale: None,
            max_sequence_length: 512,
            reference_area: None,
            reference_multiple: None,
            preset: None,
            keep_values: false,
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty => $value:expr;)*) => {
        impl EditOptions {
            $($(#[$doc])* #[must_use] pub fn $name(mut self, $name: $type) -> Self {
                self.$name = $value;
                self
            })*
        }
    };
}

setters! {
    /// The same options with another number of variants.
    n: usize => n;
    /// The same options with another size.
    size: OutputSize => size;
    /// The same options with a seed.
    seed: u64 => Some(seed);
    /// The same options with another number of steps.
    num_inference_steps: usize => Some(num_inference_steps);
    /// The same options with another scale of guidance.
    true_cfg_scale: f32 => Some(true_cfg_scale);
    /// The same options with a value that has no effect.
    guidance_scale: f32 => Some(guidance_scale);
    /// The same options with another value that has no effect.
    max_sequence_length: usize => max_sequence_length;
    /// The same options with references of another area.
    reference_area: usize => Some(reference_area);
    /// The same options with references of other multiples.
    reference_multiple: usize => Some(reference_multiple);
    /// The same options with a preset.
    preset: Preset => Some(preset);
    /// The same options, keeping values or not.
    keep_values: bool => keep_values;
}

impl EditOptions {
    /// What a user should know about these options although they are valid: those that have no
    /// effect.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.guidance_scale.is_some() {
            notes.push(
                "guidance_scale has no effect on this model; true_cfg_scale sets its guidance"
                    .to_owned(),
            );
        }
        if self.max_sequence_length != Self::default().max_sequence_length {
            notes.push("max_sequence_length has no effect: prompts are never cut".to_owned());
        }
        if self.preset.is_some() && self.true_cfg_scale.is_some_and(|scale| scale > 1.0) {
            notes.push("a Lightning preset with guidance takes twice its time".to_owned());
        }
        notes
    }

    /// These options with everything filled in that the model decides, or an error that names the
    /// option that means nothing. `grid` is what sides of outputs are multiples of.
    pub(super) fn resolve(&self, recipe: &Recipe, grid: usize) -> Result<Resolved> {
        let invalid = |field: &'static str, message: String| {
            Err(Error::invalid_input(message).with("field", field))
        };
        let range = |field: &'static str, value: usize, most: usize| match value {
            value if (1..=most).contains(&value) => Ok(value),
            value => invalid(field, format!("{value}, expected 1 to {most}")).map(|()| value),
        };
        range("n", self.n, MAX_VARIANTS)?;
        range("max_sequence_length", self.max_sequence_length, MAX_SEQUENCE)?;
        let mut recipe = recipe.clone();
        if let Some(preset) = self.preset {
            (recipe.steps, recipe.true_cfg_scale) = (preset.steps(), 1.0);
        }
        if let Some(steps) = self.num_inference_steps {
            recipe.steps = range("num_inference_steps", steps, MAX_STEPS)?;
        }
        for (field, scale) in
            [("true_cfg_scale", self.true_cfg_scale), ("guidance_scale", self.guidance_scale)]
        {
            if let Some(scale) = scale
                && !(0.0..=100.0).contains(&scale)
            {
                invalid(field, format!("{scale}, expected 0 to 100"))?;
            }
        }
        recipe.true_cfg_scale = self.true_cfg_scale.unwrap_or(recipe.true_cfg_scale);
        if let Some(area) = self.reference_area {
            recipe.area = range("reference_area", area, MAX_AREA)?;
        }
        if let Some(multiple) = self.reference_multiple {
            recipe.multiple = range("reference_multiple", multiple, 1024)?;
        }
        if !recipe.multiple.is_multiple_of(grid) {
            let multiple = recipe.multiple;
            invalid("reference_multiple", format!("{multiple} is no multiple of {grid}"))?;
        }
        let size = match self.size {
            OutputSize::Auto => None,
            OutputSize::Exact(width, height) => {
                let side = |side: u32| side as usize / grid * grid;
                let size = (side(width), side(height));
                let largest = size.0.max(size.1);
                if size.0.min(size.1) == 0
                    || largest > MAX_SIDE
                    || size.0.saturating_mul(size.1) > MAX_AREA
                {
                    invalid(
                        "size",
                        format!(
                            "{width} x {height} pixels, expected sides of {grid} to {MAX_SIDE}"
                        ),
                    )?;
                }
                Some(size)
            }
        };
        Ok(Resolved { recipe, size, is_lightning: self.preset.is_some() })
    }
}

/// Options after the model has filled them in.
pub(super) struct Resolved {
    pub(super) recipe: Recipe,
    /// The size of all outputs, unless it goes by the pictures.
    pub(super) size: Option<Size>,
    pub(super) is_lightning: bool,
}
