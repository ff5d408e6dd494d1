//! Attention for `f32`, a block of query rows at a time: the scores of one block live in a buffer
//! of the thread and the full score matrix never exists.
#![allow(unsafe_code)]

use std::cell::RefCell;

use candle_core::{CpuStorage, Layout, Result, bail};
use rayon::prelude::*;

use super::super::activation::cpu::exp;

/// Query rows per task: a block's scores (64 x 784 values) stay in the second-level cache.
const BLOCK: usize = 64;
/// Sums and maxima are kept in this many lanes so that they vectorise.
const LANES: usize = 16;

/// A strided `(b, h, n, d)` view whose every address was checked to lie inside its values.
pub(super) struct View<'a> {
    values: &'a [f32],
    dims: [usize; 4],
    strides: [usize; 4],
    start: usize,
}

impl<'a> View<'a> {
    pub(super) fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let CpuStorage::F32(values) = storage else { bail!("expected f32 values") };
        let (b, h, n, d) = layout.shape().dims4()?;
        let dims = [b, h, n, d];
        let strides: [usize; 4] = match layout.stride().try_into() {
            Ok(strides) => strides,
            Err(_) => bail!("expected four strides"),
        };
        let start = layout.start_offset();
        if dims.iter().all(|dim| *dim > 0) {
            let last: usize =
                dims.iter().zip(&strides).map(|(dim, stride)| (dim - 1) * stride).sum();
            if start + last >= values.len() {
                bail!("a view reaches past its values");
            }
        }
        Ok(Self { values, dims, strides, start })
    }

    /// A pointer to the first value of row `row` of batch entry `b` and head `h`.
    fn row(&self, b: usize, h: usize, row: usize) -> *const f32 {
        let offset = b * self.strides[0] + h * self.strides[1] + row * self.strides[2];
        self.values[self.start + offset..].as_ptr()
    }

    fn row_stride(&self) -> isize {
        self.strides[2] as isize
    }

    fn column_stride(&self) -> isize {
        self.strides[3] as isize
    }
}

pub(super) struct Views<'a> {
    pub(super) q: View<'a>,
    pub(super) k: View<'a>,
    pub(super) v: View<'a>,
}

/// The output, shared by tasks that write disjoint rows of it.
#[derive(Clone, Copy)]
struct Output(*mut f32);
// SAFETY: every task writes its own rows of its own head; see `block`.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

thread_local! {
    static SCORES: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

pub(super) fn forward(views: &Views<'_>, scale: f32, bias: Option<&[f32]>) -> Vec<f32> {
    let [b, h, n, d] = views.q.dims;
    let m = views.k.dims[2];
    let mut out = vec![0f32; b * n * h * d];
    if out.is_empty() || m == 0 {
        return out;
    }
    let blocks = n.div_ceil(BLOCK);
    let output = Output(out.as_mut_ptr());
    (0..b * h * blocks).into_par_iter().for_each(|task| {
        let (pair, from) = (task / blocks, task % blocks * BLOCK);
        let rows = BLOCK.min(n - from);
        let (entry, head) = (pair / h, pair % h);
        let bias = bias.map(|bias| {
            let entries = bias.len() / (h * n * m);
            let start = ((entry % entries * h + head) * n + from) * m;
            &bias[start..start + rows * m]
        });
        SCORES.with_borrow_mut(|scores| {
            scores.resize(rows * m, 0.0);
            block(views, scale, bias, scores, output, Block { entry, head, from, rows });
        });
    });
    out
}

struct Block {
    entry: usize,
    head: usize,
    from: usize,
    rows: usize,
}

fn block(
    views: &Views<'_>,
    scale: f32,
    bias: Option<&[f32]>,
    scores: &mut [f32],
    output: Output,
    block: Block,
) {
    let Block { entry, head, from, rows } = block;
    let [_, h, n, d] = views.q.dims;
    let m = views.k.dims[2];
    // SAFETY: `View::new` checked that every address of the views lies inside their values, the
    // shapes of `k` and `v` were compared with `q` by the caller, and `scores` holds rows x m.
    unsafe {
        product(
            (rows, m, d),
            (scores.as_mut_ptr(), m as isize),
            (views.q.row(entry, head, from), views.q.row_stride(), views.q.column_stride()),
            (views.k.row(entry, head, 0), views.k.column_stride(), views.k.row_stride()),
            scale,
        );
    }
    if let Some(bias) = bias {
        scores.iter_mut().zip(bias).for_each(|(score, bias)| *score += bias);
    }
    for row in scores.chunks_exact_mut(m) {
        softmax(row);
    }
    let row_length = h * d;
    // SAFETY: rows `from..from + rows` of this entry and head, at stride h * d, lie inside the
    // b * n * h * d values of the output, and no other task writes them.
    unsafe {
        let out = output.0.add((entry * n + from) * row_length + head * d);
        product(
            (rows, d, m),
            (out, row_length as isize),
            (scores.as_ptr(), m as isize, 1),
            (views.v.row(entry, head, 0), views.v.row_stride(), views.v.column_stride()),
            1.0,
        );
    }
}

/// `dst = scale * lhs * rhs` with `(m, n, k)` sizes and `(pointer, row stride, column stride)`.
///
/// # Safety
/// All addresses that the sizes and strides reach must be valid, and `dst` must not overlap.
unsafe fn product(
    (m, n, k): (usize, usize, usize),
    (dst, dst_rows): (*mut f32, isize),
    (lhs, lhs_rows, lhs_columns): (*const f32, isize, isize),
    (rhs, rhs_rows, rhs_columns): (*const f32, isize, isize),
    scale: f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst,
            1,
            dst_rows,
            false,
            lhs,
            lhs_columns,
            lhs_rows,
            rhs,
            rhs_columns,
            rhs_rows,
            0.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

fn softmax(row: &mut [f32]) {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for chunk in row.chunks(LANES) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = lane.max(*x);
        }
    }
    let max = lanes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut lanes = [0f32; LANES];
    for chunk in row.chunks_mut(LANES) {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *x = exp(*x - max);
            *lane += *x;
        }
    }
    let scale = 1.0 / lanes.iter().sum::<f32>();
    row.iter_mut().for_each(|x| *x *= scale);
}
