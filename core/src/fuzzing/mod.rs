//! One function for each kind of bytes that come from strangers. Each takes any bytes and must
//! return: no panic, no endless loop, no allocation that the bytes do not pay for.
//!
//! The fuzz crate (`fuzz/` at the root) calls them through the feature `fuzzing`; the tests replay
//! its corpus and mutations of it through the same functions in every run. A reader of another
//! format joins by adding a function here, a line to [`TARGETS`], a file to `fuzz/fuzz_targets` and
//! a folder of seeds to `fuzz/corpus`.

#![cfg_attr(not(feature = "fuzzing"), allow(unreachable_pub))] // Without it only tests use this.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};

use crate::limits::Limits;
use crate::pixels::{DecodeOptions, Image, apply_steps, decode_unguarded, resize_padded};
use crate::tagger;
use crate::weights::{
    Adapted, GgufFile, Lora, Network, PickleFile, SafeTensorsFile, Scaled, Source, Weights, onnx,
};

#[cfg(test)]
mod replay;

/// A target: takes any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its corpus folder.
pub const TARGETS: &[(&str, Target)] = &[
    ("config", config),
    ("decode", decode),
    ("gguf", gguf),
    ("labels", labels),
    ("lora", lora),
    ("onnx", onnx),
    ("pickle", pickle),
    ("safetensors", safetensors),
];

/// Decodes a picture strictly, tolerantly and turned, and checks what came out. A panic in our
/// own code is a finding here; `Image::decode` makes it an error.
pub fn decode(data: &[u8]) {
    // Small pictures keep a run fast; the limits themselves are under test elsewhere.
    let strict =
        DecodeOptions::default().limits(Limits::default().max_pixels(1 << 18).max_side(1 << 12));
    let lenient = strict.clone().tolerate_truncated(true).apply_orientation(true);
    for options in [strict, lenient] {
        let Ok(image) = decode_unguarded(data, &options) else { continue };
        check(&image, &options.limits);
    }
}

fn check(image: &Image, limits: &Limits) {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let channels = if image.has_alpha() { 4 } else { 3 };
    assert_eq!(image.pixels().len(), width * height * channels);
    assert!((width * height) as u64 <= limits.max_pixels);
    let rgb = image.to_rgb8_over([255; 3]);
    let resized = resize_padded(&rgb, width, height, 8, [255; 3]);
    assert_eq!(resized.map(|pixels| pixels.len()).ok(), Some(8 * 8 * 3));
}

/// Reads a label file and a threshold file.
pub fn labels(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(labels) = tagger::parse_labels(text) {
        assert!(!labels.is_empty() && labels.iter().all(|label| !label.name.is_empty()));
    }
    if let Ok(thresholds) = tagger::parse_thresholds(text) {
        assert!(thresholds.values().all(|threshold| threshold.is_finite()));
    }
}

/// Reads a `preprocess.json`, and a `config.json` whose network is built from a checkpoint without
/// tensors, which must be missed before anything large is made.
pub fn config(data: &[u8]) {
    let Ok(value) = serde_json::from_slice(data) else { return };
    if let Ok(preprocess) = tagger::Preprocess::parse(&value) {
        assert!(!preprocess.steps.is_empty());
        let _ = apply_steps(&[7; 3 * 2 * 3], (3, 2), &preprocess.steps);
    }
    let Ok(config) = tagger::ModelConfig::parse(value, None) else { return };
    let weights = Weights::made(BTreeMap::new(), "fuzz".to_owned(), &Device::Cpu, DType::F32);
    assert!(tagger::load_network(&config.args, 4, &weights.root(), &config.input.scale()).is_err());
}

/// Reads a network out of an ONNX graph.
pub fn onnx(data: &[u8]) {
    let Ok(imported) = onnx::import_bytes(data) else { return };
    assert!(imported.config.is_object() && !imported.tensors.is_empty());
}

/// Reads a checkpoint and copies every tensor out, as they are and with their scales.
pub fn safetensors(data: &[u8]) {
    let open = || SafeTensorsFile::from_bytes(data.to_vec(), "fuzz");
    let Ok(file) = open() else { return };
    load_all(&file);
    if let Ok(file) = open().and_then(Scaled::new) {
        load_all(&file);
    }
}

/// Reads a checkpoint of PyTorch, of which nothing may be run, and copies every tensor out.
pub fn pickle(data: &[u8]) {
    if let Ok(file) = PickleFile::from_bytes(data.to_vec(), "fuzz") {
        load_all(&file);
        for name in file.names() {
            let _ = (file.number(&name), file.is_bytes(&name));
        }
    }
}

/// Reads a GGUF file and expands every tensor.
pub fn gguf(data: &[u8]) {
    if let Ok(file) = GgufFile::from_bytes(data.to_vec(), "fuzz") {
        load_all(&file);
    }
}

/// Reads a LoRA file for small networks, and applies it.
pub fn lora(data: &[u8]) {
    let layers: [(&str, &[usize]); 4] = [
        ("transformer_blocks.0.attn.to_q", &[32, 32]),
        ("transformer_blocks.1.attn.add_k_proj", &[32, 32]),
        ("txt_in", &[32, 20]),
        ("down_blocks.0.resnets.0.conv1", &[16, 8, 3, 3]),
    ];
    let tensors = layers.map(|(name, shape)| {
        let weight = Tensor::ones(shape, DType::F32, &Device::Cpu);
        (format!("{name}.weight"), weight.expect("a small tensor"))
    });
    let base = Weights::made(tensors.into(), "fuzz".to_owned(), &Device::Cpu, DType::F32).source();
    let Ok(file) = SafeTensorsFile::from_bytes(data.to_vec(), "fuzz") else { return };
    let networks = [(&Network::TRANSFORMER, base.clone()), (&Network::UNET, base.clone())];
    let Ok(loras) = Lora::new(Arc::new(file), &networks) else { return };
    for lora in loras {
        if let Ok(adapted) = Adapted::new(base.clone(), vec![(Arc::new(lora), 0.5)]) {
            load_all(&adapted);
        }
    }
}

fn load_all(source: &dyn Source) {
    for name in source.names() {
        if let Ok(tensor) = source.load(&name, DType::F32, &Device::Cpu) {
            assert_eq!(source.shape(&name).as_deref(), Some(tensor.dims()));
        }
    }
}
