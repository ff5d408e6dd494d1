//! The safetensors reader: maps the file, checks its header, reads tensors on demand.
//!
//! The header is checked by the `safetensors` crate (lengths, overlaps, offsets, shape products);
//! this module adds the limits that keep a hostile header cheap, and refuses other formats by their
//! first bytes, since a renamed pickle must never be guessed at.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::vec::HalfBitsVecExt;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorInfo};

use super::checkpoint::Source;
use super::fp8;
use super::mapped::Bytes;
use crate::error::{Error, Result};

/// Longest header in bytes; published checkpoints stay below 1 MiB.
const MAX_HEADER: u64 = 32 << 20;
/// Most tensors in one file.
const MAX_TENSORS: usize = 100_000;
/// Values that are read at once where their type changes.
const PART: usize = 1 << 20;

/// A safetensors file with a checked header.
pub(crate) struct SafeTensorsFile {
    origin: String,
    bytes: Bytes,
    tensors: BTreeMap<String, TensorInfo>,
    /// The notes of the program that wrote the file.
    notes: HashMap<String, String>,
    data_start: usize,
}

impl SafeTensorsFile {
    /// Maps and checks the file at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        Self::parse(Bytes::open(path)?, origin).map_err(|e| e.with("file", path.display()))
    }

    /// Checks a file that is already in memory; `origin` is what error messages call it.
    pub(crate) fn from_bytes(
        bytes: impl Into<Cow<'static, [u8]>>,
        origin: impl Into<String>,
    ) -> Result<Self> {
        Self::parse(Bytes::Static(bytes.into()), origin.into())
    }

    fn parse(bytes: Bytes, origin: String) -> Result<Self> {
        let data = bytes.as_ref();
        let header_length = data
            .first_chunk::<8>()
            .map(|length| u64::from_le_bytes(*length))
            .ok_or_else(|| invalid("the file is shorter than its header length"))?;
        if header_length > MAX_HEADER {
            refuse_other_formats(data)?;
            return Err(invalid(format!(
                "the header claims {header_length} bytes; at most {MAX_HEADER} are allowed"
            )));
        }
        let (header_length, metadata) = safetensors::SafeTensors::read_metadata(data)
            .map_err(|e| invalid(e.to_string()).caused_by(e))?;
        let tensors: BTreeMap<_, _> =
            metadata.tensors().into_iter().map(|(name, info)| (name, info.clone())).collect();
        if tensors.len() > MAX_TENSORS {
            return Err(invalid(format!("more than {MAX_TENSORS} tensors")));
        }
        let notes = metadata.metadata().clone().unwrap_or_default();
        Ok(Self { origin, data_start: 8 + header_length, bytes, tensors, notes })
    }

    /// Whether the file has a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The number format that a tensor is stored in.
    pub(super) fn format(&self, name: &str) -> Option<Dtype> {
        self.tensors.get(name).map(|info| info.dtype)
    }

    /// What the program that wrote the file noted under `key`.
    pub(super) fn note(&self, key: &str) -> Option<&str> {
        self.notes.get(key).map(String::as_str)
    }

    /// The bytes of a tensor as they are stored.
    pub(super) fn raw(&self, name: &str) -> Option<&[u8]> {
        self.tensors.get(name).map(|info| &self.bytes.as_ref()[self.range(info)])
    }

    fn range(&self, info: &TensorInfo) -> Range<usize> {
        let (start, end) = info.data_offsets;
        self.data_start + start..self.data_start + end
    }

    /// Copies the tensor out. With `scale`, its values are those stored times it: the product is
    /// made in `f32` and then converted.
    pub(super) fn load_scaled(
        &self,
        name: &str,
        scale: Option<f32>,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let info = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::model_invalid(format!("tensor `{name}` is missing")))?;
        let failed = |e| crate::device::classify(e, "cannot load a tensor");
        let plain = |stored| match scale {
            Some(scale) => (self.read(info, stored, DType::F32)? * f64::from(scale))
                .and_then(|tensor| tensor.to_dtype(dtype))
                .map_err(failed),
            None => self.read(info, stored, dtype),
        };
        let tensor = match info.dtype {
            Dtype::F32 => plain(DType::F32)?,
            Dtype::F16 => plain(DType::F16)?,
            Dtype::BF16 => plain(DType::BF16)?,
            Dtype::F8_E4M3 => self.read_fp8(info, fp8::e4m3, scale, dtype)?,
            Dtype::F8_E5M2 => self.read_fp8(info, fp8::e5m2, scale, dtype)?,
            other => {
                return Err(Error::unsupported(format!(
                    "tensor `{name}` is stored as {other:?}; only F32, F16, BF16, F8_E4M3 and \
                     F8_E5M2 are read"
                )));
            }
        };
        tensor.to_device(device).map_err(failed)
    }

    fn read_fp8(
        &self,
        info: &TensorInfo,
        value: fn(u8) -> f32,
        scale: Option<f32>,
        dtype: DType,
    ) -> Result<Tensor> {
        let range = self.range(info);
        let bytes = &self.bytes.as_ref()[range.clone()];
        let tensor = fp8::decode(bytes, value, scale, &info.shape, dtype);
        self.bytes.release(range);
        tensor.map_err(|e| crate::device::classify(e, "cannot load a tensor"))
    }

    /// Reads a tensor of type `stored` as `dtype`. Where the type changes, it is changed part by part:
    /// the tensor is never there twice.
    fn read(&self, info: &TensorInfo, stored: DType, dtype: DType) -> Result<Tensor> {
        let (start, count) = (self.range(info).start, info.shape.iter().product());
        let made = |tensor: candle_core::Result<Tensor>| {
            tensor.map_err(|e| crate::device::classify(e, "cannot load a tensor"))
        };
        // Zeros cost nothing until they are written over, where the allocator has fresh memory.
        let words = || -> Result<Vec<u16>> {
            let mut words = vec![0u16; count];
            self.bytes.read(start, &mut words)?;
            Ok(words)
        };
        let shape = info.shape.as_slice();
        match (stored, dtype) {
            (DType::BF16, DType::BF16) => {
                made(Tensor::from_vec(words()?.reinterpret_into::<bf16>(), shape, &Device::Cpu))
            }
            (DType::F16, DType::F16) => {
                made(Tensor::from_vec(words()?.reinterpret_into::<f16>(), shape, &Device::Cpu))
            }
            (DType::F32, DType::F32) => {
                let mut values = vec![0f32; count];
                self.bytes.read(start, &mut values)?;
                made(Tensor::from_vec(values, shape, &Device::Cpu))
            }
            (DType::BF16 | DType::F16, DType::F32) => {
                let mut values = vec![0f32; count];
                let mut part = vec![0u16; PART.min(count)];
                for (i, values) in values.chunks_mut(PART).enumerate() {
                    let part = &mut part[..values.len()];
                    self.bytes.read(start + 2 * i * PART, part)?;
                    match stored {
                        DType::BF16 => part.reinterpret_cast::<bf16>().convert_to_f32_slice(values),
                        _ => part.reinterpret_cast::<f16>().convert_to_f32_slice(values),
                    }
                }
                made(Tensor::from_vec(values, shape, &Device::Cpu))
            }
            // Seldom: weights of another precision than is asked for.
            _ => made(self.read(info, stored, stored)?.to_dtype(dtype)),
        }
    }
}

impl Source for SafeTensorsFile {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|info| info.shape.clone())
    }

    fn origin(&self, _: &str) -> &str {
        &self.origin
    }

    fn stored(&self, name: &str) -> Option<DType> {
        match self.tensors.get(name)?.dtype {
            Dtype::F32 => Some(DType::F32),
            Dtype::F16 => Some(DType::F16),
            Dtype::BF16 => Some(DType::BF16),
            Dtype::F8_E4M3 => Some(DType::F8E4M3),
            _ => None,
        }
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        self.load_scaled(name, None, dtype, device)
    }
}

fn refuse_other_formats(data: &[u8]) -> Result<()> {
    let what = match data {
        [b'P', b'K', 3, 4, ..] => "a zip archive (a PyTorch `.bin`/`.pt` checkpoint?)",
        [0x80, 2..=5, ..] => "a Python pickle",
        [b'G', b'G', b'U', b'F', ..] => "a GGUF file",
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' ', ..] => {
            "a Git LFS pointer; the weights themselves were not downloaded"
        }
        _ => return Ok(()),
    };
    Err(invalid(format!("the file is {what}, not safetensors")))
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    let message = message.into();
    Error::model_invalid(format!("not a valid safetensors file: {message}"))
}
