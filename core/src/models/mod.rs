//! Networks: what they compute, and nothing else. No files, no images, no threads, no devices.
//!
//! | network | module | published models that use it |
//! |---|---|---|
//! | ViT | [`vit`] | wd-vit-tagger-v3, wd-vit-large-tagger-v3, wd-v1-4-vit-tagger-v2 |
//! | SwinV2 | [`swin_v2`] | wd-swinv2-tagger-v3, wd-v1-4-swinv2-tagger-v2 |
//! | ConvNeXt, ConvNeXt V2 | [`convnext`] | wd-convnext-tagger-v3, wd-v1-4-convnext(v2)-tagger-v2 |
//! | EVA, EVA-02 | [`eva`] | wd-eva02-large-tagger-v3, pixai-tagger heads, idolsankaku |
//!
//! These classifiers are built from the arguments that timm's constructors take (see [`args`]) and
//! from tensors under timm's names. The networks in [`qwen_image`] and [`sdxl`] make pictures, and [`qwen2_5_vl`]
//! and [`clip`] read prompts for them; they are built from the files of diffusers and transformers. [`rrdb`] makes
//! pictures larger.

pub(crate) mod args;
mod attention_pool;
pub(crate) mod clip;
pub(crate) mod convnext;
pub(crate) mod eva;
mod fields;
pub(crate) mod qwen2_5_vl;
pub(crate) mod qwen_image;
pub(crate) mod rrdb;
pub(crate) mod sdxl;
pub(crate) mod swin_v2;
pub(crate) mod vit;

use candle_core::{Result, Tensor};

/// An image classifier: pixels to features to one logit per label.
pub(crate) trait Classifier: Send + Sync {
    /// The length of a feature vector, as given to the head.
    fn features(&self) -> usize;

    /// RGB bytes `(b, h, w, 3)` to pooled features `(b, features)` in `f32`.
    fn embed(&self, pixels: &Tensor) -> Result<Tensor>;

    /// Features `(b, features)` to logits `(b, labels)`.
    fn classify(&self, features: &Tensor) -> Result<Tensor>;
}
