//! Tensors of another source under other names, whole or in parts.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use super::checkpoint::Source;
use crate::device::classify;
use crate::error::{Error, Result};

/// What becomes of a tensor's name.
pub(super) enum Name {
    Kept,
    Now(String),
    /// What it is taken for under each of these names.
    Parts(Vec<(String, Part)>),
    /// Nobody shall see the tensor.
    Hidden,
}

/// What is taken of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// One of three equal parts of its rows: queries, keys and values that are stored as one.
    Third(usize),
    /// The transpose of a matrix.
    Transposed,
    /// The matrix that a convolution of one pixel is. One that is a matrix already is left as it is.
    Matrix,
}

impl Part {
    /// The shape of the part of a tensor, if it has one.
    pub(super) fn shape(self, whole: &[usize]) -> Option<Vec<usize>> {
        match (self, whole) {
            (Self::Whole, _) | (Self::Matrix, [_, _]) => Some(whole.to_vec()),
            (Self::Third(_), [rows, rest @ ..]) if rows.is_multiple_of(3) => {
                Some([&[rows / 3], rest].concat())
            }
            (Self::Transposed, [rows, columns]) => Some(vec![*columns, *rows]),
            (Self::Matrix, [rows, columns, 1, 1]) => Some(vec![*rows, *columns]),
            _ => None,
        }
    }

    fn of(self, tensor: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Whole => Ok(tensor.clone()),
            Self::Third(i) => {
                let rows = tensor.dim(0)? / 3;
                tensor.narrow(0, i * rows, rows)?.contiguous()
            }
            Self::Transposed => tensor.t()?.contiguous(),
            Self::Matrix => tensor.flatten_from(1),
        }
    }
}

/// A source with other names.
pub(crate) struct Renamed {
    base: Arc<dyn Source>,
    /// The names in `base` by those that are asked for.
    names: BTreeMap<String, (String, Part)>,
}

impl Renamed {
    /// The tensors of `base` under the names that `rename` gives them; no two may get the same.
    pub(super) fn new(base: Arc<dyn Source>, rename: impl Fn(&str) -> Name) -> Result<Self> {
        let mut names: BTreeMap<String, (String, Part)> = BTreeMap::new();
        for old in base.names() {
            let parts = match rename(&old) {
                Name::Kept => vec![(old.clone(), Part::Whole)],
                Name::Now(new) => vec![(new, Part::Whole)],
                Name::Parts(parts) => parts,
                Name::Hidden => continue,
            };
            for (new, part) in parts {
                let shape = base.shape(&old).unwrap_or_default();
                if part.shape(&shape).is_none() {
                    return Err(Error::model_invalid(format!(
                        "tensor `{old}` has shape {shape:?}, which cannot be taken as `{new}`"
                    ))
                    .with("file", base.origin(&old)));
                }
                if let Some((other, _)) = names.insert(new.clone(), (old.clone(), part)) {
                    return Err(Error::model_invalid(format!(
                        "`{other}` and `{old}` are both names of `{new}`"
                    ))
                    .with("file", base.origin(&old)));
                }
            }
        }
        Ok(Self { base, names })
    }
}

impl Source for Renamed {
    fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let (old, part) = self.names.get(name)?;
        part.shape(&self.base.shape(old)?)
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let Some((old, part)) = self.names.get(name) else {
            return Err(Error::model_invalid(format!("tensor `{name}` is missing")));
        };
        part.of(&self.base.load(old, dtype, device)?)
            .map_err(|e| classify(e, "cannot take a part of a tensor"))
    }

    fn stored(&self, name: &str) -> Option<DType> {
        self.base.stored(&self.names.get(name)?.0)
    }

    fn origin(&self, name: &str) -> &str {
        self.base.origin(self.names.get(name).map_or(name, |(old, _)| old))
    }
}
