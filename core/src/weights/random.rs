//! Tensors out of a seed, for tests of what holds for every network whatever its weights.
//!
//! A network asks for its tensors by name and shape, so it need not be known what it has. Each
//! tensor has numbers of its own, so the order of the questions does not matter, and each changes
//! the answer: norms are not 1, biases not 0. Matrices are scaled so that activations keep their
//! size.

use candle_core::{Device, Result, Shape, Tensor};

/// The tensor `name`. On another device than the CPU its numbers are that device's: large networks have
/// too many of them for one thread.
pub(super) fn tensor(seed: u64, name: &str, shape: &Shape, device: &Device) -> Result<Tensor> {
    let dims = shape.dims();
    let last = name.rsplit('.').next().unwrap_or(name);
    let (mean, deviation) = match dims {
        _ if last == "logit_scale" => (2.0, 0.5),
        // Tokens and positions, which every picture gets the same.
        [1, ..] => (0.0, 0.5),
        [_, inner @ ..] if !inner.is_empty() => {
            (0.0, (inner.iter().product::<usize>() as f64).powf(-0.5))
        }
        _ if last.ends_with("bias") => (0.0, 0.2),
        _ => (1.0, 0.2),
    };
    if !device.is_cpu() {
        return Tensor::randn(mean as f32, deviation as f32, shape, device);
    }
    // FNV-1a of the name, so that equal names have equal numbers everywhere.
    let start = name.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mut state = start;
    let values: Vec<f32> =
        (0..shape.elem_count()).map(|_| (mean + deviation * normal(&mut state)) as f32).collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// About a normal number: the sum of twelve uniform ones.
fn normal(state: &mut u64) -> f64 {
    (0..12).map(|_| uniform(state)).sum::<f64>() - 6.0
}

/// Splitmix64 as a number from 0 to 1.
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut x = *state;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
