//! Where the values of an activation lie: named axes instead of sizes.
//!
//! Exporters disagree about nothing as much as about reshapes and transpositions: the same layer
//! appears on `[B, C, H, W]`, on `[B, H*W, C]`, on windows, or on a view that a batch norm wants.
//! Here each dimension of a tensor is a list of [`Digit`]s, parts of named axes, so that moving
//! data changes the layout of a value but not the value, and all those forms become one.
//!
//! Graphs are read for a batch of one image, so the batch axis has size 1 and does not appear.

use crate::error::{Error, Result};

/// What an axis counts. Axes of one kind and size are the same axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Feature,
    Row,
    Column,
    /// Positions in a sequence that is not a grid, such as patches with a class token.
    Token,
    /// An axis that only exists because a value was spread along it.
    Any,
}

/// A part of an axis: with `stride` 7 and `extent` 8, `i / 7 % 8` of an index `i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Digit {
    pub(super) kind: Kind,
    /// The size of the whole axis.
    pub(super) size: usize,
    pub(super) stride: usize,
    pub(super) extent: usize,
    /// Whether this is the second occurrence of the axis in a product of all with all, such as
    /// the columns of an attention matrix.
    pub(super) twin: bool,
}

impl Digit {
    /// A whole axis.
    pub(super) fn whole(kind: Kind, size: usize) -> Self {
        Self { kind, size, stride: 1, extent: size, twin: false }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.stride == 1 && self.extent == self.size
    }

    pub(super) fn with_twin(mut self, twin: bool) -> Self {
        self.twin = twin;
        self
    }
}

/// The dimensions of a tensor, each a list of digits from major to minor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Layout(pub(super) Vec<Vec<Digit>>);

impl Layout {
    /// The sizes of the dimensions.
    pub(super) fn dims(&self) -> Vec<usize> {
        self.0.iter().map(|dim| extent(dim)).collect()
    }

    pub(super) fn rank(&self) -> usize {
        self.0.len()
    }

    /// All digits, first dimension first.
    pub(super) fn digits(&self) -> Vec<Digit> {
        self.0.iter().flatten().copied().collect()
    }

    /// The layout after a reshape to `target`.
    pub(super) fn reshaped(&self, target: &[usize]) -> Result<Self> {
        let mixes = || {
            Error::unsupported(format!(
                "a reshape of {:?} to {target:?} cuts across axes",
                self.dims()
            ))
        };
        let mut rest = self.digits();
        rest.reverse();
        let mut dims = Vec::with_capacity(target.len());
        for size in target {
            let (mut dim, mut open) = (Vec::new(), *size);
            while open > 1 {
                let digit = rest.pop().filter(|digit| digit.extent > 0).ok_or_else(mixes)?;
                if open % digit.extent == 0 {
                    open /= digit.extent;
                    dim.push(digit);
                } else if digit.extent % open == 0 {
                    let minor = digit.extent / open;
                    dim.push(Digit { stride: digit.stride * minor, extent: open, ..digit });
                    rest.push(Digit { extent: minor, ..digit });
                    open = 1;
                } else {
                    return Err(mixes());
                }
            }
            dims.push(merged(&dim));
        }
        if rest.is_empty() { Ok(Self(dims)) } else { Err(mixes()) }
    }

    /// The layout after a transposition.
    pub(super) fn transposed(&self, permutation: &[usize]) -> Self {
        Self(permutation.iter().map(|axis| self.0[*axis].clone()).collect())
    }
}

/// How many positions a list of digits has.
pub(super) fn extent(digits: &[Digit]) -> usize {
    digits.iter().map(|digit| digit.extent).product()
}

/// The same positions in as few digits as possible.
pub(super) fn merged(digits: &[Digit]) -> Vec<Digit> {
    let mut all: Vec<Digit> = Vec::with_capacity(digits.len());
    for digit in digits.iter().filter(|digit| digit.extent > 1) {
        if let Some(last) = all.last_mut() {
            let same = (last.kind, last.size, last.twin) == (digit.kind, digit.size, digit.twin);
            if same && digit.stride.checked_mul(digit.extent) == Some(last.stride) {
                *last = Digit { extent: last.extent * digit.extent, ..*digit };
                continue;
            }
        }
        all.push(*digit);
    }
    all
}

/// Whether a dimension was made by spreading a value.
fn is_any(dim: &[Digit]) -> bool {
    matches!(dim, [digit] if digit.kind == Kind::Any)
}

/// The layout that two operands of an elementwise operation have together.
pub(super) fn together(a: &Layout, b: &Layout) -> Result<Layout> {
    let rank = a.rank().max(b.rank());
    let dim = |layout: &Layout, i: usize| {
        (i + layout.rank()).checked_sub(rank).map_or(Vec::new(), |i| layout.0[i].clone())
    };
    let mut dims = Vec::with_capacity(rank);
    for i in 0..rank {
        let (x, y) = (dim(a, i), dim(b, i));
        dims.push(if x == y || y.is_empty() {
            x
        } else if x.is_empty() || (is_any(&x) && extent(&x) == extent(&y)) {
            y
        } else if is_any(&y) && extent(&x) == extent(&y) {
            x
        } else {
            return Err(Error::unsupported(format!(
                "values that are laid out differently are combined: {x:?} and {y:?}"
            )));
        });
    }
    Ok(Layout(dims))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Layout {
        let axes = [(Kind::Row, 56), (Kind::Column, 56), (Kind::Feature, 6)];
        let mut dims = vec![Vec::new()];
        dims.extend(axes.map(|(kind, size)| vec![Digit::whole(kind, size)]));
        Layout(dims)
    }

    #[test]
    fn windows_come_and_go() {
        let windows = image().reshaped(&[1, 8, 7, 8, 7, 6]).unwrap();
        let windows = windows.transposed(&[0, 1, 3, 2, 4, 5]).reshaped(&[64, 49, 6]).unwrap();
        assert_eq!(windows.dims(), [64, 49, 6]);
        assert_eq!(windows.0[0][1], Digit { stride: 7, extent: 8, ..image().0[2][0] });
        let back = windows.reshaped(&[1, 8, 8, 7, 7, 6]).unwrap().transposed(&[0, 1, 3, 2, 4, 5]);
        assert_eq!(back.reshaped(&[1, 56, 56, 6]).unwrap(), image());
    }

    #[test]
    fn refuses_what_is_no_rearrangement_of_axes() {
        assert!(image().reshaped(&[1, 56, 50, 6]).is_err());
        assert!(image().reshaped(&[1, 5, 56, 56]).is_err());
        let swapped = image().transposed(&[0, 2, 1, 3]);
        assert!(together(&image(), &swapped).is_err());
        assert_eq!(together(&image(), &image()).unwrap(), image());
    }
}
