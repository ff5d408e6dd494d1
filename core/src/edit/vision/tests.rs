//! Pictures against what Pillow, torchvision, diffusers and transformers make of them; `make_edit.py`
//! says how the files were made.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use super::{VisionInput, area_size, resize_lanczos, vae_input};
use crate::pixels::{Size, resize_antialiased};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/edit")
}

fn text(file: &str) -> String {
    std::fs::read_to_string(folder().join(file)).unwrap()
}

/// The picture that `picture` of the script draws.
fn picture((width, height): Size) -> Vec<u8> {
    (0..width * height * 3)
        .map(|i| {
            let (x, y, channel) = (i / 3 % width, i / 3 / width, i % 3);
            let noise = ((i as u64 * 2_654_435_761) as u32 >> 13) % 64;
            (x * 5 + y * 3 + channel * 80 + noise as usize) as u8
        })
        .collect()
}

/// The pictures of the golden file whose name starts with `kind`: the numbers in the name, every how
/// many rows and columns were kept, and the values.
fn goldens(kind: &str) -> BTreeMap<String, (Vec<usize>, usize, Vec<f32>)> {
    let bytes = std::fs::read(folder().join("pictures.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut found = BTreeMap::new();
    for (name, tensor) in tensors.iter().filter(|(name, _)| name.split('/').next() == Some(kind)) {
        let values = match tensor.dtype() {
            Dtype::U8 => tensor.data().iter().map(|v| f32::from(*v)).collect(),
            _ => tensor.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        };
        let mut numbers: Vec<usize> =
            name.split(['/', 'x']).skip(1).map(|number| number.parse().unwrap()).collect();
        let step = numbers.pop().unwrap();
        found.insert(name.to_owned(), (numbers, step, values));
    }
    assert!(!found.is_empty());
    found
}

/// Every `step`th row and column of `values`, which has `columns` entries of `width` values a row.
fn sampled(values: &[f32], columns: usize, width: usize, step: usize) -> Vec<f32> {
    let rows = values.chunks_exact(columns * width).step_by(step);
    rows.flat_map(|row| row.chunks_exact(width).step_by(step).flatten()).copied().collect()
}

/// The share of values that are off by more than `one`, and the largest difference.
fn difference(found: &[f32], expected: &[f32], one: f32) -> (f32, f32) {
    assert_eq!(found.len(), expected.len());
    let off: Vec<f32> = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).collect();
    let share = off.iter().filter(|off| **off > one * 1.001).count() as f32 / off.len() as f32;
    (share, off.into_iter().fold(0.0, f32::max))
}

/// At most one level off on 99.9 % of the values, at most two anywhere.
fn assert_close(name: &str, found: &[f32], expected: &[f32], level: f32) -> f32 {
    let (share, max) = difference(found, expected, level);
    assert!(share <= 0.001 && max <= 2.001 * level, "{name}: {share} off, at most {max}");
    max / level
}

fn levels(pixels: &[u8]) -> Vec<f32> {
    pixels.iter().map(|level| f32::from(*level)).collect()
}

#[test]
fn lanczos_equals_pillow() {
    for (name, (numbers, step, expected)) in goldens("lanczos") {
        let (from, to) = ((numbers[0], numbers[1]), (numbers[2], numbers[3]));
        let found = levels(&resize_lanczos(&picture(from), from, to).unwrap());
        let off = assert_close(&name, &sampled(&found, to.0, 3, step), &expected, 1.0);
        println!("{name}: at most {off} off");
    }
}

#[test]
fn bicubic_equals_torchvision() {
    for (name, (numbers, step, expected)) in goldens("bicubic") {
        let (from, to) = ((numbers[0], numbers[1]), (numbers[2], numbers[3]));
        let found = levels(&resize_antialiased(&picture(from), from, to).unwrap());
        let off = assert_close(&name, &sampled(&found, to.0, 3, step), &expected, 1.0);
        println!("{name}: at most {off} off");
    }
}

#[test]
fn the_vae_gets_what_diffusers_gives_it() {
    for (name, (numbers, step, expected)) in goldens("vae") {
        let from = (numbers[0], numbers[1]);
        let to = area_size(1024 * 1024, 32, from).unwrap();
        let planes = vae_input(&resize_lanczos(&picture(from), from, to).unwrap());
        let pixels = to.0 * to.1;
        let interleaved: Vec<f32> =
            (0..pixels * 3).map(|i| planes[i % 3 * pixels + i / 3]).collect();
        assert_close(&name, &sampled(&interleaved, to.0, 3, step), &expected, 2.0 / 255.0);
    }
}

#[test]
fn patches_equal_transformers() {
    let input = VisionInput::parse(&text("preprocessor_min_pixels.json")).unwrap();
    for (name, (numbers, step, expected)) in goldens("patches") {
        let from = (numbers[0], numbers[1]);
        let patches = input.patches(&picture(from), from).unwrap();
        assert_eq!(patches.grid[..], numbers[2..], "{name}");
        assert_eq!(patches.values.len(), numbers[3] * numbers[4] * 1176);
        assert_eq!(input.vectors(patches.grid), numbers[3] * numbers[4] / 4);
        let found = sampled(&patches.values, 1176, 1, step);
        let off = assert_close(&name, &found, &expected, 1.0 / 255.0 / 0.2613);
        println!("{name}: at most {off} off");
    }
}

#[test]
fn sizes_equal_the_reference() {
    #[derive(Deserialize)]
    struct Sizes {
        area: Vec<[usize; 5]>,
        smart: Vec<(usize, usize, usize, usize, Option<Size>)>,
    }
    let sizes: Sizes = serde_json::from_str(&text("sizes.json")).unwrap();
    for [area, width, height, to_width, to_height] in sizes.area {
        let found = area_size(area, 32, (width, height)).ok();
        // The reference goes on with a side of nothing.
        let expected = (to_width * to_height > 0).then_some((to_width, to_height));
        assert_eq!(found, expected, "{width} x {height}");
    }
    for (min_pixels, max_pixels, width, height, expected) in sizes.smart {
        let input = VisionInput { min_pixels, max_pixels, ..VisionInput::default() };
        let found = input.smart_size((width, height)).ok();
        let expected = expected.filter(|(width, height)| width * height > 0);
        assert_eq!(found, expected, "{width} x {height}, {min_pixels} to {max_pixels}");
    }
}

#[test]
fn both_spellings_of_the_limits_are_read() {
    let one = VisionInput::parse(&text("preprocessor_min_pixels.json")).unwrap();
    let other = VisionInput::parse(&text("preprocessor_size.json")).unwrap();
    assert_eq!((one.min_pixels, one.max_pixels), (3136, 12_845_056));
    assert_eq!(one, other);
    let both = r#"{"max_pixels": 90000, "size": {"shortest_edge": 400, "longest_edge": 70000}}"#;
    let both = VisionInput::parse(both).unwrap();
    assert_eq!((both.min_pixels, both.max_pixels), (400, 90_000));
    for (key, value) in [
        ("min_pixels", "-1"),
        ("max_pixels", "12"),
        ("patch_size", "0"),
        ("merge_size", "100000"),
        ("resample", "1"),
        ("do_normalize", "false"),
        ("image_std", "[1, 0, 1]"),
        ("image_mean", "[1, 2]"),
        ("rescale_factor", "0"),
    ] {
        let error = VisionInput::parse(&format!("{{\"{key}\": {value}}}")).unwrap_err();
        assert!(error.context().contains(&("field", key.to_owned())), "{error}");
    }
}
