//! The pipeline that generates under the one of `lib/generate.ts`, which has the signatures that people
//! see.

use std::path::Path;

use napi_derive::napi;
use tagbrush::{
    Control, Error, GenerateRequest, Input, Lora, Outpaint, Performance, Result, Unstyled,
};

use crate::edit::LoraFile;
use crate::errors::{Answer, answer};
use crate::image_in::Given;
use crate::lane::Lane;
use crate::options::{Options, generate_options, load_options, seed};
use crate::outputs::{Outputs, Places};
use crate::running::{Listener, QUIET, Running, Wants, start};

/// A loaded model that generates.
#[napi]
pub struct GeneratePipeline {
    pipeline: tagbrush::GeneratePipeline,
    /// The core answers one call after the other; here they wait without a thread for each.
    lane: Lane,
}

/// One prompt, with what belongs to it alone.
#[napi(object, object_to_js = false)]
pub struct Prompt<'a> {
    /// What is to be seen.
    pub prompt: String,
    /// What is not to be seen.
    pub negative: String,
    /// A picture to start from.
    pub image: Option<Given>,
    /// An object with the request's own seed, if it has one.
    pub seed: Options<'a>,
    /// Whether texts are as they are.
    pub as_is: bool,
    /// What of the picture is made anew.
    pub mask: Option<Given>,
    /// What is added on the left, above, on the right and below.
    pub outpaint: Vec<u32>,
    /// Both prompts without their styles.
    pub unstyled: Option<UnstyledPrompt>,
    /// How much larger the picture is made, as a text.
    pub upscale: Option<String>,
}

/// Prompts without the styles around them.
#[napi(object)]
pub struct UnstyledPrompt {
    /// What is to be seen.
    pub prompt: String,
    /// What is not to be seen.
    pub negative: String,
    /// The names of the styles.
    pub styles: Vec<String>,
}

impl From<Unstyled> for UnstyledPrompt {
    fn from(unstyled: Unstyled) -> Self {
        let Unstyled { prompt, negative_prompt: negative, styles } = unstyled;
        Self { prompt, negative, styles }
    }
}

#[napi]
impl GeneratePipeline {
    /// Loads a model.
    #[napi]
    pub fn load(model: String, options: Options<'_>, listener: Listener<'_>) -> Answer<Running> {
        answer(load_options(&options).and_then(|options| {
            start(Lane::models(), listener, QUIET, move |_| {
                let pipeline = tagbrush::GeneratePipeline::load(&model, &options)?;
                Ok(Self { pipeline, lane: Lane::new(1) })
            })
        }))
    }

    /// For each output a picture or what failed.
    #[napi]
    pub fn generate_batch(
        &self,
        requests: Vec<Prompt<'_>>,
        options: Options<'_>,
        preview: bool,
        listener: Listener<'_>,
    ) -> Answer<Running> {
        answer(self.start(requests, &options, preview, listener))
    }

    fn start(
        &self,
        requests: Vec<Prompt<'_>>,
        options: &Options<'_>,
        preview: bool,
        listener: Listener<'_>,
    ) -> Result<Running> {
        let options = generate_options(options)?;
        let (requests, places) = Places::read(requests, options.n, converted)?;
        let pipeline = self.pipeline.clone();
        start(&self.lane, listener, Wants { preview }, move |control| {
            Ok(places.list(pipeline.generate_batch(&requests, &options, control)?))
        })
    }

    /// The same outputs one by one. Wrong options are told now; requests fail in their places.
    #[napi]
    pub fn generate_iter(
        &self,
        requests: Vec<Prompt<'_>>,
        options: Options<'_>,
    ) -> Answer<Outputs> {
        answer(self.prepare(requests, &options))
    }

    fn prepare(&self, requests: Vec<Prompt<'_>>, options: &Options<'_>) -> Result<Outputs> {
        let options = generate_options(options)?;
        options.check()?;
        let (requests, places) = Places::read(requests, options.n, converted)?;
        let pipeline = self.pipeline.clone();
        Ok(Outputs::new(&self.lane, move |control: &Control, give| {
            pipeline.generate_each(&requests, &options, control, |i, output| {
                give(places.output(i, output));
            })
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

    /// Width and height of pictures whose size is not asked for.
    #[napi(getter)]
    pub fn default_size(&self) -> Vec<u32> {
        let (width, height) = self.pipeline.default_size();
        vec![width as u32, height as u32]
    }

    /// The styles that go with the model, where it has some of its own.
    #[napi(getter)]
    pub fn default_styles(&self) -> Option<Vec<String>> {
        self.pipeline.default_styles().map(<[_]>::to_vec)
    }

    /// Whether fast ways of sampling need a LoRA file.
    #[napi(getter)]
    pub fn needs_performance_loras(&self) -> bool {
        self.pipeline.needs_performance_loras()
    }

    /// Takes the head and the patch of an inpaint engine, or none.
    #[napi]
    pub fn set_inpaint_engine(
        &self,
        files: Option<Vec<String>>,
        listener: Listener<'_>,
    ) -> Answer<Running> {
        let pipeline = self.pipeline.clone();
        answer(start(&self.lane, listener, QUIET, move |_| {
            let files = files.as_deref().and_then(|files| match files {
                [head, patch] => Some((Path::new(head), Path::new(patch))),
                _ => None,
            });
            pipeline.set_inpaint_engine(files)
        }))
    }

    /// Whether there is an inpaint engine.
    #[napi(getter)]
    pub fn has_inpaint_engine(&self) -> bool {
        self.pipeline.has_inpaint_engine()
    }

    /// Whether there is a network that makes pictures larger.
    #[napi(getter)]
    pub fn has_upscaler(&self) -> bool {
        self.pipeline.has_upscaler()
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

/// The core's request, and what is wrong with its picture, if something is.
fn converted(request: Prompt<'_>) -> Result<(GenerateRequest, Option<Error>)> {
    let (image, error) = match request.image.map(|image| image.0).transpose() {
        Ok(image) => (image, None),
        // The core refuses a picture of no bytes too, so outputs keep their numbers.
        Err(error) => (Some(Input::Bytes(Vec::new())), Some(error)),
    };
    let mut converted = GenerateRequest::new(request.prompt).negative_prompt(request.negative);
    let (mask, wrong) = match request.mask.map(|mask| mask.0).transpose() {
        Ok(mask) => (mask, None),
        Err(error) => (Some(Input::Bytes(Vec::new())), Some(error)),
    };
    converted.image = image;
    converted.mask = mask;
    if let [left, top, right, bottom] = request.outpaint[..] {
        let [left, top, right, bottom] = [left, top, right, bottom].map(|side| side as usize);
        converted.outpaint = Outpaint { left, top, right, bottom };
    }
    converted.as_is = request.as_is;
    converted.unstyled = request.unstyled.map(|unstyled| {
        let UnstyledPrompt { prompt, negative: negative_prompt, styles } = unstyled;
        Unstyled { prompt, negative_prompt, styles }
    });
    converted.upscale = request.upscale.map(|upscale| upscale.parse()).transpose()?;
    converted.seed = seed(&request.seed)?;
    Ok((converted, error.or(wrong)))
}

/// The sizes that SDXL was trained with.
#[napi]
pub fn aspect_ratios() -> Vec<Vec<u32>> {
    let pair = |(width, height): &(usize, usize)| vec![*width as u32, *height as u32];
    tagbrush::ASPECT_RATIOS.iter().map(pair).collect()
}

/// The LoRA file that a performance needs, by its name.
#[napi]
pub fn performance_lora(performance: String) -> Answer<Option<LoraFile>> {
    answer(performance.parse().map(|performance: Performance| {
        let lora = performance.lora()?;
        Some(LoraFile { file: lora.file.display().to_string(), scale: lora.scale })
    }))
}
