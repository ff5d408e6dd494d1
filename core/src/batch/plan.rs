//! How many items go into one forward pass.

/// Input pixels that one forward pass should see: enough to fill the threads' matrix products, few
/// enough for activations to stay small (eight pictures of 448 pixels a side).
const PIXELS: usize = 8 * 448 * 448;
/// Most pictures in one pass, however small.
const MOST: usize = 64;

/// The batch size for inputs of `height` x `width` pixels when the user leaves it open.
pub(crate) fn batch_size(height: usize, width: usize) -> usize {
    (PIXELS / (height * width).max(1)).clamp(1, MOST)
}

/// How many pictures of a batch to compute together where the layers work in caches: one of 448
/// pixels a side keeps eight threads busy, and the values between its layers already fill a cache.
/// More would have to go through the memory between every two layers.
pub(crate) fn cached(height: usize, width: usize, threads: usize) -> usize {
    let pixels = PIXELS / 8 * (threads / 8).max(1);
    (pixels / (height * width).max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::{PIXELS, batch_size, cached};

    #[test]
    fn what_is_computed_together_grows_with_the_threads() {
        assert_eq!(cached(448, 448, 2), 1);
        assert_eq!(cached(64, 64, 2), 49);
        assert_eq!(cached(448, 448, 64), 8);
        assert_eq!(cached(0, 0, 1), PIXELS / 8);
    }

    #[test]
    fn small_inputs_get_larger_batches_within_bounds() {
        assert_eq!(batch_size(448, 448), 8);
        assert_eq!(batch_size(64, 64), 64);
        assert_eq!(batch_size(4096, 4096), 1);
        assert_eq!(batch_size(0, 0), 64);
    }
}
