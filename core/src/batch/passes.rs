//! Passes of a network one after the other, and where they run.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::device::Device;

/// Passes that take less gain by running inside the thread pool: up to three times where they take a few
/// milliseconds, nothing from about a tenth of a second on.
const SHORT: Duration = Duration::from_millis(30);

/// Runs the passes of one call, each where it is best off.
///
/// From outside the pool every layer wakes a thread and waits to be woken itself, which takes longer than the layers of a
/// small network. Long passes stay outside: a thread that waits for a layer of another call may take up a whole pass, and
/// that call would wait until it is over. A pass is taken to be as long as the last one.
pub(crate) struct Passes {
    device: Device,
    last: Cell<Option<Duration>>,
}

impl Passes {
    pub(crate) fn new(device: Device) -> Self {
        Self { device, last: Cell::new(None) }
    }

    /// Runs a pass. It may not wait for threads outside the pool, which themselves may wait for the pool.
    pub(crate) fn run<R: Send>(&self, pass: impl FnOnce() -> R + Send) -> R {
        let is_short = self.last.get().is_some_and(|last| last < SHORT);
        let start = Instant::now();
        let answer = match self.device {
            Device::Cpu if is_short => rayon::scope(|_| pass()),
            _ => pass(),
        };
        self.last.set(Some(start.elapsed()));
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_passes_run_inside_the_pool_and_long_ones_outside() {
        let is_inside = |passes: &Passes, sleep| {
            passes.run(|| {
                std::thread::sleep(sleep);
                rayon::current_thread_index().is_some()
            })
        };
        let cpu = Passes::new(Device::Cpu);
        assert!(!is_inside(&cpu, Duration::ZERO));
        // Set, as a busy machine may take longer than a pass says.
        for (last, inside) in [(Duration::ZERO, true), (SHORT, false)] {
            cpu.last.set(Some(last));
            assert_eq!(is_inside(&cpu, SHORT), inside);
            assert!(cpu.last.get().is_some_and(|last| last >= SHORT));
        }
        let other = Passes::new(Device::Cuda(0));
        other.last.set(Some(Duration::ZERO));
        assert!(!is_inside(&other, Duration::ZERO));
    }
}
