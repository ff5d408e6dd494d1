//! Going on with a file of lines: which pictures it answers already, and which lines leave it.
//!
//! A picture that failed is tried again, and gets a new line whatever comes of it. Its old line
//! leaves the file before, so that a file has one line for each picture at the end. Only paths and
//! places are kept in memory, never lines.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use super::Found;
use super::sink::temporary;

/// What a file holds.
#[derive(Default)]
struct Content {
    /// The pictures that have tags.
    done: HashSet<String>,
    /// The pictures that failed, and where their lines are, in order.
    failed: Vec<(String, Range<u64>)>,
    /// Where the last whole line ends: a run that was killed may have left a part of one.
    whole: u64,
}

/// Opens the file at `path` to write on behind its last whole line, without the failures of
/// `pictures`. Also returns the pictures that have tags in it.
pub(super) fn resume(
    path: &Path,
    is_csv: bool,
    pictures: &[Found],
) -> io::Result<(File, HashSet<String>)> {
    let mut file =
        OpenOptions::new().create(true).read(true).write(true).truncate(false).open(path)?;
    let content = if is_csv { csv_content(&file)? } else { json_content(&file)? };
    let Content { done, failed, whole } = content;
    let tried: HashSet<Cow<'_, str>> = match failed.is_empty() {
        true => HashSet::new(),
        false => pictures.iter().map(|picture| picture.path.to_string_lossy()).collect(),
    };
    // Failures of pictures that this run does not have stay: they are all that is known of them.
    let stale: Vec<Range<u64>> = failed
        .into_iter()
        .filter(|(picture, _)| tried.contains(picture.as_str()) || done.contains(picture))
        .map(|(_, place)| place)
        .collect();
    if stale.is_empty() {
        file.set_len(whole)?;
    } else {
        file = without(file, path, whole, &stale)?;
    }
    file.seek(SeekFrom::End(0))?;
    Ok((file, done))
}

/// Replaces the file by its first `whole` bytes without those at `stale`: at once, so that a run
/// killed meanwhile loses nothing.
fn without(mut file: File, path: &Path, whole: u64, stale: &[Range<u64>]) -> io::Result<File> {
    let temporary = temporary(path);
    let mut copy = || {
        let mut to = File::create(&temporary)?;
        let mut at = 0;
        for place in stale.iter().chain([&(whole..whole)]) {
            file.seek(SeekFrom::Start(at))?;
            io::copy(&mut (&file).take(place.start.saturating_sub(at)), &mut to)?;
            at = place.end;
        }
        to.sync_all()
    };
    let copied = copy();
    // Some systems replace no file that is open.
    drop(file);
    copied.and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })?;
    OpenOptions::new().read(true).write(true).open(path)
}

fn json_content(file: &File) -> io::Result<Content> {
    #[derive(serde::Deserialize)]
    struct Line {
        path: String,
        #[serde(default)]
        error: Option<serde::de::IgnoredAny>,
    }
    let mut content = Content::default();
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = reader.read_until(b'\n', &mut line)?;
        if read == 0 || line.last() != Some(&b'\n') {
            return Ok(content);
        }
        let place = content.whole..content.whole + read as u64;
        content.whole = place.end;
        match serde_json::from_slice(&line) {
            Ok(Line { path, error: None }) => {
                content.done.insert(path);
            }
            Ok(Line { path, error: Some(_) }) => content.failed.push((path, place)),
            Err(_) => {}
        }
    }
}

fn csv_content(file: &File) -> io::Result<Content> {
    let mut content = Content { whole: last_line_break(file)?, ..Content::default() };
    (&*file).seek(SeekFrom::Start(0))?;
    // A field may hold line breaks, so the rows are found by the CSV reader.
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file.take(content.whole));
    let mut record = csv::StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(true) if record.len() == 5 => {
                let start = record.position().map_or(0, csv::Position::byte);
                let path = record[0].to_owned();
                if record[4].is_empty() {
                    content.done.insert(path);
                } else {
                    content.failed.push((path, start..reader.position().byte()));
                }
            }
            // A row that was cut off within a field: what follows is no row of its own.
            Ok(true) => {
                content.whole = record.position().map_or(0, csv::Position::byte);
                return Ok(content);
            }
            Ok(false) | Err(_) => return Ok(content),
        }
    }
}

/// Where the last line break of the file ends.
fn last_line_break(file: &File) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let (mut at, mut end) = (0, 0);
    loop {
        let bytes = reader.fill_buf()?;
        if bytes.is_empty() {
            return Ok(end);
        }
        if let Some(last) = bytes.iter().rposition(|byte| *byte == b'\n') {
            end = at + last as u64 + 1;
        }
        let read = bytes.len();
        at += read as u64;
        reader.consume(read);
    }
}
