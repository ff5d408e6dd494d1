//! How many items go into one forward pass, and which passes run side by side.

use rayon::prelude::*;

use crate::device::Device;

/// Input pixels that one forward pass should see: enough to fill the threads' matrix products, few
/// enough for activations to stay small (eight pictures of 448 pixels a side).
const PIXELS: usize = 8 * 448 * 448;
/// The same for devices with thousands of threads of their own.
const PIXELS_OF_DEVICES: usize = 32 * 448 * 448;
/// Most pictures in one batch, however small.
const MOST: usize = 64;

/// The batch size for inputs of `height` x `width` pixels when the user leaves it open.
pub(crate) fn batch_size((height, width): (usize, usize), device: Device) -> usize {
    let pixels = if device == Device::Cpu { PIXELS } else { PIXELS_OF_DEVICES };
    (pixels / (height * width).max(1)).clamp(1, MOST)
}

/// Runs a batch in groups, whose results come in order.
///
/// On a CPU the groups run at the same time on the thread pool, each on one thread as long as there
/// are others: then no thread waits for another one between two layers, and none reads what another
/// one wrote. When fewer groups than threads are left, idle threads help with their layers. Other
/// devices take the whole batch, on the calling thread.
pub(crate) fn in_groups<T: Sync, R: Send, E: Send>(
    device: Device,
    size: (usize, usize),
    batch: &[T],
    run: impl Fn(&[T]) -> Result<R, E> + Send + Sync,
) -> Result<Vec<R>, E> {
    if device != Device::Cpu {
        return Ok(vec![run(batch)?]);
    }
    let group = group(size, rayon::current_num_threads(), batch.len());
    // Inside the pool: from outside, every layer would wake a thread and wait to be woken itself.
    rayon::scope(|_| batch.par_chunks(group).with_max_len(1).map(run).collect())
}

/// How many pictures of a batch to compute in one group.
///
/// The values between two layers should stay in a processor's caches: one picture of 448 pixels a side
/// fills them and keeps eight threads busy, so more would go through the memory between every two
/// layers, which cost 6 to 12 percent where it was measured.
fn group((height, width): (usize, usize), threads: usize, count: usize) -> usize {
    let pixels = PIXELS / 8 * (threads / 8).max(1);
    (pixels / (height * width).max(1)).min(count.div_ceil(threads.max(1))).max(1)
}

#[cfg(test)]
mod tests {
    use super::{Device, batch_size, group, in_groups};

    #[test]
    fn groups_grow_with_the_threads_and_leave_none_without_work() {
        assert_eq!(group((448, 448), 2, 8), 1);
        assert_eq!(group((64, 64), 2, 200), 49);
        assert_eq!(group((64, 64), 2, 8), 4);
        assert_eq!(group((448, 448), 64, 1000), 8);
        assert_eq!(group((448, 448), 64, 8), 1);
        assert_eq!(group((0, 0), 1, 0), 1);
    }

    #[test]
    fn results_of_groups_come_in_order_and_an_error_is_the_answer() {
        let items: Vec<usize> = (0..100).collect();
        let run =
            |device| in_groups(device, (200, 200), &items, |group| Ok::<_, ()>(group.to_vec()));
        assert_eq!(run(Device::Cpu).unwrap().concat(), items);
        assert!(run(Device::Cpu).unwrap().len() > 1);
        assert_eq!(run(Device::Cuda(0)).unwrap().concat(), items);
        let fail = |group: &[usize]| if group.contains(&50) { Err(50) } else { Ok(()) };
        assert_eq!(in_groups(Device::Cpu, (200, 200), &items, fail), Err(50));
        assert_eq!(in_groups(Device::Cpu, (200, 200), &items[..50], fail).map(drop), Ok(()));
    }

    #[test]
    fn small_inputs_get_larger_batches_within_bounds() {
        assert_eq!(batch_size((448, 448), Device::Cpu), 8);
        assert_eq!(batch_size((448, 448), Device::Cuda(0)), 32);
        assert_eq!(batch_size((64, 64), Device::Cpu), 64);
        assert_eq!(batch_size((4096, 4096), Device::Cpu), 1);
        assert_eq!(batch_size((0, 0), Device::Cuda(0)), 64);
    }
}
