//! Launches on a device's stream.

use candle_core::cuda_backend::cudarc::driver::{self, DevicePtr, result, sys};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, CudaStorageSlice as Slice};
use candle_core::{Error, Result, bail};

use super::launch::Grid;
use crate::device::cuda::{HOPPER_KERNELS, KERNELS};

/// Shared memory of a block that needs no leave.
const SHARED: usize = 48 << 10;

/// Where the value `start` of a tensor's memory is.
pub(super) fn address(values: &CudaStorage, start: usize) -> Result<u64> {
    let stream = values.device.cuda_stream();
    let (first, size) = match &values.slice {
        Slice::F32(slice) => (slice.device_ptr(&stream).0, 4),
        Slice::BF16(slice) => (slice.device_ptr(&stream).0, 2),
        Slice::U8(slice) => (slice.device_ptr(&stream).0, 1),
        Slice::U32(slice) => (slice.device_ptr(&stream).0, 4),
        _ => bail!("no kernels for values of this type"),
    };
    Ok(first + (start * size) as u64)
}

/// Launches one of [`KERNELS`], or of [`HOPPER_KERNELS`], whose names say so.
///
/// # Safety
/// As `launch::launch`.
pub(super) unsafe fn launch<A>(
    device: &CudaDevice,
    name: &str,
    grid: Grid,
    arguments: *const A,
) -> Result<()> {
    let (module, kernels) = match name.starts_with(super::HOPPER) {
        true => ("tagbrush hopper", HOPPER_KERNELS),
        false => ("tagbrush", KERNELS),
    };
    let function = device.get_or_load_custom_func(name, module, kernels)?.into_cuda_function();
    if grid.shared > SHARED {
        let most = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        function.set_attribute(most, grid.shared as i32).map_err(Error::wrap)?;
    }
    let stream = device.cuda_stream();
    stream.context().bind_to_thread().map_err(Error::wrap)?;
    let [x, y, z] = grid.blocks.map(|blocks| blocks as u32);
    let [across, down] = grid.threads.map(|threads| threads as u32);
    let mut parameters = [arguments.cast_mut().cast()];
    // SAFETY: the caller's promise.
    unsafe {
        result::launch_kernel(
            function.cu_function(),
            (x, y, z),
            (across, down, 1),
            grid.shared as u32,
            stream.cu_stream(),
            &mut parameters,
        )
    }
    .map_err(|driver::DriverError(code)| Error::Msg(format!("the kernel {name}: {code:?}")))
}
