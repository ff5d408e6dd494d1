use super::super::activation::Activation;
use super::super::testing::{assert_close, values};
use super::{forward, reference};

#[test]
fn agrees_with_the_reference_over_odd_shapes() {
    let shapes: [(&[usize], usize); 7] = [
        (&[1, 1], 1),
        (&[5, 3], 7),
        (&[2, 130, 33], 65),
        (&[1, 1, 768], 96),
        (&[300, 17], 5),
        (&[0, 8], 4),
        (&[2, 3, 4, 5], 6),
    ];
    for (shape, n) in shapes {
        let k = *shape.last().unwrap();
        let (x, weight, bias) = (values(shape, 1), values(&[n, k], 2), values(&[n], 3));
        for activation in [Activation::Identity, Activation::GeluTanh, Activation::Relu] {
            let found = forward(&x, &weight, &bias, activation).unwrap();
            let expected = reference::forward(&x, &weight, &bias, activation).unwrap();
            assert_close(&found, &expected, 2e-5, &format!("{shape:?} -> {n} {activation:?}"));
        }
    }
}

#[test]
fn takes_strided_and_offset_input_and_refuses_other_widths() {
    let x = values(&[4, 9, 6], 4).transpose(0, 1).unwrap().narrow(0, 2, 5).unwrap();
    let (weight, bias) = (values(&[3, 6], 5), values(&[3], 6));
    let found = forward(&x, &weight, &bias, Activation::Identity).unwrap();
    let expected = reference::forward(&x, &weight, &bias, Activation::Identity).unwrap();
    assert_close(&found, &expected, 1e-5, "strided");
    assert!(forward(&x, &values(&[3, 5], 5), &bias, Activation::Identity).is_err());
    assert!(forward(&x, &weight, &values(&[4], 6), Activation::Identity).is_err());
}

#[test]
fn an_entry_does_not_depend_on_its_neighbours() {
    let (weight, bias) = (values(&[65, 48], 2), values(&[65], 3));
    for rows in [1, 5, 130, 784] {
        let x = values(&[7, rows, 48], 4);
        let all = forward(&x, &weight, &bias, Activation::GeluErf).unwrap();
        for i in 0..7 {
            let one = x.narrow(0, i, 1).unwrap();
            let found = forward(&one, &weight, &bias, Activation::GeluErf).unwrap();
            assert_close(&found, &all.narrow(0, i, 1).unwrap(), 0.0, &format!("{rows} rows"));
        }
    }
}
