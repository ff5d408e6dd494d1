//! The edit pipeline under the one of `lib/edit.ts`, which has the signatures that people see.

use napi_derive::napi;
use tagbrush::{Control, EditRequest, Error, Input, Lora, NegativePrompt, Result};

use crate::errors::{Answer, answer};
use crate::image_in::Given;
use crate::lane::Lane;
use crate::options::{Options, edit_options, load_options, seed};
use crate::outputs::{Outputs, Places};
use crate::running::{Listener, QUIET, Running, Wants, start};
use crate::values::decimal;

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

/// A file and its scale.
#[napi(object)]
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
    pub edits: Outputs,
    /// Warnings.
    pub notes: Vec<String>,
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
        let (requests, places) = Places::read(requests, options.n, converted)?;
        let work = move |control: &Control| {
            Ok(places.list(pipeline.edit_batch(&requests, &options, control)?))
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
        let (requests, places) = Places::read(requests, options.n, converted)?;
        let pipeline = self.pipeline.clone();
        let edits = Outputs::new(&self.lane, move |control: &Control, give| {
            pipeline.edit_each(&requests, &options, control, |i, output| {
                give(places.output(i, output));
            })
        });
        Ok(Prepared { edits, notes })
    }

    /// Says what is wrong with requests and options. Of pictures only the number matters.
    #[napi]
    pub fn check(&self, requests: Vec<Request<'_>>, options: Options<'_>) -> Answer<()> {
        answer(edit_options(&options).and_then(|options| {
            let (requests, _) = Places::read(requests, options.n, converted)?;
            self.pipeline.check(&requests, &options)
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
