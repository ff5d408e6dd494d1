//! Products of bfloat16 tiles with Intel's AMX.
//!
//! A tile register holds 16 lines. One instruction multiplies a tile of 16 rows of 32 values with a
//! tile of 32 rows of 16 columns (stored as 16 lines of pairs) and adds the result to a tile of
//! `f32` sums. Four tiles of sums make a product of 32 rows and 32 columns.
//!
//! With one plane, operands are rounded to bfloat16. With two they are kept as the sum of two
//! bfloat16 values, and three of the four products are added, all but that of the two small parts:
//! the error of an operand is then below 2^-17 of it, which is `f32`-class accuracy at a multiple of
//! the speed. With three nothing of an `f32` number is lost, and six of the nine products are added.

use std::arch::asm;
use std::arch::x86_64::*;

use super::bf16::{Avx512, Dot, put_half};
use super::engine::{Aligned, Engine, Line, MAX_COLS, MAX_DEPTH};
use super::simd::Simd;

const ROWS: usize = 32;
const COLS: usize = 32;
const DEPTH: usize = 32;

/// What the tile registers are set up as: all eight with 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Asks the system for AMX, which has to be done once in a process, and tries it.
pub(super) fn is_usable() -> bool {
    has_instructions() && permitted() && gives_right_answers()
}

/// Whether the processor has AMX with bfloat16, and the system saves its registers.
fn has_instructions() -> bool {
    const TILE_STATE: u64 = 0b11 << 17;
    #[target_feature(enable = "xsave")]
    unsafe fn saved() -> u64 {
        // SAFETY: the caller saw that the processor has the instruction and the system uses it.
        unsafe { _xgetbv(0) }
    }
    if !is_x86_feature_detected!("xsave") || !is_x86_feature_detected!("avx512bf16") {
        return false;
    }
    // SAFETY: processors with AVX-512 have this leaf.
    #[allow(unused_unsafe)]
    let leaf = unsafe { __cpuid_count(7, 0) };
    let (bf16, tile) = (leaf.edx >> 22 & 1, leaf.edx >> 24 & 1);
    // SAFETY: `xsave` was detected, which includes that the system enabled it.
    bf16 == 1 && tile == 1 && unsafe { saved() } & TILE_STATE == TILE_STATE
}

/// Linux keeps the large registers from a process until it asks for them, and may say no.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    let result: i64;
    // SAFETY: the system call takes two numbers and touches no memory of this process.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") TILE_DATA,
            out("rcx") _,
            out("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Multiplies two small matrices whose product is known: virtual machines have been seen to announce
/// what they do not do.
fn gives_right_answers() -> bool {
    /// Whether operands of `scale` times small whole numbers have a product within `tolerance`.
    #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn product<E: Engine>(scale: f32, tolerance: f32) -> bool {
        let value = |i: usize| ((i % 13) as f32 - 6.0) * scale;
        let mut left = [Line::ZERO; 3 * ROWS];
        let mut right = [Line::ZERO; 3 * COLS];
        let mut out = Aligned([0f32; ROWS * COLS]);
        let columns: [f32; DEPTH * COLS] = std::array::from_fn(|i| value(7 * i + 3));
        // SAFETY: arrays of an engine's sizes; the caller saw that AMX can be used.
        unsafe {
            for row in 0..ROWS {
                let values: [f32; DEPTH] = std::array::from_fn(|i| value(row * DEPTH + i));
                E::put_row(values.as_ptr(), left.as_mut_ptr(), row);
            }
            E::put_columns(columns.as_ptr(), right.as_mut_ptr());
            E::enter();
            E::tile(left.as_ptr(), right.as_ptr(), 1, out.0.as_mut_ptr(), false, right.as_ptr());
            E::tile(left.as_ptr(), right.as_ptr(), 1, out.0.as_mut_ptr(), true, right.as_ptr());
            E::leave();
        }
        (0..ROWS * COLS).all(|at| {
            let (row, column) = (at / COLS, at % COLS);
            let term = |i| value(row * DEPTH + i) * columns[i * COLS + column];
            (2.0 * (0..DEPTH).map(term).sum::<f32>() - out.0[at]).abs() <= 2.0 * tolerance
        })
    }
    // The other scales have more bits than bfloat16: without their small parts, sums of this size
    // would be off by tenths and by hundredths.
    // SAFETY: `is_usable` saw that the processor has the instructions and the system permits them.
    unsafe {
        product::<Tiles<1>>(1.0, 0.0)
            && product::<Tiles<2>>(1.0 + 1.0 / 512.0, 5e-3)
            && product::<Tiles<3>>(1.0 + 1.0 / 512.0 + 1.0 / 131_072.0, 5e-4)
    }
}

/// 32 values as the sum of `PLANES` bfloat16 values: rounded, what that loses, rounded likewise, and so
/// on.
///
/// # Safety
/// 32 values can be read; the processor has AVX-512 BF16.
#[inline(always)]
unsafe fn split<const PLANES: usize>(values: *const f32) -> [__m512i; PLANES] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut rest = [Avx512::load(values), Avx512::load(values.add(16))];
        let mut planes = [_mm512_setzero_si512(); PLANES];
        for plane in &mut planes {
            *plane =
                std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(rest[1], rest[0]));
            let [low, high] = widened(*plane);
            rest = [_mm512_sub_ps(rest[0], low), _mm512_sub_ps(rest[1], high)];
        }
        planes
    }
}

/// 32 bfloat16 values as `f32`.
///
/// # Safety
/// The processor has AVX-512.
#[inline(always)]
unsafe fn widened(bits: __m512i) -> [__m512; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(bits));
        let high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64::<1>(bits));
        [
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(low)),
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(high)),
        ]
    }
}

/// Takes from 32 values what rounding them to bfloat16 keeps.
///
/// # Safety
/// As for [`split`], and 32 values can be written.
#[inline(always)]
unsafe fn keep_rest(values: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let [large] = split::<1>(values);
        let [low, high] = widened(large);
        Avx512::store(values, _mm512_sub_ps(Avx512::load(values), low));
        Avx512::store(values.add(16), _mm512_sub_ps(Avx512::load(values.add(16)), high));
    }
}

/// Multiplies chunks of `$bytes` bytes on both sides with `$line`s, which read them at `{left}` and
/// `{right}` with the strides `{line}` and `{pair}`, into tmm0 to tmm3.
macro_rules! multiply {
    ($left:ident, $right:ident, $chunks:ident, $out:ident, $onto:ident, $ahead:ident, $bytes:literal, [$($line:literal),* $(,)?]) => {
        asm!(
            "test {onto}, {onto}",
            "jnz 3f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 2f",
            "3:",
            "tileloadd tmm0, [{out} + {pair}]",
            "tileloadd tmm1, [{out} + {pair} + 64]",
            "tileloadd tmm2, [{out} + {pair} + 2048]",
            "tileloadd tmm3, [{out} + {pair} + 2112]",
            "2:",
            $($line,)*
            "add {left}, {bytes}",
            "add {right}, {bytes}",
            "add {ahead}, {bytes} / 8",
            "dec {chunks}",
            "jnz 2b",
            "tilestored [{out} + {pair}], tmm0",
            "tilestored [{out} + {pair} + 64], tmm1",
            "tilestored [{out} + {pair} + 2048], tmm2",
            "tilestored [{out} + {pair} + 2112], tmm3",
            left = inout(reg) $left => _,
            right = inout(reg) $right => _,
            ahead = inout(reg) $ahead => _,
            chunks = inout(reg) $chunks => _,
            out = in(reg) $out,
            onto = in(reg) usize::from($onto),
            line = in(reg) 64usize,
            pair = in(reg) 128usize,
            bytes = const $bytes,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// Operands of one plane, rounded, or of two or three: large parts first, then smaller ones.
pub(crate) struct Tiles<const PLANES: usize>;

impl<const PLANES: usize> Engine for Tiles<PLANES> {
    type S = Avx512;
    type Exact = Tiles<3>;
    const ROWS: usize = ROWS;
    const COLS: usize = COLS;
    const DEPTH: usize = DEPTH;
    const PLANES: usize = PLANES;
    const ROUGH: bool = PLANES == 1;
    /// Processors with AMX have 2 MB of second-level cache for each core.
    const CACHED: usize = 10 * 1024;
    /// A third of the 48 KB that such processors have in the first level.
    const SLICE: usize = 8 / PLANES;

    #[inline(always)]
    unsafe fn put_row(values: *const f32, chunk: *mut Line, row: usize) {
        // SAFETY: the trait's contract: a plane of ROWS lines behind the other.
        unsafe {
            for (plane, bits) in split::<PLANES>(values).into_iter().enumerate() {
                _mm512_store_si512(chunk.add(plane * ROWS + row).cast(), bits);
            }
        }
    }

    #[inline(always)]
    unsafe fn put_columns(values: *const f32, chunk: *mut Line) {
        // SAFETY: the trait's contract: a plane of COLS lines behind the other.
        unsafe {
            Dot::put_columns(values, chunk);
            if PLANES > 1 {
                let mut rest = [0f32; MAX_DEPTH * MAX_COLS];
                std::ptr::copy_nonoverlapping(values, rest.as_mut_ptr(), DEPTH * COLS);
                for plane in 1..PLANES {
                    for row in 0..DEPTH {
                        keep_rest(rest.as_mut_ptr().add(row * COLS));
                    }
                    Dot::put_columns(rest.as_ptr(), chunk.add(plane * COLS));
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn put_transposed(rows: *const f32, stride: usize, chunk: *mut Line) {
        // SAFETY: the trait's contract: a plane of COLS lines behind the other.
        unsafe {
            for half in 0..2 {
                let mut planes = [[_mm512_setzero_si512(); 16]; PLANES];
                for i in 0..16 {
                    let parts = split::<PLANES>(rows.add((16 * half + i) * stride));
                    for (plane, bits) in planes.iter_mut().zip(parts) {
                        plane[i] = bits;
                    }
                }
                for (plane, words) in planes.into_iter().enumerate() {
                    put_half(words, half, chunk.add(plane * COLS));
                }
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
        ahead: *const Line,
    ) {
        // SAFETY: the trait's contract: each chunk has 32 lines (2048 bytes) for each plane on both
        // sides, and `out` has 32 rows of 128 bytes. Nothing else uses the tile registers.
        unsafe {
            if chunks == 0 {
                if !onto {
                    std::ptr::write_bytes(out, 0, ROWS * COLS);
                }
            } else if PLANES == 1 {
                multiply!(
                    left,
                    right,
                    chunks,
                    out,
                    onto,
                    ahead,
                    2048,
                    [
                        "tileloadd tmm4, [{left} + {line}]",
                        "tileloadd tmm6, [{right} + {pair}]",
                        "tileloadd tmm7, [{right} + {pair} + 64]",
                        "prefetcht1 [{ahead}]",
                        "prefetcht1 [{ahead} + 64]",
                        "prefetcht1 [{ahead} + 128]",
                        "prefetcht1 [{ahead} + 192]",
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        "tileloadd tmm5, [{left} + {line} + 1024]",
                        "tdpbf16ps tmm1, tmm4, tmm7",
                        "tdpbf16ps tmm2, tmm5, tmm6",
                        "tdpbf16ps tmm3, tmm5, tmm7",
                    ]
                );
            } else if PLANES == 2 {
                // In the order in which registers are reloaded least.
                multiply!(
                    left,
                    right,
                    chunks,
                    out,
                    onto,
                    ahead,
                    4096,
                    [
                        // Large left, small right.
                        "tileloadd tmm4, [{left} + {line}]",
                        "tileloadd tmm6, [{right} + {pair} + 2048]",
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        "tileloadd tmm7, [{right} + {pair} + 2112]",
                        "tdpbf16ps tmm1, tmm4, tmm7",
                        "tileloadd tmm5, [{left} + {line} + 1024]",
                        "prefetcht1 [{ahead}]",
                        "prefetcht1 [{ahead} + 64]",
                        "prefetcht1 [{ahead} + 128]",
                        "prefetcht1 [{ahead} + 192]",
                        "tdpbf16ps tmm2, tmm5, tmm6",
                        "tdpbf16ps tmm3, tmm5, tmm7",
                        // Large left, large right.
                        "tileloadd tmm6, [{right} + {pair}]",
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        "tileloadd tmm7, [{right} + {pair} + 64]",
                        "tdpbf16ps tmm1, tmm4, tmm7",
                        "tdpbf16ps tmm2, tmm5, tmm6",
                        "tdpbf16ps tmm3, tmm5, tmm7",
                        // Small left, large right.
                        "tileloadd tmm4, [{left} + {line} + 2048]",
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        "tdpbf16ps tmm1, tmm4, tmm7",
                        "tileloadd tmm5, [{left} + {line} + 3072]",
                        "prefetcht1 [{ahead} + 256]",
                        "prefetcht1 [{ahead} + 320]",
                        "prefetcht1 [{ahead} + 384]",
                        "prefetcht1 [{ahead} + 448]",
                        "tdpbf16ps tmm2, tmm5, tmm6",
                        "tdpbf16ps tmm3, tmm5, tmm7",
                    ]
                );
            } else {
                multiply!(
                    left,
                    right,
                    chunks,
                    out,
                    onto,
                    ahead,
                    6144,
                    [
                        // Part 0 of the left with part 2 of the right, and so on: small products first.
                        "tileloadd tmm4, [{left} + {line} + 0]",
                        "tileloadd tmm5, [{left} + {line} + 1024]",
                        "tileloadd tmm6, [{right} + {pair} + 4096]",
                        "tileloadd tmm7, [{right} + {pair} + 4160]",
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        "tdpbf16ps tmm1, tmm4, tmm7",
                        "tdpbf16ps tmm2, tmm5, tmm6",
                        "tdpbf16ps tmm3, tmm5, tmm7",
                        "tileloadd tmm6, [{right} + {pair} + 2048]",
                        "tileloadd tmm7, [{right} + {pair} + 2112]",
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        "tdpbf16ps tmm1, tmm4, tmm7",
                        "tdpbf16ps tmm2, tmm5, tmm6",
                        "tdpbf16ps tmm3, tmm5, tmm7",
                        "tileloadd tmm4, [{left} + {line} + 2048]",
                        "tileloadd tmm5, [{left} + {line} + 3072]",
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        "tdpbf16ps tmm1, tmm4, tmm7",
                        "tdpbf16ps tmm2, tmm5, tmm6",
                        "tdpbf16ps tmm3, tmm5, tmm7",
                        "tileloadd tmm6, [{right} + {pair} + 0]",
                        "tileloadd tmm7, [{right} + {pair} + 64]",
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        "tdpbf16ps tmm1, tmm4, tmm7",
                        "tdpbf16ps tmm2, tmm5, tmm6",
                        "tdpbf16ps tmm3, tmm5, tmm7",
                        "tileloadd tmm4, [{left} + {line} + 0]",
                        "tileloadd tmm5, [{left} + {line} + 1024]",
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        "tdpbf16ps tmm1, tmm4, tmm7",
                        "tdpbf16ps tmm2, tmm5, tmm6",
                        "tdpbf16ps tmm3, tmm5, tmm7",
                        "tileloadd tmm4, [{left} + {line} + 4096]",
                        "tileloadd tmm5, [{left} + {line} + 5120]",
                        "tdpbf16ps tmm0, tmm4, tmm6",
                        "tdpbf16ps tmm1, tmm4, tmm7",
                        "tdpbf16ps tmm2, tmm5, tmm6",
                        "tdpbf16ps tmm3, tmm5, tmm7",
                    ]
                );
            }
        }
    }

    #[inline(always)]
    unsafe fn enter() {
        // SAFETY: the trait's contract; the configuration has the form of palette 1.
        unsafe {
            asm!(
                "ldtilecfg [{}]",
                in(reg) &raw const CONFIG,
                options(nostack, preserves_flags, readonly),
            );
        }
    }

    #[inline(always)]
    unsafe fn leave() {
        // SAFETY: the trait's contract.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}
