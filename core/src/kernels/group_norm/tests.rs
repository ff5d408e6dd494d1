use candle_core::DType;

use super::super::activation::Activation;
use super::super::testing::{assert_close, everywhere, rounded, values};
use super::{Weights, forward, reference};

const PLAIN: Activation = Activation::Identity;

fn weights(channels: usize, groups: usize) -> Weights {
    Weights::new(&values(&[channels], 2), &values(&[channels], 3), groups, 1e-5).unwrap()
}

#[test]
fn agrees_with_the_reference_over_odd_shapes() {
    everywhere(|isa| {
        for (shape, groups) in [
            (&[1, 1, 2][..], 1),
            (&[2, 3, 5, 12], 4),
            (&[1, 7, 9, 33], 3),
            (&[3, 40, 96], 32),
            (&[2, 64, 64, 32], 32),
            (&[0, 4, 8], 2),
            (&[2, 0, 8], 2),
        ] {
            // Not around 0: squares must not cancel.
            let x = ((values(shape, 1) * 3.0).unwrap() + 5.0).unwrap();
            let weights = weights(*shape.last().unwrap(), groups);
            let shift = values(&[shape[0], *shape.last().unwrap()], 7);
            let what = format!("{isa:?} {shape:?} {groups}");
            for (activation, shift) in [(PLAIN, None), (Activation::Silu, Some(&shift))] {
                let found = forward(&x, shift, &weights, activation).unwrap();
                let expected = reference::forward(&x, shift, &weights).unwrap();
                assert_close(&found, &activation.forward(&expected).unwrap(), 2e-5, &what);
            }
            let low = x.to_dtype(DType::BF16).unwrap();
            let found = rounded(&forward(&low, None, &weights, PLAIN).unwrap());
            let expected = reference::forward(&rounded(&low), None, &weights).unwrap();
            assert_close(&found, &expected, 2e-2, &what);
        }
    });
}

#[test]
fn entries_do_not_see_each_other() {
    let (x, shift) = (values(&[3, 50, 24], 5), values(&[3, 24], 6));
    let all = forward(&x, Some(&shift), &weights(24, 8), Activation::Silu).unwrap();
    for i in 0..3 {
        let [x, shift, all] = [&x, &shift, &all].map(|x| x.narrow(0, i, 1).unwrap());
        let alone = forward(&x, Some(&shift), &weights(24, 8), Activation::Silu).unwrap();
        assert_close(&alone, &all, 0.0, "alone");
    }
}

#[test]
fn takes_strided_input_and_refuses_other_widths() {
    let x = values(&[2, 6, 9], 4).transpose(1, 2).unwrap();
    let found = forward(&x, None, &weights(6, 3), PLAIN).unwrap();
    assert_close(&found, &reference::forward(&x, None, &weights(6, 3)).unwrap(), 3e-6, "strided");
    assert!(forward(&x, None, &weights(5, 1), PLAIN).is_err());
    let shift = values(&[1, 6], 1);
    assert!(forward(&x, Some(&shift), &weights(6, 3), PLAIN).is_err());
    assert!(Weights::new(&values(&[6], 1), &values(&[6], 1), 4, 0.1).is_err());
    assert!(Weights::new(&values(&[6], 1), &values(&[6], 1), 0, 0.1).is_err());
    assert!(Weights::new(&values(&[5], 1), &values(&[4], 1), 1, 0.1).is_err());
}
