//! The two number formats of one byte that weights are published in (Micikevicius et al., arXiv
//! 2209.05433): E4M3 without infinities, and E5M2.
//!
//! There are only 256 values, so a tensor is decoded by a table of them that is scaled and rounded
//! once. Both formats fit into `f16` and `bf16` without loss.

use candle_core::{DType, Device, Result, Tensor};
use half::{bf16, f16};
use rayon::prelude::*;

/// The value of a byte in E4M3: a sign, four bits of exponent with a bias of 7, three of mantissa.
/// Only the largest pattern is no number.
pub(super) fn e4m3(byte: u8) -> f32 {
    let sign = if byte & 0x80 == 0 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
    let size = match (exponent, byte & 7) {
        (15, 7) => f32::NAN,
        (0, _) => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    };
    sign * size
}

/// The value of a byte in E5M2, which is the upper half of an `f16`.
pub(super) fn e5m2(byte: u8) -> f32 {
    f16::from_bits(u16::from(byte) << 8).to_f32()
}

/// A tensor on the CPU out of its bytes, times `scale`.
pub(super) fn decode(
    data: &[u8],
    value: fn(u8) -> f32,
    scale: Option<f32>,
    shape: &[usize],
    dtype: DType,
) -> Result<Tensor> {
    let table: Vec<f32> = (0..=u8::MAX).map(|byte| value(byte) * scale.unwrap_or(1.0)).collect();
    match dtype {
        DType::BF16 => {
            let table: Vec<_> = table.into_iter().map(bf16::from_f32).collect();
            Tensor::from_vec(look_up(data, &table), shape, &Device::Cpu)
        }
        DType::F16 => {
            let table: Vec<_> = table.into_iter().map(f16::from_f32).collect();
            Tensor::from_vec(look_up(data, &table), shape, &Device::Cpu)
        }
        _ => Tensor::from_vec(look_up(data, &table), shape, &Device::Cpu)?.to_dtype(dtype),
    }
}

fn look_up<T: Copy + Send + Sync>(data: &[u8], table: &[T]) -> Vec<T> {
    data.par_iter().map(|byte| table[usize::from(*byte)]).collect()
}
