//! What the pictures of a request are made from: prompts as states, pictures as latents.

use std::collections::HashMap;

use candle_core::Tensor;

use super::inpaint::Area;
use super::options::GenerateRequest;
use super::prompt::encode::Conditioning;
use super::prompt::lines::texts;
use super::recipe::MULTIPLE;
use super::run::Run;
use crate::device::classify;
use crate::error::{Error, Result};
use crate::pixels::{Filter, Input, Step, apply_steps};

/// What the pictures of a request are made from.
pub(super) struct Condition<'a> {
    pub(super) request: &'a GenerateRequest,
    pub(super) positive: Conditioning,
    /// With guidance.
    pub(super) negative: Option<Conditioning>,
    /// The picture that it starts from.
    pub(super) picture: Option<Picture>,
    /// Width and height in pixels that the network makes.
    pub(super) size: (usize, usize),
}

/// What of a picture the network sees.
pub(super) struct Picture {
    /// `(h, w, c)`.
    pub(super) latents: Tensor,
    /// The part that is made anew.
    pub(super) part: Option<Part>,
}

/// A part of a picture that is made anew.
pub(super) struct Part {
    pub(super) area: Area,
    /// How much of each latent is made, `(h, w, 1)`.
    pub(super) mask: Tensor,
    /// Index of its sigmas.
    pub(super) sigmas: usize,
}

impl Run<'_> {
    /// What every request is made from. A prompt that several requests have is encoded once.
    pub(super) fn conditions<'a>(
        &self,
        requests: &'a [GenerateRequest],
    ) -> Vec<Result<Condition<'a>>> {
        let mut known = HashMap::new();
        let each = requests.iter().enumerate();
        each.map(|(i, request)| {
            self.condition(request, &mut known).map_err(|error| error.with("request", i))
        })
        .collect()
    }

    fn condition<'a>(
        &self,
        request: &'a GenerateRequest,
        known: &mut HashMap<(&'a str, bool), Conditioning>,
    ) -> Result<Condition<'a>> {
        request.check()?;
        let mut encode = |field: &'static str, prompt: &'a str| {
            if let Some(text) = known.get(&(prompt, request.as_is)) {
                return Ok(text.clone());
            }
            self.control.check()?;
            let text = self
                .encode(prompt, request.as_is)
                .map_err(|error: Error| error.with("field", field))?;
            known.insert((prompt, request.as_is), text.clone());
            Ok(text)
        };
        let positive = encode("prompt", &request.prompt)?;
        let negative = match self.options.is_guided() {
            true => Some(encode("negative_prompt", &request.negative_prompt)?),
            false => None,
        };
        let picture = match &request.image {
            Some(image) if request.is_inpainted() => Some(self.part(request, image)?),
            Some(image) => {
                let latents = self.picture(image).map_err(|error| error.with("field", "image"))?;
                Some(Picture { latents, part: None })
            }
            None => None,
        };
        let part = picture.as_ref().and_then(|picture| picture.part.as_ref());
        let size = part.map_or(self.size, |part| part.area.size());
        Ok(Condition { request, positive, negative, picture, size })
    }

    /// A picture of which a part is made anew.
    fn part(&self, request: &GenerateRequest, image: &Input) -> Result<Picture> {
        self.control.check()?;
        let decode = |field: &'static str, image: &Input| {
            image.clone().decode(&self.model.decode).map_err(|error| error.with("field", field))
        };
        let image = decode("image", image)?;
        let mask = request.mask.as_ref().map(|mask| decode("mask", mask)).transpose()?;
        let area = Area::new(&image, mask.as_ref(), request.outpaint, self.options)?;
        // At the sides there is nothing that could stay.
        let (strength, sigmas) = match request.outpaint.is_none() {
            true => (self.options.inpaint_strength, 2),
            false => (1.0, 0),
        };
        let (pixels, mask) = area.start(strength, MULTIPLE)?;
        let (width, height) = latents_of(area.size());
        let mask = Tensor::from_vec(mask, (height, width, 1), self.model.placement.candle())
            .map_err(|e| classify(e, "cannot lay out a mask"))?;
        let latents = self.latents(&pixels, area.size())?;
        Ok(Picture { latents, part: Some(Part { area, mask, sigmas }) })
    }

    /// The latents of a picture that is laid over white and stretched to the output's size.
    fn picture(&self, image: &Input) -> Result<Tensor> {
        self.control.check()?;
        let image = image.clone().decode(&self.model.decode)?;
        let from = (image.width() as usize, image.height() as usize);
        let (width, height) = self.size;
        let step = Step::Stretch { size: (width, height), filter: Filter::Lanczos };
        let pixels = apply_steps(&image.to_rgb8_over([255; 3]), from, &[step])?;
        self.latents(&pixels, (width, height))
    }

    /// The latents `(h, w, c)` of RGB pixels.
    fn latents(&self, pixels: &[u8], (width, height): (usize, usize)) -> Result<Tensor> {
        let values: Vec<f32> = pixels.iter().map(|v| f32::from(*v) / 127.5 - 1.0).collect();
        let device = self.model.placement.candle();
        Tensor::from_vec(values, (1, height, width, 3), device)
            .and_then(|values| self.model.vae.encode(&values)?.squeeze(0))
            .map_err(|e| classify(e, "cannot encode a picture"))
    }

    fn encode(&self, prompt: &str, as_is: bool) -> Result<Conditioning> {
        let texts = texts(prompt, as_is);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.texts.encode(&texts, texts.len(), self.options.clip_skip)
    }
}

/// Width and height in latents.
pub(super) fn latents_of((width, height): (usize, usize)) -> (usize, usize) {
    (width / MULTIPLE, height / MULTIPLE)
}

impl Condition<'_> {
    pub(super) fn part(&self) -> Option<&Part> {
        self.picture.as_ref()?.part.as_ref()
    }
}
