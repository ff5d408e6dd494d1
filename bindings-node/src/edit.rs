//! The edit pipeline under the one of `lib/edit.ts`, which has the signatures that people see.

use std::cell::Cell;

use napi::bindgen_prelude::{BigInt, Either, Float32Array};
use napi_derive::napi;
use tagbrush::{Control, EditOptions, EditRequest, Error, ErrorKind, Input, Lora};
use tagbrush::{NegativePrompt, Result};

use crate::errors::{Answer, answer};
use crate::image::Image;
use crate::image_in::Given;
use crate::lane::Lane;
use crate::options::{Options, edit_options, load_options, seed};
use crate::running::{Listener, QUIET, Running, Wants, start, start_each};
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

/// Edits that can be started, and what is to be said of their options.
#[napi(object, object_from_js = false)]
pub struct Prepared {
    /// The edits.
    pub edits: Edits,
    /// Warnings.
    pub notes: Vec<String>,
}

/// Edits whose outputs come one by one, once they are started.
#[napi]
pub struct Edits {
    waiting: Cell<Option<(tagbrush::EditPipeline, Requests, EditOptions)>>,
    lane: Lane,
}

#[napi]
impl Edits {
    /// Starts the work, once. The listener hears of each output when it and all before it are made.
    ///
    /// It goes on while nobody takes an output: work that waited would hold the pipeline, and never
    /// end for those who edit the output that they have with the same one.
    #[napi]
    pub fn start(&self, listener: Listener<'_>) -> Answer<Running> {
        let Some((pipeline, requests, options)) = self.waiting.take() else {
            return answer(Err(Error::new(ErrorKind::Internal, "edits were started twice")));
        };
        let work = move |control: &Control, give: &mut dyn FnMut(Answer<Edited>)| {
            pipeline.edit_each(&requests.asked, &options, control, |i, output| {
                give(requests.output(i, output));
            })
        };
        answer(start_each(&self.lane, listener, QUIET, work))
    }
}

#[napi]
impl EditPipeline {
    /// Loads a model.
    #[napi]
    pub fn load(model: String, options: Options<'_>, listener: Listener<'_>) -> Answer<Running> {
        answer(load_options(&options).and_then(|options| {
            start(Lane::models(), listener, QUIET, move |_| {
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
        let requests = Requests::read(requests, options.n)?;
        let work = move |control: &Control| {
            let outputs = pipeline.edit_batch(&requests.asked, &options, control)?;
            let outputs = outputs.into_iter().enumerate();
            Ok(outputs.map(|(i, output)| requests.output(i, output)).collect::<Vec<_>>())
        };
        let running = start(&self.lane, listener, Wants { preview }, work)?;
        Ok(Started { running, notes })
    }

    /// The same outputs one by one. Wrong options are told now; requests fail in their places.
    #[napi]
    pub fn edit_iter(&self, requests: Vec<Request<'_>>, options: Options<'_>) -> Answer<Prepared> {
        answer(self.prepare(requests, &options))
    }

    fn prepare(&self, requests: Vec<Request<'_>>, options: &Options<'_>) -> Result<Prepared> {
        let options = edit_options(options)?;
        self.pipeline.check(&[], &options)?;
        let notes = options.notes();
        let requests = Requests::read(requests, options.n)?;
        let (pipeline, lane) = (self.pipeline.clone(), self.lane.clone());
        let edits = Edits { waiting: Cell::new(Some((pipeline, requests, options))), lane };
        Ok(Prepared { edits, notes })
    }

    /// Says what is wrong with requests and options. Of pictures only the number matters.
    #[napi]
    pub fn check(&self, requests: Vec<Request<'_>>, options: Options<'_>) -> Answer<()> {
        answer(edit_options(&options).and_then(|options| {
            self.pipeline.check(&Requests::read(requests, options.n)?.asked, &options)
        }))
    }

    /// Applies LoRA files in place of those before.
    #[napi]
    pub fn set_loras(&self, loras: Vec<LoraFile>, listener: Listener<'_>) -> Answer<Running> {
        let pipeline = self.pipeline.clone();
        let loras: Vec<_> =
            loras.into_iter().map(|lora| Lora::new(lora.file).scale(lora.scale)).collect();
        answer(start(&self.lane, listener, QUIET, move |_| pipeline.set_loras(&loras)))
    }

    /// Steps unless something else is asked for.
    #[napi(getter)]
    pub fn default_steps(&self) -> u32 {
        self.pipeline.default_steps() as u32
    }

    /// Pixels of outputs unless a size is asked for.
    #[napi(getter)]
    pub fn default_area(&self) -> u32 {
        self.pipeline.default_area() as u32
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

/// Requests as the core takes them, and what is wrong with pictures that it never sees.
struct Requests {
    asked: Vec<EditRequest>,
    errors: Vec<Option<Error>>,
    /// Outputs of each.
    n: usize,
}

impl Requests {
    fn read(requests: Vec<Request<'_>>, n: usize) -> Result<Self> {
        let mut read = Self { asked: Vec::new(), errors: Vec::new(), n };
        for (i, request) in requests.into_iter().enumerate() {
            let (asked, error) = converted(request).map_err(|error| error.with("request", i))?;
            read.asked.push(asked);
            read.errors.push(error);
        }
        Ok(read)
    }

    /// An output or what failed.
    fn output(&self, number: usize, output: Result<tagbrush::Edited>) -> Answer<Edited> {
        let request = number / self.n;
        answer(match &self.errors[request] {
            Some(error) => Err(again(error).with("request", request)),
            None => output.map(edited),
        })
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
