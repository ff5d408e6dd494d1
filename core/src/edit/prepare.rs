//! From requests to what the networks get: pictures decoded and resampled, prompts as tokens. Equal
//! pictures and equal prompts are made once, whatever requests they are in.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use rayon::prelude::*;

use super::Model;
use super::prompt::PromptTokens;
use super::request::{EditRequest, Resolved};
use super::vision::{Patches, resize_lanczos};
use crate::error::{Error, Result};
use crate::pixels::{DecodeOptions, Input, Size};

/// A reference picture, as both networks that look at it want it.
pub(super) struct Picture {
    /// RGB pixels for the autoencoder, and their size.
    pub(super) pixels: Vec<u8>,
    pub(super) size: Size,
    pub(super) patches: Patches,
}

/// A prompt about pictures.
pub(super) struct Prompt {
    pub(super) tokens: PromptTokens,
    /// The numbers of its pictures in the batch.
    pub(super) pictures: Vec<usize>,
}

/// One edit, in numbers of its batch's pictures and prompts.
pub(super) struct Edit {
    pub(super) pictures: Vec<usize>,
    pub(super) size: Size,
    pub(super) positive: usize,
    pub(super) negative: Option<usize>,
}

/// Requests that are worked on together.
pub(super) struct Batch {
    pub(super) pictures: Vec<Picture>,
    pub(super) prompts: Vec<Prompt>,
    /// One for each request.
    pub(super) edits: Vec<Result<Edit>>,
}

/// A decoded picture over white.
type Pixels = (Size, Arc<Vec<u8>>);

impl Batch {
    /// `number` is that of the first request, for error messages.
    pub(super) fn new(
        model: &Model,
        requests: &[EditRequest],
        number: usize,
        options: &Resolved,
    ) -> Self {
        let decoded: Vec<Result<Vec<Pixels>>> = requests
            .par_iter()
            .map(|request| {
                request.check()?;
                let images = request.images.par_iter().enumerate();
                images.map(|(i, image)| decode(image, i, &model.decode)).collect()
            })
            .collect();
        // Every distinct picture, and which of them each request has.
        let mut numbers: HashMap<Pixels, usize> = HashMap::new();
        let chosen: Vec<Result<Vec<usize>>> = decoded
            .into_iter()
            .map(|pictures| {
                let number = |pixels| {
                    let next = numbers.len();
                    *numbers.entry(pixels).or_insert(next)
                };
                Ok(pictures?.into_iter().map(number).collect())
            })
            .collect();
        let mut distinct: Vec<_> = numbers.into_iter().collect();
        distinct.sort_by_key(|(_, number)| *number);
        let sizes: Vec<Size> = distinct.iter().map(|((size, _), _)| *size).collect();
        let pictures: Vec<Result<Picture>> = distinct
            .into_par_iter()
            .map(|((size, pixels), _)| picture(model, options, &pixels, size))
            .collect();
        let mut prompts = Prompts { list: Vec::new(), numbers: HashMap::new() };
        let edits = requests.iter().zip(chosen).enumerate().map(|(i, (request, chosen))| {
            chosen
                .and_then(|chosen| {
                    let pictures = chosen
                        .iter()
                        .map(|i| pictures[*i].as_ref().map_err(Error::again))
                        .collect::<Result<Vec<_>>>()?;
                    let sizes: Vec<_> = chosen.iter().map(|i| sizes[*i]).collect();
                    edit(model, options, request, chosen, &pictures, &sizes, &mut prompts)
                })
                .map_err(|error| error.with("request", number + i))
        });
        let edits = edits.collect();
        // Those that failed are in no edit, so numbers may not shift: an empty one takes the place.
        let pictures =
            pictures.into_iter().map(|picture| picture.unwrap_or_else(|_| Picture::none()));
        Self { pictures: pictures.collect(), prompts: prompts.list, edits }
    }

    /// The edits that have not failed.
    pub(super) fn alive(&self) -> Vec<&Edit> {
        self.edits.iter().flatten().collect()
    }
}

/// The numbers of the pictures that edits look at.
pub(super) fn pictures_of(edits: &[&Edit]) -> Vec<usize> {
    distinct(edits.iter().flat_map(|edit| edit.pictures.iter().copied()))
}

/// The numbers of the prompts that edits have.
pub(super) fn prompts_of(edits: &[&Edit]) -> Vec<usize> {
    distinct(edits.iter().flat_map(|edit| std::iter::once(edit.positive).chain(edit.negative)))
}

fn distinct(numbers: impl Iterator<Item = usize>) -> Vec<usize> {
    numbers.collect::<BTreeSet<_>>().into_iter().collect()
}

impl Picture {
    fn none() -> Self {
        let patches = Patches { values: Vec::new(), grid: [0; 3] };
        Self { pixels: Vec::new(), size: (0, 0), patches }
    }
}

fn decode(image: &Input, index: usize, options: &DecodeOptions) -> Result<Pixels> {
    let image = image.clone().decode(options).map_err(|error| error.with("image", index))?;
    let size = (image.width() as usize, image.height() as usize);
    // The references know no alpha: diffusers fails on it.
    Ok((size, image.to_rgb8_over([255; 3])))
}

fn picture(model: &Model, options: &Resolved, pixels: &[u8], from: Size) -> Result<Picture> {
    let (size, seen) = options.recipe.sizes(from)?;
    let resized = resize_lanczos(pixels, from, size)?;
    let patches = if seen == size {
        model.vision.patches(&resized, size)?
    } else {
        model.vision.patches(&resize_lanczos(pixels, from, seen)?, seen)?
    };
    Ok(Picture { pixels: resized, size, patches })
}

/// Every distinct prompt of a batch.
struct Prompts {
    list: Vec<Prompt>,
    numbers: HashMap<(String, Vec<usize>), usize>,
}

fn edit(
    model: &Model,
    options: &Resolved,
    request: &EditRequest,
    chosen: Vec<usize>,
    pictures: &[&Picture],
    sizes: &[Size],
    prompts: &mut Prompts,
) -> Result<Edit> {
    let recipe = &options.recipe;
    let size = match options.size {
        Some(size) => size,
        None => recipe.output_size(sizes)?,
    };
    let vectors: Vec<_> =
        pictures.iter().map(|picture| model.vision.vectors(picture.patches.grid)).collect();
    let mut number = |field: &'static str, text: &str| -> Result<usize> {
        let key = (text.to_owned(), chosen.clone());
        if let Some(number) = prompts.numbers.get(&key) {
            return Ok(*number);
        }
        let tokens = model.prompts.encode(recipe.template, (field, text), &vectors)?;
        prompts.list.push(Prompt { tokens, pictures: chosen.clone() });
        prompts.numbers.insert(key, prompts.list.len() - 1);
        Ok(prompts.list.len() - 1)
    };
    let positive = number("prompt", &request.prompt)?;
    let negative = request.negative(recipe.true_cfg_scale);
    let negative = negative.map(|text| number("negative_prompt", text)).transpose()?;
    Ok(Edit { pictures: chosen, size, positive, negative })
}
