//! One folder per operation on tensors: its contract, its definition, and its implementations.
//!
//! `mod.rs` of each folder is the contract (shapes, types, layout) and the choice of the
//! implementation; `reference.rs` defines the result with plain tensor operations; `cpu.rs` is the
//! implementation for the CPU, written once over the instruction sets and engines of `cpu/`; `cuda.rs`
//! launches the kernels of `cuda.cu`, and on Hopper those of `warpgroup.cu`, which share `cuda/`; `tests.rs` runs every
//! implementation against the reference. The floors above never ask what device they run on.
//!
//! Unsafe code is allowed here and nowhere above: for the instructions of a processor that was
//! asked for them, for packed memory that is addressed by its layout, and for results that several
//! threads write side by side. Every block says why it is sound.
#![allow(unsafe_code)]

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod bilateral_blur;
#[cfg(any(test, feature = "gpu-check"))]
pub(crate) mod check;
pub(crate) mod cpu;
pub(crate) mod cuda;
pub(crate) mod depthwise_conv;
pub(crate) mod group_norm;
mod host;
pub(crate) mod linear;
pub(crate) mod modulation;
pub(crate) mod norm;

#[cfg(test)]
mod testing;

/// The largest size of a value. What is no number stays: the tensor library's `max` passes it over.
fn largest(x: &candle_core::Tensor) -> candle_core::Result<f32> {
    let more = |most: f32, x: f32| if x.abs() > most || x.is_nan() { x.abs() } else { most };
    Ok(x.to_dtype(candle_core::DType::F32)?
        .flatten_all()?
        .to_vec1::<f32>()?
        .into_iter()
        .fold(0.0, more))
}

/// Whether an item gives, to the last bit, alone what it gives with others: products of a device's library
/// depend on how many rows there are.
#[cfg(test)]
pub(crate) fn are_exact() -> bool {
    host::way() == host::Way::Own && !crate::device::testing::is_cuda()
}
