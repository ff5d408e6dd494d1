//! `tagbrush._core`: the compiled half of the Python package.
//!
//! This crate converts and calls; what models do is decided in the core. The other half, in
//! `python/tagbrush`, has the names, signatures and texts that people see.
#![deny(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

use pyo3::prelude::*;

mod edit;
mod errors;
mod floats;
mod folder;
mod generate;
mod image;
mod image_in;
mod models;
mod options;
mod origin;
mod output_stream;
mod outputs;
mod prompter;
mod running;
mod stream;
mod tagger;
mod tags;

/// The compiled half of tagbrush.
#[pymodule]
mod _core {
    use pyo3::prelude::*;

    #[pymodule_export]
    use crate::edit::EditPipeline;
    #[pymodule_export]
    use crate::errors::error_classes;
    #[pymodule_export]
    use crate::floats::Floats;
    #[pymodule_export]
    use crate::generate::{GeneratePipeline, aspect_ratios, performance_lora};
    #[pymodule_export]
    use crate::image::Image;
    #[pymodule_export]
    use crate::models::{
        cache_dir, cpu_kernels, find_known, known_models, main, pull, set_threads,
    };
    #[pymodule_export]
    use crate::origin::Origin;
    #[pymodule_export]
    use crate::output_stream::OutputStream;
    #[pymodule_export]
    use crate::prompter::Prompter;
    #[pymodule_export]
    use crate::running::Preview;
    #[pymodule_export]
    use crate::stream::TagStream;
    #[pymodule_export]
    use crate::tagger::Tagger;
    #[pymodule_export]
    use crate::tags::{Tag, Tags};

    #[pymodule_init]
    fn constants(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("DEFAULT_THRESHOLD", crate::floats::decimal(tagbrush::DEFAULT_THRESHOLD))
    }
}
