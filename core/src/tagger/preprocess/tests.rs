//! Every picture under `tests/goldens/preprocess` against what dghs-imgutils makes of it, and files that
//! must be refused.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;
use crate::pixels::{Image, apply_steps};
use crate::tagger::ModelConfig;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/preprocess")
}

#[derive(serde::Deserialize)]
struct Case {
    file: String,
    expected: String,
    preprocess: Value,
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(goldens().join("index.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn prepared(case: &Case) -> (Preprocess, Vec<u8>) {
    let preprocess = Preprocess::parse(&case.preprocess).unwrap();
    let image = Image::open(goldens().join(&case.file)).unwrap();
    let pixels = image.to_rgb8_over(preprocess.background);
    let size = (image.width() as usize, image.height() as usize);
    let found = apply_steps(&pixels, size, &preprocess.steps).unwrap();
    (preprocess, found)
}

#[test]
fn pictures_equal_imgutils() {
    let mut failures = Vec::new();
    for case in cases() {
        let (preprocess, found) = prepared(&case);
        let expected = Image::open(goldens().join(&case.expected)).unwrap();
        assert_eq!(
            preprocess.size,
            (expected.width() as usize, expected.height() as usize),
            "{}",
            case.expected
        );
        let off = found.iter().zip(expected.pixels()).map(|(a, b)| a.abs_diff(*b));
        let (most, many) =
            off.fold((0, 0), |(most, many), off| (off.max(most), many + usize::from(off > 1)));
        println!("{}: at most {most} off", case.expected);
        // At most 1 off on 99.9 % of the values, at most 2 anywhere.
        if found.len() != expected.pixels().len() || most > 2 || many * 1000 > found.len() {
            failures.push(format!("{}: {many} values off, at most {most}", case.expected));
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn the_network_gets_imgutils_tensor() {
    let case = cases().remove(0);
    let config = json!({
        "architecture": "vit_base_patch16_224", "model_args": {"img_size": 32},
        "pretrained_cfg": {"interpolation": "bilinear"},
    });
    let preprocess = Preprocess::parse(&case.preprocess).unwrap();
    let input = ModelConfig::parse(config, Some(preprocess)).unwrap().input;
    let picture = Image::open(goldens().join(&case.expected)).unwrap().pixels().to_vec();
    let file = goldens().join("tensor.safetensors");
    let golden = candle_core::safetensors::load(file, &candle_core::Device::Cpu).unwrap();
    let golden = golden["tensor"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(golden.len(), picture.len());
    // What the first layer makes of bytes; planes of red, green and blue.
    let scale = input.scale();
    assert!(!scale.bgr);
    let area = picture.len() / 3;
    for (at, golden) in golden.iter().enumerate() {
        let (channel, pixel) = (at / area, at % area);
        let byte = f32::from(picture[3 * pixel + channel]);
        let found = (byte / 255.0 - scale.mean[channel]) / scale.std[channel];
        assert!((found - golden).abs() < 1e-6, "value {at}");
    }
}

#[test]
fn what_is_not_known_is_refused_by_its_place() {
    let with = |stage: Value| {
        json!({"test": [
            {"type": "resize", "size": [8, 8]}, stage, {"type": "to_tensor"},
            {"type": "normalize", "mean": 0.5, "std": 0.5},
        ]})
    };
    assert!(Preprocess::parse(&with(json!({"type": "convert_rgb"}))).is_ok());
    let padding =
        |color: Value| with(json!({"type": "pad_to_size", "size": 8, "background_color": color}));
    for (value, expected) in [
        (json!({}), "lists any stages"),
        (json!({"test": [{"size": 3}]}), "stage=test[0]"),
        (json!({"stages": [{"type": "rescale"}]}), "`rescale` (stage=stages[0])"),
        (with(json!({"type": "five_crop", "size": 3})), "five_crop"),
        (with(json!({"type": "center_crop", "size": 8, "fill": 1})), "`fill` of `center_crop`"),
        (with(json!({"type": "center_crop", "size": -1})), "`size` is -1"),
        (with(json!({"type": "center_crop", "size": [1, 2, 3]})), "`size` is [1,2,3]"),
        (with(json!({"type": "center_crop", "size": 1_000_000})), "`size` is 1000000"),
        (with(json!({"type": "resize", "size": 8, "interpolation": "nearest"})), "nearest"),
        (with(json!({"type": "resize", "size": 8, "interpolation": 4})), "`interpolation` 4"),
        (with(json!({"type": "resize", "size": 8, "antialias": false})), "antialias"),
        (with(json!({"type": "resize", "size": [8, 8], "max_size": 9})), "max_size"),
        (with(json!({"type": "normalize", "mean": 0, "std": 1})), "normalize"),
        (padding(json!("mauve")), "mauve"),
        (padding(json!([1, 2])), "[1,2]"),
        (json!({"test": [{"type": "resize", "size": 8}, {"type": "to_tensor"}]}), "size"),
        (json!({"test": [{"type": "resize", "size": [8, 8]}]}), "to_tensor"),
        (
            json!({"test": [{"type": "to_tensor"}, {"type": "center_crop", "size": 8}]}),
            "behind the conversion",
        ),
    ] {
        let error = Preprocess::parse(&value).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn extreme_shapes_are_errors_or_pictures_never_more() {
    let steps = |size: Value| {
        let stages = json!({"test": [
            {"type": "resize", "size": size}, {"type": "center_crop", "size": 448},
            {"type": "to_tensor"},
        ]});
        Preprocess::parse(&stages).unwrap().steps
    };
    let pixels = vec![9; 60_000 * 3];
    let error = apply_steps(&pixels, (60_000, 1), &steps(json!(448))).unwrap_err();
    assert!(error.to_string().contains("26880000 x 448"), "{error}");
    assert!(apply_steps(&pixels, (1, 60_000), &steps(json!([448, 448]))).is_ok());
    let padded = Step::Pad { size: (8, 8), background: [1; 3], filter: Filter::Bicubic };
    let found = apply_steps(&pixels, (60_000, 1), &[padded]).unwrap();
    assert_eq!(found.iter().filter(|byte| **byte == 9).count(), 8 * 3);
}
