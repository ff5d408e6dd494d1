//! Activation functions on the CPU.

use rayon::prelude::*;

use super::super::cpu::{Isa, Kernel, Simd, math, run};
use super::super::host;
use super::Activation;

/// Applies the function in place, on all threads.
pub(super) fn apply(isa: Isa, activation: Activation, values: &mut [f32]) {
    let chunk = host::rows_per_task(values.len(), 1);
    values.par_chunks_mut(chunk).for_each(|values| run(isa, Apply { activation, values }));
}

struct Apply<'a> {
    activation: Activation,
    values: &'a mut [f32],
}

impl Kernel for Apply<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let whole = self.values.len() - self.values.len() % S::LANES;
        let (whole, rest) = self.values.split_at_mut(whole);
        // SAFETY: whole vectors first; the rest is padded with zeros by `load_part`.
        unsafe {
            apply_to::<S>(self.activation, whole.as_mut_ptr(), whole.len());
            if !rest.is_empty() {
                let mut padded = [0f32; super::super::cpu::MAX_LANES];
                padded[..rest.len()].copy_from_slice(rest);
                apply_to::<S>(self.activation, padded.as_mut_ptr(), S::LANES);
                rest.copy_from_slice(&padded[..rest.len()]);
            }
        }
    }
}

/// Applies the function to `count` values, a multiple of the lanes.
///
/// # Safety
/// The values are there, and the processor has the instructions of `S`.
#[inline(always)]
pub(in super::super) unsafe fn apply_to<S: Simd>(
    activation: Activation,
    values: *mut f32,
    count: usize,
) {
    macro_rules! each {
        (|$x:ident| $result:expr) => {
            for i in (0..count).step_by(S::LANES) {
                let $x = S::load(values.add(i));
                S::store(values.add(i), $result);
            }
        };
    }
    // SAFETY: the caller's promise.
    unsafe {
        match activation {
            Activation::Identity => {}
            Activation::GeluErf => each!(|x| math::gelu_erf::<S>(x)),
            Activation::GeluTanh => each!(|x| math::gelu_tanh::<S>(x)),
            Activation::QuickGelu => {
                each!(|x| S::mul(x, math::sigmoid::<S>(S::mul(x, S::splat(1.702)))))
            }
            Activation::Silu => each!(|x| S::mul(x, math::sigmoid::<S>(x))),
            Activation::Relu => each!(|x| S::max(S::splat(0.0), x)),
        }
    }
}
