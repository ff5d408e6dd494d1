//! The safetensors reader: maps the file, checks its header, copies tensors out on demand.
//!
//! The header is checked by the `safetensors` crate (lengths, overlaps, offsets, shape products);
//! this module adds the limits that keep a hostile header cheap, and refuses other formats by their
//! first bytes, since a renamed pickle must never be guessed at.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorInfo};

use super::checkpoint::Source;
use super::fp8;
use super::mapped::Bytes;
use crate::error::{Error, Result};

/// Longest header in bytes; published checkpoints stay below 1 MiB.
const MAX_HEADER: u64 = 32 << 20;
/// Most tensors in one file.
const MAX_TENSORS: usize = 100_000;

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
        let range = self.range(info);
        let data = &self.bytes.as_ref()[range.clone()];
        let plain = |stored| {
            let tensor = Tensor::from_raw_buffer(data, stored, &info.shape, &Device::Cpu)?;
            match scale {
                Some(scale) => (tensor.to_dtype(DType::F32)? * f64::from(scale))?.to_dtype(dtype),
                None => tensor.to_dtype(dtype),
            }
        };
        let tensor = match info.dtype {
            Dtype::F32 => plain(DType::F32),
            Dtype::F16 => plain(DType::F16),
            Dtype::BF16 => plain(DType::BF16),
            Dtype::F8_E4M3 => fp8::decode(data, fp8::e4m3, scale, &info.shape, dtype),
            Dtype::F8_E5M2 => fp8::decode(data, fp8::e5m2, scale, &info.shape, dtype),
            other => {
                return Err(Error::unsupported(format!(
                    "tensor `{name}` is stored as {other:?}; only F32, F16, BF16, F8_E4M3 and \
                     F8_E5M2 are read"
                )));
            }
        };
        let tensor = tensor
            .and_then(|tensor| tensor.to_device(device))
            .map_err(|e| crate::device::classify(e, "cannot load a tensor"));
        self.bytes.release(range);
        tensor
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
