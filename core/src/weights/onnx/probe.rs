//! Recognises small functions by what they compute.
//!
//! A GELU or a layer norm has a dozen spellings. Instead of one pattern for each, a candidate is
//! evaluated in double precision on made-up values and compared with the definition. What matches
//! is that function, however it is written; what does not is not imported.

use std::collections::HashMap;

use super::constant::Const;
use super::expr::{Arena, ConstId, Id, Op, Over, Two};
use super::graph::Graph;
use super::layout::{Digit, Kind, merged};
use super::math;

/// Most expressions that one function may consist of.
const MAX_REGION: usize = 48;
/// How closely a function must agree with its definition; weights are single precision.
const TOLERANCE: f64 = 2e-5;

/// Activation functions that the networks know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activation {
    Gelu,
    GeluTanh,
    Silu,
}

/// A layer norm with its weights.
#[derive(Clone, Debug)]
pub(super) struct LayerNorm {
    pub(super) x: Id,
    pub(super) along: Vec<Digit>,
    pub(super) gamma: Option<ConstId>,
    pub(super) beta: Option<ConstId>,
    pub(super) epsilon: f64,
}

/// A global response norm with its weights.
#[derive(Clone, Debug)]
pub(super) struct ResponseNorm {
    pub(super) x: Id,
    pub(super) gamma: ConstId,
    pub(super) beta: Option<ConstId>,
}

/// Values over samples (such as positions) and channels, or over only one of them.
#[derive(Clone)]
struct Field {
    by_sample: bool,
    by_channel: bool,
    data: Vec<f64>,
}

/// A constant along the channels: the operation, the constant, whether it came first.
type Vector = (Two, ConstId, bool);

/// A function of one number.
type Function = fn(f64) -> f64;

/// One evaluation of a candidate.
struct Region<'t> {
    arena: &'t Arena,
    graph: &'t Graph<'t>,
    channels: &'t [Digit],
    samples: usize,
    width: usize,
    leaf: Id,
    known: HashMap<Id, Field>,
    /// The constants along the channels: operation, constant, whether it came first.
    vectors: Vec<Vector>,
    visited: usize,
}

impl<'t> Region<'t> {
    fn run(
        arena: &'t Arena,
        graph: &'t Graph<'t>,
        channels: &'t [Digit],
        (leaf, samples, values): (Id, usize, Vec<f64>),
        y: Id,
    ) -> Option<(Vec<f64>, Vec<Vector>)> {
        let width = values.len() / samples.max(1);
        let field = Field { by_sample: true, by_channel: true, data: values };
        let mut region = Region {
            arena,
            graph,
            channels,
            samples,
            width,
            leaf,
            known: HashMap::from([(leaf, field)]),
            vectors: Vec::new(),
            visited: 0,
        };
        let y = region.value(y, 0)?;
        let spread = (0..samples * width).map(|at| y.data[region.index(&y, at)]).collect();
        Some((spread, region.vectors))
    }

    fn index(&self, field: &Field, at: usize) -> usize {
        let (sample, channel) = (at / self.width, at % self.width);
        match (field.by_sample, field.by_channel) {
            (true, true) => at,
            (true, false) => sample,
            (false, true) => channel,
            (false, false) => 0,
        }
    }

    fn value(&mut self, id: Id, depth: usize) -> Option<Field> {
        if let Some(field) = self.known.get(&id) {
            return Some(field.clone());
        }
        self.visited += 1;
        if self.visited > MAX_REGION || depth > MAX_REGION || id < self.leaf {
            return None;
        }
        let field = match self.arena.op(id) {
            Op::Function { name, x } => {
                let mut x = self.value(*x, depth + 1)?;
                for value in &mut x.data {
                    *value = function(name, *value)?;
                }
                x
            }
            Op::Two { op, a, b } => {
                let (a, b) = (self.value(*a, depth + 1)?, self.value(*b, depth + 1)?);
                self.combine(*op, &a, &b)
            }
            Op::Constant { op, x, constant, along, first } => {
                let x = self.value(*x, depth + 1)?;
                let stored = self.arena.get(*constant);
                let c = self.constant(stored, along)?;
                if c.by_channel {
                    self.vectors.push((*op, *constant, *first));
                }
                if *first { self.combine(*op, &c, &x) } else { self.combine(*op, &x, &c) }
            }
            Op::Reduce { over, x, along } => {
                let x = self.value(*x, depth + 1)?;
                self.reduce(*over, &x, along)?
            }
            Op::Norm { x, along, epsilon } if same(along, self.channels) => {
                let x = self.value(*x, depth + 1)?;
                if !x.by_channel {
                    return None;
                }
                let epsilon = f64::from(f32::from_bits(*epsilon));
                let data = x.data.chunks(self.width).flat_map(|row| normalised(row, epsilon));
                Field { data: data.collect(), ..x }
            }
            _ => return None,
        };
        self.known.insert(id, field.clone());
        Some(field)
    }

    fn constant(&self, stored: &Const, along: &[Digit]) -> Option<Field> {
        let values = stored.floats(self.graph).ok()?;
        let by_channel = match values.len() {
            1 => false,
            count => {
                let any = along.iter().all(|digit| digit.kind == Kind::Any);
                if count != self.width || !(any || same(along, self.channels)) {
                    return None;
                }
                true
            }
        };
        let data = values.iter().map(|value| f64::from(*value)).collect();
        Some(Field { by_sample: false, by_channel, data })
    }

    fn combine(&self, op: Two, a: &Field, b: &Field) -> Field {
        let by_sample = a.by_sample || b.by_sample;
        let by_channel = a.by_channel || b.by_channel;
        let mut all = Field { by_sample, by_channel, data: Vec::new() };
        let samples = if by_sample { self.samples } else { 1 };
        let width = if by_channel { self.width } else { 1 };
        for sample in 0..samples {
            for channel in 0..width {
                let at = sample * self.width + channel;
                let (x, y) = (a.data[self.index(a, at)], b.data[self.index(b, at)]);
                all.data.push(match op {
                    Two::Add => x + y,
                    Two::Sub => x - y,
                    Two::Mul => x * y,
                    Two::Div => x / y,
                    Two::Max => x.max(y),
                    Two::Min => x.min(y),
                    Two::Pow => x.powf(y),
                });
            }
        }
        all
    }

    fn reduce(&self, over: Over, x: &Field, along: &[Digit]) -> Option<Field> {
        let of = |values: &mut dyn Iterator<Item = f64>| {
            let (mut sum, mut count) = (0.0, 0.0);
            for value in values {
                sum += match over {
                    Over::Mean | Over::Sum => value,
                    Over::SumSquare | Over::L2 => value * value,
                };
                count += 1.0;
            }
            match over {
                Over::Mean => sum / count,
                Over::Sum | Over::SumSquare => sum,
                Over::L2 => sum.sqrt(),
            }
        };
        let rows = if x.by_sample { self.samples } else { 1 };
        if same(along, self.channels) && x.by_channel {
            let data = (0..rows)
                .map(|row| {
                    of(&mut x.data[row * self.width..(row + 1) * self.width].iter().copied())
                })
                .collect();
            return Some(Field { by_channel: false, data, ..*x });
        }
        let grid = along.iter().all(|digit| matches!(digit.kind, Kind::Row | Kind::Column));
        if grid && !along.is_empty() && x.by_sample {
            let width = if x.by_channel { self.width } else { 1 };
            let data = (0..width)
                .map(|channel| of(&mut (0..rows).map(|row| x.data[row * width + channel])))
                .collect();
            return Some(Field { by_sample: false, data, ..*x });
        }
        None
    }
}

fn function(name: &str, x: f64) -> Option<f64> {
    match name {
        "Gelu" => Some(math::gelu(x)),
        "GeluTanh" => Some(math::gelu_tanh(x)),
        name => math::unary(name, x),
    }
}

fn same(a: &[Digit], b: &[Digit]) -> bool {
    merged(a) == merged(b)
}

fn mean_and_variance(row: &[f64]) -> (f64, f64) {
    let mean = row.iter().sum::<f64>() / row.len() as f64;
    (mean, row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / row.len() as f64)
}

fn normalised(row: &[f64], epsilon: f64) -> Vec<f64> {
    let (mean, variance) = mean_and_variance(row);
    row.iter().map(|v| (v - mean) / (variance + epsilon).sqrt()).collect()
}

/// Values without a pattern, with a mean that is not 0.
fn made_up(count: usize, scale: f64, seed: u64) -> Vec<f64> {
    let mut state = seed;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) as f64 / (1u64 << 31) as f64 * 2.0 - 0.7) * scale
        })
        .collect()
}

fn close(a: &[f64], b: &[f64]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= TOLERANCE * (1.0 + b.abs()))
}

/// The expressions that `y` is made of elementwise and by reductions, nearest first.
fn nearby(arena: &Arena, y: Id) -> Vec<Id> {
    let mut found = vec![y];
    let mut next = 0;
    while next < found.len() && found.len() < MAX_REGION {
        let below = match arena.op(found[next]) {
            Op::Function { x, .. }
            | Op::Constant { x, .. }
            | Op::Reduce { x, .. }
            | Op::Norm { x, .. } => vec![*x],
            Op::Two { a, b, .. } => vec![*a, *b],
            _ => Vec::new(),
        };
        for id in below {
            if !found.contains(&id) {
                found.push(id);
            }
        }
        next += 1;
    }
    found
}

/// The activation function that `y` is, and of what.
pub(super) fn activation(arena: &Arena, graph: &Graph<'_>, y: Id) -> Option<(Activation, Id)> {
    // The only thing that it is not an elementwise function of scalars of.
    let (mut open, mut leaf, mut seen) = (vec![y], None, 0);
    while let Some(id) = open.pop() {
        seen += 1;
        match arena.op(id) {
            Op::Function { x, .. } => open.push(*x),
            Op::Two { a, b, .. } => open.extend([*a, *b]),
            Op::Constant { x, constant, .. } if arena.get(*constant).numel() == 1 => open.push(*x),
            _ if *leaf.get_or_insert(id) == id => {}
            _ => return None,
        }
        if seen > MAX_REGION {
            return None;
        }
    }
    let leaf = leaf.filter(|leaf| *leaf != y)?;
    let points: Vec<f64> = (-50..=50).map(|i| f64::from(i) / 8.0).collect();
    let (values, _) = Region::run(arena, graph, &[], (leaf, 1, points.clone()), y)?;
    let known: [(Activation, Function); 3] = [
        (Activation::Gelu, math::gelu),
        (Activation::GeluTanh, math::gelu_tanh),
        (Activation::Silu, |x| x * math::sigmoid(x)),
    ];
    let matches =
        |f: fn(f64) -> f64| close(&values, &points.iter().map(|x| f(*x)).collect::<Vec<_>>());
    known.into_iter().find(|(_, f)| matches(*f)).map(|(kind, _)| (kind, leaf))
}

/// What reductions below `y` are taken of, with their axes: where a norm may start.
fn starts(arena: &Arena, y: Id) -> Vec<(Id, Vec<Digit>)> {
    let mut starts = Vec::new();
    for id in nearby(arena, y) {
        let (x, along) = match arena.op(id) {
            Op::Reduce { x, along, .. } | Op::Norm { x, along, .. } => (*x, along.clone()),
            _ => continue,
        };
        starts.push((x, along.clone()));
        // The sum of `x * x` starts at `x`.
        match arena.op(x) {
            Op::Two { op: Two::Mul, a, b } if a == b => starts.push((*a, along)),
            Op::Constant { op: Two::Pow, x, .. } => starts.push((*x, along)),
            _ => {}
        }
    }
    starts
}

/// The layer norm that ends in `y`.
pub(super) fn layer_norm(arena: &Arena, graph: &Graph<'_>, y: Id) -> Option<LayerNorm> {
    starts(arena, y).into_iter().find_map(|(x, along)| layer_norm_of(arena, graph, y, x, along))
}

fn layer_norm_of(
    arena: &Arena,
    graph: &Graph<'_>,
    y: Id,
    x: Id,
    along: Vec<Digit>,
) -> Option<LayerNorm> {
    let width: usize = along.iter().map(|digit| digit.extent).product();
    if !(2..=1 << 16).contains(&width) || x == y {
        return None;
    }
    // A row with a tiny variance shows epsilon, one with a large variance checks it.
    let small = made_up(width, 1e-3, 11);
    let (values, vectors) = Region::run(arena, graph, &along, (x, 1, small.clone()), y)?;
    let (mut gamma, mut beta) = (None, None);
    for (op, constant, first) in vectors {
        let role = match (op, first) {
            (Two::Mul, _) => &mut gamma,
            (Two::Add, _) | (Two::Sub, true) => &mut beta,
            _ => return None,
        };
        if *role.get_or_insert(constant) != constant {
            return None;
        }
    }
    let weights = |id: Option<ConstId>, neutral: f64| -> Option<Vec<f64>> {
        match id {
            Some(id) => {
                let values = arena.get(id).floats(graph).ok()?;
                Some(values.iter().map(|value| f64::from(*value)).collect())
            }
            None => Some(vec![neutral; width]),
        }
    };
    let (scale, shift) = (weights(gamma, 1.0)?, weights(beta, 0.0)?);
    let (mean, variance) = mean_and_variance(&small);
    let (mut across, mut total) = (0.0, 0.0);
    for i in 0..width {
        let expected = scale[i] * (small[i] - mean);
        across += (values[i] - shift[i]) * expected;
        total += expected * expected;
    }
    let factor = across / total;
    let epsilon = rounded(1.0 / (factor * factor) - variance);
    if !(1e-12..=0.1).contains(&epsilon) {
        return None;
    }
    for (row, values) in [(small, values), {
        let large = made_up(width, 2.0, 7);
        let (values, _) = Region::run(arena, graph, &along, (x, 1, large.clone()), y)?;
        (large, values)
    }] {
        let expected: Vec<f64> = normalised(&row, epsilon)
            .iter()
            .enumerate()
            .map(|(i, value)| scale[i] * value + shift[i])
            .collect();
        if !close(&values, &expected) {
            return None;
        }
    }
    Some(LayerNorm { x, along, gamma, beta, epsilon })
}

/// The short decimal number that a single precision constant stands for.
fn rounded(value: f64) -> f64 {
    match format!("{value:.2e}").parse::<f64>() {
        Ok(short) if (short - value).abs() <= 1e-3 * value.abs() => short,
        _ => value,
    }
}

/// What `y` is, divided by its length along the returned axes.
pub(super) fn unit_length(arena: &Arena, graph: &Graph<'_>, y: Id) -> Option<(Id, Vec<Digit>)> {
    starts(arena, y).into_iter().find(|(x, along)| {
        let width: usize = along.iter().map(|digit| digit.extent).product();
        if width > 1 << 16 || *x == y {
            return false;
        }
        let row = made_up(width, 2.0, 5);
        let length = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        let expected: Vec<f64> = row.iter().map(|v| v / length).collect();
        Region::run(arena, graph, along, (*x, 1, row), y)
            .is_some_and(|(values, vectors)| vectors.is_empty() && close(&values, &expected))
    })
}

/// The global response norm that ends in `y`.
pub(super) fn response_norm(arena: &Arena, graph: &Graph<'_>, y: Id) -> Option<ResponseNorm> {
    let starts = starts(arena, y);
    let channels = starts
        .iter()
        .map(|(_, along)| along)
        .find(|along| along.iter().all(|digit| digit.kind == Kind::Feature) && !along.is_empty())?;
    let width: usize = channels.iter().map(|digit| digit.extent).product();
    if width > 1 << 16 {
        return None;
    }
    starts.iter().find_map(|(x, _)| {
        let samples = 4;
        let values = made_up(samples * width, 2.0, 3);
        let (found, vectors) =
            Region::run(arena, graph, channels, (*x, samples, values.clone()), y)?;
        let (mut gamma, mut beta) = (None, None);
        for (op, constant, _) in vectors {
            let role = match op {
                Two::Mul => &mut gamma,
                Two::Add => &mut beta,
                _ => return None,
            };
            if *role.get_or_insert(constant) != constant {
                return None;
            }
        }
        let gamma = gamma?;
        let scale = arena.get(gamma).floats(graph).ok()?;
        let shift = match beta {
            Some(beta) => Some(arena.get(beta).floats(graph).ok()?),
            None => None,
        };
        let lengths: Vec<f64> = (0..width)
            .map(|c| (0..samples).map(|s| values[s * width + c].powi(2)).sum::<f64>().sqrt())
            .collect();
        let mean = lengths.iter().sum::<f64>() / width as f64;
        let expected: Vec<f64> = (0..samples * width)
            .map(|at| {
                let c = at % width;
                let shift = shift.as_ref().map_or(0.0, |shift| f64::from(shift[c]));
                values[at] * (1.0 + f64::from(scale[c]) * lengths[c] / (mean + 1e-6)) + shift
            })
            .collect();
        close(&found, &expected).then_some(ResponseNorm { x: *x, gamma, beta })
    })
}
