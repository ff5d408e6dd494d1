//! The noise that samplers add on their way.
//!
//! All of it comes from one generator, that of torch's CPU seeded with the sample's seed, which goes
//! on after the initial noise; so it depends on the seed and the sampler, never on the batch.
//!
//! Samplers of stochastic differential equations ask how far a Brownian path goes between two sigmas,
//! and may ask about overlapping ranges. The path is made while it is asked about: a sigma beyond
//! those known is an independent step away from the nearest of them, one between two known is drawn
//! from the Brownian bridge over them. Whatever was asked before, answers fit together.

use candle_core::{DType, Result, Tensor};

use super::super::noise::TorchGenerator;
use super::linear;

#[derive(Clone)]
pub(crate) struct Noise {
    source: Source,
    /// Where the path is at the sigmas that were asked about, ascending.
    path: Vec<(f64, Tensor)>,
}

#[derive(Clone)]
enum Source {
    Torch(TorchGenerator),
    /// What a reference drew, answer after answer.
    #[cfg(test)]
    Recorded(Vec<Tensor>),
}

impl Noise {
    /// From a generator that has drawn the initial noise.
    pub(crate) fn new(generator: TorchGenerator) -> Self {
        Self { source: Source::Torch(generator), path: Vec::new() }
    }

    #[cfg(test)]
    pub(super) fn recorded(mut answers: Vec<Tensor>) -> Self {
        answers.reverse();
        Self { source: Source::Recorded(answers), path: Vec::new() }
    }

    /// Normal numbers that are independent of all before.
    pub(super) fn normal(&mut self, like: &Tensor) -> Result<Tensor> {
        match &mut self.source {
            Source::Torch(generator) => {
                let numbers = generator.normal(like.elem_count());
                Tensor::from_vec(numbers, like.shape(), like.device())?.to_dtype(DType::F32)
            }
            #[cfg(test)]
            Source::Recorded(answers) => Ok(answers.pop().expect("not that much was recorded")),
        }
    }

    /// How far the path goes from one sigma to another, divided by its deviation.
    pub(super) fn brownian(&mut self, from: f64, to: f64, like: &Tensor) -> Result<Tensor> {
        #[cfg(test)]
        if let Source::Recorded(_) = self.source {
            return self.normal(like);
        }
        let (start, end) = (self.at(from, like)?, self.at(to, like)?);
        let scale = (to - from).abs().sqrt().recip();
        linear(&[(scale, &end), (-scale, &start)])
    }

    /// Forgets the path above a sigma that nobody asks about any more.
    pub(super) fn forget_above(&mut self, sigma: f64) {
        self.path.retain(|(known, _)| *known <= sigma);
    }

    /// Where the path is at a sigma.
    fn at(&mut self, sigma: f64, like: &Tensor) -> Result<Tensor> {
        let place = self.path.partition_point(|(known, _)| *known < sigma);
        let above = self.path.get(place).cloned();
        let below = place.checked_sub(1).map(|place| self.path[place].clone());
        let position = match (below, above) {
            (_, Some((known, position))) if known == sigma => return Ok(position),
            (Some((low, start)), Some((high, end))) => {
                let (before, after) = (sigma - low, high - sigma);
                let deviation = (before * after / (high - low)).sqrt();
                let share = before / (high - low);
                let normal = self.normal(like)?;
                linear(&[(1.0 - share, &start), (share, &end), (deviation, &normal)])?
            }
            (Some((known, position)), None) | (None, Some((known, position))) => {
                let deviation = (sigma - known).abs().sqrt();
                linear(&[(1.0, &position), (deviation, &self.normal(like)?)])?
            }
            (None, None) => like.zeros_like()?,
        };
        self.path.insert(place, (sigma, position.clone()));
        Ok(position)
    }
}
