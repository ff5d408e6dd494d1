use candle_core::{DType, Device, Tensor};

use super::super::cuda::Units;
use super::super::norm::{self, Kind};
use super::super::testing::{
    allowed, assert_close, emulated, everywhere, is_emulated, rounded, values,
};
use super::{Options, Rotation, Run, Windows, cuda, forward, forward_joint, reference};

fn options(scale: f32) -> Options {
    Options { scale: vec![scale], ..Options::default() }
}

/// Both results.
fn both(
    [q, k, v]: [&Tensor; 3],
    options: &Options,
    rotation: Option<&Rotation>,
) -> (Tensor, Tensor) {
    let found = forward(q, k, v, options, rotation).unwrap();
    let heads = q.dim(1).unwrap();
    let scale = match options.scale[..] {
        [one] => vec![one; heads],
        _ => options.scale.clone(),
    };
    (found, reference::forward(q, k, v, options, &scale, rotation).unwrap())
}

#[test]
fn agrees_with_the_reference_over_odd_shapes() {
    let shapes = [
        (1, 1, 1, 1, 1),
        (2, 3, 5, 7, 4),
        (1, 2, 130, 130, 32),
        (3, 1, 64, 65, 8),
        (1, 1, 300, 700, 64),
        (1, 2, 17, 513, 33),
        (1, 1, 40, 257, 128),
    ];
    everywhere(|isa| {
        for (b, h, n, m, d) in shapes {
            let q = (values(&[b, h, n, d], 1) * 3.0).unwrap();
            let (k, v) = (values(&[b, h, m, d], 2), values(&[b, h, m, d], 3));
            let (found, expected) = both([&q, &k, &v], &options(0.5), None);
            assert_close(
                &found,
                &expected,
                allowed(isa, 4e-6),
                &format!("{isa:?} {:?}", (b, h, n, m, d)),
            );
        }
    });
}

#[test]
fn of_nothing_is_nothing() {
    everywhere(|_| {
        for (b, h, n, m, d) in [(0, 2, 3, 3, 4), (1, 0, 3, 3, 4), (1, 2, 0, 3, 4), (1, 2, 3, 0, 4)]
        {
            let (q, k) = (values(&[b, h, n, d], 1), values(&[b, h, m, d], 2));
            let found = forward(&q, &k, &k, &options(1.0), None).unwrap();
            assert_eq!(found.dims(), &[b, n, h * d]);
        }
    });
}

#[test]
fn large_scores_in_any_order_do_not_overflow() {
    everywhere(|isa| {
        for sign in [1.0, -1.0] {
            let k = Tensor::arange(0f32, 600.0, &Device::Cpu).unwrap();
            let k = (k * sign).unwrap().reshape((1, 1, 600, 1)).unwrap();
            let (q, v) = (values(&[1, 1, 3, 1], 1), values(&[1, 1, 600, 1], 3));
            let (found, expected) = both([&q, &k, &v], &options(3.0), None);
            assert_close(&found, &expected, 1e-5, &format!("{isa:?} {sign}"));
        }
    });
}

#[test]
fn large_factors_multiply_no_error_of_split_numbers() {
    everywhere(|isa| {
        for (n, d) in [(49, 32), (144, 24)] {
            // As Swin has them: of length one, and up to 100 times their product.
            let unit = |seed| {
                let x = values(&[1, 2, n, d], seed);
                let length = x.sqr().unwrap().sum_keepdim(3).unwrap().sqrt().unwrap();
                x.broadcast_div(&length).unwrap()
            };
            let v = values(&[1, 2, n, d], 3);
            let (found, expected) = both([&unit(1), &unit(2), &v], &options(100.0), None);
            // Two parts would be off by ten times that.
            assert_close(&found, &expected, 4e-5, &format!("{isa:?} {n} {d}"));
        }
    });
}

#[test]
fn biases_scales_norms_and_rotations() {
    everywhere(|isa| {
        let (b, h, n, d) = (2, 3, 21, 12);
        let q = (values(&[b, h, n, d], 1) * 3.0).unwrap();
        let (k, v) = (values(&[b, h, n, d], 2), values(&[b, h, n, d], 3));
        let norm = |seed| {
            norm::Weights::new(Kind::Layer, &values(&[d], seed), &values(&[d], seed + 1), 1e-6)
        };
        let norms = Some((norm(5).unwrap(), norm(7).unwrap()));
        let bias = Some((values(&[h, n, n], 9) * 10.0).unwrap());
        let scale = vec![0.3, 1.0, 7.0];
        let options = Options { scale, norms, bias, ..Options::default() };
        for prefix in [0, 1, 5, n] {
            let angles = (values(&[n - prefix, d], 11) * 3.0).unwrap();
            let rotation =
                Rotation { sin: angles.sin().unwrap(), cos: angles.cos().unwrap(), prefix };
            let (found, expected) = both([&q, &k, &v], &options, Some(&rotation));
            assert_close(&found, &expected, allowed(isa, 2e-5), &format!("{isa:?} {prefix}"));
        }
        assert!(
            forward(
                &q,
                &k,
                &v,
                &self::options(1.0),
                Some(&Rotation {
                    sin: values(&[n, d - 2], 1),
                    cos: values(&[n, d - 2], 1),
                    prefix: 0,
                })
            )
            .is_err()
        );
    });
}

#[test]
fn windows_keep_tokens_apart() {
    everywhere(|isa| {
        let (b, h, n, d) = (2, 2, 36, 8);
        let [q, k, v] = [1, 2, 3].map(|seed| values(&[b, h, n, d], seed));
        for length in [1, 6, 9, 36] {
            // A fixed disorder: 5 and 36 have no common factor.
            let tokens: Vec<u32> = (0..n as u32).map(|i| (5 * i + 3) % n as u32).collect();
            let tokens = Tensor::from_vec(tokens, (n / length, length), &Device::Cpu).unwrap();
            let regions: Vec<f32> = (0..n).map(|i| (i % 4 / 2) as f32).collect();
            let regions = Tensor::from_vec(regions, (n / length, length), &Device::Cpu).unwrap();
            for regions in [None, Some(regions)] {
                let bias = Some((values(&[h, length, length], 4) * 10.0).unwrap());
                let windows = Some(Windows::new(tokens.clone(), regions).unwrap());
                let options = Options { scale: vec![1.0], bias, windows, ..Options::default() };
                let (found, expected) = both([&q, &k, &v], &options, None);
                assert_close(&found, &expected, allowed(isa, 3e-6), &format!("{isa:?} {length}"));
            }
        }
    });
    let twice = Tensor::new(&[[0u32, 1], [1, 2]], &Device::Cpu).unwrap();
    assert!(Windows::new(twice, None).is_err());
}

#[test]
fn bfloat16_is_exact_but_for_rounding() {
    everywhere(|isa| {
        for (n, m, d) in [(1, 1, 1), (33, 300, 40), (64, 64, 64)] {
            let [q, k, v] = [(1, n), (2, m), (3, m)].map(|(seed, n)| values(&[1, 2, n, d], seed));
            let low = [&q, &k, &v].map(|x| x.to_dtype(DType::BF16).unwrap());
            let found = forward(&low[0], &low[1], &low[2], &options(0.4), None).unwrap();
            let exact = low.map(|x| rounded(&x));
            let (_, expected) = both([&exact[0], &exact[1], &exact[2]], &options(0.4), None);
            assert_close(&rounded(&found), &expected, 8e-3, &format!("{isa:?} {n} {m} {d}"));
        }
    });
}

#[test]
fn takes_permuted_views_of_one_packed_tensor() {
    everywhere(|isa| {
        // (b, n, 3, h, d), as one matrix product for q, k and v leaves it.
        let packed = values(&[2, 70, 3, 4, 8], 5).permute((2, 0, 3, 1, 4)).unwrap();
        let [q, k, v] = [0, 1, 2].map(|i| packed.get(i).unwrap());
        let (found, expected) = both([&q, &k, &v], &options(0.35), None);
        assert_close(&found, &expected, allowed(isa, 2e-6), &format!("{isa:?} packed"));
        let turned = values(&[2, 4, 8, 70], 6).transpose(2, 3).unwrap();
        let (found, expected) = both([&turned, &k, &v], &options(0.35), None);
        assert_close(&found, &expected, allowed(isa, 2e-6), &format!("{isa:?} rows with gaps"));
        assert!(forward(&q, &k.narrow(1, 0, 2).unwrap(), &v, &options(0.35), None).is_err());
    });
}

#[test]
fn heads_share_keys_and_look_back_only() {
    // Heads of queries and of keys, queries, keys, values: rows of a panel end in different blocks
    // of keys, and there are fewer and more heads than the threads want.
    let shapes = [
        (1, 6, 2, 9, 9, 12),
        (2, 28, 4, 33, 33, 8),
        (1, 4, 1, 261, 261, 16),
        (1, 3, 3, 520, 520, 32),
        (1, 2, 1, 7, 300, 33),
        (2, 4, 2, 1, 256, 64),
        (1, 40, 20, 3, 70, 4),
    ];
    everywhere(|isa| {
        for (b, h, g, n, m, d) in shapes {
            let q = (values(&[b, h, n, d], 1) * 3.0).unwrap();
            let (k, v) = (values(&[b, g, m, d], 2), values(&[b, g, m, d], 3));
            for causal in [false, true] {
                let options = Options { causal, ..options(0.5) };
                let what = format!("{isa:?} {:?} {causal}", (b, h, g, n, m, d));
                let (found, expected) = both([&q, &k, &v], &options, None);
                assert_close(&found, &expected, allowed(isa, 3e-6), &what);
                let low = [&q, &k, &v].map(|x| x.to_dtype(DType::BF16).unwrap());
                let found = forward(&low[0], &low[1], &low[2], &options, None).unwrap();
                let exact = low.map(|x| rounded(&x));
                let (_, expected) = both([&exact[0], &exact[1], &exact[2]], &options, None);
                assert_close(&rounded(&found), &expected, 1e-2, &format!("{what} bf16"));
            }
        }
    });
    let [q, k] = [(4, 3), (2, 2)].map(|(h, n)| values(&[1, h, n, 4], 1));
    assert!(forward(&q, &k, &k, &options(1.0), None).is_ok());
    let causal = Options { causal: true, ..options(1.0) };
    assert!(forward(&q, &k, &k, &causal, None).is_err(), "a query before the first key");
    let k = values(&[1, 3, 3, 4], 2);
    assert!(forward(&q, &k, &k, &options(1.0), None).is_err(), "4 heads cannot share 3");
}

#[test]
fn looking_back_goes_with_everything_else() {
    everywhere(|isa| {
        let (b, h, g, n, d) = (2, 6, 2, 35, 12);
        let q = values(&[b, h, n, d], 1);
        let (k, v) = (values(&[b, g, n, d], 2), values(&[b, g, n, d], 3));
        let norm = |seed| {
            norm::Weights::new(Kind::Rms, &values(&[d], seed), &values(&[d], seed + 1), 1e-6)
        };
        let angles = (values(&[n, d], 11) * 3.0).unwrap();
        let rotation =
            Rotation { sin: angles.sin().unwrap(), cos: angles.cos().unwrap(), prefix: 0 };
        for length in [n, 7] {
            // A fixed disorder: 4 and 35 have no common factor.
            let tokens: Vec<u32> = (0..n as u32).map(|i| (4 * i + 3) % n as u32).collect();
            let tokens = Tensor::from_vec(tokens, (n / length, length), &Device::Cpu).unwrap();
            let windows = (length < n).then(|| Windows::new(tokens, None).unwrap());
            let norms = Some((norm(5).unwrap(), norm(7).unwrap()));
            let bias = Some(values(&[h, length, length], 9));
            let options = Options { scale: vec![0.4], norms, bias, windows, causal: true };
            let (found, expected) = both([&q, &k, &v], &options, Some(&rotation));
            assert_close(&found, &expected, allowed(isa, 3e-6), &format!("{isa:?} {length}"));
        }
    });
}

#[test]
fn what_follows_changes_nothing() {
    everywhere(|isa| {
        let causal = Options { causal: true, ..options(0.5) };
        let [q, k, v] = [(1, 4), (2, 2), (3, 2)].map(|(seed, h)| values(&[1, h, 300, 16], seed));
        let all = forward(&q, &k, &v, &causal, None).unwrap();
        for n in [1, 17, 256, 299] {
            let [q, k, v] = [&q, &k, &v].map(|x| x.narrow(2, 0, n).unwrap());
            let some = forward(&q, &k, &v, &causal, None).unwrap();
            let tolerance = if is_emulated() { 1e-6 } else { 0.0 };
            assert_close(&some, &all.narrow(1, 0, n).unwrap(), tolerance, &format!("{isa:?} {n}"));
        }
    });
}

#[test]
fn bfloat16_goes_with_everything_else() {
    // Tiles of queries and keys that end in the middle, and every size of heads.
    let shapes = [
        (1, 2, 1, 9, 8),
        (2, 4, 2, 70, 24),
        (1, 2, 2, 130, 64),
        (1, 1, 1, 200, 80),
        (2, 2, 1, 65, 128),
    ];
    everywhere(|isa| {
        for (b, h, g, n, d) in shapes {
            let [q, k, v] = [(1, h), (2, g), (3, g)].map(|(seed, heads)| {
                // As linear layers leave them: tokens outside, heads inside.
                let x = values(&[b, n, heads, d], seed).to_dtype(DType::BF16).unwrap();
                x.transpose(1, 2).unwrap()
            });
            let norm = |seed| {
                norm::Weights::new(Kind::Rms, &values(&[d], seed), &values(&[d], seed + 1), 1e-6)
            };
            let angles = (values(&[n - 1, d], 11) * 3.0).unwrap();
            let rotation =
                Rotation { sin: angles.sin().unwrap(), cos: angles.cos().unwrap(), prefix: 1 };
            for with in 0..8 {
                let norms = (with % 2 == 1).then(|| (norm(5).unwrap(), norm(7).unwrap()));
                let bias = (with / 2 % 2 == 1).then(|| values(&[h, n, n], 9));
                let scale = (1..=h).map(|i| 0.2 * i as f32).collect();
                let options = Options { scale, norms, bias, windows: None, causal: with > 3 };
                let rotation = (with % 3 == 0).then_some(&rotation);
                let found = forward(&q, &k, &v, &options, rotation).unwrap();
                let exact = [&q, &k, &v].map(rounded);
                let (_, expected) = both([&exact[0], &exact[1], &exact[2]], &options, rotation);
                let what = format!("{isa:?} {:?} {with}", (b, h, n, d));
                assert_close(&rounded(&found), &expected, 1.5e-2, &what);
            }
        }
    });
}

#[test]
fn bfloat16_keeps_windows_apart() {
    everywhere(|isa| {
        let (b, h, n, d) = (2, 2, 144, 32);
        let [q, k, v] =
            [1, 2, 3].map(|seed| values(&[b, h, n, d], seed).to_dtype(DType::BF16).unwrap());
        for length in [9, 72] {
            // A fixed disorder: 5 and 144 have no common factor.
            let tokens: Vec<u32> = (0..n as u32).map(|i| (5 * i + 3) % n as u32).collect();
            let tokens = Tensor::from_vec(tokens, (n / length, length), &Device::Cpu).unwrap();
            let regions: Vec<f32> = (0..n).map(|i| (i % 4 / 2) as f32).collect();
            let regions = Tensor::from_vec(regions, (n / length, length), &Device::Cpu).unwrap();
            for regions in [None, Some(regions)] {
                let bias = Some(values(&[h, length, length], 4));
                let windows = Some(Windows::new(tokens.clone(), regions).unwrap());
                let options = Options { scale: vec![1.0], bias, windows, ..Options::default() };
                let found = forward(&q, &k, &v, &options, None).unwrap();
                let exact = [&q, &k, &v].map(rounded);
                let (_, expected) = both([&exact[0], &exact[1], &exact[2]], &options, None);
                assert_close(&rounded(&found), &expected, 1e-2, &format!("{isa:?} {length}"));
            }
        }
    });
}

#[test]
fn many_queries_are_taken_in_runs() {
    // Scores of 600 MB.
    let (n, m) = (300, 500_000);
    let [q, k, v] = [(1, n), (2, m), (3, m)].map(|(seed, n)| values(&[1, 1, n, 2], seed));
    let options = Options { bias: None, causal: true, ..options(0.5) };
    let found = reference::forward(&q, &k, &v, &options, &[0.5], None).unwrap();
    let last = q.narrow(2, n - 1, 1).unwrap();
    let expected = reference::forward(&last, &k, &v, &options, &[0.5], None).unwrap();
    assert_close(&found.narrow(1, n - 1, 1).unwrap(), &expected, 1e-6, "the last query");
}

#[test]
fn runs_with_norms_of_their_own_attend_to_each_other() {
    everywhere(|isa| {
        for (lengths, heads, d) in [(vec![7, 30], 2, 16), (vec![5], 3, 8), (vec![3, 1, 70], 1, 128)]
        {
            let n = lengths.iter().sum();
            let angles = (values(&[n, d], 11) * 3.0).unwrap();
            let rotation =
                Rotation { sin: angles.sin().unwrap(), cos: angles.cos().unwrap(), prefix: 0 };
            for dtype in [DType::F32, DType::BF16] {
                let norms: Vec<_> = (0..2 * lengths.len() as u64)
                    .map(|i| {
                        let (weight, bias) = (values(&[d], 20 + i), values(&[d], 40 + i));
                        norm::Weights::new(Kind::Rms, &weight, &bias, 1e-6).unwrap()
                    })
                    .collect();
                // (n, 3, h, d), as one matrix product leaves it.
                let packed: Vec<_> = lengths
                    .iter()
                    .zip(1..)
                    .map(|(n, seed)| values(&[*n, 3, heads, d], seed).to_dtype(dtype).unwrap())
                    .collect();
                let part = |packed: &Tensor, i| packed.narrow(1, i, 1).unwrap().squeeze(1).unwrap();
                let parts: Vec<_> =
                    packed.iter().map(|packed| [0, 1, 2].map(|i| part(packed, i))).collect();
                let runs: Vec<_> = parts
                    .iter()
                    .zip(norms.chunks(2))
                    .map(|([q, k, v], norms)| Run { q, k, v, norms: (&norms[0], &norms[1]) })
                    .collect();
                let found = forward_joint(&runs, &options(0.3), Some(&rotation)).unwrap();
                let joined = |i: usize| {
                    let normed = parts.iter().enumerate().map(|(run, parts)| {
                        let x = parts[i].to_dtype(DType::F32).unwrap();
                        if i == 2 { x } else { norm::plain(&x, &norms[2 * run + i]).unwrap() }
                    });
                    let all = Tensor::cat(&normed.collect::<Vec<_>>(), 0).unwrap();
                    all.transpose(0, 1).unwrap().unsqueeze(0).unwrap()
                };
                let (q, k, v) = (joined(0), joined(1), joined(2));
                let scale = vec![0.3; heads];
                let expected =
                    reference::forward(&q, &k, &v, &options(0.3), &scale, Some(&rotation)).unwrap();
                let tolerance = if dtype == DType::F32 { allowed(isa, 5e-6) } else { 1.5e-2 };
                let found = found.to_dtype(DType::F32).unwrap();
                assert_close(
                    &found,
                    &expected,
                    tolerance,
                    &format!("{isa:?} {lengths:?} {dtype:?}"),
                );
            }
        }
    });
}

#[test]
fn warpgroups_give_what_the_reference_does() {
    for (b, heads, groups, n, m, d) in [
        (1, 2, 2, 300, 300, 128),
        (2, 2, 1, 1, 1, 64),
        (1, 1, 1, 128, 128, 128),
        (1, 2, 2, 130, 257, 64),
        (1, 1, 1, 5, 700, 128),
    ] {
        // As linear layers leave them: tokens outside, heads inside.
        let part = |heads: usize, count: usize, seed| {
            let x = values(&[b, count, heads, d], seed).to_dtype(DType::BF16).unwrap();
            x.transpose(1, 2).unwrap()
        };
        let (q, k, v) = (part(heads, n, 1), part(groups, m, 2), part(groups, m, 3));
        let scale: Vec<f32> = (0..heads).map(|head| 0.3 + head as f32).collect();
        let plain = Options::default();
        let exact = [&q, &k, &v].map(rounded);
        let expected = reference::attend(&exact[0], &exact[1], &exact[2], &plain, &scale).unwrap();
        let found = emulated(&|| {
            cuda::flash_by(Units::Warpgroups, [&q, &k, &v], &plain, &scale, d).unwrap()
        });
        assert_close(&rounded(&found), &expected, 1e-2, &format!("{b} {heads} {n} {m} {d}"));
    }
    for d in [64, 128] {
        let off = emulated(&|| cuda::difference_of_units(&Device::Cpu, d).unwrap());
        assert!(off > 0.0 && off < 0.01, "{off}");
    }
}
