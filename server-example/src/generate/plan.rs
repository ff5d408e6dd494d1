//! From parameters to what the library is asked for: files by their names, prompts with styles, options.
//! What the library refuses is named as the request names it.

use std::path::PathBuf;

use serde_json::{Value, json};
use tagbrush::{
    DecodeOptions, Error, ErrorKind, FreeU, GenerateOptions, Image, Input, Lora, Outpaint,
    Performance, PrepareOptions, Result, SizeGuidance, Upscale, Vary, parse_aspect_ratio,
};

use super::library::{DEFAULT_UPSCALER, ENGINES, INPAINT_HEAD, Library};
use super::params::{MODEL_VAE, NONE, Params, SIZE};
use crate::engine::generating::{Generation, ModelFacts, Setup};
use crate::error::{ApiError, wrong};
use crate::jobs::grid;

/// How much of a side is added where a side is named and no distance.
const OUTPAINTED: f64 = 0.3;

/// The library's fields, as requests name them.
const FIELDS: [(&str, &str); 28] = [
    ("width", "aspect_ratios_selection"),
    ("height", "aspect_ratios_selection"),
    ("size", "aspect_ratios_selection"),
    ("styles", "style_selections"),
    ("performance", "performance_selection"),
    ("n", "image_number"),
    ("seed", "image_seed"),
    ("adaptive_guidance", "adaptive_cfg"),
    ("size_guidance.positive", "adm_scaler_positive"),
    ("size_guidance.negative", "adm_scaler_negative"),
    ("size_guidance.end", "adm_scaler_end"),
    ("refiner", "refiner_model_name"),
    ("refiner_swap", "refiner_swap_method"),
    ("vae", "vae_name"),
    ("inpaint_field", "inpaint_respective_field"),
    ("mask_growth", "inpaint_erode_or_dilate"),
    ("freeu.b1", "freeu_b1"),
    ("freeu.b2", "freeu_b2"),
    ("freeu.s1", "freeu_s1"),
    ("freeu.s2", "freeu_s2"),
    ("steps", "overwrite_step"),
    ("denoise", "overwrite_vary_strength"),
    ("mask", "inpaint_mask_image_upload"),
    ("outpaint", "outpaint_selections"),
    ("image", "inpaint_input_image"),
    ("metadata", "save_metadata_to_images"),
    ("upscale", "uov_method"),
    ("upscale_strength", "overwrite_upscale_strength"),
];

/// An error of the library about a request, as the API has it.
pub(super) fn refused(error: &Error) -> ApiError {
    if !error.kind().is_callers_fault() || error.kind() == ErrorKind::Cancelled {
        return ApiError::generation(error);
    }
    let field = error.context().iter().find(|(key, _)| *key == "field");
    let field = field.map_or("", |(_, field)| field.as_str());
    let known = FIELDS.iter().find(|(own, _)| *own == field).map_or(field, |(_, theirs)| theirs);
    let loc: Vec<Value> =
        known.split('.').filter(|part| !part.is_empty()).map(|p| json!(p)).collect();
    let kind = if error.kind() == ErrorKind::Unsupported { "unsupported" } else { "value_error" };
    ApiError::fields(vec![wrong(kind, &loc, error.message(), &Value::Null)])
}

/// Everything that says what can be asked for.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) library: &'a Library,
    /// Of the model that is taken unless another one is named.
    pub(super) facts: &'a ModelFacts,
}

impl Known<'_> {
    /// What the engine is to do. Pictures are those of the fields that have one, in order.
    pub(super) fn plan(&self, params: &Params, pictures: Vec<Vec<u8>>) -> Result<Generation> {
        let mut pictures = pictures.into_iter();
        let mut picture = |field: &str| if field.is_empty() { None } else { pictures.next() };
        let given = picture(&params.uov_input_image);
        let inpainted = picture(&params.inpaint_input_image);
        let mask = picture(&params.inpaint_mask_image_upload);
        let upscale = upscale(params)?;
        let vary: Option<Vary> = match params.uov_method.as_str() {
            "Disabled" => None,
            _ if upscale.is_some() => None,
            method => Some(method.parse().map_err(|e: Error| e.with("field", "uov_method"))?),
        };
        let mut options = self.options(params, upscale.is_some())?;
        if let Some((vary, image)) = vary.zip(given.as_ref()) {
            let strength = params.overwrite_vary_strength;
            let strength = if strength > 0.0 { strength } else { vary.strength() };
            let (width, height) = vary.size(size_of(image)?, self.default_size(params));
            options = options.denoise(strength).size(width, height);
        }
        options.check()?;
        let whole = inpainted.as_deref().map(size_of).transpose()?;
        let outpaint = whole.map(|size| outpaint(params, size)).unwrap_or_default();
        let size = match (whole, upscale.zip(given.as_deref())) {
            (Some((width, height)), _) => {
                let Outpaint { left, top, right, bottom } = outpaint;
                (left + width + right, top + height + bottom)
            }
            (_, Some((upscale, image))) => {
                upscale.size(size_of(image)?, self.default_size(params)).0
            }
            _ => options.size.unwrap_or(self.facts.size),
        };
        check_grid(params, size)?;
        let prepare = PrepareOptions::default()
            .n(params.image_number as usize)
            .styles(&params.style_selections)
            .seed(params.image_seed as u64)
            .same_seed(params.disable_seed_increment)
            .wildcards_in_order(params.read_wildcards_in_order);
        let prompt = match inpainted.is_some() && !params.inpaint_additional_prompt.is_empty() {
            true => format!("{}\n{}", params.inpaint_additional_prompt, params.prompt),
            false => params.prompt.clone(),
        };
        let prompter = self.library.prompter()?;
        let prepared = prompter.prepare(&prompt, &params.negative_prompt, &prepare)?;
        let mut setup = self.setup(params, options, prepared.loras)?;
        setup.makes_parts = inpainted.is_some();
        if setup.makes_parts && params.inpaint_engine != NONE {
            setup.inpaint = Some(self.engine(&params.inpaint_engine)?);
        }
        let image: Option<Input> = given.or(inpainted).map(Into::into);
        let requests = prepared.requests.into_iter().map(|mut request| {
            request.image.clone_from(&image);
            request.mask = mask.clone().map(Into::into);
            request.upscale = upscale;
            request.outpaint(outpaint)
        });
        Ok(Generation { requests: requests.collect(), options: setup, wants_previews: true })
    }

    /// Whether a model is the one that is taken unless another one is named.
    fn is_default(&self, name: &str) -> bool {
        name.is_empty() || name == self.facts.name
    }

    /// The size unless another one is asked for: that of the model, where it is known, else the
    /// document's.
    pub(super) fn default_size(&self, params: &Params) -> (usize, usize) {
        match self.is_default(&params.base_model_name) {
            true => self.facts.size,
            false => parse_aspect_ratio(SIZE).unwrap_or(self.facts.size),
        }
    }

    /// What is done in another way than the document has it where a picture is made larger.
    pub(super) fn notes(&self, params: &Params, pictures: &[Vec<u8>]) -> Result<Vec<String>> {
        let (Some(upscale), Some(image)) = (upscale(params)?, pictures.first()) else {
            return Ok(Vec::new());
        };
        let mut notes = Vec::new();
        if self.library.upscaler().is_none() {
            notes.push(format!(
                "uov_method: the picture is resampled (Lanczos), as `{DEFAULT_UPSCALER}` is not there"
            ));
        }
        let ((width, height), is_too_large) =
            upscale.size(size_of(image)?, self.default_size(params));
        if is_too_large && !upscale.is_fast {
            notes.push(format!(
                "uov_method: nothing is made anew, as {width}*{height} is more than the model is good at"
            ));
        }
        Ok(notes)
    }

    fn options(&self, params: &Params, is_upscale: bool) -> Result<GenerateOptions> {
        let (mut width, mut height) = parse_aspect_ratio(&params.aspect_ratios_selection)?;
        for (side, over) in
            [(&mut width, params.overwrite_width), (&mut height, params.overwrite_height)]
        {
            *side = if over > 0 { over as usize } else { *side };
        }
        let performance: Performance = params.performance_selection.parse()?;
        let steps = performance.steps();
        let part = params.refiner_switch;
        let mut options = GenerateOptions::default()
            .size(width, height)
            .guidance_scale(params.guidance_scale as f32)
            .adaptive_guidance(params.adaptive_cfg as f32)
            .sharpness(params.sharpness as f32)
            .clip_skip(params.clip_skip as usize)
            .sampler(params.sampler_name.parse()?)
            .scheduler(params.scheduler_name.parse()?)
            .size_guidance(SizeGuidance {
                positive: params.adm_scaler_positive as f32,
                negative: params.adm_scaler_negative as f32,
                end: params.adm_scaler_end as f32,
            })
            .inpaint(params.inpaint_strength, params.inpaint_respective_field)
            .mask_growth(params.inpaint_erode_or_dilate as i32);
        if self.has_refiner(params) {
            options = options.refiner(part, params.refiner_swap_method.parse()?);
        }
        if params.freeu_enabled {
            let (b1, b2) = (params.freeu_b1, params.freeu_b2);
            options = options.freeu(FreeU { b1, b2, s1: params.freeu_s1, s2: params.freeu_s2 });
        }
        // A fast one overrules what is above, as documented.
        options = options.performance(performance);
        // The switch is a step of the performance's, whatever the number of steps becomes.
        let switch = (steps as f64 * options.refiner_switch).round_ties_even();
        if is_upscale {
            options = options.steps(performance.upscale_steps());
            if params.overwrite_upscale_strength > 0.0 {
                options = options.upscale_strength(params.overwrite_upscale_strength);
            }
        }
        if params.overwrite_step > 0 {
            options = options.steps(params.overwrite_step as usize);
        }
        let switch =
            if params.overwrite_switch > 0 { params.overwrite_switch as f64 } else { switch };
        options.refiner_switch = (switch / options.steps as f64).min(1.0);
        Ok(options)
    }

    fn has_refiner(&self, params: &Params) -> bool {
        params.refiner_model_name != NONE && !params.refiner_model_name.is_empty()
    }

    /// The files. Those that a prompt names come after those of the list, each once.
    fn setup(&self, params: &Params, options: GenerateOptions, named: Vec<Lora>) -> Result<Setup> {
        let is_default = self.is_default(&params.base_model_name);
        let model = match is_default {
            true => self.facts.model.clone(),
            false => self.model(&params.base_model_name, "base_model_name")?.display().to_string(),
        };
        let performance: Performance = params.performance_selection.parse()?;
        // A fast performance is for the first network only.
        let has_refiner = self.has_refiner(params) && performance.lora().is_none();
        let refiner = has_refiner
            .then(|| self.model(&params.refiner_model_name, "refiner_model_name"))
            .transpose()?;
        let vae = match params.vae_name.as_str() {
            MODEL_VAE => None,
            name => Some(self.vae(name)?),
        };
        let mut loras = Vec::new();
        let wanted = params.loras.iter().enumerate();
        for (i, lora) in wanted.filter(|(_, lora)| lora.enabled && lora.model_name != NONE) {
            let file = self.library.lora_file(&lora.model_name).ok_or_else(|| {
                let known = listed(&self.library.lora_names());
                let message = format!("there is no LoRA file `{:.80}`; {known}", lora.model_name);
                let field = format!("loras.{i}.model_name");
                Error::new(ErrorKind::ModelNotFound, message).with("field", field)
            })?;
            loras.push(Lora::new(file).scale(lora.weight));
        }
        let folders = self.library.lora_folders();
        let needed = match is_default && !self.facts.needs_loras {
            true => None,
            false => performance.lora_in(&folders)?,
        };
        for lora in named.into_iter().chain(needed) {
            if loras.iter().all(|known| known.file != lora.file) {
                loras.push(lora);
            }
        }
        Ok(Setup { model, refiner, vae, loras, inpaint: None, makes_parts: false, options })
    }

    fn vae(&self, name: &str) -> Result<PathBuf> {
        self.library.vae_file(name).ok_or_else(|| {
            let mut names = self.library.vae_names();
            names.insert(0, MODEL_VAE.to_owned());
            let message = format!("there is no autoencoder `{name:.80}`; {}", listed(&names));
            Error::new(ErrorKind::ModelNotFound, message).with("field", "vae_name")
        })
    }

    /// Head and patch of an inpaint engine.
    fn engine(&self, version: &str) -> Result<(PathBuf, PathBuf)> {
        self.library.inpaint_engine(version).ok_or_else(|| {
            let patch = ENGINES.iter().find(|(known, _)| *known == version).map(|(_, patch)| *patch);
            let message = format!(
                "the inpaint engine {version:.80} needs `{INPAINT_HEAD}` and `{}` in `inpaint/`, of which one is not \
                 there; `{NONE}` makes parts of pictures anew without",
                patch.unwrap_or_default()
            );
            Error::new(ErrorKind::ModelNotFound, message).with("field", "inpaint_engine")
        })
    }

    fn model(&self, name: &str, field: &'static str) -> Result<PathBuf> {
        self.library.model_file(name).ok_or_else(|| {
            let mut names = self.library.model_names();
            names.retain(|known| *known != self.facts.name);
            names.insert(0, self.facts.name.clone());
            let message = format!("there is no model `{name:.80}`; {}", listed(&names));
            Error::new(ErrorKind::ModelNotFound, message).with("field", field)
        })
    }
}

/// Refuses a grid that is too large for a file.
fn check_grid(params: &Params, (width, height): (usize, usize)) -> Result<()> {
    let (columns, rows) = grid::layout(params.image_number as usize);
    let (width, height) = (columns * width, rows * height);
    match params.generate_image_grid && width.max(height) > grid::MAX_SIDE {
        true => {
            let message = format!(
                "a grid of {} pictures would be {width} x {height}; sides are up to {}",
                params.image_number,
                grid::MAX_SIDE
            );
            Err(Error::new(ErrorKind::InvalidInput, message).with("field", "generate_image_grid"))
        }
        false => Ok(()),
    }
}

/// How much larger a picture is made, if it is.
fn upscale(params: &Params) -> Result<Option<Upscale>> {
    match params.uov_method.as_str() {
        "Upscale (Custom)" => Ok(Some(Upscale::by(params.upscale_multiple))),
        method if method.starts_with("Upscale") => {
            method.parse().map(Some).map_err(|e: Error| e.with("field", "uov_method"))
        }
        _ => Ok(None),
    }
}

fn listed(names: &[String]) -> String {
    let some: Vec<_> = names.iter().take(20).map(|name| format!("`{name}`")).collect();
    match some.is_empty() {
        true => "there are none".to_owned(),
        false => format!("there are {}", some.join(", ")),
    }
}

/// Width and height of an encoded picture.
fn size_of(image: &[u8]) -> Result<(usize, usize)> {
    // Upright, as the model sees it.
    let upright = DecodeOptions::default().apply_orientation(true);
    let image = Image::decode_with(image, &upright)?;
    Ok((image.width() as usize, image.height() as usize))
}

/// What is added at the named sides: so many pixels, or a part of the side. Above and below come first, as
/// documented, so that they do not count for the others.
fn outpaint(params: &Params, (width, height): (usize, usize)) -> Outpaint {
    let side = |name: &str, place: usize, whole: usize| {
        let is_named = params.outpaint_selections.iter().any(|side| side == name);
        let distance = params.outpaint_distance.get(place).copied().unwrap_or(0);
        match (is_named, distance) {
            (false, _) => 0,
            (true, 1..) => distance as usize,
            (true, _) => (whole as f64 * OUTPAINTED) as usize,
        }
    };
    let (left, right) = (side("Left", 0, width), side("Right", 2, width));
    let (top, bottom) = (side("Top", 1, height), side("Bottom", 3, height));
    Outpaint { left, top, right, bottom }
}
