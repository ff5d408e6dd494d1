//! The directory of a zip archive, as PyTorch writes checkpoints: names, places and sizes, checked against the file
//! before anything is read.
//!
//! Entries are stored as they are, or deflated, as some published files are. What an archive could do to a reader is
//! refused here: parts outside of the file or over each other, names that come twice, sizes that no data of that
//! length can have, and everything that checkpoints have no use for (encryption, several disks, other methods).

use std::collections::BTreeMap;
use std::ops::Range;

use super::invalid;
use crate::error::{Error, Result};

/// Most entries of an archive; published checkpoints have some thousands.
const MAX_ENTRIES: usize = 100_000;
/// Most bytes that a byte of deflated data can become.
const MAX_RATIO: usize = 1032;
/// Longest comment of an archive, behind which its end is looked for.
const MAX_COMMENT: usize = 1 << 16;
/// What a size or place is that stands elsewhere, in 64 bits.
const ELSEWHERE: u64 = 0xFFFF_FFFF;

/// One file of an archive.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Where its bytes are in the archive.
    pub(super) range: Range<usize>,
    /// How many it has when they are inflated.
    pub(super) length: usize,
    pub(super) is_deflated: bool,
    /// Its checksum, where there is one.
    pub(super) crc: Option<u32>,
}

/// Numbers in the order of a zip archive.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(cut)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<u64> {
        let taken = self.take(bytes)?;
        Ok(taken.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }
}

fn cut() -> Error {
    invalid("the archive's directory is cut short")
}

/// The entries of an archive by their names.
pub(super) fn entries(archive: &[u8]) -> Result<BTreeMap<String, Entry>> {
    let (start, count) = directory(archive)?;
    if count > MAX_ENTRIES {
        return Err(invalid(format!("{count} files in the archive; at most {MAX_ENTRIES}")));
    }
    let mut fields = Fields(archive.get(start..).ok_or_else(cut)?);
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let (name, entry) = entry(archive, &mut fields)?;
        if let Some(entry) = entry
            && entries.insert(name.clone(), entry).is_some()
        {
            return Err(invalid(format!("the archive has `{name}` twice")));
        }
    }
    let mut ranges: Vec<_> = entries.values().map(|entry| entry.range.clone()).collect();
    ranges.sort_by_key(|range| (range.start, range.end));
    match ranges.windows(2).find(|pair| pair[1].start < pair[0].end) {
        Some(pair) => {
            Err(invalid(format!("two files of the archive share byte {}", pair[1].start)))
        }
        None => Ok(entries),
    }
}

/// Where the directory starts, and how many entries it has.
fn directory(archive: &[u8]) -> Result<(usize, usize)> {
    const END: &[u8] = b"PK\x05\x06";
    const LENGTH: usize = 22;
    let earliest = archive.len().saturating_sub(LENGTH + MAX_COMMENT);
    let last = archive.len().checked_sub(LENGTH).ok_or_else(cut)?;
    let at = (earliest..=last).rev().find(|at| archive[*at..].starts_with(END));
    let at = at.ok_or_else(|| invalid("the archive has no directory: was the file cut short?"))?;
    let mut fields = Fields(&archive[at + 4..]);
    let disks = [fields.number(2)?, fields.number(2)?];
    let counts = [fields.number(2)?, fields.number(2)?];
    let (_, start) = (fields.number(4)?, fields.number(4)?);
    let (count, start) = match counts[1] == 0xFFFF || start == ELSEWHERE {
        true => directory64(archive, at)?,
        false if disks != [0, 0] || counts[0] != counts[1] => return Err(several()),
        false => (counts[1], start),
    };
    match (usize::try_from(start), usize::try_from(count)) {
        (Ok(start), Ok(count)) if start <= at => Ok((start, count)),
        _ => Err(cut()),
    }
}

fn several() -> Error {
    invalid("the archive is one of several parts")
}

/// Count and start of a directory in 64 bits, whose place stands before the end at `end`.
fn directory64(archive: &[u8], end: usize) -> Result<(u64, u64)> {
    let locator = end.checked_sub(20).map(|at| &archive[at..end]).ok_or_else(cut)?;
    let mut fields = Fields(locator.strip_prefix(b"PK\x06\x07").ok_or_else(cut)?);
    let (disk, at, disks) = (fields.number(4)?, fields.number(8)?, fields.number(4)?);
    if disk != 0 || disks > 1 {
        return Err(several());
    }
    let record = usize::try_from(at).ok().and_then(|at| archive.get(at..end)).ok_or_else(cut)?;
    let mut fields = Fields(record.strip_prefix(b"PK\x06\x06").ok_or_else(cut)?);
    // Its own length and two versions.
    fields.take(8 + 2 + 2)?;
    let disks = [fields.number(4)?, fields.number(4)?];
    let counts = [fields.number(8)?, fields.number(8)?];
    if disks != [0, 0] || counts[0] != counts[1] {
        return Err(several());
    }
    let (_, start) = (fields.number(8)?, fields.number(8)?);
    Ok((counts[1], start))
}

/// The next entry of the directory with its name; nothing for a folder.
fn entry(archive: &[u8], fields: &mut Fields<'_>) -> Result<(String, Option<Entry>)> {
    if fields.take(4)? != b"PK\x01\x02" {
        return Err(invalid("the archive's directory is damaged"));
    }
    // Two versions.
    fields.take(4)?;
    let (flags, method) = (fields.number(2)?, fields.number(2)?);
    // When it was written.
    fields.take(4)?;
    let crc = Some(fields.number(4)? as u32);
    let (mut stored, mut whole) = (fields.number(4)?, fields.number(4)?);
    let [name, extra, comment] = [fields.number(2)?, fields.number(2)?, fields.number(2)?];
    let disk = fields.number(2)?;
    // Attributes.
    fields.take(6)?;
    let mut offset = fields.number(4)?;
    let name = std::str::from_utf8(fields.take(name as usize)?)
        .map_err(|_| invalid("a name in the archive is no text"))?
        .to_owned();
    let mut extra = Fields(fields.take(extra as usize)?);
    fields.take(comment as usize)?;
    while extra.0.len() >= 4 {
        let (kind, length) = (extra.number(2)?, extra.number(2)?);
        let mut wide = Fields(extra.take(length as usize)?);
        if kind == 1 {
            // In this order, and only those that are elsewhere.
            for place in [&mut whole, &mut stored, &mut offset] {
                if *place == ELSEWHERE {
                    *place = wide.number(8)?;
                }
            }
        }
    }
    let in_entry = |error: Error| error.with("entry", &name);
    if name.ends_with('/') {
        return Ok((name, None));
    }
    let what = match (flags & 1, method, disk) {
        (1, ..) => Some("is encrypted"),
        (_, _, 1..) => Some("is in another part of the archive"),
        (_, 0 | 8, _) => None,
        _ => Some("is compressed in a way that is not read"),
    };
    if let Some(what) = what {
        return Err(in_entry(Error::unsupported(format!("a file of the archive {what}"))));
    }
    let range = data(archive, offset, stored).map_err(in_entry)?;
    let is_deflated = method == 8;
    let fits = |length: &usize| match is_deflated {
        true => *length <= range.len().saturating_mul(MAX_RATIO),
        false => *length == range.len(),
    };
    let length = usize::try_from(whole).ok().filter(fits).ok_or_else(|| {
        let message = format!("{} bytes cannot be {whole} bytes", range.len());
        invalid(message).with("entry", &name)
    })?;
    Ok((name, Some(Entry { range, length, is_deflated, crc })))
}

/// Where the bytes of a file are, whose header is at `offset`.
fn data(archive: &[u8], offset: u64, size: u64) -> Result<Range<usize>> {
    let outside = || invalid("a file of the archive is outside of it");
    let offset = usize::try_from(offset).map_err(|_| outside())?;
    let mut fields = Fields(archive.get(offset..).ok_or_else(outside)?);
    if fields.take(4)? != b"PK\x03\x04" {
        return Err(invalid("a file of the archive has no header"));
    }
    // Versions, flags, time, checksum and sizes: the directory's count.
    fields.take(22)?;
    let lengths = fields.number(2)? + fields.number(2)?;
    let start = offset + 30 + lengths as usize;
    let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size));
    match end {
        Some(end) if end <= archive.len() => Ok(start..end),
        _ => Err(outside()),
    }
}
