//! One head's queries, keys and values: where they are, and keys and values packed.

use super::{Call, Sizes, View};
use crate::kernels::cpu::{Aligned, Engine, Line, MAX_COLS, MAX_DEPTH, NormArgs, Product, Simd};

/// How many tokens ahead rows are fetched.
const FETCH: usize = 12;

/// One head of one window of one batch entry.
#[derive(Clone, Copy)]
pub(super) struct Head<'a> {
    pub(super) call: &'a Call<'a>,
    pub(super) sizes: Sizes,
    /// Which one, in the order of entries, windows, heads.
    pub(super) pair: usize,
}

impl Head<'_> {
    pub(super) fn entry(&self) -> usize {
        self.pair / (self.sizes.windows * self.sizes.heads)
    }

    pub(super) fn window(&self) -> usize {
        self.pair / self.sizes.heads % self.sizes.windows
    }

    pub(super) fn head(&self) -> usize {
        self.pair % self.sizes.heads
    }

    /// Where a token's row of `view` is, of queries or of the keys and values that they share.
    fn row(&self, view: &View<'_>, token: usize) -> usize {
        let head = self.head() * view.dims[1] / self.sizes.heads;
        view.row(self.entry(), head, token)
    }

    /// The token at place `i` of the window.
    pub(super) fn token(&self, i: usize) -> usize {
        match self.call.windows {
            Some(index) => index[self.window() * self.sizes.n + i] as usize,
            None => i,
        }
    }

    /// Reads a query or key, normalised and rotated.
    #[inline(always)]
    pub(super) unsafe fn read<S: Simd>(
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
            // Rows of a head lie far apart: the processor does not fetch them by itself.
            if i + FETCH < self.sizes.n.max(self.sizes.m) {
                view.values.fetch::<S>(self.row(view, self.token(i + FETCH)), d);
            }
            view.values.read::<S>(self.row(view, token), d, out);
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

    /// Packs the keys: a panel for each `COLS` of them.
    #[inline(always)]
    unsafe fn pack_keys<E: Engine>(&self, lines: &mut [Line]) {
        let Sizes { m, d, .. } = self.sizes;
        let norm = self.call.norms.map(|norms| norms.1);
        let chunks = d.div_ceil(E::DEPTH);
        let width = chunks * E::DEPTH;
        let mut rows = vec![0f32; E::COLS * width];
        for (panel, lines) in lines.chunks_exact_mut(E::right_lines(chunks)).enumerate() {
            let count = E::COLS.min(m - panel * E::COLS);
            for (column, row) in rows.chunks_exact_mut(width).enumerate() {
                if column < count {
                    let key = panel * E::COLS + column;
                    // SAFETY: keys below `m`.
                    unsafe { self.read::<E::S>(&self.call.k, norm, key, row.as_mut_ptr()) };
                } else {
                    row.fill(0.0);
                }
            }
            for (chunk, lines) in lines.chunks_exact_mut(E::PLANES * E::COLS).enumerate() {
                // SAFETY: a chunk of lines; `rows` has whole chunks of that many rows.
                unsafe {
                    let rows = rows.as_ptr().add(chunk * E::DEPTH);
                    E::put_transposed(rows, width, lines.as_mut_ptr());
                }
            }
        }
    }
}

/// Packs the keys and values that a head looks at: keys are the columns of the first product, values the rows
/// of the second.
pub(super) struct Pack<'a> {
    pub(super) head: Head<'a>,
    pub(super) lines: &'a mut [Line],
}

impl Product for Pack<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<E: Engine>(self) {
        let Self { head, lines } = self;
        let Sizes { m, d, keys, .. } = head.sizes;
        let call = head.call;
        let (key_lines, value_lines) = lines.split_at_mut(keys);
        // SAFETY: `Measure` sized the lines for the same engine.
        unsafe {
            if call.exact {
                head.pack_keys::<E::Exact>(key_lines);
            } else {
                head.pack_keys::<E>(key_lines);
            }
        }
        let mut columns = Aligned([0f32; MAX_DEPTH * MAX_COLS]);
        let columns = &mut columns.0;
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
                            if key + FETCH < m {
                                let at = head.row(&call.v, head.token(key + FETCH));
                                call.v.values.fetch::<E::S>(at + first, count);
                            }
                            let at = head.row(&call.v, head.token(key));
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
