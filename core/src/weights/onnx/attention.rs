//! Reads multi-head attention, in the forms of all networks: fused or separate projections, a
//! scale on any of the factors, cosine similarity, rotary positions, position biases.

use super::expr::{ConstId, Id, Op, Part, Two};
use super::layout::{Digit, Kind, extent};
use super::probe;
use super::reader::{Linear, Reader};
use crate::error::Result;

/// Rotary positions of queries or keys.
#[derive(Clone, Debug)]
pub(super) struct Rotary {
    pub(super) sin: ConstId,
    pub(super) cos: ConstId,
}

/// Where queries, keys and values come from.
#[derive(Clone, Debug)]
pub(super) enum Projection {
    Fused(Box<Linear>),
    Separate(Box<[Linear; 3]>),
}

/// An attention layer without its output projection.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    pub(super) x: Id,
    pub(super) projection: Projection,
    pub(super) heads: usize,
    pub(super) head_dim: usize,
    /// The factor of the scores.
    pub(super) scale: f64,
    /// A factor for each head.
    pub(super) head_scale: Option<ConstId>,
    /// Whether queries and keys are brought to length 1.
    pub(super) cosine: bool,
    /// The rotary positions of queries and keys.
    pub(super) rotary: Option<[Rotary; 2]>,
    /// What is added to the scores, with its axes.
    pub(super) biases: Vec<(ConstId, Vec<Digit>)>,
    /// The axes that the attention is separate for, besides the heads.
    pub(super) windows: Vec<Digit>,
    /// The axes of the positions that attend to each other.
    pub(super) positions: Vec<Digit>,
}

/// A factor of the scores.
struct Operand {
    source: Linear,
    part: Option<usize>,
    scale: f64,
    cosine: bool,
    rotary: Option<Rotary>,
}

impl Reader<'_, '_> {
    /// The attention layer whose output is `y`.
    pub(super) fn attention(&self, y: Id) -> Option<Attention> {
        let Op::Product { a, b, inner, .. } = self.op(y) else {
            return self.miss(y, "the product of attention and values");
        };
        let (attended, values) = match (self.op(*a), self.op(*b)) {
            (Op::Softmax { .. }, _) => (*a, *b),
            (_, Op::Softmax { .. }) => (*b, *a),
            _ => return self.miss(y, "a softmax"),
        };
        let Op::Softmax { x: scores, along } = self.op(attended) else { return None };
        // The digits of the product are named as in its first factor.
        let plain = |digits: &[Digit]| -> Vec<Digit> {
            digits.iter().map(|digit| digit.with_twin(false)).collect()
        };
        let over_keys = if attended == *a { along == inner } else { plain(along) == plain(inner) };
        if !over_keys {
            return self.miss(attended, "a softmax over the keys");
        }
        let (mut below, mut scale, mut head_scale) = (*scores, 1.0, None);
        let mut biases = Vec::new();
        let product = loop {
            if let Some((Two::Mul, value, next)) = self.scalar(below) {
                scale *= value;
                below = next;
                continue;
            }
            match self.op(below) {
                Op::Constant { op: Two::Add, x, constant, along, first: false } => {
                    // A factor that comes after a summand would also scale the summand.
                    if scale != 1.0 {
                        return self.miss(below, "a position bias that is not scaled");
                    }
                    biases.push((*constant, along.clone()));
                    below = *x;
                }
                Op::Constant { op: Two::Mul, x, constant, along, first: false }
                    if matches!(along[..], [d] if d.kind == Kind::Feature)
                        && head_scale.is_none() =>
                {
                    head_scale = Some((*constant, along[0]));
                    below = *x;
                }
                Op::Product { .. } => break below,
                _ => return self.miss(below, "attention scores"),
            }
        };
        let Op::Product { a, b, batch, rows, columns, inner } = self.op(product) else {
            return None;
        };
        let (query, key, positions) = if along == columns {
            (*a, *b, rows.clone())
        } else if along == rows {
            (*b, *a, plain(columns))
        } else {
            return self.miss(product, "a softmax over all positions");
        };
        let [dim] = inner[..] else { return self.miss(product, "one head dimension") };
        let (mut head, mut windows) = (None, Vec::new());
        for digit in batch {
            match digit.kind {
                Kind::Feature if head.is_none() => head = Some(*digit),
                Kind::Feature => return self.miss(product, "one axis of heads"),
                _ => windows.push(*digit),
            }
        }
        let heads = head.map_or(1, |head| head.extent);
        let side_by_side = dim.kind == Kind::Feature
            && dim.stride == 1
            && head.is_none_or(|head| head.size == dim.size && head.stride == dim.extent);
        if !side_by_side || head_scale.is_some_and(|(_, along)| Some(along) != head) {
            return self.miss(product, "heads that lie side by side");
        }
        let [query, key] = [self.operand(query)?, self.operand(key)?];
        let values = self.operand(values)?;
        let plain_values = values.scale == 1.0 && !values.cosine && values.rotary.is_none();
        let both = query.rotary.is_some() == key.rotary.is_some();
        let fits = query.cosine == key.cosine && both && plain_values;
        if !fits || query.source.x != key.source.x || query.source.x != values.source.x {
            return self.miss(product, "queries, keys and values of one input");
        }
        let projection = match [query.part, key.part, values.part] {
            [Some(0), Some(1), Some(2)]
                if query.source.weight == key.source.weight
                    && query.source.weight == values.source.weight =>
            {
                Projection::Fused(Box::new(query.source.clone()))
            }
            [None, None, None] => {
                Projection::Separate(Box::new([query.source.clone(), key.source, values.source]))
            }
            _ => return self.miss(product, "queries, keys and values in that order"),
        };
        Some(Attention {
            x: query.source.x,
            projection,
            heads,
            head_dim: dim.extent,
            scale: scale * query.scale * key.scale,
            head_scale: head_scale.map(|(constant, _)| constant),
            cosine: query.cosine,
            rotary: query.rotary.zip(key.rotary).map(<[Rotary; 2]>::from),
            biases,
            windows,
            positions,
        })
    }

    fn operand(&self, id: Id) -> Option<Operand> {
        let (mut below, mut scale, mut cosine, mut rotary) = (id, 1.0, false, None);
        loop {
            if let Some((Two::Mul, value, next)) = self.scalar(below) {
                scale *= value;
                below = next;
            } else if rotary.is_none()
                && let Some((found, next)) = self.rotary(below)
            {
                rotary = Some(found);
                below = next;
            } else if !cosine
                && let Some((next, _)) = probe::unit_length(self.arena(), self.trace.graph, below)
            {
                // A factor below the normalisation has no effect and does not occur.
                cosine = true;
                below = next;
            } else {
                break;
            }
        }
        let (below, part) = match self.op(below) {
            Op::Select { x, digit, index }
                if digit.kind == Kind::Feature
                    && digit.extent == 3
                    && digit.stride.checked_mul(3) == Some(digit.size) =>
            {
                (*x, Some(*index))
            }
            _ => (below, None),
        };
        let Some(source) = self.plain_linear(below) else {
            return self.miss(below, "a projection to queries, keys or values");
        };
        Some(Operand { source, part, scale, cosine, rotary })
    }

    /// Positions turned into rotations, for all tokens but the first.
    fn rotary(&self, id: Id) -> Option<(Rotary, Id)> {
        let Op::Join { parts, digit } = self.op(id) else { return None };
        let [Part::Value(first), Part::Value(rest)] = parts[..] else { return None };
        let Op::Select { x: base, digit: token, index: 0 } = self.op(first) else { return None };
        let Op::Two { op: Two::Add, a, b } = self.op(rest) else { return None };
        for (plain, turned) in [(a, b), (b, a)] {
            let (Some((cos, plain)), Some((sin, turned))) =
                (self.rotation(*plain), self.rotation(*turned))
            else {
                return None;
            };
            let Op::Turn { x, .. } = self.op(turned) else { continue };
            let Op::Slice { x: source, digit: axis, start: 1, count } = self.op(plain) else {
                continue;
            };
            if *x == plain && source == base && axis == token && *count + 1 == digit.extent {
                return Some((Rotary { sin, cos }, *base));
            }
        }
        None
    }

    /// A factor for each token and each dimension of a head.
    fn rotation(&self, id: Id) -> Option<(ConstId, Id)> {
        match self.op(id) {
            Op::Constant { op: Two::Mul, x, constant, along, first: false } => {
                let [token, dim] = along[..] else { return None };
                let fits = token.kind == Kind::Token
                    && token.is_whole()
                    && dim.kind == Kind::Feature
                    && dim.stride == 1;
                fits.then_some((*constant, *x))
            }
            _ => None,
        }
    }

    /// Whether the scores are scaled by one over the root of the head dimension.
    pub(super) fn is_usual_scale(&self, attention: &Attention) -> bool {
        let usual = 1.0 / (attention.head_dim as f64).sqrt();
        (attention.scale - usual).abs() <= 1e-5 * usual
    }

    /// Writes the projections as one layer `qkv`.
    pub(super) fn put_qkv(&self, name: &str, attention: &Attention, bias: bool) -> Result<()> {
        let width = attention.heads * attention.head_dim;
        let (mut weight, mut biases) = (Vec::new(), Vec::new());
        match &attention.projection {
            Projection::Fused(linear) => {
                weight = self.matrix(linear)?;
                biases = self.bias(linear.bias, 3 * width)?;
            }
            Projection::Separate(linears) => {
                for linear in linears.iter() {
                    weight.extend(self.matrix(linear)?);
                    biases.extend(self.bias(linear.bias, width)?);
                }
            }
        }
        let inner = weight.len() / (3 * width).max(1);
        self.put(format!("{name}.weight"), &[3 * width, inner], weight)?;
        if bias {
            self.put(format!("{name}.bias"), &[3 * width], biases)?;
        }
        Ok(())
    }

    /// The number of positions of an attention.
    pub(super) fn positions(&self, attention: &Attention) -> usize {
        extent(&attention.positions)
    }
}
