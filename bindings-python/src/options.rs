//! Keyword arguments as the core's options: one function for each kind of options.
//!
//! `None` means that an option is not set. An unknown name is a `TypeError` that lists the known ones,
//! as for every Python function.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::{PyOverflowError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyString};
use tagbrush::{
    CaptionOptions, Category, EditOptions, FolderOptions, FreeU, GenerateOptions, LoadOptions,
    OutputSize, PrepareOptions, SizeGuidance, TagOptions,
};

use crate::errors::{OrRaise, invalid, raised};

/// One keyword argument.
struct Argument<'py> {
    name: String,
    value: Bound<'py, PyAny>,
}

impl<'py> Argument<'py> {
    fn get<T: FromPyObjectOwned<'py>>(&self) -> PyResult<T> {
        let py = self.value.py();
        self.value.extract::<T>().map_err(Into::<PyErr>::into).map_err(|error| {
            let message = format!("{}: {}", self.name, error.value(py));
            if error.is_instance_of::<PyOverflowError>(py) {
                return raised(py, &invalid("option", message));
            }
            match error.is_instance_of::<PyTypeError>(py) {
                true => PyTypeError::new_err(message),
                false => error,
            }
        })
    }

    /// A value that the core reads from text.
    fn parse<T: FromStr<Err = tagbrush::Error>>(&self) -> PyResult<T> {
        self.get::<String>()?.parse().or_raise(self.value.py())
    }

    fn unknown(&self, known: &str) -> PyErr {
        PyTypeError::new_err(format!("unexpected keyword argument '{}'; known: {known}", self.name))
    }
}

/// The arguments that are set.
fn arguments<'py>(
    options: Option<&Bound<'py, PyDict>>,
) -> PyResult<impl Iterator<Item = Argument<'py>>> {
    let mut arguments = Vec::new();
    for (name, value) in options.into_iter().flatten() {
        if !value.is_none() {
            arguments.push(Argument { name: name.extract()?, value });
        }
    }
    Ok(arguments.into_iter())
}

pub(crate) fn load_options(options: Option<&Bound<'_, PyDict>>) -> PyResult<LoadOptions> {
    let mut load = LoadOptions::default();
    for argument in arguments(options)? {
        match argument.name.as_str() {
            "device" => load.device = argument.parse()?,
            "dtype" => load.precision = argument.parse()?,
            "offline" => load.offline = argument.get()?,
            "cache_dir" => load.cache_dir = Some(argument.get()?),
            "batch_size" => load.batch_size = Some(argument.get()?),
            "max_memory" => load.max_memory = Some(argument.get()?),
            "transformer" => load.transformer = Some(argument.get()?),
            "text_encoder" => load.text_encoder = Some(argument.get()?),
            "vae" => load.vae = Some(argument.get()?),
            "refiner" => load.refiner = Some(argument.get()?),
            "upscaler" => load.upscaler = Some(argument.get()?),
            "inpaint_head" => load.inpaint_head = Some(argument.get()?),
            "inpaint_patch" => load.inpaint_patch = Some(argument.get()?),
            "max_pixels" => load.decode.limits.max_pixels = argument.get()?,
            "max_side" => load.decode.limits.max_side = argument.get()?,
            "max_encoded_bytes" => load.decode.limits.max_encoded_bytes = argument.get()?,
            "tolerate_truncated" => load.decode.tolerate_truncated = argument.get()?,
            "apply_orientation" => load.decode.apply_orientation = Some(argument.get()?),
            _ => {
                return Err(argument.unknown(
                    "device, dtype, offline, cache_dir, batch_size, max_memory, transformer, \
                     text_encoder, vae, refiner, upscaler, inpaint_head, inpaint_patch, max_pixels, max_side, max_encoded_bytes, \
                     tolerate_truncated, apply_orientation",
                ));
            }
        }
    }
    Ok(load)
}

pub(crate) fn tag_options(options: Option<&Bound<'_, PyDict>>) -> PyResult<TagOptions> {
    let mut tag = TagOptions::default();
    let mut characters = None;
    for argument in arguments(options)? {
        match argument.name.as_str() {
            "threshold" => tag.threshold = argument.get()?,
            "character_threshold" => characters = Some(argument.get()?),
            "category_thresholds" => tag.category_thresholds = categories(&argument)?,
            "tag_thresholds" => tag.tag_thresholds = pairs(&argument)?.into_iter().collect(),
            "best_thresholds" => tag.best_thresholds = argument.get()?,
            "mcut" => tag.mcut = argument.get()?,
            "top_k" => tag.top_k = Some(argument.get()?),
            "exclude" => tag.exclude = argument.get()?,
            "drop_redundant" => tag.drop_redundant = argument.get()?,
            "implications" => tag.implications = argument.get()?,
            "order" => tag.order = argument.parse()?,
            _ => {
                return Err(argument.unknown(
                    "threshold, character_threshold, category_thresholds, tag_thresholds, \
                     best_thresholds, mcut, top_k, exclude, drop_redundant, implications, order",
                ));
            }
        }
    }
    // The option that names characters is the more special one, in whatever order they came.
    Ok(match characters {
        Some(threshold) => tag.character_threshold(threshold),
        None => tag,
    })
}

pub(crate) fn caption_options(options: Option<&Bound<'_, PyDict>>) -> PyResult<CaptionOptions> {
    let mut caption = CaptionOptions::default();
    for argument in arguments(options)? {
        match argument.name.as_str() {
            "separator" => caption.separator = argument.get()?,
            "keep_underscores" => caption.keep_underscores = argument.get()?,
            "escape" => caption.escape = argument.get()?,
            "weights" => caption.weights = argument.get()?,
            "rating" => caption.rating = argument.parse()?,
            "characters_last" => caption.characters_last = argument.get()?,
            "always_first" => caption.always_first = argument.get()?,
            "replace" => caption.replace = pairs(&argument)?,
            "prepend" => caption.prepend = argument.get()?,
            "append" => caption.append = argument.get()?,
            _ => {
                return Err(argument.unknown(
                    "separator, keep_underscores, escape, weights, rating, characters_last, \
                     always_first, replace, prepend, append",
                ));
            }
        }
    }
    Ok(caption)
}

pub(crate) fn edit_options(options: Option<&Bound<'_, PyDict>>) -> PyResult<EditOptions> {
    let mut edit = EditOptions::default();
    for argument in arguments(options)? {
        match argument.name.as_str() {
            "n" => edit.n = argument.get()?,
            "size" => edit.size = size(&argument)?,
            "seed" => edit.seed = Some(argument.get()?),
            "num_inference_steps" => edit.num_inference_steps = Some(argument.get()?),
            "true_cfg_scale" => edit.true_cfg_scale = Some(argument.get()?),
            "guidance_scale" => edit.guidance_scale = Some(argument.get()?),
            "max_sequence_length" => edit.max_sequence_length = argument.get()?,
            "reference_area" => edit.reference_area = Some(argument.get()?),
            "reference_multiple" => edit.reference_multiple = Some(argument.get()?),
            "preset" => edit.preset = Some(argument.parse()?),
            "keep_values" => edit.keep_values = argument.get()?,
            _ => {
                return Err(argument.unknown(
                    "n, size, seed, num_inference_steps, true_cfg_scale, guidance_scale, \
                     max_sequence_length, reference_area, reference_multiple, preset, keep_values",
                ));
            }
        }
    }
    Ok(edit)
}

pub(crate) fn generate_options(options: &Bound<'_, PyDict>) -> PyResult<GenerateOptions> {
    let mut generate = GenerateOptions::default();
    // What a performance sets is overruled by what is set beside it.
    for argument in arguments(Some(options))?.filter(|argument| argument.name == "performance") {
        generate = generate.performance(argument.parse()?);
    }
    for argument in arguments(Some(options))? {
        match argument.name.as_str() {
            "performance" => {}
            "n" => generate.n = argument.get()?,
            "size" => generate.size = Some(sides(&argument)?),
            "steps" => generate.steps = argument.get()?,
            "guidance_scale" => generate.guidance_scale = argument.get()?,
            "sampler" => generate.sampler = argument.parse()?,
            "scheduler" => generate.scheduler = argument.parse()?,
            "clip_skip" => generate.clip_skip = argument.get()?,
            "seed" => generate.seed = Some(argument.get()?),
            "size_guidance" => {
                let (positive, negative, end) = argument.get()?;
                generate.size_guidance = SizeGuidance { positive, negative, end };
            }
            "adaptive_guidance" => generate.adaptive_guidance = argument.get()?,
            "sharpness" => generate.sharpness = argument.get()?,
            "refiner_switch" => generate.refiner_switch = argument.get()?,
            "refiner_swap" => generate.refiner_swap = argument.parse()?,
            "freeu" => {
                let (b1, b2, s1, s2) = argument.get()?;
                generate.freeu = Some(FreeU { b1, b2, s1, s2 });
            }
            "denoise" => generate.denoise = argument.get()?,
            "upscale_strength" => generate.upscale_strength = argument.get()?,
            "inpaint_strength" => generate.inpaint_strength = argument.get()?,
            "inpaint_field" => generate.inpaint_field = argument.get()?,
            "mask_growth" => generate.mask_growth = argument.get()?,
            "keep_values" => generate.keep_values = argument.get()?,
            _ => {
                return Err(argument.unknown(
                    "n, size, performance, steps, guidance_scale, sampler, scheduler, clip_skip, \
                     seed, size_guidance, adaptive_guidance, sharpness, refiner_switch, \
                     refiner_swap, freeu, denoise, upscale_strength, inpaint_strength, \
                     inpaint_field, mask_growth, keep_values",
                ));
            }
        }
    }
    // Here `None` says something: that the network is told the real size.
    if options.get_item("size_guidance")?.is_some_and(|sizes| sizes.is_none()) {
        generate.size_guidance = SizeGuidance::NONE;
    }
    Ok(generate)
}

pub(crate) fn prepare_options(options: &Bound<'_, PyDict>) -> PyResult<PrepareOptions> {
    let mut prepare = PrepareOptions::default();
    for argument in arguments(Some(options))? {
        match argument.name.as_str() {
            "n" => prepare.n = argument.get()?,
            "styles" => prepare.styles = argument.get()?,
            "seed" => prepare.seed = Some(argument.get()?),
            "same_seed" => prepare.same_seed = argument.get()?,
            "wildcards_in_order" => prepare.wildcards_in_order = argument.get()?,
            _ => {
                return Err(argument.unknown("n, styles, seed, same_seed, wildcards_in_order"));
            }
        }
    }
    Ok(prepare)
}

pub(crate) fn folder_options(options: &Bound<'_, PyDict>) -> PyResult<FolderOptions> {
    let mut folder = FolderOptions::default();
    for argument in arguments(Some(options))? {
        match argument.name.as_str() {
            "format" => folder.output.format = argument.parse()?,
            "output" => folder.output.folder = Some(argument.get()?),
            "recursive" => folder.scan.recursive = argument.get()?,
            "existing" => folder.output.existing = argument.parse()?,
            "full_names" => folder.output.full_names = argument.get()?,
            _ => return Err(argument.unknown("format, output, recursive, existing, full_names")),
        }
    }
    Ok(folder)
}

/// `"auto"`, `"640x480"` or a pair of width and height.
fn size(argument: &Argument<'_>) -> PyResult<OutputSize> {
    if argument.value.is_instance_of::<PyString>() {
        return argument.parse();
    }
    let (width, height) = argument.get()?;
    Ok(OutputSize::Exact(width, height))
}

/// A size that is not automatic.
fn sides(argument: &Argument<'_>) -> PyResult<(usize, usize)> {
    match size(argument)? {
        OutputSize::Exact(width, height) => Ok((width as usize, height as usize)),
        _ => Err(invalid("size", "expected a width and a height")).or_raise(argument.value.py()),
    }
}

/// A mapping from names to values, in its order.
fn pairs<'py, T: FromPyObjectOwned<'py>>(argument: &Argument<'py>) -> PyResult<Vec<(String, T)>> {
    let Ok(mapping) = argument.value.cast::<PyMapping>() else {
        let name = &argument.name;
        return Err(PyTypeError::new_err(format!("{name}: expected a mapping, such as a dict")));
    };
    let items = mapping.items()?.into_any();
    Argument { name: argument.name.clone(), value: items }.get()
}

/// A mapping from categories, as names or numbers, to thresholds.
fn categories(argument: &Argument<'_>) -> PyResult<BTreeMap<Category, f32>> {
    let Ok(mapping) = argument.value.cast::<PyMapping>() else {
        let name = &argument.name;
        return Err(PyTypeError::new_err(format!("{name}: expected a mapping, such as a dict")));
    };
    let mut thresholds = BTreeMap::new();
    for item in mapping.items()? {
        let (category, threshold): (Bound<'_, PyAny>, f32) =
            Argument { name: argument.name.clone(), value: item }.get()?;
        // `4` and `"4"` are the same category.
        let category = category.str()?.to_cow()?.parse().or_raise(category.py())?;
        thresholds.insert(category, threshold);
    }
    Ok(thresholds)
}

/// LoRA files with their scales.
pub(crate) fn loras(files: Vec<(PathBuf, f64)>) -> Vec<tagbrush::Lora> {
    files.into_iter().map(|(file, scale)| tagbrush::Lora::new(file).scale(scale)).collect()
}
