//! The pictures of jobs on the disk: inputs by their hash, outputs by their job. Names are made here,
//! and files appear under them when they are whole.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use tagbrush::ImageFormat;

use crate::engine::lock;
use crate::ids::hash;

/// How the end of a file's name begins while it is written.
const PART: &str = "part-";

/// The two folders.
pub struct Files {
    outputs: PathBuf,
    inputs: PathBuf,
    /// Held while this server uses the folders.
    lock: Mutex<Option<File>>,
}

impl Files {
    /// Makes the folders, and says early if they cannot be written to.
    pub fn open(outputs: &Path, inputs: &Path) -> Result<Self, String> {
        for folder in [outputs, inputs] {
            let failed = |e| format!("cannot write to the folder {}: {e}", folder.display());
            fs::create_dir_all(folder).map_err(failed)?;
            let probe = folder.join(".probe");
            fs::write(&probe, b"").and_then(|()| fs::remove_file(&probe)).map_err(failed)?;
        }
        let failed = |e| format!("cannot lock the folder {}: {e}", outputs.display());
        let lock = File::create(outputs.join(".lock")).map_err(failed)?;
        // Two servers would take up each other's jobs.
        lock.try_lock().map_err(|_| {
            format!("another server uses the folder {}; set OUTPUT_DIR", outputs.display())
        })?;
        let lock = Mutex::new(Some(lock));
        let files = Self { outputs: outputs.to_owned(), inputs: inputs.to_owned(), lock };
        files.clear_parts().map_err(|e| format!("cannot tidy up the folders: {e}"))?;
        Ok(files)
    }

    /// Lets another server use the folders.
    pub fn release(&self) {
        *lock(&self.lock) = None;
    }

    /// Deletes what a server that was killed had begun to write.
    fn clear_parts(&self) -> io::Result<()> {
        let mut folders = vec![self.inputs.clone(), self.outputs.clone()];
        for entry in fs::read_dir(&self.outputs)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
        for folder in folders {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                let end = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
                if end.starts_with(PART) {
                    fs::remove_file(path)?;
                }
            }
        }
        Ok(())
    }

    /// Deletes what a job made and does not keep: before it failed, was cancelled, or began again.
    pub fn delete_of(&self, day: &str, task: &str, kept: &[String]) {
        let Ok(entries) = fs::read_dir(self.outputs.join(day)) else { return };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let own = names.filter(|name| name.starts_with(&format!("{task}_")));
        let paths = own.map(|name| format!("{day}/{name}")).filter(|path| !kept.contains(path));
        self.delete_outputs(&paths.collect::<Vec<_>>());
    }

    /// Keeps a picture that a job was given, and gives its name. Equal pictures are kept once.
    pub fn keep_input(&self, bytes: &[u8]) -> io::Result<String> {
        let name = format!("{}.{}", hash(bytes), extension(bytes));
        let path = self.inputs.join(&name);
        if !path.try_exists()? {
            write_whole(&path, bytes)?;
        }
        Ok(name)
    }

    /// A picture that was kept.
    pub fn input(&self, name: &str) -> io::Result<Vec<u8>> {
        read(&self.inputs, name)
    }

    /// Writes an output, and gives its path below the folder. The name is the same if the job runs
    /// again, so that nothing is left over from a run that was killed.
    pub fn write_output(
        &self,
        day: &str,
        task: &str,
        index: usize,
        format: ImageFormat,
        bytes: &[u8],
    ) -> io::Result<String> {
        let name = format!("{day}/{task}_{index:02}.{}", format.extension());
        let path = self.outputs.join(&name);
        fs::create_dir_all(self.outputs.join(day))?;
        write_whole(&path, bytes)?;
        Ok(name)
    }

    /// An output.
    pub fn output(&self, day: &str, name: &str) -> io::Result<Vec<u8>> {
        let is_day = day.len() == 10
            && day.bytes().enumerate().all(|(i, b)| match i {
                4 | 7 => b == b'-',
                _ => b.is_ascii_digit(),
            });
        match is_day {
            true => read(&self.outputs.join(day), name),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Deletes outputs; those that are gone already are no error.
    pub fn delete_outputs(&self, paths: &[String]) {
        for path in paths {
            let is_ours = path.split_once('/').is_some_and(|(_, name)| is_plain(name));
            if is_ours
                && let Err(e) = fs::remove_file(self.outputs.join(path))
                && e.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!("cannot delete {path}: {e}");
            }
        }
    }
}

/// Names that were made here: digits of a hash or an id, perhaps a number, and a known end.
fn is_plain(name: &str) -> bool {
    let Some((stem, end)) = name.rsplit_once('.') else { return false };
    content_type(end).is_some()
        && !stem.is_empty()
        && stem.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b) || b == b'_')
}

/// What a file is served as, by the end of its name.
pub(crate) fn content_type(end: &str) -> Option<&'static str> {
    match end {
        "png" => Some("image/png"),
        "jpg" => Some("image/jpeg"),
        "webp" => Some("image/webp"),
        "gif" => Some("image/gif"),
        "bmp" => Some("image/bmp"),
        _ => None,
    }
}

/// The end of a picture's name by its first bytes. All formats that are decoded are here.
fn extension(bytes: &[u8]) -> &'static str {
    match bytes {
        [0xFF, 0xD8, ..] => "jpg",
        [b'R', b'I', b'F', b'F', ..] => "webp",
        [b'G', b'I', b'F', ..] => "gif",
        [b'B', b'M', ..] => "bmp",
        _ => "png",
    }
}

fn read(folder: &Path, name: &str) -> io::Result<Vec<u8>> {
    let path = folder.join(name);
    // Names are checked before they are joined; a link that someone put there is not followed.
    match is_plain(name) && fs::symlink_metadata(&path)?.is_file() {
        true => fs::read(path),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Writes beside the file first, to the disk, and renames.
fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = path.with_extension(format!("{PART}{}", crate::ids::new_id()));
    let written = (|| {
        let mut file = File::create_new(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&part, path)
    })();
    if written.is_err() {
        fs::remove_file(&part).ok();
    }
    written?;
    // The name itself must reach the disk before the database says that it is there.
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_whole_and_names_stay_inside() {
        let folder = tempfile::tempdir().unwrap();
        let (outputs, inputs) = (folder.path().join("o"), folder.path().join("i"));
        let files = Files::open(&outputs, &inputs).unwrap();
        let name = files.keep_input(b"GIF89a...").unwrap();
        assert!(name.ends_with(".gif") && name == files.keep_input(b"GIF89a...").unwrap());
        assert_eq!(files.input(&name).unwrap(), b"GIF89a...");
        let format = ImageFormat::Png;
        let path = files.write_output("2026-01-02", "0af", 3, format, b"x").unwrap();
        assert_eq!(path, "2026-01-02/0af_03.png");
        assert_eq!(files.output("2026-01-02", "0af_03.png").unwrap(), b"x");
        fs::write(folder.path().join("secret.png"), b"secret").unwrap();
        for (day, name) in [
            ("..", "secret.png"),
            ("2026-01-02", "../secret.png"),
            ("2026-01-02", "..\\secret.png"),
            ("2026-01-02", "/etc/passwd"),
            ("2026-01-02", "CON"),
            ("2026-01-02", "0af_03.html"),
            ("../outputs", "0af_03.png"),
        ] {
            assert!(files.output(day, name).is_err(), "{day} {name}");
        }
        let second = Files::open(&outputs, &inputs).err().unwrap();
        assert!(second.contains("another server"), "{second}");
        fs::write(outputs.join("2026-01-02/0af_04.part-x"), b"half").unwrap();
        files.release();
        let files = Files::open(&outputs, &inputs).unwrap();
        assert_eq!(fs::read_dir(outputs.join("2026-01-02")).unwrap().count(), 1);
        files.write_output("2026-01-02", "0b", 0, format, b"x").unwrap();
        let kept = files.write_output("2026-01-02", "0b", 1, format, b"x").unwrap();
        files.delete_of("2026-01-02", "0b", &[kept]);
        assert!(files.output("2026-01-02", "0b_00.png").is_err());
        files.output("2026-01-02", "0b_01.png").unwrap();
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("../../secret.png", outputs.join("2026-01-02/bad.png"))
                .unwrap();
            assert!(files.output("2026-01-02", "bad.png").is_err());
        }
        files.delete_outputs(&["../secret.png".to_owned(), path]);
        assert!(folder.path().join("secret.png").exists());
        assert!(files.output("2026-01-02", "0af_03.png").is_err());
        assert!(fs::read_dir(&inputs).unwrap().count() == 1, "nothing half-written is left");
    }
}
