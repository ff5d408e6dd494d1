//! The edit pipeline under the one of `tagbrush/_edit.py`, which has the signatures that people see.

use std::ffi::CString;
use std::path::PathBuf;

use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tagbrush::{Control, EditOptions, EditRequest, Input, NegativePrompt};

use crate::errors::OrRaise;
use crate::floats::decimal;
use crate::image_in::input;
use crate::options::{edit_options, load_options, loras};
use crate::output_stream::OutputStream;
use crate::outputs::Places;
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

    /// For each output a tuple (image, seed, request, variant, values, origin) or an exception object.
    fn edit_batch<'py>(
        &self,
        py: Python<'py>,
        requests: Vec<Request<'py>>,
        options: &Bound<'py, PyDict>,
        progress: Option<Py<PyAny>>,
        preview: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let options = noted_options(py, options)?;
        let (requests, places) = read(requests, options.n)?;
        let pipeline = self.0.clone();
        let work = move |control: &Control| pipeline.edit_batch(&requests, &options, control);
        let outputs = run(py, Listeners { progress, preview }, work)?.or_raise(py)?;
        places.list(py, outputs)
    }

    /// The same outputs one by one.
    fn edit_iter<'py>(
        &self,
        py: Python<'py>,
        requests: Vec<Request<'py>>,
        options: &Bound<'py, PyDict>,
        progress: Option<Py<PyAny>>,
        preview: Option<Py<PyAny>>,
    ) -> PyResult<OutputStream> {
        let options = noted_options(py, options)?;
        // What options mean is checked here and now; requests fail in their places.
        self.0.check(&[], &options).or_raise(py)?;
        let (requests, places) = read(requests, options.n)?;
        let pipeline = self.0.clone();
        OutputStream::start(py, places, Listeners { progress, preview }, move |control, give| {
            let give = |_, output: tagbrush::Result<_>| give(output.map(Into::into));
            pipeline.edit_each(&requests, &options, control, give)
        })
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

/// How many calls of Python are around ours: two of `tagbrush/_pipeline.py`, the public method, and the call
/// that a warning points at.
const CALLS: i32 = 4;

/// Options, with a warning for those without effect.
fn noted_options(py: Python<'_>, options: &Bound<'_, PyDict>) -> PyResult<EditOptions> {
    let options = edit_options(Some(options))?;
    for note in options.notes() {
        PyErr::warn(py, &py.get_type::<PyUserWarning>(), &CString::new(note)?, CALLS)?;
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

fn read(requests: Vec<Request<'_>>, n: usize) -> PyResult<(Vec<EditRequest>, Places)> {
    let mut places = Places::new(n);
    let read = |(images, prompt, negative, seed): Request<'_>| {
        let images: PyResult<Vec<PyResult<Input>>> = images.iter().map(input).collect();
        let (images, error) = match images?.into_iter().collect() {
            Ok(images) => (images, None),
            // Without pictures the core refuses the request too, so outputs keep their numbers.
            Err(error) => (Vec::new(), Some(error)),
        };
        places.add(error);
        Ok(request(images, prompt, negative, seed))
    };
    let requests = requests.into_iter().map(read).collect::<PyResult<_>>()?;
    Ok((requests, places))
}
