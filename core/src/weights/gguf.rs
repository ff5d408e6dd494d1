//! The GGUF reader: quantised tensors in one file, as the llama.cpp tools write them.
//!
//! A GGUF file is a list of keys with values, a list of tensors, and their data. All of the two lists
//! is checked before anything is made of it; a tensor becomes numbers when it is loaded. Types of
//! numbers that are not read are refused when the file is opened, by name.

mod header;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use candle_core::quantized::GgmlDType;
use candle_core::{CpuStorage, DType, Device, Tensor};
use rayon::prelude::*;

use super::checkpoint::Source;
use super::mapped::Bytes;
use crate::device::classify;
use crate::error::{Error, Result};
use header::{Header, Info};

/// The first bytes of every file.
pub(super) const MAGIC: &[u8; 4] = b"GGUF";
/// Blocks of numbers that are decoded at once. A multiple of [`ALIGNMENT`], so that every part of an
/// aligned tensor is aligned.
const BLOCKS: usize = 4096;
/// What the address of blocks must be a multiple of.
const ALIGNMENT: usize = 8;

/// A GGUF file with a checked header.
pub(crate) struct GgufFile {
    origin: String,
    bytes: Bytes,
    texts: BTreeMap<String, String>,
    tensors: BTreeMap<String, Info>,
}

impl GgufFile {
    /// Maps and checks the file at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        Self::parse(Bytes::open(path)?, origin).map_err(|e| e.with("file", path.display()))
    }

    /// Checks a file that is already in memory; `origin` is what error messages call it.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn from_bytes(
        bytes: impl Into<Cow<'static, [u8]>>,
        origin: impl Into<String>,
    ) -> Result<Self> {
        Self::parse(Bytes::Static(bytes.into()), origin.into())
    }

    fn parse(bytes: Bytes, origin: String) -> Result<Self> {
        let Header { texts, tensors } = Header::parse(bytes.as_ref())?;
        Ok(Self { origin, bytes, texts, tensors })
    }

    /// The text under a key of the file, such as `general.architecture`.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.texts.get(key).map(String::as_str)
    }
}

impl Source for GgufFile {
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
        plain(self.tensors.get(name)?.kind)
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let info = self
            .tensors
            .get(name)
            .ok_or_else(|| Error::model_invalid(format!("tensor `{name}` is missing")))?;
        let data = &self.bytes.as_ref()[info.range.clone()];
        let tensor = match plain(info.kind) {
            Some(stored) => Tensor::from_raw_buffer(data, stored, &info.shape, &Device::Cpu),
            None => dequantise(info.kind, data, info.shape.iter().product())
                .and_then(|values| Tensor::from_vec(values, &*info.shape, &Device::Cpu)),
        };
        let tensor = tensor
            .and_then(|tensor| tensor.to_dtype(dtype)?.to_device(device))
            .map_err(|e| classify(e, "cannot load a tensor"));
        self.bytes.release(info.range.clone());
        tensor
    }
}

/// The type in candle of numbers that are not quantised.
fn plain(kind: GgmlDType) -> Option<DType> {
    match kind {
        GgmlDType::F32 => Some(DType::F32),
        GgmlDType::F16 => Some(DType::F16),
        GgmlDType::BF16 => Some(DType::BF16),
        _ => None,
    }
}

/// The numbers of quantised blocks, `count` of them.
fn dequantise(kind: GgmlDType, data: &[u8], count: usize) -> candle_core::Result<Vec<f32>> {
    let mut values = vec![0f32; count];
    values
        .par_chunks_mut(BLOCKS * kind.block_size())
        .zip(data.par_chunks(BLOCKS * kind.type_size()))
        .try_for_each(|(values, data)| {
            let blocks = kind.from_data(Cow::Borrowed(&aligned(data)));
            match blocks.dequantize(values.len())? {
                CpuStorage::F32(decoded) => values.copy_from_slice(&decoded),
                _ => candle_core::bail!("quantised numbers became none of single precision"),
            }
            Ok(())
        })?;
    Ok(values)
}

/// The bytes at an address that blocks may lie at: files state their alignment themselves.
fn aligned(data: &[u8]) -> Aligned<'_> {
    if data.as_ptr().align_offset(ALIGNMENT) == 0 {
        return Aligned::There(data);
    }
    let mut copy = vec![0; data.len() + ALIGNMENT];
    let start = copy.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    copy[start..start + data.len()].copy_from_slice(data);
    Aligned::Copied { copy, range: start..start + data.len() }
}

enum Aligned<'a> {
    There(&'a [u8]),
    Copied { copy: Vec<u8>, range: std::ops::Range<usize> },
}

impl std::ops::Deref for Aligned<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Aligned::There(data) => data,
            Aligned::Copied { copy, range } => &copy[range.clone()],
        }
    }
}
