//! What pipelines make, for `tagbrush/_pipeline.py`: a picture, or what failed, in each request's places.

use std::sync::Arc;

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::PyList;
use tagbrush::{Edited, Generated, Result};

use crate::errors::exception;
use crate::floats::Floats;
use crate::image::Image;
use crate::origin::Origin;

/// A picture that a pipeline made.
pub(crate) struct Made {
    image: tagbrush::Image,
    values: Option<Arc<[f32]>>,
    request: usize,
    variant: usize,
    seed: u64,
    /// How it was generated.
    origin: Option<Origin>,
    notes: Vec<String>,
}

impl From<Edited> for Made {
    fn from(edited: Edited) -> Self {
        let Edited { image, values, request, variant, seed, .. } = edited;
        Self { image, values, request, variant, seed, origin: None, notes: Vec::new() }
    }
}

impl From<Generated> for Made {
    fn from(mut generated: Generated) -> Self {
        let values = generated.values.take();
        let (image, notes) = (generated.image.clone(), generated.notes.clone());
        let (request, variant, seed) = (generated.request, generated.variant, generated.seed);
        Self { image, values, request, variant, seed, origin: Some(Origin(generated)), notes }
    }
}

impl Made {
    /// A tuple (image, seed, request, variant, values, origin, notes).
    fn parts(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        let Self { image, values, request, variant, seed, origin, notes } = self;
        let shape = [image.height() as usize, image.width() as usize, 3];
        let values =
            values.map(|values| Py::new(py, Floats::shared(values, &shape))).transpose()?;
        let origin = origin.map(|origin| Py::new(py, origin)).transpose()?;
        let image = Py::new(py, Image(image))?;
        (image, seed, request, variant, values, origin, notes).into_bound_py_any(py)
    }
}

/// The places of outputs, and what is wrong with pictures of requests that the core never sees.
pub(crate) struct Places {
    failed: Vec<Option<PyErr>>,
    /// Outputs of each request.
    n: usize,
}

impl Places {
    /// Of requests with so many outputs each.
    pub(crate) fn new(n: usize) -> Self {
        Self { failed: Vec::new(), n }
    }

    /// Places for the next request, which has failed already if there is an error.
    pub(crate) fn add(&mut self, failed: Option<PyErr>) {
        self.failed.push(failed);
    }

    /// How many outputs there will be.
    pub(crate) fn outputs(&self) -> usize {
        self.failed.len() * self.n
    }

    /// A tuple (image, seed, request, variant, values, origin, notes) or an exception object for an output.
    pub(crate) fn output<'py>(
        &self,
        py: Python<'py>,
        number: usize,
        output: Result<Made>,
    ) -> PyResult<Bound<'py, PyAny>> {
        match (&self.failed[number / self.n], output) {
            (Some(error), _) => Ok(error.value(py).clone().into_any()),
            (None, Ok(made)) => made.parts(py),
            (None, Err(error)) => exception(py, &error),
        }
    }

    /// All of them.
    pub(crate) fn list<'py>(
        &self,
        py: Python<'py>,
        outputs: Vec<Result<impl Into<Made>>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let outputs = outputs.into_iter().enumerate();
        let outputs = outputs.map(|(i, output)| self.output(py, i, output.map(Into::into)));
        PyList::new(py, outputs.collect::<PyResult<Vec<_>>>()?)
    }
}
