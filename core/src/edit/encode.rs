//! What the networks in front of the transformer make of a batch: latents of every picture, states of
//! every prompt.

use std::sync::Arc;

use candle_core::{DType, Tensor};

use super::Model;
use super::load::TextEncoder;
use super::prepare::{Batch, Picture, pictures_of, prompts_of};
use super::room::Room;
use super::vision::vae_input;
use crate::control::Control;
use crate::device::classify;
use crate::error::Result;
use crate::models::qwen_image::{Grid, pack};
use crate::models::qwen2_5_vl as vl;

/// Latents and states, in numbers of the batch's pictures and prompts.
pub(super) struct Encoded {
    /// Tokens `(n, channels)` in `f32`, and how they lie; nothing for pictures that no edit needs.
    pub(super) pictures: Vec<Option<(Tensor, Grid)>>,
    /// `(m, width)`; nothing for prompts that no edit needs.
    pub(super) prompts: Vec<Option<Tensor>>,
}

impl Encoded {
    pub(super) fn new(
        model: &Model,
        batch: &Batch,
        room: &Room,
        control: &Control,
    ) -> Result<Self> {
        let wanted = pictures_of(&batch.alive());
        let mut pictures = vec![None; batch.pictures.len()];
        let vae = model.vae()?;
        for i in &wanted {
            control.check()?;
            let picture = &batch.pictures[*i];
            let (width, height) = picture.size;
            let tokens = Tensor::from_vec(
                vae_input(&picture.pixels),
                (1, 3, height, width),
                model.placement.candle(),
            )
            .and_then(|pixels| pack(&vae.encode(&pixels.permute((0, 2, 3, 1))?.contiguous()?)?));
            let tokens = tokens.map_err(|e| classify(e, "cannot encode a picture"))?;
            let grid = Grid { rows: tokens.dims()[1], columns: tokens.dims()[2] };
            let tokens = tokens
                .reshape((grid.tokens(), ()))
                .and_then(|tokens| model.round(&tokens))
                .map_err(|e| classify(e, "cannot encode a picture"))?;
            pictures[*i] = Some((tokens, grid));
        }
        let encoder = model.text_encoder(room)?;
        let vectors = vectors(model, &encoder, batch, &wanted, control)?;
        let prompts = prompts(model, &encoder, batch, &vectors, control)?;
        Ok(Self { pictures, prompts })
    }
}

/// What the vision part makes of pictures.
fn vectors(
    model: &Model,
    encoder: &Arc<TextEncoder>,
    batch: &Batch,
    wanted: &[usize],
    control: &Control,
) -> Result<Vec<Option<Tensor>>> {
    let mut vectors = vec![None; batch.pictures.len()];
    let grid = |picture: &Picture| (picture.patches.grid[1], picture.patches.grid[2]);
    let sizes: Vec<usize> = wanted
        .iter()
        .map(|i| grid(&batch.pictures[*i]))
        .map(|(rows, columns)| rows * columns)
        .collect();
    for run in model.patch_runs(&sizes) {
        control.check()?;
        let count: usize = sizes[run.clone()].iter().sum();
        let pictures: Vec<&Picture> =
            wanted[run.clone()].iter().map(|i| &batch.pictures[*i]).collect();
        let values: Vec<f32> =
            pictures.iter().flat_map(|picture| &picture.patches.values).copied().collect();
        let grids: Vec<_> = pictures.iter().map(|picture| grid(picture)).collect();
        let values = Tensor::from_vec(
            values,
            (count, model.text_config.vision.patch()),
            model.placement.candle(),
        )
        .map_err(|e| classify(e, "cannot lay out patches"))?;
        let found = encoder.vision.encode(&values, &grids)?;
        for (i, found) in wanted[run].iter().zip(found) {
            vectors[*i] = Some(found);
        }
    }
    Ok(vectors)
}

/// What the language model makes of prompts.
fn prompts(
    model: &Model,
    encoder: &Arc<TextEncoder>,
    batch: &Batch,
    vectors: &[Option<Tensor>],
    control: &Control,
) -> Result<Vec<Option<Tensor>>> {
    let wanted = prompts_of(&batch.alive());
    let prompts: Vec<vl::Prompt> = wanted
        .iter()
        .map(|i| &batch.prompts[*i])
        .map(|prompt| vl::Prompt {
            ids: prompt.tokens.ids.clone(),
            dropped: prompt.tokens.dropped,
            pictures: prompt
                .pictures
                .iter()
                .zip(&prompt.tokens.pictures)
                .filter_map(|(i, tokens)| {
                    let [_, rows, columns] = batch.pictures[*i].patches.grid;
                    let vectors = vectors[*i].clone()?;
                    Some(vl::Picture { tokens: tokens.clone(), grid: (rows, columns), vectors })
                })
                .collect(),
        })
        .collect();
    let sizes: Vec<usize> = prompts.iter().map(|prompt| prompt.ids.len()).collect();
    let mut states = vec![None; batch.prompts.len()];
    for run in model.text_runs(&sizes) {
        control.check()?;
        let found = encoder.language.encode(&prompts[run.clone()])?;
        for (i, found) in wanted[run].iter().zip(found) {
            states[*i] = Some(found);
        }
    }
    Ok(states)
}

impl Model {
    /// Values in `f32`, rounded to the precision of the transformer.
    pub(super) fn round(&self, values: &Tensor) -> candle_core::Result<Tensor> {
        values.to_dtype(self.placement.dtype())?.to_dtype(DType::F32)
    }
}
