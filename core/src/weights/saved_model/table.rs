//! The sorted string table that indexes a TensorFlow bundle (`variables.index`): LevelDB's format.

use std::collections::BTreeMap;

use super::crc32c::masked;
use crate::error::{Error, Result};
use crate::weights::wire::varint;

const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
const FOOTER: usize = 48;
/// Most entries; published taggers have some thousand.
const MAX_ENTRIES: usize = 100_000;

fn damaged(message: &'static str) -> Error {
    Error::model_invalid(format!("not a readable TensorFlow variables index: {message}"))
}

/// All entries of the table in `bytes`.
pub(super) fn entries(bytes: &[u8]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let start = bytes.len().checked_sub(FOOTER).ok_or_else(|| damaged("it is too short"))?;
    let (mut footer, magic) = bytes[start..].split_at(FOOTER - 8);
    if magic != MAGIC.to_le_bytes() {
        return Err(damaged("it does not end as one (cut off, or a Git LFS pointer?)"));
    }
    handle(&mut footer)?;
    let index = handle(&mut footer)?;
    let mut all = BTreeMap::new();
    for (_, place) in block(bytes, index)? {
        let place = handle(&mut &place[..])?;
        for (key, value) in block(bytes, place)? {
            if all.len() >= MAX_ENTRIES {
                return Err(damaged("it has too many entries"));
            }
            all.insert(key, value);
        }
    }
    Ok(all)
}

/// Offset and length of a block.
fn handle(rest: &mut &[u8]) -> Result<(usize, usize)> {
    let mut next = || -> Result<usize> {
        usize::try_from(varint(rest)?).map_err(|_| damaged("a block lies outside of the file"))
    };
    Ok((next()?, next()?))
}

fn block(bytes: &[u8], (offset, length): (usize, usize)) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let outside = || damaged("a block lies outside of the file");
    let end = offset.checked_add(length).ok_or_else(outside)?;
    let trailer = bytes.get(end..end.saturating_add(5)).ok_or_else(outside)?;
    let block = bytes.get(offset..end).ok_or_else(outside)?;
    if trailer[0] != 0 {
        return Err(Error::unsupported("a compressed TensorFlow variables index is not read"));
    }
    let stored = u32::from_le_bytes([trailer[1], trailer[2], trailer[3], trailer[4]]);
    if masked(&bytes[offset..=end]) != stored {
        return Err(damaged("a checksum does not match"));
    }
    let short = || damaged("a block is too short");
    let (rest, count) = block.split_last_chunk::<4>().ok_or_else(short)?;
    let restarts = (u32::from_le_bytes(*count) as usize).checked_mul(4).ok_or_else(short)?;
    let mut rest = &rest[..rest.len().checked_sub(restarts).ok_or_else(short)?];
    let mut entries = Vec::new();
    let mut key: Vec<u8> = Vec::new();
    while !rest.is_empty() {
        let mut next =
            || -> Result<usize> { usize::try_from(varint(&mut rest)?).map_err(|_| short()) };
        let (shared, own, length) = (next()?, next()?, next()?);
        let total = own.checked_add(length).filter(|total| *total <= rest.len());
        if total.is_none() || shared > key.len() || entries.len() >= MAX_ENTRIES {
            return Err(damaged("an entry is longer than its block"));
        }
        key.truncate(shared);
        key.extend(&rest[..own]);
        // A key that repeats its predecessor in every entry would grow with the square of a file.
        if key.len() > 4096 {
            return Err(damaged("a key is too long"));
        }
        entries.push((key.clone(), rest[own..own + length].to_vec()));
        rest = &rest[own + length..];
    }
    Ok(entries)
}
