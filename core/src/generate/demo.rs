//! The demo model, compiled in: small, but really trained. `core/demo/generate/README.md` says what it
//! can do.

use crate::hub::Embedded;

#[cfg(feature = "demo")]
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../demo/generate/", $name)) as &[u8])),*]
    };
}

/// The files of its folder that are read; both tokenizers are one.
#[cfg(feature = "demo")]
pub(super) const FILES: Option<Embedded> = Some(files![
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]);

/// Left out of this build.
#[cfg(not(feature = "demo"))]
pub(super) const FILES: Option<Embedded> = None;
