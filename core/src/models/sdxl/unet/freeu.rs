//! FreeU (Si et al., arXiv 2309.11497, in the second version of its authors): on the way up, where a picture has
//! many channels, what comes from below counts more where it is strong, and the coarsest waves of what was set aside
//! count less.

use candle_core::{D, DType, Result, Tensor};

/// How the network's parts are weighed on its way up: "FreeU", without training or cost. 1 changes nothing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FreeU {
    /// How much the strong parts of what comes from below count where there are four times as many channels as at
    /// the largest size.
    pub b1: f64,
    /// As `b1`, where there are twice as many.
    pub b2: f64,
    /// How much the coarse parts of what is kept from the way down count, in the places of `b1`.
    pub s1: f64,
    /// As `s1`, in the places of `b2`.
    pub s2: f64,
}

impl Default for FreeU {
    /// The values of Fooocus.
    fn default() -> Self {
        Self { b1: 1.01, b2: 1.02, s1: 0.99, s2: 0.95 }
    }
}

impl FreeU {
    /// What comes from below and what was set aside, `(b, h, w, c)`, in a network whose largest size has `first`
    /// channels.
    pub(super) fn apply(&self, x: Tensor, aside: Tensor, first: usize) -> Result<(Tensor, Tensor)> {
        let channels = x.dim(D::Minus1)?;
        let (b, s) = match channels {
            _ if channels == 4 * first => (self.b1, self.s1),
            _ if channels == 2 * first => (self.b2, self.s2),
            _ => return Ok((x, aside)),
        };
        Ok((strengthened(&x, b)?, smoothed(&aside, s)?))
    }
}

/// The first half of the channels times 1 where their mean is lowest and `scale` where it is highest.
fn strengthened(x: &Tensor, scale: f64) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    let mean = x.to_dtype(DType::F32)?.mean(3)?.reshape((b, h * w))?;
    let (low, high) = (mean.min_keepdim(1)?, mean.max_keepdim(1)?);
    // Where all are equal, none is the highest.
    let range = (&high - &low)?.maximum(f64::from(f32::MIN_POSITIVE))?;
    let place = mean.broadcast_sub(&low)?.broadcast_div(&range)?;
    let factor = ((place * (scale - 1.0))? + 1.0)?.reshape((b, h, w, 1))?;
    let half = x.narrow(3, 0, c / 2)?;
    let half = half.to_dtype(DType::F32)?.broadcast_mul(&factor)?.to_dtype(x.dtype())?;
    Tensor::cat(&[half, x.narrow(3, c / 2, c - c / 2)?], 3)
}

/// The waves of frequencies 0 and -1 along both sides times `scale`: of a transform of Fourier these are its four
/// numbers around the middle, of which only the real part of what they make is kept.
fn smoothed(x: &Tensor, scale: f64) -> Result<Tensor> {
    let (b, h, w, c) = x.dims4()?;
    let waves = waves(h, w);
    let count = waves.len() / (h * w);
    let waves = Tensor::from_vec(waves, (count, h * w), x.device())?;
    let flat = x.to_dtype(DType::F32)?.reshape((b, h * w, c))?;
    // How much of each wave there is, and the waves again.
    let parts = waves.unsqueeze(0)?.broadcast_matmul(&flat)?;
    let coarse = waves.t()?.contiguous()?.unsqueeze(0)?.broadcast_matmul(&parts)?;
    let sum = (flat + (coarse * ((scale - 1.0) / (h * w) as f64))?)?;
    sum.reshape((b, h, w, c))?.to_dtype(x.dtype())
}

/// Cosine and sine of each of these waves at every place, in rows.
fn waves(h: usize, w: usize) -> Vec<f32> {
    // A side of one has no frequency but 0.
    let frequencies = |side: usize| if side > 1 { &[0.0, 1.0][..] } else { &[0.0] };
    let mut all = Vec::new();
    for down in frequencies(h) {
        for across in frequencies(w) {
            let turn = |i: usize| {
                let (y, x) = ((i / w) as f64, (i % w) as f64);
                std::f64::consts::TAU * (down * y / h as f64 + across * x / w as f64)
            };
            all.extend((0..h * w).map(|i| turn(i).cos() as f32));
            if *down != 0.0 || *across != 0.0 {
                all.extend((0..h * w).map(|i| turn(i).sin() as f32));
            }
        }
    }
    all
}
