//! Model files: folders, tensors by name, and readers of the formats that models are published in.
//!
//! Every reader ends in one type, [`Weights`]: tensors under the names that the networks ask for.
//! Networks take theirs through a [`Scope`], which checks the shape before anything is copied and
//! remembers what was taken, so that missing and left-over tensors are both reported by name.

mod checkpoint;
mod esrgan;
mod fp8;
mod gguf;
mod hash;
mod lora;
mod mapped;
mod model_dir;
pub(crate) mod onnx;
mod open;
mod patch;
pub(crate) mod pickle;
#[cfg(any(test, feature = "gpu-check"))]
mod random;
mod renamed;
mod safetensors;
pub(crate) mod saved_model;
mod scaled;
mod shards;
mod single_file;
mod slot;
#[cfg(test)]
mod tests;
mod wan;
mod windows;
mod wire;

pub(crate) use checkpoint::{Scope, Source, Weights};
pub(crate) use esrgan::open as open_upscaler;
pub(crate) use hash::sha256;
pub(crate) use lora::{Network, apply as apply_loras, apply_to_both as apply_loras_to_both};
pub(crate) use model_dir::ModelDir;
pub(crate) use onnx::Imported;
#[cfg(test)]
pub(crate) use open::Opened;
pub(crate) use open::{open_text_encoder, open_transformer, open_vae};
pub(crate) use patch::{Patch, Patched};
pub(crate) use pickle::PickleFile;
pub(crate) use single_file::{Component, SingleFile};
pub(crate) use slot::Slot;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use {
    gguf::GgufFile,
    lora::{Adapted, Lora},
    safetensors::SafeTensorsFile,
    scaled::Scaled,
};
