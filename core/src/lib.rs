//! Tags, edits and generates images in batches.
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod batch;
mod control;
mod device;
mod error;
mod folder;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(test, not(feature = "fuzzing")))]
mod fuzzing;
mod hub;
mod kernels;
mod limits;
mod models;
mod nn;
mod pixels;
mod tagger;
mod weights;

pub use control::{Control, Progress};
pub use device::{Device, Placement, Precision, set_threads};
pub use error::{Error, ErrorKind, Result};
pub use folder::{
    Existing, FileTags, FolderOptions, FolderRun, Format, Found, OutputOptions, ScanOptions,
    Summary,
};
pub use hub::{PullOptions, cache_dir, pull};
pub use limits::Limits;
pub use pixels::{DecodeOptions, Image};
pub use tagger::{
    CaptionOptions, Category, DEFAULT_THRESHOLD, Input, KNOWN_MODELS, KnownModel, Label, Labels,
    LoadOptions, Order, RatingPlace, Tag, TagOptions, Tagger, Tags, find_known,
};
