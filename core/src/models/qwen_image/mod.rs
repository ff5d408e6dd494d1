//! The networks of Qwen-Image and Qwen-Image-Edit (Wu et al., arXiv 2508.02324): the denoising
//! transformer and the autoencoder, under the tensor names of their diffusers folders.
//!
//! Pictures and latents have their channels last. The arithmetic is that of diffusers 0.42.1
//! (`transformer_qwenimage.py`, `autoencoder_kl_qwenimage.py`), whose answers the tests compare with.

mod block;
mod config;
mod latents;
mod layout;
mod modulation;
mod rope;
mod transformer;
mod vae;
mod vae_layers;

#[cfg(test)]
mod tests;

pub(crate) use config::{TransformerConfig, VaeConfig};
pub(crate) use latents::{pack, unpack};
pub(crate) use layout::{Grid, Layout, Sample};
pub(crate) use modulation::Modulation;
pub(crate) use transformer::QwenImageTransformer;
pub(crate) use vae::QwenImageVae;
