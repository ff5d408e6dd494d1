//! What an edit is: the fields of either dialect, checked, as one description that can also be kept in
//! the database and read again.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tagbrush::{EditOptions, EditRequest, ImageFormat, OutputSize};

use super::fields::{Fields, Means};
use crate::App;
use crate::engine::HealthCell;
use crate::engine::editing::Edit;
use crate::engine::models::EditModel;
use crate::engine::queue::Handle;
use crate::error::{ApiError, ApiResult};
use crate::jobs::Spec;

/// A described edit, without its pictures' bytes.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct EditSpec {
    /// One prompt for all pictures, or one for each.
    pub prompt: Vec<String>,
    /// What to move away from.
    pub negative_prompt: Option<String>,
    /// Whether all pictures are references of one edit.
    pub is_reference: bool,
    /// Where the pictures are kept, in jobs.
    #[serde(default)]
    pub images: Vec<String>,
    /// `WIDTHxHEIGHT` or `auto`.
    pub size: String,
    /// Variants of each edit.
    pub n: usize,
    /// Steps of denoising.
    pub num_inference_steps: Option<usize>,
    /// Scale of guidance.
    pub true_cfg_scale: Option<f32>,
    /// Of no effect.
    pub guidance_scale: Option<f32>,
    /// Of no effect.
    pub max_sequence_length: usize,
    /// The seed of the first variant of every edit.
    pub seed: u64,
    /// `png`, `jpeg` or `webp`.
    pub output_format: String,
    /// Quality of JPEG.
    pub output_compression: Option<u8>,
}

/// How the answer is given.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Delivery {
    pub(super) stream: bool,
    pub(super) partial_images: usize,
    pub(super) async_process: bool,
    pub(super) webhook_url: String,
}

/// Parameters of OpenAI's that would change the picture, or of the documents' that cannot be done.
const REFUSED: [(&str, &str); 8] = [
    ("markup", "markups are not supported"),
    ("svg[model]", "vector graphics are not made"),
    ("complexity", "vector graphics are not made"),
    ("frame_count", "animations are not made"),
    ("frame_duration_ms", "animations are not made"),
    ("input_fidelity", "how close an output stays is a matter of the prompt"),
    ("moderation", "nothing is moderated"),
    ("file_id", "files are not stored"),
];

impl EditSpec {
    /// From a request's fields, and the pictures.
    pub(super) fn read(
        fields: Fields,
        mode: Option<&str>,
        model: &dyn EditModel,
        app: &App,
    ) -> ApiResult<(Self, Vec<Vec<u8>>, Delivery)> {
        let (area, steps) = model.defaults();
        let means = fields.means.ok_or_else(no_images)?;
        let mut spec = Self {
            prompt: Vec::new(),
            negative_prompt: None,
            is_reference: means == Means::References,
            images: Vec::new(),
            // The documents promise 1024x1024, which is what published models were trained for.
            size: match (means, area.isqrt()) {
                (Means::Edits, side) => format!("{side}x{side}"),
                (Means::References, _) => "auto".to_owned(),
            },
            n: 1,
            num_inference_steps: None,
            true_cfg_scale: None,
            guidance_scale: None,
            max_sequence_length: 512,
            seed: crate::ids::new_seed(),
            output_format: "png".to_owned(),
            output_compression: None,
        };
        let mut delivery = Delivery::default();
        let mut seen = Vec::new();
        let mut quality = None;
        let mut mode = mode.map(str::to_owned);
        for (name, value) in fields.texts {
            if name != "prompt" && seen.contains(&name) {
                return Err(ApiError::field(&name, "given twice"));
            }
            let value = value.trim_end_matches('\0').to_owned();
            match name.as_str() {
                "prompt" => spec.prompt.push(value),
                "negative_prompt" => {
                    spec.negative_prompt = Some(value).filter(|text| !text.is_empty());
                }
                "size" => spec.size = value.replace(['×', '*'], "x"),
                "n" => spec.n = parse(&name, &value)?,
                "num_inference_steps" => spec.num_inference_steps = Some(parse(&name, &value)?),
                "true_cfg_scale" => spec.true_cfg_scale = Some(parse(&name, &value)?),
                "guidance_scale" => spec.guidance_scale = Some(parse(&name, &value)?),
                "max_sequence_length" => spec.max_sequence_length = parse(&name, &value)?,
                "seed" => spec.seed = parse(&name, &value)?,
                "output_format" => spec.output_format = value.to_lowercase(),
                "output_compression" => spec.output_compression = Some(parse(&name, &value)?),
                "edit_mode" => mode = Some(value),
                "quality" => quality = Some(value),
                "stream" => delivery.stream = parse_bool(&name, &value)?,
                "partial_images" => delivery.partial_images = parse(&name, &value)?,
                "async_process" => delivery.async_process = parse_bool(&name, &value)?,
                "webhook_url" => delivery.webhook_url = value,
                "model" => check_model(&value, app)?,
                "output_type" if value == "pil" => {}
                "output_type" if value == "pt" => {
                    let why = "tensors are not sent over HTTP; use pil";
                    return Err(ApiError::unsupported(&name, why));
                }
                "response_format" if value == "b64_json" => {}
                "background" if value == "auto" || value == "opaque" => {}
                // Who the user is changes nothing here, and is not kept.
                "user" | "safety_identifier" => {}
                "output_type" | "response_format" | "background" => {
                    return Err(ApiError::unsupported(
                        &name,
                        &format!("`{value}` is not supported"),
                    ));
                }
                _ => {
                    let refused = REFUSED.iter().find(|(refused, _)| *refused == name);
                    let why = refused.map_or("unknown parameter", |(_, why)| why);
                    return Err(ApiError::unsupported(&name, why));
                }
            }
            seen.push(name);
        }
        match mode.as_deref() {
            None => {}
            Some("batch") => spec.is_reference = false,
            Some("reference") => spec.is_reference = true,
            Some(_) => return Err(ApiError::field("edit_mode", "expected batch or reference")),
        }
        match quality.as_deref() {
            None | Some("auto" | "standard" | "high") => {}
            Some("medium") => _ = spec.num_inference_steps.get_or_insert((steps / 2).max(1)),
            Some("low") => _ = spec.num_inference_steps.get_or_insert((steps / 4).max(1)),
            Some(_) => {
                return Err(ApiError::unsupported("quality", "expected auto, low, medium or high"));
            }
        }
        spec.check(fields.images.len(), model, app)?;
        delivery.check()?;
        Ok((spec, fields.images, delivery))
    }

    /// Everything that can be known to be wrong before work.
    fn check(&self, images: usize, model: &dyn EditModel, app: &App) -> ApiResult<()> {
        let bounds = &app.config.bounds;
        if images == 0 {
            return Err(no_images());
        }
        if self.prompt.iter().all(|prompt| prompt.trim().is_empty()) {
            return Err(ApiError {
                param: Some("prompt".into()),
                ..ApiError::invalid("Prompt cannot be empty")
            });
        }
        let edits = if self.is_reference { 1 } else { images };
        if self.prompt.len() != 1 && self.prompt.len() != edits {
            let count = self.prompt.len();
            return Err(ApiError::field(
                "prompt",
                format!("{count} prompts for {edits} edits; expected one, or one for each"),
            ));
        }
        if edits.saturating_mul(self.n) > bounds.edit_outputs {
            let most = bounds.edit_outputs;
            return Err(ApiError::field("n", format!("more than {most} outputs in one request")));
        }
        self.format()?;
        let blank = vec![Vec::new(); images];
        let invalid = |error| ApiError::of(&error);
        model.check(&self.requests(blank), &self.options()?).map_err(invalid)
    }

    /// The edits, in order.
    pub fn requests(&self, images: Vec<Vec<u8>>) -> Vec<EditRequest> {
        let prompt =
            |i: usize| self.prompt.get(i).or(self.prompt.first()).cloned().unwrap_or_default();
        let requests: Vec<_> = if self.is_reference {
            vec![EditRequest::with_references(images, prompt(0))]
        } else {
            let each = images.into_iter().enumerate();
            each.map(|(i, image)| EditRequest::new(image, prompt(i))).collect()
        };
        let finish = |request: EditRequest| match &self.negative_prompt {
            Some(negative) => request.seed(self.seed).negative_prompt(negative.as_str()),
            None => request.seed(self.seed),
        };
        requests.into_iter().map(finish).collect()
    }

    /// The options, without the seed: those of several requests can be equal.
    pub fn options(&self) -> ApiResult<EditOptions> {
        let size = OutputSize::from_str(&self.size).map_err(|error| ApiError::of(&error))?;
        let mut options = EditOptions::default()
            .n(self.n)
            .size(size)
            .max_sequence_length(self.max_sequence_length);
        options.num_inference_steps = self.num_inference_steps;
        options.true_cfg_scale = self.true_cfg_scale;
        options.guidance_scale = self.guidance_scale;
        Ok(options)
    }

    /// The format of outputs.
    pub fn format(&self) -> ApiResult<ImageFormat> {
        let format: ImageFormat = self
            .output_format
            .parse()
            .map_err(|_| ApiError::unsupported("output_format", "expected png, jpeg or webp"))?;
        match (format, self.output_compression) {
            (format, None) => Ok(format),
            (ImageFormat::Jpeg { .. }, Some(quality @ 1..=100)) => {
                Ok(ImageFormat::Jpeg { quality })
            }
            (ImageFormat::Jpeg { .. }, Some(_)) => {
                Err(ApiError::field("output_compression", "expected 1 to 100"))
            }
            // Lossless formats have no quality to lose.
            (format, Some(100)) => Ok(format),
            (_, Some(_)) => {
                Err(ApiError::unsupported("output_compression", "only jpeg can be compressed more"))
            }
        }
    }

    /// The number of outputs for a number of pictures.
    pub fn outputs(&self, images: usize) -> usize {
        self.n * if self.is_reference { 1 } else { images }
    }
}

impl Spec for EditSpec {
    const KIND: &'static str = "edit";

    fn health(app: &App) -> &HealthCell {
        app.edits.health()
    }

    fn push(&self, app: &App, pictures: Vec<Vec<u8>>, was_accepted: bool) -> ApiResult<Handle> {
        let (requests, options) = (self.requests(pictures), self.options()?);
        let edit = Edit { requests, options, wants_previews: true };
        match was_accepted {
            true => app.edits.push_accepted(edit),
            false => app.edits.push(edit),
        }
    }

    fn outputs(&self, pictures: usize) -> usize {
        self.outputs(pictures)
    }

    fn format(&self) -> ApiResult<ImageFormat> {
        self.format()
    }

    fn kept(&self) -> Vec<&str> {
        self.images.iter().map(String::as_str).collect()
    }

    fn keep(&mut self, names: Vec<String>) {
        self.images = names;
    }
}

impl Delivery {
    fn check(&self) -> ApiResult<()> {
        if self.partial_images > 3 {
            return Err(ApiError::field("partial_images", "expected 0 to 3"));
        }
        if self.partial_images > 0 && !self.stream {
            return Err(ApiError::field("partial_images", "needs stream"));
        }
        if self.stream && self.async_process {
            return Err(ApiError::field("async_process", "cannot be streamed; ask for its task"));
        }
        if !self.webhook_url.is_empty() && !self.async_process {
            return Err(ApiError::field("webhook_url", "needs async_process"));
        }
        Ok(())
    }
}

fn no_images() -> ApiError {
    ApiError { param: Some("images".into()), ..ApiError::invalid("At least one image is required") }
}

fn parse<T: FromStr>(name: &str, value: &str) -> ApiResult<T> {
    let wrong = || ApiError::field(name, format!("`{value:.40}` is not a number that fits here"));
    value.trim().parse().map_err(|_| wrong())
}

fn parse_bool(name: &str, value: &str) -> ApiResult<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" | "" => Ok(false),
        _ => Err(ApiError::field(name, "expected true or false")),
    }
}

/// The edit model goes by its configured name, the names that it is known by, and those that were
/// configured beside it.
fn check_model(name: &str, app: &App) -> ApiResult<()> {
    let config = &app.config;
    let known = |name: &str| tagbrush::find_known(name).map(|known| known.id);
    let is_known = known(name).is_some() && known(name) == known(&config.edit_model);
    let mut names = config.edit_names.iter().chain([&config.edit_model]);
    if is_known || names.any(|own| own.eq_ignore_ascii_case(name)) || name == super::MODEL {
        return Ok(());
    }
    let message = format!("The model `{name:.80}` does not exist");
    let error = ApiError { param: Some("model".into()), ..ApiError::not_found(message) };
    Err(error.finer("model_not_found"))
}
