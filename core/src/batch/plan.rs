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

#[cfg(test)]
mod tests {
    use super::batch_size;

    #[test]
    fn small_inputs_get_larger_batches_within_bounds() {
        assert_eq!(batch_size(448, 448), 8);
        assert_eq!(batch_size(64, 64), 64);
        assert_eq!(batch_size(4096, 4096), 1);
        assert_eq!(batch_size(0, 0), 64);
    }
}
