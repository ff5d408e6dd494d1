//! How pictures are made in the memory that is allowed: what their values take beside the weights, and what of the
//! networks stays.
//!
//! Pictures are encoded, then prompts, then there is denoising and decoding. With a bound, and if not all networks fit
//! beside the values of such a phase, those of other phases make room. The numbers of values are counted from the
//! networks' layers where they take the most, and rounded up; `benches/generate_full_size.py` compares what they promise
//! with what a process takes.

use std::collections::HashSet;

use candle_core::DType;

use super::Model;
use super::condition::{Condition, latents_of};
use super::options::{GenerateOptions, Start};
use super::prompt::encode::MOST_CHUNKS;
use super::run::BUDGET;
use super::upscale::Upscaler;
use crate::device::Placement;
use crate::diffusion::memory::{self, Bytes, Share};
use crate::diffusion::runs;
use crate::error::{Error, Result};
use crate::kernels::linear::bytes_of;
use crate::models::clip::ClipTextConfig;
use crate::models::sdxl::{AutoencoderConfig, UnetConfig};
use crate::nn::Keep;
use crate::weights::Source;

/// Rows of the denoising network's first width that a latent takes at full size: what is set aside on the way down, and
/// the way up with its input behind it, normalised, and its result.
const LATENT_ROWS: u64 = 14;
/// Rows of a text encoder's width, and of its feed-forward layers, that a token takes.
const TEXT_ROWS: (u64, u64) = (10, 3);
/// Pictures of the autoencoder's first width and of full size that are there at once, in 32 bits.
const PICTURES: u64 = 5;
/// Bytes of a pixel of an output behind the autoencoder: as values, and as bytes.
const OUTPUT: u64 = 16;
/// Bytes of a pixel of a picture that is brought to another size: as bytes, and as values.
const PREPARED: u64 = 48;
/// Sides of the tiles in which large pictures go through the autoencoder, in pixels.
const TILE: u64 = 512;

/// What pictures go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Pictures,
    Texts,
    /// Whether the network is needed with the patch of the inpaint engine, and the refiner.
    Denoising {
        patched: bool,
        refined: bool,
    },
}

/// What of the networks may be in memory; nothing where they make room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Room {
    /// Of the text encoders, the smaller one first.
    pub(super) texts: Option<[Keep; 2]>,
    /// Of the denoising network, of the same with the patch of the inpaint engine, and of the refiner.
    pub(super) denoising: Option<[Keep; 3]>,
}

impl Room {
    /// All of them.
    const ALL: Self = Self { texts: Some([Keep::All; 2]), denoising: Some([Keep::All; 3]) };

    /// Whether all networks can be there at once.
    pub(super) fn is_for_all(&self) -> bool {
        *self == Self::ALL
    }
}

/// How much memory there is, and what of it weights take.
pub(super) struct Memory {
    /// The bound, if there is one.
    most: Option<u64>,
    texts: [Bytes; 2],
    unet: Bytes,
    refiner: Bytes,
    /// Autoencoder and upscaler, which are always there.
    fixed: u64,
    /// What a text of the most tokens that are encoded at once takes beside weights.
    text: u64,
    /// What a pixel takes in the autoencoder, and a latent in the denoising network.
    pixel: u64,
    latent: u64,
    /// What prompts take for each of their tokens: in the denoising network, and in the refiner.
    tokens: [u64; 2],
}

impl Memory {
    /// Of the networks of a model: the text encoders and the denoising network with their sizes, the refiner and the
    /// upscaler if there are such, and the autoencoder.
    pub(super) fn new(
        most: Option<u64>,
        placement: &Placement,
        ([small, large, unet], configs): ([Bytes; 3], (&[ClipTextConfig; 2], &UnetConfig)),
        refiner: Option<(&UnetConfig, &dyn Source)>,
        upscaler: Option<&Upscaler>,
        vae: (&AutoencoderConfig, &dyn Source),
    ) -> Self {
        let size = placement.dtype().size_in_bytes() as u64;
        let (texts, config) = configs;
        let text = |config: &ClipTextConfig| {
            let (widths, inner) = TEXT_ROWS;
            let values =
                widths * config.hidden_size as u64 + inner * config.intermediate_size as u64;
            MOST_CHUNKS as u64 * config.max_position_embeddings as u64 * values * size
        };
        let first = |config: &UnetConfig| config.stages[0].channels as u64;
        let widest = refiner.map_or(0, |(config, _)| first(config)).max(first(config));
        let values = |config: &UnetConfig| config.text_values() as u64 * size;
        Self {
            most,
            texts: [small, large],
            unet,
            refiner: refiner.map_or(Bytes::default(), |part| bytes_of_unet(part, placement)),
            fixed: bytes_in_f32(vae.1, placement) + upscaler.map_or(0, Upscaler::bytes),
            text: texts.iter().map(text).max().unwrap_or_default(),
            pixel: 4 * PICTURES * vae.0.block_out_channels.first().map_or(0, |c| *c as u64),
            latent: LATENT_ROWS * widest * size,
            tokens: [values(config), refiner.map_or(0, |(config, _)| values(config))],
        }
    }

    /// How loading goes about it: whether all networks can be there. An error if some phase has no room.
    pub(super) fn room_to_load(&self, patched: bool) -> Result<Room> {
        let Some(memory) = self.most else { return Ok(Room::ALL) };
        let refined = self.refiner != Bytes::default();
        // The message says what all phases can do with.
        let [small, large] = &self.texts;
        let patch = if patched { self.unet } else { Bytes::default() };
        let texts = memory::least([small, large], self.fixed.saturating_add(self.text));
        let denoising = memory::least([&self.unet, &patch, &self.refiner], self.fixed);
        memory::check(memory, texts.max(denoising))?;
        let phases = [Phase::Pictures, Phase::Texts, Phase::Denoising { patched, refined }];
        let rooms = phases.map(|phase| self.room(phase, 0, patched));
        let [pictures, texts, denoising] = rooms;
        let rooms = [pictures?, texts?, denoising?];
        let in_turn = rooms.into_iter().find(|room| !room.is_for_all());
        Ok(in_turn.unwrap_or(Room::ALL))
    }

    /// What may be in memory in a phase beside `values` bytes, where there is an inpaint engine if `has_patch`.
    fn room(&self, phase: Phase, values: u64, has_patch: bool) -> Result<Room> {
        let Some(memory) = self.most else { return Ok(Room::ALL) };
        let values = values.saturating_add(if phase == Phase::Texts { self.text } else { 0 });
        let fixed = self.fixed.saturating_add(values);
        let (none, [small, large]) = (Bytes::default(), &self.texts);
        let patch = if has_patch { &self.unet } else { &none };
        let all = [small, large, &self.unet, patch, &self.refiner];
        let all = all.iter().fold(fixed, |sum, network| sum.saturating_add(network.total()));
        if memory::check(memory, all).is_ok() {
            return Ok(Room::ALL);
        }
        let first = |blocks: usize, bytes: &Bytes| match blocks == bytes.blocks {
            true => Keep::All,
            false => Keep::First(blocks),
        };
        match phase {
            Phase::Pictures => {
                memory::check(memory, fixed)?;
                Ok(Room { texts: None, denoising: None })
            }
            Phase::Texts => {
                let [s, l] = memory::keep([small, large], memory, fixed)?;
                Ok(Room { texts: Some([first(s, small), first(l, large)]), denoising: None })
            }
            Phase::Denoising { patched, refined } => {
                let patch = if patched { &self.unet } else { &none };
                let refiner = if refined { &self.refiner } else { &none };
                let networks = [&self.unet, patch, refiner];
                let [u, p, r] = memory::keep(networks, memory, fixed)?;
                let denoising = [first(u, &self.unet), first(p, patch), first(r, refiner)];
                Ok(Room { texts: None, denoising: Some(denoising) })
            }
        }
    }
}

/// A picture on its way to what the network sees of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prepared {
    /// Pixels of the pictures that are there.
    pub(super) pixels: usize,
    /// Pixels of what goes through the autoencoder, and whether in tiles.
    pub(super) encoded: usize,
    pub(super) is_tiled: bool,
    /// What the upscaler takes.
    pub(super) upscaler: u64,
}

impl Model {
    /// Makes room for a phase of pictures that takes `values` bytes beside the weights.
    pub(super) fn make_room(&self, phase: Phase, values: u64) -> Result<()> {
        let room = self.memory.room(phase, values, self.networks.has_inpaint())?;
        self.networks.make_room(&room);
        if let Some(refiner) = &self.refiner {
            refiner.network.make_room(room.denoising.map(|[_, _, keep]| keep));
        }
        Ok(())
    }

    /// Makes room for a picture that is made ready, whose values are counted only if there is a bound.
    pub(super) fn room_for_picture(&self, picture: Prepared) -> Result<()> {
        let Prepared { pixels, encoded, is_tiled, upscaler } = picture;
        let values = self.of_pixels(encoded as u64, is_tiled).max(upscaler);
        self.make_room(Phase::Pictures, values.saturating_add(PREPARED * pixels as u64))
    }

    /// Makes room for the pictures of conditions, `options.n` of each, and says how many may be made in one pass.
    /// Conditions for which there is none fail; `first` is the number of the first, for error messages. An error if there
    /// is room for each of them, but not for all together.
    pub(super) fn room_for(
        &self,
        conditions: &mut [Result<Condition<'_>>],
        first: usize,
        options: &GenerateOptions,
        refined: bool,
    ) -> Result<usize> {
        let has_patch = self.networks.has_inpaint();
        let phase = |conditions: &[&Condition<'_>]| Phase::Denoising {
            patched: conditions.iter().any(|condition| condition.features().is_some()),
            refined,
        };
        for (i, condition) in conditions.iter_mut().enumerate() {
            let Ok(alone) = condition else { continue };
            let need = self.need(&[&*alone], options, refined, 1);
            if let Err(error) = self.memory.room(phase(&[&*alone]), need, has_patch) {
                *condition = Err(error.with("request", first + i));
            }
        }
        let alive: Vec<_> = conditions.iter().filter_map(|made| made.as_ref().ok()).collect();
        let together = |most| {
            let need = self.need(&alive, options, refined, most);
            self.make_room(phase(&alive), need).map(|()| most)
        };
        together(self.batch_size).or_else(|_: Error| together(1))
    }

    /// Bytes of values while the pictures of conditions are made, at most `most` of them in one pass.
    fn need(
        &self,
        conditions: &[&Condition<'_>],
        options: &GenerateOptions,
        refined: bool,
        most: usize,
    ) -> u64 {
        let kept: u64 = conditions.iter().map(|condition| condition.bytes()).sum();
        let outputs: Vec<&&Condition<'_>> = conditions
            .iter()
            .filter(|condition| condition.made.is_none())
            .flat_map(|condition| std::iter::repeat_n(condition, options.n))
            .collect();
        let latents: Vec<usize> =
            outputs.iter().map(|output| output.latents(options.is_guided())).collect();
        let runs = runs(&latents, BUDGET, most).into_iter().map(|run| {
            let count: usize = latents[run.clone()].iter().sum();
            let outputs = &outputs[run];
            let of = |output: &&&Condition<'_>| {
                self.of_pixels(output.pixels(), output.start() == Start::Larger)
            };
            let decoded = outputs.iter().map(|output| output.pixels()).sum::<u64>() * OUTPUT;
            let decode = decoded + outputs.iter().map(of).max().unwrap_or_default();
            let prompts: HashSet<_> = outputs
                .iter()
                .flat_map(|output| {
                    let (request, texts) = (output.request, output.texts.as_ref());
                    let positive = texts.map(|texts| (&request.prompt, false, &texts.positive));
                    let negative = texts.and_then(|texts| {
                        Some((&request.negative_prompt, true, texts.negative.as_ref()?))
                    });
                    let texts = [positive, negative].into_iter().flatten();
                    texts.map(move |(prompt, is_negative, text)| {
                        (prompt.as_str(), request.as_is, is_negative, text.tokens())
                    })
                })
                .collect();
            let tokens: usize = prompts.iter().map(|(.., tokens)| *tokens).sum();
            let patched = outputs.iter().any(|output| output.features().is_some());
            let [of_unet, of_refiner] = self.memory.tokens;
            let of_token = of_unet * if patched { 2 } else { 1 } + u64::from(refined) * of_refiner;
            tokens as u64 * of_token + decode.max(count as u64 * self.memory.latent)
        });
        kept + runs.max().unwrap_or_default()
    }

    /// Bytes of a picture of so many pixels in the autoencoder.
    fn of_pixels(&self, pixels: u64, is_tiled: bool) -> u64 {
        match is_tiled {
            true => self.memory.pixel * pixels.min(TILE * TILE) + OUTPUT * pixels,
            false => self.memory.pixel.saturating_mul(pixels),
        }
    }
}

impl Condition<'_> {
    /// Pixels of what the network makes.
    fn pixels(&self) -> u64 {
        let (width, height) = self.size;
        (width as u64).saturating_mul(height as u64)
    }

    /// Latents of all passes of a step of one picture.
    pub(super) fn latents(&self, is_guided: bool) -> usize {
        let (width, height) = latents_of(self.size);
        if is_guided { 2 * width * height } else { width * height }
    }
}

/// Bytes of a text encoder, as it is used.
pub(super) fn bytes_of_text_encoder(
    (config, source): (&ClipTextConfig, &dyn Source),
    placement: &Placement,
) -> Bytes {
    let (dtype, device) = (placement.dtype(), placement.candle());
    Bytes::of(source, config.num_hidden_layers, |name, shape| match name {
        _ if name.contains("encoder.layers.") => Share::Block(bytes_of(shape, dtype, device)),
        // They are looked up as they are stored.
        _ => Share::Rest(shape.iter().product::<usize>() as u64 * dtype.size_in_bytes() as u64),
    })
}

/// Bytes of a denoising network, as it is used.
pub(super) fn bytes_of_unet(
    (config, source): (&UnetConfig, &dyn Source),
    placement: &Placement,
) -> Bytes {
    let (dtype, device) = (placement.dtype(), placement.candle());
    Bytes::of(source, config.large_layers(), |name, shape| match config.is_of_large_layer(name) {
        true => Share::Block(bytes_of(shape, dtype, device)),
        false => Share::Rest(bytes_of(shape, dtype, device)),
    })
}

/// Bytes of a network that is in `f32` always, as it is used.
pub(super) fn bytes_in_f32(source: &dyn Source, placement: &Placement) -> u64 {
    let device = placement.candle();
    Bytes::of(source, 1, |_, shape| Share::Rest(bytes_of(shape, DType::F32, device))).total()
}

#[cfg(test)]
mod tests;
