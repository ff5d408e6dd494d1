//! Qwen2.5-VL (Bai et al., arXiv 2502.13923) as a text encoder: pictures and a prompt to states.
//!
//! The [`VisionTower`] makes vectors of pictures, and the [`LanguageModel`] makes states of a prompt in
//! which they stand. Each is loaded and dropped on its own: the vectors are all that the second needs
//! of the first. There are no logits, so the head is never loaded.
//!
//! The arithmetic is that of transformers 5.23.0 (`modeling_qwen2_5_vl.py`) where it is told which
//! tokens are pictures, whose answers the tests compare with.

mod block;
mod config;
mod language;
mod prompt;
mod rope;
mod vision;
mod windows;

#[cfg(test)]
mod tests;

pub(crate) use config::VlConfig;
pub(crate) use language::LanguageModel;
pub(crate) use prompt::{Picture, Prompt};
pub(crate) use vision::VisionTower;

/// Whether a checkpoint's tensor is one that neither part takes.
pub(crate) fn is_unused(name: &str) -> bool {
    name == "lm_head.weight"
}
