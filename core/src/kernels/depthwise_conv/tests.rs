use candle_core::DType;

use super::super::testing::{assert_close, everywhere, rounded, values};
use super::{forward, reference};

#[test]
fn agrees_with_the_reference_over_odd_shapes() {
    everywhere(|isa| {
        for (b, h, w, c, side) in [
            (1, 1, 1, 1, 7),
            (2, 5, 9, 3, 7),
            (1, 14, 14, 40, 7),
            (2, 3, 4, 33, 3),
            (1, 8, 2, 64, 5),
            (1, 90, 100, 8, 7),
            (0, 4, 4, 8, 7),
        ] {
            let x = values(&[b, h, w, c], 1);
            let (weight, bias) = (values(&[side, side, c], 2), values(&[c], 3));
            let found = forward(&x, &weight, &bias).unwrap();
            if b == 0 {
                assert_eq!(found.dims(), x.dims());
                continue;
            }
            let expected = reference::forward(&x, &weight, &bias).unwrap();
            let what = format!("{isa:?} {:?}", (b, h, w, c, side));
            assert_close(&found, &expected, 1e-5, &what);
            let low = x.to_dtype(DType::BF16).unwrap();
            let found = rounded(&forward(&low, &weight, &bias).unwrap());
            let expected = reference::forward(&rounded(&low), &weight, &bias).unwrap();
            assert_close(&found, &expected, 4e-2, &what);
        }
    });
}

#[test]
fn takes_strided_input_and_refuses_even_kernels() {
    let x = values(&[1, 6, 5, 4], 4).transpose(1, 2).unwrap();
    let (weight, bias) = (values(&[3, 3, 4], 5), values(&[4], 6));
    let found = forward(&x, &weight, &bias).unwrap();
    assert_close(&found, &reference::forward(&x, &weight, &bias).unwrap(), 1e-5, "strided");
    assert!(forward(&x, &values(&[2, 2, 4], 5), &bias).is_err());
}
