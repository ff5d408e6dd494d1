//! Between tensors in the CPU's memory and the slices that the implementations there work on.

use std::ops::Deref;

use candle_core::{CpuStorage, DType, Device, Layout, Result, Shape, Storage, Tensor, bail};
use half::bf16;
use half::slice::HalfFloatSliceExt;

use super::cpu::{Format, Isa, Sink, Values, enlarge};

/// How tensors in the CPU's memory are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code, reason = "for tests of what other devices do"))]
pub(super) enum Way {
    /// By the implementations for the CPU.
    Own,
    /// By plain tensor operations: what a device without kernels does.
    Plain,
    /// By the kernels for CUDA, emulated.
    Emulated,
}

/// The way in use.
pub(super) fn way() -> Way {
    #[cfg(test)]
    return super::testing::way();
    #[cfg(not(test))]
    Way::Own
}

/// Whether the CPU implementations take a tensor: on the CPU, in a type that they compute with.
pub(super) fn takes(x: &Tensor) -> bool {
    way() == Way::Own
        && matches!(x.device(), Device::Cpu)
        && matches!(x.dtype(), DType::F32 | DType::BF16)
}

/// The instructions to use.
pub(super) fn isa() -> Result<Isa> {
    #[cfg(test)]
    if let Some(isa) = super::testing::isa() {
        return Ok(isa);
    }
    Isa::chosen().map_err(|message| candle_core::Error::Msg(message.to_owned()))
}

/// As what products of a type are packed.
pub(super) fn format(dtype: DType) -> Format {
    if dtype == DType::BF16 { Format::Bf16 } else { Format::F32 }
}

/// A tensor whose memory is held while its values are read.
pub(super) struct Held<'a> {
    /// The tensor library's guard; which lock it belongs to is no part of its interface.
    storage: Box<dyn Deref<Target = Storage> + 'a>,
    layout: &'a Layout,
}

impl<'a> Held<'a> {
    pub(super) fn new(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage: Box::new(storage), layout }
    }

    pub(super) fn layout(&self) -> &Layout {
        self.layout
    }

    /// The memory that the tensor is a view of.
    pub(super) fn storage(&self) -> &Storage {
        &self.storage
    }

    /// All values of the storage that the tensor is a view of.
    pub(super) fn all(&self) -> Result<Values<'_>> {
        match &**self.storage {
            Storage::Cpu(CpuStorage::F32(values)) => Ok(Values::F32(values)),
            Storage::Cpu(CpuStorage::BF16(values)) => Ok(Values::Bf16(values.reinterpret_cast())),
            Storage::Cpu(CpuStorage::U8(values)) => Ok(Values::U8(values)),
            _ => bail!("expected f32, bf16 or u8 values on the CPU"),
        }
    }

    /// The values of a contiguous tensor.
    pub(super) fn values(&self) -> Result<Values<'_>> {
        let Some((start, end)) = self.layout.contiguous_offsets() else {
            bail!("expected a contiguous tensor")
        };
        Ok(match self.all()? {
            Values::F32(values) => Values::F32(&values[start..end]),
            Values::Bf16(values) => Values::Bf16(&values[start..end]),
            Values::U8(values) => Values::U8(&values[start..end]),
        })
    }

    /// The values of a contiguous `f32` tensor.
    pub(super) fn floats(&self) -> Result<&[f32]> {
        match self.values()? {
            Values::F32(values) => Ok(values),
            _ => bail!("expected f32 values"),
        }
    }

    /// The values of a contiguous `u32` tensor.
    pub(super) fn indices(&self) -> Result<&[u32]> {
        match (&**self.storage, self.layout.contiguous_offsets()) {
            (Storage::Cpu(CpuStorage::U32(values)), Some((start, end))) => Ok(&values[start..end]),
            _ => bail!("expected contiguous u32 values on the CPU"),
        }
    }
}

/// The tensor of a shape and type whose values `fill` writes.
///
/// # Safety
/// `fill` writes every value of the sink, or fails.
pub(super) unsafe fn filled(
    dtype: DType,
    shape: impl Into<Shape>,
    fill: impl FnOnce(Sink) -> Result<()>,
) -> Result<Tensor> {
    let shape = shape.into();
    let count = shape.elem_count();
    match dtype {
        DType::F32 => {
            let mut values = Vec::<f32>::with_capacity(count);
            enlarge(values.as_ptr(), 4 * count);
            fill(Sink::F32(values.as_mut_ptr(), count))?;
            // SAFETY: the caller's promise; there is room for `count`.
            unsafe { values.set_len(count) };
            Tensor::from_vec(values, shape, &Device::Cpu)
        }
        DType::BF16 => {
            let mut values = Vec::<bf16>::with_capacity(count);
            enlarge(values.as_ptr(), 2 * count);
            fill(Sink::Bf16(values.as_mut_ptr().cast(), count))?;
            // SAFETY: as above.
            unsafe { values.set_len(count) };
            Tensor::from_vec(values, shape, &Device::Cpu)
        }
        other => bail!("no results of type {other:?} on the CPU"),
    }
}

/// How many rows one task should take, so that tasks are large enough to be worth their overhead
/// and numerous enough to share the work evenly.
pub(super) fn rows_per_task(rows: usize, row_length: usize) -> usize {
    const VALUES_PER_TASK: usize = 32 * 1024;
    VALUES_PER_TASK.div_ceil(row_length.max(1)).clamp(1, rows.max(1))
}
