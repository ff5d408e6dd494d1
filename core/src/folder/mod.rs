//! Tagging whole folders: which files there are, where their tags go, and how a run that was
//! killed goes on.
//!
//! A run has two steps, so that nothing is found out too late: [`FolderRun::new`] lists the pictures
//! and checks every output before the first picture is read or a model is loaded, and
//! [`FolderRun::run`] streams the pictures through the tagger and writes each answer at once.

mod record;
mod resume;
mod scan;
mod sink;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use record::FileTags;
pub use scan::{ScanOptions, find_pictures};
pub use sink::{Existing, Format, OutputOptions};

use crate::control::Control;
use crate::error::{Error, ErrorKind, Result};
use crate::tagger::{CaptionOptions, TagOptions, Tagger};

/// A picture that a run found: where it is, and its path below the folder that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// The path below the folder that was asked for: what the output mirrors.
    pub relative: PathBuf,
}

/// What a finished run did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// Pictures whose tags were written.
    pub tagged: usize,
    /// Pictures that had tags already and were left alone.
    pub skipped: usize,
    /// Pictures that failed, in order, with the reason.
    pub failures: Vec<(PathBuf, Error)>,
    /// Whether the run was cancelled before its end.
    pub cancelled: bool,
}

/// Which pictures are tagged, and where the answers go.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct FolderOptions {
    /// Which files are pictures to tag.
    pub scan: ScanOptions,
    /// Where and in which form answers are written.
    pub output: OutputOptions,
}

impl FolderOptions {
    /// These files, written like that.
    pub fn new(scan: ScanOptions, output: OutputOptions) -> Self {
        Self { scan, output }
    }
}

/// A folder run that has been checked and is ready to start.
pub struct FolderRun {
    pictures: Vec<Found>,
    sink: sink::Sink,
    skipped: usize,
}

impl FolderRun {
    /// Lists the pictures below `paths` (files and folders) and checks every output before any
    /// picture is read.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if two pictures would be written to the same file
    /// or the outputs contradict each other, and [`Io`](ErrorKind::Io) if a folder cannot be read. A
    /// path that does not exist is a picture that fails when its turn comes.
    pub fn new(paths: &[PathBuf], options: FolderOptions) -> Result<Self> {
        let found = scan::find_pictures(paths, &options.scan)?;
        let sink = sink::Sink::open(&options.output, &found)?;
        let total = found.len();
        let pictures: Vec<_> =
            found.into_iter().filter(|picture| !sink.has_already(picture)).collect();
        let skipped = total - pictures.len();
        Ok(Self { pictures, sink, skipped })
    }

    /// The pictures that are still to be tagged, in the order of the run.
    pub fn pictures(&self) -> &[Found] {
        &self.pictures
    }

    /// How many pictures had tags already and are left alone.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Tags the pictures. `each` hears of every answer once it is written, in order.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if an option means nothing. A picture that fails
    /// is part of the [`Summary`]; an output that cannot be written ends the run with
    /// [`Io`](ErrorKind::Io).
    pub fn run(
        mut self,
        tagger: &Tagger,
        options: &TagOptions,
        caption: &CaptionOptions,
        control: &Control,
        mut each: impl FnMut(&FileTags<'_>),
    ) -> Result<Summary> {
        let mut summary = Summary { skipped: self.skipped, ..Summary::default() };
        let paths = self.pictures.iter().map(|picture| &picture.path);
        let results = tagger.tags(paths, options, control, Some(self.pictures.len()))?;
        for (picture, tags) in self.pictures.iter().zip(results) {
            if matches!(&tags, Err(error) if error.kind() == ErrorKind::Cancelled) {
                summary.cancelled = true;
                break;
            }
            let record = FileTags { path: &picture.path, tags: tags.as_ref() };
            self.sink.write(picture, &record, caption)?;
            each(&record);
            match tags {
                Ok(_) => summary.tagged += 1,
                Err(error) => summary.failures.push((picture.path.clone(), error)),
            }
        }
        self.sink.finish()?;
        Ok(summary)
    }
}
