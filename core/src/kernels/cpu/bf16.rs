//! Products of bfloat16 pairs with the dot product instruction of AVX-512.

use std::arch::x86_64::*;

use super::engine::{Engine, Line};
use super::simd::Simd;
use super::x86;

/// The vectors beside these products.
pub(super) type Avx512 = x86::Avx512<true>;

/// AVX-512 BF16: every lane adds the products of two pairs, in `f32`.
pub(crate) struct Dot;

const ROWS: usize = 8;
const COLS: usize = 32;

/// Bfloat16 values of 32 numbers, in their order.
///
/// # Safety
/// 32 values can be read; the processor has AVX-512 BF16.
#[inline(always)]
pub(super) unsafe fn round(values: *const f32) -> __m512i {
    // SAFETY: the caller's promise.
    unsafe {
        let (low, high) = (_mm512_loadu_ps(values), _mm512_loadu_ps(values.add(16)));
        std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
    }
}

/// Writes 32 rows of [`COLS`] values as a right chunk of pairs: for every two rows, the pairs of
/// all columns.
///
/// # Safety
/// As for [`Engine::put_columns`]; the processor has AVX-512 BF16.
#[inline(always)]
unsafe fn put_pairs(values: *const f32, chunk: *mut Line) {
    // SAFETY: the caller's promise: 16 pairs of rows, two lines for each.
    unsafe {
        // Lane i of the result: word i of the first row, then word i of the second.
        for pair in 0..16 {
            let row = values.add(2 * pair * COLS);
            for half in 0..2 {
                let first = _mm512_loadu_ps(row.add(16 * half));
                let second = _mm512_loadu_ps(row.add(COLS + 16 * half));
                let words =
                    std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first));
                let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(words));
                let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(words));
                let pairs = _mm512_or_si512(low, _mm512_slli_epi32::<16>(high));
                _mm512_storeu_si512(chunk.add(2 * pair + half).cast(), pairs);
            }
        }
    }
}

/// Writes 16 rows of 16 pairs as the first or second 16 columns of a right chunk.
///
/// # Safety
/// As for [`Engine::put_transposed`]; the processor has AVX-512.
#[inline(always)]
pub(super) unsafe fn put_half(rows: [__m512i; 16], half: usize, chunk: *mut Line) {
    // SAFETY: the caller's promise: two lines for each of 16 pairs.
    unsafe {
        for (pair, columns) in x86::transposed(rows).into_iter().enumerate() {
            _mm512_storeu_si512(chunk.add(2 * pair + half).cast(), columns);
        }
    }
}

impl Engine for Dot {
    type S = Avx512;
    type Exact = Self;
    const ROWS: usize = ROWS;
    const COLS: usize = COLS;
    const DEPTH: usize = 32;
    const PLANES: usize = 1;
    const ROUGH: bool = true;

    #[inline(always)]
    unsafe fn put_row(values: *const f32, chunk: *mut Line, row: usize) {
        // SAFETY: the trait's contract.
        unsafe { _mm512_storeu_si512(chunk.add(row).cast(), round(values)) };
    }

    #[inline(always)]
    unsafe fn put_columns(values: *const f32, chunk: *mut Line) {
        // SAFETY: the trait's contract.
        unsafe { put_pairs(values, chunk) };
    }

    #[inline(always)]
    unsafe fn put_transposed(rows: *const f32, stride: usize, chunk: *mut Line) {
        // SAFETY: the trait's contract.
        unsafe {
            for half in 0..2 {
                let mut words = [_mm512_setzero_si512(); 16];
                for (i, words) in words.iter_mut().enumerate() {
                    *words = round(rows.add((16 * half + i) * stride));
                }
                put_half(words, half, chunk);
            }
        }
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
            let mut left = left.cast::<i32>();
            let mut right = right.cast::<i32>();
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            if onto {
                for (row, sums) in sums.iter_mut().enumerate() {
                    *sums = [0, 16].map(|half| Avx512::load(out.add(row * COLS + half)));
                }
            }
            let bits = |v: __m512i| std::mem::transmute::<__m512i, __m512bh>(v);
            for _ in 0..chunks {
                for pair in 0..16 {
                    let first = bits(_mm512_loadu_si512(right.cast()));
                    let second = bits(_mm512_loadu_si512(right.add(16).cast()));
                    right = right.add(32);
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let value = bits(_mm512_set1_epi32(*left.add(row * 16 + pair)));
                        sums[0] = _mm512_dpbf16_ps(sums[0], value, first);
                        sums[1] = _mm512_dpbf16_ps(sums[1], value, second);
                    }
                }
                left = left.add(16 * ROWS);
            }
            for (row, sums) in sums.iter().enumerate() {
                Avx512::store(out.add(row * COLS), sums[0]);
                Avx512::store(out.add(row * COLS + 16), sums[1]);
            }
        }
    }
}
