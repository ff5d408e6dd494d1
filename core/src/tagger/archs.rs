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

/// One family of networks.
pub(crate) struct Arch {
    /// The family's name in `timm_presets.json`.
    pub(crate) family: &'static str,
    /// Builds the network from its arguments, for this many labels and pixels of this scale.
    load: fn(&Args, usize, &Scope<'_>, &PixelScale) -> Result<Box<dyn Classifier>>,
}

/// Every family.
pub(crate) static ARCHS: &[Arch] = &[
    Arch { family: "vit", load: |args, n, w, p| Ok(Box::new(Vit::load(args, n, w, p)?)) },
    Arch { family: "eva", load: |args, n, w, p| Ok(Box::new(Eva::load(args, n, w, p)?)) },
    Arch { family: "swin_v2", load: |args, n, w, p| Ok(Box::new(SwinV2::load(args, n, w, p)?)) },
    Arch { family: "convnext", load: |args, n, w, p| Ok(Box::new(ConvNext::load(args, n, w, p)?)) },
];

/// Builds the network that a configuration describes.
pub(crate) fn load(
    args: &Args,
    labels: usize,
    scope: &Scope<'_>,
    pixels: &PixelScale,
) -> Result<Box<dyn Classifier>> {
    let family = args.family();
    let arch = ARCHS
        .iter()
        .find(|arch| arch.family == family)
        .ok_or_else(|| Error::unsupported(format!("networks of family `{family}`")))?;
    (arch.load)(args, labels, scope, pixels)
}
