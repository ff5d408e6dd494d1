//! Model files: folders, tensors by name, and readers of the formats that models are published in.
//!
//! Every reader ends in one type, [`Weights`]: tensors under the names that the networks ask for.
//! Networks take theirs through a [`Scope`], which checks the shape before anything is copied and
//! remembers what was taken, so that missing and left-over tensors are both reported by name.

mod checkpoint;
mod mapped;
mod model_dir;
pub(crate) mod onnx;
#[cfg(test)]
mod random;
mod safetensors;
pub(crate) mod saved_model;
mod windows;
mod wire;

pub(crate) use checkpoint::{Scope, Weights};
pub(crate) use model_dir::ModelDir;
pub(crate) use onnx::Imported;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use safetensors::SafeTensorsFile;
