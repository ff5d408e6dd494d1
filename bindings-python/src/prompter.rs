//! The preparation of prompts under that of `tagbrush/_prompter.py`, which has the signatures that people
//! see.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::OrRaise;
use crate::options::prepare_options;

#[pyclass(frozen)]
pub(crate) struct Prompter(tagbrush::Prompter);

/// Prompt, negative prompt and seed of a request, and both prompts without the styles that come last.
type Request = (String, String, u64, (String, String, Vec<String>));

/// Requests, and LoRA files with their scales.
type Prepared = (Vec<Request>, Vec<(PathBuf, f64)>);

#[pymethods]
impl Prompter {
    #[new]
    fn new(
        py: Python<'_>,
        styles: Option<PathBuf>,
        wildcards: Option<PathBuf>,
        loras: Vec<PathBuf>,
    ) -> PyResult<Self> {
        let mut prompter = tagbrush::Prompter::new();
        if let Some(folder) = styles {
            prompter = prompter.styles(folder).or_raise(py)?;
        }
        if let Some(folder) = wildcards {
            prompter = prompter.wildcards(folder);
        }
        Ok(Self(loras.into_iter().fold(prompter, tagbrush::Prompter::loras)))
    }

    #[getter]
    fn style_names(&self) -> Vec<&str> {
        self.0.style_names()
    }

    fn prepare(
        &self,
        py: Python<'_>,
        prompt: &str,
        negative_prompt: &str,
        options: &Bound<'_, PyDict>,
    ) -> PyResult<Prepared> {
        let options = prepare_options(options)?;
        let prepared = self.0.prepare(prompt, negative_prompt, &options).or_raise(py)?;
        let requests = prepared.requests.into_iter().map(|request| {
            let seed = request.seed.unwrap_or_default();
            let unstyled = request.unstyled.unwrap_or_default();
            let unstyled = (unstyled.prompt, unstyled.negative_prompt, unstyled.styles);
            (request.prompt, request.negative_prompt, seed, unstyled)
        });
        let loras = prepared.loras.into_iter().map(|lora| (lora.file, lora.scale));
        Ok((requests.collect(), loras.collect()))
    }
}
