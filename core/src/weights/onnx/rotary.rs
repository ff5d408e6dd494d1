//! Recognises the tables of rotary position embeddings.
//!
//! The native network computes these tables; here they are checked against what it will compute.

use crate::error::{Error, Result};

/// The grid (height and width) that the tables were computed for: positions are scaled so that
/// they run up to it. `sin` and `cos` are `[rows * columns, dim]`.
pub(super) fn reference(
    sin: &[f32],
    cos: &[f32],
    (rows, columns): (usize, usize),
    dim: usize,
) -> Result<(usize, usize)> {
    let unknown = || Error::unsupported("the rotary positions are not those of EVA02");
    let expected =
        rows.checked_mul(columns).and_then(|n| n.checked_mul(dim)).ok_or_else(unknown)?;
    if sin.len() != expected || cos.len() != expected || !dim.is_multiple_of(4) {
        return Err(unknown());
    }
    // The first band of each half has frequency 1, so its angle is the (scaled) position.
    let angle = |at: usize| f64::from(sin[at]).atan2(f64::from(cos[at]));
    let size = |step: usize, count: usize, offset: usize| -> usize {
        match count {
            0 | 1 => count,
            _ => (angle(step * dim + offset) * count as f64).round().max(0.0) as usize,
        }
    };
    let found = (size(columns, rows, 0), size(1, columns, dim / 2));
    let bands = dim / 4;
    for row in 0..rows {
        for column in 0..columns {
            let at = (row * columns + column) * dim;
            for i in 0..dim {
                let (place, band) = if i < dim / 2 {
                    (row as f64 / rows as f64 * found.0 as f64, i / 2)
                } else {
                    (column as f64 / columns as f64 * found.1 as f64, (i - dim / 2) / 2)
                };
                let angle = place / 10_000f64.powf(band as f64 / bands as f64);
                // Single precision angles of some tens lose five digits.
                let fits = (f64::from(sin[at + i]) - angle.sin()).abs() < 2e-4
                    && (f64::from(cos[at + i]) - angle.cos()).abs() < 2e-4;
                if !fits {
                    return Err(unknown());
                }
            }
        }
    }
    Ok(found)
}
