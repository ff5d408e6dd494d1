//! What stands beside the models: finding and downloading them, threads, and the command line tool.

use std::path::PathBuf;

use pyo3::prelude::*;
use tagbrush::{KnownModel, PullOptions};

use crate::errors::OrRaise;
use crate::floats::decimal;
use crate::running::{Listeners, check_fork, run};

/// Id, task, aliases, recommended threshold, and why it cannot be loaded.
type Known = (&'static str, &'static str, Vec<&'static str>, Option<f64>, Option<&'static str>);

fn known(model: &'static KnownModel) -> Known {
    let KnownModel { id, task, aliases, recommended_threshold, unsupported, .. } = *model;
    (id, task.name(), aliases.to_vec(), recommended_threshold.map(decimal), unsupported)
}

#[pyfunction]
pub(crate) fn known_models() -> Vec<Known> {
    tagbrush::KNOWN_MODELS.iter().map(known).collect()
}

#[pyfunction]
pub(crate) fn find_known(name: &str) -> Option<Known> {
    tagbrush::find_known(name).map(known)
}

#[pyfunction]
pub(crate) fn pull(
    py: Python<'_>,
    model: String,
    cache_dir: Option<PathBuf>,
    endpoint: Option<String>,
    progress: Option<Py<PyAny>>,
) -> PyResult<PathBuf> {
    let mut options = PullOptions::default();
    (options.cache_dir, options.endpoint) = (cache_dir, endpoint);
    let listeners = Listeners { progress, preview: None };
    run(py, listeners, move |control| tagbrush::pull(&model, &options, control))?.or_raise(py)
}

#[pyfunction]
pub(crate) fn cache_dir(py: Python<'_>) -> PyResult<PathBuf> {
    tagbrush::cache_dir().or_raise(py)
}

#[pyfunction]
pub(crate) fn cpu_kernels(py: Python<'_>) -> PyResult<String> {
    tagbrush::cpu_kernels().map(|kernels| kernels.to_string()).or_raise(py)
}

#[pyfunction]
pub(crate) fn set_threads(py: Python<'_>, threads: usize) -> PyResult<()> {
    check_fork(py)?;
    tagbrush::set_threads(threads).or_raise(py)
}

/// The command line tool with these arguments, the first of which is the program's name.
#[pyfunction]
pub(crate) fn main(py: Python<'_>, arguments: Vec<String>) -> PyResult<u8> {
    check_fork(py)?;
    Ok(py.detach(|| tagbrush::cli::run(arguments)))
}
