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

/// A function of one vector, as a type, so that loops are compiled for each.
pub(in super::super) trait Function {
    /// It may be `rough` for results that are rounded to bfloat16.
    ///
    /// # Safety
    /// The processor has the instructions of `S`.
    unsafe fn of<S: Simd>(x: S::V, rough: bool) -> S::V;
}

macro_rules! functions {
    ($($name:ident: |$S:ident, $x:ident, $rough:ident| $value:expr;)*) => {$(
        pub(in super::super) struct $name;

        impl Function for $name {
            #[inline(always)]
            unsafe fn of<$S: Simd>($x: $S::V, $rough: bool) -> $S::V {
                // SAFETY: the caller's promise.
                #[allow(unused_unsafe)]
                unsafe { $value }
            }
        }
    )*};
}

functions! {
    Identity: |S, x, _rough| x;
    GeluErf: |S, x, rough| math::gelu_erf::<S>(x, rough);
    GeluTanh: |S, x, rough| math::gelu_tanh::<S>(x, rough);
    QuickGelu: |S, x, _rough| S::mul(x, math::sigmoid::<S>(S::mul(x, S::splat(1.702))));
    Silu: |S, x, rough| math::silu::<S>(x, rough);
    Relu: |S, x, _rough| S::max(S::splat(0.0), x);
    LeakyRelu: |S, x, _rough| S::max(S::mul(x, S::splat(0.2)), x);
}

/// Calls the generic `$call` with the [`Function`] of an activation.
macro_rules! with_function {
    ($activation:expr, $F:ident => $call:expr) => {{
        use $crate::kernels::activation::{Activation, cpu};
        macro_rules! arm {
            ($name:ident) => {{
                type $F = cpu::$name;
                $call
            }};
        }
        match $activation {
            Activation::Identity => arm!(Identity),
            Activation::GeluErf => arm!(GeluErf),
            Activation::GeluTanh => arm!(GeluTanh),
            Activation::QuickGelu => arm!(QuickGelu),
            Activation::Silu => arm!(Silu),
            Activation::Relu => arm!(Relu),
            Activation::LeakyRelu => arm!(LeakyRelu),
        }
    }};
}
pub(in super::super) use with_function;

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
    // SAFETY: the caller's promise.
    unsafe { with_function!(activation, F => each::<S, F>(values, count)) }
}

#[inline(always)]
unsafe fn each<S: Simd, F: Function>(values: *mut f32, count: usize) {
    for i in (0..count).step_by(S::LANES) {
        // SAFETY: the caller's promise.
        unsafe { S::store(values.add(i), F::of::<S>(S::load(values.add(i)), false)) };
    }
}
