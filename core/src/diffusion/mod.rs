//! THE denoising loop, for every pipeline that starts from noise, the planner of its batches, and what of the networks
//! stays in memory.

mod denoise;
mod flow;
mod guidance;
pub(crate) mod memory;
mod picture;
mod plan;
mod preview;
#[cfg(test)]
mod tests;

pub(crate) use denoise::{Branch, Denoiser, Evaluation, Question, Sample, Sampler, Step, denoise};
pub(crate) use flow::FlowEuler;
pub(crate) use guidance::keeping_length;
pub(crate) use picture::picture;
pub(crate) use plan::runs;
pub(crate) use preview::LatentColours;
