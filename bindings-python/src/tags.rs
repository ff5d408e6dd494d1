//! `tagbrush.Tag` and `tagbrush.Tags`: what a tagger answers.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tagbrush::Category;

use crate::floats::decimal;
use crate::options::caption_options;

/// One tag and how sure the model is of it.
#[pyclass(frozen, eq, module = "tagbrush")]
#[derive(Clone, PartialEq)]
pub(crate) struct Tag(tagbrush::Tag);

#[pymethods]
impl Tag {
    #[new]
    #[pyo3(signature = (name, score, category = 0, index = 0))]
    fn new(name: String, score: f32, category: u32, index: usize) -> Self {
        Self(tagbrush::Tag::new(name, score, Category(category), index))
    }

    /// The tag as the model's author wrote it, with underscores.
    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    /// The model's probability, 0 to 1.
    #[getter]
    fn score(&self) -> f64 {
        decimal(self.0.score)
    }

    /// What kind of tag it is: Danbooru's number, 0 for general tags, 4 for characters, 9 for ratings.
    #[getter]
    fn category(&self) -> u32 {
        self.0.category.0
    }

    /// Its place among the model's labels.
    #[getter]
    fn index(&self) -> usize {
        self.0.index
    }

    fn __repr__(&self) -> String {
        format!("Tag({:?}, {:.3})", self.0.name, self.0.score)
    }

    fn __hash__(&self) -> u64 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (&self.0.name, self.0.score.to_bits(), self.0.index).hash(&mut hasher);
        hasher.finish()
    }

    fn __getnewargs__(&self) -> (&str, f32, u32, usize) {
        (&self.0.name, self.0.score, self.0.category.0, self.0.index)
    }
}

/// The tags of one picture.
#[pyclass(frozen, eq, module = "tagbrush")]
#[derive(Clone, PartialEq)]
pub(crate) struct Tags(pub(crate) tagbrush::Tags);

type TagList = Vec<Py<Tag>>;

fn list(py: Python<'_>, tags: &[tagbrush::Tag]) -> PyResult<TagList> {
    tags.iter().map(|tag| Py::new(py, Tag(tag.clone()))).collect()
}

fn scores<'py>(py: Python<'py>, tags: &[tagbrush::Tag]) -> PyResult<Bound<'py, PyDict>> {
    let scores = PyDict::new(py);
    for tag in tags {
        scores.set_item(&*tag.name, decimal(tag.score))?;
    }
    Ok(scores)
}

#[pymethods]
impl Tags {
    #[new]
    #[pyo3(signature = (ratings = Vec::new(), characters = Vec::new(), tags = Vec::new()))]
    fn new(ratings: TagList, characters: TagList, tags: TagList) -> Self {
        let list = |tags: TagList| tags.iter().map(|tag| tag.get().0.clone()).collect();
        let mut all = tagbrush::Tags::default();
        (all.ratings, all.characters, all.tags) = (list(ratings), list(characters), list(tags));
        Self(all)
    }

    /// All content ratings of the model, whatever their probability.
    #[getter]
    fn ratings(&self, py: Python<'_>) -> PyResult<TagList> {
        list(py, &self.0.ratings)
    }

    /// The characters above the threshold.
    #[getter]
    fn characters(&self, py: Python<'_>) -> PyResult<TagList> {
        list(py, &self.0.characters)
    }

    /// All other tags above the threshold.
    #[getter]
    fn tags(&self, py: Python<'_>) -> PyResult<TagList> {
        list(py, &self.0.tags)
    }

    /// The most probable rating; ``None`` if the model has no ratings.
    #[getter]
    fn rating(&self) -> Option<Tag> {
        self.0.rating().cloned().map(Tag)
    }

    /// The tags as one line.
    #[pyo3(signature = (**options))]
    fn caption(&self, options: Option<&Bound<'_, PyDict>>) -> PyResult<String> {
        Ok(self.0.caption(&caption_options(options)?))
    }

    /// Three dicts from names to probabilities: ``ratings``, ``characters`` and ``tags``.
    fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        all.set_item("ratings", scores(py, &self.0.ratings)?)?;
        all.set_item("characters", scores(py, &self.0.characters)?)?;
        all.set_item("tags", scores(py, &self.0.tags)?)?;
        Ok(all)
    }

    /// The same as one line of JSON.
    fn to_json(&self) -> String {
        // Serialising strings and numbers into memory cannot fail.
        serde_json::to_string(&self.0).unwrap_or_default()
    }

    /// The number of characters and other tags.
    fn __len__(&self) -> usize {
        self.0.characters.len() + self.0.tags.len()
    }

    /// Characters, then other tags.
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let mut all = list(py, &self.0.characters)?;
        all.extend(list(py, &self.0.tags)?);
        Ok(PyList::new(py, all)?.try_iter()?.into_any())
    }

    /// Whether a character or another tag of this name was kept.
    fn __contains__(&self, name: &str) -> bool {
        self.0.characters.iter().chain(&self.0.tags).any(|tag| &*tag.name == name)
    }

    fn __repr__(&self) -> String {
        let rating = self.0.rating().map_or("", |tag| &tag.name);
        format!("Tags([{rating}] {})", self.0.caption(&tagbrush::CaptionOptions::default()))
    }

    fn _repr_html_<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("tagbrush._html")?.call_method1("tags", (slf,))
    }

    fn __getnewargs__(&self, py: Python<'_>) -> PyResult<(TagList, TagList, TagList)> {
        Ok((self.ratings(py)?, self.characters(py)?, self.tags(py)?))
    }
}
