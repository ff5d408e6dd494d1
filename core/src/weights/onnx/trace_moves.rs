//! What each ONNX operation does to an activation: cutting apart and putting together.

use std::collections::BTreeMap;

use super::constant::Const;
use super::eval_shape::{self as shape, Cut};
use super::expr::{Id, Op, Part};
use super::graph::{Node, numel};
use super::layout::{Digit, Kind, Layout, extent, merged};
use super::trace::{Active, Trace, Traced, not_empty};
use super::trace_ops::constant;
use crate::error::{Error, Result};

impl<'a> Trace<'a> {
    pub(super) fn slice(
        &mut self,
        node: &Node,
        x: &Active,
        inputs: &[Option<Traced>],
    ) -> Result<Active> {
        let constants: Vec<Option<Const>> =
            (0..inputs.len()).map(|i| constant(inputs, i).cloned()).collect();
        if (1..inputs.len()).any(|i| inputs[i].is_some() && constants[i].is_none()) {
            return Err(Error::unsupported("a slice whose range depends on the image"));
        }
        let cuts = self.eval.cuts(node, &x.layout.dims(), &constants)?;
        cuts.into_iter().try_fold(x.clone(), |value, cut| self.cut(&value, cut))
    }

    pub(super) fn split(
        &mut self,
        node: &Node,
        x: &Active,
        sizes: Option<&Const>,
    ) -> Result<Vec<Traced>> {
        let axis = shape::axis(node.int("axis").unwrap_or(0), x.layout.rank())?;
        let sizes = self.eval.split_sizes(node, extent(&x.layout.0[axis]), sizes)?;
        let mut start = 0;
        let mut parts = Vec::new();
        for count in sizes {
            let part = self.cut(x, Cut { axis, start, count, step: 1 })?;
            parts.push(Traced::Active(part));
            start += count;
        }
        Ok(parts)
    }

    /// One cut along one dimension.
    fn cut(&mut self, x: &Active, cut: Cut) -> Result<Active> {
        let dim = &x.layout.0[cut.axis];
        let size = extent(dim);
        if cut.step == 1 && cut.start == 0 && cut.count == size {
            return Ok(x.clone());
        }
        let mut layout = x.layout.clone();
        if cut.step == -1 && cut.count == size && dim.len() == 1 {
            let id = self.add(Op::Flip { x: x.id, digit: dim[0] });
            return Ok(Active { id, layout });
        }
        let unknown = || Error::unsupported(format!("a slice {cut:?} of an axis of {size}"));
        let select = |major: usize, minor: usize| -> Result<Vec<Vec<Digit>>> {
            Ok(Layout(vec![dim.clone()]).reshaped(&[major, minor])?.0)
        };
        // Every second value: one position of the minor digit of two.
        let step = usize::try_from(cut.step).ok().filter(|step| *step > 0).ok_or_else(unknown)?;
        if step > 1 {
            if !size.is_multiple_of(step) || cut.count != size / step || cut.start >= step {
                return Err(unknown());
            }
            let parts = select(size / step, step)?;
            layout.0[cut.axis] = parts[0].clone();
            return self.select(x.id, &parts[1], cut.start, layout);
        }
        // A block out of equal blocks: one position of the major digit. (Tokens are only cut this
        // way one by one, since their number is no product.)
        let tokens = dim.iter().any(|digit| digit.kind == Kind::Token);
        let block =
            cut.count > 0 && cut.start.is_multiple_of(cut.count) && size.is_multiple_of(cut.count);
        if block && (cut.count == 1 || !tokens) {
            let parts = select(size / cut.count, cut.count)?;
            layout.0[cut.axis] = parts[1].clone();
            return self.select(x.id, &parts[0], cut.start / cut.count, layout);
        }
        let [digit] = dim[..] else { return Err(unknown()) };
        if cut.count == 0 {
            return Err(unknown());
        }
        let id = self.add(Op::Slice { x: x.id, digit, start: cut.start, count: cut.count });
        layout.0[cut.axis] = merged(&[Digit::whole(Kind::Token, cut.count)]);
        Ok(Active { id, layout })
    }

    /// One position of a digit (or of several, from major to minor).
    fn select(&mut self, x: Id, digits: &[Digit], index: usize, layout: Layout) -> Result<Active> {
        let (mut id, mut rest, mut open) = (x, index, extent(digits));
        let mut picked = Vec::new();
        for digit in digits {
            open /= digit.extent;
            picked.push((*digit, rest / open));
            rest %= open;
        }
        picked.sort_unstable();
        for (digit, index) in picked {
            id = self.add(Op::Select { x: id, digit, index });
        }
        Ok(Active { id, layout })
    }

    pub(super) fn gather(
        &mut self,
        node: &Node,
        x: &Active,
        inputs: &[Option<Traced>],
    ) -> Result<Active> {
        let axis = shape::axis(node.int("axis").unwrap_or(0), x.layout.rank())?;
        let size = extent(&x.layout.0[axis]);
        let indices = constant(inputs, 1)
            .ok_or_else(|| Error::unsupported("an index depends on the image"))?;
        let places = indices.ints(self.graph)?;
        let places: Vec<usize> =
            places.iter().map(|i| shape::index(*i, size)).collect::<Result<_>>()?;
        match places[..] {
            [start] if indices.dims.len() <= 1 => {
                let mut one = if size == 1 {
                    x.clone()
                } else {
                    self.cut(x, Cut { axis, start, count: 1, step: 1 })?
                };
                if indices.dims.is_empty() {
                    one.layout.0.remove(axis);
                }
                Ok(one)
            }
            _ if places.iter().copied().eq(0..size) => Ok(x.clone()),
            _ if places.iter().copied().eq((0..size).rev()) => {
                self.cut(x, Cut { axis, start: size - 1, count: size, step: -1 })
            }
            _ => Err(Error::unsupported("values of an activation are rearranged by an index")),
        }
    }

    pub(super) fn expand(&mut self, x: &Active, inputs: &[Option<Traced>]) -> Result<Active> {
        let target = constant(inputs, 1)
            .ok_or_else(|| Error::unsupported("a shape depends on the image"))?;
        let dims = shape::broadcast(&x.layout.dims(), &self.sizes(target)?)?;
        not_empty(&dims)?;
        if numel(&dims)? > 1 << 31 {
            return Err(Error::model_invalid(format!("an activation of shape {dims:?}")));
        }
        let missing = dims.len() - x.layout.rank();
        let layout = (0..dims.len()).map(|axis| {
            let own = axis.checked_sub(missing).map(|i| x.layout.0[i].clone()).unwrap_or_default();
            if extent(&own) == dims[axis] { own } else { vec![Digit::whole(Kind::Any, dims[axis])] }
        });
        Ok(Active { id: x.id, layout: Layout(layout.collect()) })
    }

    pub(super) fn pad(
        &mut self,
        node: &Node,
        x: &Active,
        inputs: &[Option<Traced>],
    ) -> Result<Active> {
        let unknown = || Error::unsupported("padding of this kind is not known");
        let rank = x.layout.rank();
        let pads = match constant(inputs, 1) {
            Some(pads) => shape::sizes(&pads.ints(self.graph)?)?,
            None => shape::sizes(node.ints("pads").ok_or_else(unknown)?)?,
        };
        if pads.len() != 2 * rank || inputs.get(3).is_some_and(Option::is_some) {
            return Err(unknown());
        }
        if pads.iter().all(|pad| *pad == 0) {
            return Ok(x.clone());
        }
        let value = match constant(inputs, 2) {
            Some(value) => value.single(self.graph)?.unwrap_or(f32::NAN),
            None => node.float("value").unwrap_or(0.0),
        };
        if node.text("mode").unwrap_or("constant") != "constant" || value != 0.0 {
            return Err(unknown());
        }
        let mut layout = x.layout.clone();
        let mut all = [0; 4];
        for axis in 0..rank {
            let (before, after) = (pads[axis], pads[rank + axis]);
            if (before, after) == (0, 0) {
                continue;
            }
            let [digit] = layout.0[axis][..] else { return Err(unknown()) };
            let place = match digit.kind {
                Kind::Row if digit.is_whole() => 0,
                Kind::Column if digit.is_whole() => 1,
                _ => return Err(unknown()),
            };
            (all[place], all[place + 2]) = (before, after);
            let size = digit.size.saturating_add(before).saturating_add(after);
            if size > 1 << 20 {
                return Err(unknown());
            }
            layout.0[axis] = vec![Digit::whole(digit.kind, size)];
        }
        Ok(Active { id: self.add(Op::Pad { x: x.id, pads: all }), layout })
    }

    pub(super) fn concat(&mut self, node: &'a Node, inputs: &[Option<Traced>]) -> Result<Active> {
        let parts: Vec<&Traced> = inputs.iter().flatten().collect();
        let active: Vec<&Active> = parts
            .iter()
            .filter_map(|part| match part {
                Traced::Active(active) => Some(active),
                Traced::Constant(_) => None,
            })
            .collect();
        let Some(first) = active.first() else {
            return Err(Error::model_invalid("`Concat` of nothing"));
        };
        let axis = shape::axis(node.int("axis").unwrap_or(0), first.layout.rank())?;
        if parts.len() == 1 {
            return Ok((*first).clone());
        }
        if let Some(rolled) = self.roll(node, axis)? {
            return Ok(rolled);
        }
        if active.len() == parts.len() {
            if let Some(turned) = self.turn(&active, axis) {
                return Ok(turned);
            }
            if let Some(stacked) = self.stack(&active, axis) {
                return Ok(stacked);
            }
        }
        self.join(&parts, first, axis)
    }

    /// Two slices of one tensor, put together the other way round.
    fn roll(&mut self, node: &'a Node, axis: usize) -> Result<Option<Active>> {
        let mut sources = Vec::new();
        for name in &node.inputs {
            let Some(maker) = self.makers.get(name.as_str()) else { return Ok(None) };
            let maker = &self.graph.nodes[*maker];
            if maker.op != "Slice" || maker.inputs.is_empty() {
                return Ok(None);
            }
            let Some(Traced::Active(x)) = self.value(&maker.inputs[0]) else { return Ok(None) };
            let constants: Vec<Option<Const>> = maker
                .inputs
                .iter()
                .map(|input| match self.value(input) {
                    Some(Traced::Constant(constant)) => Some(constant),
                    _ => None,
                })
                .collect();
            let cuts = self.eval.cuts(maker, &x.layout.dims(), &constants)?;
            let cuts: Vec<Cut> = cuts
                .into_iter()
                .filter(|cut| cut.count != extent(&x.layout.0[cut.axis]) || cut.step != 1)
                .collect();
            let [cut] = cuts[..] else { return Ok(None) };
            sources.push((x, cut));
        }
        let [(x, tail), (y, head)] = &sources[..] else { return Ok(None) };
        let fits = x.id == y.id
            && x.layout == y.layout
            && [tail.axis, head.axis] == [axis; 2]
            && [tail.step, head.step] == [1; 2]
            && head.start == 0
            && tail.start == head.count
            && tail.start + tail.count == extent(&x.layout.0[axis]);
        match (fits, &x.layout.0[axis][..]) {
            (true, [digit]) if digit.is_whole() => {
                let id = self.add(Op::Roll { x: x.id, digit: *digit, by: tail.start });
                Ok(Some(Active { id, layout: x.layout.clone() }))
            }
            _ => Ok(None),
        }
    }

    /// `(-b, a)` out of neighbours `(a, b)`, along a new axis of two.
    fn turn(&mut self, parts: &[&Active], axis: usize) -> Option<Active> {
        let [a, b] = parts else { return None };
        if !a.layout.0[axis].is_empty() || a.layout != b.layout {
            return None;
        }
        let Op::Function { name: "Neg", x: negated } = *self.arena.op(a.id) else { return None };
        let Op::Select { x, digit, index: 1 } = *self.arena.op(negated) else { return None };
        let Op::Select { x: other, digit: same, index: 0 } = *self.arena.op(b.id) else {
            return None;
        };
        if x != other || digit != same || digit.extent != 2 {
            return None;
        }
        let mut layout = a.layout.clone();
        layout.0[axis] = vec![digit];
        Some(Active { id: self.add(Op::Turn { x, digit }), layout })
    }

    /// All positions of some digits of one value, which makes those digits a part of the axis.
    fn stack(&mut self, parts: &[&Active], axis: usize) -> Option<Active> {
        let mut picks: Vec<BTreeMap<Digit, usize>> = Vec::new();
        let mut source = None;
        for part in parts {
            let (mut id, mut pick) = (part.id, BTreeMap::new());
            while let Op::Select { x, digit, index } = *self.arena.op(id) {
                pick.insert(digit, index);
                id = x;
            }
            if *source.get_or_insert(id) != id || part.layout != parts[0].layout {
                return None;
            }
            picks.push(pick);
        }
        let digits: Vec<Digit> = picks[0].keys().copied().collect();
        if digits.is_empty() || digits.len() > 3 || extent(&digits) != parts.len() {
            return None;
        }
        // The order of the parts says which digit is the major one.
        let orders: Vec<Vec<Digit>> = match digits[..] {
            [a] => vec![vec![a]],
            [a, b] => vec![vec![a, b], vec![b, a]],
            _ => return None,
        };
        let order = orders.into_iter().find(|order| {
            picks.iter().enumerate().all(|(n, pick)| {
                let mut open = parts.len();
                pick.len() == order.len()
                    && order.iter().all(|digit| {
                        open /= digit.extent;
                        pick.get(digit) == Some(&(n / open % digit.extent))
                    })
            })
        })?;
        let mut layout = parts[0].layout.clone();
        let mut dim = order;
        dim.extend(&layout.0[axis]);
        layout.0[axis] = merged(&dim);
        Some(Active { id: source?, layout })
    }

    /// Tensors one after the other, such as a class token and the patches.
    fn join(&mut self, parts: &[&Traced], first: &Active, axis: usize) -> Result<Active> {
        let unfit = || Error::unsupported("tensors of different layout are put together");
        let mut total = 0usize;
        let mut joined = Vec::new();
        for part in parts {
            match part {
                Traced::Active(active) => {
                    let fits = active.layout.rank() == first.layout.rank()
                        && (0..first.layout.rank())
                            .all(|i| i == axis || active.layout.0[i] == first.layout.0[i]);
                    if !fits {
                        return Err(unfit());
                    }
                    total = total.saturating_add(extent(&active.layout.0[axis]));
                    joined.push(Part::Value(active.id));
                }
                Traced::Constant(constant) => {
                    let mut dims = first.layout.dims();
                    if constant.dims.len() != dims.len() {
                        return Err(unfit());
                    }
                    dims[axis] = constant.dims[axis];
                    if constant.dims != dims {
                        return Err(unfit());
                    }
                    not_empty(&dims)?;
                    total = total.saturating_add(dims[axis]);
                    let constant = self.arena.constant(constant);
                    joined.push(Part::Constant(constant));
                }
            }
        }
        if total > 1 << 24 {
            return Err(Error::model_invalid("a concatenation is too long"));
        }
        let digit = Digit::whole(Kind::Token, total);
        let mut layout = first.layout.clone();
        layout.0[axis] = merged(&[digit]);
        Ok(Active { id: self.add(Op::Join { parts: joined, digit }), layout })
    }
}
