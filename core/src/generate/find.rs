//! Files that are named by users, in folders and the folders below them.

use std::path::{Path, PathBuf};

/// Folders below folders that are looked into.
const DEPTH: usize = 8;

/// The first file of this name in a folder or below it.
pub(super) fn below(folder: &Path, name: &Path) -> Option<PathBuf> {
    first(folder, &|file| file.file_name() == name.file_name(), DEPTH)
}

/// The first file of this name but for its ending, which is `ending`.
pub(super) fn of_stem(folder: &Path, stem: &str, ending: &str) -> Option<PathBuf> {
    let is_it = |file: &Path| {
        file.file_stem().is_some_and(|name| name == stem)
            && file.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
    };
    first(folder, &is_it, DEPTH)
}

/// By name, files before folders, so that the same one is found everywhere.
fn first(folder: &Path, is_it: &dyn Fn(&Path) -> bool, depth: usize) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let mut entries: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    if let Some(file) = entries.iter().find(|path| is_it(path) && path.is_file()) {
        return Some(file.clone());
    }
    let depth = depth.checked_sub(1)?;
    entries.iter().filter(|path| path.is_dir()).find_map(|folder| first(folder, is_it, depth))
}
