//! The edit pipeline under the one of `tagbrush/_edit.py`, which has the signatures that people see.

use std::ffi::CString;
use std::path::PathBuf;

use pyo3::exceptions::PyUserWarning;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};
use tagbrush::{Control, EditRequest, Edited, Input, NegativePrompt};

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
        let options = edit_options(Some(options))?;
        for note in options.notes() {
            // Above this call stand `edit_batch` and whoever called it.
            PyErr::warn(py, &py.get_type::<PyUserWarning>(), &CString::new(note)?, 3)?;
        }
        let mut failed = Vec::with_capacity(requests.len());
        let mut converted = Vec::with_capacity(requests.len());
        for (images, prompt, negative, seed) in requests {
            let images: PyResult<Vec<PyResult<Input>>> = images.iter().map(input).collect();
            let (images, error) = match images?.into_iter().collect() {
                Ok(images) => (images, None),
                // Without pictures the core refuses the request too, so outputs keep their numbers.
                Err(error) => (Vec::new(), Some(error)),
            };
            let negative = negative.map_or(NegativePrompt::Off, NegativePrompt::from);
            let mut request = EditRequest::with_references(images, prompt);
            (request.negative_prompt, request.seed) = (negative, seed);
            converted.push(request);
            failed.push(error);
        }
        let (pipeline, n) = (self.0.clone(), options.n);
        let listeners = Listeners { progress, preview };
        let work = move |control: &Control| pipeline.edit_batch(&converted, &options, control);
        let outputs = run(py, &listeners, work)?.or_raise(py)?;
        let list = PyList::empty(py);
        for (i, output) in outputs.into_iter().enumerate() {
            match (&failed[i / n], output) {
                (Some(error), _) => list.append(error.value(py))?,
                (None, Ok(edited)) => list.append(parts(py, edited)?)?,
                (None, Err(error)) => list.append(exception(py, &error)?)?,
            }
        }
        Ok(list)
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

type Parts = (Py<Image>, u64, usize, usize, Option<Py<Floats>>);

fn parts(py: Python<'_>, edited: Edited) -> PyResult<Parts> {
    let (width, height) = (edited.image.width() as usize, edited.image.height() as usize);
    let values =
        edited.values.map(|values| Py::new(py, Floats::shared(values, &[height, width, 3])));
    let image = Py::new(py, Image(edited.image))?;
    Ok((image, edited.seed, edited.request, edited.variant, values.transpose()?))
}
