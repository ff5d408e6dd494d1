//! Where the answers of a run are written.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use super::resume::resume;
use super::{FileTags, Found};
use crate::error::{Error, Result};
use crate::tagger::CaptionOptions;

/// In which form tags are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// Nowhere: the caller of the run hears of each answer.
    #[default]
    None,
    /// A `.txt` with the caption beside each picture.
    Sidecar,
    /// A `.json` with all scores beside each picture.
    Json,
    /// One file `tags.jsonl` with a line for each picture.
    Jsonl,
    /// One file `tags.csv` with a row for each picture.
    Csv,
}

/// The name of a form that is written.
impl std::str::FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "sidecar" => Ok(Format::Sidecar),
            "json" => Ok(Format::Json),
            "jsonl" => Ok(Format::Jsonl),
            "csv" => Ok(Format::Csv),
            _ => Err(Error::invalid_input(format!(
                "unknown format `{text}`; known: sidecar, json, jsonl, csv"
            ))
            .with("field", "format")),
        }
    }
}

/// What happens to answers that are there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Existing {
    /// They are replaced.
    #[default]
    Overwrite,
    /// They stay, and their pictures are not tagged again: how a run goes on after it was killed.
    /// Pictures that failed are tried again, and what comes of it takes the place of the failure.
    Skip,
    /// New tags are added behind those in a `.txt`, without repetitions.
    Append,
}

impl std::str::FromStr for Existing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "overwrite" => Ok(Existing::Overwrite),
            "skip" => Ok(Existing::Skip),
            "append" => Ok(Existing::Append),
            _ => Err(Error::invalid_input(format!(
                "unknown treatment `{text}` of existing files; known: overwrite, skip, append"
            ))
            .with("field", "existing")),
        }
    }
}

/// Where and in which form the answers of a run are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputOptions {
    /// In which form.
    pub format: Format,
    /// The folder; files beside pictures mirror the tree below it. Without it they stand beside
    /// their pictures.
    pub folder: Option<PathBuf>,
    /// What happens to answers that are there already.
    pub existing: Existing,
    /// Name files beside pictures `a.png.txt` rather than `a.txt`.
    pub full_names: bool,
}

impl OutputOptions {
    /// Writing in this form.
    pub fn new(format: Format) -> Self {
        Self { format, ..Self::default() }
    }

    /// The same options with a folder for the output.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// The same options with another treatment of what is there already.
    #[must_use]
    pub fn existing(mut self, existing: Existing) -> Self {
        self.existing = existing;
        self
    }

    /// The same options with the picture's extension in the names of files beside it, or not.
    #[must_use]
    pub fn full_names(mut self, full: bool) -> Self {
        self.full_names = full;
        self
    }
}

/// The open output of a run.
pub(super) enum Sink {
    None,
    Beside(Beside),
    Lines(Lines),
}

impl Sink {
    pub(super) fn open(options: &OutputOptions, pictures: &[Found]) -> Result<Self> {
        if options.existing == Existing::Append && options.format != Format::Sidecar {
            return Err(Error::invalid_input("only text files can be appended to")
                .with("field", "existing"));
        }
        match options.format {
            Format::None => Ok(Sink::None),
            Format::Sidecar => Beside::open(options, "txt", pictures).map(Sink::Beside),
            Format::Json => Beside::open(options, "json", pictures).map(Sink::Beside),
            Format::Jsonl => Lines::open(options, "tags.jsonl", pictures).map(Sink::Lines),
            Format::Csv => Lines::open(options, "tags.csv", pictures).map(Sink::Lines),
        }
    }

    /// Whether the run leaves this picture alone.
    pub(super) fn has_already(&self, picture: &Found) -> bool {
        match self {
            Sink::None => false,
            Sink::Beside(beside) => {
                beside.options.existing == Existing::Skip && beside.target(picture).exists()
            }
            Sink::Lines(lines) => lines.done.contains(&*picture.path.to_string_lossy()),
        }
    }

    pub(super) fn write(
        &mut self,
        picture: &Found,
        record: &FileTags<'_>,
        caption: &CaptionOptions,
    ) -> Result<()> {
        match self {
            Sink::None => Ok(()),
            Sink::Beside(beside) => beside.write(picture, record, caption),
            Sink::Lines(lines) => lines.write(record, caption),
        }
    }

    pub(super) fn finish(self) -> Result<()> {
        match self {
            Sink::None | Sink::Beside(_) => Ok(()),
            Sink::Lines(mut lines) => lines.flush(),
        }
    }
}

/// One file for each picture.
pub(super) struct Beside {
    options: OutputOptions,
    extension: &'static str,
}

impl Beside {
    fn open(options: &OutputOptions, extension: &'static str, pictures: &[Found]) -> Result<Self> {
        let beside = Self { options: options.clone(), extension };
        let mut targets: HashMap<PathBuf, &Path> = HashMap::with_capacity(pictures.len());
        for picture in pictures {
            let target = beside.target(picture);
            if target == picture.path {
                return Err(Error::invalid_input("the output would replace the picture itself")
                    .with("file", picture.path.display()));
            }
            if let Some(other) = targets.insert(target, &picture.path) {
                return Err(Error::invalid_input(format!(
                    "`{}` and `{}` would both be written to `{}`; use full names or separate runs",
                    other.display(),
                    picture.path.display(),
                    beside.target(picture).display()
                ))
                .with("field", "full_names"));
            }
        }
        Ok(beside)
    }

    fn target(&self, picture: &Found) -> PathBuf {
        let place = match &self.options.folder {
            Some(folder) => folder.join(&picture.relative),
            None => picture.path.clone(),
        };
        if !self.options.full_names {
            return place.with_extension(self.extension);
        }
        let mut name = place.into_os_string();
        name.push(".");
        name.push(self.extension);
        name.into()
    }

    fn write(
        &self,
        picture: &Found,
        record: &FileTags<'_>,
        caption: &CaptionOptions,
    ) -> Result<()> {
        // A picture that failed gets no file: one would look like a picture without tags.
        let Ok(tags) = record.tags else { return Ok(()) };
        let target = self.target(picture);
        let text = match self.extension {
            "txt" => {
                let mut parts = match self.options.existing {
                    Existing::Append => existing_parts(&target, &caption.separator)?,
                    _ => Vec::new(),
                };
                let known: HashSet<String> =
                    parts.iter().map(|part| part.replace('_', " ").to_lowercase()).collect();
                let new = tags.caption_parts(caption).into_iter();
                parts.extend(new.filter(|p| !known.contains(&p.replace('_', " ").to_lowercase())));
                parts.join(&caption.separator)
            }
            _ => record.to_json(),
        };
        write_atomically(&target, format!("{text}\n").as_bytes())
    }
}

fn existing_parts(target: &Path, separator: &str) -> Result<Vec<String>> {
    let text = match fs::read_to_string(target) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("read the existing tags", target, e)),
    };
    let mark = if separator.trim().is_empty() { separator } else { separator.trim() };
    Ok(text.split(mark).map(|part| part.trim().to_owned()).filter(|p| !p.is_empty()).collect())
}

/// Writes a file so that it is there whole or not at all.
fn write_atomically(target: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |e| Error::io("write", target, e);
    if let Some(folder) = target.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let temporary = temporary(target);
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, target));
    written.map_err(|e| {
        let _ = fs::remove_file(&temporary);
        failed(e)
    })
}

/// Where a file is written before it takes the place of `target`.
pub(super) fn temporary(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    PathBuf::from(name)
}

/// One file with a line for each picture.
pub(super) struct Lines {
    file: BufWriter<File>,
    path: PathBuf,
    is_csv: bool,
    /// The pictures that have a line already.
    done: HashSet<String>,
}

impl Lines {
    fn open(options: &OutputOptions, name: &str, pictures: &[Found]) -> Result<Self> {
        let folder = options.folder.as_deref().ok_or_else(|| {
            Error::invalid_input(format!("`{name}` needs a folder to be written to"))
                .with("field", "output")
        })?;
        fs::create_dir_all(folder).map_err(|e| Error::io("make the folder", folder, e))?;
        let path = folder.join(name);
        let is_csv = name.ends_with(".csv");
        let failed = |e| Error::io("open the output", &path, e);
        let (mut file, done) = match options.existing {
            Existing::Skip => resume(&path, is_csv, pictures).map_err(failed)?,
            _ => (File::create(&path).map_err(failed)?, HashSet::new()),
        };
        let is_new = file.stream_position().map_err(failed)? == 0;
        let mut lines = Self { file: BufWriter::new(file), path, is_csv, done };
        if is_csv && is_new {
            lines.put(FileTags::CSV_HEADER.as_bytes())?;
            lines.put(b"\n")?;
        }
        Ok(lines)
    }

    fn write(&mut self, record: &FileTags<'_>, caption: &CaptionOptions) -> Result<()> {
        let line = if self.is_csv { record.to_csv(caption) } else { record.to_json() };
        self.put(line.as_bytes())?;
        self.put(b"\n")?;
        // Each answer is on disk before the next: a killed run loses none that it gave.
        self.flush()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| Error::io("write", &self.path, e))
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(|e| Error::io("write", &self.path, e))
    }
}
