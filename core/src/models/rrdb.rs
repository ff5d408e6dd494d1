//! The generator of ESRGAN, RRDBNet (Wang et al., arXiv 1809.00219), which makes pictures larger: residual blocks in
//! residual blocks of densely connected convolutions. Under the names of BasicSR; also Real-ESRGAN (arXiv 2107.10833),
//! whose networks for factors below 4 first lay blocks of pixels behind each other.
//!
//! The shape is in the tensors, there is no configuration. Pictures have their channels last.

use candle_core::{DType, Result, Tensor};

use crate::device::classify;
use crate::error::{self, Error};
use crate::kernels::activation::Activation;
use crate::nn::{Conv2d, Window, doubled};
use crate::weights::Scope;

/// How much of what a block makes is added to what it is given.
const SHARE: f64 = 0.2;
/// Channels of a picture.
const COLOURS: usize = 3;
/// Convolutions of a dense block.
const DENSE: usize = 5;
/// Dense blocks of a block.
const INNER: usize = 3;
/// Most channels of a layer, and most blocks; published networks have 64 and 23.
const MAX_CHANNELS: usize = 1024;
const MAX_BLOCKS: usize = 256;
/// Most times that the sides are doubled.
const MAX_DOUBLINGS: usize = 4;

/// The shape of a network, as its tensors have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RrdbConfig {
    /// Channels between blocks.
    pub(crate) features: usize,
    /// Channels that each convolution of a dense block adds.
    pub(crate) growth: usize,
    pub(crate) blocks: usize,
    /// Sides of the blocks of pixels that are laid behind each other at first; 1 for none.
    pub(crate) unshuffle: usize,
    /// How often sides are doubled.
    pub(crate) doublings: usize,
}

impl RrdbConfig {
    /// Out of the shapes of tensors.
    ///
    /// # Errors
    /// [`ModelInvalid`](crate::ErrorKind::ModelInvalid) if a tensor that decides is missing, and
    /// [`Unsupported`](crate::ErrorKind::Unsupported) if there is no such network.
    pub(crate) fn of(scope: &Scope) -> error::Result<Self> {
        let convolution = |name: &str| match scope.shape(name).as_deref() {
            Some([n, c, 3, 3]) => Ok((*n, *c)),
            Some(other) => Err(Error::unsupported(format!(
                "shape {other:?} where a convolution of three by three pixels is expected"
            ))
            .with("tensor", name)),
            None => Err(Error::model_invalid("the tensor is missing").with("tensor", name)),
        };
        let (features, inputs) = convolution("conv_first.weight")?;
        let (growth, _) = convolution("body.0.rdb1.conv1.weight")?;
        let blocks = (0..=MAX_BLOCKS)
            .take_while(|i| scope.has(&format!("body.{i}.rdb1.conv1.weight")))
            .count();
        let doublings = (1..=MAX_DOUBLINGS + 1)
            .take_while(|i| scope.has(&format!("conv_up{i}.weight")))
            .count();
        let unshuffle = [1, 2, 4].into_iter().find(|side| inputs == COLOURS * side * side);
        let refused = |what: String| Err(Error::unsupported(what));
        let Some(unshuffle) = unshuffle else {
            return refused(format!("the network takes {inputs} channels, expected 3, 12 or 48"));
        };
        if !(1..=MAX_CHANNELS).contains(&features) || !(1..=MAX_CHANNELS).contains(&growth) {
            return refused(format!(
                "{features} channels that grow by {growth}; at most {MAX_CHANNELS}"
            ));
        }
        if blocks > MAX_BLOCKS || doublings > MAX_DOUBLINGS {
            return refused(format!(
                "more than {MAX_BLOCKS} blocks or {MAX_DOUBLINGS} doublings of the size"
            ));
        }
        if unshuffle > 1 << doublings {
            return refused("the network makes pictures smaller".to_owned());
        }
        Ok(Self { features, growth, blocks, unshuffle, doublings })
    }

    /// How many times the sides become larger.
    pub(crate) fn scale(&self) -> usize {
        (1 << self.doublings) / self.unshuffle
    }
}

/// Convolutions of which each sees what all before it made.
struct DenseBlock(Vec<Conv2d>);

impl DenseBlock {
    fn load(config: &RrdbConfig, scope: &Scope) -> error::Result<Self> {
        let RrdbConfig { features, growth, .. } = *config;
        let layer = |i: usize| {
            let c = features + i * growth;
            let scope = scope.at(format!("conv{}", i + 1));
            match i + 1 == DENSE {
                // What the block adds is a part of its last weights.
                true => conv(&scope, c, features, SHARE),
                false => Ok(conv(&scope, c, growth, 1.0)?.then(Activation::LeakyRelu)),
            }
        };
        (0..DENSE).map(layer).collect::<error::Result<_>>().map(Self)
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Some((last, layers)) = self.0.split_last() else { return Ok(x.clone()) };
        let mut seen = x.clone();
        for layer in layers {
            let made = layer.forward(&seen, None)?;
            seen = Tensor::cat(&[seen, made], 3)?;
        }
        last.forward(&seen, Some(x))
    }
}

/// A network that makes pictures larger.
pub(crate) struct RrdbNet {
    first: Conv2d,
    body: Vec<Vec<DenseBlock>>,
    behind: Conv2d,
    up: Vec<Conv2d>,
    high: Conv2d,
    last: Conv2d,
    config: RrdbConfig,
}

impl RrdbNet {
    pub(crate) fn load(scope: &Scope) -> error::Result<Self> {
        let config = RrdbConfig::of(scope)?;
        let features = config.features;
        let inputs = COLOURS * config.unshuffle * config.unshuffle;
        let plain = |name: &str, c, n| conv(&scope.at(name), c, n, 1.0);
        let up =
            |i| Ok(plain(&format!("conv_up{i}"), features, features)?.then(Activation::LeakyRelu));
        let block = |i: usize| {
            let dense = |j| {
                let scope = scope.at("body").at(i).at(format!("rdb{j}"));
                DenseBlock::load(&config, &scope)
            };
            (1..=INNER).map(dense).collect::<error::Result<_>>()
        };
        Ok(Self {
            first: plain("conv_first", inputs, features)?,
            body: (0..config.blocks).map(block).collect::<error::Result<_>>()?,
            behind: plain("conv_body", features, features)?,
            up: (1..=config.doublings).map(up).collect::<error::Result<_>>()?,
            high: plain("conv_hr", features, features)?.then(Activation::LeakyRelu),
            last: plain("conv_last", features, COLOURS)?,
            config,
        })
    }

    /// How many times the sides become larger.
    pub(crate) fn scale(&self) -> usize {
        self.config.scale()
    }

    /// Channels between blocks.
    pub(crate) fn features(&self) -> usize {
        self.config.features
    }

    /// Pictures `(b, h, w, 3)` of values from 0 to 1 to pictures `(b, scale h, scale w, 3)`, whose values may be a
    /// little outside of that. Any size but nothing: sides that are no multiples of what is laid together are mirrored
    /// over, and what they give is cut off.
    pub(crate) fn forward(&self, pictures: &Tensor) -> Result<Tensor> {
        let (b, h, w, c) = pictures.dims4()?;
        if b * h * w == 0 || c != COLOURS {
            candle_core::bail!("a picture of shape {:?} cannot be made larger", pictures.dims());
        }
        let side = self.config.unshuffle;
        let x = unshuffled(&pictures.to_dtype(DType::F32)?, side)?;
        let first = self.first.forward(&x, None)?;
        let mut x = first.clone();
        for block in &self.body {
            let mut inner = x.clone();
            for dense in block {
                inner = dense.forward(&inner)?;
            }
            x = ((inner * SHARE)? + x)?;
        }
        x = self.behind.forward(&x, Some(&first))?;
        for up in &self.up {
            x = up.forward(&doubled(x)?, None)?;
        }
        let y = self.last.forward(&self.high.forward(&x, None)?, None)?;
        let scale = self.scale();
        y.narrow(1, 0, h * scale)?.narrow(2, 0, w * scale)
    }
}

/// A convolution of three by three pixels, all of it times `share`.
fn conv(scope: &Scope, c: usize, n: usize, share: f64) -> error::Result<Conv2d> {
    let (weight, bias) = (scope.get_f32((n, c, 3, 3), "weight")?, scope.get_f32(n, "bias")?);
    let (weight, bias) = match share {
        1.0 => (weight, bias),
        _ => (weight * share)
            .and_then(|weight| Ok((weight, (bias * share)?)))
            .map_err(|e| classify(e, "cannot prepare a convolution"))?,
    };
    Conv2d::new(&weight, &bias, Window::AROUND)
}

/// `(b, h, w, c)` to `(b, h / side, w / side, c side side)`, the channels outside, as torch's `pixel_unshuffle`; sides
/// are mirrored to multiples.
fn unshuffled(x: &Tensor, side: usize) -> Result<Tensor> {
    if side == 1 {
        return x.contiguous();
    }
    let x = mirrored(&mirrored(x, 1, side)?, 2, side)?;
    let (b, h, w, c) = x.dims4()?;
    x.reshape((b, h / side, side, w / side, side, c))?
        .permute([0, 1, 3, 5, 2, 4])?
        .reshape((b, h / side, w / side, c * side * side))?
        .contiguous()
}

/// Continued along a dimension up to a multiple of `side`, mirrored at the border.
fn mirrored(x: &Tensor, dim: usize, side: usize) -> Result<Tensor> {
    let length = x.dim(dim)?;
    if length.is_multiple_of(side) {
        return Ok(x.clone());
    }
    let more = side - length % side;
    // Of one pixel there is nothing to mirror but itself.
    let places: Vec<u32> = (0..length + more)
        .map(|i| if i < length { i } else { (2 * (length - 1)).saturating_sub(i) } as u32)
        .collect();
    x.index_select(&Tensor::new(places, x.device())?, dim)
}

#[cfg(test)]
mod tests;
