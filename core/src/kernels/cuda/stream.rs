//! A device, its one stream, and launches on it.

use candle_core::cuda_backend::cudarc::driver::{self, DevicePtr, result, sys};
use candle_core::cuda_backend::{CudaDevice, CudaStorage, CudaStorageSlice as Slice};
use candle_core::{Device, Error, Result, bail};

use super::launch::Grid;

/// What the build script made of `kernels.cu`.
const PTX: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));
/// Shared memory of a block that needs no leave.
const SHARED: usize = 48 << 10;

/// Opens a device for one stream of work.
pub(crate) fn open(index: usize) -> Result<Device> {
    if PTX.is_empty() {
        bail!("this build has no kernels for CUDA: it was made to check types only");
    }
    // Not the stream of the calling thread: models go from thread to thread.
    let device = CudaDevice::new_with_stream(index)?;
    // SAFETY: there is one stream, and everything of this device goes through it.
    unsafe { device.disable_event_tracking() };
    keep_memory(&device)?;
    Ok(Device::Cuda(device))
}

/// Has the driver keep what was freed for the next tensor. By default it goes back to the system whenever
/// somebody waits for the device, and every step of a schedule asks for it anew.
fn keep_memory(device: &CudaDevice) -> Result<()> {
    let context = device.cuda_stream().context().clone();
    context.bind_to_thread().map_err(Error::wrap)?;
    let mut pool = std::ptr::null_mut();
    let mut most = u64::MAX;
    // SAFETY: the pool is the driver's own, the value is of the attribute's type.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device())
            .result()
            .and_then(|()| {
                sys::cuMemPoolSetAttribute(
                    pool,
                    sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD,
                    std::ptr::from_mut(&mut most).cast(),
                )
                .result()
            })
            .map_err(Error::wrap)
    }
}

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

/// Launches a kernel of [`PTX`].
///
/// # Safety
/// As `launch::launch`.
pub(super) unsafe fn launch<A>(
    device: &CudaDevice,
    name: &str,
    grid: Grid,
    arguments: *const A,
) -> Result<()> {
    let function = device.get_or_load_custom_func(name, "tagbrush", PTX)?.into_cuda_function();
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
