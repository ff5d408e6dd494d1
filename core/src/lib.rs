//! Tags images with WD14 / WD-v3 taggers, edits them by instruction with Qwen-Image-Edit, and generates them with
//! SDXL, in batches, without a Python stack.
//!
//! ```
//! use tagbrush::{LoadOptions, TagOptions, Tagger};
//!
//! # fn main() -> tagbrush::Result<()> {
//! let tagger = Tagger::load("demo", &LoadOptions::default())?;
//! # let file = concat!(env!("CARGO_MANIFEST_DIR"), "/demo/images/owl.png");
//! # let folder = [file];
//! let tags = tagger.tag(file, &TagOptions::default())?;
//! println!("{:?}: {}", tags.rating(), tags.caption(&Default::default()));
//!
//! // Thousands of pictures: bounded memory, answers in order, one failure stays one failure.
//! for tags in tagger.tag_iter(folder, &TagOptions::default(), &Default::default())? {
//!     match tags {
//!         Ok(tags) => println!("{} tags", tags.tags.len()),
//!         Err(error) => println!("{}: {error}", error.code()),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Edits are a slice of requests, which go through the model together:
//!
//! ```
//! use tagbrush::{Control, EditOptions, EditPipeline, EditRequest, LoadOptions};
//!
//! # fn main() -> tagbrush::Result<()> {
//! let pipeline = EditPipeline::load("demo", &LoadOptions::default())?;
//! # let files = ["pair.png", "circle.png"]
//! #     .map(|file| format!("{}/demo/edit/samples/{file}", env!("CARGO_MANIFEST_DIR")));
//! # let files = files.iter().map(String::as_str);
//! let requests = EditRequest::for_each(files, "make the background blue");
//! let options = EditOptions::default().n(2).seed(7);
//! for edited in pipeline.edit_batch(&requests, &options, &Control::new())? {
//!     let edited = edited?;
//!     println!("request {}, variant {}: {:?}", edited.request, edited.variant, edited.image);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - [`Tagger`] loads a model (a folder, a published id, or the embedded `"demo"`) and gives
//!   [`Tags`], raw scores or embeddings.
//! - [`EditPipeline`] loads an edit model in the same way and turns slices of [`EditRequest`] into
//!   [`Edited`] pictures, all in one run.
//! - [`GeneratePipeline`] loads SDXL from a folder or a file and makes [`Generated`] pictures of slices of
//!   [`GenerateRequest`], with the samplers of Fooocus.
//! - [`TagOptions`] says which tags are kept, [`CaptionOptions`] how they are written as text.
//! - [`FolderRun`] tags whole folders and goes on where a stopped run was.
//! - [`Control`] cancels and reports progress; [`Limits`] bound what one picture may cost.
//! - [`Error`] has a [`kind`](Error::kind) to match on, and says where it went wrong.
//!
//! Results equal the reference implementations (timm, onnxruntime, diffusers, transformers, Pillow); where they differ is
//! written down in `COMPATIBILITY.md`.
//!
//! # Features
//!
//! `demo` embeds the demo model, `hub` downloads published models, `cli` builds the command line
//! tool. All are on by default; a library that depends on this crate wants
//! `default-features = false`. `cuda` and `metal`, which are off, add devices: `docs/gpu.md`.
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod batch;
#[cfg(feature = "cli")]
pub mod cli;
mod control;
mod device;
mod diffusion;
mod edit;
mod error;
mod folder;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(test, not(feature = "fuzzing")))]
mod fuzzing;
mod generate;
#[cfg(feature = "gpu-check")]
#[doc(hidden)]
pub mod gpu_check;
mod hub;
mod kernels;
mod limits;
mod models;
mod nn;
mod options;
mod pixels;
mod schedule;
mod tagger;
mod tokens;
mod weights;

pub use control::{Control, Preview, Progress};
#[doc(hidden)]
pub use device::device_features;
pub use device::{Device, Placement, Precision, set_threads};
pub use edit::{
    EditOptions, EditPipeline, EditRequest, Edited, NegativePrompt, OutputSize, Preset,
};
pub use error::{Error, ErrorKind, Result};
pub use folder::{
    Existing, FileTags, FolderOptions, FolderRun, Format, Found, OutputOptions, ScanOptions,
    Summary, find_pictures,
};
pub use generate::{
    ASPECT_RATIOS, GenerateOptions, GeneratePipeline, GenerateRequest, Generated, MetadataScheme,
    Outpaint, Performance, PrepareOptions, Prepared, Prompter, RefinerSwap, SizeGuidance, Unstyled,
    Upscale, Vary, parse_aspect_ratio,
};
pub use hub::{KNOWN_MODELS, KnownModel, PullOptions, Task, cache_dir, find_known, pull};
pub use kernels::cpu::cpu_kernels;
pub use limits::Limits;
pub use models::sdxl::FreeU;
pub use options::{LoadOptions, Lora};
pub use pixels::{DecodeOptions, Image, ImageFormat, Input};
pub use schedule::{SamplerKind, Scheduler};
pub use tagger::{
    CaptionOptions, Category, DEFAULT_THRESHOLD, Label, Labels, Order, RatingPlace, Tag,
    TagOptions, Tagger, Tags,
};
