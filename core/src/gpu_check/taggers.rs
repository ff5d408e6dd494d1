//! Taggers: small ones of every family against the CPU, and the published sizes for speed.

use serde_json::{Map, Value, json};

use super::{Report, difference, seconds};
use crate::control::Control;
use crate::device::{Device, Placement, Precision};
use crate::error::Result;
use crate::pixels::{Image, ImageFormat, Input};
use crate::tagger::{ARCHS, TagOptions, Tagger};

/// `config.json` of the WD v3 models.
const PUBLISHED: &[(&str, &str)] = &[
    (
        "vit",
        r#"{"architecture": "vit_base_patch16_224", "model_args": {"img_size": 448,
        "act_layer": "gelu_tanh", "class_token": false, "fc_norm": false, "global_pool": "avg"}}"#,
    ),
    (
        "swinv2",
        r#"{"architecture": "swinv2_base_window8_256", "model_args": {"img_size": 448,
        "window_size": 14, "act_layer": "gelu_tanh"}}"#,
    ),
    (
        "convnext",
        r#"{"architecture": "convnext_base", "input_size": [3, 448, 448],
        "model_args": {"act_layer": "gelu_tanh"}}"#,
    ),
    (
        "eva02-large",
        r#"{"architecture": "eva02_large_patch14_448", "model_args": {"img_size": 448,
        "ref_feat_shape": [32, 32]}}"#,
    ),
];
const LABELS: usize = 10_861;
const BATCHES: [usize; 6] = [1, 2, 4, 8, 16, 32];

fn parse(config: &str) -> Result<Value> {
    serde_json::from_str(config)
        .map_err(|e| crate::error::Error::model_invalid(format!("a config.json: {e}")))
}

/// The demo model on the device and on the CPU.
pub(super) fn compare(report: &mut Report, placements: [&Placement; 2]) -> Result<()> {
    let pictures: Vec<Image> =
        (0..5u32).map(|i| picture(60 + 7 * i, 50 + 9 * i, i)).collect::<Result<_>>()?;
    let mut section = Map::new();
    let scores = |device: Device, precision: Precision| -> Result<Vec<Vec<f32>>> {
        let options = crate::options::LoadOptions::default().device(device).precision(precision);
        let tagger = Tagger::load("demo", &options)?;
        tagger.scores(&pictures, &Control::new()).into_iter().collect()
    };
    let expected = scores(Device::Cpu, Precision::F32)?;
    // In bfloat16 some scores of pictures like none that it knows move, on a CPU by 0.04 as well.
    for (placement, allowed) in placements.into_iter().zip([1e-4, 0.1]) {
        let found = scores(placement.device(), placement.precision())?;
        let off = difference(found.iter().flatten(), expected.iter().flatten());
        let name = format!("demo tagger, {placement}");
        let outcome = report.compare(&name, off, allowed);
        section.insert(name, outcome);
    }
    for arch in ARCHS {
        // Random weights are of the device: only that it runs and gives numbers can be told.
        let tagger = Tagger::random(parse(arch.tiny)?, 15, placements[1].clone())?;
        let scores = tagger.scores(&pictures, &Control::new());
        let scores = scores.into_iter().collect::<Result<Vec<_>>>()?;
        let is_right = scores.iter().flatten().all(|score| score.is_finite());
        let name = format!("small {}", arch.family);
        let outcome = report.compare(&name, if is_right { 0.0 } else { f32::NAN }, 0.0);
        section.insert(name, outcome);
    }
    report.add("taggers", Value::Object(section));
    Ok(())
}

/// The published sizes: pictures a second of the network for each batch, and end to end.
pub(super) fn measure(report: &mut Report, placement: &Placement) -> Result<()> {
    let mut section = Map::new();
    for (name, config) in PUBLISHED {
        let tagger = Tagger::random(parse(config)?, LABELS, placement.clone())?;
        let mut rates = Map::new();
        for batch in BATCHES {
            placement.forget_peak();
            let (height, width) = tagger.input_size();
            let pixels = vec![128u8; batch * height * width * 3];
            let device = placement.candle();
            let seconds = seconds(placement, 10, || {
                let shape = (batch, height, width, 3);
                let pixels = candle_core::Tensor::from_slice(&pixels, shape, device)?;
                let network = tagger.network();
                network.classify(&network.embed(&pixels)?)
            })?;
            let rate = batch as f64 / seconds;
            let memory = placement.memory();
            rates.insert(batch.to_string(), json!({"images/s": rate, "memory": memory}));
        }
        let network = rates["32"]["images/s"].as_f64().unwrap_or_default();
        // JPEG files of 2 megapixels, in memory.
        let file = picture(1632, 1224, 3)?.encode(ImageFormat::Jpeg { quality: 90 })?;
        let files = (0..256).map(|_| Input::from(file.clone())).collect::<Vec<_>>();
        let start = std::time::Instant::now();
        let options = TagOptions::default();
        let answers = tagger.tag_batch(files, &options, &Control::new())?;
        let count = answers.into_iter().collect::<Result<Vec<_>>>()?.len();
        let whole = count as f64 / start.elapsed().as_secs_f64();
        let share = json!({"images/s": whole, "of the network's rate": whole / network});
        section.insert((*name).to_owned(), json!({"network": rates, "from JPEG": share}));
    }
    report.add("taggers, full size", Value::Object(section));
    Ok(())
}

/// A picture of a formula.
pub(super) fn picture(width: u32, height: u32, seed: u32) -> Result<Image> {
    let value = |i: u32| (i.wrapping_mul(2 * seed + 1).wrapping_mul(2_654_435_761) >> 24) as u8;
    let bytes: Vec<u8> = (0..width * height * 3).map(|i| value(i / 24)).collect();
    Image::from_rgb8(width, height, bytes)
}
