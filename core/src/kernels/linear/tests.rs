use candle_core::{DType, Device, Tensor};

use super::super::activation::Activation;
use super::super::cuda::Units;
use super::super::norm::{self, Kind};
use super::super::testing::{
    allowed, assert_close, emulated, everywhere, is_emulated, rounded, values,
};
use super::{
    Combine, Options, Weights, Window, bytes_of_weight, convolution, cuda, forward, forward_two,
    reference,
};
use crate::kernels::cpu::Isa;

const PLAIN: Options<'static> = Options {
    norm: None,
    window: None,
    activation: Activation::Identity,
    combine: Combine::Keep,
    dtype: DType::F32,
};

/// Both results for `x` and values for weights `(n, k)`.
fn both(x: &Tensor, n: usize, k: usize, options: &Options<'_>) -> (Tensor, Tensor) {
    let (weight, bias) = (values(&[n, k], 2), values(&[n], 3));
    let weights = Weights::new(&weight, &bias).unwrap();
    let found = forward(x, &weights, options).unwrap();
    (found, reference::forward(x, &weight, &bias, options).unwrap())
}

#[test]
fn agrees_with_the_reference_over_odd_shapes() {
    let shapes: [(&[usize], usize); 11] = [
        (&[1, 1], 1),
        (&[5, 3], 7),
        (&[2, 130, 33], 65),
        (&[1, 1, 768], 96),
        (&[300, 17], 5),
        (&[0, 8], 4),
        (&[2, 3, 4, 5], 6),
        (&[1, 1000, 40], 33),
        (&[3], 2),
        (&[70, 3300], 35),
        (&[300, 800], 300),
    ];
    everywhere(|isa| {
        for (shape, n) in shapes {
            let k = *shape.last().unwrap();
            for activation in [Activation::Identity, Activation::GeluTanh, Activation::Relu] {
                let (found, expected) =
                    both(&values(shape, 1), n, k, &Options { activation, ..PLAIN });
                let what = format!("{isa:?} {shape:?} -> {n} {activation:?}");
                // Both sides round; long sums more.
                let tolerance = 2e-5 * (k as f32 / 250.0).max(1.0);
                assert_close(&found, &expected, allowed(isa, tolerance), &what);
            }
        }
    });
}

#[test]
fn normalises_adds_and_multiplies() {
    let norm_of = |kind, width: usize| {
        norm::Weights::new(kind, &values(&[width], 7), &values(&[width], 8), 1e-6).unwrap()
    };
    everywhere(|isa| {
        for (rows, k, n) in [(1, 16, 8), (37, 48, 33), (300, 21, 70)] {
            let x = (values(&[2, rows, k], 1) * 3.0).unwrap();
            let other = values(&[2, rows, n], 4);
            for kind in [Kind::Layer, Kind::Rms] {
                let norm = norm_of(kind, k);
                for combine in [Combine::Keep, Combine::Add(&other), Combine::Multiply(&other)] {
                    let options = Options { norm: Some(&norm), combine, ..PLAIN };
                    let (found, expected) = both(&x, n, k, &options);
                    let what = format!("{isa:?} {kind:?} {rows} {k} {n}");
                    assert_close(&found, &expected, allowed(isa, 4e-5), &what);
                }
            }
        }
    });
}

#[test]
fn cuts_patches_out_of_pictures_of_floats_and_bytes() {
    let norm = norm::Weights::new(Kind::Layer, &values(&[5], 7), &values(&[5], 8), 1e-6).unwrap();
    everywhere(|isa| {
        for (size, picture) in
            [((2, 2), (4, 6)), ((2, 3), (7, 7)), ((1, 1), (3, 2)), ((4, 4), (9, 17))]
        {
            let x = values(&[2, picture.0, picture.1, 5], 1);
            let k = size.0 * size.1 * 5;
            for norm in [None, Some(&norm)] {
                let options = Options { window: Some(Window::patches(size)), norm, ..PLAIN };
                let (found, expected) = both(&x, 9, k, &options);
                assert_close(
                    &found,
                    &expected,
                    allowed(isa, 3e-5),
                    &format!("{isa:?} {size:?} of {picture:?}"),
                );
            }
            let bytes = ((&x + 1.0).unwrap() * 127.0).unwrap().to_dtype(DType::U8).unwrap();
            let options = Options { window: Some(Window::patches(size)), ..PLAIN };
            let (found, expected) = both(&bytes, 9, k, &options);
            assert_close(&found, &expected, allowed(isa, 4e-3), &format!("{isa:?} bytes {size:?}"));
        }
    });
}

#[test]
fn moves_windows_over_pictures_with_zeros_around_them() {
    let around = |size: usize| Window {
        size: (size, size),
        stride: (1, 1),
        rows: (size / 2, size / 2),
        columns: (size / 2, size / 2),
    };
    let halving = Window { size: (3, 3), stride: (2, 2), rows: (0, 1), columns: (0, 1) };
    let odd = Window { size: (2, 5), stride: (3, 1), rows: (4, 2), columns: (1, 7) };
    everywhere(|isa| {
        for window in [around(3), around(1), around(5), halving, odd] {
            for (picture, channels) in [((1, 1), 3), ((6, 4), 5), ((7, 9), 20), ((33, 2), 4)] {
                let x = values(&[2, picture.0, picture.1, channels], 1);
                let k = window.size.0 * window.size.1 * channels;
                let (down, across) = window.grid(picture.0, picture.1);
                let other = values(&[2, down, across, 9], 6);
                let combine = Combine::Add(&other);
                let options = Options { window: Some(window), combine, ..PLAIN };
                let (found, expected) = both(&x, 9, k, &options);
                let what = format!("{isa:?} {window:?} of {picture:?}");
                assert_close(&found, &expected, allowed(isa, 4e-5), &what);
            }
        }
    });
}

#[test]
fn bfloat16_is_exact_but_for_rounding() {
    everywhere(|isa| {
        for (rows, k, n) in [(1, 1, 1), (5, 33, 70), (130, 100, 40), (784, 64, 96)] {
            let x = values(&[rows, k], 1).to_dtype(DType::BF16).unwrap();
            let weight = values(&[n, k], 2).to_dtype(DType::BF16).unwrap();
            let (bias, other) = (values(&[n], 3), rounded(&values(&[rows, n], 4)));
            let weights = Weights::new(&weight, &bias).unwrap();
            // In f32: only the order of the sums differs.
            let options = Options { combine: Combine::Add(&other), ..PLAIN };
            let found = forward(&x, &weights, &options).unwrap();
            let (x32, weight) = (rounded(&x), rounded(&weight));
            let expected = reference::forward(&x32, &weight, &bias, &options).unwrap();
            // A device's library rounds the product to bfloat16 before anything is done to it.
            let tolerance = if is_emulated() { 0.06 } else { 4e-5 };
            assert_close(&found, &expected, tolerance, &format!("{isa:?} {rows} {k} {n}"));
            // To bfloat16: half a unit of the last of its 8 bits.
            let other = other.to_dtype(DType::BF16).unwrap();
            let options = Options { combine: Combine::Add(&other), dtype: DType::BF16, ..PLAIN };
            let found = forward(&x, &weights, &options).unwrap();
            assert_eq!(found.dtype(), DType::BF16);
            assert_close(&rounded(&found), &rounded(&expected), 0.13, &format!("{isa:?} bf16"));
        }
    });
}

/// Convolutions of three by three pixels, with fewer products where there is an engine for that.
#[test]
fn convolutions_agree_with_the_reference() {
    everywhere(|isa| {
        let mut fewer = 0;
        for (c, n) in [(32, 32), (64, 96), (256, 64), (48, 33), (3, 32)] {
            let weight = values(&[n, c, 3, 3], 2);
            let bias = values(&[n], 3);
            let weights = Weights::of_convolution(&weight, &bias, Window::AROUND).unwrap();
            fewer += usize::from(matches!(weights.0, super::Kind::Winograd(_)));
            let rows = weight.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
            let rows = rows.flatten_from(1).unwrap();
            for (height, width) in [(1, 1), (2, 2), (5, 7), (16, 9), (3, 64), (40, 40)] {
                let x = values(&[3, height, width, c], 1);
                let other = values(&[3, height, width, n], 4);
                let window = Some(Window::AROUND);
                for (activation, combine) in [
                    (Activation::Identity, Combine::Keep),
                    (Activation::Silu, Combine::Add(&other)),
                    (Activation::Relu, Combine::Multiply(&other)),
                ] {
                    let options = Options { window, activation, combine, ..PLAIN };
                    let found = forward(&x, &weights, &options).unwrap();
                    let expected = reference::forward(&x, &rows, &bias, &options).unwrap();
                    let tolerance = 2e-5 * (9.0 * c as f32 / 250.0).max(1.0);
                    let what = format!("{isa:?} {c} -> {n} of {height} x {width} {activation:?}");
                    assert_close(&found, &expected, allowed(isa, tolerance), &what);
                }
                // Pictures do not depend on those beside them.
                let options = Options { window, ..PLAIN };
                let all = forward(&x, &weights, &options).unwrap();
                let second = forward(&x.narrow(0, 1, 1).unwrap(), &weights, &options).unwrap();
                let what = format!("{isa:?} alone");
                if !is_emulated() {
                    assert_close(&second, &all.narrow(0, 1, 1).unwrap(), 0.0, &what);
                }
            }
        }
        let is_plain = isa < Isa::Amx && !is_emulated();
        assert_eq!(fewer, if is_plain { 3 } else { 0 }, "{isa:?}");
    });
}

/// Engines that multiply `f32` numbers keep weights of 16 bits as they are, and give what they give for the same numbers
/// in 32 bits, to the last bit.
#[test]
fn weights_of_16_bits_stay_so_and_lose_nothing() {
    everywhere(|isa| {
        if isa > Isa::Avx512 || is_emulated() {
            return;
        }
        assert_eq!(bytes_of_weight(DType::BF16, &Device::Cpu), 2);
        assert_eq!(bytes_of_weight(DType::F32, &Device::Cpu), 4);
        // The last ones go through the depth in parts, and through two layers at once.
        for (rows, k, n) in [(1, 1, 1), (3, 17, 9), (70, 100, 65), (300, 33, 130), (140, 9000, 40)]
        {
            let x = rounded(&values(&[rows, k], 1));
            let weight = rounded(&values(&[n, k], 2));
            let bias = values(&[n], 3);
            let narrow = Weights::new(&weight.to_dtype(DType::BF16).unwrap(), &bias).unwrap();
            let wide = Weights::new(&weight, &bias).unwrap();
            let of = |weights: &Weights| forward(&x, weights, &PLAIN).unwrap();
            let what = format!("{isa:?} {rows} {k} {n}");
            assert_close(&of(&narrow), &of(&wide), 0.0, &what);
            let second = rounded(&values(&[24, n], 4));
            let bias = values(&[24], 5);
            let two = |first: &Weights, dtype| {
                let second = Weights::new(&second.to_dtype(dtype).unwrap(), &bias).unwrap();
                forward_two(&x, [first, &second], Activation::GeluTanh, &PLAIN).unwrap()
            };
            assert_close(&two(&narrow, DType::BF16), &two(&wide, DType::F32), 0.0, &what);
        }
    });
}

#[test]
fn takes_strided_and_offset_input_and_refuses_what_does_not_fit() {
    everywhere(|isa| {
        let x = values(&[4, 9, 6], 4).transpose(0, 1).unwrap().narrow(0, 2, 5).unwrap();
        let other = values(&[3, 5, 4], 5).permute((1, 2, 0)).unwrap();
        let (found, expected) = both(&x, 3, 6, &Options { combine: Combine::Add(&other), ..PLAIN });
        assert_close(&found, &expected, allowed(isa, 1e-5), "strided");
        let weights = Weights::new(&values(&[3, 5], 5), &values(&[3], 6)).unwrap();
        assert!(forward(&x, &weights, &PLAIN).is_err());
        assert!(Weights::new(&values(&[3, 5], 5), &values(&[4], 6)).is_err());
        let x = values(&[2, 5], 1);
        let other = values(&[2, 4], 1);
        assert!(
            forward(&x, &weights, &Options { combine: Combine::Add(&other), ..PLAIN }).is_err()
        );
        let norm =
            norm::Weights::new(Kind::Layer, &values(&[3], 1), &values(&[3], 1), 0.1).unwrap();
        assert!(forward(&x, &weights, &Options { norm: Some(&norm), ..PLAIN }).is_err());
    });
}

#[test]
fn an_entry_does_not_depend_on_its_neighbours() {
    let weights = Weights::new(&values(&[65, 48], 2), &values(&[65], 3)).unwrap();
    let options = Options { activation: Activation::GeluErf, ..PLAIN };
    everywhere(|isa| {
        for rows in [1, 5, 130, 784] {
            let x = values(&[7, rows, 48], 4);
            let all = forward(&x, &weights, &options).unwrap();
            for i in 0..7 {
                let found = forward(&x.narrow(0, i, 1).unwrap(), &weights, &options).unwrap();
                let expected = all.narrow(0, i, 1).unwrap();
                assert_close(&found, &expected, 0.0, &format!("{isa:?} {rows} rows"));
            }
        }
    });
}

#[test]
fn weights_without_outputs_give_nothing() {
    let weight = Tensor::zeros((0, 4), DType::F32, &Device::Cpu).unwrap();
    let bias = Tensor::zeros(0, DType::F32, &Device::Cpu).unwrap();
    let weights = Weights::new(&weight, &bias).unwrap();
    assert!(forward(&values(&[3, 4], 1), &weights, &PLAIN).is_ok_and(|y| y.dims() == [3, 0]));
}

#[test]
fn two_layers_are_one_and_then_the_other_to_the_last_bit() {
    everywhere(|isa| {
        for dtype in [DType::F32, DType::BF16] {
            // Few rows, many rows; hidden widths that fill chunks and that do not.
            for (rows, k, hidden, n) in [
                (1, 8, 4, 3),
                (1000, 40, 70, 33),
                (900, 64, 3300, 35),
                (700, 33, 96, 64),
                (0, 8, 8, 8),
            ] {
                let x = values(&[1, rows, k], 1).to_dtype(dtype).unwrap();
                let other = values(&[1, rows, n], 4).to_dtype(dtype).unwrap();
                let norm =
                    norm::Weights::new(Kind::Layer, &values(&[k], 7), &values(&[k], 8), 1e-6)
                        .unwrap();
                let layer = |n: usize, k: usize| {
                    let weight = values(&[n, k], n as u64).to_dtype(dtype).unwrap();
                    Weights::new(&weight, &values(&[n], 3)).unwrap()
                };
                let (first, second) = (layer(hidden, k), layer(n, hidden));
                let between = Activation::GeluErf;
                let inner = Options { norm: Some(&norm), activation: between, dtype, ..PLAIN };
                let outer = Options { combine: Combine::Add(&other), dtype, ..PLAIN };
                let expected =
                    forward(&forward(&x, &first, &inner).unwrap(), &second, &outer).unwrap();
                let options = Options { norm: Some(&norm), ..outer };
                let found = forward_two(&x, [&first, &second], between, &options).unwrap();
                let bits = |t: &Tensor| {
                    let t = t.to_dtype(DType::F32).unwrap().flatten_all().unwrap();
                    t.to_vec1::<f32>().unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>()
                };
                assert_eq!(
                    bits(&found),
                    bits(&expected),
                    "{isa:?} {dtype:?} {rows} {k} {hidden} {n}"
                );
            }
        }
    });
}

#[test]
fn convolutions_by_warpgroups_give_what_the_reference_does() {
    let around = Window::AROUND;
    let halves = Window { stride: (2, 2), rows: (0, 1), columns: (0, 1), ..around };
    let wide = Window { size: (1, 5), stride: (3, 1), rows: (0, 0), columns: (2, 2) };
    for (shape, n, window) in [
        ([1, 1, 1, 64], 2, around),
        ([2, 9, 17, 64], 130, around),
        ([1, 12, 11, 192], 256, around),
        ([3, 8, 6, 128], 72, halves),
        ([1, 10, 40, 64], 140, wide),
    ] {
        let k = window.size.0 * window.size.1 * shape[3];
        let low = |shape: &[usize], seed| values(shape, seed).to_dtype(DType::BF16).unwrap();
        let (x, weight, bias) = (low(&shape, 1), low(&[n, k], 2), values(&[n], 3));
        let layer = cuda::Layer { weight: &weight, bias: &bias, rounded: &bias };
        let mut dims = super::shape(&x, Some(window)).unwrap().0;
        dims.push(n);
        let other = low(&dims, 4);
        for (activation, combine) in [
            (Activation::Identity, Combine::Keep),
            (Activation::Silu, Combine::Add(&other)),
            (Activation::Relu, Combine::Multiply(&other)),
        ] {
            let window = Some(window);
            let options = Options { window, activation, combine, dtype: DType::BF16, ..PLAIN };
            let found =
                emulated(&|| cuda::forward_by(Units::Warpgroups, &x, layer, &options).unwrap());
            let options = Options { dtype: DType::F32, ..options };
            let expected =
                reference::forward(&rounded(&x), &rounded(&weight), &bias, &options).unwrap();
            let size = crate::kernels::largest(&expected).unwrap();
            assert_close(&rounded(&found), &expected, size / 128.0, &format!("{shape:?} {n}"));
        }
    }
    // What the kernel does not take goes another way.
    let (x, weight) = (values(&[1, 5, 5, 48], 1), values(&[8, 9 * 48], 2));
    let (x, weight) = (x.to_dtype(DType::BF16).unwrap(), weight.to_dtype(DType::BF16).unwrap());
    let bias = values(&[8], 3);
    let layer = cuda::Layer { weight: &weight, bias: &bias, rounded: &bias };
    let options = Options { window: Some(around), dtype: DType::BF16, ..PLAIN };
    let by = |units| rounded(&cuda::forward_by(units, &x, layer, &options).unwrap());
    let (found, expected) = emulated(&|| (by(Units::Warpgroups), by(Units::Warps)));
    assert_close(&found, &expected, 0.0, "48 channels");
    let off = emulated(&|| convolution::difference(&Device::Cpu).unwrap());
    assert!(off > 0.0 && off < 0.01, "{off}");
}
