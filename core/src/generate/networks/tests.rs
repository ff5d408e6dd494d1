//! LoRA files over the small model of the goldens, against diffusers, peft and the definitions of their kinds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;

use super::*;
use crate::device::Precision;
use crate::generate::{GenerateOptions, GeneratePipeline, GenerateRequest, SizeGuidance};
use crate::options::LoadOptions;
use crate::{ErrorKind, SamplerKind, Scheduler};

/// Of all values, the goldens have one of so many.
const EVERY: usize = 7;

#[derive(Deserialize)]
struct Case {
    scale: f64,
}

fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn cases() -> BTreeMap<String, Case> {
    serde_json::from_slice(&std::fs::read(goldens("generate-lora/cases.json")).unwrap()).unwrap()
}

fn lora(case: &str) -> Lora {
    let scale = cases()[case].scale;
    Lora::new(goldens(&format!("generate-lora/lora_{case}.safetensors"))).scale(scale)
}

fn pipeline() -> GeneratePipeline {
    let options = LoadOptions::default().precision(Precision::F32);
    let model = goldens("generate-pipeline/model");
    GeneratePipeline::load(model.to_str().unwrap(), &options).unwrap()
}

fn options() -> GenerateOptions {
    GenerateOptions {
        size: Some((64, 64)),
        steps: 4,
        guidance_scale: 7.0,
        sampler: SamplerKind::Euler,
        scheduler: Scheduler::Normal,
        size_guidance: SizeGuidance::NONE,
        adaptive_guidance: 100.0,
        sharpness: 0.0,
        keep_values: true,
        ..Default::default()
    }
}

fn picture(pipeline: &GeneratePipeline) -> Vec<f32> {
    let request = GenerateRequest::new("a red cat").negative_prompt("bad").seed(3);
    pipeline.generate(&request, &options()).unwrap()[0].values.as_ref().unwrap().to_vec()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// What the networks would be read from.
fn weight(networks: &Networks, key: &str) -> Vec<f32> {
    let (network, name) = key.split_once('/').unwrap();
    let source = match network {
        "unet" => &networks.unet.source,
        "text_encoder" => &networks.small.source,
        _ => &networks.large.source,
    };
    let source = source.read().unwrap();
    values(&source.load(name, DType::F32, &Device::Cpu).unwrap())
}

#[test]
fn every_file_changes_weights_as_the_reference_does() {
    let pipeline = pipeline();
    let networks = &pipeline.0.networks;
    let merged =
        candle_core::safetensors::load(goldens("generate-lora/merged.safetensors"), &Device::Cpu)
            .unwrap();
    let mut most = 0f32;
    let mut count = 0;
    for case in cases().keys() {
        pipeline.set_loras(&[lora(case)]).unwrap();
        for (key, expected) in &merged {
            let Some(key) = key.strip_prefix(&format!("{case}/")) else { continue };
            let found: Vec<f32> = weight(networks, key).into_iter().step_by(EVERY).collect();
            let expected = values(expected);
            assert_eq!(found.len(), expected.len(), "{case}: {key}");
            let largest = expected.iter().fold(0f32, |most, value| most.max(value.abs()));
            let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            let off = off.fold(0f32, f32::max) / largest;
            assert!(off <= 2e-6, "{case}: {key} differs by {off}");
            most = most.max(off);
            count += 1;
        }
    }
    assert_eq!(count, merged.len());
    println!("{count} weights, at most {most:.1e}");
}

#[test]
fn a_picture_with_a_lora_equals_the_reference() {
    let pipeline = pipeline();
    pipeline.set_loras(&[lora("kohya")]).unwrap();
    let golden =
        candle_core::safetensors::load(goldens("generate-lora/picture.safetensors"), &Device::Cpu)
            .unwrap();
    let (found, expected) = (picture(&pipeline), values(&golden["picture"]));
    assert_eq!(found.len(), expected.len());
    let beyond = found.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 1.0 / 255.0);
    let share = beyond.count() as f64 / found.len() as f64;
    assert!(share < 0.001, "{share} of the values are off");
    // The same changes under other names, and in two halves.
    for loras in [["kohya_ldm", "diffusers"], ["cp", "lokr"]] {
        pipeline.set_loras(&loras.map(lora)).unwrap();
        assert_ne!(picture(&pipeline), found);
    }
    let half = lora("kohya").scale(0.5);
    pipeline.set_loras(&[half.clone(), half]).unwrap();
    let again = picture(&pipeline);
    let off = again.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(off < 1e-3, "{off}");
}

#[test]
fn loras_go_without_a_trace() {
    let pipeline = pipeline();
    let with = |loras: &[Lora]| {
        pipeline.set_loras(loras).unwrap();
        picture(&pipeline)
    };
    let plain = picture(&pipeline);
    let strong = with(&[lora("kohya")]);
    assert_ne!(strong, plain);
    assert_eq!(with(&[lora("kohya").scale(0.0)]), plain);
    assert_eq!(with(&[lora("kohya"), lora("loha").scale(0.0)]), strong);
    assert_eq!(with(&[]), plain);
    // A file that does not fit changes nothing, and neither do those beside it.
    with(&[lora("kohya")]);
    let other = goldens("generate-pipeline/model/vae/diffusion_pytorch_model.safetensors");
    let error = pipeline.set_loras(&[lora("loha"), Lora::new(other)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelInvalid, "{error}");
    assert!(error.to_string().contains("diffusion_pytorch_model"), "{error}");
    let error = pipeline.set_loras(&[Lora::new("none.safetensors")]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound, "{error}");
    assert!(error.to_string().contains("none.safetensors"), "{error}");
    let error = pipeline.set_loras(&[lora("kohya").scale(f64::NAN)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(picture(&pipeline), strong);
}

#[test]
fn networks_that_are_not_concerned_stay() {
    let pipeline = pipeline();
    let networks = &pipeline.0.networks;
    let pointers = || {
        let texts = networks.texts().unwrap();
        let unet = Arc::as_ptr(&networks.unet().unwrap()) as usize;
        let encoders = [texts.small.unwrap(), texts.large].map(|text| Arc::as_ptr(&text) as usize);
        (unet, encoders)
    };
    let plain = pointers();
    pipeline.set_loras(&[]).unwrap();
    assert_eq!(pointers(), plain);
    // A file for the denoising network alone.
    pipeline.set_loras(&[lora("processor")]).unwrap();
    let changed = pointers();
    assert_eq!(changed.1, plain.1);
    pipeline.set_loras(&[lora("processor")]).unwrap();
    assert_eq!(pointers(), changed);
}

#[test]
fn files_are_applied_while_pictures_are_made() {
    let pipeline = pipeline();
    let plain = picture(&pipeline);
    let other = pipeline.clone();
    let fast = GenerateOptions { steps: 1, ..options().performance(crate::Performance::Speed) };
    let maker = std::thread::spawn(move || {
        let request = GenerateRequest::new("a").seed(3);
        (0..20).for_each(|_| drop(other.generate(&request, &fast).unwrap()));
    });
    while !maker.is_finished() {
        pipeline.set_loras(&[lora("kohya")]).unwrap();
        pipeline.set_loras(&[]).unwrap();
    }
    maker.join().unwrap();
    assert_eq!(picture(&pipeline), plain);
}

/// A file for another model names layers that this one has not, or of other shapes.
#[test]
fn files_for_other_models_are_refused_by_name() {
    let pipeline = pipeline();
    let edit = goldens("edit-formats/lora_flat.safetensors");
    let error = pipeline.set_loras(&[Lora::new(edit)]).unwrap_err().to_string();
    assert!(
        error.contains("lora_flat.safetensors") && error.contains("tensor=lora_unet_"),
        "{error}"
    );
}
