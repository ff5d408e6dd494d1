//! Whether kernels for Hopper's matrix units are used: `hopper.cu`.

use candle_core::{Device, Result};

/// What multiplies matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Units {
    /// Each warp for itself, or the vendor's library.
    Warps,
    /// Four warps together, in kernels of our own for Hopper.
    Warpgroups,
}

/// Whether `device` has warpgroups and computes right with those of the kernels that are called `what`: they are new, and few
/// devices have them, so what they give is compared once in a process with what other kernels give. `difference` may be
/// `allowed` at most.
pub(in super::super) fn has_warpgroups(
    device: &Device,
    what: &'static str,
    allowed: f32,
    difference: impl FnOnce() -> Result<f32>,
) -> bool {
    #[cfg(feature = "cuda")]
    if let Device::Cuda(cuda) = device {
        use std::collections::HashMap;
        use std::sync::{LazyLock, Mutex, PoisonError};

        use crate::device::classify;
        use crate::error::ErrorKind;

        static COMPARED: LazyLock<Mutex<HashMap<(usize, &'static str), bool>>> =
            LazyLock::new(Mutex::default);

        let key = (cuda.cuda_stream().context().ordinal(), what);
        let known = || COMPARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(is_right) = known().get(&key) {
            return *is_right;
        }
        // Two threads may both compare: they find the same.
        let found = match crate::device::cuda::is_hopper(cuda) {
            true => difference(),
            false => Ok(f32::INFINITY),
        };
        let is_right = matches!(found, Ok(off) if off <= allowed);
        // In a full memory nothing can be told; the next call may find room.
        let is_full = |e| classify(e, "units cannot be compared").kind() == ErrorKind::OutOfMemory;
        if !found.is_err_and(is_full) {
            known().insert(key, is_right);
        }
        return is_right;
    }
    let _ = (device, what, allowed, difference);
    false
}
