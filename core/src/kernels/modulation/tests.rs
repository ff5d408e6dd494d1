use candle_core::{DType, Tensor};

use super::super::testing::{assert_close, everywhere, rounded, values};
use super::{Gated, Shifted, add_gated, modulate};

/// By the formulas, in `f32`, a row at a time.
fn expected(x: &Tensor, runs: &[(usize, Tensor, Tensor)], eps: f32) -> Tensor {
    let rows: Vec<Vec<f32>> = x.to_vec2().unwrap();
    let width = rows[0].len();
    let mut vectors = runs.iter().flat_map(|(rows, shift, scale)| {
        let pair = (shift.to_vec1::<f32>().unwrap(), scale.to_vec1::<f32>().unwrap());
        vec![pair; *rows]
    });
    let mut all = Vec::new();
    for row in &rows {
        let (shift, scale) = vectors.next().unwrap();
        let mean = row.iter().sum::<f32>() / width as f32;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / width as f32;
        let each = row.iter().zip(&shift).zip(&scale);
        all.extend(each.map(|((x, shift), scale)| {
            (x - mean) / (variance + eps).sqrt() * (1.0 + scale) + shift
        }));
    }
    Tensor::from_vec(all, x.shape(), x.device()).unwrap()
}

#[test]
fn agrees_with_the_formulas() {
    everywhere(|isa| {
        for (rows, width) in [(vec![1], 8), (vec![3, 4], 40), (vec![5, 1, 30], 1032)] {
            for dtype in [DType::F32, DType::BF16] {
                let count = rows.iter().sum();
                let low = |x: Tensor| x.to_dtype(dtype).unwrap();
                let [x, y] = [1, 2].map(|seed| low(values(&[count, width], seed)));
                let vectors: Vec<[Tensor; 3]> = (0..rows.len() as u64)
                    .map(|i| [3, 4, 5].map(|seed| low(values(&[width], seed + 10 * i))))
                    .collect();
                let runs = rows.iter().zip(&vectors);
                let shifted: Vec<_> = runs
                    .clone()
                    .map(|(rows, [shift, scale, _])| {
                        let (shift, scale) = (shift.clone(), scale.clone());
                        Shifted { rows: *rows, shift, scale }
                    })
                    .collect();
                let found = modulate(&x, &shifted, 1e-6).unwrap();
                let exact = |x: &Tensor| x.to_dtype(DType::F32).unwrap();
                let wide: Vec<_> = runs
                    .clone()
                    .map(|(rows, [shift, scale, _])| (*rows, exact(shift), exact(scale)))
                    .collect();
                let tolerance = if dtype == DType::F32 { 2e-5 } else { 3e-2 };
                let what = format!("{isa:?} {rows:?} {width} {dtype:?}");
                let expected = expected(&exact(&x), &wide, 1e-6);
                assert_close(&exact(&found), &expected, tolerance, &what);

                let gated: Vec<_> = runs
                    .map(|(rows, [.., gate])| Gated { rows: *rows, gate: gate.clone() })
                    .collect();
                let found = add_gated(&x, &y, &gated).unwrap();
                let gates: Vec<_> = gated
                    .iter()
                    .map(|run| exact(&run.gate).broadcast_as((run.rows, width)).unwrap())
                    .collect();
                let gates = Tensor::cat(&gates, 0).unwrap();
                let sum = (exact(&x) + (exact(&y) * gates).unwrap()).unwrap();
                let sum = if dtype == DType::BF16 { rounded(&sum) } else { sum };
                let tolerance = if dtype == DType::F32 { 1e-6 } else { 2e-2 };
                assert_close(&exact(&found), &sum, tolerance, &what);
            }
        }
    });
}

#[test]
fn refuses_what_does_not_fit() {
    let x = values(&[4, 8], 1);
    let run = |rows: usize, width: usize| {
        vec![Shifted { rows, shift: values(&[width], 2), scale: values(&[width], 3) }]
    };
    assert!(modulate(&x, &run(4, 8), 1e-6).is_ok());
    assert!(modulate(&x, &run(3, 8), 1e-6).is_err());
    assert!(modulate(&x, &run(4, 7), 1e-6).is_err());
    let low = x.to_dtype(DType::BF16).unwrap();
    assert!(modulate(&low, &run(4, 8), 1e-6).is_err(), "vectors of another type");
    let gate = || vec![Gated { rows: 4, gate: values(&[8], 2) }];
    assert!(add_gated(&x, &values(&[3, 8], 2), &gate()).is_err());
    assert!(add_gated(&low, &low, &gate()).is_err(), "a gate of another type");
}
