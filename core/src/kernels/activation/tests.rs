use candle_core::{Device, Tensor};

use super::super::cpu::{Kernel, Simd, math, run};
use super::super::testing::{assert_close, everywhere};
use super::{Activation, reference};

const ALL: [Activation; 7] = [
    Activation::GeluErf,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Silu,
    Activation::Relu,
    Activation::LeakyRelu,
    Activation::Identity,
];

fn grid(from: f64, to: f64, count: usize) -> Tensor {
    let step = (to - from) / count as f64;
    let values: Vec<f32> = (0..count).map(|i| (from + step * i as f64) as f32).collect();
    Tensor::new(values, &Device::Cpu).unwrap()
}

#[test]
fn agrees_with_the_reference() {
    let x = grid(-12.0, 12.0, 100_003);
    everywhere(|isa| {
        for activation in ALL {
            let found = activation.forward(&x).unwrap();
            let expected = reference::forward(activation, &x).unwrap();
            assert_close(&found, &expected, 2e-6, &format!("{isa:?} {activation:?}"));
        }
    });
}

#[test]
fn takes_empty_extreme_and_strided_input() {
    let empty = Tensor::zeros((0, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let extreme = Tensor::new(&[-1e30f32, -200.0, -0.0, 0.0, 200.0, 1e12], &Device::Cpu).unwrap();
    let strided = grid(-3.0, 3.0, 60).reshape((6, 10)).unwrap().t().unwrap();
    everywhere(|isa| {
        for activation in ALL {
            assert_eq!(activation.forward(&empty).unwrap().dims(), &[0, 3]);
            let values = activation.forward(&extreme).unwrap().to_vec1::<f32>().unwrap();
            assert!(values.iter().all(|v| v.is_finite()), "{isa:?} {activation:?}: {values:?}");
            let nan = Tensor::new(&[f32::NAN; 3], &Device::Cpu).unwrap();
            let values = activation.forward(&nan).unwrap().to_vec1::<f32>().unwrap();
            assert!(values.iter().all(|v| v.is_nan()), "{isa:?} {activation:?}");
            let found = activation.forward(&strided).unwrap();
            let expected = reference::forward(activation, &strided).unwrap();
            assert_close(&found, &expected, 2e-6, &format!("{isa:?} {activation:?} strided"));
        }
    });
}

#[test]
fn never_multiplies_numbers_below_the_normal_ones() {
    // Processors take a hundred times longer for them; the last ones are where sigmoids end.
    let x = grid(-300.0, 300.0, 60_001);
    everywhere(|isa| {
        for activation in [Activation::GeluTanh, Activation::QuickGelu, Activation::Silu] {
            let values = activation.forward(&x).unwrap().to_vec1::<f32>().unwrap();
            let subnormal = values.iter().find(|v| v.is_subnormal());
            assert!(subnormal.is_none(), "{isa:?} {activation:?}: {subnormal:?}");
        }
    });
}

/// Functions of [`math`].
#[derive(Clone, Copy)]
enum Of {
    Exp,
    Exp2,
    RoughExp2,
    RoughSilu,
    RoughGeluTanh,
    RoughGeluErf,
}

struct Each<'a>(Of, &'a mut [f32]);

impl Kernel for Each<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for chunk in self.1.chunks_exact_mut(S::LANES) {
            // SAFETY: a whole vector.
            unsafe {
                let x = S::load(chunk.as_ptr());
                let y = match self.0 {
                    Of::Exp => math::exp::<S>(x),
                    Of::Exp2 => math::exp2::<S>(x, false),
                    Of::RoughExp2 => math::exp2::<S>(x, true),
                    Of::RoughSilu => math::silu::<S>(x, true),
                    Of::RoughGeluTanh => math::gelu_tanh::<S>(x, true),
                    Of::RoughGeluErf => math::gelu_erf::<S>(x, true),
                };
                S::store(chunk.as_mut_ptr(), y);
            }
        }
    }
}

/// Fails unless `of` differs from `exact` by at most `relative` of it or by `absolute`, over thousandths
/// from `from` to `to`, on every set of instructions. Their number is a multiple of all lanes.
fn assert_error(
    of: Of,
    (from, to): (i32, i32),
    relative: f64,
    absolute: f64,
    exact: impl Fn(f64) -> f64,
) {
    let x: Vec<f32> = (from..to).map(|i| i as f32 / 1000.0).collect();
    assert!(x.len().is_multiple_of(16));
    everywhere(|isa| {
        let mut y = x.clone();
        run(isa, Each(of, &mut y));
        for (x, y) in x.iter().zip(&y) {
            let exact = exact(f64::from(*x));
            let error = (f64::from(*y) - exact).abs();
            assert!(
                error <= relative * exact.abs() || error <= absolute,
                "{isa:?}: of {x} is off by {error:e}"
            );
        }
    });
}

#[test]
fn powers_have_the_stated_errors() {
    assert_error(Of::Exp, (-86_992, 88_000), 3e-7, 0.0, f64::exp);
    assert_error(Of::Exp2, (-126_000, 126_000), 3e-7, 0.0, f64::exp2);
    assert_error(Of::RoughExp2, (-126_000, 126_000), 8e-5, 0.0, f64::exp2);
    everywhere(|isa| {
        for of in [Of::Exp, Of::Exp2, Of::RoughExp2] {
            let mut low = vec![f32::NEG_INFINITY; 16];
            run(isa, Each(of, &mut low));
            assert_eq!(low, [0.0; 16]);
            let mut none = vec![f32::NAN; 16];
            run(isa, Each(of, &mut none));
            assert!(none.iter().all(|y| y.is_nan()));
        }
    });
}

#[test]
fn rough_functions_have_the_stated_errors() {
    let gelu_tanh = |x: f64| {
        let z = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
        x / (1.0 + (-2.0 * z).exp())
    };
    assert_error(Of::RoughSilu, (-80_000, 80_000), 2e-4, 0.0, |x| x / (1.0 + (-x).exp()));
    assert_error(Of::RoughGeluTanh, (-8_000, 8_000), 2e-4, 1e-12, gelu_tanh);
    // The exact function by the plain implementation, which is compared with the reference above.
    let x = grid(-8.0, 8.0, 16_000);
    let exact =
        reference::forward(Activation::GeluErf, &x.to_dtype(candle_core::DType::F64).unwrap());
    let exact = exact.unwrap().to_vec1::<f64>().unwrap();
    let at = |x: f64| exact[((x + 8.0) * 1000.0).round() as usize];
    assert_error(Of::RoughGeluErf, (-4_000, 8_000), 1e-3, 1e-7, at);
    assert_error(Of::RoughGeluErf, (-8_000, -4_000), 0.0, 3e-7, at);
}
