//! The networks of SDXL (Podell et al., arXiv 2307.01952), under the names of diffusers.
//!
//! The arithmetic is that of diffusers 0.42.1 (`UNet2DConditionModel`, `AutoencoderKL`), whose answers the tests compare with.
//! Pictures and latents have their channels last.

mod inpaint;
mod layers;
mod unet;
mod vae;

#[cfg(test)]
mod tests;

pub(crate) use inpaint::InpaintHead;
pub use unet::FreeU;
pub(crate) use unet::{Added, AddedConfig, Prompt, UNet, UnetConfig};
pub(crate) use vae::{AutoencoderConfig, AutoencoderKl};
