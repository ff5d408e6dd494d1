//! The pipeline that generates under the one of `tagbrush/_generate.py`, which has the signatures that
//! people see.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};
use tagbrush::{Control, GenerateRequest, Input, Outpaint, Performance, Unstyled, Upscale};

use crate::errors::OrRaise;
use crate::image_in::input;
use crate::options::{generate_options, load_options, loras};
use crate::output_stream::OutputStream;
use crate::outputs::Places;
use crate::running::{Listeners, run, run_or_leave};

#[pyclass(frozen)]
pub(crate) struct GeneratePipeline(tagbrush::GeneratePipeline);

/// Prompt, negative prompt, the picture to start from, the request's own seed, whether texts are as they are, the
/// mask, what is added at the sides, both prompts without their styles, and how much larger the picture is made.
type Request<'py> = (
    String,
    String,
    Option<Bound<'py, PyAny>>,
    Option<u64>,
    bool,
    Option<Bound<'py, PyAny>>,
    (usize, usize, usize, usize),
    Option<(String, String, Vec<String>)>,
    Option<Bound<'py, PyAny>>,
);

#[pymethods]
impl GeneratePipeline {
    #[staticmethod]
    fn load(py: Python<'_>, model: String, options: &Bound<'_, PyDict>) -> PyResult<Self> {
        let options = load_options(Some(options))?;
        let load = move || tagbrush::GeneratePipeline::load(&model, &options);
        run_or_leave(py, load)?.or_raise(py).map(Self)
    }

    /// For each output a tuple (image, seed, request, variant, values, origin, notes) or an exception object.
    fn generate_batch<'py>(
        &self,
        py: Python<'py>,
        requests: Vec<Request<'py>>,
        options: &Bound<'py, PyDict>,
        progress: Option<Py<PyAny>>,
        preview: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyList>> {
        let options = generate_options(options)?;
        let (requests, places) = read(requests, options.n)?;
        let pipeline = self.0.clone();
        let work = move |control: &Control| pipeline.generate_batch(&requests, &options, control);
        let outputs = run(py, Listeners { progress, preview }, work)?.or_raise(py)?;
        places.list(py, outputs)
    }

    /// The same outputs one by one.
    fn generate_iter(
        &self,
        py: Python<'_>,
        requests: Vec<Request<'_>>,
        options: &Bound<'_, PyDict>,
        progress: Option<Py<PyAny>>,
        preview: Option<Py<PyAny>>,
    ) -> PyResult<OutputStream> {
        let options = generate_options(options)?;
        // What options mean is checked here and now; requests fail in their places.
        options.check().or_raise(py)?;
        let (requests, places) = read(requests, options.n)?;
        let pipeline = self.0.clone();
        OutputStream::start(py, places, Listeners { progress, preview }, move |control, give| {
            let give = |_, output: tagbrush::Result<_>| give(output.map(Into::into));
            pipeline.generate_each(&requests, &options, control, give)
        })
    }

    fn set_loras(&self, py: Python<'_>, files: Vec<(PathBuf, f64)>) -> PyResult<()> {
        let pipeline = self.0.clone();
        run_or_leave(py, move || pipeline.set_loras(&loras(files)))?.or_raise(py)
    }

    fn set_inpaint_engine(
        &self,
        py: Python<'_>,
        files: Option<(PathBuf, PathBuf)>,
    ) -> PyResult<()> {
        let pipeline = self.0.clone();
        let set = move || {
            let files = files.as_ref().map(|(head, patch)| (&**head, &**patch));
            pipeline.set_inpaint_engine(files)
        };
        run_or_leave(py, set)?.or_raise(py)
    }

    #[getter]
    fn default_size(&self) -> (usize, usize) {
        self.0.default_size()
    }

    #[getter]
    fn default_styles(&self) -> Option<Vec<String>> {
        self.0.default_styles().map(<[_]>::to_vec)
    }

    #[getter]
    fn needs_performance_loras(&self) -> bool {
        self.0.needs_performance_loras()
    }

    #[getter]
    fn has_inpaint_engine(&self) -> bool {
        self.0.has_inpaint_engine()
    }

    #[getter]
    fn has_upscaler(&self) -> bool {
        self.0.has_upscaler()
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

fn read(requests: Vec<Request<'_>>, n: usize) -> PyResult<(Vec<GenerateRequest>, Places)> {
    let mut places = Places::new(n);
    let read =
        |(prompt, negative, image, seed, as_is, mask, sides, unstyled, larger): Request<'_>| {
            let (mask, wrong) = match mask.map(|mask| input(&mask)).transpose()?.transpose() {
                Ok(mask) => (mask, None),
                Err(error) => (Some(Input::Bytes(Vec::new())), Some(error)),
            };
            let (image, error) = match image.map(|image| input(&image)).transpose()?.transpose() {
                Ok(image) => (image, None),
                // The core refuses a picture of no bytes too, so outputs keep their numbers.
                Err(error) => (Some(Input::Bytes(Vec::new())), Some(error)),
            };
            places.add(error.or(wrong));
            let mut request = GenerateRequest::new(prompt).negative_prompt(negative);
            (request.image, request.seed, request.as_is) = (image, seed, as_is);
            let (left, top, right, bottom) = sides;
            request.outpaint = Outpaint { left, top, right, bottom };
            request.mask = mask;
            request.unstyled = unstyled.map(|(prompt, negative_prompt, styles)| Unstyled {
                prompt,
                negative_prompt,
                styles,
            });
            request.upscale = larger.map(|larger| upscale(&larger)).transpose()?;
            Ok(request)
        };
    let requests = requests.into_iter().map(read).collect::<PyResult<_>>()?;
    Ok((requests, places))
}

/// A factor, or a name.
fn upscale(given: &Bound<'_, PyAny>) -> PyResult<Upscale> {
    match given.cast::<PyString>() {
        Ok(name) => name.to_cow()?.parse().or_raise(given.py()),
        Err(_) => given.extract().map(Upscale::by),
    }
}

/// The sizes that SDXL was trained with.
#[pyfunction]
pub(crate) fn aspect_ratios() -> Vec<(usize, usize)> {
    tagbrush::ASPECT_RATIOS.to_vec()
}

/// The LoRA file that a performance needs, by its name, and its scale.
#[pyfunction]
pub(crate) fn performance_lora(
    py: Python<'_>,
    performance: &str,
) -> PyResult<Option<(PathBuf, f64)>> {
    let performance: Performance = performance.parse().or_raise(py)?;
    Ok(performance.lora().map(|lora| (lora.file, lora.scale)))
}
