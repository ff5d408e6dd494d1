use candle_core::{DType, Device, Tensor};

use super::super::testing::{assert_close, emulated, values};
use super::{Blur, forward, reference};

const BLUR: Blur = Blur { reach: 6, deviation: 3.0 };

#[test]
fn the_kernel_agrees_with_the_definition() {
    for (height, width, channels) in [(1, 1, 4), (1, 2, 4), (3, 40, 4), (33, 17, 4), (5, 6, 3)] {
        for blur in [BLUR, Blur { reach: 2, deviation: 0.5 }, Blur { reach: 0, deviation: 1.0 }] {
            let shape = [height, width, channels];
            let (x, guide) = (values(&shape, 1), values(&shape, 2));
            let expected = reference::forward(&x, &guide, blur).unwrap();
            let found = emulated(&|| forward(&x, &guide, blur).unwrap());
            assert_close(&found, &expected, 2e-6, &format!("{shape:?} {blur:?}"));
        }
    }
    // A view that begins in the middle of a vector.
    let odd = values(&[4 * 5 * 4 + 1], 3).narrow(0, 1, 80).unwrap().reshape((4, 5, 4)).unwrap();
    let expected = reference::forward(&odd, &odd, BLUR).unwrap();
    assert_close(&emulated(&|| forward(&odd, &odd, BLUR).unwrap()), &expected, 2e-6, "a view");
}

#[test]
fn pictures_of_one_pixel_are_mirrored_too() {
    let one = Tensor::ones((1, 2, 4), DType::F32, &Device::Cpu).unwrap();
    let found = forward(&one, &one, BLUR).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert!(found.iter().all(|value| (value - 1.0).abs() < 1e-6));
    let mirrored = |side| reference::mirrored(side, 6, &Device::Cpu).unwrap().to_vec1::<u32>();
    assert_eq!(mirrored(1).unwrap(), [0; 13]);
    assert_eq!(mirrored(3).unwrap(), [2, 1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1, 0]);
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let x = values(&[4, 4, 4], 1);
    for guide in [values(&[4, 5, 4], 1), values(&[4, 4], 1), x.to_dtype(DType::BF16).unwrap()] {
        assert!(forward(&x, &guide, BLUR).is_err(), "{guide:?}");
    }
}
