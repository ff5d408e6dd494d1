//! The header of a GGUF file, version 2 or 3: keys with values, and where the tensors are.
//!
//! Counts, lengths, types, sizes and places come from the file and are believed only after they were
//! compared with what there is. Memory is taken for what was read, never for what is announced.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use candle_core::quantized::GgmlDType;

use super::MAGIC;
use crate::error::{Error, Result};

/// Longest header in bytes; those of language models, with their vocabularies, stay below 16 MiB.
const MAX_HEADER: usize = 64 << 20;
/// Most tensors in one file.
const MAX_TENSORS: u64 = 100_000;
/// Most keys in one file.
const MAX_KEYS: u64 = 65_536;
/// Longest name of a key or tensor in bytes.
const MAX_NAME: usize = 1024;
/// Most dimensions of a tensor; ggml has no more.
const MAX_DIMS: u32 = 4;
/// Where the data of a tensor starts is a multiple of this unless the file says otherwise.
const DEFAULT_ALIGNMENT: u32 = 32;
const MAX_ALIGNMENT: u32 = 1 << 20;

/// One tensor.
pub(super) struct Info {
    pub(super) shape: Vec<usize>,
    pub(super) kind: GgmlDType,
    /// Where its data is in the file.
    pub(super) range: Range<usize>,
}

/// A checked header.
pub(super) struct Header {
    /// Keys whose values are texts.
    pub(super) texts: BTreeMap<String, String>,
    pub(super) tensors: BTreeMap<String, Info>,
}

impl Header {
    /// Reads and checks the header of `file`, all of its bytes.
    pub(super) fn parse(file: &[u8]) -> Result<Self> {
        let mut reader = Reader { data: &file[..file.len().min(MAX_HEADER)], at: 0 };
        if reader.take(4)? != MAGIC {
            return Err(invalid("it does not start with `GGUF`"));
        }
        match reader.u32()? {
            2 | 3 => {}
            version if version.swap_bytes() <= 3 => {
                return Err(Error::unsupported("the GGUF file is big-endian, which is not read"));
            }
            version => {
                return Err(Error::unsupported(format!(
                    "the GGUF file has version {version}; only 2 and 3 are read"
                )));
            }
        }
        let tensors = at_most("tensors", reader.u64()?, MAX_TENSORS)?;
        let keys = at_most("keys", reader.u64()?, MAX_KEYS)?;
        let (texts, alignment) = read_keys(&mut reader, keys)?;
        let mut stated = Vec::new();
        for _ in 0..tensors {
            stated.push(Stated::read(&mut reader, alignment)?);
        }
        let start = reader.at.next_multiple_of(alignment as usize);
        let tensors = place(stated, start, file.len())?;
        Ok(Self { texts, tensors })
    }
}

/// The texts among the keys' values, and the alignment of data.
fn read_keys(reader: &mut Reader<'_>, count: u64) -> Result<(BTreeMap<String, String>, u32)> {
    let mut texts = BTreeMap::new();
    let mut alignment = DEFAULT_ALIGNMENT;
    for _ in 0..count {
        let key = reader.name()?;
        match (reader.u32()?, key.as_str()) {
            (4, "general.alignment") => alignment = reader.u32()?,
            (_, "general.alignment") => return Err(invalid("`general.alignment` is no u32")),
            (8, _) => {
                let text = String::from_utf8_lossy(reader.text()?).into_owned();
                if texts.insert(key.clone(), text).is_some() {
                    return Err(invalid(format!("key `{key}` is there twice")));
                }
            }
            (kind, _) => reader.skip_value(kind).map_err(|e| e.with("key", &key))?,
        }
    }
    if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
        return Err(invalid(format!(
            "the alignment is {alignment}; expected a power of two up to {MAX_ALIGNMENT}"
        )));
    }
    Ok((texts, alignment))
}

/// A tensor as the header states it.
struct Stated {
    name: String,
    shape: Vec<usize>,
    kind: GgmlDType,
    offset: usize,
    length: usize,
}

impl Stated {
    fn read(reader: &mut Reader<'_>, alignment: u32) -> Result<Self> {
        let name = reader.name()?;
        Self::read_rest(reader, alignment, &name).map_err(|e| e.with("tensor", &name))
    }

    fn read_rest(reader: &mut Reader<'_>, alignment: u32, name: &str) -> Result<Self> {
        let rank = reader.u32()?;
        if rank > MAX_DIMS {
            return Err(invalid(format!("{rank} dimensions; at most {MAX_DIMS} are allowed")));
        }
        let mut shape = Vec::with_capacity(rank as usize);
        for _ in 0..rank {
            shape.push(whole(reader.u64()?)?);
        }
        let kind = kind(reader.u32()?)?;
        let offset = whole(reader.u64()?)?;
        if !offset.is_multiple_of(alignment as usize) {
            return Err(invalid(format!("its data starts at {offset}, not at a {alignment}th")));
        }
        // Sizes of 0 do not hide what overflows beside them.
        let most = shape.iter().try_fold(1usize, |count, size| count.checked_mul((*size).max(1)));
        let most = most.ok_or_else(|| invalid(format!("shape {shape:?} is too large")))?;
        let count = if shape.contains(&0) { 0 } else { most };
        // Blocks go along rows, the dimension that is written first.
        let block = kind.block_size();
        if !shape.first().unwrap_or(&1).is_multiple_of(block) {
            return Err(invalid(format!("rows of {:?} in blocks of {block}", shape.first())));
        }
        let length = (count / block).checked_mul(kind.type_size());
        let length = length.ok_or_else(|| invalid(format!("shape {shape:?} is too large")))?;
        shape.reverse();
        Ok(Self { name: name.to_owned(), shape, kind, offset, length })
    }
}

/// Finds the tensors in a file of `size` bytes whose data starts at `start`.
fn place(mut stated: Vec<Stated>, start: usize, size: usize) -> Result<BTreeMap<String, Info>> {
    stated.sort_by_key(|tensor| (tensor.offset, tensor.length));
    let mut tensors = BTreeMap::new();
    let mut free = start;
    for Stated { name, shape, kind, offset, length } in stated {
        let first = start.checked_add(offset).filter(|first| length == 0 || *first >= free);
        let Some(first) = first else {
            return Err(invalid("its data overlaps that of another one").with("tensor", name));
        };
        let end = first.checked_add(length).filter(|end| length == 0 || *end <= size);
        let Some(end) = end else {
            return Err(invalid(format!(
                "its data, {length} bytes from {first}, lies beyond the end of the file, {size}"
            ))
            .with("tensor", name));
        };
        // An empty tensor may lie anywhere, so it must not be looked for there.
        let range = if length == 0 { 0..0 } else { first..end };
        free = free.max(range.end);
        if tensors.contains_key(&name) {
            return Err(invalid("it is there twice").with("tensor", name));
        }
        tensors.insert(name, Info { shape, kind, range });
    }
    Ok(tensors)
}

/// A type of numbers by its number in ggml.
fn kind(number: u32) -> Result<GgmlDType> {
    let unread = match number {
        0 => return Ok(GgmlDType::F32),
        1 => return Ok(GgmlDType::F16),
        2 => return Ok(GgmlDType::Q4_0),
        3 => return Ok(GgmlDType::Q4_1),
        6 => return Ok(GgmlDType::Q5_0),
        7 => return Ok(GgmlDType::Q5_1),
        8 => return Ok(GgmlDType::Q8_0),
        10 => return Ok(GgmlDType::Q2K),
        11 => return Ok(GgmlDType::Q3K),
        12 => return Ok(GgmlDType::Q4K),
        13 => return Ok(GgmlDType::Q5K),
        14 => return Ok(GgmlDType::Q6K),
        15 => return Ok(GgmlDType::Q8K),
        30 => return Ok(GgmlDType::BF16),
        9 => "Q8_1",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        40 => "NVFP4",
        _ => {
            return Err(Error::unsupported(format!(
                "the tensor is stored as GGUF type {number}, which is not known"
            )));
        }
    };
    Err(Error::unsupported(format!("the tensor is stored as {unread}, which is not read")))
}

/// Reads a header from its start on.
struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.data.len());
        let end = end.ok_or_else(|| {
            invalid(format!("the header goes beyond the file, or beyond {MAX_HEADER} bytes"))
        })?;
        let taken = &self.data[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<&'a [u8]> {
        let length = whole(self.u64()?)?;
        self.take(length)
    }

    fn name(&mut self) -> Result<String> {
        let name = self.text()?;
        if name.len() > MAX_NAME {
            return Err(invalid(format!("a name of {} bytes", name.len())));
        }
        String::from_utf8(name.to_vec()).map_err(|_| invalid("a name is not UTF-8"))
    }

    fn skip_value(&mut self, kind: u32) -> Result<()> {
        match kind {
            8 => self.text().map(drop),
            9 => {
                let (kind, count) = (self.u32()?, whole(self.u64()?)?);
                if kind == 8 {
                    return (0..count).try_for_each(|_| self.text().map(drop));
                }
                let length = count.checked_mul(size(kind)?);
                self.take(length.ok_or_else(|| invalid("an endless list"))?).map(drop)
            }
            _ => self.take(size(kind)?).map(drop),
        }
    }
}

/// The bytes of a value of a type that has always the same length.
fn size(kind: u32) -> Result<usize> {
    match kind {
        0 | 1 | 7 => Ok(1),
        2 | 3 => Ok(2),
        4..=6 => Ok(4),
        10..=12 => Ok(8),
        _ => Err(invalid(format!("a value of type {kind}"))),
    }
}

fn whole(value: u64) -> Result<usize> {
    usize::try_from(value).map_err(|_| invalid(format!("{value} is too large")))
}

fn at_most(what: &str, value: u64, most: u64) -> Result<u64> {
    if value <= most {
        return Ok(value);
    }
    Err(invalid(format!("it claims {value} {what}; at most {most} are allowed")))
}

fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    Error::model_invalid(format!("not a valid GGUF file: {}", message.into()))
}
