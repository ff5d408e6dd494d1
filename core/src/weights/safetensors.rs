//! The safetensors reader: maps the file, checks its header, copies tensors out on demand.
//!
//! The header is checked by the `safetensors` crate (lengths, overlaps, offsets, shape products);
//! this module adds the limits that keep a hostile header cheap, and refuses other formats by their
//! first bytes, since a renamed pickle must never be guessed at.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorInfo};

use super::mapped::{map, release};
use crate::error::{Error, Result};

/// Longest header in bytes; published checkpoints stay below 1 MiB.
const MAX_HEADER: u64 = 32 << 20;
/// Most tensors in one file.
const MAX_TENSORS: usize = 100_000;

enum Bytes {
    Mapped(memmap2::Mmap),
    Static(Cow<'static, [u8]>),
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            Bytes::Mapped(map) => map,
            Bytes::Static(bytes) => bytes,
        }
    }
}

/// A safetensors file with a checked header.
pub(crate) struct SafeTensorsFile {
    bytes: Bytes,
    tensors: BTreeMap<String, TensorInfo>,
    data_start: usize,
}

impl SafeTensorsFile {
    /// Maps and checks the file at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Self::parse(Bytes::Mapped(map(path)?)).map_err(|e| e.with("file", path.display()))
    }

    /// Checks a file that is already in memory.
    pub(crate) fn from_bytes(bytes: impl Into<Cow<'static, [u8]>>) -> Result<Self> {
        Self::parse(Bytes::Static(bytes.into()))
    }

    fn parse(bytes: Bytes) -> Result<Self> {
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
        Ok(Self { data_start: 8 + header_length, bytes, tensors })
    }

    /// The names of all tensors.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor, if there is one of that name.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|info| info.shape.clone())
    }

    /// Copies one tensor out, converted to `dtype`, onto `device`.
    pub(crate) fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let info = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::model_invalid(format!("tensor `{name}` is missing")))?;
        let stored = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            other => {
                return Err(Error::unsupported(format!(
                    "tensor `{name}` is stored as {other:?}; only F32, F16 and BF16 are read"
                )));
            }
        };
        let (start, end) = info.data_offsets;
        let range = self.data_start + start..self.data_start + end;
        let data = &self.bytes.as_ref()[range.clone()];
        let tensor = Tensor::from_raw_buffer(data, stored, &info.shape, &Device::Cpu)
            .and_then(|t| t.to_dtype(dtype)?.to_device(device))
            .map_err(|e| crate::device::classify(e, "cannot load a tensor"));
        if let Bytes::Mapped(map) = &self.bytes {
            release(map, range);
        }
        tensor
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
