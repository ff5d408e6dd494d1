//! What denoising starts from and how far each step goes: noise and sigmas, as pure functions.

mod config;
mod flow_match;
mod noise;
#[cfg(test)]
mod tests;

pub(crate) use config::FlowMatchEuler;
pub(crate) use flow_match::{Rounding, Schedule};
pub(crate) use noise::TorchGenerator;
