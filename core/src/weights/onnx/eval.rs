//! Evaluates the parts of a graph that do not depend on the image.
//!
//! Exporters leave shape arithmetic, reshaped weights and whole small networks (SwinV2's position
//! bias) in the graph. They are computed here once, with a limit on how much a hostile graph can
//! make of it.

use std::cell::Cell;
use std::rc::Rc;

use super::constant::{Const, Data};
use super::eval_shape as shape;
use super::graph::{Attribute, Graph, Node, numel};
use crate::error::{Error, Result};

/// Most values of one computed constant.
const MAX_VALUES: usize = 1 << 27;
/// Most values (or multiplications of a matrix product) computed in one import.
const MAX_WORK: usize = 1 << 34;

/// The evaluator of one import.
pub(super) struct Evaluator<'a> {
    pub(super) graph: &'a Graph<'a>,
    work: Cell<usize>,
}

impl<'a> Evaluator<'a> {
    pub(super) fn new(graph: &'a Graph<'a>) -> Self {
        Self { graph, work: Cell::new(0) }
    }

    /// Takes `values` off what this import may compute.
    pub(super) fn spend(&self, values: usize) -> Result<()> {
        let work = self.work.get().saturating_add(values);
        self.work.set(work);
        if values > MAX_VALUES || work > MAX_WORK {
            return Err(Error::model_invalid("the graph computes more constants than is allowed"));
        }
        Ok(())
    }

    /// The outputs of a node whose inputs are all constant.
    pub(super) fn node(&self, node: &Node, inputs: &[Option<Const>]) -> Result<Vec<Const>> {
        let arg = |i: usize| {
            inputs
                .get(i)
                .and_then(Option::as_ref)
                .ok_or_else(|| Error::model_invalid(format!("`{}` lacks its input {i}", node.op)))
        };
        let opt = |i: usize| inputs.get(i).and_then(Option::as_ref);
        let axes = || self.axes(node, opt(1));
        let one = |value: Const| Ok(vec![value]);
        match node.op.as_str() {
            "Constant" => one(self.constant(node)?),
            "Identity" | "Dropout" => one(arg(0)?.clone()),
            "Shape" => one(shape_of(node, &arg(0)?.dims)),
            "Size" => one(Const::shape(&[arg(0)?.numel()]).reshaped(Vec::new())?),
            "Cast" => one(self.cast(node, arg(0)?)?),
            "Reshape" => {
                let target = shape::target(node, &arg(0)?.dims, &arg(1)?.ints(self.graph)?)?;
                one(arg(0)?.reshaped(target)?)
            }
            "Flatten" => one(arg(0)?.reshaped(shape::flattened(node, &arg(0)?.dims)?)?),
            "Squeeze" => one(arg(0)?.reshaped(shape::squeezed(&arg(0)?.dims, axes()?)?)?),
            "Unsqueeze" => {
                let axes = axes()?.unwrap_or_default();
                one(arg(0)?.reshaped(shape::unsqueezed(&arg(0)?.dims, &axes)?)?)
            }
            "Transpose" => {
                one(self.transpose(arg(0)?, &shape::permutation(node, arg(0)?.dims.len())?)?)
            }
            "Expand" => one(self.expand(arg(0)?, arg(1)?)?),
            "ConstantOfShape" => one(self.filled(node, arg(0)?)?),
            "Range" => one(self.range(arg(0)?, arg(1)?, arg(2)?)?),
            "Concat" => {
                let all: Vec<&Const> = (0..inputs.len()).map(arg).collect::<Result<_>>()?;
                one(self.concat(node, &all)?)
            }
            "Slice" => one(self.slice(node, inputs)?),
            "Split" => self.split(node, arg(0)?, opt(1)),
            "Gather" => one(self.gather(node, arg(0)?, arg(1)?)?),
            "Where" => one(self.pick(arg(0)?, arg(1)?, arg(2)?)?),
            "MatMul" => one(self.matmul(arg(0)?, arg(1)?)?),
            "Gemm" => one(self.gemm(node, arg(0)?, arg(1)?, opt(2))?),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Max" | "Min" | "Equal" | "Less"
            | "Greater" | "And" | "Or" => {
                let mut value = arg(0)?.clone();
                for i in 1..inputs.len() {
                    value = self.binary(node, &value, arg(i)?)?;
                }
                one(value)
            }
            "Sqrt" | "Reciprocal" | "Exp" | "Log" | "Sigmoid" | "Relu" | "Neg" | "Abs" | "Sign"
            | "Erf" | "Tanh" | "Floor" | "Ceil" | "Not" | "Sin" | "Cos" => {
                one(self.unary(node, arg(0)?)?)
            }
            "Clip" => one(self.clip(node, arg(0)?, opt(1), opt(2))?),
            op if op.starts_with("Reduce") => one(self.reduce(node, arg(0)?, axes()?)?),
            op => Err(Error::unsupported(format!("the operation `{op}` is not known"))),
        }
    }

    fn constant(&self, node: &Node) -> Result<Const> {
        if let Some(Attribute::Tensor(tensor)) = node.attributes.get("value") {
            return Const::new(tensor.dims.clone(), self.graph.load(tensor)?, &[]);
        }
        for (name, attribute) in &node.attributes {
            match (name.as_str(), attribute) {
                ("value_float", Attribute::Float(value)) => return Ok(Const::scalar(*value)),
                ("value_int", Attribute::Int(value)) => {
                    return Const::new(Vec::new(), Data::ints([*value].into_iter()), &[]);
                }
                ("value_floats", Attribute::Floats(values)) => {
                    let data = Data::floats(values.iter().copied());
                    return Const::new(vec![values.len()], data, &[]);
                }
                ("value_ints", Attribute::Ints(values)) => {
                    let data = Data::ints(values.iter().copied());
                    return Const::new(vec![values.len()], data, &[]);
                }
                _ => {}
            }
        }
        Err(Error::unsupported("a `Constant` without a dense value is not read"))
    }

    fn cast(&self, node: &Node, x: &Const) -> Result<Const> {
        let to = node.int("to").unwrap_or(0);
        if matches!(to, 1 | 10 | 11 | 16) && !x.is_integer() {
            return Ok(x.clone());
        }
        let data = match to {
            1 | 10 | 11 | 16 => Data::Floats(x.floats(self.graph)?),
            9 if x.is_integer() => {
                Data::ints(x.ints(self.graph)?.iter().map(|v| i64::from(*v != 0)))
            }
            9 => Data::ints(x.floats(self.graph)?.iter().map(|v| i64::from(*v != 0.0))),
            2..=7 | 12 | 13 => Data::Ints(x.ints(self.graph)?),
            _ => return Err(Error::unsupported(format!("a cast to ONNX type {to} is not known"))),
        };
        Const::new(x.dims.clone(), data, &[x])
    }

    /// Applies a list of source positions to a constant.
    pub(super) fn picked(&self, x: &Const, dims: Vec<usize>, places: &[usize]) -> Result<Const> {
        let outside = || Error::model_invalid("an index lies outside of its tensor");
        let data = if x.is_integer() {
            let values = x.ints(self.graph)?;
            let picked: Option<Vec<i64>> = places.iter().map(|p| values.get(*p).copied()).collect();
            Data::Ints(Rc::new(picked.ok_or_else(outside)?))
        } else {
            let values = x.floats(self.graph)?;
            let picked: Option<Vec<f32>> = places.iter().map(|p| values.get(*p).copied()).collect();
            Data::Floats(Rc::new(picked.ok_or_else(outside)?))
        };
        Const::new(dims, data, &[x])
    }

    pub(super) fn transpose(&self, x: &Const, permutation: &[usize]) -> Result<Const> {
        self.spend(x.numel())?;
        let strides = shape::strides(&x.dims);
        let dims: Vec<usize> = permutation.iter().map(|axis| x.dims[*axis]).collect();
        let steps: Vec<usize> = permutation.iter().map(|axis| strides[*axis]).collect();
        self.picked(x, dims.clone(), &shape::walk(&dims, &steps))
    }

    fn expand(&self, x: &Const, target: &Const) -> Result<Const> {
        let target = shape::sizes(&target.ints(self.graph)?)?;
        let dims = shape::broadcast(&x.dims, &target)?;
        self.spread(x, &dims)
    }

    fn spread(&self, x: &Const, dims: &[usize]) -> Result<Const> {
        self.spend(numel(dims)?)?;
        self.picked(x, dims.to_vec(), &shape::walk(dims, &shape::broadcast_strides(&x.dims, dims)))
    }

    fn filled(&self, node: &Node, dims: &Const) -> Result<Const> {
        let dims = shape::sizes(&dims.ints(self.graph)?)?;
        let count = numel(&dims)?;
        self.spend(count)?;
        let value = match node.attributes.get("value") {
            Some(Attribute::Tensor(tensor)) => self.graph.load(tensor)?,
            _ => Data::floats([0.0].into_iter()),
        };
        let data = match value {
            Data::Ints(v) if v.len() == 1 => Data::Ints(Rc::new(vec![v[0]; count])),
            Data::Floats(v) if v.len() == 1 => Data::Floats(Rc::new(vec![v[0]; count])),
            _ => return Err(Error::model_invalid("`ConstantOfShape` needs one value")),
        };
        Const::new(dims, data, &[])
    }

    fn range(&self, start: &Const, limit: &Const, delta: &Const) -> Result<Const> {
        let read = |c: &Const| Ok::<_, Error>(c.ints(self.graph)?.first().copied().unwrap_or(0));
        if !start.is_integer() {
            return Err(Error::unsupported("a `Range` of floats is not known"));
        }
        let (start, limit, delta) = (read(start)?, read(limit)?, read(delta)?);
        if delta == 0 {
            return Err(Error::model_invalid("a `Range` has a step of 0"));
        }
        let (span, step) = (i128::from(limit) - i128::from(start), i128::from(delta));
        let count = ((span + step - step.signum()) / step).max(0);
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        self.spend(count)?;
        let data = Data::ints((0..count as i64).map(|i| start + i * delta));
        Const::new(vec![count], data, &[])
    }

    fn concat(&self, node: &Node, parts: &[&Const]) -> Result<Const> {
        let [first, ..] = parts else {
            return Err(Error::model_invalid("`Concat` of nothing"));
        };
        let axis = shape::axis(node.int("axis").unwrap_or(0), first.dims.len())?;
        let (outer, inner) = shape::around(&first.dims, axis);
        let mut dims = first.dims.clone();
        dims[axis] = 0;
        for part in parts {
            let mut expected = part.dims.clone();
            if expected.len() != dims.len() {
                return Err(Error::model_invalid("`Concat` of tensors of different rank"));
            }
            dims[axis] = dims[axis].saturating_add(expected[axis]);
            expected[axis] = first.dims[axis];
            if expected != first.dims {
                return Err(Error::model_invalid("`Concat` of tensors that do not fit"));
            }
        }
        self.spend(numel(&dims)?)?;
        let data = if parts.iter().all(|part| part.is_integer()) {
            let all = parts.iter().map(|p| p.ints(self.graph)).collect::<Result<Vec<_>>>()?;
            Data::Ints(Rc::new(joined(&all, parts, outer, inner, axis)))
        } else {
            let all = parts.iter().map(|p| p.floats(self.graph)).collect::<Result<Vec<_>>>()?;
            Data::Floats(Rc::new(joined(&all, parts, outer, inner, axis)))
        };
        Const::new(dims, data, parts)
    }

    fn slice(&self, node: &Node, inputs: &[Option<Const>]) -> Result<Const> {
        let x = inputs.first().and_then(Option::as_ref);
        let x = x.ok_or_else(|| Error::model_invalid("`Slice` lacks its input"))?;
        let mut x = x.clone();
        for cut in self.cuts(node, &x.dims, inputs)? {
            let (outer, inner) = shape::around(&x.dims, cut.axis);
            let size = x.dims[cut.axis];
            let mut dims = x.dims.clone();
            dims[cut.axis] = cut.count;
            self.spend(numel(&dims)?)?;
            let mut places = Vec::with_capacity(numel(&dims)?);
            for o in 0..outer {
                for i in 0..cut.count {
                    let at = (o * size + cut.place(i)) * inner;
                    places.extend(at..at + inner);
                }
            }
            x = self.picked(&x, dims, &places)?;
        }
        Ok(x)
    }

    fn split(&self, node: &Node, x: &Const, sizes: Option<&Const>) -> Result<Vec<Const>> {
        let axis = shape::axis(node.int("axis").unwrap_or(0), x.dims.len())?;
        let sizes = self.split_sizes(node, x.dims[axis], sizes)?;
        let (outer, inner) = shape::around(&x.dims, axis);
        let mut start = 0;
        let mut parts = Vec::new();
        for size in sizes {
            let mut dims = x.dims.clone();
            dims[axis] = size;
            self.spend(numel(&dims)?)?;
            let mut places = Vec::new();
            for o in 0..outer {
                let at = (o * x.dims[axis] + start) * inner;
                places.extend(at..at + size * inner);
            }
            parts.push(self.picked(x, dims, &places)?);
            start += size;
        }
        Ok(parts)
    }

    fn gather(&self, node: &Node, x: &Const, indices: &Const) -> Result<Const> {
        let axis = shape::axis(node.int("axis").unwrap_or(0), x.dims.len())?;
        let (outer, inner) = shape::around(&x.dims, axis);
        let size = x.dims[axis];
        let wanted = indices.ints(self.graph)?;
        let mut dims = x.dims[..axis].to_vec();
        dims.extend(&indices.dims);
        dims.extend(&x.dims[axis + 1..]);
        self.spend(numel(&dims)?)?;
        let mut places = Vec::with_capacity(numel(&dims)?);
        for o in 0..outer {
            for index in wanted.iter() {
                let at = (o * size + shape::index(*index, size)?) * inner;
                places.extend(at..at + inner);
            }
        }
        let picked = self.picked(x, dims.clone(), &places)?;
        Const::new(dims, picked.data, &[x, indices])
    }

    fn pick(&self, condition: &Const, yes: &Const, no: &Const) -> Result<Const> {
        let dims = shape::broadcast(&condition.dims, &shape::broadcast(&yes.dims, &no.dims)?)?;
        let (c, y, n) =
            (self.spread(condition, &dims)?, self.spread(yes, &dims)?, self.spread(no, &dims)?);
        let c = c.ints(self.graph)?;
        let data = if y.is_integer() {
            let (y, n) = (y.ints(self.graph)?, n.ints(self.graph)?);
            Data::ints(c.iter().enumerate().map(|(i, c)| if *c != 0 { y[i] } else { n[i] }))
        } else {
            let (y, n) = (y.floats(self.graph)?, n.floats(self.graph)?);
            Data::floats(c.iter().enumerate().map(|(i, c)| if *c != 0 { y[i] } else { n[i] }))
        };
        Const::new(dims, data, &[condition, yes, no])
    }

    pub(super) fn binary(&self, node: &Node, a: &Const, b: &Const) -> Result<Const> {
        let dims = shape::broadcast(&a.dims, &b.dims)?;
        let (x, y) = (self.spread(a, &dims)?, self.spread(b, &dims)?);
        let data = if a.is_integer() && b.is_integer() {
            let (x, y) = (x.ints(self.graph)?, y.ints(self.graph)?);
            let values = x.iter().zip(y.iter()).map(|(x, y)| integers(&node.op, *x, *y));
            Data::Ints(Rc::new(values.collect::<Result<_>>()?))
        } else {
            let (x, y) = (x.floats(self.graph)?, y.floats(self.graph)?);
            let pairs = x.iter().zip(y.iter());
            match node.op.as_str() {
                "Equal" => Data::ints(pairs.map(|(x, y)| i64::from(x == y))),
                "Less" => Data::ints(pairs.map(|(x, y)| i64::from(x < y))),
                "Greater" => Data::ints(pairs.map(|(x, y)| i64::from(x > y))),
                op => {
                    let values = pairs.map(|(x, y)| floats(op, *x, *y));
                    Data::Floats(Rc::new(values.collect::<Result<_>>()?))
                }
            }
        };
        Const::new(dims, data, &[a, b])
    }

    fn unary(&self, node: &Node, x: &Const) -> Result<Const> {
        self.spend(x.numel())?;
        let data = if x.is_integer() {
            let values = x.ints(self.graph)?;
            match node.op.as_str() {
                "Neg" => Data::ints(values.iter().map(|v| v.wrapping_neg())),
                "Abs" => Data::ints(values.iter().map(|v| v.wrapping_abs())),
                "Not" => Data::ints(values.iter().map(|v| i64::from(*v == 0))),
                "Relu" => Data::ints(values.iter().map(|v| (*v).max(0))),
                "Sign" => Data::ints(values.iter().map(|v| v.signum())),
                op => return Err(Error::unsupported(format!("`{op}` of integers is not known"))),
            }
        } else {
            let values = x.floats(self.graph)?;
            let computed = values.iter().map(|v| super::math::unary(&node.op, f64::from(*v)));
            let computed: Option<Vec<f32>> = computed.map(|v| v.map(|v| v as f32)).collect();
            Data::Floats(Rc::new(computed.ok_or_else(|| {
                Error::unsupported(format!("`{}` of floats is not known", node.op))
            })?))
        };
        Const::new(x.dims.clone(), data, &[x])
    }

    fn clip(
        &self,
        node: &Node,
        x: &Const,
        low: Option<&Const>,
        high: Option<&Const>,
    ) -> Result<Const> {
        self.spend(x.numel())?;
        let (low, high) = self.clip_range(node, low, high)?;
        let values = x.floats(self.graph)?;
        if x.is_integer() {
            return Err(Error::unsupported("`Clip` of integers is not known"));
        }
        let clipped = Data::floats(values.iter().map(|v| v.max(low).min(high)));
        Const::new(x.dims.clone(), clipped, &[x])
    }

    fn reduce(&self, node: &Node, x: &Const, axes: Option<Vec<i64>>) -> Result<Const> {
        self.spend(x.numel())?;
        let reduced = shape::axes_or_all(axes, x.dims.len())?;
        let kept: Vec<usize> = (0..x.dims.len()).filter(|axis| !reduced.contains(axis)).collect();
        let mut order = kept.clone();
        order.extend(&reduced);
        let moved = self.transpose(x, &order)?;
        let inner: usize = reduced.iter().map(|axis| x.dims[*axis]).product();
        let outer: usize = kept.iter().map(|axis| x.dims[*axis]).product();
        let keep = node.int("keepdims").unwrap_or(1) != 0;
        let dims: Vec<usize> = (0..x.dims.len())
            .filter(|axis| keep || !reduced.contains(axis))
            .map(|axis| if reduced.contains(&axis) { 1 } else { x.dims[axis] })
            .collect();
        let data = if x.is_integer() {
            let values = moved.ints(self.graph)?;
            let rows = (0..outer).map(|row| {
                let row = values[row * inner..(row + 1) * inner].iter().copied();
                match node.op.as_str() {
                    "ReduceProd" => Ok(row.fold(1i64, i64::wrapping_mul)),
                    "ReduceSum" => Ok(row.fold(0i64, i64::wrapping_add)),
                    "ReduceMax" => Ok(row.max().unwrap_or(0)),
                    "ReduceMin" => Ok(row.min().unwrap_or(0)),
                    op => Err(Error::unsupported(format!("`{op}` of integers is not known"))),
                }
            });
            Data::Ints(Rc::new(rows.collect::<Result<_>>()?))
        } else {
            let values = moved.floats(self.graph)?;
            let rows = (0..outer).map(|row| {
                let row = values[row * inner..(row + 1) * inner].iter().map(|v| f64::from(*v));
                let value = match node.op.as_str() {
                    "ReduceProd" => row.product(),
                    "ReduceSum" => row.sum(),
                    "ReduceMean" => row.sum::<f64>() / inner.max(1) as f64,
                    "ReduceMax" => row.fold(f64::NEG_INFINITY, f64::max),
                    "ReduceMin" => row.fold(f64::INFINITY, f64::min),
                    "ReduceSumSquare" => row.map(|v| v * v).sum(),
                    "ReduceL2" => row.map(|v| v * v).sum::<f64>().sqrt(),
                    op => return Err(Error::unsupported(format!("`{op}` is not known"))),
                };
                Ok(value as f32)
            });
            Data::Floats(Rc::new(rows.collect::<Result<_>>()?))
        };
        Const::new(dims, data, &[x])
    }

    fn matmul(&self, a: &Const, b: &Const) -> Result<Const> {
        let unfit = || Error::model_invalid(format!("`MatMul` of {:?} and {:?}", a.dims, b.dims));
        let ([.., k], [inner, n]) = (&a.dims[..], &b.dims[..]) else { return Err(unfit()) };
        if k != inner {
            return Err(unfit());
        }
        let (k, n) = (*k, *n);
        let rows: usize = a.dims[..a.dims.len() - 1].iter().product();
        let mut dims = a.dims[..a.dims.len() - 1].to_vec();
        dims.push(n);
        let work = numel(&[rows, k, n])?;
        self.spend(numel(&dims)?)?;
        self.work.set(self.work.get().saturating_add(work));
        self.spend(0)?;
        let (x, y) = (a.floats(self.graph)?, b.floats(self.graph)?);
        let mut out = vec![0f32; numel(&dims)?];
        let mut row = vec![0f64; n];
        for r in 0..rows {
            row.fill(0.0);
            for i in 0..k {
                let factor = f64::from(x[r * k + i]);
                for (sum, value) in row.iter_mut().zip(&y[i * n..(i + 1) * n]) {
                    *sum += factor * f64::from(*value);
                }
            }
            for (to, value) in out[r * n..(r + 1) * n].iter_mut().zip(&row) {
                *to = *value as f32;
            }
        }
        Const::new(dims, Data::Floats(Rc::new(out)), &[a, b])
    }

    fn gemm(&self, node: &Node, a: &Const, b: &Const, c: Option<&Const>) -> Result<Const> {
        let flip = |x: &Const, name: &str| match (node.int(name).unwrap_or(0), x.dims.len()) {
            (0, _) => Ok(x.clone()),
            (_, 2) => self.transpose(x, &[1, 0]),
            _ => Err(Error::model_invalid("`Gemm` of a tensor that is no matrix")),
        };
        if node.float("alpha").unwrap_or(1.0) != 1.0 || node.float("beta").unwrap_or(1.0) != 1.0 {
            return Err(Error::unsupported("a constant `Gemm` with factors is not known"));
        }
        let product = self.matmul(&flip(a, "transA")?, &flip(b, "transB")?)?;
        match c {
            Some(c) => {
                let add = Node { op: "Add".to_owned(), ..Node::default() };
                self.binary(&add, &product, c)
            }
            None => Ok(product),
        }
    }
}

fn shape_of(node: &Node, dims: &[usize]) -> Const {
    let clamp = |i: i64| {
        let i = if i < 0 { i.saturating_add(dims.len() as i64) } else { i };
        i.clamp(0, dims.len() as i64) as usize
    };
    let start = clamp(node.int("start").unwrap_or(0));
    let end = clamp(node.int("end").unwrap_or(i64::MAX));
    Const::shape(&dims[start..end.max(start)])
}

impl Evaluator<'_> {
    /// The value of a `Shape` node whose input has these dimensions.
    pub(super) fn shape(&self, node: &Node, dims: &[usize]) -> Const {
        shape_of(node, dims)
    }
}

fn joined<T: Copy>(
    all: &[Rc<Vec<T>>],
    parts: &[&Const],
    outer: usize,
    inner: usize,
    axis: usize,
) -> Vec<T> {
    let mut out = Vec::new();
    for o in 0..outer {
        for (values, part) in all.iter().zip(parts) {
            let step = part.dims[axis] * inner;
            out.extend_from_slice(&values[o * step..(o + 1) * step]);
        }
    }
    out
}

fn integers(op: &str, x: i64, y: i64) -> Result<i64> {
    Ok(match op {
        "Add" => x.wrapping_add(y),
        "Sub" => x.wrapping_sub(y),
        "Mul" => x.wrapping_mul(y),
        "Div" | "Mod" if y == 0 => return Err(Error::model_invalid("a division by zero")),
        // Shape arithmetic divides sizes, where truncation and floor agree.
        "Div" => x.wrapping_div(y),
        "Mod" => x.wrapping_rem(y).wrapping_add(y).wrapping_rem(y),
        "Max" => x.max(y),
        "Min" => x.min(y),
        "Equal" => i64::from(x == y),
        "Less" => i64::from(x < y),
        "Greater" => i64::from(x > y),
        "And" => i64::from(x != 0 && y != 0),
        "Or" => i64::from(x != 0 || y != 0),
        _ => return Err(Error::unsupported(format!("`{op}` of integers is not known"))),
    })
}

fn floats(op: &str, x: f32, y: f32) -> Result<f32> {
    Ok(match op {
        "Add" => x + y,
        "Sub" => x - y,
        "Mul" => x * y,
        "Div" => x / y,
        "Pow" => x.powf(y),
        "Max" => x.max(y),
        "Min" => x.min(y),
        _ => return Err(Error::unsupported(format!("`{op}` of floats is not known"))),
    })
}
