//! `tag_folder`: the core's folder run.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tagbrush::{Control, FolderRun, Summary, Tagger};

use crate::errors::{OrRaise, exception};
use crate::options::{caption_options, folder_options, tag_options};
use crate::running::{Listeners, run};

/// Tagged, skipped, failures with exception objects, and whether the run was cancelled.
pub(crate) type Parts<'py> = (usize, usize, Vec<(PathBuf, Bound<'py, PyAny>)>, bool);

/// The dicts are those of the run, of the tags and of captions.
pub(crate) fn tag_folder<'py>(
    py: Python<'py>,
    tagger: Tagger,
    paths: Vec<PathBuf>,
    [folder, tags, caption]: [&Bound<'py, PyDict>; 3],
    progress: Option<Py<PyAny>>,
) -> PyResult<Parts<'py>> {
    let folder = folder_options(folder)?;
    let tags = tag_options(Some(tags))?;
    let caption = caption_options(Some(caption))?;
    let listeners = Listeners { progress, preview: None };
    let work = move |control: &Control| {
        FolderRun::new(&paths, folder)?.run(&tagger, &tags, &caption, control, |_| ())
    };
    let Summary { tagged, skipped, failures, cancelled, .. } =
        run(py, listeners, work)?.or_raise(py)?;
    let failures = failures.into_iter().map(|(path, error)| Ok((path, exception(py, &error)?)));
    Ok((tagged, skipped, failures.collect::<PyResult<_>>()?, cancelled))
}
