//! The demo model, compiled in: small, but really trained. `core/demo/edit/README.md` says what it can
//! do.

use crate::hub::Embedded;

#[cfg(feature = "demo")]
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("../../demo/edit/", $name)) as &[u8])),*]
    };
}

/// The files of its folder.
#[cfg(feature = "demo")]
pub(super) const FILES: Option<Embedded> = Some(files![
    "model_index.json",
    "processor/preprocessor_config.json",
    "processor/tokenizer.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]);

/// Left out of this build.
#[cfg(not(feature = "demo"))]
pub(super) const FILES: Option<Embedded> = None;
