//! Follows the image through the graph, node by node.
//!
//! Every tensor becomes either a constant or an activation: an expression and its layout. Nodes
//! that only move data change the layout; constant nodes are computed; what is left is the
//! arithmetic of the network. Only nodes that the output needs are looked at.

use std::collections::{HashMap, HashSet};

use super::constant::Const;
use super::eval::Evaluator;
use super::eval_shape as shape;
use super::expr::{Arena, Id, Op, Two};
use super::graph::{Graph, Node};
use super::layout::{Digit, Kind, Layout, extent, merged, together};
use crate::error::{Error, Result, ResultExt};

/// A tensor of the graph.
#[derive(Clone, Debug)]
pub(super) enum Traced {
    Constant(Const),
    Active(Active),
}

/// A tensor that depends on the image.
#[derive(Clone, Debug)]
pub(super) struct Active {
    pub(super) id: Id,
    pub(super) layout: Layout,
}

/// A graph whose computation is known.
pub(super) struct Trace<'a> {
    pub(super) graph: &'a Graph<'a>,
    pub(super) eval: Evaluator<'a>,
    pub(super) arena: Arena,
    /// Initializers that turned out to have no effect (a factor of 1, a summand of 0).
    pub(super) without_effect: HashSet<usize>,
    /// All initializers that needed nodes read.
    pub(super) read: HashSet<usize>,
    /// Height and width of the input.
    pub(super) input: (usize, usize),
    values: HashMap<&'a str, Traced>,
    /// Which node makes a tensor.
    pub(super) makers: HashMap<&'a str, usize>,
    at: usize,
}

impl<'a> Trace<'a> {
    /// Traces a graph up to its first output.
    pub(super) fn new(graph: &'a Graph<'a>) -> Result<(Self, Active)> {
        let mut trace = Self {
            graph,
            eval: Evaluator::new(graph),
            arena: Arena::default(),
            without_effect: HashSet::new(),
            read: HashSet::new(),
            input: (0, 0),
            values: HashMap::new(),
            makers: HashMap::new(),
            at: 0,
        };
        for (index, tensor) in graph.initializers.iter().enumerate() {
            trace.values.insert(&tensor.name, Traced::Constant(graph.constant(index)));
        }
        trace.start()?;
        let needed = trace.needed()?;
        for (index, node) in graph.nodes.iter().enumerate() {
            if needed.contains(&index) {
                trace.at = index;
                trace.node(node).context("op", &node.op).context("node", &node.name)?;
            }
        }
        let output = &graph.outputs[0].name;
        match trace.values.remove(output.as_str()) {
            Some(Traced::Active(active)) => Ok((trace, active)),
            _ => Err(Error::model_invalid(format!(
                "the output `{output}` does not depend on the input"
            ))),
        }
    }

    /// Places the input, which must be images in `[batch, height, width, 3]`.
    fn start(&mut self) -> Result<()> {
        let graph = self.graph;
        let is_weight: HashSet<&str> =
            graph.initializers.iter().map(|tensor| tensor.name.as_str()).collect();
        let mut inputs =
            graph.inputs.iter().filter(|input| !is_weight.contains(input.name.as_str()));
        let (Some(input), None) = (inputs.next(), inputs.next()) else {
            return Err(Error::unsupported("the graph must have one input, the images"));
        };
        let (height, width) = match input.dims[..] {
            [None | Some(1), Some(height), Some(width), Some(3)] => (height, width),
            _ => {
                return Err(Error::unsupported(format!(
                    "the input `{}` is {:?}; images of [batch, height, width, 3] are expected",
                    input.name, input.dims
                )));
            }
        };
        if height.max(width) > 1 << 14 {
            return Err(Error::model_invalid(format!("an input of {height} x {width} pixels")));
        }
        self.input = (height, width);
        let id = self.arena.add(Op::Input, 0);
        let axes = [(Kind::Row, height), (Kind::Column, width), (Kind::Feature, 3)];
        let mut dims = vec![Vec::new()];
        dims.extend(axes.map(|(kind, size)| merged(&[Digit::whole(kind, size)])));
        self.values.insert(&input.name, Traced::Active(Active { id, layout: Layout(dims) }));
        Ok(())
    }

    /// The nodes that the output depends on.
    fn needed(&mut self) -> Result<HashSet<usize>> {
        let graph = self.graph;
        for (index, node) in graph.nodes.iter().enumerate() {
            for output in node.outputs.iter().filter(|output| !output.is_empty()) {
                if self.makers.insert(output, index).is_some() {
                    return Err(Error::model_invalid(format!("two nodes make `{output}`")));
                }
            }
        }
        let mut needed = HashSet::new();
        let mut open = vec![graph.outputs[0].name.as_str()];
        while let Some(name) = open.pop() {
            if let Some(index) = self.makers.get(name)
                && needed.insert(*index)
            {
                open.extend(graph.nodes[*index].inputs.iter().map(String::as_str));
            }
        }
        Ok(needed)
    }

    fn node(&mut self, node: &'a Node) -> Result<()> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for name in &node.inputs {
            if name.is_empty() {
                inputs.push(None);
                continue;
            }
            // Nodes come in the order of their data flow; a tensor that is not there yet means a
            // cycle or a missing node.
            let value = self.values.get(name.as_str()).cloned().ok_or_else(|| {
                Error::model_invalid(format!("the tensor `{name}` is used before it is made"))
            })?;
            inputs.push(Some(value));
        }
        let outputs = if inputs.iter().flatten().all(|v| matches!(v, Traced::Constant(_))) {
            let constants: Vec<Option<Const>> = inputs
                .into_iter()
                .map(|value| match value {
                    Some(Traced::Constant(constant)) => Some(constant),
                    _ => None,
                })
                .collect();
            let made = self.eval.node(node, &constants)?;
            made.into_iter().map(Traced::Constant).collect()
        } else {
            for value in inputs.iter().flatten() {
                if let Traced::Constant(constant) = value {
                    self.read.extend(constant.sources.iter());
                }
            }
            self.active(node, &inputs)?
        };
        for (name, value) in node.outputs.iter().zip(outputs) {
            self.values.insert(name, value);
        }
        Ok(())
    }

    /// A tensor that has been made.
    pub(super) fn value(&self, name: &str) -> Option<Traced> {
        self.values.get(name).cloned()
    }

    /// The expression of `op`, made by the node at hand.
    pub(super) fn add(&mut self, op: Op) -> Id {
        self.arena.add(op, self.at)
    }

    /// An elementwise operation on two activations.
    pub(super) fn two(&mut self, op: Two, a: &Active, b: &Active) -> Result<Active> {
        let layout = together(&a.layout, &b.layout)?;
        // The order of a sum or product does not matter: one order lets equal ones be equal.
        let (x, y) = match op {
            Two::Add | Two::Mul | Two::Max | Two::Min if a.id > b.id => (b.id, a.id),
            _ => (a.id, b.id),
        };
        Ok(Active { id: self.add(Op::Two { op, a: x, b: y }), layout })
    }

    /// An elementwise operation with a constant, which may be the first operand.
    pub(super) fn with(&mut self, op: Two, x: &Active, c: &Const, first: bool) -> Result<Active> {
        not_empty(&c.dims)?;
        let rank = x.layout.rank().max(c.dims.len());
        let mut layout = Vec::with_capacity(rank);
        let mut along = Vec::new();
        for i in 0..rank {
            let own = (i + x.layout.rank()).checked_sub(rank).map(|i| x.layout.0[i].clone());
            let own = own.unwrap_or_default();
            let size = (i + c.dims.len()).checked_sub(rank).map_or(1, |i| c.dims[i]);
            if size == 1 {
                layout.push(own);
            } else if extent(&own) == size {
                along.extend(&own);
                layout.push(own);
            } else if own.is_empty() {
                let spread = Digit::whole(Kind::Any, size);
                along.push(spread);
                layout.push(vec![spread]);
            } else {
                return Err(Error::model_invalid(format!(
                    "a constant of shape {:?} meets a tensor of shape {:?}",
                    c.dims,
                    x.layout.dims()
                )));
            }
        }
        let layout = Layout(layout);
        let neutral = match op {
            Two::Mul => Some(1.0),
            Two::Div if !first => Some(1.0),
            Two::Add => Some(0.0),
            Two::Sub if !first => Some(0.0),
            _ => None,
        };
        // Such operations are what is left of training-time layers; dropping them here spares
        // every pattern a case. (A constant that also spreads a value is kept.)
        let spreads = along.iter().any(|digit| digit.kind == Kind::Any);
        if let Some(neutral) = neutral
            && !spreads
            && c.floats(self.graph)?.iter().all(|value| *value == neutral)
        {
            self.without_effect.extend(c.sources.iter());
            return Ok(Active { id: x.id, layout });
        }
        let constant = self.arena.constant(c);
        let first = first && matches!(op, Two::Sub | Two::Div | Two::Pow);
        let id = self.add(Op::Constant { op, x: x.id, constant, along, first });
        Ok(Active { id, layout })
    }

    /// The axes of a reducing node as digits, with the layout that is left.
    pub(super) fn reduced(
        &self,
        node: &Node,
        layout: &Layout,
        axes: &[usize],
    ) -> (Vec<Digit>, Layout) {
        let keep = node.int("keepdims").unwrap_or(1) != 0;
        let along = axes.iter().flat_map(|axis| layout.0[*axis].clone()).collect();
        let left = (0..layout.rank())
            .filter(|axis| keep || !axes.contains(axis))
            .map(|axis| if axes.contains(&axis) { Vec::new() } else { layout.0[axis].clone() })
            .collect();
        (along, Layout(left))
    }

    /// The outputs of a node that only needs the layout of its input.
    pub(super) fn moved(
        &self,
        node: &Node,
        x: &Active,
        inputs: &[Option<Traced>],
    ) -> Result<Option<Layout>> {
        let constant = |i: usize| match inputs.get(i) {
            Some(Some(Traced::Constant(constant))) => Some(constant),
            _ => None,
        };
        let dims = x.layout.dims();
        let target = match node.op.as_str() {
            "Identity" | "Cast" | "Dropout" => return Ok(Some(x.layout.clone())),
            "Transpose" => {
                let permutation = shape::permutation(node, dims.len())?;
                return Ok(Some(x.layout.transposed(&permutation)));
            }
            "Reshape" => {
                let wanted = constant(1)
                    .ok_or_else(|| Error::unsupported("a shape depends on the image"))?;
                shape::target(node, &dims, &wanted.ints(self.graph)?)?
            }
            "Flatten" => shape::flattened(node, &dims)?,
            "Squeeze" => shape::squeezed(&dims, self.eval.axes(node, constant(1))?)?,
            "Unsqueeze" => {
                let axes = self.eval.axes(node, constant(1))?.unwrap_or_default();
                shape::unsqueezed(&dims, &axes)?
            }
            _ => return Ok(None),
        };
        x.layout.reshaped(&target).map(Some)
    }
}

/// Refuses tensors without values, which no network has.
pub(super) fn not_empty(dims: &[usize]) -> Result<()> {
    if dims.contains(&0) {
        return Err(Error::model_invalid(format!("a tensor of shape {dims:?} has no values")));
    }
    Ok(())
}
