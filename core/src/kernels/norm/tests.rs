use super::super::testing::{assert_close, values};
use super::{Kind, forward, reference};

#[test]
fn agrees_with_the_reference_over_odd_shapes() {
    for shape in [&[1, 1][..], &[3, 7], &[2, 5, 33], &[1, 4, 768], &[0, 16], &[5, 2, 3, 17]] {
        let width = *shape.last().unwrap();
        let x = (values(shape, 1) * 3.0).unwrap();
        let (weight, bias) = (values(&[width], 2), values(&[width], 3));
        for kind in [Kind::Layer, Kind::Rms] {
            let found = forward(kind, &x, &weight, &bias, 1e-6).unwrap();
            let expected = reference::forward(kind, &x, &weight, &bias, 1e-6).unwrap();
            assert_close(&found, &expected, 2e-6, &format!("{kind:?} {shape:?}"));
        }
    }
}

#[test]
fn takes_strided_input_and_refuses_other_widths() {
    let x = values(&[6, 9], 4).t().unwrap();
    let (weight, bias) = (values(&[6], 5), values(&[6], 6));
    let found = forward(Kind::Layer, &x, &weight, &bias, 1e-3).unwrap();
    let expected = reference::forward(Kind::Layer, &x, &weight, &bias, 1e-3).unwrap();
    assert_close(&found, &expected, 2e-6, "strided");
    assert!(forward(Kind::Layer, &x, &values(&[5], 1), &values(&[5], 2), 1e-3).is_err());
}
