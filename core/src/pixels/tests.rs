//! Every picture under `tests/goldens/pixels` against what Pillow makes of it: decode, lay over
//! white, pad to a square, resize. The folder's script says how the files were made.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Image, resize_padded};

#[derive(Deserialize)]
struct Case {
    file: String,
    expected: String,
    side: usize,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/pixels")
}

fn index<T: serde::de::DeserializeOwned>(name: &str) -> T {
    serde_json::from_str(&std::fs::read_to_string(folder().join(name)).unwrap()).unwrap()
}

fn prepare(image: &Image, side: usize) -> Vec<u8> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    resize_padded(&image.to_rgb8_over([255; 3]), width, height, side, [255; 3]).unwrap()
}

/// Pixels off by more than one, and the largest difference.
fn difference(found: &[u8], expected: &[u8]) -> (usize, u8) {
    let off = found
        .chunks_exact(3)
        .zip(expected.chunks_exact(3))
        .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a.abs_diff(*b)).max().unwrap_or(0));
    off.fold((0, 0), |(count, max), off| (count + usize::from(off > 1), max.max(off)))
}

#[test]
fn pictures_equal_pillow() {
    let cases: Vec<Case> = index("index.json");
    assert!(cases.len() > 90);
    let mut failures = Vec::new();
    let mut most = 0;
    for case in &cases {
        let found = match Image::open(folder().join(&case.file)) {
            Ok(image) => prepare(&image, case.side),
            Err(error) => {
                failures.push(format!("{}: {error:#}", case.file));
                continue;
            }
        };
        let expected = Image::open(folder().join(&case.expected)).unwrap();
        let (off, max) = difference(&found, expected.pixels());
        most = most.max(max);
        // At most 1 off on 99.9 % of the pixels, at most 2 anywhere.
        if max > 2 || off * 1000 > case.side * case.side {
            failures.push(format!("{}: {off} pixels off by more than 1, at most {max}", case.file));
        }
    }
    println!("{} pictures, at most {most} off", cases.len());
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
}
