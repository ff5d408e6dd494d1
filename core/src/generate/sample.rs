//! One sample on its way in the denoising loop.

use candle_core::{Result as Computed, Tensor};

use crate::diffusion::{Question, Sampler};
use crate::schedule::{self, TorchGenerator};

/// A sampler along sigmas in the denoising loop.
pub(super) struct Sigmas {
    pub(super) state: schedule::Sampler,
    /// What another run goes along when this one is over, and the steps before it.
    pub(super) later: Option<(Vec<f64>, usize)>,
    /// Steps before this run.
    pub(super) before: usize,
    /// The last answer, which is the picture that the network sees.
    pub(super) estimate: Option<Tensor>,
    /// Where only a part is made.
    pub(super) masked: Option<Masked>,
}

/// A picture of which a part is made: beside it the network sees the picture under fresh noise, whatever it answered,
/// and its answers are the picture there.
pub(super) struct Masked {
    /// 1 where it is made, `(h, w, 1)`.
    pub(super) mask: Tensor,
    /// `(h, w, c)`.
    pub(super) picture: Tensor,
    pub(super) generator: TorchGenerator,
    /// What the network is asked about.
    pub(super) latents: Option<Tensor>,
}

impl Masked {
    /// `made` where it is made, and `picture` elsewhere; both to the bit.
    fn joined(&self, made: &Tensor, picture: &Tensor) -> Computed<Tensor> {
        let kept = self.mask.affine(-1.0, 1.0)?;
        made.broadcast_mul(&self.mask)? + picture.broadcast_mul(&kept)?
    }
}

impl Sigmas {
    /// Lays the picture around what is asked.
    pub(super) fn lay_around(&mut self) -> Computed<()> {
        let (Some(masked), Some(query)) = (&mut self.masked, self.state.query()) else {
            return Ok(());
        };
        let (height, width, channels) = masked.picture.dims3()?;
        let noise = masked.generator.normal(channels * height * width);
        let device = masked.picture.device();
        let noise = Tensor::from_vec(noise, (channels, height, width), device)?;
        let noise = (noise.permute((1, 2, 0))?.contiguous()? * query.sigma)?;
        let around = (&masked.picture + noise)?;
        masked.latents = Some(masked.joined(query.latents, &around)?);
        Ok(())
    }
}

impl Sampler for Sigmas {
    fn question(&self) -> Option<Question<'_>> {
        let query = self.state.query()?;
        let step = self.before + self.state.steps_done();
        let masked = self.masked.as_ref().and_then(|masked| masked.latents.as_ref());
        Some(Question { latents: masked.unwrap_or(query.latents), sigma: query.sigma, step })
    }

    fn accept(&mut self, answer: Tensor) -> Computed<Option<usize>> {
        let answer = match &self.masked {
            Some(masked) => masked.joined(&answer, &masked.picture)?,
            None => answer,
        };
        let done = self.state.accept(&answer)?.map(|done| self.before + done.step);
        self.estimate = Some(answer);
        if self.state.query().is_none()
            && let Some((sigmas, before)) = self.later.take()
        {
            self.state = self.state.again(&sigmas).map_err(candle_core::Error::wrap)?;
            self.before = before;
        }
        self.lay_around()?;
        Ok(done)
    }

    fn latents(&self) -> &Tensor {
        self.state.latents()
    }

    fn estimate(&self) -> Computed<Tensor> {
        Ok(self.estimate.as_ref().unwrap_or(self.state.latents()).clone())
    }
}
