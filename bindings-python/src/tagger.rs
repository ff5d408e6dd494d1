//! The tagger under the one of `tagbrush/_tagger.py`, which has the signatures that people see.

use std::path::PathBuf;

use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tagbrush::{Control, Input, Result};

use crate::errors::{OrRaise, exception, invalid};
use crate::floats::{Floats, decimal};
use crate::folder;
use crate::image_in::{input, inputs};
use crate::options::{load_options, tag_options};
use crate::running::{Listeners, check_fork, run, run_or_leave};
use crate::stream::TagStream;
use crate::tags::Tags;

#[pyclass(frozen)]
pub(crate) struct Tagger(tagbrush::Tagger);

/// What is known of a label: name, category, count, best threshold.
type Label<'a> = (&'a str, u32, Option<u64>, Option<f64>);

#[pymethods]
impl Tagger {
    #[staticmethod]
    fn load(py: Python<'_>, model: String, options: &Bound<'_, PyDict>) -> PyResult<Self> {
        let options = load_options(Some(options))?;
        let loaded = run_or_leave(py, move || tagbrush::Tagger::load(&model, &options))?;
        loaded.or_raise(py).map(Self)
    }

    /// On the calling thread: one picture is no long work, and starting a thread would show.
    fn tag(
        &self,
        py: Python<'_>,
        image: &Bound<'_, PyAny>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Tags> {
        check_fork(py)?;
        let options = tag_options(Some(options))?;
        let image = input(image)??;
        py.detach(|| self.0.tag(image, &options)).or_raise(py).map(Tags)
    }

    /// For each image its tags or an exception object.
    fn tag_batch<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        options: &Bound<'py, PyDict>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let options = tag_options(Some(options))?;
        let tagger = self.0.clone();
        let answers = each(py, images, progress, move |images, control| {
            tagger.tag_batch(images, &options, control)
        })?;
        in_places(py, answers, |tags| Ok(Py::new(py, Tags(tags))?.into_any().into_bound(py)))
    }

    fn tag_iter(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<TagStream> {
        check_fork(py)?;
        TagStream::start(py, &self.0, images, tag_options(Some(options))?)
    }

    fn tag_folder<'py>(
        &self,
        py: Python<'py>,
        paths: Vec<PathBuf>,
        folder: &Bound<'py, PyDict>,
        tags: &Bound<'py, PyDict>,
        caption: &Bound<'py, PyDict>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<folder::Parts<'py>> {
        folder::tag_folder(py, self.0.clone(), paths, [folder, tags, caption], progress)
    }

    /// The tags of each row of an array of two dimensions.
    fn select(
        &self,
        py: Python<'_>,
        scores: PyBuffer<f32>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Vec<Tags>> {
        let options = tag_options(Some(options))?;
        let &[rows, columns] = scores.shape() else {
            return Err(invalid("scores", "expected rows of scores")).or_raise(py);
        };
        let scores = scores.to_vec(py)?;
        let rows = (0..rows).map(|i| &scores[i * columns..][..columns]);
        let tags = py.detach(|| {
            rows.map(|row| self.0.select(row, &options).map(Tags)).collect::<Result<_>>()
        });
        tags.or_raise(py)
    }

    /// One array of all rows; the first failure is raised.
    fn rows(
        &self,
        py: Python<'_>,
        wanted: &str,
        images: &Bound<'_, PyAny>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Floats> {
        let rows = self.each_row(py, wanted, images, progress)?;
        let (count, mut all) = (rows.len(), Vec::new());
        for row in rows {
            all.extend(row?);
        }
        let length = match wanted {
            "embed" => self.0.embedding_length(),
            _ => self.0.labels().len(),
        };
        Ok(Floats::own(all, &[count, length]))
    }

    /// For each image its row or an exception object.
    fn row_list<'py>(
        &self,
        py: Python<'py>,
        wanted: &str,
        images: &Bound<'py, PyAny>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let rows = self.each_row(py, wanted, images, progress)?;
        in_places(py, rows, |row| {
            let length = row.len();
            Ok(Py::new(py, Floats::own(row, &[length]))?.into_any().into_bound(py))
        })
    }

    fn with_batch_size(&self, py: Python<'_>, pictures: usize) -> PyResult<Self> {
        self.0.with_batch_size(pictures).or_raise(py).map(Self)
    }

    #[getter]
    fn labels(&self) -> Vec<Label<'_>> {
        let labels = self.0.labels().as_slice().iter();
        labels.map(|l| (&*l.name, l.category.0, l.count, l.best_threshold.map(decimal))).collect()
    }

    #[getter]
    fn category_thresholds(&self) -> Vec<(u32, f64)> {
        self.0.labels().category_thresholds().iter().map(|(c, t)| (c.0, decimal(*t))).collect()
    }

    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    #[getter]
    fn batch_size(&self) -> usize {
        self.0.batch_size()
    }

    #[getter]
    fn input_size(&self) -> (usize, usize) {
        self.0.input_size()
    }

    #[getter]
    fn embedding_length(&self) -> usize {
        self.0.embedding_length()
    }

    #[getter]
    fn recommended_threshold(&self) -> Option<f64> {
        self.0.recommended_threshold().map(decimal)
    }

    #[getter]
    fn device(&self) -> String {
        self.0.placement().device().to_string()
    }

    #[getter]
    fn dtype(&self) -> String {
        self.0.placement().precision().to_string()
    }
}

impl Tagger {
    fn each_row(
        &self,
        py: Python<'_>,
        wanted: &str,
        images: &Bound<'_, PyAny>,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<PyResult<Vec<f32>>>> {
        let tagger = self.0.clone();
        let is_embedding = match wanted {
            "scores" => false,
            "embed" => true,
            _ => return Err(invalid("wanted", "expected scores or embed")).or_raise(py),
        };
        each(py, images, progress, move |images, control| {
            Ok(match is_embedding {
                true => tagger.embed(images, control),
                false => tagger.scores(images, control),
            })
        })
    }
}

/// Runs `work` on the images that could be read, and puts its answers into their places.
fn each<T: Send + 'static>(
    py: Python<'_>,
    images: &Bound<'_, PyAny>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(Vec<Input>, &Control) -> Result<Vec<Result<T>>> + Send + 'static,
) -> PyResult<Vec<PyResult<T>>> {
    let mut places = Vec::new();
    let mut good = Vec::new();
    for image in inputs(images)? {
        places.push(image.map(|image| good.push(image)));
    }
    let listeners = Listeners { progress, preview: None };
    let answers = run(py, listeners, move |control| work(good, control))?.or_raise(py)?;
    let mut answers = answers.into_iter();
    let mut next = || {
        let lost =
            || Err(tagbrush::Error::new(tagbrush::ErrorKind::Internal, "an answer was lost"));
        answers.next().unwrap_or_else(lost).or_raise(py)
    };
    Ok(places.into_iter().map(|place| place.and_then(|()| next())).collect())
}

/// A list of answers, with exception objects in the places of those that failed.
fn in_places<'py, T>(
    py: Python<'py>,
    answers: Vec<PyResult<T>>,
    convert: impl Fn(T) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for answer in answers {
        match answer {
            Ok(answer) => list.append(convert(answer)?)?,
            Err(error) => list.append(error.into_value(py))?,
        }
    }
    Ok(list)
}

/// The object for an answer or its failure.
pub(crate) fn tags_or_exception<'py>(
    py: Python<'py>,
    answer: Result<tagbrush::Tags>,
) -> PyResult<Bound<'py, PyAny>> {
    match answer {
        Ok(tags) => Ok(Py::new(py, Tags(tags))?.into_any().into_bound(py)),
        Err(error) => exception(py, &error),
    }
}
