//! A TensorFlow tensor bundle: `variables.index` and `variables.data-?????-of-?????`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::crc32c::masked;
use super::table;
use crate::error::{Error, Result, ResultExt};
use crate::weights::mapped::map;
use crate::weights::wire::{Fields, Value, damaged, varint};

/// Longest index in bytes; published ones have some hundred kilobytes.
const MAX_INDEX: u64 = 64 << 20;
/// The entry that describes the objects that the variables belong to.
const OBJECTS: &str = "_CHECKPOINTABLE_OBJECT_GRAPH";

/// Where a variable lies.
#[derive(Clone, Debug, Default)]
struct Entry {
    dtype: i64,
    dims: Vec<usize>,
    shard: usize,
    offset: usize,
    size: usize,
    crc: u32,
    sliced: bool,
}

/// The variables of a bundle.
pub(super) struct Bundle {
    entries: BTreeMap<String, Entry>,
    shards: Vec<(PathBuf, memmap2::Mmap)>,
}

impl Bundle {
    /// Opens the bundle in the folder `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let index = dir.join("variables.index");
        let length = std::fs::metadata(&index)
            .map_err(|e| Error::io("open the variables", &index, e))?
            .len();
        if length > MAX_INDEX {
            return Err(Error::model_invalid(format!("an index of {length} bytes"))
                .with("file", index.display()));
        }
        let bytes =
            std::fs::read(&index).map_err(|e| Error::io("read the variables", &index, e))?;
        let (entries, count) = parse(&bytes).context("file", index.display())?;
        let mut shards = Vec::new();
        for shard in 0..count {
            let path = dir.join(format!("variables.data-{shard:05}-of-{count:05}"));
            let map = map(&path)?;
            shards.push((path, map));
        }
        Ok(Self { entries, shards })
    }

    fn bytes(&self, key: &str) -> Result<(&Entry, &[u8])> {
        let entry = self
            .entries
            .get(key)
            .ok_or_else(|| Error::model_invalid(format!("the variable `{key}` is missing")))?;
        let (path, map) = self
            .shards
            .get(entry.shard)
            .ok_or_else(|| damaged("a variable lies in a file that is not there"))?;
        let range = entry.offset..entry.offset.saturating_add(entry.size);
        let bytes = map.get(range).ok_or_else(|| {
            Error::model_invalid("a variable lies outside of its file, which may be cut off")
                .with("variable", key)
                .with("file", path.display())
        })?;
        Ok((entry, bytes))
    }

    /// The description of the objects that the variables belong to.
    pub(super) fn objects(&self) -> Result<&[u8]> {
        let (entry, mut bytes) = self.bytes(OBJECTS)?;
        if entry.dtype != 7 || !entry.dims.is_empty() {
            return Err(damaged("the description of the objects is no text"));
        }
        // A string tensor: lengths, their checksum, then the strings.
        let length = varint(&mut bytes)?;
        bytes
            .get(4..)
            .filter(|text| u64::try_from(text.len()).ok() == Some(length))
            .ok_or_else(|| damaged("the description of the objects has another length"))
    }

    /// The dimensions of a variable.
    pub(super) fn dims(&self, key: &str) -> Result<&[usize]> {
        Ok(&self.bytes(key)?.0.dims)
    }

    /// The values of a variable.
    pub(super) fn floats(&self, key: &str) -> Result<Vec<f32>> {
        let (entry, bytes) = self.bytes(key)?;
        let fail = |message: String| Error::model_invalid(message).with("variable", key);
        let width = match entry.dtype {
            1 => 4,
            14 | 19 => 2,
            other => {
                return Err(Error::unsupported(format!("variables of type {other} are not read"))
                    .with("variable", key));
            }
        };
        let count = entry.dims.iter().try_fold(width, |n: usize, dim| n.checked_mul(*dim));
        if count != Some(bytes.len()) || entry.sliced {
            return Err(fail(format!("{} bytes for the shape {:?}", bytes.len(), entry.dims)));
        }
        if masked(bytes) != entry.crc {
            return Err(fail("the checksum does not match: the file is damaged".into()));
        }
        Ok(match entry.dtype {
            1 => bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
            14 => bytes
                .chunks_exact(2)
                .map(|b| half::bf16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
            _ => bytes
                .chunks_exact(2)
                .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32())
                .collect(),
        })
    }
}

/// The entries of an index and the number of data files.
fn parse(bytes: &[u8]) -> Result<(BTreeMap<String, Entry>, usize)> {
    let mut entries = BTreeMap::new();
    let mut shards = None;
    for (key, value) in table::entries(bytes)? {
        if key.is_empty() {
            let (mut count, mut endianness) = (1, 0);
            let mut fields = Fields::new(&value);
            while let Some((number, value)) = fields.next()? {
                match number {
                    1 => count = value.int()?,
                    2 => endianness = value.int()?,
                    _ => {}
                }
            }
            if endianness != 0 {
                return Err(Error::unsupported("a big-endian bundle is not read"));
            }
            shards = usize::try_from(count).ok().filter(|count| (1..=1000).contains(count));
        } else {
            entries.insert(String::from_utf8_lossy(&key).into_owned(), entry(&value)?);
        }
    }
    let shards = shards.ok_or_else(|| damaged("the bundle has no header"))?;
    Ok((entries, shards))
}

fn entry(bytes: &[u8]) -> Result<Entry> {
    let size = |value: i64| usize::try_from(value).map_err(|_| damaged("a negative size"));
    let mut entry = Entry::default();
    let mut fields = Fields::new(bytes);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => entry.dtype = value.int()?,
            2 => {
                let mut shape = Fields::new(value.bytes()?);
                while let Some((number, value)) = shape.next()? {
                    if number == 2 {
                        let mut dim = 0;
                        let mut parts = Fields::new(value.bytes()?);
                        while let Some((number, value)) = parts.next()? {
                            if number == 1 {
                                dim = size(value.int()?)?;
                            }
                        }
                        if entry.dims.len() >= 12 {
                            return Err(damaged("a variable has too many dimensions"));
                        }
                        entry.dims.push(dim);
                    }
                }
            }
            3 => entry.shard = size(value.int()?)?,
            4 => entry.offset = size(value.int()?)?,
            5 => entry.size = size(value.int()?)?,
            6 => match value {
                Value::Fixed32(crc) => entry.crc = crc,
                _ => return Err(damaged("a checksum is no number")),
            },
            7 => entry.sliced = true,
            _ => {}
        }
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_off_or_changed_index_is_an_error() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/goldens/onnx/keras-vit/variables/variables.index");
        let bytes = std::fs::read(path).unwrap();
        assert!(parse(&bytes).is_ok());
        for length in 0..bytes.len() {
            assert!(parse(&bytes[..length]).is_err());
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x55;
            let _ = parse(&changed);
        }
    }
}
