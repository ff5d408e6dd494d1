//! The vocabulary of the network readers: linear layers, norms, branches, convolutions, weights.
//!
//! Readers walk from the output to the image. Each step either recognises a whole layer or leaves
//! a note of what it could not make sense of; the note nearest to the image ends up in the error.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};

use candle_core::{Device, Tensor};

use super::expr::{Arena, ConstId, Id, Op, Two};
use super::layout::{Digit, Kind, merged};
use super::probe::{self, Activation, LayerNorm};
use super::trace::Trace;
use crate::error::{Error, Result};

/// A linear layer.
#[derive(Clone, Debug)]
pub(super) struct Linear {
    pub(super) x: Id,
    pub(super) weight: ConstId,
    pub(super) bias: Option<ConstId>,
    /// The axes of `x` that it takes.
    pub(super) inner: Vec<Digit>,
    pub(super) outer: usize,
    out_first: bool,
}

/// A convolution.
#[derive(Clone, Debug)]
pub(super) struct Conv {
    pub(super) x: Id,
    pub(super) weight: ConstId,
    pub(super) bias: Option<ConstId>,
    pub(super) stride: [usize; 2],
    pub(super) pads: [usize; 4],
    pub(super) groups: usize,
}

/// Two linear layers with an activation function between them.
#[derive(Clone, Debug)]
pub(super) struct Mlp {
    pub(super) fc1: Linear,
    pub(super) fc2: Linear,
    pub(super) response: Option<probe::ResponseNorm>,
}

/// What the network does to the image before its first layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scaling {
    pub(super) factor: f64,
    pub(super) offset: f64,
    /// Whether the graph swaps the order of the colour channels.
    pub(super) flipped: bool,
}

/// Reads layers out of a trace and collects their weights.
pub(super) struct Reader<'t, 'g> {
    pub(super) trace: &'t Trace<'g>,
    taken: RefCell<HashSet<usize>>,
    tensors: RefCell<BTreeMap<String, Tensor>>,
    note: RefCell<Option<(usize, String)>>,
    epsilons: RefCell<Vec<f64>>,
    activations: RefCell<Vec<Activation>>,
}

impl<'t, 'g> Reader<'t, 'g> {
    pub(super) fn new(trace: &'t Trace<'g>) -> Self {
        Self {
            trace,
            taken: RefCell::default(),
            tensors: RefCell::default(),
            note: RefCell::default(),
            epsilons: RefCell::default(),
            activations: RefCell::default(),
        }
    }

    pub(super) fn arena(&self) -> &Arena {
        &self.trace.arena
    }

    pub(super) fn op(&self, id: Id) -> &Op {
        self.trace.arena.op(id)
    }

    /// Remembers that `id` is not `what`, for the case that nothing else fits.
    pub(super) fn miss<T>(&self, id: Id, what: &str) -> Option<T> {
        let origin = self.arena().origin(id);
        let mut note = self.note.borrow_mut();
        if note.as_ref().is_none_or(|(nearest, _)| origin < *nearest) {
            *note = Some((origin, what.to_owned()));
        }
        None
    }

    /// The error that says where reading ended.
    pub(super) fn unknown(&self) -> Error {
        let (origin, what) = self.note.borrow().clone().unwrap_or((0, "a known network".into()));
        let node = &self.trace.graph.nodes[origin.min(self.trace.graph.nodes.len() - 1)];
        Error::unsupported(format!(
            "the graph is none of the networks that are known (ViT, SwinV2, ConvNeXt, ConvNeXtV2, \
             EVA02): {what} was expected"
        ))
        .with("op", &node.op)
        .with("node", &node.name)
    }

    /// A scalar factor or summand on top of `id`: operation, value and what is below.
    pub(super) fn scalar(&self, id: Id) -> Option<(Two, f64, Id)> {
        let Op::Constant { op, x, constant, first, .. } = self.op(id) else { return None };
        let value = f64::from(self.arena().get(*constant).single(self.trace.graph).ok()??);
        match (op, first) {
            (Two::Sub, false) => Some((Two::Add, -value, *x)),
            (Two::Div, false) => Some((Two::Mul, 1.0 / value, *x)),
            (Two::Add | Two::Mul, false) => Some((*op, value, *x)),
            _ => None,
        }
    }

    /// A vector of one value per feature on top of `id`.
    pub(super) fn per_feature(&self, id: Id, wanted: Two) -> Option<(ConstId, Id)> {
        match self.op(id) {
            Op::Constant { op, x, constant, along, first: false }
                if *op == wanted && is_features(along) =>
            {
                Some((*constant, *x))
            }
            _ => None,
        }
    }

    pub(super) fn linear(&self, id: Id) -> Option<Linear> {
        let (bias, below) = match self.per_feature(id, Two::Add) {
            Some((bias, below)) => (Some(bias), below),
            None => (None, id),
        };
        match self.op(below) {
            Op::Linear { x, weight, inner, outer, out_first } => Some(Linear {
                x: *x,
                weight: *weight,
                bias,
                inner: inner.clone(),
                outer: *outer,
                out_first: *out_first,
            }),
            _ => None,
        }
    }

    /// A linear layer that takes whole features.
    pub(super) fn plain_linear(&self, id: Id) -> Option<Linear> {
        self.linear(id).filter(|linear| is_features(&linear.inner))
    }

    pub(super) fn conv(&self, id: Id) -> Option<Conv> {
        let (bias, below) = match self.per_feature(id, Two::Add) {
            Some((bias, below)) => (Some(bias), below),
            None => (None, id),
        };
        let Op::Conv { x, weight, stride, pads, groups } = self.op(below) else { return None };
        let (mut x, mut pads) = (*x, *pads);
        if let Op::Pad { x: inner, pads: more } = self.op(x) {
            x = *inner;
            pads.iter_mut().zip(more).for_each(|(pad, more)| *pad += more);
        }
        Some(Conv { x, weight: *weight, bias, stride: *stride, pads, groups: *groups })
    }

    /// A convolution that cuts its input into patches of `side` by `side`.
    pub(super) fn patches(&self, id: Id) -> Option<(Conv, usize)> {
        let conv = self.conv(id)?;
        let [_, _, height, width] = self.arena().get(conv.weight).dims[..] else { return None };
        let fits = conv.pads == [0; 4] && conv.groups == 1 && conv.stride == [height, width];
        (fits && height == width).then_some((conv, height))
    }

    /// A layer norm over the features.
    pub(super) fn norm(&self, id: Id) -> Option<LayerNorm> {
        let norm = probe::layer_norm(self.arena(), self.trace.graph, id)?;
        if is_features(&norm.along) { Some(norm) } else { None }
    }

    pub(super) fn mlp(&self, id: Id) -> Option<Mlp> {
        let fc2 = self.plain_linear(id)?;
        let response = probe::response_norm(self.arena(), self.trace.graph, fc2.x);
        let from = response.as_ref().map_or(fc2.x, |response| response.x);
        let Some((kind, below)) = probe::activation(self.arena(), self.trace.graph, from) else {
            return self.miss(from, "an activation function");
        };
        let fc1 = self.plain_linear(below)?;
        self.activations.borrow_mut().push(kind);
        Some(Mlp { fc1, fc2, response })
    }

    /// The two ways to read a residual sum: shortcut and branch.
    pub(super) fn residual(&self, id: Id) -> Vec<(Id, Id)> {
        match self.op(id) {
            Op::Two { op: Two::Add, a, b } => vec![(*a, *b), (*b, *a)],
            _ => Vec::new(),
        }
    }

    /// What happens to the image before `id`.
    pub(super) fn image(&self, id: Id) -> Option<Scaling> {
        let mut scaling = Scaling { factor: 1.0, offset: 0.0, flipped: false };
        let mut below = id;
        loop {
            if let Some((op, value, next)) = self.scalar(below) {
                match op {
                    Two::Mul => scaling.factor *= value,
                    _ => scaling.offset += scaling.factor * value,
                }
                below = next;
                continue;
            }
            match self.op(below) {
                Op::Input => return Some(scaling),
                Op::Flip { x, digit } if digit.kind == Kind::Feature => {
                    scaling.flipped = !scaling.flipped;
                    below = *x;
                }
                _ => return self.miss(below, "the scaling of the image"),
            }
        }
    }

    // --- weights ---------------------------------------------------------------------------

    /// The values of a constant, which count as used from now on.
    pub(super) fn take(&self, id: ConstId) -> Result<Vec<f32>> {
        let constant = self.arena().get(id);
        self.taken.borrow_mut().extend(constant.sources.iter());
        Ok(constant.floats(self.trace.graph)?.to_vec())
    }

    pub(super) fn put(&self, name: String, dims: &[usize], values: Vec<f32>) -> Result<()> {
        let tensor = Tensor::from_vec(values, dims, &Device::Cpu)
            .map_err(|e| crate::device::classify(e, "cannot make a tensor"))?;
        if self.tensors.borrow_mut().insert(name.clone(), tensor).is_some() {
            return Err(Error::model_invalid(format!("the tensor `{name}` is found twice")));
        }
        Ok(())
    }

    /// The weight of a linear layer as `[outer, inner]`.
    pub(super) fn matrix(&self, linear: &Linear) -> Result<Vec<f32>> {
        let values = self.take(linear.weight)?;
        if linear.out_first {
            return Ok(values);
        }
        let (outer, inner) = (linear.outer, values.len() / linear.outer.max(1));
        let mut turned = Vec::with_capacity(values.len());
        for row in 0..outer {
            turned.extend((0..inner).map(|column| values[column * outer + row]));
        }
        Ok(turned)
    }

    /// The values of an optional bias; a layer without one adds 0.
    pub(super) fn bias(&self, bias: Option<ConstId>, count: usize) -> Result<Vec<f32>> {
        bias.map_or_else(|| Ok(vec![0.0; count]), |bias| self.take(bias))
    }

    pub(super) fn put_linear(&self, name: &str, linear: &Linear) -> Result<()> {
        let weight = self.matrix(linear)?;
        let inner = weight.len() / linear.outer.max(1);
        self.put(format!("{name}.weight"), &[linear.outer, inner], weight)?;
        let bias = self.bias(linear.bias, linear.outer)?;
        self.put(format!("{name}.bias"), &[linear.outer], bias)
    }

    pub(super) fn put_conv(&self, name: &str, conv: &Conv, flipped: bool) -> Result<()> {
        let dims = self.arena().get(conv.weight).dims.clone();
        let mut weight = self.take(conv.weight)?;
        if flipped {
            let (inner, area) = (dims[1], dims[2] * dims[3]);
            for filter in weight.chunks_exact_mut(inner * area) {
                let swapped: Vec<f32> =
                    filter.chunks_exact(area).rev().flatten().copied().collect();
                filter.copy_from_slice(&swapped);
            }
        }
        self.put(format!("{name}.weight"), &dims, weight)?;
        let bias = self.bias(conv.bias, dims[0])?;
        self.put(format!("{name}.bias"), &[dims[0]], bias)
    }

    pub(super) fn put_norm(&self, name: &str, norm: &LayerNorm) -> Result<()> {
        self.epsilons.borrow_mut().push(norm.epsilon);
        self.put_final_norm(name, norm)
    }

    /// A norm whose epsilon is not that of the others.
    pub(super) fn put_final_norm(&self, name: &str, norm: &LayerNorm) -> Result<()> {
        let count = super::layout::extent(&norm.along);
        let gamma = match norm.gamma {
            Some(gamma) => self.take(gamma)?,
            None => vec![1.0; count],
        };
        self.put(format!("{name}.weight"), &[count], gamma)?;
        let beta = self.bias(norm.beta, count)?;
        self.put(format!("{name}.bias"), &[count], beta)
    }

    pub(super) fn put_vector(&self, name: String, id: ConstId) -> Result<()> {
        let values = self.take(id)?;
        self.put(name, &[values.len()], values)
    }

    // --- what holds for the whole network --------------------------------------------------

    /// The epsilon of all layer norms.
    pub(super) fn epsilon(&self) -> Result<f64> {
        let all = self.epsilons.borrow();
        let first = all.first().copied().unwrap_or(1e-6);
        if all.iter().any(|epsilon| (epsilon - first).abs() > 1e-3 * first) {
            return Err(Error::unsupported("the layer norms have different epsilons"));
        }
        Ok(first)
    }

    /// The activation function of all MLPs.
    pub(super) fn activation(&self) -> Result<Activation> {
        let all = self.activations.borrow();
        let first = all.first().copied();
        match first {
            Some(first) if all.iter().all(|kind| *kind == first) => Ok(first),
            _ => Err(Error::unsupported("the layers have different activation functions")),
        }
    }

    /// The tensors, if every weight that the graph uses was recognised.
    pub(super) fn finish(self) -> Result<BTreeMap<String, Tensor>> {
        let taken = self.taken.into_inner();
        for index in &self.trace.read {
            let tensor = &self.trace.graph.initializers[*index];
            let explained = taken.contains(index) || self.trace.without_effect.contains(index);
            // Smaller ones are shapes, axes and factors, which the expressions account for.
            if !explained && tensor.dims.iter().product::<usize>() > 64 {
                return Err(Error::unsupported(
                    "a weight of the graph is not part of any layer that was recognised",
                )
                .with("tensor", &tensor.name));
            }
        }
        Ok(self.tensors.into_inner())
    }
}

/// Whether these digits are all features of a value, in order.
pub(super) fn is_features(digits: &[Digit]) -> bool {
    matches!(&merged(digits)[..], [digit]
        if digit.kind == Kind::Feature && digit.stride == 1 && !digit.twin)
}
