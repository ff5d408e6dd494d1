//! Attention on the CPU without a score matrix: keys are taken in blocks, and what was summed so
//! far is scaled down when a later block has a larger score (online softmax, Milakov and
//! Gimelshein, arXiv 1805.02867; FlashAttention, arXiv 2205.14135).

mod pack;
mod rows;

use rayon::prelude::*;

use self::pack::{Head, Pack};
use self::rows::{Rows, Scratch};
use super::super::cpu::{
    Engine, Format, Isa, Line, NormArgs, Product, Sink, Values, part, run_product, with_lines,
};

/// Keys of one block: a multiple of every engine's columns and depth. The scores of a panel of rows
/// stay in the first-level cache.
const BLOCK: usize = 416;
/// With fewer heads of keys for each thread, the rows of a head are shared between threads.
const HEADS_PER_THREAD: usize = 3;

/// A `(b, h, n, d)` view with contiguous rows whose every address lies inside its values.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    values: Values<'a>,
    dims: [usize; 4],
    strides: [usize; 3],
    start: usize,
}

impl<'a> View<'a> {
    /// `None` if rows are not contiguous or an address lies outside.
    pub(super) fn new(
        values: Values<'a>,
        dims: [usize; 4],
        strides: [usize; 4],
        start: usize,
    ) -> Option<Self> {
        let [b, h, n, d] = strides;
        let view = Self { values, dims, strides: [b, h, n], start };
        if dims.contains(&0) {
            return Some(view);
        }
        let last: usize = dims.iter().zip(&strides).map(|(dim, stride)| (dim - 1) * stride).sum();
        ((d == 1 || dims[3] == 1) && start + last < values.len()).then_some(view)
    }

    fn row(&self, b: usize, h: usize, row: usize) -> usize {
        self.start + b * self.strides[0] + h * self.strides[1] + row * self.strides[2]
    }
}

/// Rotary positions; see the module above.
#[derive(Clone, Copy)]
pub(super) struct Rotation<'a> {
    pub(super) sin: &'a [f32],
    pub(super) cos: &'a [f32],
    pub(super) prefix: usize,
}

/// One call; see the module above for the meaning of each part.
pub(super) struct Call<'a> {
    pub(super) isa: Isa,
    pub(super) format: Format,
    /// Whether products of queries and keys may lose no more than those of `f32` numbers.
    pub(super) exact: bool,
    pub(super) q: View<'a>,
    pub(super) k: View<'a>,
    pub(super) v: View<'a>,
    /// One factor for each head.
    pub(super) scale: &'a [f32],
    pub(super) norms: Option<(NormArgs<'a>, NormArgs<'a>)>,
    pub(super) rotation: Option<Rotation<'a>>,
    /// `(h, n, m)`.
    pub(super) bias: Option<&'a [f32]>,
    /// `(windows, n)` tokens.
    pub(super) windows: Option<&'a [u32]>,
    /// Tokens of a window; `n` without windows.
    pub(super) length: usize,
    /// `(windows, n)` regions, as numbers.
    pub(super) regions: Option<&'a [f32]>,
    /// Whether a row sees no keys behind its own.
    pub(super) causal: bool,
    /// `(b, tokens, h, d)`.
    pub(super) out: Sink,
}

/// The sizes of a call: windows, queries and keys of one window, and what packing them takes.
#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
    /// Heads of queries for each head of keys and values.
    group: usize,
    windows: usize,
    n: usize,
    m: usize,
    d: usize,
    /// Lines of all packed keys and values of one head.
    keys: usize,
    values: usize,
    /// Lines of everything a thread needs for a panel of rows.
    scratch: usize,
    rows: usize,
}

struct Measure<'a>(&'a Call<'a>);

impl Product for Measure<'_> {
    type Output = Sizes;

    #[inline(always)]
    unsafe fn run<E: Engine>(self) -> Sizes {
        let call = self.0;
        let [_, heads, tokens, d] = call.q.dims;
        let (windows, n, m) = match call.windows {
            Some(index) => (index.len() / call.length, call.length, call.length),
            None => (1, tokens, call.k.dims[2]),
        };
        let chunks = d.div_ceil(E::DEPTH);
        Sizes {
            heads,
            group: heads / call.k.dims[1],
            windows,
            n,
            m,
            d,
            keys: m.div_ceil(E::COLS)
                * if call.exact { E::Exact::right_lines(chunks) } else { E::right_lines(chunks) },
            values: d.div_ceil(E::COLS) * E::right_lines(m.div_ceil(E::DEPTH)),
            scratch: Scratch::lines::<E>(d),
            rows: E::ROWS,
        }
    }
}

impl Call<'_> {
    /// Computes all rows on all threads.
    pub(super) fn run(&self) {
        let [b, heads, tokens, d] = self.q.dims;
        let [_, key_heads, m, _] = self.k.dims;
        assert_eq!(self.out.len(), b * heads * tokens * d, "room for the result");
        assert!(self.k.dims == [b, key_heads, m, d] && self.v.dims == self.k.dims);
        assert!(heads.is_multiple_of(key_heads) && (tokens <= m || !self.causal));
        assert!(self.scale.len() == heads && self.length > 0 || tokens == 0);
        if let Some(index) = self.windows {
            assert!(m == tokens && index.len() == tokens && tokens.is_multiple_of(self.length));
            assert!(index.iter().all(|token| (*token as usize) < tokens));
        }
        let columns = if self.windows.is_some() { self.length } else { m };
        assert!(self.bias.is_none_or(|bias| bias.len() == heads * self.length * columns));
        assert!(self.regions.is_none_or(|regions| regions.len() == tokens));
        if let Some((q, k)) = &self.norms {
            assert!([q.weight, q.bias, k.weight, k.bias].iter().all(|values| values.len() == d));
        }
        if b * heads * tokens * d == 0 || self.k.dims[2] == 0 {
            return;
        }
        let sizes = run_product(self.isa, self.format, Measure(self));
        let group = sizes.group;
        // Heads of keys of all windows and entries. The heads of queries that share one are neighbours.
        let pairs = b * sizes.windows * key_heads;
        let panels = sizes.n.div_ceil(sizes.rows);
        let packed = sizes.keys + sizes.values;
        let threads = rayon::current_num_threads();
        if pairs >= threads * HEADS_PER_THREAD || threads == 1 {
            (0..pairs).into_par_iter().with_max_len(1).for_each(|pair| {
                with_lines(packed + sizes.scratch, |lines| {
                    let (packed, scratch) = lines.split_at_mut(packed);
                    let head = |i| Head { call: self, sizes, pair: pair * group + i };
                    let pack = Pack { head: head(0), lines: packed };
                    run_product(self.isa, self.format, pack);
                    for i in 0..group {
                        let packed = &*packed;
                        let rows = Rows {
                            head: head(i),
                            packed,
                            scratch: &mut *scratch,
                            panels: 0..panels,
                        };
                        run_product(self.isa, self.format, rows);
                    }
                });
            });
            return;
        }
        let mut lines = vec![Line::ZERO; packed * pairs];
        lines.par_chunks_mut(packed).with_max_len(1).enumerate().for_each(|(pair, lines)| {
            let head = Head { call: self, sizes, pair: pair * group };
            run_product(self.isa, self.format, Pack { head, lines });
        });
        let heads = pairs * group;
        let parts = (threads * 4).div_ceil(heads).min(panels);
        (0..heads * parts).into_par_iter().with_max_len(1).for_each(|task| {
            let (pair, panels) = (task / parts, part(panels, parts, task % parts));
            with_lines(sizes.scratch, |scratch| {
                let head = Head { call: self, sizes, pair };
                let packed = &lines[pair / group * packed..][..packed];
                run_product(self.isa, self.format, Rows { head, packed, scratch, panels });
            });
        });
    }
}
