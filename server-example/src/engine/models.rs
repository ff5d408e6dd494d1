//! The models behind the engine: traits of what it needs, and the library's models as them.

use std::fmt::Debug;
use std::sync::Arc;

use tagbrush::{
    Control, DecodeOptions, EditOptions, EditPipeline, EditRequest, Edited, Error, ErrorKind,
    Generated, Image, ImageFormat, Input, KNOWN_MODELS, Limits, LoadOptions, MetadataScheme,
    OutputSize, Result, TagOptions, Tagger, Tags, Task, find_known,
};

use super::generating::{GenerateModel, Generator};
use crate::config::Config;
use crate::generate::library::Library;

/// A picture that was made.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The picture.
    pub image: Image,
    /// The seed that gives it again.
    pub seed: u64,
    /// How it was made, where its file can say so.
    pub origin: Option<Arc<dyn Origin>>,
}

impl Picture {
    /// The bytes of its file, which says how it was made if it is asked to.
    pub fn encode(&self, format: ImageFormat, metadata: Option<MetadataScheme>) -> Result<Vec<u8>> {
        match (metadata, &self.origin) {
            (None, _) => self.image.encode(format),
            (Some(scheme), Some(origin)) => origin.encode(format, scheme),
            (Some(_), None) => {
                let message = "how the picture was made is not known";
                Err(Error::new(ErrorKind::Internal, message))
            }
        }
    }
}

/// How a picture was made.
pub trait Origin: Debug + Send + Sync {
    /// The bytes of the picture's file that says so.
    fn encode(&self, format: ImageFormat, scheme: MetadataScheme) -> Result<Vec<u8>>;
}

impl Origin for Generated {
    fn encode(&self, format: ImageFormat, scheme: MetadataScheme) -> Result<Vec<u8>> {
        Self::encode(self, format, Some(scheme))
    }
}

/// A tagger. Scores and tags are apart because pictures of many clients, each with its own options,
/// go through the network together.
pub trait TagModel: Send + Sync {
    /// The scores of each picture.
    fn scores(&self, images: Vec<Input>) -> Vec<Result<Vec<f32>>>;
    /// The tags that scores give.
    fn select(&self, scores: &[f32], options: &TagOptions) -> Result<Tags>;
}

/// What takes each output with its number.
pub type Sink<'a> = &'a mut dyn FnMut(usize, Result<Picture>);

/// An edit model.
pub trait EditModel: Send + Sync {
    /// Whether the request means something, without work.
    fn check(&self, requests: &[EditRequest], options: &EditOptions) -> Result<()>;
    /// Makes all outputs, in order.
    fn edit(
        &self,
        requests: &[EditRequest],
        options: &EditOptions,
        control: &Control,
        sink: Sink<'_>,
    ) -> Result<()>;
    /// Pixels and steps unless something else is asked for.
    fn defaults(&self) -> (usize, usize);
}

/// Where models come from.
pub trait Models: Send + Sync + 'static {
    /// Loads a tagger by the name that a request uses.
    fn tagger(&self, name: &str) -> Result<Arc<dyn TagModel>>;
    /// Loads the edit model.
    fn editor(&self) -> Result<Arc<dyn EditModel>>;
    /// Loads the model that generates.
    fn generator(&self) -> Result<Arc<dyn GenerateModel>>;
    /// The name under which a tagger is kept: equal for all of its aliases. `None` if no request may
    /// name it.
    fn tagger_key(&self, name: &str) -> Option<String>;
    /// The taggers that are loaded at the start.
    fn configured(&self) -> Vec<String>;
}

/// The library's models, as configured.
pub struct RealModels {
    taggers: Vec<(String, String)>,
    edit: String,
    load: LoadOptions,
    edit_memory: Option<u64>,
    generate: Library,
    generate_memory: Option<u64>,
}

impl RealModels {
    /// As configured; nothing is loaded yet.
    pub fn new(config: &Config) -> Self {
        let limits = Limits::default()
            .max_pixels(config.bounds.image_pixels)
            .max_encoded_bytes(config.bounds.image_bytes as u64);
        Self {
            taggers: config.taggers.clone(),
            edit: config.edit_model.clone(),
            load: LoadOptions::default()
                .device(config.device)
                .offline(!config.downloads)
                .decode(DecodeOptions::default().limits(limits)),
            edit_memory: config.edit_memory,
            generate: config.library.clone(),
            generate_memory: config.generate_memory,
        }
    }

    fn entry(&self, name: &str) -> Option<&(String, String)> {
        let find = |wanted: &str| self.taggers.iter().find(|(n, _)| n.eq_ignore_ascii_case(wanted));
        // A configured model also goes by every other name that it is known by.
        find(name).or_else(|| {
            let known = find_known(name)?;
            self.taggers.iter().find(|(n, model)| {
                [n, model].iter().any(|n| find_known(n).is_some_and(|k| k.id == known.id))
            })
        })
    }
}

impl Models for RealModels {
    fn tagger(&self, name: &str) -> Result<Arc<dyn TagModel>> {
        // Never a path from a request: configured names, and published models.
        let model = match (self.entry(name), find_known(name)) {
            (Some((_, model)), _) => model.as_str(),
            (None, Some(known)) => known.id,
            (None, None) => return Err(Error::new(ErrorKind::ModelNotFound, "Model not found")),
        };
        Ok(Arc::new(Tagger::load(model, &self.load)?))
    }

    fn editor(&self) -> Result<Arc<dyn EditModel>> {
        let load = self.load.clone();
        let load = match self.edit_memory {
            Some(bytes) => load.max_memory(bytes),
            None => load,
        };
        Ok(Arc::new(EditPipeline::load(&self.edit, &load)?))
    }

    fn generator(&self) -> Result<Arc<dyn GenerateModel>> {
        let model = self.generate.default_model()?;
        let name = self.generate.name_of(&model);
        let mut load = self.load.clone();
        load.upscaler = self.generate.upscaler();
        load.max_memory = self.generate_memory;
        Ok(Arc::new(Generator::load(model, name, load)?))
    }

    fn tagger_key(&self, name: &str) -> Option<String> {
        let known = || find_known(name).filter(|known| known.task == Task::Tag);
        self.entry(name).map(|(name, _)| name.clone()).or_else(|| known().map(|k| k.id.to_owned()))
    }

    fn configured(&self) -> Vec<String> {
        self.taggers.iter().map(|(name, _)| name.clone()).collect()
    }
}

/// Published taggers that this build can load, for listings.
pub fn published_taggers() -> impl Iterator<Item = &'static str> {
    let taggers = KNOWN_MODELS.iter().filter(|m| m.task == Task::Tag && m.unsupported.is_none());
    taggers.map(|model| model.id)
}

impl TagModel for Tagger {
    fn scores(&self, images: Vec<Input>) -> Vec<Result<Vec<f32>>> {
        Tagger::scores(self, images, &Control::new())
    }

    fn select(&self, scores: &[f32], options: &TagOptions) -> Result<Tags> {
        Tagger::select(self, scores, options)
    }
}

impl EditModel for EditPipeline {
    fn check(&self, requests: &[EditRequest], options: &EditOptions) -> Result<()> {
        EditPipeline::check(self, requests, options)
    }

    fn edit(
        &self,
        requests: &[EditRequest],
        options: &EditOptions,
        control: &Control,
        sink: Sink<'_>,
    ) -> Result<()> {
        self.edit_each(requests, options, control, |i, edited| {
            let picture = |edited: Edited| {
                let Edited { image, seed, .. } = edited;
                Picture { image, seed, origin: None }
            };
            sink(i, edited.map(picture));
        })
    }

    fn defaults(&self) -> (usize, usize) {
        (self.default_area(), self.default_steps())
    }
}

/// A forward pass of a tagger, to know that it works.
pub(crate) fn try_tagger(model: &dyn TagModel) -> Result<()> {
    let grey = Image::from_rgb8(32, 32, vec![128; 32 * 32 * 3])?;
    model.scores(vec![grey.into()]).into_iter().collect::<Result<Vec<_>>>().map(drop)
}

/// One step of an edit of a small picture, through all networks.
pub(crate) fn try_editor(model: &dyn EditModel) -> Result<()> {
    let grey = Image::from_rgb8(64, 64, vec![128; 64 * 64 * 3])?;
    let options = EditOptions::default()
        .num_inference_steps(1)
        .size(OutputSize::Exact(64, 64))
        .reference_area(64 * 64)
        .seed(0);
    let mut answer = Ok(());
    model.edit(
        &[EditRequest::new(grey, "warm up")],
        &options,
        &Control::new(),
        &mut |_, made| {
            if let Err(error) = made {
                answer = Err(error);
            }
        },
    )?;
    answer
}
