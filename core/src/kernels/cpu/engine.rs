//! Products of packed matrices: what linear layers and attention are made of.
//!
//! The left matrix is cut into panels of [`ROWS`](Engine::ROWS) rows, the right one into panels of
//! [`COLS`](Engine::COLS) columns, both along `k` into chunks of [`DEPTH`](Engine::DEPTH) values:
//! what one value of a line (64 bytes) has room for. A chunk of a left panel holds one line for each
//! row, a chunk of a right panel as many lines as columns; what is missing at the edges is zero.
//! Memory is then read from front to back, whatever the strides of the matrices were.
//!
//! An engine that splits its values (one bfloat16 for the upper, one for the lower half of the bits)
//! has two [`PLANES`](Engine::PLANES) in each chunk, one behind the other.

use std::marker::PhantomData;

use super::simd::Simd;

/// 64 bytes, a cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(super) [u8; 64]);

impl Line {
    /// A line of zeros.
    pub(crate) const ZERO: Self = Self([0; 64]);
}

/// Numbers that start on a line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Aligned<const N: usize>(pub(crate) [f32; N]);

/// The largest [`ROWS`](Engine::ROWS) of all engines.
pub(crate) const MAX_ROWS: usize = 32;
/// The largest [`COLS`](Engine::COLS) of all engines.
pub(crate) const MAX_COLS: usize = 32;
/// The largest [`DEPTH`](Engine::DEPTH) of all engines.
pub(crate) const MAX_DEPTH: usize = 32;

/// Lines that a product fetches ahead for each chunk, where an engine does so.
pub(crate) const AHEAD: usize = 4;

/// One way to multiply packed matrices.
///
/// # Safety
/// As for [`Simd`]; lines must be valid for the sizes above.
pub(crate) trait Engine: 'static {
    /// The vectors for what is done before and after the product.
    type S: Simd;
    /// The engine of the same sizes, but for planes, whose products lose no more than those of `f32`
    /// numbers do.
    type Exact: Engine<S = Self::S>;
    /// Rows of a left panel.
    const ROWS: usize;
    /// Columns of a right panel; a multiple of the lanes.
    const COLS: usize;
    /// Values of `k` in one chunk.
    const DEPTH: usize;
    /// Lines of packed rows that stay in the second-level cache beside a panel of columns.
    const CACHED: usize = 6 * 1024;
    /// Lines for each value: 1, or 2 for engines that split values.
    const PLANES: usize;
    /// Whether operands are rounded to bfloat16, so that what computes them need not be better.
    const ROUGH: bool = false;
    /// Whether lines are rows of `f32` numbers, which may be kept as bfloat16 ones until they are used.
    const IS_PLAIN: bool = false;
    /// Chunks of a right panel that stay in the first-level cache while left panels go past them.
    const SLICE: usize = usize::MAX;

    /// Writes `DEPTH` values of one row into its line of a left chunk, which starts at `chunk`.
    unsafe fn put_row(values: *const f32, chunk: *mut Line, row: usize);

    /// Writes `DEPTH` rows of `COLS` values, row-major, as a right chunk.
    unsafe fn put_columns(values: *const f32, chunk: *mut Line);

    /// Writes `COLS` rows of `DEPTH` values, `stride` values apart, as the columns of a right chunk.
    #[inline(always)]
    unsafe fn put_transposed(rows: *const f32, stride: usize, chunk: *mut Line) {
        let mut columns = Aligned([0f32; MAX_DEPTH * MAX_COLS]);
        // SAFETY: the trait's contract; the copy has room for the largest chunk.
        unsafe {
            for column in 0..Self::COLS {
                for i in 0..Self::DEPTH {
                    columns.0[i * Self::COLS + column] = *rows.add(column * stride + i);
                }
            }
            Self::put_columns(columns.0.as_ptr(), chunk);
        }
    }

    /// The product of two panels, `ROWS` rows of `COLS` values; with `onto`, added to what is there.
    /// `ahead` may be fetched meanwhile: a hint, which any address may be.
    unsafe fn tile(
        left: *const Line,
        right: *const Line,
        chunks: usize,
        out: *mut f32,
        onto: bool,
        ahead: *const Line,
    );

    /// Lines of a left panel.
    fn left_lines(chunks: usize) -> usize {
        chunks * Self::PLANES * Self::ROWS
    }

    /// Lines of a right panel.
    fn right_lines(chunks: usize) -> usize {
        chunks * Self::PLANES * Self::COLS
    }

    /// Called by every thread before its first product.
    #[inline(always)]
    unsafe fn enter() {}

    /// Called by every thread after its last product.
    #[inline(always)]
    unsafe fn leave() {}
}

/// Work that is compiled once for every engine; see [`Kernel`](super::Kernel).
pub(crate) trait Product {
    /// What the work gives.
    type Output;

    /// Does the work. Implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The processor has the instructions of `E`.
    unsafe fn run<E: Engine>(self) -> Self::Output;
}

/// Chunks that are summed before they are added to the sum of those before: long sums lose less.
const RUN: usize = 16;

/// Multiplies and adds `f32` vectors, `R` rows at a time: as many sums as the registers hold.
pub(crate) struct Plain<S, const R: usize>(PhantomData<S>);

impl<S: Simd, const R: usize> Engine for Plain<S, R> {
    type S = S;
    type Exact = Self;
    const ROWS: usize = R;
    const COLS: usize = 2 * S::LANES;
    const DEPTH: usize = 16;
    const PLANES: usize = 1;
    const IS_PLAIN: bool = true;

    #[inline(always)]
    unsafe fn put_row(values: *const f32, chunk: *mut Line, row: usize) {
        // SAFETY: the trait's contract: 16 values, a line for each row.
        unsafe {
            std::ptr::copy_nonoverlapping(
                values.cast::<Line>().cast::<u8>(),
                chunk.add(row).cast(),
                64,
            )
        };
    }

    #[inline(always)]
    unsafe fn put_columns(values: *const f32, chunk: *mut Line) {
        // SAFETY: the trait's contract; 16 rows of COLS values are COLS lines.
        unsafe {
            std::ptr::copy_nonoverlapping(values.cast::<u8>(), chunk.cast(), 64 * Self::COLS)
        };
    }

    #[inline(always)]
    unsafe fn tile(
        left: *const Line,
        right: *const Line,
        chunks: usize,
        out: *mut f32,
        onto: bool,
        _ahead: *const Line,
    ) {
        // SAFETY: the trait's contract.
        unsafe {
            let mut left = left.cast::<f32>();
            let mut right = right.cast::<f32>();
            let mut from = 0;
            loop {
                let mut sums = [[S::splat(0.0); 2]; R];
                for _ in from..chunks.min(from + RUN) {
                    for depth in 0..16 {
                        let first = S::load(right);
                        let second = S::load(right.add(S::LANES));
                        right = right.add(2 * S::LANES);
                        for (row, sums) in sums.iter_mut().enumerate() {
                            let value = S::splat(*left.add(row * 16 + depth));
                            sums[0] = S::mul_add(value, first, sums[0]);
                            sums[1] = S::mul_add(value, second, sums[1]);
                        }
                    }
                    left = left.add(16 * R);
                }
                for (row, sums) in sums.iter().enumerate() {
                    for (half, sum) in sums.iter().enumerate() {
                        let to = out.add(row * Self::COLS + half * S::LANES);
                        let sum = if from == 0 && !onto { *sum } else { S::add(S::load(to), *sum) };
                        S::store(to, sum);
                    }
                }
                from += RUN;
                if from >= chunks {
                    return;
                }
            }
        }
    }
}
