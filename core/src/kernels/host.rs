//! What every CPU implementation needs: slices out of storages and work shared between threads.

use candle_core::{CpuStorage, Device, Layout, Result, Tensor, bail};

/// Whether a tensor takes the `f32` CPU path of the kernels.
pub(super) fn is_f32_on_cpu(x: &Tensor) -> bool {
    matches!(x.device(), Device::Cpu) && x.dtype() == candle_core::DType::F32
}

/// The values of a contiguous `f32` storage.
pub(super) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let CpuStorage::F32(values) = storage else { bail!("expected f32 values") };
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&values[start..end]),
        None => bail!("expected a contiguous tensor"),
    }
}

/// How many rows one task should take, so that tasks are large enough to be worth their overhead
/// and numerous enough to share the work evenly.
pub(super) fn rows_per_task(rows: usize, row_length: usize) -> usize {
    const VALUES_PER_TASK: usize = 32 * 1024;
    VALUES_PER_TASK.div_ceil(row_length.max(1)).clamp(1, rows.max(1))
}
