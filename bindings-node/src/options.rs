//! Option objects as the core's options: one function for each kind of options.
//!
//! `undefined` and `null` mean that an option is not set. What is unknown or of another type is an error
//! that names the option.

use std::collections::BTreeMap;
use std::str::FromStr;

use napi::bindgen_prelude::{Array, BigInt, FromNapiValue, JsObjectValue, Object, Unknown};
use napi::{JsValue, ValueType};
use tagbrush::{
    CaptionOptions, EditOptions, Error, FolderOptions, FreeU, GenerateOptions, LoadOptions,
    OutputSize, PrepareOptions, Result, SizeGuidance, TagOptions,
};

use crate::errors::{failed, invalid};

/// Options as they come in.
pub type Options<'a> = Option<Object<'a>>;

/// One option that is set.
struct Argument<'a> {
    name: String,
    value: Unknown<'a>,
}

impl<'a> Argument<'a> {
    fn wrong(&self, expected: &str) -> Error {
        let message = match self.value.get_type() {
            Ok(ValueType::Object) if self.value.is_array().unwrap_or_default() => {
                format!("expected {expected}, got an array")
            }
            Ok(kind) => format!("expected {expected}, got {}", shown(kind)),
            Err(_) => format!("expected {expected}"),
        };
        invalid(&self.name, message)
    }

    fn get<T: FromNapiValue>(&self, kind: ValueType, expected: &str) -> Result<T> {
        if self.value.get_type().ok() != Some(kind) {
            return Err(self.wrong(expected));
        }
        // SAFETY: the type was checked.
        unsafe { self.value.cast() }.map_err(|_| self.wrong(expected))
    }

    fn flag(&self) -> Result<bool> {
        self.get(ValueType::Boolean, "true or false")
    }

    fn number(&self) -> Result<f32> {
        self.precise().map(|number| number as f32)
    }

    fn precise(&self) -> Result<f64> {
        self.get(ValueType::Number, "a number")
    }

    /// A whole number from 0 on, as a number or a `bigint`.
    fn whole<T: TryFrom<u64>>(&self) -> Result<T> {
        let expected = "a whole number from 0 on";
        let number = match self.value.get_type() {
            Ok(ValueType::BigInt) => {
                let big: BigInt = self.get(ValueType::BigInt, expected)?;
                let (is_negative, value, is_lossless) = big.get_u64();
                if is_negative && value > 0 {
                    return Err(invalid(&self.name, format!("expected {expected}, got -{value}n")));
                }
                is_lossless.then_some(value)
            }
            _ => {
                let number: f64 = self.get(ValueType::Number, expected)?;
                if number.fract() != 0.0 || number.is_nan() || number < 0.0 {
                    return Err(invalid(&self.name, format!("expected {expected}, got {number}")));
                }
                if number >= (1u64 << 53) as f64 {
                    let message = format!("{number} is no exact number; use a bigint");
                    return Err(invalid(&self.name, message));
                }
                Some(number as u64)
            }
        };
        let fits = number.and_then(|number| T::try_from(number).ok());
        fits.ok_or_else(|| invalid(&self.name, "the number is too large"))
    }

    fn text(&self) -> Result<String> {
        self.get(ValueType::String, "a string")
    }

    /// A value that the core reads from text.
    fn parse<T: FromStr<Err = Error>>(&self) -> Result<T> {
        self.text()?.parse()
    }

    fn list(&self, expected: &str) -> Result<Vec<Argument<'a>>> {
        if !self.value.is_array().unwrap_or_default() {
            return Err(self.wrong(expected));
        }
        // SAFETY: the type was checked.
        let array: Array<'a> = unsafe { self.value.cast() }.map_err(|e| failed(&e))?;
        let item = |i| {
            let value = array.get::<Unknown<'a>>(i).map_err(|e| failed(&e))?;
            let value = value.ok_or_else(|| self.wrong(expected))?;
            Ok(Argument { name: self.name.clone(), value })
        };
        (0..array.len()).map(item).collect()
    }

    fn texts(&self) -> Result<Vec<String>> {
        self.list("an array of strings")?.iter().map(Argument::text).collect()
    }

    /// The names and values of an object, in its order.
    fn entries(&self) -> Result<Vec<(String, Argument<'a>)>> {
        if self.value.is_array().unwrap_or_default() {
            return Err(self.wrong("an object"));
        }
        let object: Object<'a> = self.get(ValueType::Object, "an object")?;
        let entry = |key: String| {
            let value = object.get_named_property_unchecked(&key).map_err(|e| failed(&e))?;
            Ok((key, Argument { name: self.name.clone(), value }))
        };
        let keys = Object::keys(&object).map_err(|e| failed(&e))?;
        keys.into_iter().map(entry).collect()
    }

    fn unknown(&self, known: &str) -> Error {
        invalid(&self.name, format!("unknown option `{}`; known: {known}", self.name))
    }
}

fn shown(kind: ValueType) -> &'static str {
    match kind {
        ValueType::Undefined => "undefined",
        ValueType::Null => "null",
        ValueType::Boolean => "a boolean",
        ValueType::Number => "a number",
        ValueType::String => "a string",
        ValueType::BigInt => "a bigint",
        ValueType::Function => "a function",
        ValueType::Object => "an object",
        _ => "something else",
    }
}

/// The options that are set.
fn arguments<'a>(options: &Options<'a>) -> Result<Vec<Argument<'a>>> {
    let Some(object) = options else { return Ok(Vec::new()) };
    let mut arguments = Vec::new();
    for name in Object::keys(object).map_err(|e| failed(&e))? {
        let value: Unknown<'a> =
            object.get_named_property_unchecked(&name).map_err(|e| failed(&e))?;
        match value.get_type().map_err(|e| failed(&e))? {
            ValueType::Undefined | ValueType::Null => {}
            _ => arguments.push(Argument { name, value }),
        }
    }
    Ok(arguments)
}

pub(crate) fn load_options(options: &Options<'_>) -> Result<LoadOptions> {
    let mut load = LoadOptions::default();
    for argument in arguments(options)? {
        match argument.name.as_str() {
            "device" => load.device = argument.parse()?,
            "dtype" => load.precision = argument.parse()?,
            "offline" => load.offline = argument.flag()?,
            "cacheDir" => load.cache_dir = Some(argument.text()?.into()),
            "batchSize" => load.batch_size = Some(argument.whole()?),
            "maxMemory" => load.max_memory = Some(argument.whole()?),
            "transformer" => load.transformer = Some(argument.text()?.into()),
            "textEncoder" => load.text_encoder = Some(argument.text()?.into()),
            "vae" => load.vae = Some(argument.text()?.into()),
            "refiner" => load.refiner = Some(argument.text()?.into()),
            "upscaler" => load.upscaler = Some(argument.text()?.into()),
            "inpaintHead" => load.inpaint_head = Some(argument.text()?.into()),
            "inpaintPatch" => load.inpaint_patch = Some(argument.text()?.into()),
            "maxPixels" => load.decode.limits.max_pixels = argument.whole()?,
            "maxSide" => load.decode.limits.max_side = argument.whole()?,
            "maxEncodedBytes" => load.decode.limits.max_encoded_bytes = argument.whole()?,
            "tolerateTruncated" => load.decode.tolerate_truncated = argument.flag()?,
            "applyOrientation" => load.decode.apply_orientation = Some(argument.flag()?),
            _ => {
                return Err(argument.unknown(
                    "device, dtype, offline, cacheDir, batchSize, maxMemory, transformer, \
                     textEncoder, vae, refiner, upscaler, inpaintHead, inpaintPatch, maxPixels, maxSide, \
                     maxEncodedBytes, \
                     tolerateTruncated, applyOrientation, signal",
                ));
            }
        }
    }
    Ok(load)
}

pub(crate) fn tag_options(options: &Options<'_>) -> Result<TagOptions> {
    tag_options_beside("errors, signal", options)
}

/// Options of tags where those of a folder run may stand too; they were taken out before.
pub(crate) fn folder_tag_options(options: &Options<'_>) -> Result<TagOptions> {
    let others = "format, output, recursive, existing, fullNames, caption, errors, signal";
    tag_options_beside(others, options)
}

/// `others` are options that may stand there too, for the message about one that is unknown.
fn tag_options_beside(others: &str, options: &Options<'_>) -> Result<TagOptions> {
    let mut tag = TagOptions::default();
    let mut characters = None;
    for argument in arguments(options)? {
        match argument.name.as_str() {
            "threshold" => tag.threshold = argument.number()?,
            "characterThreshold" => characters = Some(argument.number()?),
            "categoryThresholds" => {
                for (category, threshold) in argument.entries()? {
                    tag.category_thresholds.insert(category.parse()?, threshold.number()?);
                }
            }
            "tagThresholds" => tag.tag_thresholds = thresholds(&argument)?,
            "bestThresholds" => tag.best_thresholds = argument.flag()?,
            "mcut" => tag.mcut = argument.flag()?,
            "topK" => tag.top_k = Some(argument.whole()?),
            "exclude" => tag.exclude = argument.texts()?,
            "dropRedundant" => tag.drop_redundant = argument.flag()?,
            "implications" => tag.implications = implications(&argument)?,
            "order" => tag.order = argument.parse()?,
            _ => {
                return Err(argument.unknown(&format!(
                    "threshold, characterThreshold, categoryThresholds, tagThresholds, \
                     bestThresholds, mcut, topK, exclude, dropRedundant, implications, order, \
                     {others}"
                )));
            }
        }
    }
    // The option that names characters is the more special one, in whatever order they came.
    Ok(match characters {
        Some(threshold) => tag.character_threshold(threshold),
        None => tag,
    })
}

fn thresholds(argument: &Argument<'_>) -> Result<BTreeMap<String, f32>> {
    let entries = argument.entries()?.into_iter();
    entries.map(|(name, threshold)| Ok((name, threshold.number()?))).collect()
}

fn implications(argument: &Argument<'_>) -> Result<Vec<(String, String)>> {
    let expected = "an array of pairs of strings";
    let pair = |pair: &Argument<'_>| match <[String; 2]>::try_from(pair.texts()?) {
        Ok([tag, implied]) => Ok((tag, implied)),
        Err(_) => Err(argument.wrong(expected)),
    };
    argument.list(expected)?.iter().map(pair).collect()
}

pub(crate) fn caption_options(options: &Options<'_>) -> Result<CaptionOptions> {
    let mut caption = CaptionOptions::default();
    for argument in arguments(options)? {
        match argument.name.as_str() {
            "separator" => caption.separator = argument.text()?,
            "keepUnderscores" => caption.keep_underscores = argument.flag()?,
            "escape" => caption.escape = argument.flag()?,
            "weights" => caption.weights = argument.flag()?,
            "rating" => caption.rating = argument.parse()?,
            "charactersLast" => caption.characters_last = argument.flag()?,
            "alwaysFirst" => caption.always_first = argument.texts()?,
            "replace" => {
                let entries = argument.entries()?.into_iter();
                let pairs = entries.map(|(from, to)| Ok((from, to.text()?)));
                caption.replace = pairs.collect::<Result<_>>()?;
            }
            "prepend" => caption.prepend = argument.texts()?,
            "append" => caption.append = argument.texts()?,
            _ => {
                return Err(argument.unknown(
                    "separator, keepUnderscores, escape, weights, rating, charactersLast, \
                     alwaysFirst, replace, prepend, append",
                ));
            }
        }
    }
    Ok(caption)
}

pub(crate) fn edit_options(options: &Options<'_>) -> Result<EditOptions> {
    let mut edit = EditOptions::default();
    for argument in arguments(options)? {
        match argument.name.as_str() {
            "n" => edit.n = argument.whole()?,
            "size" => edit.size = size(&argument)?,
            "seed" => edit.seed = Some(argument.whole()?),
            "numInferenceSteps" => edit.num_inference_steps = Some(argument.whole()?),
            "trueCfgScale" => edit.true_cfg_scale = Some(argument.number()?),
            "guidanceScale" => edit.guidance_scale = Some(argument.number()?),
            "maxSequenceLength" => edit.max_sequence_length = argument.whole()?,
            "referenceArea" => edit.reference_area = Some(argument.whole()?),
            "referenceMultiple" => edit.reference_multiple = Some(argument.whole()?),
            "preset" => edit.preset = Some(argument.parse()?),
            "keepValues" => edit.keep_values = argument.flag()?,
            _ => {
                return Err(argument.unknown(
                    "n, size, seed, numInferenceSteps, trueCfgScale, guidanceScale, \
                     maxSequenceLength, referenceArea, referenceMultiple, preset, keepValues, \
                     preview, errors, signal",
                ));
            }
        }
    }
    Ok(edit)
}

pub(crate) fn generate_options(options: &Options<'_>) -> Result<GenerateOptions> {
    let mut generate = GenerateOptions::default();
    // What a performance sets is overruled by what is set beside it.
    for argument in
        arguments(options)?.into_iter().filter(|argument| argument.name == "performance")
    {
        generate = generate.performance(argument.parse()?);
    }
    for argument in arguments(options)? {
        match argument.name.as_str() {
            "performance" => {}
            "n" => generate.n = argument.whole()?,
            "size" => generate.size = Some(sides(&argument)?),
            "steps" => generate.steps = argument.whole()?,
            "guidanceScale" => generate.guidance_scale = argument.number()?,
            "sampler" => generate.sampler = argument.parse()?,
            "scheduler" => generate.scheduler = argument.parse()?,
            "clipSkip" => generate.clip_skip = argument.whole()?,
            "seed" => generate.seed = Some(argument.whole()?),
            "sizeGuidance" => generate.size_guidance = size_guidance(&argument)?,
            "adaptiveGuidance" => generate.adaptive_guidance = argument.number()?,
            "sharpness" => generate.sharpness = argument.number()?,
            "refinerSwitch" => generate.refiner_switch = argument.precise()?,
            "refinerSwap" => generate.refiner_swap = argument.parse()?,
            "freeu" => generate.freeu = freeu(&argument)?,
            "denoise" => generate.denoise = argument.precise()?,
            "upscaleStrength" => generate.upscale_strength = argument.precise()?,
            "inpaintStrength" => generate.inpaint_strength = argument.precise()?,
            "inpaintField" => generate.inpaint_field = argument.precise()?,
            "maskGrowth" => generate.mask_growth = growth(&argument)?,
            "keepValues" => generate.keep_values = argument.flag()?,
            _ => {
                return Err(argument.unknown(
                    "n, size, performance, steps, guidanceScale, sampler, scheduler, clipSkip, \
                     seed, sizeGuidance, adaptiveGuidance, sharpness, refinerSwitch, refinerSwap, freeu, \
                     denoise, upscaleStrength, inpaintStrength, inpaintField, maskGrowth, \
                                          keepValues, errors, signal",
                ));
            }
        }
    }
    Ok(generate)
}

pub(crate) fn prepare_options(options: &Options<'_>) -> Result<PrepareOptions> {
    let mut prepare = PrepareOptions::default();
    for argument in arguments(options)? {
        match argument.name.as_str() {
            "n" => prepare.n = argument.whole()?,
            "styles" => prepare.styles = argument.texts()?,
            "seed" => prepare.seed = Some(argument.whole()?),
            "sameSeed" => prepare.same_seed = argument.flag()?,
            "wildcardsInOrder" => prepare.wildcards_in_order = argument.flag()?,
            _ => {
                return Err(argument.unknown("n, styles, seed, sameSeed, wildcardsInOrder"));
            }
        }
    }
    Ok(prepare)
}

/// A whole number that may be below 0.
fn growth(argument: &Argument<'_>) -> Result<i32> {
    let number = argument.precise()?;
    let is_whole = number.fract() == 0.0 && number.abs() < f64::from(i32::MAX);
    let wrong = || invalid(&argument.name, format!("expected a whole number, got {number}"));
    is_whole.then_some(number as i32).ok_or_else(wrong)
}

/// `true`, or an object of weights.
fn freeu(argument: &Argument<'_>) -> Result<Option<FreeU>> {
    if argument.value.get_type().ok() == Some(ValueType::Boolean) {
        return Ok(argument.flag()?.then(FreeU::default));
    }
    let mut freeu = FreeU::default();
    for (name, value) in argument.entries()? {
        match name.as_str() {
            "b1" => freeu.b1 = value.precise()?,
            "b2" => freeu.b2 = value.precise()?,
            "s1" => freeu.s1 = value.precise()?,
            "s2" => freeu.s2 = value.precise()?,
            _ => {
                let message = format!("unknown key `{name}`; known: b1, b2, s1, s2");
                return Err(invalid(&argument.name, message));
            }
        }
    }
    Ok(Some(freeu))
}

/// `false` for the real size always, or an object.
fn size_guidance(argument: &Argument<'_>) -> Result<SizeGuidance> {
    if argument.value.get_type().ok() == Some(ValueType::Boolean) && !argument.flag()? {
        return Ok(SizeGuidance::NONE);
    }
    let mut sizes = SizeGuidance::default();
    for (name, value) in argument.entries()? {
        match name.as_str() {
            "positive" => sizes.positive = value.number()?,
            "negative" => sizes.negative = value.number()?,
            "end" => sizes.end = value.number()?,
            _ => {
                let message = format!("unknown key `{name}`; known: positive, negative, end");
                return Err(invalid(&argument.name, message));
            }
        }
    }
    Ok(sizes)
}

pub(crate) fn folder_options(options: &Options<'_>) -> Result<FolderOptions> {
    let mut folder = FolderOptions::default();
    let mut has_format = false;
    for argument in arguments(options)? {
        match argument.name.as_str() {
            "format" => {
                folder.output.format = argument.parse()?;
                has_format = true;
            }
            "output" => folder.output.folder = Some(argument.text()?.into()),
            "recursive" => folder.scan.recursive = argument.flag()?,
            "existing" => folder.output.existing = argument.parse()?,
            "fullNames" => folder.output.full_names = argument.flag()?,
            _ => return Err(argument.unknown("format, output, recursive, existing, fullNames")),
        }
    }
    if !has_format {
        return Err(invalid("format", "expected one of sidecar, json, jsonl, csv"));
    }
    Ok(folder)
}

/// The value of one option in an object of its own.
pub(crate) fn seed(options: &Options<'_>) -> Result<Option<u64>> {
    let seed = arguments(options)?.into_iter().find(|argument| argument.name == "seed");
    seed.map(|seed| seed.whole()).transpose()
}

/// `"auto"`, `"640x480"` or a pair of width and height.
fn size(argument: &Argument<'_>) -> Result<OutputSize> {
    if argument.value.get_type().ok() == Some(ValueType::String) {
        return argument.parse();
    }
    let expected = "\"auto\", \"1024x768\" or [1024, 768]";
    match argument.list(expected)?.as_slice() {
        [width, height] => Ok(OutputSize::Exact(width.whole()?, height.whole()?)),
        _ => Err(argument.wrong(expected)),
    }
}

/// A size that is not automatic.
fn sides(argument: &Argument<'_>) -> Result<(usize, usize)> {
    match size(argument)? {
        OutputSize::Exact(width, height) => Ok((width as usize, height as usize)),
        _ => Err(invalid("size", "expected a width and a height")),
    }
}
