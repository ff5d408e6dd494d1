//! What each ONNX operation does to an activation: arithmetic.

use super::constant::{Const, Data};
use super::eval_shape as shape;
use super::expr::{Op, Over, Two};
use super::graph::Node;
use super::layout::{Digit, Kind, Layout, extent, merged};
use super::trace::{Active, Trace, Traced, not_empty};
use crate::error::{Error, Result};

impl<'a> Trace<'a> {
    /// The outputs of a node that depends on the image.
    pub(super) fn active(
        &mut self,
        node: &'a Node,
        inputs: &[Option<Traced>],
    ) -> Result<Vec<Traced>> {
        let first = inputs.iter().flatten().find_map(|value| match value {
            Traced::Active(active) => Some(active.clone()),
            Traced::Constant(_) => None,
        });
        let x = first.ok_or_else(|| Error::model_invalid("the operation has no inputs"))?;
        let leads = matches!(inputs.first(), Some(Some(Traced::Active(_))));
        let one = |active: Active| Ok(vec![Traced::Active(active)]);
        if node.op == "Shape" {
            return Ok(vec![Traced::Constant(self.eval.shape(node, &x.layout.dims()))]);
        }
        if leads && let Some(layout) = self.moved(node, &x, inputs)? {
            return one(Active { id: x.id, layout });
        }
        let unexpected =
            || Err(Error::unsupported(format!("`{}` is used in a way that is not known", node.op)));
        match node.op.as_str() {
            "Add" | "Sub" | "Mul" | "Div" | "Max" | "Min" | "Pow" => {
                let op = match node.op.as_str() {
                    "Add" => Two::Add,
                    "Sub" => Two::Sub,
                    "Mul" => Two::Mul,
                    "Div" => Two::Div,
                    "Max" => Two::Max,
                    "Min" => Two::Min,
                    _ => Two::Pow,
                };
                match inputs {
                    [Some(Traced::Active(a)), Some(Traced::Active(b))] => one(self.two(op, a, b)?),
                    [Some(Traced::Active(a)), Some(Traced::Constant(c))] => {
                        one(self.with(op, a, c, false)?)
                    }
                    [Some(Traced::Constant(c)), Some(Traced::Active(a))] => {
                        one(self.with(op, a, c, true)?)
                    }
                    _ => unexpected(),
                }
            }
            "Clip" if leads => {
                let (low, high) =
                    self.eval.clip_range(node, constant(inputs, 1), constant(inputs, 2))?;
                let mut value = x;
                if low > f32::NEG_INFINITY {
                    value = self.with(Two::Max, &value, &Const::scalar(low), false)?;
                }
                if high < f32::INFINITY {
                    value = self.with(Two::Min, &value, &Const::scalar(high), false)?;
                }
                one(value)
            }
            "Gelu" => {
                let name = match node.text("approximate") {
                    None | Some("none") => "Gelu",
                    Some("tanh") => "GeluTanh",
                    Some(other) => {
                        return Err(Error::unsupported(format!("a GELU of kind {other}")));
                    }
                };
                one(self.function(name, &x))
            }
            "Sqrt" | "Reciprocal" | "Exp" | "Sigmoid" | "Relu" | "Neg" | "Abs" | "Erf" | "Tanh" => {
                let names =
                    ["Sqrt", "Reciprocal", "Exp", "Sigmoid", "Relu", "Neg", "Abs", "Erf", "Tanh"];
                let name = names.into_iter().find(|name| *name == node.op).unwrap_or("Neg");
                one(self.function(name, &x))
            }
            "Softmax" => {
                let axis = shape::axis(node.int("axis").unwrap_or(-1), x.layout.rank())?;
                if self.graph.opset < 13 && axis + 1 != x.layout.rank() {
                    return unexpected();
                }
                let along = x.layout.0[axis].clone();
                one(Active { id: self.add(Op::Softmax { x: x.id, along }), layout: x.layout })
            }
            "LayerNormalization" if leads => one(self.layer_norm(node, &x, inputs)?),
            "BatchNormalization" if leads => one(self.batch_norm(node, &x, inputs)?),
            "ReduceMean" | "ReduceSum" | "ReduceSumSquare" | "ReduceL2" => {
                let axes = self.eval.axes(node, constant(inputs, 1))?;
                let axes = shape::axes_or_all(axes, x.layout.rank())?;
                let over = match node.op.as_str() {
                    "ReduceMean" => Over::Mean,
                    "ReduceSum" => Over::Sum,
                    "ReduceSumSquare" => Over::SumSquare,
                    _ => Over::L2,
                };
                let (along, layout) = self.reduced(node, &x.layout, &axes);
                one(Active { id: self.add(Op::Reduce { over, x: x.id, along }), layout })
            }
            "GlobalAveragePool" if x.layout.rank() > 2 => {
                let axes: Vec<usize> = (2..x.layout.rank()).collect();
                let (along, layout) = self.reduced(node, &x.layout, &axes);
                one(Active {
                    id: self.add(Op::Reduce { over: Over::Mean, x: x.id, along }),
                    layout,
                })
            }
            "MatMul" => match inputs {
                [Some(Traced::Active(a)), Some(Traced::Constant(w))] if w.dims.len() == 2 => {
                    one(self.linear(a, w, false)?)
                }
                [Some(Traced::Active(a)), Some(Traced::Active(b))] => one(self.product(a, b)?),
                _ => unexpected(),
            },
            "Gemm" => self.gemm(node, inputs).map(|active| vec![Traced::Active(active)]),
            "Einsum" => self.einsum(node, inputs).map(|active| vec![Traced::Active(active)]),
            "Conv" if leads => one(self.conv(node, &x, inputs)?),
            "Pad" if leads => one(self.pad(node, &x, inputs)?),
            "Slice" if leads => one(self.slice(node, &x, inputs)?),
            "Split" if leads => self.split(node, &x, constant(inputs, 1)),
            "Gather" if leads => one(self.gather(node, &x, inputs)?),
            "Expand" if leads => one(self.expand(&x, inputs)?),
            "Concat" => one(self.concat(node, inputs)?),
            _ => Err(Error::unsupported("the operation is not known")),
        }
    }

    pub(super) fn function(&mut self, name: &'static str, x: &Active) -> Active {
        Active { id: self.add(Op::Function { name, x: x.id }), layout: x.layout.clone() }
    }

    fn layer_norm(&mut self, node: &Node, x: &Active, inputs: &[Option<Traced>]) -> Result<Active> {
        let rank = x.layout.rank();
        let axis = shape::axis(node.int("axis").unwrap_or(-1), rank)?;
        let along: Vec<Digit> = x.layout.0[axis..].iter().flatten().copied().collect();
        let epsilon = node.float("epsilon").unwrap_or(1e-5).to_bits();
        let id = self.add(Op::Norm { x: x.id, along, epsilon });
        let mut value = Active { id, layout: x.layout.clone() };
        for (i, op) in [(1, Two::Mul), (2, Two::Add)] {
            if let Some(weight) = constant(inputs, i) {
                value = self.with(op, &value, weight, false)?;
            }
        }
        Ok(value)
    }

    /// Batch norms are written out: the ones in layer norms get their statistics from the image,
    /// and with stored statistics they are a factor and a summand.
    fn batch_norm(&mut self, node: &Node, x: &Active, inputs: &[Option<Traced>]) -> Result<Active> {
        let [_, Some(scale), Some(bias), Some(mean), Some(variance)] = inputs else {
            return Err(Error::model_invalid("`BatchNormalization` needs five inputs"));
        };
        let (Traced::Active(mean), Traced::Active(variance)) = (mean, variance) else {
            return Err(Error::unsupported(
                "networks with batch normalisation (such as MOAT) are not supported",
            ));
        };
        let rank = x.layout.rank();
        if rank < 2 {
            return Err(Error::model_invalid("`BatchNormalization` of a vector"));
        }
        // Statistics have one value per position of dimension 1.
        let spread = |active: &Active| -> Result<Active> {
            let mut dims = vec![1; rank];
            dims[1] = extent(&active.layout.digits());
            Ok(Active { id: active.id, layout: active.layout.reshaped(&dims)? })
        };
        let (mean, variance) = (spread(mean)?, spread(variance)?);
        let epsilon = Const::scalar(node.float("epsilon").unwrap_or(1e-5));
        let centred = self.two(Two::Sub, x, &mean)?;
        let variance = self.with(Two::Add, &variance, &epsilon, false)?;
        let deviation = self.function("Sqrt", &variance);
        let mut value = self.two(Two::Div, &centred, &deviation)?;
        for (weight, op) in [(scale, Two::Mul), (bias, Two::Add)] {
            let Traced::Constant(weight) = weight else {
                return Err(Error::unsupported("a batch norm whose weights depend on the image"));
            };
            let mut dims = vec![1; rank - 1];
            dims[0] = weight.numel();
            value = self.with(op, &value, &weight.reshaped(dims)?, false)?;
        }
        Ok(value)
    }

    /// A product with a weight matrix over the last dimension.
    pub(super) fn linear(&mut self, x: &Active, weight: &Const, out_first: bool) -> Result<Active> {
        let mut layout = x.layout.clone();
        let inner = layout.0.pop().unwrap_or_default();
        let [a, b] = weight.dims[..] else {
            return Err(Error::model_invalid("a weight is no matrix"));
        };
        not_empty(&weight.dims)?;
        let (size, outer) = if out_first { (b, a) } else { (a, b) };
        if extent(&inner) != size {
            return Err(Error::model_invalid(format!(
                "a weight of shape {:?} meets a tensor of shape {:?}",
                weight.dims,
                x.layout.dims()
            )));
        }
        let weight = self.arena.constant(weight);
        let id = self.add(Op::Linear { x: x.id, weight, inner, outer, out_first });
        layout.0.push(merged(&[Digit::whole(Kind::Feature, outer)]));
        rename_rest(&mut layout);
        Ok(Active { id, layout })
    }

    fn gemm(&mut self, node: &Node, inputs: &[Option<Traced>]) -> Result<Active> {
        let unknown = || Error::unsupported("a `Gemm` that is no linear layer");
        let [Some(Traced::Active(x)), Some(Traced::Constant(weight)), ..] = inputs else {
            return Err(unknown());
        };
        let alpha = node.float("alpha").unwrap_or(1.0);
        if node.int("transA").unwrap_or(0) != 0 || alpha != 1.0 || x.layout.rank() != 2 {
            return Err(unknown());
        }
        let mut value = self.linear(x, weight, node.int("transB").unwrap_or(0) != 0)?;
        match inputs.get(2) {
            Some(Some(Traced::Constant(bias))) => match node.float("beta").unwrap_or(1.0) {
                1.0 => value = self.with(Two::Add, &value, bias, false)?,
                0.0 => {}
                _ => return Err(unknown()),
            },
            Some(Some(Traced::Active(_))) => return Err(unknown()),
            _ => {}
        }
        Ok(value)
    }

    /// A product of two activations over the last dimension of one and the last but one of the
    /// other.
    fn product(&mut self, a: &Active, b: &Active) -> Result<Active> {
        let unfit = || {
            Error::unsupported(format!(
                "a product of {:?} and {:?} is not known",
                a.layout.dims(),
                b.layout.dims()
            ))
        };
        let (mut x, mut y) = (a.layout.0.clone(), b.layout.0.clone());
        if x.len() != y.len() || x.len() < 2 {
            return Err(unfit());
        }
        let (inner, rows) = (x.pop().unwrap_or_default(), x.pop().unwrap_or_default());
        let (columns, other) = (y.pop().unwrap_or_default(), y.pop().unwrap_or_default());
        let plain = |digits: &[Digit]| -> Vec<Digit> {
            digits.iter().map(|digit| digit.with_twin(false)).collect()
        };
        if x != y || plain(&inner) != plain(&other) {
            return Err(unfit());
        }
        self.multiply(a, b, x, rows, columns, inner)
    }

    /// The product itself; `dims` are the leading dimensions, which both have.
    fn multiply(
        &mut self,
        a: &Active,
        b: &Active,
        dims: Vec<Vec<Digit>>,
        rows: Vec<Digit>,
        mut columns: Vec<Digit>,
        inner: Vec<Digit>,
    ) -> Result<Active> {
        // All with all: the columns need a name of their own.
        if columns.iter().any(|digit| rows.contains(digit)) {
            columns.iter_mut().for_each(|digit| digit.twin = !digit.twin);
        }
        let batch: Vec<Digit> = dims.iter().flatten().copied().collect();
        let mut layout = dims;
        layout.extend([rows.clone(), columns.clone()]);
        let op = Op::Product { a: a.id, b: b.id, batch, rows, columns, inner };
        let id = self.add(op);
        // Where only the twin is left, it is the axis again.
        let all: Vec<Digit> = layout.iter().flatten().copied().collect();
        for digit in layout.iter_mut().flatten() {
            if digit.twin && !all.contains(&digit.with_twin(false)) {
                digit.twin = false;
            }
        }
        Ok(Active { id, layout: Layout(layout) })
    }

    /// An Einstein sum that is a linear layer or a product of two activations.
    fn einsum(&mut self, node: &Node, inputs: &[Option<Traced>]) -> Result<Active> {
        let unknown = || Error::unsupported("an `Einsum` of this form is not known");
        let equation: String =
            node.text("equation").unwrap_or_default().chars().filter(|c| *c != ' ').collect();
        let (left, output) = equation.split_once("->").ok_or_else(unknown)?;
        let (a, b) = left.split_once(',').ok_or_else(unknown)?;
        let [a, b, output] = [a, b, output].map(|text| text.chars().collect::<Vec<char>>());
        let shared: Vec<char> =
            a.iter().copied().filter(|c| b.contains(c) && !output.contains(c)).collect();
        match inputs {
            [Some(Traced::Active(x)), Some(Traced::Constant(weight))] => {
                if a.len() != x.layout.rank() || b.len() != weight.dims.len() {
                    return Err(unknown());
                }
                let kept: Vec<char> = a.iter().copied().filter(|c| !shared.contains(c)).collect();
                let new: Vec<char> = b.iter().copied().filter(|c| !shared.contains(c)).collect();
                let in_first = [shared.clone(), new.clone()].concat() == b;
                let out_first = [new.clone(), shared.clone()].concat() == b;
                let ordered = [kept.clone(), shared.clone()].concat();
                let appended = [kept, new.clone()].concat() == output;
                if !(in_first || out_first) || !appended || shared.is_empty() {
                    return Err(unknown());
                }
                let place = |c: &char| a.iter().position(|other| other == c).ok_or_else(unknown);
                let permutation = ordered.iter().map(place).collect::<Result<Vec<_>>>()?;
                let mut layout = x.layout.transposed(&permutation);
                let split = layout.rank() - shared.len();
                let inner = layout.0.split_off(split);
                let mut dims = layout.dims();
                layout.0.push(merged(&inner.concat()));
                let size = |letters: &[char]| -> usize {
                    b.iter()
                        .zip(&weight.dims)
                        .filter(|(c, _)| letters.contains(c))
                        .map(|(_, n)| n)
                        .product()
                };
                let (inner, outer) = (size(&shared), size(&new));
                let shape = if in_first { vec![inner, outer] } else { vec![outer, inner] };
                let flat = weight.reshaped(shape)?;
                let x = Active { id: x.id, layout };
                let value = self.linear(&x, &flat, !in_first)?;
                dims.extend(
                    b.iter().zip(&weight.dims).filter(|(c, _)| new.contains(c)).map(|(_, n)| *n),
                );
                Ok(Active { id: value.id, layout: value.layout.reshaped(&dims)? })
            }
            [Some(Traced::Active(x)), Some(Traced::Active(y))] => {
                if a.len() != x.layout.rank() || b.len() != y.layout.rank() || shared.is_empty() {
                    return Err(unknown());
                }
                let both: Vec<char> =
                    a.iter().copied().filter(|c| b.contains(c) && output.contains(c)).collect();
                let own = |letters: &[char], other: &[char]| -> Vec<char> {
                    letters.iter().copied().filter(|c| !other.contains(c)).collect()
                };
                let (rows, columns) = (own(&a, &b), own(&b, &a));
                let dims = |layout: &Layout, names: &[char], wanted: &[char]| -> Vec<Vec<Digit>> {
                    wanted
                        .iter()
                        .filter_map(|c| names.iter().position(|name| name == c))
                        .map(|i| layout.0[i].clone())
                        .collect()
                };
                let plain = |dims: Vec<Vec<Digit>>| -> Vec<Digit> {
                    dims.concat().iter().map(|digit| digit.with_twin(false)).collect()
                };
                let batch = dims(&x.layout, &a, &both);
                let inner = dims(&x.layout, &a, &shared);
                if batch != dims(&y.layout, &b, &both)
                    || plain(inner.clone()) != plain(dims(&y.layout, &b, &shared))
                {
                    return Err(unknown());
                }
                let row_dims = dims(&x.layout, &a, &rows);
                let column_dims = dims(&y.layout, &b, &columns);
                let sizes =
                    |dims: &[Vec<Digit>]| dims.iter().map(|d| extent(d)).collect::<Vec<_>>();
                let split = [sizes(&batch), sizes(&row_dims), sizes(&column_dims)].concat();
                let product = self.multiply(
                    x,
                    y,
                    batch,
                    merged(&row_dims.concat()),
                    merged(&column_dims.concat()),
                    merged(&inner.concat()),
                )?;
                let names = [both, rows, columns].concat();
                let place = |c: &char| names.iter().position(|n| n == c).ok_or_else(unknown);
                let order = output.iter().map(place).collect::<Result<Vec<_>>>()?;
                if order.len() != names.len() {
                    return Err(unknown());
                }
                let layout = product.layout.reshaped(&split)?.transposed(&order);
                Ok(Active { id: product.id, layout })
            }
            _ => Err(unknown()),
        }
    }

    fn conv(&mut self, node: &Node, x: &Active, inputs: &[Option<Traced>]) -> Result<Active> {
        let unknown = |what: &str| Error::unsupported(format!("a convolution {what}"));
        let weight = constant(inputs, 1).ok_or_else(|| unknown("whose weight is computed"))?;
        let [outer, inner, height, width] = weight.dims[..] else {
            return Err(unknown("that is not two-dimensional"));
        };
        not_empty(&weight.dims)?;
        let groups = usize::try_from(node.int("group").unwrap_or(1)).unwrap_or(0);
        let dims = x.layout.dims();
        if groups == 0 || dims.len() != 4 || inner.checked_mul(groups) != Some(dims[1]) {
            return Err(Error::model_invalid(format!(
                "a convolution with a weight of {:?} meets a tensor of {dims:?}",
                weight.dims
            )));
        }
        let list = |name: &str, default: i64, count: usize| -> Result<Vec<usize>> {
            let values = node.ints(name).map_or(vec![default; count], <[i64]>::to_vec);
            let values = shape::sizes(&values)?;
            if values.len() == count && values.iter().all(|v| *v <= 1 << 14) {
                Ok(values)
            } else {
                Err(unknown("with unusual attributes"))
            }
        };
        let stride = list("strides", 1, 2)?;
        let pads = list("pads", 0, 4)?;
        let padding = node.text("auto_pad").unwrap_or("NOTSET");
        if list("dilations", 1, 2)? != [1, 1] || stride.contains(&0) {
            return Err(unknown("with dilation"));
        }
        let fits = |size: usize, kernel: usize, stride: usize| {
            size.is_multiple_of(stride) && kernel == stride
        };
        let exact = fits(dims[2], height, stride[0]) && fits(dims[3], width, stride[1]);
        if !(padding == "NOTSET" || padding == "VALID" || exact) {
            return Err(unknown("with automatic padding"));
        }
        let bias = constant(inputs, 2);
        let mut value = if [height, width] == [1, 1] && stride == [1, 1] && groups == 1 {
            // A linear layer on each position.
            let last = Active { id: x.id, layout: x.layout.transposed(&[0, 2, 3, 1]) };
            let matrix = weight.reshaped(vec![outer, inner])?;
            let value = self.linear(&last, &matrix, true)?;
            Active { id: value.id, layout: value.layout.transposed(&[0, 3, 1, 2]) }
        } else {
            let axis = |i: usize, kind: Kind| matches!(&x.layout.0[i][..], [d] if d.kind == kind && d.is_whole() && !d.twin);
            let feature =
                matches!(&x.layout.0[1][..], [d] if d.kind == Kind::Feature && d.stride == 1);
            if !axis(2, Kind::Row) || !axis(3, Kind::Column) || !feature {
                return Err(unknown("on a rearranged tensor"));
            }
            let out = |size: usize, before: usize, after: usize, kernel: usize, stride: usize| {
                let room = (size + before + after).checked_sub(kernel)?;
                (kernel > 0).then_some(room / stride + 1)
            };
            let rows = out(dims[2], pads[0], pads[2], height, stride[0]);
            let columns = out(dims[3], pads[1], pads[3], width, stride[1]);
            let (Some(rows), Some(columns)) = (rows, columns) else {
                return Err(unknown("whose kernel is larger than its input"));
            };
            let weight = self.arena.constant(weight);
            let (stride, pads) = ([stride[0], stride[1]], [pads[0], pads[1], pads[2], pads[3]]);
            let id = self.add(Op::Conv { x: x.id, weight, stride, pads, groups });
            let axes = [(Kind::Feature, outer), (Kind::Row, rows), (Kind::Column, columns)];
            let mut layout = vec![x.layout.0[0].clone()];
            layout.extend(axes.map(|(kind, size)| merged(&[Digit::whole(kind, size)])));
            Active { id, layout: Layout(layout) }
        };
        if let Some(bias) = bias {
            value = self.with(Two::Add, &value, &bias.reshaped(vec![outer, 1, 1])?, false)?;
        }
        Ok(value)
    }
}

/// Gives axes of which only the major part is left, such as every second row after patch merging,
/// the name of a whole axis.
fn rename_rest(layout: &mut Layout) {
    let all = layout.digits();
    for digit in layout.0.iter_mut().flatten() {
        let same = |other: &&Digit| {
            (other.kind, other.size, other.twin) == (digit.kind, digit.size, digit.twin)
        };
        let least = all.iter().filter(same).map(|other| other.stride).min().unwrap_or(1);
        let divides = all.iter().filter(same).all(|other| other.stride % least == 0);
        if least > 1 && divides && digit.size % least == 0 && digit.kind != Kind::Feature {
            (digit.size, digit.stride) = (digit.size / least, digit.stride / least);
        }
    }
}

/// Input number `i` of a node, if it is constant.
pub(super) fn constant(inputs: &[Option<Traced>], i: usize) -> Option<&Const> {
    match inputs.get(i) {
        Some(Some(Traced::Constant(constant))) => Some(constant),
        _ => None,
    }
}

impl Trace<'_> {
    /// The values of a constant as a shape.
    pub(super) fn sizes(&self, constant: &Const) -> Result<Vec<usize>> {
        match &constant.data {
            Data::Floats(_) => Err(Error::model_invalid("a shape of floats")),
            _ => shape::sizes(&constant.ints(self.graph)?),
        }
    }
}
