//! The computation of a graph, freed of how its tensors are laid out.
//!
//! Expressions are interned: two equal ones have one [`Id`], so "this branch starts where its
//! shortcut does" is a comparison of two numbers.

use std::collections::HashMap;

use super::constant::Const;
use super::layout::Digit;

/// An interned expression.
pub(super) type Id = usize;
/// A constant of the arena.
pub(super) type ConstId = usize;

/// Elementwise operations of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Two {
    Add,
    Sub,
    Mul,
    Div,
    Max,
    Min,
    Pow,
}

/// What is taken over an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Over {
    Mean,
    Sum,
    SumSquare,
    L2,
}

/// A part of a joined axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Value(Id),
    Constant(ConstId),
}

/// One operation on activations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Op {
    /// The image.
    Input,
    /// A convolution without its bias; `weight` is `[out, in/groups, h, w]`.
    Conv {
        x: Id,
        weight: ConstId,
        stride: [usize; 2],
        pads: [usize; 4],
        groups: usize,
    },
    /// A product with a weight: the axes `inner` of `x` become one axis of `outer` features.
    /// The weight is `[outer, inner]` if `out_first`, else `[inner, outer]`.
    Linear {
        x: Id,
        weight: ConstId,
        inner: Vec<Digit>,
        outer: usize,
        out_first: bool,
    },
    /// A product of two activations over `inner`, named as in `a`; rows are `rows`, columns
    /// `columns`, and `batch` are the axes that both have.
    Product {
        a: Id,
        b: Id,
        batch: Vec<Digit>,
        rows: Vec<Digit>,
        columns: Vec<Digit>,
        inner: Vec<Digit>,
    },
    /// An elementwise function, by its ONNX name.
    Function {
        name: &'static str,
        x: Id,
    },
    /// An elementwise operation on two activations.
    Two {
        op: Two,
        a: Id,
        b: Id,
    },
    /// An elementwise operation with a constant, whose values lie along `along`.
    Constant {
        op: Two,
        x: Id,
        constant: ConstId,
        along: Vec<Digit>,
        first: bool,
    },
    Reduce {
        over: Over,
        x: Id,
        along: Vec<Digit>,
    },
    Softmax {
        x: Id,
        along: Vec<Digit>,
    },
    /// Layer normalisation without its weights; the epsilon by its bits.
    Norm {
        x: Id,
        along: Vec<Digit>,
        epsilon: u32,
    },
    /// The values at one position of a digit.
    Select {
        x: Id,
        digit: Digit,
        index: usize,
    },
    /// A range of an axis.
    Slice {
        x: Id,
        digit: Digit,
        start: usize,
        count: usize,
    },
    /// Values moved towards the start of an axis by `by`, around its end.
    Roll {
        x: Id,
        digit: Digit,
        by: usize,
    },
    /// Neighbours `(a, b)` along a digit of two turned to `(-b, a)`.
    Turn {
        x: Id,
        digit: Digit,
    },
    /// An axis backwards.
    Flip {
        x: Id,
        digit: Digit,
    },
    /// Zeros around the rows and columns: top, left, bottom, right.
    Pad {
        x: Id,
        pads: [usize; 4],
    },
    /// Values one after the other along a new axis.
    Join {
        parts: Vec<Part>,
        digit: Digit,
    },
}

/// All expressions and constants of one graph.
#[derive(Default)]
pub(super) struct Arena {
    ops: Vec<Op>,
    /// The node that made each expression, for messages.
    origins: Vec<usize>,
    ids: HashMap<Op, Id>,
    constants: Vec<Const>,
    stored: HashMap<(usize, Vec<usize>), ConstId>,
}

impl Arena {
    /// The expression of `op`, made by node number `origin`.
    pub(super) fn add(&mut self, op: Op, origin: usize) -> Id {
        if let Some(id) = self.ids.get(&op) {
            return *id;
        }
        let id = self.ops.len();
        self.ids.insert(op.clone(), id);
        self.ops.push(op);
        self.origins.push(origin);
        id
    }

    /// The number of a constant; an initializer has one number however often it is used.
    pub(super) fn constant(&mut self, constant: &Const) -> ConstId {
        let key = match &constant.data {
            super::constant::Data::Stored { index, .. } => Some((*index, constant.dims.clone())),
            _ => None,
        };
        if let Some(id) = key.as_ref().and_then(|key| self.stored.get(key)) {
            return *id;
        }
        let id = self.constants.len();
        self.constants.push(constant.clone());
        if let Some(key) = key {
            self.stored.insert(key, id);
        }
        id
    }

    pub(super) fn op(&self, id: Id) -> &Op {
        &self.ops[id]
    }

    pub(super) fn origin(&self, id: Id) -> usize {
        self.origins[id]
    }

    pub(super) fn get(&self, id: ConstId) -> &Const {
        &self.constants[id]
    }
}
