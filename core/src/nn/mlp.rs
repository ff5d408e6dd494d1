//! The feed-forward layers of transformer blocks, under timm's tensor names unless
//! something else is said.

use candle_core::{D, Result, Tensor};

use super::{Linear, Norm, NormOptions};
use crate::device::classify;
use crate::error;
use crate::kernels::activation::Activation;
use crate::weights::Scope;

/// What kind of feed-forward layer a block has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MlpOptions {
    pub(crate) activation: Activation,
    /// SwiGLU: the activation of one half of the hidden values gates the other half.
    pub(crate) gated: bool,
    /// For gated layers: round the hidden width up to a multiple of this; 0 leaves it.
    pub(crate) align: usize,
    /// A norm between the hidden values and the second linear layer.
    pub(crate) norm: Option<NormOptions>,
    pub(crate) bias: bool,
}

impl MlpOptions {
    /// Two linear layers with biases and an activation between them.
    pub(crate) fn plain(activation: Activation) -> Self {
        Self { activation, gated: false, align: 0, norm: None, bias: true }
    }
}

enum Hidden {
    /// One linear layer with its activation.
    Plain(Linear),
    /// Gate and values from one packed layer: the first half is the gate.
    Packed(Linear, Activation),
    /// Gate and values from two layers.
    Split { gate: Linear, values: Linear },
}

/// A feed-forward layer.
pub(crate) struct Mlp {
    hidden: Hidden,
    norm: Option<Norm>,
    out: Linear,
}

impl Mlp {
    /// `hidden` is the width before `options.align` is applied; `gamma` is layer scale.
    pub(crate) fn load(
        scope: &Scope,
        width: usize,
        hidden: usize,
        options: MlpOptions,
        gamma: Option<&Tensor>,
    ) -> error::Result<Self> {
        let bias = options.bias;
        let (layer, hidden) = if !options.gated {
            let fc1 = Linear::load(&scope.at("fc1"), width, hidden, bias)?;
            (Hidden::Plain(fc1.then(options.activation)), hidden)
        } else if options.norm.is_some() || options.align > 0 {
            let hidden = hidden.next_multiple_of(options.align.max(1));
            let gate =
                Linear::load(&scope.at("fc1_g"), width, hidden, bias)?.then(Activation::Silu);
            let values = Linear::load(&scope.at("fc1_x"), width, hidden, bias)?;
            (Hidden::Split { gate, values }, hidden)
        } else {
            let fc1 = Linear::load(&scope.at("fc1"), width, 2 * hidden, bias)?;
            (Hidden::Packed(fc1, Activation::Silu), hidden)
        };
        let norm =
            options.norm.map(|norm| Norm::load(&scope.at("norm"), hidden, norm)).transpose()?;
        let out = Linear::load_scaled(&scope.at("fc2"), hidden, width, bias, gamma)?;
        Ok(Self { hidden: layer, norm, out })
    }

    /// GEGLU (Shazeer, arXiv 2002.05202) under diffusers' names: one packed layer, values first, of
    /// which the GELU of the gate is a factor. It is taken apart here, so that the product is part of
    /// the gate's layer.
    pub(crate) fn load_geglu(scope: &Scope, width: usize, hidden: usize) -> error::Result<Self> {
        let layer = scope.at("net.0.proj");
        let weight = layer.get((2 * hidden, width), "weight")?;
        let bias = layer.get_f32(2 * hidden, "bias")?;
        let half = |start: usize| {
            let rows = |tensor: &Tensor| tensor.narrow(0, start, hidden);
            let parts = rows(&weight).and_then(|weight| Ok((weight, rows(&bias)?)));
            let (weight, bias) = parts.map_err(|e| classify(e, "cannot take a layer apart"))?;
            Linear::new(&weight, &bias)
        };
        let (values, gate) = (half(0)?, half(hidden)?.then(Activation::GeluErf));
        let out = Linear::load(&scope.at("net.2"), hidden, width, true)?;
        Ok(Self { hidden: Hidden::Split { gate, values }, norm: None, out })
    }

    /// Of `before(x)`, added to `onto`.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        before: Option<&Norm>,
        onto: Option<&Tensor>,
    ) -> Result<Tensor> {
        let hidden = match &self.hidden {
            Hidden::Plain(fc1) if self.norm.is_none() => {
                return fc1.forward_two(x, before, &self.out, onto);
            }
            Hidden::Plain(fc1) => fc1.forward_normed(x, before)?,
            Hidden::Packed(fc1, activation) => {
                let packed = fc1.forward_normed(x, before)?;
                let half = packed.dim(D::Minus1)? / 2;
                let gate = activation.forward(&packed.narrow(D::Minus1, 0, half)?)?;
                (gate * packed.narrow(D::Minus1, half, half)?)?
            }
            Hidden::Split { gate, values } => {
                gate.forward_times(x, before, &values.forward_normed(x, before)?)?
            }
        };
        self.out.forward_onto(&hidden, self.norm.as_ref(), onto)
    }
}
