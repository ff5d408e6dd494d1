//! How a window of edits is done in the memory that is allowed: what its values take beside the weights,
//! and what of the networks stays.
//!
//! The numbers of values are counted from the networks' layers where they take the most, and rounded up;
//! `benches/edit_full_size.py` compares what they promise with what a process takes.

use std::collections::BTreeSet;

use super::Model;
use super::prepare::{Batch, Edit, pictures_of, prompts_of};
use super::request::Resolved;
use crate::diffusion::memory::{self, Bytes};
use crate::diffusion::runs;
use crate::error::{Error, Result};
use crate::models::qwen_image::Grid;
use crate::nn::Keep;
use crate::pixels::Size;

/// Rows of the transformer's width that a token takes in a block: the stream, queries, keys and values
/// before and after they are joined, and what attention packs; the feed-forward layers take less.
const TOKEN_ROWS: u64 = 18;
/// Rows of the language model's width, and of its feed-forward layers, that a token takes.
const TEXT_ROWS: (u64, u64) = (8, 3);
/// As `TEXT_ROWS`, for a patch in the vision part.
const PATCH_ROWS: (u64, u64) = (14, 3);
/// Copies of a patch's values while patches are handed over, in 32 bits.
const PATCH_COPIES: u64 = 3;
/// Pictures of the autoencoder's first width and of full size that are there at once, in 32 bits. The
/// last doubling takes most: its input, twice as wide as its result, is laid out in full.
const PICTURES: u64 = 4;
/// Bytes of a pixel of an output behind the autoencoder: as values, and as bytes.
const OUTPUT: u64 = 16;

/// Patches, or tokens, that one pass of the text encoder takes: enough to fill matrix products.
const TEXT_BUDGET: usize = 8192;
/// Tokens of one pass of the transformer, unless memory is bounded: beyond this a CPU does not gain by
/// more.
const BUDGET: usize = 16_384;
/// Requests whose pictures and prompts are encoded together. Their states wait in memory.
const WINDOW: usize = 32;
/// About what a request's pictures take before they are encoded, in bytes for each pixel of a reference.
const PREPARED: u64 = 48;

/// What stays in memory while a window of edits is worked on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Room {
    /// Whether the networks are in memory one after the other.
    pub(super) in_turn: bool,
    pub(super) language: Keep,
    pub(super) vision: Keep,
    pub(super) transformer: Keep,
}

/// Bytes of values in each phase of a window, beside weights.
#[derive(Clone, Copy, Debug, Default)]
struct Need {
    encode: u64,
    text: u64,
    denoise: u64,
    /// Whether the text encoder's blocks run once only.
    is_one_pass: bool,
}

impl Model {
    /// How loading goes about it: whether all networks can be there, and an error if none can.
    pub(super) fn room_to_load(&self) -> Result<Room> {
        self.room(&Need::default())
    }

    /// How the edits of a batch are done that have not failed, and how many outputs in one pass. Those
    /// for which there is no room fail; `first` is the number of the first, for error messages. An
    /// error if there is room for each of them, but not for all together.
    pub(super) fn room_for(
        &self,
        batch: &mut Batch,
        first: usize,
        options: &Resolved,
        variants: usize,
    ) -> Result<(Room, usize)> {
        for i in 0..batch.edits.len() {
            let Ok(edit) = &batch.edits[i] else { continue };
            // The least that this one can do with: its outputs one after the other.
            let need = self.need(batch, &[edit], options, 1, 1);
            if let Err(error) = self.room(&need) {
                batch.edits[i] = Err(error.with("request", first + i));
            }
        }
        let together = |most| {
            let need = self.need(batch, &batch.alive(), options, variants, most);
            Ok((self.room(&need)?, most))
        };
        together(self.batch_size).or_else(|_: Error| together(1))
    }

    fn room(&self, need: &Need) -> Result<Room> {
        let all = Keep::All;
        let stay = Room { in_turn: false, language: all, vision: all, transformer: all };
        let Some(memory) = self.max_memory else { return Ok(stay) };
        let vae = self.bytes_of_vae;
        let networks = [&self.bytes_of_language, &self.bytes_of_vision, &self.bytes_of_transformer];
        let weights = networks.map(Bytes::total).iter().fold(vae, |a, b| a.saturating_add(*b));
        let most = need.encode.max(need.text).max(need.denoise);
        if memory::check(memory, weights.saturating_add(most)).is_ok() {
            return Ok(stay);
        }
        memory::check(memory, vae.saturating_add(need.encode))?;
        let [language, vision, transformer] = networks;
        let [language, vision] =
            memory::keep([language, vision], memory, vae.saturating_add(need.text))?;
        let [transformer] = memory::keep([transformer], memory, vae.saturating_add(need.denoise))?;
        let of_text = |blocks| Keep::First(if need.is_one_pass { 0 } else { blocks });
        Ok(Room {
            in_turn: true,
            language: of_text(language),
            vision: of_text(vision),
            transformer: Keep::First(transformer),
        })
    }

    /// `variants` are made of each edit, and at most `most` outputs in one pass.
    fn need(
        &self,
        batch: &Batch,
        edits: &[&Edit],
        options: &Resolved,
        variants: usize,
        most: usize,
    ) -> Need {
        let pictures: Vec<_> = pictures_of(edits).into_iter().map(|i| &batch.pictures[i]).collect();
        let prompts: Vec<_> =
            prompts_of(edits).into_iter().map(|i| &batch.prompts[i].tokens).collect();
        let prepared: u64 = pictures
            .iter()
            .map(|picture| (picture.pixels.len() + 4 * picture.patches.values.len()) as u64)
            .sum();
        let largest = pictures.iter().map(|picture| pixels(picture.size)).max().unwrap_or_default();

        let lengths: Vec<_> = prompts.iter().map(|tokens| tokens.ids.len()).collect();
        let patches: Vec<_> =
            pictures.iter().map(|picture| picture.patches.grid.iter().product()).collect();
        let (of_lengths, of_patches) = (self.text_runs(&lengths), self.patch_runs(&patches));
        let text = largest_run(&of_lengths, &lengths) * self.bytes_of_text_token();
        let vision = largest_run(&of_patches, &patches) * self.bytes_of_patch();

        let states = lengths.iter().sum::<usize>() as u64 * self.bytes_of_state();
        let latents: u64 = pictures.iter().map(|picture| pixels(picture.size)).sum();
        let kept = states + latents * 4;
        let outputs: Vec<&Edit> =
            edits.iter().flat_map(|edit| std::iter::repeat_n(*edit, variants)).collect();
        let tokens: Vec<_> = outputs.iter().map(|edit| self.tokens(batch, edit)).collect();
        let denoise = runs(&tokens, self.budget(), most).into_iter().map(|run| {
            let count: usize = tokens[run.clone()].iter().sum();
            let sizes: Vec<_> = outputs[run].iter().map(|edit| edit.size).collect();
            let decoded = sizes.iter().copied().map(pixels).sum::<u64>() * OUTPUT;
            let largest = sizes.iter().copied().map(pixels).max().unwrap_or_default();
            let decode = decoded + self.bytes_of_picture(largest);
            let schedules: BTreeSet<_> =
                sizes.iter().map(|size| self.grid_of(*size).tokens()).collect();
            let steps = (schedules.len() * options.recipe.steps) as u64;
            let modulations = steps * self.bytes_of_modulation();
            modulations + decode.max(count as u64 * self.bytes_of_token())
        });
        Need {
            encode: prepared + self.bytes_of_picture(largest),
            text: prepared + kept + text.max(vision),
            denoise: prepared + kept + denoise.max().unwrap_or_default(),
            is_one_pass: of_lengths.len() <= 1 && of_patches.len() <= 1,
        }
    }

    /// Tokens of all passes of a step of one output.
    fn tokens(&self, batch: &Batch, edit: &Edit) -> usize {
        let references =
            edit.pictures.iter().map(|i| self.grid_of(batch.pictures[*i].size).tokens());
        let pictures = self.grid_of(edit.size).tokens() + references.sum::<usize>();
        let texts = std::iter::once(edit.positive).chain(edit.negative);
        texts.map(|i| pictures + batch.prompts[i].tokens.ids.len()).sum()
    }

    pub(super) fn grid_of(&self, (width, height): Size) -> Grid {
        Grid { rows: height / self.grid, columns: width / self.grid }
    }

    /// Requests that are encoded together.
    pub(super) fn window(&self, options: &Resolved) -> usize {
        let Some(memory) = self.max_memory else { return WINDOW };
        let request = PREPARED * options.recipe.area as u64;
        ((memory / 8 / request.max(1)) as usize).clamp(1, WINDOW)
    }

    /// Tokens of one pass. Where blocks are read again in every pass, a pass should have many.
    pub(super) fn budget(&self) -> usize {
        let Some(memory) = self.max_memory else { return BUDGET };
        let tokens = memory / 4 / self.bytes_of_token().max(1);
        (tokens as usize).clamp(BUDGET / 16, 4 * BUDGET)
    }

    /// Cuts prompts of so many tokens into passes.
    pub(super) fn text_runs(&self, tokens: &[usize]) -> Vec<std::ops::Range<usize>> {
        runs(tokens, self.text_budget(self.bytes_of_text_token()), usize::MAX)
    }

    /// Cuts pictures of so many patches into passes.
    pub(super) fn patch_runs(&self, patches: &[usize]) -> Vec<std::ops::Range<usize>> {
        runs(patches, self.text_budget(self.bytes_of_patch()), usize::MAX)
    }

    fn text_budget(&self, bytes: u64) -> usize {
        let Some(memory) = self.max_memory else { return TEXT_BUDGET };
        ((memory / 4 / bytes.max(1)) as usize).clamp(TEXT_BUDGET / 16, TEXT_BUDGET)
    }

    fn size(&self) -> u64 {
        self.placement.dtype().size_in_bytes() as u64
    }

    fn bytes_of_token(&self) -> u64 {
        TOKEN_ROWS * self.transformer_config.width() as u64 * self.size()
    }

    fn bytes_of_text_token(&self) -> u64 {
        let config = &self.text_config.text;
        let (widths, inner) = TEXT_ROWS;
        (widths * config.hidden_size as u64 + inner * config.intermediate_size as u64) * self.size()
    }

    fn bytes_of_patch(&self) -> u64 {
        let config = &self.text_config.vision;
        let (widths, inner) = PATCH_ROWS;
        let values = widths * config.hidden_size as u64 + inner * config.intermediate_size as u64;
        values * self.size() + 4 * PATCH_COPIES * config.patch() as u64
    }

    fn bytes_of_state(&self) -> u64 {
        self.text_config.text.hidden_size as u64 * self.size()
    }

    /// Of a picture of so many pixels in the autoencoder.
    fn bytes_of_picture(&self, pixels: u64) -> u64 {
        let config = &self.vae_config;
        let first = config.dim_mult.first().copied().unwrap_or(1) * config.base_dim;
        4 * PICTURES * (first as u64).saturating_mul(pixels)
    }

    /// Of the modulation of one step: with time 0 it is half as much again for the first step only.
    fn bytes_of_modulation(&self) -> u64 {
        let config = &self.transformer_config;
        12 * (config.num_layers * config.width()) as u64 * self.size()
    }
}

fn pixels((width, height): Size) -> u64 {
    (width as u64).saturating_mul(height as u64)
}

fn largest_run(runs: &[std::ops::Range<usize>], sizes: &[usize]) -> u64 {
    runs.iter().map(|run| sizes[run.clone()].iter().sum::<usize>()).max().unwrap_or_default() as u64
}
