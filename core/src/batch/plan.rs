//! How many items go into one forward pass.

use crate::device::Device;

/// Input pixels that one forward pass should see: enough to fill the threads' matrix products, few
/// enough for activations to stay small (eight pictures of 448 pixels a side).
const PIXELS: usize = 8 * 448 * 448;
/// Most pictures in one batch, however small.
const MOST: usize = 64;

/// The batch size for inputs of `height` x `width` pixels when the user leaves it open.
pub(crate) fn batch_size(height: usize, width: usize) -> usize {
    (PIXELS / (height * width).max(1)).clamp(1, MOST)
}

/// How many pictures of a batch to compute in one group.
///
/// On a CPU the values between two layers should stay in its caches: one picture of 448 pixels a side
/// fills them and keeps eight threads busy, so more would go through the memory between every two
/// layers, which cost 6 to 12 percent where it was measured. Other devices take the whole batch.
pub(crate) fn group(device: Device, (height, width): (usize, usize), threads: usize) -> usize {
    if device != Device::Cpu {
        return usize::MAX;
    }
    let pixels = PIXELS / 8 * (threads / 8).max(1);
    (pixels / (height * width).max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::{Device, batch_size, group};

    #[test]
    fn groups_grow_with_the_threads_and_other_devices_take_all() {
        assert_eq!(group(Device::Cpu, (448, 448), 2), 1);
        assert_eq!(group(Device::Cpu, (64, 64), 2), 49);
        assert_eq!(group(Device::Cpu, (448, 448), 64), 8);
        assert!(group(Device::Cpu, (0, 0), 1) > 0);
        assert_eq!(group(Device::Cuda(0), (448, 448), 2), usize::MAX);
    }

    #[test]
    fn small_inputs_get_larger_batches_within_bounds() {
        assert_eq!(batch_size(448, 448), 8);
        assert_eq!(batch_size(64, 64), 64);
        assert_eq!(batch_size(4096, 4096), 1);
        assert_eq!(batch_size(0, 0), 64);
    }
}
