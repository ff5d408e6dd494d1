//! What the pictures of a request are made from: prompts as states, pictures as latents.

use std::cell::LazyCell;
use std::collections::HashMap;

use candle_core::Tensor;

use super::aspect::class;
use super::inpaint::{Area, Seen};
use super::options::{GenerateRequest, Start};
use super::prompt::encode::{Conditioning, TextEncoders};
use super::prompt::lines::texts;
use super::recipe::MULTIPLE;
use super::room::{Phase, Prepared};
use super::run::Run;
use super::upscale::{Upscale, larger, whole_multiples};
use crate::device::classify;
use crate::error::{Error, Result};
use crate::pixels::{Filter, Image, Input, Step, apply_steps};

/// What the pictures of a request are made from.
pub(super) struct Condition<'a> {
    pub(super) request: &'a GenerateRequest,
    /// Nothing where nothing is left to be made.
    pub(super) texts: Option<Texts>,
    /// The picture that it starts from.
    pub(super) picture: Option<Picture>,
    /// Width and height in pixels that the network makes.
    pub(super) size: (usize, usize),
    /// The answer, where nothing is left to be made.
    pub(super) made: Option<Image>,
    /// What its pictures say of how they were made.
    pub(super) notes: Vec<String>,
}

/// The prompts of a request.
pub(super) struct Texts {
    pub(super) positive: Conditioning,
    /// With guidance.
    pub(super) negative: Option<Conditioning>,
}

impl Texts {
    /// Bytes that they take.
    fn bytes(&self) -> u64 {
        self.positive.bytes() + self.negative.as_ref().map_or(0, Conditioning::bytes)
    }
}

/// What of a picture the network sees.
pub(super) struct Picture {
    /// `(h, w, c)`.
    pub(super) latents: Tensor,
    /// The part that is made anew.
    pub(super) part: Option<Part>,
    /// Which sigmas it goes through.
    pub(super) start: Start,
}

/// A part of a picture that is made anew.
pub(super) struct Part {
    pub(super) area: Area,
    /// How much of each latent is made, `(h, w, 1)`.
    pub(super) mask: Tensor,
    /// What the inpaint engine tells the network, where there is one: `(h, w, c)`.
    pub(super) features: Option<Tensor>,
}

/// What a request has besides prompts.
struct Beginning {
    picture: Option<Picture>,
    size: (usize, usize),
    made: Option<Image>,
    notes: Vec<String>,
}

/// A picture that was made larger.
enum Larger {
    /// The answer.
    Final(Image),
    /// What is started from, and its width and height.
    Start(Picture, (usize, usize)),
}

impl Run<'_> {
    /// What every request is made from; the first one has this number. A prompt that several requests have is encoded
    /// once.
    pub(super) fn conditions<'a>(
        &self,
        requests: &'a [GenerateRequest],
        first: usize,
    ) -> Vec<Result<Condition<'a>>> {
        let beginnings: Vec<_> = requests.iter().map(|request| self.begin(request)).collect();
        let kept = beginnings.iter().flatten().map(Beginning::bytes).sum();
        let encoders = LazyCell::new(|| {
            self.model.make_room(Phase::Texts, kept)?;
            self.model.networks.texts()
        });
        let mut known = HashMap::new();
        let mut condition = |request, beginning: Beginning| {
            let Beginning { picture, size, made, notes } = beginning;
            let texts = match made {
                Some(_) => None,
                None => {
                    let encoders = encoders.as_ref().map_err(Error::again)?;
                    Some(self.texts(request, encoders, &mut known)?)
                }
            };
            Ok(Condition { request, texts, picture, size, made, notes })
        };
        let each = requests.iter().zip(beginnings).enumerate();
        each.map(|(i, (request, beginning))| {
            let made = beginning.and_then(|beginning| condition(request, beginning));
            made.map_err(|error: Error| error.with("request", first + i))
        })
        .collect()
    }

    fn texts<'a>(
        &self,
        request: &'a GenerateRequest,
        encoders: &TextEncoders,
        known: &mut HashMap<(&'a str, bool), Conditioning>,
    ) -> Result<Texts> {
        let mut encode = |field: &'static str, prompt: &'a str| {
            if let Some(text) = known.get(&(prompt, request.as_is)) {
                return Ok(text.clone());
            }
            self.control.check()?;
            let text = self
                .encode(encoders, prompt, request.as_is)
                .map_err(|error: Error| error.with("field", field))?;
            known.insert((prompt, request.as_is), text.clone());
            Ok(text)
        };
        let positive = encode("prompt", &request.prompt)?;
        let negative = match self.options.is_guided() {
            true => Some(encode("negative_prompt", &request.negative_prompt)?),
            false => None,
        };
        Ok(Texts { positive, negative })
    }

    /// All of a request but its prompts.
    fn begin(&self, request: &GenerateRequest) -> Result<Beginning> {
        request.check()?;
        let (mut notes, mut made, mut size) = (Vec::new(), None, self.size);
        let picture = match (&request.image, request.upscale) {
            (Some(image), Some(upscale)) => {
                let larger = self.larger(image, upscale);
                match larger.map_err(|error| error.with("field", "image"))? {
                    (Larger::Final(image), said) => {
                        (made, notes) = (Some(image), said);
                        None
                    }
                    (Larger::Start(picture, of_picture), said) => {
                        (size, notes) = (of_picture, said);
                        Some(picture)
                    }
                }
            }
            (Some(image), None) if request.is_inpainted() => Some(self.part(request, image)?),
            (Some(image), None) => {
                let latents = self.picture(image).map_err(|error| error.with("field", "image"))?;
                Some(Picture { latents, part: None, start: Start::Picture })
            }
            (None, _) => None,
        };
        let part = picture.as_ref().and_then(|picture| picture.part.as_ref());
        let size = part.map_or(size, |part| part.area.size());
        Ok(Beginning { picture, size, made, notes })
    }

    /// A picture that is made larger, and what is to be said about it.
    fn larger(&self, image: &Input, upscale: Upscale) -> Result<(Larger, Vec<String>)> {
        self.control.check()?;
        let image = image.clone().decode(&self.model.decode)?;
        let (network, of_model) = (self.model.upscaler.as_ref(), self.model.training.size);
        let from = (image.width() as usize, image.height() as usize);
        let ((width, height), _) = upscale.size(from, of_model);
        self.model.room_for_picture(Prepared {
            pixels: width * height,
            encoded: width * height,
            is_tiled: true,
            upscaler: network.map_or(0, |network| network.bytes_of(from)),
        })?;
        let made = larger(&image, upscale, of_model, network, &|| self.control.check())?;
        if made.is_final {
            let (width, height) = made.size;
            let image = Image::from_rgb8(width as u32, height as u32, made.pixels)?;
            return Ok((Larger::Final(image), made.notes));
        }
        let (pixels, (width, height)) = whole_multiples(made.pixels, made.size, MULTIPLE);
        let picture = self.values(&pixels, (width, height))?;
        let latents = self.model.encode_tiled(&picture, MULTIPLE, self.control)?;
        let picture = Picture { latents, part: None, start: Start::Larger };
        Ok((Larger::Start(picture, (width, height)), made.notes))
    }

    /// A picture of which a part is made anew.
    fn part(&self, request: &GenerateRequest, image: &Input) -> Result<Picture> {
        self.control.check()?;
        let decode = |field: &'static str, image: &Input| {
            image.clone().decode(&self.model.decode).map_err(|error| error.with("field", field))
        };
        let image = decode("image", image)?;
        let mask = request.mask.as_ref().map(|mask| decode("mask", mask)).transpose()?;
        let class = class(self.model.training.size);
        let area = Area::new(&image, mask.as_ref(), request.outpaint, self.options, class)?;
        // At the sides there is nothing that could stay.
        let (strength, start) = match request.outpaint.is_none() {
            true => (self.options.inpaint_strength, Start::Part),
            false => (1.0, Start::Noise),
        };
        let network = self.model.upscaler.as_ref();
        let (width, height) = area.size();
        self.model.room_for_picture(Prepared {
            pixels: area.pixels(),
            encoded: width * height,
            is_tiled: false,
            upscaler: network.map_or(0, |network| network.bytes_of(area.seen())),
        })?;
        let larger = |pixels: &[u8], size| match &self.model.upscaler {
            Some(network) => network.larger(pixels, size, &|| self.control.check()).map(Some),
            None => Ok(None),
        };
        let Seen { pixels, masked, mask } = area.start(strength, (MULTIPLE, class), &larger)?;
        let (width, height) = latents_of(area.size());
        let mask = Tensor::from_vec(mask, (height, width, 1), self.model.placement.candle())
            .map_err(|e| classify(e, "cannot lay out a mask"))?;
        let latents = self.latents(&pixels, area.size())?;
        let features = match &self.inpaint_head {
            Some(head) => Some(head.forward(&mask, &self.encoded(masked, area.size())?)?),
            None => None,
        };
        Ok(Picture { latents, part: Some(Part { area, mask, features }), start })
    }

    /// The latents of a picture that is laid over white and stretched to the output's size.
    fn picture(&self, image: &Input) -> Result<Tensor> {
        self.control.check()?;
        let image = image.clone().decode(&self.model.decode)?;
        let from = (image.width() as usize, image.height() as usize);
        let (width, height) = self.size;
        let (pixels, encoded) = (from.0 * from.1, width * height);
        self.model.room_for_picture(Prepared { pixels, encoded, ..Prepared::default() })?;
        let step = Step::Stretch { size: (width, height), filter: Filter::Lanczos };
        let pixels = apply_steps(&image.to_rgb8_over([255; 3]), from, &[step])?;
        self.latents(&pixels, (width, height))
    }

    /// The latents `(h, w, c)` of RGB pixels.
    fn latents(&self, pixels: &[u8], size: (usize, usize)) -> Result<Tensor> {
        self.encoded(pixels.iter().map(|v| f32::from(*v) / 127.5 - 1.0).collect(), size)
    }

    /// The latents `(h, w, c)` of values from -1 to 1.
    fn encoded(&self, values: Vec<f32>, (width, height): (usize, usize)) -> Result<Tensor> {
        let device = self.model.placement.candle();
        Tensor::from_vec(values, (1, height, width, 3), device)
            .and_then(|values| self.model.vae.encode(&values)?.squeeze(0))
            .map_err(|e| classify(e, "cannot encode a picture"))
    }

    /// RGB pixels `(1, h, w, 3)` as the autoencoder takes them.
    fn values(&self, pixels: &[u8], (width, height): (usize, usize)) -> Result<Tensor> {
        let values: Vec<f32> = pixels.iter().map(|v| f32::from(*v) / 127.5 - 1.0).collect();
        let device = self.model.placement.candle();
        Tensor::from_vec(values, (1, height, width, 3), device)
            .map_err(|e| classify(e, "cannot encode a picture"))
    }

    fn encode(&self, encoders: &TextEncoders, prompt: &str, as_is: bool) -> Result<Conditioning> {
        let texts = texts(prompt, as_is);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        encoders.encode(&texts, texts.len(), self.options.clip_skip)
    }
}

/// Width and height in latents.
pub(super) fn latents_of((width, height): (usize, usize)) -> (usize, usize) {
    (width / MULTIPLE, height / MULTIPLE)
}

impl Beginning {
    /// Bytes that it takes.
    fn bytes(&self) -> u64 {
        bytes(self.picture.as_ref(), self.made.as_ref())
    }
}

/// Bytes of what the network sees of a picture, and of a picture that is there already.
fn bytes(picture: Option<&Picture>, made: Option<&Image>) -> u64 {
    let values = |tensor: &Tensor| 4 * tensor.elem_count() as u64;
    let part = |part: &Part| {
        // Its pixels, and how much of each is made.
        let area = 4 * part.area.pixels() as u64;
        area + values(&part.mask) + part.features.as_ref().map_or(0, values)
    };
    let seen = |picture: &Picture| values(&picture.latents) + picture.part.as_ref().map_or(0, part);
    picture.map_or(0, seen) + made.map_or(0, |made| made.pixels().len() as u64)
}

impl Condition<'_> {
    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> u64 {
        self.texts.as_ref().map_or(0, Texts::bytes)
            + bytes(self.picture.as_ref(), self.made.as_ref())
    }

    pub(super) fn part(&self) -> Option<&Part> {
        self.picture.as_ref()?.part.as_ref()
    }

    /// What the inpaint engine tells the network of it.
    pub(super) fn features(&self) -> Option<&Tensor> {
        self.part()?.features.as_ref()
    }

    /// What its pictures are started from.
    pub(super) fn start(&self) -> Start {
        self.picture.as_ref().map_or(Start::Noise, |picture| picture.start)
    }
}
