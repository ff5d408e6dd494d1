//! Image taggers: pictures to tags, scores or embeddings.

mod archs;
mod caption;
mod config;
mod finish;
mod labels;
mod load;
mod names;
mod options;
mod prepare;
mod preprocess;
mod tags;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use candle_core::{DType, Tensor};

pub use caption::{CaptionOptions, RatingPlace};
pub use labels::{Category, Label, Labels};
pub use options::{DEFAULT_THRESHOLD, Order, TagOptions};
pub use tags::{Tag, Tags};

#[cfg(feature = "gpu-check")]
pub(crate) use archs::ARCHS;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use archs::load as load_network;
use config::InputSpec;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use config::ModelConfig;
use finish::Selection;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use labels::{parse_labels, parse_thresholds};
use prepare::Prepared;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use preprocess::Preprocess;

use crate::batch::{Stage, Stream, batch_size, in_groups};
use crate::control::Control;
use crate::device::{Placement, classify};
use crate::error::{Error, Result};
use crate::models::Classifier;
use crate::options::LoadOptions;
#[cfg(test)]
use crate::pixels::Image;
use crate::pixels::{DecodeOptions, Input};

/// A loaded tagger. Cloning shares the model; all methods may be called from several threads.
///
/// ```
/// use tagbrush::{Image, TagOptions, Tagger};
///
/// # fn main() -> tagbrush::Result<()> {
/// let tagger = Tagger::load("demo", &Default::default())?;
/// let image = Image::from_rgb8(64, 64, vec![200; 64 * 64 * 3])?;
/// let tags = tagger.tag(image, &TagOptions::default().threshold(0.5))?;
/// for tag in &tags.tags {
///     println!("{} {:.2}", tag.name, tag.score);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tagger {
    model: Arc<Model>,
    batch_size: usize,
}

struct Model {
    name: String,
    network: Box<dyn Classifier>,
    labels: Labels,
    input: InputSpec,
    placement: Placement,
    recommended_threshold: Option<f32>,
    decode: DecodeOptions,
}

impl Tagger {
    /// Loads a tagger: `"demo"`, a model folder, or the id or alias of a published model (see
    /// [`KNOWN_MODELS`](crate::KNOWN_MODELS)), which is looked for in the local caches and then downloaded.
    ///
    /// # Errors
    /// [`ModelNotFound`](crate::ErrorKind::ModelNotFound) if there is no such model,
    /// [`ModelInvalid`](crate::ErrorKind::ModelInvalid) if its files do not fit each other,
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if its network is of another kind, and those
    /// of [`Placement::resolve`].
    pub fn load(model: &str, options: &LoadOptions) -> Result<Self> {
        let loaded = load::load(model, options)?;
        Ok(Self {
            batch_size: options
                .batch_size
                .unwrap_or_else(|| batch_size(loaded.input.size, loaded.placement.device())),
            model: Arc::new(Model {
                name: loaded.known.map_or(model, |known| known.id).to_owned(),
                network: loaded.network,
                labels: loaded.labels,
                input: loaded.input,
                placement: loaded.placement,
                recommended_threshold: loaded.known.and_then(|k| k.recommended_threshold),
                decode: options.decode.clone(),
            }),
        })
    }

    /// A tagger of any architecture with random weights and numbers for labels: its tags mean nothing.
    #[cfg(any(test, feature = "gpu-check"))]
    pub(crate) fn random(
        config: serde_json::Value,
        labels: usize,
        placement: Placement,
    ) -> Result<Self> {
        let config = config::ModelConfig::parse(config, None)?;
        let (network, labels) = load::random(&config, labels, &placement)?;
        Ok(Self {
            batch_size: batch_size(config.input.size, placement.device()),
            model: Arc::new(Model {
                name: config.args.family().to_owned(),
                network,
                labels,
                input: config.input,
                placement,
                recommended_threshold: None,
                decode: DecodeOptions::default(),
            }),
        })
    }

    /// Its network.
    #[cfg(feature = "gpu-check")]
    pub(crate) fn network(&self) -> &dyn Classifier {
        &*self.model.network
    }

    /// The tags of one picture.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if an option means nothing, and those of
    /// [`Image::open`](crate::Image::open) if the picture cannot be decoded.
    pub fn tag(&self, image: impl Into<Input>, options: &TagOptions) -> Result<Tags> {
        one(self.tag_batch([image], options, &Control::new())?)
    }

    /// The tags of many pictures: one answer for each, in order. A picture that fails costs no
    /// other one its answer.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if an option means nothing.
    pub fn tag_batch<I: Into<Input>>(
        &self,
        images: impl IntoIterator<Item = I, IntoIter: ExactSizeIterator>,
        options: &TagOptions,
        control: &Control,
    ) -> Result<Vec<Result<Tags>>> {
        let images = images.into_iter();
        let total = images.len();
        Ok(self.tags(images, options, control, Some(total))?.collect())
    }

    /// The tags of a stream of pictures of any length, in order, with bounded memory: two batches
    /// are in flight at most. Pictures are pulled, decoded and resized ahead while the network runs.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if an option means nothing.
    pub fn tag_iter<'a, I, Images>(
        &'a self,
        images: Images,
        options: &'a TagOptions,
        control: &Control,
    ) -> Result<impl Iterator<Item = Result<Tags>> + use<'a, I, Images>>
    where
        I: Into<Input>,
        Images: IntoIterator<Item = I>,
    {
        self.tags(images.into_iter(), options, control, None)
    }

    /// The probabilities of all labels for each picture, in the order of [`labels`](Self::labels).
    pub fn scores<I: Into<Input>>(
        &self,
        images: impl IntoIterator<Item = I>,
        control: &Control,
    ) -> Vec<Result<Vec<f32>>> {
        self.stream(Wanted::Scores, images.into_iter(), control, None).collect()
    }

    /// The tags that [`scores`](Self::scores) of a picture give: so pictures that go through the
    /// network together can each have options of their own.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if an option means nothing, or if there is not
    /// one score for each label.
    pub fn select(&self, scores: &[f32], options: &TagOptions) -> Result<Tags> {
        let (found, expected) = (scores.len(), self.model.labels.len());
        if found != expected {
            return Err(Error::invalid_input(format!("{found} scores for {expected} labels"))
                .with("field", "scores"));
        }
        Ok(Selection::new(&self.model.labels, options)?.apply(scores))
    }

    /// The features of each picture that the network's last layer sees, of length
    /// [`embedding_length`](Self::embedding_length): neighbours in them are similar pictures.
    pub fn embed<I: Into<Input>>(
        &self,
        images: impl IntoIterator<Item = I>,
        control: &Control,
    ) -> Vec<Result<Vec<f32>>> {
        self.stream(Wanted::Embedding, images.into_iter(), control, None).collect()
    }

    /// The same tagger (sharing the model) with another number of pictures in one batch: how many
    /// are prepared ahead and computed before their answers come. On a CPU a batch is computed in
    /// groups that fit its caches, which changes no answer.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for zero.
    pub fn with_batch_size(&self, pictures: usize) -> Result<Self> {
        if pictures == 0 {
            return Err(Error::invalid_input("the batch size is 0").with("field", "batch_size"));
        }
        Ok(Self { model: Arc::clone(&self.model), batch_size: pictures })
    }

    /// The number of pictures in one batch.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// What the model is called: its id on the hub, or what was given to [`load`](Self::load).
    pub fn name(&self) -> &str {
        &self.model.name
    }

    /// What the model's outputs mean.
    pub fn labels(&self) -> &Labels {
        &self.model.labels
    }

    /// Height and width of the network's input in pixels.
    pub fn input_size(&self) -> (usize, usize) {
        self.model.input.size
    }

    /// The length of an embedding.
    pub fn embedding_length(&self) -> usize {
        self.model.network.features()
    }

    /// Where the author of a known model measured precision and recall to be equal.
    pub fn recommended_threshold(&self) -> Option<f32> {
        self.model.recommended_threshold
    }

    /// Where and in which precision the model runs.
    pub fn placement(&self) -> &Placement {
        &self.model.placement
    }

    /// As [`tag_iter`](Self::tag_iter), for pictures whose number may be known: `total` is for progress.
    pub(crate) fn tags<'a, I: Into<Input>, Images: Iterator<Item = I>>(
        &'a self,
        images: Images,
        options: &'a TagOptions,
        control: &Control,
        total: Option<usize>,
    ) -> Result<impl Iterator<Item = Result<Tags>> + use<'a, I, Images>> {
        let selection = Selection::new(&self.model.labels, options)?;
        let scores = self.stream(Wanted::Scores, images, control, total);
        Ok(scores.map(move |scores| Ok(selection.apply(&scores?))))
    }

    fn stream<I: Into<Input>, Images: Iterator<Item = I>>(
        &self,
        wanted: Wanted,
        images: Images,
        control: &Control,
        total: Option<usize>,
    ) -> impl Iterator<Item = Result<Vec<f32>>> + use<I, Images> {
        let run = Run { model: Arc::clone(&self.model), wanted };
        let inputs = images.map(Into::into);
        Stream::new(Arc::new(run), inputs, self.batch_size, control.clone(), total)
    }
}

fn one<T>(results: Vec<Result<T>>) -> Result<T> {
    let lost = || Error::new(crate::ErrorKind::Internal, "one picture gave no answer");
    results.into_iter().next().unwrap_or_else(|| Err(lost()))
}

impl std::fmt::Debug for Tagger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tagger")
            .field("model", &self.model.name)
            .field("labels", &self.model.labels.len())
            .field("device", &self.model.placement.device().to_string())
            .field("precision", &self.model.placement.precision().to_string())
            .finish()
    }
}

#[derive(Clone, Copy)]
enum Wanted {
    Scores,
    Embedding,
}

/// The stages of one run: decode and resize on the pool, the network on the calling thread.
struct Run {
    model: Arc<Model>,
    wanted: Wanted,
}

impl Stage for Run {
    type Input = Input;
    type Prepared = Prepared;
    type Output = Vec<f32>;

    fn prepare(&self, input: Input) -> Result<Prepared> {
        let image = input.decode(&self.model.decode)?;
        prepare::prepare(&image, &self.model.input)
    }

    fn forward(&self, batch: &[Prepared]) -> Result<Vec<Result<Vec<f32>>>> {
        let rows = self.rows(batch).map_err(|e| classify(e, "the network failed"))?;
        Ok(rows.into_iter().map(|row| self.finish(row)).collect())
    }
}

impl Run {
    /// The network's values for each picture.
    fn rows(&self, batch: &[Prepared]) -> candle_core::Result<Vec<Vec<f32>>> {
        let Model { network, placement, input, .. } = &*self.model;
        let groups = in_groups(placement.device(), input.size, batch, |group| {
            network.embed(&prepare::to_input(group, input, placement)?)
        })?;
        let features = Tensor::cat(&groups, 0)?;
        let values = match self.wanted {
            Wanted::Embedding => features,
            // For all pictures at once: these are the largest weights that a picture uses only once.
            Wanted::Scores => network.classify(&features)?,
        };
        values.to_dtype(DType::F32)?.to_vec2::<f32>()
    }

    /// One picture's values, unless the network's arithmetic broke down on it.
    fn finish(&self, mut values: Vec<f32>) -> Result<Vec<f32>> {
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::model_invalid(
                "the network gave values that are no numbers; are its weights damaged?",
            ));
        }
        if matches!(self.wanted, Wanted::Scores) {
            values.iter_mut().for_each(|logit| *logit = 1.0 / (1.0 + (-*logit).exp()));
        }
        Ok(values)
    }
}
