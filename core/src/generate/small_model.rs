//! A model for tests of what is about the size of pictures.

use std::path::{Path, PathBuf};

/// A golden file or folder.
pub(super) fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

/// The model of the goldens, but one that is good at pictures of 64 x 64.
pub(super) fn small_model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&goldens("generate-pipeline/model"), folder.path());
    let index = folder.path().join("model_index.json");
    let mut value: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&index).unwrap()).unwrap();
    value["tagbrush"] = serde_json::json!({"size": [64, 64]});
    std::fs::write(index, value.to_string()).unwrap();
    folder
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &to),
            false => drop(std::fs::copy(path, to).unwrap()),
        }
    }
}
