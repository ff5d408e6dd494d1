//! THE denoising loop, for every pipeline that starts from noise, and the planner of its batches.

mod denoise;
mod guidance;
mod plan;
#[cfg(test)]
mod tests;

pub(crate) use denoise::{Branch, Denoiser, Evaluation, Sample, Step, denoise};
pub(crate) use plan::runs;
