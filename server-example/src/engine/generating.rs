//! The model that generates, behind its queue: the one that was loaded last stays, and a request that
//! names another one changes it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tagbrush::{
    Control, GenerateOptions, GeneratePipeline, GenerateRequest, Generated, LoadOptions, Lora,
    Result,
};
use tracing::info;

use super::lock;
use super::models::{Models, Picture, Sink};
use super::queue::{Kind, Order, Queue};

/// Pictures out of prompts.
pub struct Generations;

/// A request to the thread.
pub type Generation = Order<Generations>;

/// The way to the thread.
pub type GenerateQueue = Queue<Generations>;

/// Everything of a request but its prompts and seeds: requests with equal ones share a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// The folder or file of the model.
    pub model: String,
    /// A second model that goes on where the first one stops.
    pub refiner: Option<PathBuf>,
    /// A file with an autoencoder in place of the model's own.
    pub vae: Option<PathBuf>,
    /// LoRA files that are applied.
    pub loras: Vec<Lora>,
    /// Head and patch of an inpaint engine, where parts of pictures are made anew with one.
    pub inpaint: Option<(PathBuf, PathBuf)>,
    /// Whether parts of pictures are made anew.
    pub makes_parts: bool,
    /// How pictures are made.
    pub options: GenerateOptions,
}

/// What is known of the model that is taken unless a request names another one.
#[derive(Clone, Debug)]
pub struct ModelFacts {
    /// Its folder or file.
    pub model: String,
    /// What requests call it.
    pub name: String,
    /// Width and height of its pictures unless another size is asked for.
    pub size: (usize, usize),
    /// Styles unless others are named, where the model has some of its own.
    pub styles: Option<Vec<String>>,
    /// Whether a fast performance needs its LoRA file.
    pub needs_loras: bool,
}

/// A model that generates.
pub trait GenerateModel: Send + Sync {
    /// What is known of the model that was loaded at the start.
    fn facts(&self) -> &ModelFacts;
    /// Loads what the setup names, unless it is there.
    fn prepare(&self, setup: &Setup) -> Result<()>;
    /// Makes a picture of each request, in order.
    fn generate(
        &self,
        requests: &[GenerateRequest],
        setup: &Setup,
        control: &Control,
        sink: Sink<'_>,
    ) -> Result<()>;
}

impl Kind for Generations {
    const NAME: &'static str = "generate";
    type Model = dyn GenerateModel;
    type Request = GenerateRequest;
    type Options = Setup;

    fn load(models: &dyn Models) -> Result<Arc<Self::Model>> {
        models.generator()
    }

    fn variants(setup: &Setup) -> usize {
        setup.options.n
    }

    fn prepare(model: &Self::Model, setup: &Setup) -> Result<()> {
        model.prepare(setup)
    }

    fn make(
        model: &Self::Model,
        requests: &[GenerateRequest],
        setup: &Setup,
        control: &Control,
        sink: Sink<'_>,
    ) -> Result<()> {
        model.generate(requests, setup, control, sink)
    }
}

/// The library's model.
pub(super) struct Generator {
    facts: ModelFacts,
    load: LoadOptions,
    loaded: Mutex<Option<Loaded>>,
}

struct Loaded {
    files: Loading,
    pipeline: GeneratePipeline,
}

/// What a pipeline is loaded from.
#[derive(PartialEq)]
struct Loading {
    model: String,
    refiner: Option<PathBuf>,
    vae: Option<PathBuf>,
}

impl Generator {
    /// Loads a model and makes a step of a small picture, through all networks.
    pub(super) fn load(model: String, name: String, load: LoadOptions) -> Result<Self> {
        let pipeline = GeneratePipeline::load(&model, &load)?;
        let options = GenerateOptions::default().size(64, 64).steps(1).seed(0);
        pipeline.generate(&GenerateRequest::new("warm up"), &options)?;
        let (size, needs_loras) = (pipeline.default_size(), pipeline.needs_performance_loras());
        let styles = pipeline.default_styles().map(<[_]>::to_vec);
        let facts = ModelFacts { model: model.clone(), name, size, styles, needs_loras };
        let files = Loading { model, refiner: None, vae: None };
        let loaded = Mutex::new(Some(Loaded { files, pipeline }));
        Ok(Self { facts, load, loaded })
    }

    fn pipeline(&self, setup: &Setup) -> Result<GeneratePipeline> {
        let Setup { model, refiner, vae, .. } = setup.clone();
        let files = Loading { model, refiner, vae };
        let mut loaded = lock(&self.loaded);
        if let Some(loaded) = &*loaded
            && loaded.files == files
        {
            return Ok(loaded.pipeline.clone());
        }
        // The one before goes first: two of them may not fit.
        *loaded = None;
        info!("loading {} for generation", files.model);
        let mut load = self.load.clone();
        load.refiner.clone_from(&files.refiner);
        load.vae.clone_from(&files.vae);
        let pipeline = GeneratePipeline::load(&files.model, &load)?;
        *loaded = Some(Loaded { files, pipeline: pipeline.clone() });
        Ok(pipeline)
    }
}

impl GenerateModel for Generator {
    fn facts(&self) -> &ModelFacts {
        &self.facts
    }

    fn prepare(&self, setup: &Setup) -> Result<()> {
        let pipeline = self.pipeline(setup)?;
        // Requests that are for whole pictures leave it as it is: it is not asked then.
        if setup.makes_parts {
            let files = setup.inpaint.as_ref().map(|(head, patch)| (&**head, &**patch));
            pipeline.set_inpaint_engine(files)?;
        }
        pipeline.set_loras(&setup.loras)
    }

    fn generate(
        &self,
        requests: &[GenerateRequest],
        setup: &Setup,
        control: &Control,
        sink: Sink<'_>,
    ) -> Result<()> {
        let pipeline = self.pipeline(setup)?;
        pipeline.generate_each(requests, &setup.options, control, |i, made| {
            let picture = |made: Generated| {
                let (image, seed) = (made.image.clone(), made.seed);
                Picture { image, seed, origin: Some(Arc::new(made)) }
            };
            sink(i, made.map(picture));
        })
    }
}
