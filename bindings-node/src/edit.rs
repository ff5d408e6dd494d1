//! The edit pipeline under the one of `lib/edit.ts`, which has the signatures that people see.

use napi::bindgen_prelude::{BigInt, Either, Float32Array};
use napi_derive::napi;
use tagbrush::{Control, EditRequest, Error, Input, Lora, NegativePrompt, Result};

use crate::errors::{Answer, Failure, answer};
use crate::image::Image;
use crate::image_in::Given;
use crate::lane::Lane;
use crate::options::{Options, edit_options, load_options, seed};
use crate::running::{Listener, Running, Wants, start};
use crate::values::{decimal, exact};

/// A loaded edit model.
#[napi]
pub struct EditPipeline {
    pipeline: tagbrush::EditPipeline,
    /// The core answers one call after the other; here they wait without a thread for each.
    lane: Lane,
}

/// One edit.
#[napi(object, object_to_js = false)]
pub struct Request<'a> {
    /// References of one output.
    pub images: Vec<Given>,
    /// The instruction.
    pub prompt: String,
    /// What to move away from; without it, there is no guidance.
    pub negative: Option<String>,
    /// An object with the request's own seed, if it has one.
    pub seed: Options<'a>,
}

/// A picture that an edit made.
#[napi(object, object_from_js = false)]
pub struct Edited {
    /// The picture.
    pub image: Image,
    /// The seed that gives it again.
    pub seed: Either<f64, BigInt>,
    /// The number of its request.
    pub request: u32,
    /// Which of the variants it is.
    pub variant: u32,
    /// The values before they were rounded to 8 bits.
    pub values: Option<Float32Array>,
}

/// A file and its scale.
#[napi(object, object_to_js = false)]
pub struct LoraFile {
    /// The file.
    pub file: String,
    /// How strongly it is applied.
    pub scale: f64,
}

/// Edits that were started, and what is to be said of their options.
#[napi(object, object_from_js = false)]
pub struct Started {
    /// The work.
    pub running: Running,
    /// Warnings.
    pub notes: Vec<String>,
}

#[napi]
impl EditPipeline {
    /// Loads a model.
    #[napi]
    pub fn load(model: String, options: Options<'_>, listener: Listener<'_>) -> Answer<Running> {
        answer(load_options(&options).and_then(|options| {
            start(Lane::models(), listener, Wants { preview: false }, move |_| {
                let pipeline = tagbrush::EditPipeline::load(&model, &options)?;
                Ok(Self { pipeline, lane: Lane::new(1) })
            })
        }))
    }

    /// For each output a picture or what failed.
    #[napi]
    pub fn edit_batch(
        &self,
        requests: Vec<Request<'_>>,
        options: Options<'_>,
        preview: bool,
        listener: Listener<'_>,
    ) -> Answer<Started> {
        answer(self.start(requests, &options, preview, listener))
    }

    fn start(
        &self,
        requests: Vec<Request<'_>>,
        options: &Options<'_>,
        preview: bool,
        listener: Listener<'_>,
    ) -> Result<Started> {
        let options = edit_options(options)?;
        let (pipeline, notes) = (self.pipeline.clone(), options.notes());
        let mut asked = Vec::with_capacity(requests.len());
        for (i, request) in requests.into_iter().enumerate() {
            asked.push(converted(request).map_err(|error| error.with("request", i))?);
        }
        let work = move |control: &Control| {
            let (requests, errors): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
            let outputs = pipeline.edit_batch(&requests, &options, control)?;
            let one = |(i, output): (usize, Result<tagbrush::Edited>)| {
                let request = i / options.n;
                answer(match errors.get(request) {
                    Some(Some(error)) => Err(again(error).with("request", request)),
                    _ => output.map(edited),
                })
            };
            let outputs = outputs.into_iter().enumerate();
            Ok(outputs.map(one).collect::<Vec<Either<Edited, Failure>>>())
        };
        let running = start(&self.lane, listener, Wants { preview }, work)?;
        Ok(Started { running, notes })
    }

    /// Applies LoRA files in place of those before.
    #[napi]
    pub fn set_loras(&self, loras: Vec<LoraFile>, listener: Listener<'_>) -> Answer<Running> {
        let pipeline = self.pipeline.clone();
        let loras: Vec<_> =
            loras.into_iter().map(|lora| Lora::new(lora.file).scale(lora.scale)).collect();
        answer(start(&self.lane, listener, Wants { preview: false }, move |_| {
            pipeline.set_loras(&loras)
        }))
    }

    /// Steps unless something else is asked for.
    #[napi(getter)]
    pub fn default_steps(&self) -> u32 {
        self.pipeline.default_steps() as u32
    }

    /// The scale of guidance unless something else is asked for.
    #[napi(getter)]
    pub fn default_true_cfg_scale(&self) -> f64 {
        decimal(self.pipeline.default_true_cfg_scale())
    }

    /// Where it runs.
    #[napi(getter)]
    pub fn device(&self) -> String {
        self.pipeline.placement().device().to_string()
    }

    /// In which number format it runs.
    #[napi(getter)]
    pub fn dtype(&self) -> String {
        self.pipeline.placement().precision().to_string()
    }
}

/// The core's request, and what is wrong with its pictures, if something is.
fn converted(request: Request<'_>) -> Result<(EditRequest, Option<Error>)> {
    let images: Result<Vec<Input>> = request.images.into_iter().map(|image| image.0).collect();
    let (images, error) = match images {
        Ok(images) => (images, None),
        // Without pictures the core refuses the request too, so outputs keep their numbers.
        Err(error) => (Vec::new(), Some(error)),
    };
    let mut converted = EditRequest::with_references(images, request.prompt);
    converted.negative_prompt = request.negative.map_or(NegativePrompt::Off, NegativePrompt::from);
    converted.seed = seed(&request.seed)?;
    Ok((converted, error))
}

/// The same error, for each variant of a request.
fn again(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.message().to_owned());
    error.context().iter().fold(copy, |copy, (key, value)| copy.with(key, value))
}

fn edited(edited: tagbrush::Edited) -> Edited {
    Edited {
        image: Image::new(edited.image),
        seed: exact(edited.seed),
        request: edited.request as u32,
        variant: edited.variant as u32,
        values: edited.values.map(|values| Float32Array::new(values.to_vec())),
    }
}
