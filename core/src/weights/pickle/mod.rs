//! The reader of PyTorch checkpoints (`.pth`, `.pt`, `.bin`, `.patch`), for models that are published as nothing else.
//!
//! A pickle is a program. Here it is never run: [`machine`] lays out what it describes, knows the handful of names that
//! tensors need, and refuses every other one. Where numbers are is checked against the file before any is read:
//!
//! - archives (since PyTorch 1.6): a zip file with `data.pkl` and a file for each storage, stored or deflated;
//! - the form before that: pickles, and the storages behind them.
//!
//! Names are the keys of dictionaries, and places in tuples, with points between them: `params_ema.conv_first.weight`,
//! or `key.0` of a tuple under `key`.

mod machine;
mod tensors;
#[cfg(test)]
mod tests;
mod zip;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use half::{bf16, f16};

use self::machine::Kind;
use self::tensors::{Found, Stored};
use self::zip::Entry;
use super::checkpoint::Source;
use super::mapped::Bytes;
use crate::device::classify;
use crate::error::{Error, Result};

/// Longest pickle in bytes; those of the largest checkpoints have one MiB.
const MAX_PICKLE: usize = 32 << 20;
/// How files of the form before archives start: a pickle of a number that is PyTorch's.
const MAGIC: &[u8] = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.";
/// How archives start.
const ARCHIVE: &[u8] = b"PK\x03\x04";

/// A checkpoint of PyTorch whose pickle was laid out and checked.
pub(crate) struct PickleFile {
    origin: String,
    bytes: Bytes,
    found: BTreeMap<String, Found>,
    storages: BTreeMap<String, Entry>,
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::model_invalid(format!("not a valid PyTorch checkpoint: {}", message.into()))
}

/// Whether a file that starts so is a checkpoint of PyTorch.
pub(crate) fn is_pickle(start: &[u8]) -> bool {
    start.starts_with(ARCHIVE) || start.starts_with(&MAGIC[..start.len().min(MAGIC.len())])
}

impl PickleFile {
    /// Maps and checks the file at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let origin = path.display().to_string();
        Self::parse(Bytes::open(path)?, origin).map_err(|e| e.with("file", path.display()))
    }

    /// Checks a file that is already in memory; `origin` is what error messages call it.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn from_bytes(bytes: Vec<u8>, origin: impl Into<String>) -> Result<Self> {
        Self::parse(Bytes::Static(bytes.into()), origin.into())
    }

    fn parse(bytes: Bytes, origin: String) -> Result<Self> {
        let data = bytes.as_ref();
        let (found, storages) = match data {
            _ if data.starts_with(ARCHIVE) => archive(data)?,
            _ if data.starts_with(MAGIC) => plain(data)?,
            _ => return Err(invalid("it is neither an archive nor starts as old ones do")),
        };
        for (name, found) in &found {
            let Found::Tensor(tensor) = found else { continue };
            let length = storages.get(&tensor.storage).map(|entry| entry.length);
            if length != tensor.of_storage.checked_mul(tensor.kind.size()) {
                let message =
                    format!("the storage `{:.80}` is not as long as it is said", tensor.storage);
                return Err(invalid(message).with("tensor", name));
            }
        }
        Ok(Self { origin, bytes, found, storages })
    }

    /// A number that is no tensor, or that of a tensor with one.
    pub(crate) fn number(&self, name: &str) -> Result<Option<f64>> {
        match self.found.get(name) {
            None => Ok(None),
            Some(Found::Number(number)) => Ok(Some(*number)),
            Some(Found::Tensor(tensor)) if tensor.count == 1 => {
                self.values(tensor).map(|values| values.first().map(|value| f64::from(*value)))
            }
            Some(Found::Tensor(_)) => {
                Err(invalid("several numbers stand where one should").with("tensor", name))
            }
        }
    }

    /// Whether a tensor's numbers are bytes, from 0 to 255.
    pub(crate) fn is_bytes(&self, name: &str) -> bool {
        matches!(self.found.get(name), Some(Found::Tensor(tensor)) if tensor.kind == Kind::U8)
    }

    /// The numbers of a tensor in `f32`.
    fn values(&self, tensor: &Stored) -> Result<Vec<f32>> {
        let raw = self.raw(tensor)?;
        let values =
            |size: usize, value: &dyn Fn(&[u8]) -> f32| raw.chunks_exact(size).map(value).collect();
        fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
            bytes.first_chunk().copied().unwrap_or([0; N])
        }
        Ok(match tensor.kind {
            Kind::F32 => values(4, &|bytes| f32::from_le_bytes(array(bytes))),
            Kind::F64 => values(8, &|bytes| f64::from_le_bytes(array(bytes)) as f32),
            Kind::F16 => values(2, &|bytes| f16::from_le_bytes(array(bytes)).to_f32()),
            Kind::BF16 => values(2, &|bytes| bf16::from_le_bytes(array(bytes)).to_f32()),
            Kind::U8 => values(1, &|bytes| f32::from(bytes[0])),
            other => {
                return Err(Error::unsupported(format!(
                    "the tensor is stored as {other:?}; only F32, F64, F16, BF16 and U8 are read"
                )));
            }
        })
    }

    /// The bytes of a tensor.
    fn raw(&self, tensor: &Stored) -> Result<Cow<'_, [u8]>> {
        let size = tensor.kind.size();
        let range = tensor.offset * size..(tensor.offset + tensor.count) * size;
        let entry = self.storages.get(&tensor.storage);
        let entry = entry.ok_or_else(|| invalid("a storage is missing"))?;
        let part = |whole: &[u8]| whole.get(range.clone()).map(<[u8]>::to_vec);
        let missing = || invalid("the tensor is larger than its storage");
        match content(self.bytes.as_ref(), entry)? {
            Cow::Borrowed(whole) => whole.get(range).map(Cow::Borrowed).ok_or_else(missing),
            Cow::Owned(whole) if range.len() == whole.len() => Ok(Cow::Owned(whole)),
            Cow::Owned(whole) => part(&whole).map(Cow::Owned).ok_or_else(missing),
        }
    }
}

impl Source for PickleFile {
    fn names(&self) -> Vec<String> {
        let tensors = self.found.iter().filter(|(_, found)| matches!(found, Found::Tensor(_)));
        tensors.map(|(name, _)| name.clone()).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        match self.found.get(name)? {
            Found::Tensor(tensor) => Some(tensor.shape.clone()),
            Found::Number(_) => None,
        }
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let Some(Found::Tensor(tensor)) = self.found.get(name) else {
            return Err(Error::model_invalid(format!("tensor `{name}` is missing")));
        };
        Tensor::from_vec(self.values(tensor)?, tensor.shape.as_slice(), &Device::Cpu)
            .and_then(|values| values.to_dtype(dtype)?.to_device(device))
            .map_err(|e| classify(e, "cannot load a tensor"))
    }

    fn origin(&self, _: &str) -> &str {
        &self.origin
    }

    fn stored(&self, name: &str) -> Option<DType> {
        match self.found.get(name)? {
            Found::Tensor(tensor) => match tensor.kind {
                Kind::F32 => Some(DType::F32),
                Kind::F64 => Some(DType::F64),
                Kind::F16 => Some(DType::F16),
                Kind::BF16 => Some(DType::BF16),
                _ => None,
            },
            Found::Number(_) => None,
        }
    }
}

type Parts = (BTreeMap<String, Found>, BTreeMap<String, Entry>);

/// The content of a file of the archive, whose checksum must be right.
fn content<'a>(archive: &'a [u8], entry: &Entry) -> Result<Cow<'a, [u8]>> {
    let bytes = archive.get(entry.range.clone()).ok_or_else(|| invalid("it is cut short"))?;
    let content = match entry.is_deflated {
        false => Cow::Borrowed(bytes),
        true => {
            // One more than there should be would be seen. The length was checked against what is possible.
            let mut inflated = Vec::with_capacity(entry.length);
            let most = entry.length as u64 + 1;
            let read =
                flate2::read::DeflateDecoder::new(bytes).take(most).read_to_end(&mut inflated);
            if read.ok() != Some(entry.length) {
                return Err(invalid("a file of the archive does not inflate to what it should"));
            }
            Cow::Owned(inflated)
        }
    };
    match entry.crc.is_none_or(|crc| crc32fast::hash(&content) == crc) {
        true => Ok(content),
        false => Err(invalid("a file of the archive has another checksum: it is damaged")),
    }
}

/// Of an archive: `NAME/data.pkl`, and `NAME/data/KEY` for each storage.
fn archive(data: &[u8]) -> Result<Parts> {
    let entries = zip::entries(data)?;
    let pickles = entries.keys().filter(|name| *name == "data.pkl" || name.ends_with("/data.pkl"));
    let name = match &pickles.collect::<Vec<_>>()[..] {
        [name] => (*name).clone(),
        [] => return Err(invalid("the archive has no `data.pkl`")),
        _ => return Err(invalid("the archive has several `data.pkl`")),
    };
    let folder = name.strip_suffix("data.pkl").unwrap_or_default().to_owned();
    let has = |file: &str| entries.get(&format!("{folder}{file}"));
    if let Some(order) = has("byteorder")
        && order.length < 16
        && content(data, order)?.as_ref() != b"little"
    {
        return Err(Error::unsupported("the checkpoint's bytes are in another order"));
    }
    if has("code/__torch__.py").is_some() || has("constants.pkl").is_some() {
        return Err(Error::unsupported("the file is a program (TorchScript), not a checkpoint"));
    }
    let pickle = entries.get(&name).ok_or_else(|| invalid("the archive has no `data.pkl`"))?;
    if pickle.length > MAX_PICKLE {
        let message = format!("the pickle has {} bytes; at most {MAX_PICKLE}", pickle.length);
        return Err(invalid(message));
    }
    let content = content(data, pickle)?;
    let (laid_out, root, _) = machine::read(&content)?;
    let found = tensors::found(&laid_out, root)?;
    let below = format!("{folder}data/");
    let storages = entries
        .into_iter()
        .filter_map(|(name, entry)| Some((name.strip_prefix(&below)?.to_owned(), entry)));
    Ok((found, storages.collect()))
}

/// Of the form before archives: the number that says what it is, a version, notes on the machine, the checkpoint, the
/// names of storages; and behind these, each storage after the count of its numbers.
fn plain(data: &[u8]) -> Result<Parts> {
    let mut rest = data;
    let mut next = || -> Result<_> {
        let (pickle, root, behind) = machine::read(&rest[..rest.len().min(MAX_PICKLE)])?;
        rest = &rest[rest.len().min(MAX_PICKLE) - behind.len()..];
        Ok((pickle, root))
    };
    let (_magic, _version, _machine) = (next()?, next()?, next()?);
    let (checkpoint, root) = next()?;
    let (names, list) = next()?;
    let found = tensors::found(&checkpoint, root)?;
    let sizes: BTreeMap<&str, usize> = found
        .values()
        .filter_map(|found| match found {
            Found::Tensor(tensor) => Some((tensor.storage.as_str(), tensor.kind.size())),
            Found::Number(_) => None,
        })
        .collect();
    let machine::Value::List(order) = names.value(list) else {
        return Err(invalid("the names of its storages are missing"));
    };
    let mut at = data.len() - rest.len();
    let mut storages = BTreeMap::new();
    for id in order {
        let name = names.text(*id).ok_or_else(|| invalid("a storage has no name"))?;
        let size = sizes.get(name).ok_or_else(|| invalid("a storage is of no tensor"))?;
        let cut = || invalid("it is cut short");
        let count = data.get(at..).and_then(|rest| rest.first_chunk::<8>()).ok_or_else(cut)?;
        let length = usize::try_from(u64::from_le_bytes(*count)).ok();
        let length = length.and_then(|count| count.checked_mul(*size)).ok_or_else(cut)?;
        let range = at + 8..(at + 8).checked_add(length).ok_or_else(cut)?;
        at = range.end;
        if at > data.len() {
            return Err(cut());
        }
        let entry = Entry { range, length, is_deflated: false, crc: None };
        if storages.insert(name.to_owned(), entry).is_some() {
            return Err(invalid("it has a storage twice"));
        }
    }
    Ok((found, storages))
}
