//! Pictures that a model makes, as they come: numbered files in a folder.

use std::path::Path;

use super::progress::Meter;
use super::{FAILURE, INTERRUPTED, SOME_FAILED, SUCCESS};
use crate::{Control, Error, ErrorKind, ImageFormat, Result};

/// Makes the folder for outputs, before anything else is done.
pub(super) fn make_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| {
        Error::new(ErrorKind::Io, format!("cannot make the folder for outputs: {e}"))
            .with("file", folder.display())
    })
}

/// What was made, and what failed.
pub(super) struct Outputs<'a> {
    folder: &'a Path,
    format: ImageFormat,
    meter: &'a Meter,
    made: usize,
    failures: Vec<(usize, Error)>,
}

impl<'a> Outputs<'a> {
    pub(super) fn new(folder: &'a Path, format: ImageFormat, meter: &'a Meter) -> Self {
        Self { folder, format, meter, made: 0, failures: Vec::new() }
    }

    /// Writes an output with a function that is given the file, and prints where it is.
    pub(super) fn take(&mut self, number: usize, save: impl FnOnce(&Path) -> Result<()>) {
        let path = self.folder.join(format!("{number:04}.{}", self.format.extension()));
        match save(&path) {
            Ok(()) => {
                self.made += 1;
                self.meter.print(&path.display().to_string());
            }
            Err(error) => self.failures.push((number, error)),
        }
    }

    /// Prints what failed and gives the exit status. `name` is what people know an output by.
    pub(super) fn conclude(self, control: &Control, name: impl Fn(usize) -> String) -> u8 {
        if control.is_cancelled() {
            return INTERRUPTED;
        }
        if !self.failures.is_empty() {
            let all = self.failures.len() + self.made;
            eprintln!("{} of {all} outputs failed:", self.failures.len());
        }
        for (number, error) in &self.failures {
            eprintln!("  {number:04} ({}): [{}] {error}", name(*number), error.code());
        }
        match (self.made, self.failures.is_empty()) {
            (_, true) => SUCCESS,
            (0, _) => FAILURE,
            _ => SOME_FAILED,
        }
    }
}
