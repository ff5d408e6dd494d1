//! Attention on the CPU without a score matrix: keys are taken in blocks, and what was summed so
//! far is scaled down when a later block has a larger score (online softmax, Milakov and
//! Gimelshein, arXiv 1805.02867; FlashAttention, arXiv 2205.14135).

use rayon::prelude::*;

use super::super::cpu::{
    Engine, Format, Isa, Line, MAX_COLS, MAX_DEPTH, MAX_LANES, MAX_ROWS, NormArgs, Product, Simd,
    Sink, Values, math, part, run_product, with_lines,
};

/// Keys of one block: a multiple of every engine's columns and depth. The scores of a panel of rows
/// stay in the first-level cache.
const BLOCK: usize = 256;
/// With fewer heads for each thread, the rows of a head are shared between threads.
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
    /// `(b, tokens, h, d)`.
    pub(super) out: Sink,
}

/// The sizes of a call: windows, queries and keys of one window, and what packing them takes.
#[derive(Clone, Copy)]
struct Sizes {
    heads: usize,
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
            windows,
            n,
            m,
            d,
            keys: m.div_ceil(E::COLS) * E::right_lines(chunks),
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
        let m = self.k.dims[2];
        assert_eq!(self.out.len(), b * heads * tokens * d, "room for the result");
        assert!(self.k.dims == [b, heads, m, d] && self.v.dims == self.k.dims);
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
        let pairs = b * sizes.windows * heads;
        let panels = sizes.n.div_ceil(sizes.rows);
        let packed = sizes.keys + sizes.values;
        let threads = rayon::current_num_threads();
        if pairs >= threads * HEADS_PER_THREAD || threads == 1 {
            (0..pairs).into_par_iter().with_max_len(1).for_each(|pair| {
                with_lines(packed + sizes.scratch, |lines| {
                    let (packed, scratch) = lines.split_at_mut(packed);
                    let head = Head { call: self, sizes, pair };
                    run_product(self.isa, self.format, Pack { head, lines: packed });
                    run_product(
                        self.isa,
                        self.format,
                        Rows { head, packed, scratch, panels: 0..panels },
                    );
                });
            });
            return;
        }
        let mut lines = vec![Line::ZERO; packed * pairs];
        lines.par_chunks_mut(packed).with_max_len(1).enumerate().for_each(|(pair, lines)| {
            run_product(
                self.isa,
                self.format,
                Pack { head: Head { call: self, sizes, pair }, lines },
            );
        });
        let parts = (threads * 4).div_ceil(pairs).min(panels);
        (0..pairs * parts).into_par_iter().with_max_len(1).for_each(|task| {
            let (pair, panels) = (task / parts, part(panels, parts, task % parts));
            with_lines(sizes.scratch, |scratch| {
                let head = Head { call: self, sizes, pair };
                let packed = &lines[pair * packed..(pair + 1) * packed];
                run_product(self.isa, self.format, Rows { head, packed, scratch, panels });
            });
        });
    }
}

/// One head of one window of one batch entry.
#[derive(Clone, Copy)]
struct Head<'a> {
    call: &'a Call<'a>,
    sizes: Sizes,
    pair: usize,
}

impl Head<'_> {
    fn entry(&self) -> usize {
        self.pair / (self.sizes.windows * self.sizes.heads)
    }

    fn window(&self) -> usize {
        self.pair / self.sizes.heads % self.sizes.windows
    }

    fn head(&self) -> usize {
        self.pair % self.sizes.heads
    }

    /// The token at place `i` of the window.
    fn token(&self, i: usize) -> usize {
        match self.call.windows {
            Some(index) => index[self.window() * self.sizes.n + i] as usize,
            None => i,
        }
    }

    /// Reads a query or key, normalised and rotated.
    #[inline(always)]
    unsafe fn read<S: Simd>(
        &self,
        view: &View<'_>,
        norm: Option<NormArgs<'_>>,
        i: usize,
        out: *mut f32,
    ) {
        let d = self.sizes.d;
        let token = self.token(i);
        // SAFETY: `View::new` checked the addresses; `out` has room for `d` values.
        unsafe {
            view.values.read::<S>(view.row(self.entry(), self.head(), token), d, out);
            if let Some(norm) = norm {
                norm.apply::<S>(out);
            }
            if let Some(rotation) = self.call.rotation.filter(|r| token >= r.prefix) {
                let at = (token - rotation.prefix) * d;
                let (sin, cos) = (&rotation.sin[at..at + d], &rotation.cos[at..at + d]);
                let row = std::slice::from_raw_parts_mut(out, d);
                for ((x, sin), cos) in
                    row.chunks_exact_mut(2).zip(sin.chunks_exact(2)).zip(cos.chunks_exact(2))
                {
                    let (even, odd) = (x[0], x[1]);
                    x[0] = even * cos[0] - odd * sin[0];
                    x[1] = odd * cos[1] + even * sin[1];
                }
            }
        }
    }
}

/// Packs the keys and values of a head: keys are the columns of the first product, values the rows
/// of the second.
struct Pack<'a> {
    head: Head<'a>,
    lines: &'a mut [Line],
}

#[repr(align(64))]
struct Columns([f32; MAX_DEPTH * MAX_COLS]);

impl Product for Pack<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<E: Engine>(self) {
        let Self { head, lines } = self;
        let Sizes { m, d, keys, .. } = head.sizes;
        let call = head.call;
        let (key_lines, value_lines) = lines.split_at_mut(keys);
        let mut columns = Columns([0f32; MAX_DEPTH * MAX_COLS]);
        let columns = &mut columns.0;
        let chunks = d.div_ceil(E::DEPTH);
        let key_norm = call.norms.map(|norms| norms.1);
        let width = chunks * E::DEPTH;
        let mut rows = vec![0f32; E::COLS * width];
        for (panel, lines) in key_lines.chunks_exact_mut(E::right_lines(chunks)).enumerate() {
            let count = E::COLS.min(m - panel * E::COLS);
            for (column, row) in rows.chunks_exact_mut(width).enumerate() {
                if column < count {
                    // SAFETY: keys below `m`.
                    unsafe {
                        head.read::<E::S>(
                            &call.k,
                            key_norm,
                            panel * E::COLS + column,
                            row.as_mut_ptr(),
                        );
                    }
                } else {
                    row.fill(0.0);
                }
            }
            for (chunk, lines) in lines.chunks_exact_mut(E::PLANES * E::COLS).enumerate() {
                for column in 0..E::COLS {
                    let row = &rows[column * width + chunk * E::DEPTH..][..E::DEPTH];
                    for (i, value) in row.iter().enumerate() {
                        columns[i * E::COLS + column] = *value;
                    }
                }
                // SAFETY: a chunk of lines.
                unsafe { E::put_columns(columns.as_ptr(), lines.as_mut_ptr()) };
            }
        }
        let chunks = m.div_ceil(E::DEPTH);
        for (panel, lines) in value_lines.chunks_exact_mut(E::right_lines(chunks)).enumerate() {
            let first = panel * E::COLS;
            let count = E::COLS.min(d - first);
            columns.fill(0.0);
            for (chunk, lines) in lines.chunks_exact_mut(E::PLANES * E::COLS).enumerate() {
                for i in 0..E::DEPTH {
                    let key = chunk * E::DEPTH + i;
                    let to = columns[i * E::COLS..].as_mut_ptr();
                    // SAFETY: keys below `m`, `count` of their values; a chunk of lines.
                    unsafe {
                        if key < m {
                            let at = call.v.row(head.entry(), head.head(), head.token(key));
                            call.v.values.read::<E::S>(at + first, count, to);
                        } else {
                            std::ptr::write_bytes(to, 0, E::COLS);
                        }
                    }
                }
                // SAFETY: as above.
                unsafe { E::put_columns(columns.as_ptr(), lines.as_mut_ptr()) };
            }
        }
    }
}

/// What a panel of rows needs beside the packed keys and values.
struct Scratch {
    /// The packed queries.
    queries: *mut Line,
    /// The packed weights of a block of keys.
    weights: *mut Line,
    /// `ROWS` rows of `BLOCK` scores.
    scores: *mut f32,
    /// `ROWS` rows of the result, `width` values each.
    sums: *mut f32,
    /// A row of queries.
    row: *mut f32,
    width: usize,
}

impl Scratch {
    fn lines<E: Engine>(d: usize) -> usize {
        let chunks = d.div_ceil(E::DEPTH);
        E::left_lines(chunks)
            + E::left_lines(BLOCK / E::DEPTH)
            + E::ROWS * BLOCK / 16
            + (E::ROWS + 1) * (d.next_multiple_of(MAX_COLS) / 16)
    }

    unsafe fn new<E: Engine>(d: usize, lines: *mut Line) -> Self {
        let width = d.next_multiple_of(MAX_COLS);
        // SAFETY: the sizes add up to `lines`.
        unsafe {
            let weights = lines.add(E::left_lines(d.div_ceil(E::DEPTH)));
            let scores = weights.add(E::left_lines(BLOCK / E::DEPTH));
            let sums = scores.add(E::ROWS * BLOCK / 16);
            let row = sums.add(E::ROWS * width / 16);
            let (scores, sums, row) = (scores.cast(), sums.cast(), row.cast());
            Self { queries: lines, weights, scores, sums, row, width }
        }
    }
}

/// Computes panels of rows of a head.
struct Rows<'a> {
    head: Head<'a>,
    packed: &'a [Line],
    scratch: &'a mut [Line],
    panels: std::ops::Range<usize>,
}

#[repr(align(64))]
struct Tile([f32; MAX_ROWS * MAX_COLS]);

impl Product for Rows<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<E: Engine>(self) {
        let d = self.head.sizes.d;
        // SAFETY: `Measure` sized the scratch; the packed lines hold all keys and values.
        unsafe {
            let scratch = Scratch::new::<E>(d, self.scratch.as_mut_ptr());
            let (keys, values) = self.packed.split_at(self.head.sizes.keys);
            E::enter();
            for panel in self.panels {
                self.head.panel::<E>(panel * E::ROWS, keys.as_ptr(), values.as_ptr(), &scratch);
            }
            E::leave();
        }
    }
}

impl Head<'_> {
    /// Computes `ROWS` rows from `first` on.
    #[inline(always)]
    unsafe fn panel<E: Engine>(
        &self,
        first: usize,
        keys: *const Line,
        values: *const Line,
        scratch: &Scratch,
    ) {
        let Sizes { n, m, d, .. } = self.sizes;
        let rows = E::ROWS.min(n - first);
        let mut largest = [f32::NEG_INFINITY; MAX_ROWS];
        let mut total = [0f32; MAX_ROWS];
        let mut tile = Tile([0f32; MAX_ROWS * MAX_COLS]);
        let tile = tile.0.as_mut_ptr();
        let lanes = <E::S as Simd>::LANES;
        // SAFETY: rows below `n`, keys below `m`, and the sizes of the packed lines.
        unsafe {
            self.queries::<E>(first, rows, scratch);
            for i in 0..E::ROWS * scratch.width {
                *scratch.sums.add(i) = 0.0;
            }
            let depth_chunks = d.div_ceil(E::DEPTH);
            let all_chunks = m.div_ceil(E::DEPTH);
            for block in (0..m).step_by(BLOCK) {
                let count = BLOCK.min(m - block);
                for panel in 0..count.div_ceil(E::COLS) {
                    let key = keys.add((block / E::COLS + panel) * E::right_lines(depth_chunks));
                    E::tile(scratch.queries, key, depth_chunks, tile);
                    for row in 0..rows {
                        for at in (0..E::COLS).step_by(lanes) {
                            let v = E::S::load(tile.add(row * E::COLS + at));
                            E::S::store(scratch.scores.add(row * BLOCK + panel * E::COLS + at), v);
                        }
                    }
                }
                for row in 0..rows {
                    let scores = scratch.scores.add(row * BLOCK);
                    self.add_bias::<E::S>(first + row, block, count, scores);
                    let factor = soften::<E::S>(scores, count, &mut largest[row], &mut total[row]);
                    let sums = scratch.sums.add(row * scratch.width);
                    if block > 0 {
                        let factor = E::S::splat(factor);
                        for at in (0..d).step_by(lanes) {
                            let sum = sums.add(at);
                            E::S::store(sum, E::S::mul(E::S::load(sum), factor));
                        }
                    }
                    for chunk in 0..count.div_ceil(E::DEPTH) {
                        let to = scratch.weights.add(chunk * E::PLANES * E::ROWS);
                        E::put_row(scores.add(chunk * E::DEPTH), to, row);
                    }
                }
                for panel in 0..d.div_ceil(E::COLS) {
                    let value = values
                        .add(panel * E::right_lines(all_chunks))
                        .add(block / E::DEPTH * E::PLANES * E::COLS);
                    E::tile(scratch.weights, value, count.div_ceil(E::DEPTH), tile);
                    for row in 0..rows {
                        for at in (0..E::COLS).step_by(lanes) {
                            let sum = scratch.sums.add(row * scratch.width + panel * E::COLS + at);
                            let v = E::S::load(tile.add(row * E::COLS + at));
                            E::S::store(sum, E::S::add(E::S::load(sum), v));
                        }
                    }
                }
            }
            let tokens = self.call.q.dims[2];
            for (row, total) in total.iter().enumerate().take(rows) {
                let scale = E::S::splat(1.0 / total);
                let token = self.entry() * tokens + self.token(first + row);
                let start = (token * self.sizes.heads + self.head()) * d;
                for at in (0..d).step_by(lanes) {
                    let v = E::S::load(scratch.sums.add(row * scratch.width + at));
                    self.call.out.write::<E::S>(start + at, E::S::mul(v, scale), lanes.min(d - at));
                }
            }
        }
    }

    /// Packs `rows` queries from `first` on.
    #[inline(always)]
    unsafe fn queries<E: Engine>(&self, first: usize, rows: usize, scratch: &Scratch) {
        let d = self.sizes.d;
        let chunks = d.div_ceil(E::DEPTH);
        let lanes = <E::S as Simd>::LANES;
        let norm = self.call.norms.map(|norms| norms.0);
        // SAFETY: rows below `n`; the row has room for `width` values.
        unsafe {
            let scale = E::S::splat(self.call.scale[self.head()]);
            for i in 0..scratch.width {
                *scratch.row.add(i) = 0.0;
            }
            for row in 0..E::ROWS {
                if row < rows {
                    self.read::<E::S>(&self.call.q, norm, first + row, scratch.row);
                }
                for at in (0..d).step_by(lanes) {
                    let to = scratch.row.add(at);
                    E::S::store(to, E::S::mul(E::S::load(to), scale));
                }
                for chunk in 0..chunks {
                    let to = scratch.queries.add(chunk * E::PLANES * E::ROWS);
                    E::put_row(scratch.row.add(chunk * E::DEPTH), to, row);
                }
            }
        }
    }

    /// Adds the bias, and separates regions.
    #[inline(always)]
    unsafe fn add_bias<S: Simd>(&self, i: usize, block: usize, count: usize, scores: *mut f32) {
        let Sizes { n, m, .. } = self.sizes;
        // SAFETY: `bias` has n x m values for each head, `regions` n for each window.
        unsafe {
            if let Some(bias) = self.call.bias {
                let bias = bias.as_ptr().add((self.head() * n + i) * m + block);
                for at in (0..count).step_by(S::LANES) {
                    let to = scores.add(at);
                    let v = if count - at >= S::LANES {
                        S::load(bias.add(at))
                    } else {
                        S::load_part(bias.add(at), count - at)
                    };
                    S::store(to, S::add(S::load(to), v));
                }
            }
            if let Some(regions) = self.call.regions {
                let regions = regions.as_ptr().add(self.window() * n);
                let own = S::splat(*regions.add(i));
                let (limit, masked) = (S::splat(0.25), S::splat(super::MASKED));
                for at in (0..count).step_by(S::LANES) {
                    let to = scores.add(at);
                    let left = S::LANES.min(count - at);
                    let distance = S::sub(S::load_part(regions.add(block + at), left), own);
                    let score = S::load(to);
                    let same = S::mul(distance, distance);
                    S::store(to, S::if_less(same, limit, score, S::add(score, masked)));
                }
            }
        }
    }
}

/// Turns `count` scores into `e^(score - largest)`, zeros behind them, and keeps the largest score
/// and the sum of all blocks. Gives the factor for what was summed with the former largest score.
#[inline(always)]
unsafe fn soften<S: Simd>(
    scores: *mut f32,
    count: usize,
    largest: &mut f32,
    total: &mut f32,
) -> f32 {
    // SAFETY: the caller has BLOCK scores, and lanes divide BLOCK.
    unsafe {
        for i in count..count.next_multiple_of(MAX_DEPTH) {
            *scores.add(i) = f32::NEG_INFINITY;
        }
        let mut high = S::splat(*largest);
        for at in (0..count).step_by(S::LANES) {
            high = S::max(high, S::load(scores.add(at)));
        }
        let high = S::largest(high);
        // Scores of minus infinity alone would give 0/0.
        let base = S::splat(if high == f32::NEG_INFINITY { 0.0 } else { high });
        let mut sums = S::splat(0.0);
        for at in (0..count.next_multiple_of(MAX_DEPTH)).step_by(S::LANES) {
            let weight = math::exp::<S>(S::sub(S::load(scores.add(at)), base));
            sums = S::add(sums, weight);
            S::store(scores.add(at), weight);
        }
        let factor =
            if *largest == f32::NEG_INFINITY { 0.0 } else { Exp::of::<S>(*largest - high) };
        *total = *total * factor + S::sum(sums);
        *largest = high;
        factor
    }
}

/// `e^x` of one number, equal to that of a vector's lane.
struct Exp;

impl Exp {
    #[inline(always)]
    unsafe fn of<S: Simd>(x: f32) -> f32 {
        let mut lanes = [0f32; MAX_LANES];
        // SAFETY: the caller's promise of `S`; room for a vector.
        unsafe { S::store(lanes.as_mut_ptr(), math::exp::<S>(S::splat(x))) };
        lanes[0]
    }
}
