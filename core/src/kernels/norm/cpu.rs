//! Normalisation of `f32` rows in place: one pass for the statistics, one for the result.

use rayon::prelude::*;

use super::super::host;
use super::Kind;

/// Sums are kept in this many lanes so that they vectorise and lose less precision.
const LANES: usize = 16;

pub(super) fn forward(kind: Kind, values: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let width = weight.len();
    if width == 0 {
        return;
    }
    let rows = host::rows_per_task(values.len() / width, width);
    values.par_chunks_mut(rows * width).for_each(|chunk| {
        for row in chunk.chunks_exact_mut(width) {
            normalise(kind, row, weight, bias, eps);
        }
    });
}

fn normalise(kind: Kind, row: &mut [f32], weight: &[f32], bias: &[f32], eps: f32) {
    let count = row.len() as f32;
    let mean = match kind {
        Kind::Layer => sum(row, |x| x) / count,
        Kind::Rms => 0.0,
    };
    let variance = sum(row, |x| (x - mean) * (x - mean)) / count;
    let scale = 1.0 / (variance + eps).sqrt();
    for ((x, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
        *x = (*x - mean) * scale * weight + bias;
    }
}

fn sum(values: &[f32], term: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|x| term(*x)).sum();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane += term(*x);
        }
    }
    lanes.iter().sum::<f32>() + rest
}
