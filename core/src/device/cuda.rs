//! CUDA: opening a device, and what keeps one from being opened, in words.
#![allow(unsafe_code)]

use candle_core::cuda_backend::CudaDevice;
use candle_core::cuda_backend::cudarc::driver::{CudaContext, sys};
use candle_core::{Device, Error, Result};

/// What the build script made of `kernels/cuda/kernels.cu`.
pub(crate) const KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/kernels.ptx"));
/// Those for [`HOPPER`] alone.
pub(crate) const HOPPER_KERNELS: &str = include_str!(concat!(env!("OUT_DIR"), "/hopper.ptx"));
/// Any kernel: to load the module is to ask the driver whether it can translate it.
const ANY: &str = "norm_f32";
/// The oldest generation whose matrix units the kernels use: Ampere.
const OLDEST: i32 = 8;
/// The generation whose matrix units take the work of four warps. No later one has them.
const HOPPER: i32 = 9;

/// Opens the device `index` for one stream of work; in words what is in the way.
pub(super) fn open(index: usize) -> std::result::Result<Device, String> {
    if KERNELS.is_empty() {
        return Err("this build was made to check types, it has no kernels for CUDA".to_owned());
    }
    // Not the stream of the calling thread: models go from thread to thread.
    let device = CudaDevice::new_with_stream(index).map_err(|e| in_words(&e, index))?;
    // SAFETY: there is one stream, and everything of this device goes through it.
    unsafe { device.disable_event_tracking() };
    let context = device.cuda_stream().context().clone();
    let generation = generation(&device).map_err(|e| in_words(&e, index))?;
    if generation < OLDEST {
        return Err(format!(
            "its compute capability is {generation}.x; the kernels need {OLDEST}.0 (Ampere) or later"
        ));
    }
    device.get_or_load_custom_func(ANY, "tagbrush", KERNELS).map_err(|e| in_words(&e, index))?;
    keep_memory(&context).map_err(|e| in_words(&e, index))?;
    Ok(Device::Cuda(device))
}

/// The first part of its compute capability.
fn generation(device: &CudaDevice) -> Result<i32> {
    let attribute = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
    device.cuda_stream().context().attribute(attribute).map_err(Error::wrap)
}

/// Whether it runs [`HOPPER_KERNELS`].
pub(crate) fn is_hopper(device: &CudaDevice) -> bool {
    generation(device).is_ok_and(|generation| generation == HOPPER)
}

/// Has the driver keep what was freed for the next tensor. By default it goes back to the system whenever
/// somebody waits for the device, and every step of a schedule asks for it anew.
fn keep_memory(context: &CudaContext) -> Result<()> {
    let pool = pool(context)?;
    let mut most = u64::MAX;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
    // SAFETY: the pool is the driver's own, and the value is of the attribute's type.
    unsafe { sys::cuMemPoolSetAttribute(pool, attribute, std::ptr::from_mut(&mut most).cast()) }
        .result()
        .map_err(Error::wrap)
}

/// Name, generation and driver.
#[cfg(feature = "gpu-check")]
pub(super) fn describe(device: &CudaDevice) -> String {
    let context = device.cuda_stream().context().clone();
    let attribute = |attribute| context.attribute(attribute).unwrap_or_default();
    let mut driver = 0;
    // SAFETY: the version is written to an integer of our own.
    let _ = unsafe { sys::cuDriverGetVersion(&mut driver) };
    format!(
        "{}, compute capability {}.{}, {} multiprocessors, driver for CUDA {}.{}",
        context.name().unwrap_or_default(),
        attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR),
        attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR),
        attribute(sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT),
        driver / 1000,
        driver % 1000 / 10,
    )
}

/// What tensors take of the device's memory, and what is left.
#[cfg(feature = "gpu-check")]
pub(super) fn memory(device: &CudaDevice) -> Result<super::Memory> {
    device.cuda_stream().synchronize().map_err(Error::wrap)?;
    let pool = pool(device.cuda_stream().context())?;
    let attribute = |attribute| {
        let mut value = 0u64;
        // SAFETY: the pool is the driver's own, and the value is of the attribute's type.
        unsafe {
            sys::cuMemPoolGetAttribute(pool, attribute, std::ptr::from_mut(&mut value).cast())
        }
        .result()
        .map_err(Error::wrap)?;
        Ok::<u64, Error>(value)
    };
    let used = attribute(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_CURRENT)?;
    let peak = attribute(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH)?;
    let reserved = attribute(sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)?;
    let (free, _) =
        candle_core::cuda_backend::cudarc::driver::result::mem_get_info().map_err(Error::wrap)?;
    Ok(super::Memory { used, peak, free: free as u64 + reserved.saturating_sub(used) })
}

/// Counts the peak anew.
#[cfg(feature = "gpu-check")]
pub(super) fn forget_peak(device: &CudaDevice) -> Result<()> {
    let pool = pool(device.cuda_stream().context())?;
    let mut zero = 0u64;
    let attribute = sys::CUmemPool_attribute::CU_MEMPOOL_ATTR_USED_MEM_HIGH;
    // SAFETY: as above.
    unsafe { sys::cuMemPoolSetAttribute(pool, attribute, std::ptr::from_mut(&mut zero).cast()) }
        .result()
        .map_err(Error::wrap)
}

/// The pool that tensors come from.
fn pool(context: &CudaContext) -> Result<sys::CUmemoryPool> {
    context.bind_to_thread().map_err(Error::wrap)?;
    let mut pool = std::ptr::null_mut();
    // SAFETY: the pool is the driver's own, written to a pointer of ours.
    unsafe { sys::cuDeviceGetDefaultMemPool(&mut pool, context.cu_device()) }
        .result()
        .map_err(Error::wrap)?;
    Ok(pool)
}

/// The driver's codes are not for people.
fn in_words(error: &Error, index: usize) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    let known = [
        ("NO_DEVICE", "there is no NVIDIA device, or no driver (libcuda.so.1)".to_owned()),
        ("INVALID_DEVICE", format!("there is no CUDA device {index}")),
        ("UNSUPPORTED_PTX", "the driver is too old: this build needs 580 or later".to_owned()),
        ("INVALID_PTX", "the driver cannot translate the kernels of this build".to_owned()),
        ("NO_BINARY", "this build has no kernels for this generation of devices".to_owned()),
        ("CUBLAS_STATUS", format!("cuBLAS (libcublas.so.13) cannot be used: {first}")),
        ("CURAND_STATUS", format!("cuRAND (libcurand.so.10) cannot be used: {first}")),
    ];
    known
        .into_iter()
        .find(|(code, _)| first.contains(code))
        .map_or_else(|| first.to_owned(), |(_, words)| words)
}
