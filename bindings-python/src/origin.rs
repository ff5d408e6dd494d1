//! How a picture was generated, for the files that say so. `tagbrush/_generate.py` has the signatures that people
//! see.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyNone, PyTuple, PyType};
use tagbrush::{Generated, MetadataScheme};

use crate::errors::OrRaise;
use crate::image::file_format;

/// The core's output, without its values.
#[pyclass(frozen)]
pub(crate) struct Origin(pub(crate) Generated);

#[pymethods]
impl Origin {
    // All three may read the whole file of a model, for its hash.

    fn metadata(&self, py: Python<'_>, scheme: &str) -> PyResult<String> {
        let scheme: MetadataScheme = scheme.parse().or_raise(py)?;
        py.detach(|| self.0.metadata(scheme)).or_raise(py)
    }

    fn encode<'py>(
        &self,
        py: Python<'py>,
        format: &str,
        quality: Option<u8>,
        metadata: &str,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let format = file_format(format, quality).or_raise(py)?;
        let scheme: MetadataScheme = metadata.parse().or_raise(py)?;
        let bytes = py.detach(|| self.0.encode(format, Some(scheme))).or_raise(py)?;
        Ok(PyBytes::new(py, &bytes))
    }

    fn save(&self, py: Python<'_>, path: PathBuf, metadata: &str) -> PyResult<()> {
        let scheme: MetadataScheme = metadata.parse().or_raise(py)?;
        py.detach(|| self.0.save(path, Some(scheme))).or_raise(py)
    }

    /// Nothing of the model travels with a pickled picture: it arrives as `None`.
    fn __reduce__<'py>(&self, py: Python<'py>) -> (Bound<'py, PyType>, Bound<'py, PyTuple>) {
        (PyNone::get(py).get_type(), PyTuple::empty(py))
    }

    fn __deepcopy__<'py>(slf: Bound<'py, Self>, _memo: &Bound<'py, PyAny>) -> Bound<'py, Self> {
        slf // It never changes.
    }
}
