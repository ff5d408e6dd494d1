use candle_core::{Device, Tensor};

use super::super::cpu::{Kernel, Simd, math, run};
use super::super::testing::{assert_close, on_every_isa};
use super::{Activation, reference};

const ALL: [Activation; 6] = [
    Activation::GeluErf,
    Activation::GeluTanh,
    Activation::QuickGelu,
    Activation::Silu,
    Activation::Relu,
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
    on_every_isa(|isa| {
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
    on_every_isa(|isa| {
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

struct Exp<'a>(&'a mut [f32]);

impl Kernel for Exp<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for chunk in self.0.chunks_exact_mut(S::LANES) {
            // SAFETY: a whole vector.
            unsafe {
                let x = S::load(chunk.as_ptr());
                S::store(chunk.as_mut_ptr(), math::exp::<S>(x));
            }
        }
    }
}

#[test]
fn exp_has_the_stated_error() {
    // A multiple of all lanes.
    let x: Vec<f32> = (-86_992..88_000).map(|i| i as f32 / 1000.0).collect();
    on_every_isa(|isa| {
        let mut y = x.clone();
        run(isa, Exp(&mut y));
        for (x, y) in x.iter().zip(&y) {
            let exact = f64::from(*x).exp();
            let error = ((f64::from(*y) - exact) / exact).abs();
            assert!(error < 3e-7, "{isa:?}: exp({x}) is off by {error:e}");
        }
        let mut low = vec![f32::NEG_INFINITY; 16];
        run(isa, Exp(&mut low));
        assert_eq!(low, [0.0; 16]);
        let mut none = vec![f32::NAN; 16];
        run(isa, Exp(&mut none));
        assert!(none.iter().all(|y| y.is_nan()));
    });
}
