//! The device that tests of networks and pipelines compute on: the CPU, or with `TAGBRUSH_KERNELS=cuda` the first
//! one of CUDA.

use std::sync::OnceLock;

use candle_core::{DType, Tensor};

use super::{Device, Precision, open};

/// Whether tests compute on CUDA.
pub(crate) fn is_cuda() -> bool {
    std::env::var("TAGBRUSH_KERNELS").is_ok_and(|name| name == "cuda")
}

/// As a user names it.
pub(crate) fn named() -> Device {
    if is_cuda() { Device::Cuda(0) } else { Device::Cpu }
}

/// The same one for all tensors.
pub(crate) fn device() -> candle_core::Device {
    static OPENED: OnceLock<candle_core::Device> = OnceLock::new();
    OPENED.get_or_init(|| open(named()).unwrap()).clone()
}

/// Zeros in `f32`, for tests of what is refused: a device keeps no tensors without values, the CPU does.
pub(crate) fn zeros(shape: &[usize]) -> Tensor {
    let device = if shape.contains(&0) { candle_core::Device::Cpu } else { device() };
    Tensor::zeros(shape, DType::F32, &device).unwrap()
}

/// What tests load models with where they name no device: golden files are in `f32`.
pub(super) fn instead_of(device: Device, precision: Precision) -> (Device, Precision) {
    match (device, precision) {
        (Device::Auto, Precision::Auto) if is_cuda() => (Device::Cuda(0), Precision::F32),
        (Device::Auto, _) if is_cuda() => (Device::Cuda(0), precision),
        _ => (device, precision),
    }
}
