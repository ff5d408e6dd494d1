//! Launches of kernels, on a device or emulated.

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

use super::super::host::{self, Held};

/// Where a tensor's values begin in the memory of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(in super::super) struct Address(u64);

impl Address {
    /// For what is left out.
    pub(in super::super) const NONE: Self = Self(0);

    /// Of what lies `values` values of type `dtype` behind.
    pub(in super::super) fn offset(self, values: usize, dtype: DType) -> Self {
        Self(self.0 + (values * dtype.size_in_bytes()) as u64)
    }

    /// The power of two that it is a multiple of, at most 256.
    #[cfg(feature = "cuda")]
    pub(super) fn alignment(self) -> u32 {
        1 << self.0.trailing_zeros().min(8)
    }

    #[cfg(feature = "cuda")]
    pub(super) fn pointer(self) -> *mut std::ffi::c_void {
        std::ptr::with_exposed_provenance_mut(self.0 as usize)
    }

    /// Whether vectors of 16 bytes may begin here.
    pub(in super::super) fn is_aligned(self) -> bool {
        self.0.is_multiple_of(16)
    }
}

/// The shape of a launch: blocks, threads of a block, and bytes of memory that a block's threads share.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Grid {
    pub(in super::super) blocks: [usize; 3],
    pub(in super::super) threads: [usize; 2],
    pub(in super::super) shared: usize,
}

impl Grid {
    /// A thread for each of `count` values.
    pub(in super::super) fn of(count: usize) -> Self {
        let blocks = [count.div_ceil(super::THREADS), 1, 1];
        Self { blocks, threads: [super::THREADS, 1], shared: 0 }
    }
}

/// Whether kernels can be launched for a tensor: it is where they run, in a type that they compute with.
pub(in super::super) fn takes(x: &Tensor) -> bool {
    let here = match x.device() {
        Device::Cuda(_) => cfg!(feature = "cuda"),
        Device::Cpu => host::way() == host::Way::Emulated,
        Device::Metal(_) => false,
    };
    here && matches!(x.dtype(), DType::F32 | DType::BF16)
}

/// A tensor whose values a kernel is going to write, all of them.
pub(in super::super) fn empty(
    dtype: DType,
    shape: impl Into<Shape>,
    device: &Device,
) -> Result<Tensor> {
    if device.is_cpu() {
        // Emulated: what the kernel forgets is seen.
        return Tensor::full(f32::NAN, shape, device)?.to_dtype(dtype);
    }
    // SAFETY: nobody reads it before the kernel wrote it: they are in the order of one stream.
    unsafe { Tensor::empty(shape, dtype, device) }
}

/// Where a contiguous tensor, or the first value of a view, is. Its memory is its own as long as the tensor is,
/// and behind that in the order of the stream.
pub(in super::super) fn address(tensor: &Tensor) -> Result<Address> {
    let held = Held::new(tensor);
    let start = held.layout().start_offset();
    match held.storage() {
        candle_core::Storage::Cpu(values) => host_address(values, start),
        #[cfg(feature = "cuda")]
        candle_core::Storage::Cuda(values) => super::stream::address(values, start).map(Address),
        _ => bail!("no kernels for the device of this tensor"),
    }
}

/// The same of a tensor that may be left out.
pub(in super::super) fn address_of(tensor: Option<&Tensor>) -> Result<Address> {
    tensor.map_or(Ok(Address::NONE), address)
}

fn host_address(values: &candle_core::CpuStorage, start: usize) -> Result<Address> {
    use candle_core::CpuStorage as S;
    let address = match values {
        S::F32(values) => values[start..].as_ptr().expose_provenance(),
        S::BF16(values) => values[start..].as_ptr().expose_provenance(),
        S::U8(values) => values[start..].as_ptr().expose_provenance(),
        S::U32(values) => values[start..].as_ptr().expose_provenance(),
        _ => bail!("no kernels for values of this type"),
    };
    Ok(Address(address as u64))
}

/// Launches the kernel `name` on `device` and returns without waiting for it. Nothing is launched for a
/// grid without blocks.
///
/// # Safety
/// `arguments` is the structure that the kernel takes; its addresses are on `device`, and the kernel
/// writes only to those that nobody else reads or writes.
pub(in super::super) unsafe fn launch<A>(
    device: &Device,
    name: &str,
    grid: Grid,
    arguments: &A,
) -> Result<()> {
    if grid.blocks.contains(&0) {
        return Ok(());
    }
    // CUDA's own bounds, and those of devices from the oldest generation on.
    let blocks = grid.blocks[0] <= i32::MAX as usize && grid.blocks[1].max(grid.blocks[2]) < 65_536;
    let threads = grid.threads[0] * grid.threads[1] <= super::THREADS;
    let most = if name.starts_with(super::HOPPER) { 227 << 10 } else { 99 << 10 };
    if !blocks || !threads || grid.shared > most {
        bail!("the kernel {name} in a {grid:?}");
    }
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => {
            // SAFETY: the caller's promise.
            unsafe { super::stream::launch(device, name, grid, std::ptr::from_ref(arguments)) }
        }
        #[cfg(test)]
        Device::Cpu => {
            let [x, y] = grid.threads.map(|threads| threads as u32);
            let (blocks, shared) = (grid.blocks.map(|blocks| blocks as u32), grid.shared as u32);
            let arguments = std::ptr::from_ref(arguments).cast();
            // SAFETY: as above.
            match unsafe { emulated::launch(name, blocks, [x, y, 1], shared, arguments) } {
                true => Ok(()),
                false => bail!("no kernel {name}"),
            }
        }
        _ => {
            let _ = arguments;
            bail!("no kernels for this device: {name}")
        }
    }
}
