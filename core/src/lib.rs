//! Tags, edits and generates images in batches.
#![deny(missing_docs)]
#![deny(unsafe_code)]

mod control;
mod device;
mod error;
mod kernels;
mod limits;
mod models;
mod nn;
mod pixels;
mod weights;

pub use control::{Control, Progress};
pub use device::{Device, Placement, Precision};
pub use error::{Error, ErrorKind, Result};
pub use limits::Limits;
pub use pixels::{DecodeOptions, Image};
