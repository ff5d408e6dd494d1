use candle_core::DType;

use super::super::activation::Activation;
use super::super::testing::{assert_close, everywhere, rounded, values};
use super::{Kind, Weights, forward, plain};

const PLAIN: Activation = Activation::Identity;

fn weights(kind: Kind, width: usize) -> Weights {
    Weights::new(kind, &values(&[width], 2), &values(&[width], 3), 1e-6).unwrap()
}

#[test]
fn agrees_with_the_reference_over_odd_shapes() {
    everywhere(|isa| {
        for shape in [&[1, 1][..], &[3, 7], &[2, 5, 33], &[1, 4, 768], &[0, 16], &[5, 2, 3, 17]] {
            let x = (values(shape, 1) * 3.0).unwrap();
            for kind in [Kind::Layer, Kind::Rms] {
                let weights = weights(kind, *shape.last().unwrap());
                let expected = plain(&x, &weights).unwrap();
                let what = format!("{isa:?} {kind:?} {shape:?}");
                let found = forward(&x, &weights, PLAIN, None).unwrap();
                assert_close(&found, &expected, 3e-6, &what);
                let residual = values(shape, 9);
                for activation in [PLAIN, Activation::Silu] {
                    let found = forward(&x, &weights, activation, Some(&residual)).unwrap();
                    let expected = (activation.forward(&expected).unwrap() + &residual).unwrap();
                    assert_close(&found, &expected, 3e-6, &what);
                }
                let low = x.to_dtype(DType::BF16).unwrap();
                let found = rounded(&forward(&low, &weights, PLAIN, None).unwrap());
                let expected = plain(&rounded(&low), &weights).unwrap();
                assert_close(&found, &expected, 2e-2, &what);
            }
        }
    });
}

#[test]
fn takes_strided_input_and_refuses_other_widths() {
    let x = values(&[6, 9], 4).t().unwrap();
    let found = forward(&x, &weights(Kind::Layer, 6), PLAIN, None).unwrap();
    assert_close(&found, &plain(&x, &weights(Kind::Layer, 6)).unwrap(), 3e-6, "strided");
    assert!(forward(&x, &weights(Kind::Layer, 5), PLAIN, None).is_err());
    assert!(forward(&x, &weights(Kind::Layer, 6), PLAIN, Some(&values(&[6, 9], 1))).is_err());
    assert!(Weights::new(Kind::Layer, &values(&[5], 1), &values(&[4], 1), 0.1).is_err());
}
