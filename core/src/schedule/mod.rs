//! What denoising starts from and how far each step goes: noise, sigmas and samplers. No networks.
//!
//! Edit models are denoised by flow matching ([`Schedule`]). Stable Diffusion XL has a choice: a
//! [`Scheduler`] chooses sigmas, a [`Sampler`] goes along
//! them, and a [`Preconditioning`] is around the network.

mod config;
mod discrete;
mod flow_match;
mod mersenne;
mod names;
mod noise;
mod preconditioning;
mod sampler;
mod scheduler;
#[cfg(test)]
mod tests;

pub(crate) use config::FlowMatchEuler;
pub(crate) use flow_match::{Rounding, Schedule};
pub(crate) use mersenne::Mersenne;
pub(crate) use noise::TorchGenerator;
pub(crate) use preconditioning::{Preconditioning, Prediction};
pub use sampler::SamplerKind;
pub(crate) use sampler::{Noise, Sampler};
pub use scheduler::Scheduler;
