//! Imports of the committed fixtures.

use std::path::{Path, PathBuf};

use super::*;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/onnx")
}

/// Writes what is imported from each folder of `TAGBRUSH_IMPORT_FROM` (the fixtures unless set)
/// to `TAGBRUSH_IMPORT_TO`, for `check_import.py` to compare with timm.
#[test]
fn writes_imports_for_the_comparison_with_timm() {
    let Some(to) = std::env::var_os("TAGBRUSH_IMPORT_TO").map(PathBuf::from) else { return };
    let from = std::env::var_os("TAGBRUSH_IMPORT_FROM").map_or_else(fixtures, PathBuf::from);
    let mut failed = Vec::new();
    for entry in std::fs::read_dir(from).unwrap() {
        let dir = entry.unwrap().path();
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        if !dir.join("model.onnx").is_file() {
            continue;
        }
        let start = std::time::Instant::now();
        let mut imports = vec![("", import(&dir.join("model.onnx")))];
        if dir.join("keras_metadata.pb").is_file() {
            imports.push(("@saved_model", crate::weights::saved_model::import(&dir)));
        }
        for (suffix, imported) in imports {
            match imported {
                Ok(imported) => {
                    let out = to.join(format!("{name}{suffix}"));
                    std::fs::create_dir_all(&out).unwrap();
                    let tensors: std::collections::HashMap<_, _> =
                        imported.tensors.into_iter().collect();
                    println!("{name}{suffix}: {} tensors, {:?}", tensors.len(), start.elapsed());
                    candle_core::safetensors::save(&tensors, out.join("model.safetensors"))
                        .unwrap();
                    let text = serde_json::to_string_pretty(&imported.config).unwrap();
                    std::fs::write(out.join("config.json"), text).unwrap();
                }
                Err(error) => failed.push(format!("{name}{suffix}: {error:?}")),
            }
        }
    }
    println!("refused:\n{}", failed.join("\n"));
}
