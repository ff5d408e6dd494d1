//! The windows of SwinV2 as other formats store them: as tables of numbers that follow from their
//! size, and that therefore tell it.

/// What separates regions of a shifted map that are no neighbours.
const MASKED: f32 = -100.0;

/// The mask of window number `number` of a map of `side` by `side`.
pub(super) fn mask(side: usize, window: usize, shift: usize, number: usize) -> Vec<f32> {
    let per_row = side / window.max(1);
    let region = |at: usize| match at {
        at if at < side - window => 0,
        at if at < side - shift => 1,
        _ => 2,
    };
    let regions: Vec<usize> = (0..window * window)
        .map(|i| {
            let row = number / per_row * window + i / window;
            let column = number % per_row * window + i % window;
            region(row) * 3 + region(column)
        })
        .collect();
    let mut mask = Vec::with_capacity(regions.len() * regions.len());
    for a in &regions {
        mask.extend(regions.iter().map(|b| if a == b { 0.0 } else { MASKED }));
    }
    mask
}

/// The relative coordinates of all pairs of positions in a window, `(2 window - 1)` squared pairs of
/// row and column, spaced logarithmically. `window` is 2 at least.
pub(super) fn coordinates(window: usize) -> Vec<f32> {
    let axis = |at: usize| {
        let steps = (at as f64 - (window - 1) as f64) / (window - 1) as f64 * 8.0;
        (steps.signum() * (steps.abs() + 1.0).log2() / 3.0) as f32
    };
    let length = 2 * window - 1;
    (0..length * length).flat_map(|i| [axis(i / length), axis(i % length)]).collect()
}
