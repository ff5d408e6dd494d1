//! The tagger under the one of `lib/tagger.ts`, which has the signatures that people see.

use napi::bindgen_prelude::{Either, Float32Array, Float32ArraySlice};
use napi_derive::napi;
use tagbrush::{Control, Error, ErrorKind, Input, Result};

use crate::errors::{Answer, Failure, answer, invalid};
use crate::folder::{self, Folder};
use crate::image_in::Given;
use crate::lane::Lane;
use crate::options::{Options, load_options, tag_options};
use crate::running::{Listener, QUIET, Running, start, wait};
use crate::tags::Tags;
use crate::values::decimal;

/// How many calls of one tagger run at once: one reads and decodes while another computes.
const AT_ONCE: usize = 2;

/// A loaded tagger.
#[napi]
pub struct Tagger {
    tagger: tagbrush::Tagger,
    lane: Lane,
    /// Folder runs, one after the other: one that was aborted may still be writing.
    folders: Lane,
}

/// What is known of a label.
#[napi(object)]
pub struct Label {
    /// The tag.
    pub name: String,
    /// Danbooru's number of its kind.
    pub category: u32,
    /// How many pictures had it in training.
    pub count: Option<f64>,
    /// Its best threshold.
    pub best_threshold: Option<f64>,
}

/// A list with an item for each picture.
type List<T> = Vec<Either<T, Failure>>;

/// All rows in one, or a row for each picture.
type Rows = Either<Float32Array, List<Float32Array>>;

#[napi]
impl Tagger {
    fn new(tagger: tagbrush::Tagger) -> Self {
        Self { tagger, lane: Lane::new(AT_ONCE), folders: Lane::new(1) }
    }

    /// Loads a model.
    #[napi]
    pub fn load(model: String, options: Options<'_>, listener: Listener<'_>) -> Answer<Running> {
        answer(load_options(&options).and_then(|options| {
            let load = move || tagbrush::Tagger::load(&model, &options).map(Self::new);
            start(Lane::models(), listener, QUIET, move |_| load())
        }))
    }

    /// Loads a model here and now.
    #[napi]
    pub fn load_sync(model: String, options: Options<'_>) -> Answer<Tagger> {
        let options = load_options(&options);
        wait(|_| tagbrush::Tagger::load(&model, &options?).map(Self::new))
    }

    /// For each picture its tags or what failed.
    #[napi]
    pub fn tags(
        &self,
        images: Vec<Given>,
        options: Options<'_>,
        listener: Listener<'_>,
    ) -> Answer<Running> {
        let tagger = self.tagger.clone();
        answer(tag_options(&options).and_then(|options| {
            start(&self.lane, listener, QUIET, move |control| {
                tags(&tagger, images, &options, control)
            })
        }))
    }

    /// The same, here and now.
    #[napi]
    pub fn tags_sync(&self, images: Vec<Given>, options: Options<'_>) -> Answer<List<Tags>> {
        let options = tag_options(&options);
        wait(|control| tags(&self.tagger, images, &options?, control))
    }

    /// Tags folders and writes the tags to files.
    #[napi]
    pub fn tag_folder(
        &self,
        paths: Vec<String>,
        folder: Folder<'_>,
        tags: Options<'_>,
        listener: Listener<'_>,
    ) -> Answer<Running> {
        let tagger = self.tagger.clone();
        answer(
            folder::prepare(tagger, paths, &folder, &tags)
                .and_then(|work| start(&self.folders, listener, QUIET, work)),
        )
    }

    /// The tags that rows of scores give.
    #[napi]
    pub fn select(
        &self,
        rows: Vec<Float32ArraySlice<'_>>,
        options: Options<'_>,
    ) -> Answer<Vec<Tags>> {
        let options = tag_options(&options);
        wait(|_| {
            let options = options?;
            let select = |(i, row): (usize, &Float32ArraySlice<'_>)| {
                let tags = self.tagger.select(row, &options);
                tags.map(Tags::from).map_err(|error| match error.context() {
                    [("field", field)] if field == "scores" => error.with("index", i),
                    _ => error, // Of the options, which are the same for all rows.
                })
            };
            rows.iter().enumerate().map(select).collect()
        })
    }

    /// Scores or embeddings: one array of all rows, or with `apart` one for each picture.
    #[napi]
    pub fn rows(
        &self,
        wanted: String,
        images: Vec<Given>,
        apart: bool,
        listener: Listener<'_>,
    ) -> Answer<Running> {
        let tagger = self.tagger.clone();
        answer(start(&self.lane, listener, QUIET, move |control| {
            rows(&tagger, &wanted, images, apart, control)
        }))
    }

    /// The same, here and now.
    #[napi]
    pub fn rows_sync(&self, wanted: String, images: Vec<Given>, apart: bool) -> Answer<Rows> {
        wait(|control| rows(&self.tagger, &wanted, images, apart, control))
    }

    /// The same model with another batch size.
    #[napi]
    pub fn with_batch_size(&self, pictures: f64) -> Answer<Tagger> {
        // What is no count becomes 0, which the core refuses.
        let count = if pictures.fract() == 0.0 { pictures as usize } else { 0 };
        let tagger = self.tagger.with_batch_size(count);
        let [lane, folders] = [&self.lane, &self.folders].map(Lane::clone);
        answer(tagger.map(|tagger| Self { tagger, lane, folders }))
    }

    /// What the model is called.
    #[napi(getter)]
    pub fn name(&self) -> String {
        self.tagger.name().to_owned()
    }

    /// What the columns of scores mean.
    #[napi(getter)]
    pub fn labels(&self) -> Vec<Label> {
        let labels = self.tagger.labels().as_slice().iter();
        let convert = |label: &tagbrush::Label| Label {
            name: label.name.to_string(),
            category: label.category.0,
            count: label.count.map(|count| count as f64),
            best_threshold: label.best_threshold.map(decimal),
        };
        labels.map(convert).collect()
    }

    /// The number of labels.
    #[napi(getter)]
    pub fn label_count(&self) -> u32 {
        self.tagger.labels().len() as u32
    }

    /// Pairs of a category and its recommended threshold.
    #[napi(getter)]
    pub fn category_thresholds(&self) -> Vec<Vec<f64>> {
        let thresholds = self.tagger.labels().category_thresholds().iter();
        thresholds.map(|(c, t)| vec![f64::from(c.0), decimal(*t)]).collect()
    }

    /// Where precision and recall are equal.
    #[napi(getter)]
    pub fn recommended_threshold(&self) -> Option<f64> {
        self.tagger.recommended_threshold().map(decimal)
    }

    /// Height and width of the input.
    #[napi(getter)]
    pub fn input_size(&self) -> Vec<u32> {
        let (height, width) = self.tagger.input_size();
        vec![height as u32, width as u32]
    }

    /// The columns of embeddings.
    #[napi(getter)]
    pub fn embedding_length(&self) -> u32 {
        self.tagger.embedding_length() as u32
    }

    /// Pictures in one batch.
    #[napi(getter)]
    pub fn batch_size(&self) -> f64 {
        self.tagger.batch_size() as f64
    }

    /// Where it runs.
    #[napi(getter)]
    pub fn device(&self) -> String {
        self.tagger.placement().device().to_string()
    }

    /// In which number format it runs.
    #[napi(getter)]
    pub fn dtype(&self) -> String {
        self.tagger.placement().precision().to_string()
    }
}

fn tags(
    tagger: &tagbrush::Tagger,
    images: Vec<Given>,
    options: &tagbrush::TagOptions,
    control: &Control,
) -> Result<List<Tags>> {
    let found = each(images, |images| tagger.tag_batch(images, options, control))?;
    Ok(found.into_iter().map(|tags| answer(tags.map(Tags::from))).collect())
}

fn rows(
    tagger: &tagbrush::Tagger,
    wanted: &str,
    images: Vec<Given>,
    apart: bool,
    control: &Control,
) -> Result<Rows> {
    let rows = each(images, |images| match wanted {
        "scores" => Ok(tagger.scores(images, control)),
        "embed" => Ok(tagger.embed(images, control)),
        _ => Err(invalid("wanted", "expected scores or embed")),
    })?;
    if apart {
        let rows = rows.into_iter().map(|row| answer(row.map(Float32Array::new)));
        return Ok(Either::B(rows.collect()));
    }
    let mut all = Vec::new();
    for (i, row) in rows.into_iter().enumerate() {
        all.extend(row.map_err(|error| error.with("index", i))?);
    }
    Ok(Either::A(Float32Array::new(all)))
}

/// Runs `work` on the images that came in whole, and puts its answers into their places.
fn each<T>(
    images: Vec<Given>,
    work: impl FnOnce(Vec<Input>) -> Result<Vec<Result<T>>>,
) -> Result<Vec<Result<T>>> {
    let mut good = Vec::with_capacity(images.len());
    let places: Vec<Result<()>> =
        images.into_iter().map(|image| image.0.map(|image| good.push(image))).collect();
    let mut answers = work(good)?.into_iter();
    let lost = || Err(Error::new(ErrorKind::Internal, "an answer was lost"));
    Ok(places
        .into_iter()
        .map(|place| place.and_then(|()| answers.next().unwrap_or_else(lost)))
        .collect())
}
