//! What a file adds to one weight. Whatever its kind is, it is a matrix of outputs by everything else,
//! which for a convolution is inputs by the places of the kernel.

use std::collections::BTreeMap;

use candle_core::{DType, Device, Result as Computed, Tensor};
use safetensors::tensor::Dtype;

use super::keys::{Half, Part};
use super::notes::Notes;
use crate::device::classify;
use crate::error::{Error, Result};
use crate::weights::checkpoint::Source;
use crate::weights::safetensors::SafeTensorsFile;

/// Highest rank; published files have 4 to 256.
const MAX_RANK: usize = 4096;

/// What a file has of one layer: tensors by what they are.
pub(super) type Found = BTreeMap<Part, String>;

/// The change of one weight.
pub(super) struct Change {
    kind: Kind,
    /// Of the weight.
    shape: Vec<usize>,
    /// What the matrix is multiplied by: `alpha / rank`.
    scale: f64,
    /// The same, where it is a part of the two factors, rounded to their format.
    rounded: Option<f64>,
}

enum Kind {
    /// LoRA, and LoCon for convolutions.
    Product(Matrix),
    /// LoHa: the product of the elements of two matrices (Hyeon-Woo et al., arXiv 2108.06098).
    Hadamard(Matrix, Matrix),
    /// LoKr: every element of the first matrix times the second (Edalati et al., arXiv 2212.10650).
    Kronecker(Matrix, Matrix),
}

/// A matrix by the names of its tensors.
enum Matrix {
    Whole(String),
    /// `left right`, with a kernel `(a, b, h, w)` between them or not. Whether `left` is stored as `(a, outputs)`
    /// then, and not as `(outputs, a)`.
    Factors {
        left: String,
        right: String,
        core: Option<String>,
        turned: bool,
    },
}

impl Change {
    /// Checks what `file` has for the weight `weight` of this shape.
    pub(super) fn new(
        file: &SafeTensorsFile,
        weight: &str,
        shape: &[usize],
        mut found: Found,
        notes: Option<&Notes>,
        rounds_alpha: bool,
    ) -> Result<Self> {
        for name in found.values() {
            if !matches!(file.format(name), Some(Dtype::F32 | Dtype::F16 | Dtype::BF16)) {
                return Err(Error::unsupported(format!(
                    "the LoRA is stored as {:?}; only F32, F16 and BF16 are read",
                    file.format(name)
                ))
                .with("tensor", name));
            }
        }
        let first = found.values().next().cloned().unwrap_or_default();
        let named_alpha = found.remove(&Part::Alpha);
        let (kind, rank) = Kind::of(file, weight, shape, found, &first)?;
        let alpha = named_alpha.as_deref().map(|name| read_alpha(file, name)).transpose()?;
        let is_product = matches!(kind, Kind::Product(_));
        let is_plain = matches!(kind, Kind::Product(Matrix::Factors { core: None, .. }));
        let (scale, rounded) = match (notes, &named_alpha, alpha.zip(rank)) {
            (Some(_), Some(name), _) => {
                return Err(Error::model_invalid(
                    "the LoRA has both an alpha of its own and one in the file's notes",
                )
                .with("tensor", name));
            }
            (Some(_), None, _) if !is_product => {
                return Err(
                    Error::unsupported("notes are read for LoRA only").with("tensor", first)
                );
            }
            (Some(notes), None, _) => (notes.scale(weight, rank.unwrap_or(1))?, None),
            (None, _, Some((alpha, rank))) => match alpha / rank as f64 {
                scale if rounds_alpha && is_plain => (1.0, Some(scale)),
                scale => (scale, None),
            },
            // Without factors there is no rank, and LyCORIS leaves `alpha` out.
            (None, _, None) => (1.0, None),
        };
        Ok(Self { kind, shape: shape.to_vec(), scale, rounded })
    }

    /// What is added to the weight at a strength of 1, in `f32`.
    pub(super) fn load(&self, file: &SafeTensorsFile, device: &Device) -> Result<Tensor> {
        let load = |name: &str| file.load(name, DType::F32, device);
        let failed = |e| classify(e, "cannot apply a LoRA");
        let sum = match (&self.kind, self.rounded) {
            (Kind::Product(Matrix::Factors { left, right, core: None, .. }), Some(alpha)) => {
                rounded(file, (left, load(left)?), (right, load(right)?), alpha)
                    .and_then(|(left, right)| left.flatten_from(1)?.matmul(&right.flatten_from(1)?))
                    .map_err(failed)
            }
            (Kind::Product(matrix), _) => matrix.load(&load),
            (Kind::Hadamard(one, two), _) => (one.load(&load)? * two.load(&load)?).map_err(failed),
            (Kind::Kronecker(one, two), _) => {
                kronecker(&one.load(&load)?, &two.load(&load)?).map_err(failed)
            }
        }?;
        let scaled =
            || (if self.scale == 1.0 { sum } else { (sum * self.scale)? }).reshape(&*self.shape);
        scaled().map_err(failed)
    }
}

/// Both matrices in `f32`. As in diffusers, `alpha / rank` is a part of them, rounded to the format of
/// the file; a power of two of it goes into the other matrix, so that small values are not lost.
fn rounded(
    file: &SafeTensorsFile,
    (up_name, up): (&str, Tensor),
    (down_name, down): (&str, Tensor),
    alpha: f64,
) -> Computed<(Tensor, Tensor)> {
    let (mut of_down, mut of_up) = (alpha, 1.0);
    while of_down > 0.0 && of_down * 2.0 < of_up {
        of_down *= 2.0;
        of_up /= 2.0;
    }
    let scaled = |tensor: Tensor, name: &str, scale: f64| {
        let stored = match file.format(name) {
            Some(Dtype::F16) => DType::F16,
            Some(Dtype::BF16) => DType::BF16,
            _ => DType::F32,
        };
        (tensor * scale)?.to_dtype(stored)?.to_dtype(DType::F32)
    };
    Ok((scaled(up, up_name, of_up)?, scaled(down, down_name, of_down)?))
}

/// `(a, b)` and `(c, d)` to `(a c, b d)`.
fn kronecker(one: &Tensor, two: &Tensor) -> Computed<Tensor> {
    let ((a, b), (c, d)) = (one.dims2()?, two.dims2()?);
    one.reshape((a, 1, b, 1))?.broadcast_mul(&two.reshape((1, c, 1, d))?)?.reshape((a * c, b * d))
}

impl Kind {
    /// The kind of change that these tensors are, and its rank where it has one.
    fn of(
        file: &SafeTensorsFile,
        weight: &str,
        shape: &[usize],
        mut found: Found,
        first: &str,
    ) -> Result<(Self, Option<usize>)> {
        use Half::{A, B, Core, Whole};
        let factors = |found: &mut Found, left, right, core, turned| {
            let (left, right) = (found.remove(&left)?, found.remove(&right)?);
            let core = found.remove(&core);
            Some(Matrix::Factors { left, right, turned: turned && core.is_some(), core })
        };
        let hada = |found: &mut Found, i| {
            factors(found, Part::Hada(A(i)), Part::Hada(B(i)), Part::Hada(Core(i)), true)
        };
        let lokr = |found: &mut Found, i| match found.remove(&Part::Lokr(Whole(i))) {
            Some(whole) => Some(Matrix::Whole(whole)),
            None => factors(found, Part::Lokr(A(i)), Part::Lokr(B(i)), Part::Lokr(Core(i)), true),
        };
        let half = || {
            Error::model_invalid(format!(
                "`{first}` changes `{weight}`, but another matrix that belongs to it is missing"
            ))
        };
        let kind = match found.keys().next() {
            Some(Part::Down | Part::Up | Part::Mid) => {
                let product = factors(&mut found, Part::Up, Part::Down, Part::Mid, false);
                Self::Product(product.ok_or_else(half)?)
            }
            Some(Part::Hada(_)) => {
                let pair = hada(&mut found, 1).zip(hada(&mut found, 2)).ok_or_else(half)?;
                Self::Hadamard(pair.0, pair.1)
            }
            Some(Part::Lokr(_)) => {
                let pair = lokr(&mut found, 1).zip(lokr(&mut found, 2)).ok_or_else(half)?;
                Self::Kronecker(pair.0, pair.1)
            }
            Some(Part::Alpha) | None => return Err(half()),
        };
        if let Some(left) = found.values().next() {
            let message = format!("`{left}` and `{first}` are two kinds of changes to `{weight}`");
            return Err(Error::model_invalid(message));
        }
        let rank = kind.check(file, weight, shape)?;
        Ok((kind, rank))
    }

    /// Fails unless the matrices fit the weight; gives the rank.
    fn check(
        &self,
        file: &SafeTensorsFile,
        weight: &str,
        shape: &[usize],
    ) -> Result<Option<usize>> {
        let all = match self {
            Self::Product(one) => vec![one],
            Self::Hadamard(one, two) | Self::Kronecker(one, two) => vec![one, two],
        };
        let shapes: Vec<_> = all.iter().flat_map(|matrix| matrix.names()).collect();
        let name = shapes.last().copied().unwrap_or_default();
        let listed = || {
            let shapes = shapes.iter().map(|name| file.shape(name).unwrap_or_default());
            let shapes: Vec<String> = shapes.map(|shape| format!("{shape:?}")).collect();
            shapes.join(" and ")
        };
        let misfit = || {
            Error::model_invalid(format!(
                "shapes {} do not fit `{weight}` of shape {shape:?}",
                listed()
            ))
            .with("tensor", name)
        };
        let sizes: Option<Vec<_>> = all.iter().map(|matrix| matrix.size(file)).collect();
        let sizes = sizes.ok_or_else(misfit)?;
        let size = match (self, &sizes[..]) {
            (Self::Product(_), [one]) => one.matrix,
            (Self::Hadamard(..), [one, two]) if one.matrix == two.matrix => one.matrix,
            (Self::Kronecker(..), [one, two]) => {
                let ((a, b), (c, d)) = (one.matrix, two.matrix);
                match a.checked_mul(c).zip(b.checked_mul(d)) {
                    Some(size) => size,
                    None => return Err(misfit()),
                }
            }
            _ => return Err(misfit()),
        };
        let columns = shape.get(1..).map(|rest| rest.iter().product::<usize>());
        if shape.first().copied().zip(columns) != Some(size) {
            return Err(misfit());
        }
        let ranks: Vec<usize> = sizes.iter().filter_map(|size| size.rank).collect();
        if let Some(rank) = ranks.iter().find(|rank| !(1..=MAX_RANK).contains(*rank)) {
            return Err(Error::model_invalid(format!("rank {rank}, expected 1 to {MAX_RANK}"))
                .with("tensor", name));
        }
        // That of a LoHa is that of its first matrix; that of a LoKr that of the last one that has one.
        Ok(match self {
            Self::Kronecker(..) => ranks.last().copied(),
            _ => ranks.first().copied(),
        })
    }
}

/// What is known of a matrix without reading it.
struct Size {
    matrix: (usize, usize),
    rank: Option<usize>,
}

impl Matrix {
    fn names(&self) -> Vec<&str> {
        match self {
            Self::Whole(name) => vec![name],
            Self::Factors { left, right, core, .. } => {
                let core = core.as_deref();
                [Some(left.as_str()), core, Some(right.as_str())].into_iter().flatten().collect()
            }
        }
    }

    fn size(&self, file: &SafeTensorsFile) -> Option<Size> {
        // Rows by all else; products of parts of a shape that a file has cannot overflow.
        let flat = |name: &str| {
            let shape = file.shape(name)?;
            (shape.len() == 2 || shape.len() == 4)
                .then(|| (shape[0], shape[1..].iter().product::<usize>()))
        };
        match self {
            Self::Whole(name) => Some(Size { matrix: flat(name)?, rank: None }),
            Self::Factors { left, right, core, turned } => {
                let (rows, inner) = match (flat(left)?, turned) {
                    ((rows, inner), false) | ((inner, rows), true) => (rows, inner),
                };
                let (rank, columns) = flat(right)?;
                let columns = match core {
                    None if inner == rank => columns,
                    Some(core) => match *file.shape(core)? {
                        [a, b, h, w] if a == inner && b == rank => {
                            columns.checked_mul(h.checked_mul(w)?)?
                        }
                        _ => return None,
                    },
                    None => return None,
                };
                Some(Size { matrix: (rows, columns), rank: Some(rank) })
            }
        }
    }

    /// Outputs by everything else.
    fn load(&self, load: &dyn Fn(&str) -> Result<Tensor>) -> Result<Tensor> {
        let failed = |e| classify(e, "cannot apply a LoRA");
        match self {
            Self::Whole(name) => load(name)?.flatten_from(1).map_err(failed),
            Self::Factors { left, right, core, turned } => {
                let (left, right) = (load(left)?, load(right)?);
                let core = core.as_deref().map(load).transpose()?;
                let product = || {
                    let (left, right) = (left.flatten_from(1)?, right.flatten_from(1)?);
                    let left = if *turned { left.t()?.contiguous()? } else { left };
                    match core {
                        None => left.matmul(&right),
                        Some(core) => tucker(&left, &core, &right),
                    }
                };
                product().map_err(failed)
            }
        }
    }
}

/// `(outputs, a)`, a kernel `(a, b, h, w)` and `(b, inputs)` to `(outputs, inputs h w)`.
fn tucker(left: &Tensor, core: &Tensor, right: &Tensor) -> Computed<Tensor> {
    let ((outputs, _), (_, inputs)) = (left.dims2()?, right.dims2()?);
    let (_, b, h, w) = core.dims4()?;
    let rows = left.matmul(&core.flatten_from(1)?)?.reshape((outputs, b, h * w))?;
    let rows = rows.transpose(0, 1)?.contiguous()?.reshape((b, outputs * h * w))?;
    let all = right.t()?.contiguous()?.matmul(&rows)?.reshape((inputs, outputs, h * w))?;
    all.transpose(0, 1)?.contiguous()?.reshape((outputs, inputs * h * w))
}

fn read_alpha(file: &SafeTensorsFile, name: &str) -> Result<f64> {
    let count: usize = file.shape(name).unwrap_or_default().iter().product();
    let alpha = (count == 1)
        .then(|| file.load(name, DType::F32, &Device::Cpu))
        .transpose()?
        .and_then(|alpha| alpha.flatten_all().ok()?.get(0).ok()?.to_scalar::<f32>().ok());
    alpha.filter(|alpha| alpha.is_finite()).map(f64::from).ok_or_else(|| {
        Error::model_invalid("the alpha of a LoRA is no number").with("tensor", name)
    })
}
