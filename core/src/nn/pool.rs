//! Pooling of tokens or grids to one feature vector, as timm's `global_pool` names it.

use candle_core::{DType, Result, Tensor};

/// How the tokens of a picture become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pooling {
    /// The first token.
    Token,
    /// The mean.
    Average,
    /// The largest value of each feature.
    Max,
    /// Half the sum of mean and maximum.
    AverageMax,
}

impl Pooling {
    /// The pooling that timm calls `name`.
    pub(crate) fn from_timm(name: &str) -> Option<Self> {
        match name {
            "token" => Some(Self::Token),
            "avg" => Some(Self::Average),
            "max" => Some(Self::Max),
            "avgmax" => Some(Self::AverageMax),
            _ => None,
        }
    }

    /// In `f32`: the mean of hundreds of tokens needs it.
    fn apply(self, tokens: &Tensor) -> Result<Tensor> {
        let tokens = &match self {
            Self::Token => tokens.narrow(1, 0, 1)?,
            _ => tokens.clone(),
        };
        let tokens = &tokens.to_dtype(DType::F32)?;
        match self {
            Self::Token => tokens.squeeze(1)?.contiguous(),
            Self::Average => tokens.mean(1),
            Self::Max => tokens.max(1),
            Self::AverageMax => (tokens.mean(1)? + tokens.max(1)?)? * 0.5,
        }
    }
}

/// `(b, n, c)` to `(b, c)` in `f32`. The first `prefix` tokens are no patches: all but [`Pooling::Token`]
/// leave them out.
pub(crate) fn pool_tokens(tokens: &Tensor, pooling: Pooling, prefix: usize) -> Result<Tensor> {
    if pooling == Pooling::Token || prefix == 0 {
        return pooling.apply(tokens);
    }
    let patches = tokens.dim(1)? - prefix;
    pooling.apply(&tokens.narrow(1, prefix, patches)?.contiguous()?)
}

/// `(b, h, w, c)` to `(b, c)` in `f32`.
pub(crate) fn pool_grid(grid: &Tensor, pooling: Pooling) -> Result<Tensor> {
    pooling.apply(&grid.flatten(1, 2)?)
}
