//! The picture of the floors in `docs/architecture.md`, enforced: modules use only what is below them, and
//! only the kernels and `device` know what they run on.

use std::fs;
use std::path::{Path, PathBuf};

use tagbrush::{SamplerKind, Scheduler};

/// The floor of every top-level module. Imports go down, or stay inside a module.
const FLOORS: &[(&str, u8)] = &[
    ("error", 0),
    ("device", 0),
    ("control", 0),
    ("limits", 0),
    ("pixels", 1),
    ("weights", 1),
    ("kernels", 1),
    ("nn", 2),
    ("tokens", 2),
    ("hub", 2),
    ("options", 2),
    ("models", 3),
    ("schedule", 3),
    ("batch", 4),
    ("diffusion", 4),
    ("tagger", 5),
    ("edit", 5),
    ("generate", 5),
    ("folder", 6),
    ("cli", 7),
    ("fuzzing", 7),
    ("gpu_check", 7),
];

/// Words that only `kernels/` and `device/` may use.
const DEVICE_WORDS: &[&str] = &[
    "feature = \"cuda\"",
    "feature = \"metal\"",
    "is_cuda",
    "is_metal",
    "avx512",
    "avx2",
    "target_feature",
];

/// Files longer than this are reported: they should be cut along a seam.
const LONG: usize = 700;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file of the library with its path below `src`.
fn files() -> Vec<(String, String)> {
    let mut files = Vec::new();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(source()).unwrap().to_string_lossy().replace('\\', "/");
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") && name != "lib.rs" && !name.starts_with("bin/") {
                files.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(files.len() > 40);
    files
}

fn module(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

fn floor(module: &str) -> u8 {
    let floor = FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor);
    floor.unwrap_or_else(|| panic!("module `{module}` has no floor; add it to the table"))
}

fn is_test(file: &str) -> bool {
    file.ends_with("tests.rs") || file.ends_with("testing.rs")
}

#[test]
fn imports_only_go_down() {
    let mut wrong = Vec::new();
    for (file, text) in files().iter().filter(|(file, _)| !is_test(file)) {
        let here = module(file);
        for part in text.split("crate::").skip(1) {
            let used = part.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            // `crate::Error` and other names that the crate's root gives to users.
            if used.is_empty() || used.starts_with(char::is_uppercase) || used == here {
                continue;
            }
            let is_name_of_root = !FLOORS.iter().any(|(name, _)| *name == used);
            if is_name_of_root {
                continue;
            }
            if floor(used) > floor(here) || (floor(used) == floor(here) && floor(here) > 0) {
                wrong.push(format!("{file} uses crate::{used}, which is not below it"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\nmove the code to a lower floor", wrong.join("\n"));
}

#[test]
fn the_command_line_uses_only_what_everybody_can() {
    let mut wrong = Vec::new();
    for (file, text) in files().iter().filter(|(file, _)| module(file) == "cli") {
        for part in text.split("crate::").skip(1) {
            let used = part.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            if FLOORS.iter().any(|(name, _)| *name == used) {
                wrong.push(format!("{file} uses crate::{used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}\nuse names of the crate's root", wrong.join("\n"));
}

#[test]
fn only_kernels_know_what_they_run_on() {
    let mut wrong = Vec::new();
    for (file, text) in files() {
        if ["kernels", "device"].contains(&module(&file)) {
            continue;
        }
        wrong.extend(
            DEVICE_WORDS
                .iter()
                .filter(|word| text.contains(**word))
                .map(|word| format!("{file} says `{word}`")),
        );
    }
    assert!(wrong.is_empty(), "{}\nput it behind a kernel", wrong.join("\n"));
}

#[test]
fn unsafe_code_stays_in_kernels_and_the_mapping_of_files() {
    for (file, text) in files() {
        let allowed = ["kernels", "weights", "device"].contains(&module(&file));
        assert!(allowed || !text.contains("unsafe {"), "{file} has unsafe code");
        let blocks = text.matches("unsafe {").count() + text.matches("unsafe impl").count();
        assert!(
            text.matches("// SAFETY:").count() >= blocks,
            "{file}: say why unsafe code is sound"
        );
    }
}

#[test]
fn every_module_says_what_it_is_for() {
    for (file, text) in files().iter().filter(|(file, _)| !is_test(file)) {
        assert!(text.starts_with("//! "), "{file} does not open with its purpose");
    }
}

#[test]
fn no_file_is_too_long() {
    let long: Vec<_> = files()
        .into_iter()
        .map(|(file, text)| (text.lines().count(), file))
        .filter(|(lines, _)| *lines > LONG)
        .collect();
    assert!(long.is_empty(), "longer than {LONG} lines, cut them along a seam: {long:?}");
}

#[test]
fn every_module_has_its_floor_in_the_document() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/architecture.md");
    let text = fs::read_to_string(path).unwrap();
    for (name, floor) in FLOORS.iter().filter(|(name, _)| *name != "fuzzing") {
        let line = text.lines().find(|line| line.starts_with(&format!("{floor}  ")));
        assert!(line.is_some_and(|line| line.contains(name)), "floor {floor}, `{name}`");
    }
}

/// `docs/parity.md` claims nothing that no test checks.
#[test]
fn tests_that_the_document_on_parity_names_exist() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/parity.md");
    let text = fs::read_to_string(path).unwrap();
    let sources: Vec<String> = files().into_iter().map(|(_, text)| text).collect();
    let is_there = |name: &str| {
        let test = format!("#[test]\nfn {name}()");
        sources.iter().any(|text| text.replace("\n    ", "\n").contains(&test))
    };
    // What is quoted and has two underscores or more is a test, if it is no sampler and no scheduler.
    let quoted = text.split('`').skip(1).step_by(2);
    let is_name = |word: &&str| {
        word.matches('_').count() >= 2
            && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && word.parse::<SamplerKind>().is_err()
            && word.parse::<Scheduler>().is_err()
    };
    let names: Vec<&str> = quoted.filter(is_name).collect();
    assert!(names.len() >= 25, "{names:?}");
    let missing: Vec<_> = names.into_iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

#[test]
fn cargo_run_is_the_command_line_tool() {
    // There is a second program; without this line the README's first command fails.
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    assert!(fs::read_to_string(manifest).unwrap().contains("default-run = \"tagbrush\""));
}
