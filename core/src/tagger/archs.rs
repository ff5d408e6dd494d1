//! The table of networks that a tagger can have. Adding one is adding a line.

use crate::error::{Error, Result};
use crate::models::Classifier;
use crate::models::args::Args;
use crate::models::convnext::ConvNext;
use crate::models::eva::Eva;
use crate::models::swin_v2::SwinV2;
use crate::models::vit::Vit;
use crate::nn::PixelScale;
use crate::weights::Scope;

type Load = fn(&Args, usize, &Scope, &PixelScale) -> Result<Box<dyn Classifier>>;

/// One family of networks.
pub(crate) struct Arch {
    /// The family's name in `timm_presets.json`.
    pub(crate) family: &'static str,
    /// Builds the network from its arguments, for this many labels and pixels of this scale.
    load: Load,
    /// A `config.json` of a small network, which tests and checks of what holds for every tagger give
    /// random weights.
    #[cfg(any(test, feature = "gpu-check"))]
    pub(crate) tiny: &'static str,
}

/// Every family.
pub(crate) static ARCHS: &[Arch] = &[
    Arch {
        family: "vit",
        load: |args, n, w, p| Ok(Box::new(Vit::load(args, n, w, p)?)),
        #[cfg(any(test, feature = "gpu-check"))]
        tiny: r#"{"architecture": "vit_base_patch16_224", "model_args": {"img_size": 32,
            "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}}"#,
    },
    Arch {
        family: "eva",
        load: |args, n, w, p| Ok(Box::new(Eva::load(args, n, w, p)?)),
        #[cfg(any(test, feature = "gpu-check"))]
        tiny: r#"{"architecture": "eva02_large_patch14_448", "model_args": {"img_size": 40,
            "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3}}"#,
    },
    Arch {
        family: "swin_v2",
        load: |args, n, w, p| Ok(Box::new(SwinV2::load(args, n, w, p)?)),
        #[cfg(any(test, feature = "gpu-check"))]
        tiny: r#"{"architecture": "swinv2_base_window8_256", "model_args": {"img_size": 64,
            "window_size": 4, "embed_dim": 8, "depths": [2, 2, 2], "num_heads": [1, 2, 4]}}"#,
    },
    Arch {
        family: "convnext",
        load: |args, n, w, p| Ok(Box::new(ConvNext::load(args, n, w, p)?)),
        #[cfg(any(test, feature = "gpu-check"))]
        tiny: r#"{"architecture": "convnextv2_base", "input_size": [3, 64, 64], "model_args": {
            "depths": [1, 1, 2, 1], "dims": [8, 12, 16, 24]}}"#,
    },
];

/// Builds the network that a configuration describes.
pub(crate) fn load(
    args: &Args,
    labels: usize,
    scope: &Scope,
    pixels: &PixelScale,
) -> Result<Box<dyn Classifier>> {
    let family = args.family();
    let arch = ARCHS
        .iter()
        .find(|arch| arch.family == family)
        .ok_or_else(|| Error::unsupported(format!("networks of family `{family}`")))?;
    (arch.load)(args, labels, scope, pixels)
}
