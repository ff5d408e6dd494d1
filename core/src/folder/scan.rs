//! Which files a run tags.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::Found;
use crate::error::{Error, Result};
use crate::pixels::EXTENSIONS;

/// Which files below a folder are pictures to tag.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScanOptions {
    /// Go into folders below the given ones.
    pub recursive: bool,
}

impl ScanOptions {
    /// The same options, going into folders or not.
    #[must_use]
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.recursive = recursive;
        self
    }
}

/// The pictures at `paths`: files as they are given, whatever their extension, and the files with
/// an extension of a known format in folders. Every file once, folders sorted by name, hidden files
/// left out.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) if a folder cannot be read.
pub fn find_pictures(paths: &[PathBuf], options: &ScanOptions) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for path in paths {
        // A path that does not exist is one picture that fails, like any other that cannot be read.
        if path.is_dir() {
            let mut visited = HashSet::new();
            walk(path, Path::new(""), options, &mut visited, &mut found)?;
        } else {
            let relative = path.file_name().map(PathBuf::from).unwrap_or_default();
            found.push(Found { path: path.clone(), relative });
        }
    }
    let mut seen = HashSet::new();
    found.retain(|picture| seen.insert(picture.path.clone()));
    Ok(found)
}

fn walk(
    folder: &Path,
    relative: &Path,
    options: &ScanOptions,
    visited: &mut HashSet<PathBuf>,
    found: &mut Vec<Found>,
) -> Result<()> {
    // A link to a folder above would be walked for ever.
    let real = folder.canonicalize().map_err(|e| Error::io("read the folder", folder, e))?;
    if !visited.insert(real) {
        return Ok(());
    }
    let unreadable = |e| Error::io("read the folder", folder, e);
    let mut entries = fs::read_dir(folder)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .map_err(unreadable)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = entry.path();
        // Links count as what they point to; one that points to nothing is no picture.
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            if options.recursive {
                walk(&path, &relative.join(&name), options, visited, found)?;
            }
        } else if metadata.is_file() && is_picture(&path) {
            found.push(Found { path, relative: relative.join(&name) });
        }
    }
    Ok(())
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| EXTENSIONS.contains(&extension.as_str()))
}
