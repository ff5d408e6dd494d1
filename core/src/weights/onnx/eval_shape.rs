//! Shapes, axes and index ranges as ONNX writes them: negative, relative, or left out.

use super::constant::Const;
use super::eval::Evaluator;
use super::graph::{Node, numel};
use crate::error::{Error, Result};

/// One axis of a `Slice`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cut {
    pub(super) axis: usize,
    pub(super) start: usize,
    pub(super) count: usize,
    pub(super) step: i64,
}

impl Cut {
    /// Where value `i` of the cut lies on its axis.
    pub(super) fn place(&self, i: usize) -> usize {
        (self.start as i64 + i as i64 * self.step).max(0) as usize
    }
}

/// An axis counted from either end.
pub(super) fn axis(axis: i64, rank: usize) -> Result<usize> {
    index(axis, rank).map_err(|_| Error::model_invalid(format!("axis {axis} of rank {rank}")))
}

/// An index counted from either end.
pub(super) fn index(index: i64, size: usize) -> Result<usize> {
    let from_start = if index < 0 { index.saturating_add(size as i64) } else { index };
    usize::try_from(from_start)
        .ok()
        .filter(|i| *i < size)
        .ok_or_else(|| Error::model_invalid(format!("index {index} of an axis of {size}")))
}

/// The listed axes, or all of them, ascending.
pub(super) fn axes_or_all(axes: Option<Vec<i64>>, rank: usize) -> Result<Vec<usize>> {
    match axes {
        Some(axes) => {
            let mut axes: Vec<usize> =
                axes.iter().map(|a| axis(*a, rank)).collect::<Result<_>>()?;
            axes.sort_unstable();
            axes.dedup();
            Ok(axes)
        }
        None => Ok((0..rank).collect()),
    }
}

/// Sizes that must not be negative.
pub(super) fn sizes(values: &[i64]) -> Result<Vec<usize>> {
    let sizes: Option<Vec<usize>> = values.iter().map(|v| usize::try_from(*v).ok()).collect();
    let sizes = sizes.filter(|sizes| sizes.len() <= 16);
    sizes.ok_or_else(|| Error::model_invalid(format!("{values:?} is no shape")))
}

/// The dimensions that a `Reshape` asks for.
pub(super) fn target(node: &Node, dims: &[usize], wanted: &[i64]) -> Result<Vec<usize>> {
    let unfit =
        || Error::model_invalid(format!("a tensor of shape {dims:?} is reshaped to {wanted:?}"));
    if wanted.len() > 16 {
        return Err(unfit());
    }
    let zero_is_zero = node.int("allowzero").unwrap_or(0) != 0;
    let mut target = Vec::with_capacity(wanted.len());
    let mut open = None;
    for (i, size) in wanted.iter().enumerate() {
        target.push(match size {
            -1 if open.is_none() => {
                open = Some(i);
                1
            }
            0 if !zero_is_zero => *dims.get(i).ok_or_else(unfit)?,
            size => usize::try_from(*size).map_err(|_| unfit())?,
        });
    }
    let (have, known) = (numel(dims)?, numel(&target)?);
    if let Some(open) = open {
        if known == 0 || have % known != 0 {
            return Err(unfit());
        }
        target[open] = have / known;
    }
    if numel(&target)? != have {
        return Err(unfit());
    }
    Ok(target)
}

/// The dimensions after `Flatten`.
pub(super) fn flattened(node: &Node, dims: &[usize]) -> Result<Vec<usize>> {
    let rank = dims.len() as i64;
    let axis = node.int("axis").unwrap_or(1);
    let axis = if axis < 0 { axis.saturating_add(rank) } else { axis };
    let axis = usize::try_from(axis).ok().filter(|a| *a <= dims.len());
    let axis =
        axis.ok_or_else(|| Error::model_invalid("`Flatten` of an axis that is not there"))?;
    Ok(vec![numel(&dims[..axis])?, numel(&dims[axis..])?])
}

/// The dimensions after `Squeeze`.
pub(super) fn squeezed(dims: &[usize], axes: Option<Vec<i64>>) -> Result<Vec<usize>> {
    let gone = match axes {
        Some(axes) => axes_or_all(Some(axes), dims.len())?,
        None => (0..dims.len()).filter(|axis| dims[*axis] == 1).collect(),
    };
    if gone.iter().any(|axis| dims[*axis] != 1) {
        return Err(Error::model_invalid("`Squeeze` of an axis that is longer than 1"));
    }
    Ok((0..dims.len()).filter(|axis| !gone.contains(axis)).map(|axis| dims[axis]).collect())
}

/// The dimensions after `Unsqueeze`.
pub(super) fn unsqueezed(dims: &[usize], axes: &[i64]) -> Result<Vec<usize>> {
    let rank = dims.len() + axes.len();
    if rank > 16 {
        return Err(Error::model_invalid("`Unsqueeze` to more than 16 dimensions"));
    }
    let new = axes_or_all(Some(axes.to_vec()), rank)?;
    if new.len() != axes.len() {
        return Err(Error::model_invalid("`Unsqueeze` names an axis twice"));
    }
    let mut old = dims.iter();
    Ok((0..rank)
        .map(|axis| if new.contains(&axis) { 1 } else { old.next().copied().unwrap_or(1) })
        .collect())
}

/// The permutation of a `Transpose`.
pub(super) fn permutation(node: &Node, rank: usize) -> Result<Vec<usize>> {
    let Some(perm) = node.ints("perm") else {
        return Ok((0..rank).rev().collect());
    };
    let permutation: Vec<usize> = perm.iter().map(|a| axis(*a, rank)).collect::<Result<_>>()?;
    let mut sorted = permutation.clone();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..rank) {
        return Err(Error::model_invalid(format!("{perm:?} does not permute {rank} axes")));
    }
    Ok(permutation)
}

/// The dimensions that two shapes have together.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |dims: &[usize], i: usize| (i + dims.len()).checked_sub(rank).map_or(1, |i| dims[i]);
    (0..rank)
        .map(|i| match (size(a, i), size(b, i)) {
            (x, y) if x == y || y == 1 => Ok(x),
            (1, y) => Ok(y),
            _ => Err(Error::model_invalid(format!("shapes {a:?} and {b:?} do not fit"))),
        })
        .collect()
}

/// Row-major strides.
pub(super) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; dims.len()];
    for axis in (1..dims.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(dims[axis]);
    }
    strides
}

/// The strides with which `from` is read when it is spread to `to`.
pub(super) fn broadcast_strides(from: &[usize], to: &[usize]) -> Vec<usize> {
    let own = strides(from);
    let missing = to.len() - from.len().min(to.len());
    (0..to.len())
        .map(|axis| match axis.checked_sub(missing) {
            Some(i) if from[i] != 1 => own[i],
            _ => 0,
        })
        .collect()
}

/// The positions that a walk over `dims` visits with these strides.
pub(super) fn walk(dims: &[usize], strides: &[usize]) -> Vec<usize> {
    let mut places = vec![0usize];
    for (size, stride) in dims.iter().zip(strides) {
        let mut next = Vec::with_capacity(places.len() * size);
        for place in &places {
            next.extend((0..*size).map(|i| place + i * stride));
        }
        places = next;
    }
    places
}

/// How many values lie outside and inside of one step along `axis`.
pub(super) fn around(dims: &[usize], axis: usize) -> (usize, usize) {
    (dims[..axis].iter().product(), dims[axis + 1..].iter().product())
}

impl Evaluator<'_> {
    /// The axes of a node: its second input since operator set 13, an attribute before.
    pub(super) fn axes(&self, node: &Node, input: Option<&Const>) -> Result<Option<Vec<i64>>> {
        if let Some(axes) = input {
            let axes = axes.ints(self.graph)?.to_vec();
            if axes.is_empty() && node.int("noop_with_empty_axes").unwrap_or(0) == 0 {
                return Ok(None);
            }
            return Ok(Some(axes));
        }
        Ok(node.ints("axes").map(<[i64]>::to_vec))
    }

    /// The bounds of a `Clip`: inputs since operator set 11, attributes before.
    pub(super) fn clip_range(
        &self,
        node: &Node,
        low: Option<&Const>,
        high: Option<&Const>,
    ) -> Result<(f32, f32)> {
        let read = |bound: Option<&Const>, name: &str, open: f32| match bound {
            Some(bound) => bound
                .single(self.graph)?
                .ok_or_else(|| Error::model_invalid("`Clip` has a bound that is no number")),
            None => Ok(node.float(name).unwrap_or(open)),
        };
        Ok((read(low, "min", f32::NEG_INFINITY)?, read(high, "max", f32::INFINITY)?))
    }

    /// The sizes of the parts of a `Split`.
    pub(super) fn split_sizes(
        &self,
        node: &Node,
        size: usize,
        sizes: Option<&Const>,
    ) -> Result<Vec<usize>> {
        let parts = match sizes {
            Some(given) => self::sizes_long(&given.ints(self.graph)?)?,
            None => match node.ints("split") {
                Some(given) => self::sizes_long(given)?,
                None => {
                    let count = node.outputs.len().max(1);
                    let each = size.div_ceil(count);
                    (0..count).map(|i| each.min(size.saturating_sub(i * each))).collect()
                }
            },
        };
        let total = parts.iter().try_fold(0usize, |sum, part| sum.checked_add(*part));
        if total != Some(size) || parts.len() != node.outputs.len() {
            return Err(Error::model_invalid(format!("`Split` of {size} into {parts:?}")));
        }
        Ok(parts)
    }

    /// What a `Slice` cuts, axis by axis.
    pub(super) fn cuts(
        &self,
        node: &Node,
        dims: &[usize],
        inputs: &[Option<Const>],
    ) -> Result<Vec<Cut>> {
        let list = |i: usize, name: &str| -> Result<Option<Vec<i64>>> {
            match inputs.get(i).and_then(Option::as_ref) {
                Some(values) => Ok(Some(values.ints(self.graph)?.to_vec())),
                None => Ok(node.ints(name).map(<[i64]>::to_vec)),
            }
        };
        let missing = || Error::model_invalid("a `Slice` does not say what it cuts");
        let starts = list(1, "starts")?.ok_or_else(missing)?;
        let ends = list(2, "ends")?.ok_or_else(missing)?;
        let axes = list(3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] || starts.len() > dims.len() {
            return Err(missing());
        }
        let mut cuts: Vec<Cut> = Vec::new();
        for i in 0..starts.len() {
            let axis = axis(axes[i], dims.len())?;
            if cuts.iter().any(|cut| cut.axis == axis) {
                return Err(Error::model_invalid("a `Slice` names an axis twice"));
            }
            cuts.push(cut(axis, dims[axis], starts[i], ends[i], steps[i])?);
        }
        Ok(cuts)
    }
}

fn sizes_long(values: &[i64]) -> Result<Vec<usize>> {
    let sizes: Option<Vec<usize>> = values.iter().map(|v| usize::try_from(*v).ok()).collect();
    sizes.ok_or_else(|| Error::model_invalid("a part of a `Split` has a negative size"))
}

fn cut(axis: usize, size: usize, start: i64, end: i64, step: i64) -> Result<Cut> {
    let n = size as i64;
    let from_start = |i: i64| if i < 0 { i.saturating_add(n) } else { i };
    let (start, end) = (from_start(start), from_start(end));
    let (start, count) = match step {
        0 => return Err(Error::model_invalid("a `Slice` has a step of 0")),
        1.. => {
            let (start, end) = (start.clamp(0, n), end.clamp(0, n));
            (start, (end - start).max(0).div_ceil_by(step))
        }
        _ => {
            let (start, end) = (start.clamp(-1, n - 1), end.clamp(-1, n - 1));
            (start, (start - end).max(0).div_ceil_by(step.saturating_neg()))
        }
    };
    Ok(Cut { axis, start: start.max(0) as usize, count: count as usize, step })
}

trait DivCeil {
    fn div_ceil_by(self, by: i64) -> i64;
}

impl DivCeil for i64 {
    /// The quotient of two positive numbers, rounded up.
    fn div_ceil_by(self, by: i64) -> i64 {
        self / by + i64::from(self % by != 0)
    }
}
