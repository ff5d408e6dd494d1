//! The edit pipeline under the one of `tagbrush/_edit.py`, which has the signatures that people see.

use std::ffi::CString;
use std::path::PathBuf;

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tagbrush::{Control, EditOptions, EditRequest, Edited, Input, NegativePrompt, Result};

use crate::edit_stream::EditStream;
use crate::errors::{OrRaise, exception};
use crate::floats::{Floats, decimal};
use crate::image::Image;
use crate::image_in::input;
use crate::options::{edit_options, load_options, loras};
use crate::running::{Listeners, run, run_or_leave};

#[pyclass(frozen)]
pub(crate) struct EditPipeline(tagbrush::EditPipeline);

/// References, prompt, the negative prompt or none, and the request's own seed.
type Request<'py> = (Vec<Bound<'py, PyAny>>, String, Option<String>, Option<u64>);

#[pymethods]
impl EditPipeline {
    #[staticmethod]
    fn load(py: Python<'_>, model: String, options: &Bound<'_, PyDict>) -> PyResult<Self> {
        let options = load_options(Some(options))?;
        let loaded = run_or_leave(py, move || tagbrush::EditPipeline::load(&model, &options))?;
        loaded.or_raise(py).map(Self)
    }

    /// For each output a tuple (image, seed, request, variant, values) or an exception object.
    fn edit_batch<'py>(
        &self,
        py: Python<'py>,
        requests: Vec<Request<'py>>,
        options: &Bound<'py, PyDict>,
        progress: Option<Py<PyAny>>,
        preview: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        // Above this call stand `edit_batch` and whoever called it.
        let options = noted_options(py, options, 3)?;
        let requests = Requests::read(requests, options.n)?;
        let (pipeline, asked) = (self.0.clone(), requests.asked.clone());
        let listeners = Listeners { progress, preview };
        let work = move |control: &Control| pipeline.edit_batch(&asked, &options, control);
        let outputs = run(py, listeners, work)?.or_raise(py)?.into_iter().enumerate();
        PyList::new(
            py,
            outputs
                .map(|(i, output)| requests.output(py, i, output))
                .collect::<PyResult<Vec<_>>>()?,
        )
    }

    /// The same outputs one by one.
    fn edit_iter<'py>(
        &self,
        py: Python<'py>,
        requests: Vec<Request<'py>>,
        options: &Bound<'py, PyDict>,
        progress: Option<Py<PyAny>>,
        preview: Option<Py<PyAny>>,
    ) -> PyResult<EditStream> {
        let options = noted_options(py, options, 2)?;
        // What options mean is checked here and now; requests fail in their places.
        self.0.check(&[], &options).or_raise(py)?;
        let requests = Requests::read(requests, options.n)?;
        EditStream::start(py, self.0.clone(), requests, options, Listeners { progress, preview })
    }

    /// Of requests without their pictures, of which only the number matters.
    fn check(
        &self,
        py: Python<'_>,
        requests: Vec<(usize, String, Option<String>, Option<u64>)>,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<()> {
        let options = edit_options(Some(options))?;
        let requests = requests.into_iter().map(|(pictures, prompt, negative, seed)| {
            request(vec![Input::Bytes(Vec::new()); pictures], prompt, negative, seed)
        });
        self.0.check(&requests.collect::<Vec<_>>(), &options).or_raise(py)
    }

    fn set_loras(&self, py: Python<'_>, files: Vec<(PathBuf, f64)>) -> PyResult<()> {
        let pipeline = self.0.clone();
        run_or_leave(py, move || pipeline.set_loras(&loras(files)))?.or_raise(py)
    }

    #[getter]
    fn default_steps(&self) -> usize {
        self.0.default_steps()
    }

    #[getter]
    fn default_area(&self) -> usize {
        self.0.default_area()
    }

    #[getter]
    fn default_true_cfg_scale(&self) -> f64 {
        decimal(self.0.default_true_cfg_scale())
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

/// Options, with a warning for those without effect that points at the call `depth` levels above.
fn noted_options(py: Python<'_>, options: &Bound<'_, PyDict>, depth: i32) -> PyResult<EditOptions> {
    let options = edit_options(Some(options))?;
    for note in options.notes() {
        PyErr::warn(py, &py.get_type::<PyUserWarning>(), &CString::new(note)?, depth)?;
    }
    Ok(options)
}

fn request(
    images: Vec<Input>,
    prompt: String,
    negative: Option<String>,
    seed: Option<u64>,
) -> EditRequest {
    let mut request = EditRequest::with_references(images, prompt);
    request.negative_prompt = negative.map_or(NegativePrompt::Off, NegativePrompt::from);
    request.seed = seed;
    request
}

/// Requests as the core takes them, and what is wrong with pictures that it never sees.
pub(crate) struct Requests {
    pub(crate) asked: Vec<EditRequest>,
    failed: Vec<Option<PyErr>>,
    /// Outputs of each.
    n: usize,
}

impl Requests {
    fn read(requests: Vec<Request<'_>>, n: usize) -> PyResult<Self> {
        let mut read = Self { asked: Vec::new(), failed: Vec::new(), n };
        for (images, prompt, negative, seed) in requests {
            let images: PyResult<Vec<PyResult<Input>>> = images.iter().map(input).collect();
            let (images, error) = match images?.into_iter().collect() {
                Ok(images) => (images, None),
                // Without pictures the core refuses the request too, so outputs keep their numbers.
                Err(error) => (Vec::new(), Some(error)),
            };
            read.asked.push(request(images, prompt, negative, seed));
            read.failed.push(error);
        }
        Ok(read)
    }

    /// How many outputs there will be.
    pub(crate) fn outputs(&self) -> usize {
        self.failed.len() * self.n
    }

    /// A tuple (image, seed, request, variant, values) or an exception object for an output.
    pub(crate) fn output<'py>(
        &self,
        py: Python<'py>,
        number: usize,
        output: Result<Edited>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match (&self.failed[number / self.n], output) {
            (Some(error), _) => Ok(error.value(py).clone().into_any()),
            (None, Ok(edited)) => parts(py, edited)?.into_bound_py_any(py),
            (None, Err(error)) => exception(py, &error),
        }
    }
}

type Parts = (Py<Image>, u64, usize, usize, Option<Py<Floats>>);

fn parts(py: Python<'_>, edited: Edited) -> PyResult<Parts> {
    let (width, height) = (edited.image.width() as usize, edited.image.height() as usize);
    let values =
        edited.values.map(|values| Py::new(py, Floats::shared(values, &[height, width, 3])));
    let image = Py::new(py, Image(edited.image))?;
    Ok((image, edited.seed, edited.request, edited.variant, values.transpose()?))
}
