//! LoRA files over the small model of the goldens, against diffusers, peft and the definitions of their kinds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::{DType, Tensor};
use serde::Deserialize;

use super::*;
use crate::device::Precision;
use crate::device::testing::device;
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
    pipeline_with(None)
}

fn pipeline_with(refiner: Option<&str>) -> GeneratePipeline {
    let mut options = LoadOptions::default().precision(Precision::F32);
    options.refiner = refiner.map(goldens);
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
    values(&source.load(name, DType::F32, &device()).unwrap())
}

#[test]
fn every_file_changes_weights_as_the_reference_does() {
    let pipeline = pipeline();
    let networks = &pipeline.0.networks;
    let merged =
        candle_core::safetensors::load(goldens("generate-lora/merged.safetensors"), &device())
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
        candle_core::safetensors::load(goldens("generate-lora/picture.safetensors"), &device())
            .unwrap();
    let (found, expected) = (picture(&pipeline), values(&golden["picture"]));
    assert_eq!(found.len(), expected.len());
    let beyond = found.iter().zip(&expected).filter(|(a, b)| (*a - *b).abs() > 1.0 / 255.0);
    let share = beyond.count() as f64 / found.len() as f64;
    let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    println!("with a LoRA: worst {off}, beyond 1/255: {share}");
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

fn unets(pipeline: &GeneratePipeline) -> [Arc<UNet>; 2] {
    let refiner = pipeline.0.refiner.as_ref().unwrap().after(0, pipeline.placement());
    [pipeline.0.networks.unet().unwrap(), refiner.unwrap().unet]
}

/// With the network itself as the refiner, all is as without one.
#[test]
fn another_model_as_a_refiner_takes_what_the_model_takes() {
    let (alone, refined) = (pipeline(), pipeline_with(Some("generate-pipeline/model")));
    let plain = picture(&alone);
    for loras in [vec![lora("kohya")], vec![lora("lokr"), lora("processor").scale(-1.0)], vec![]] {
        alone.set_loras(&loras).unwrap();
        refined.set_loras(&loras).unwrap();
        let expected = picture(&alone);
        assert_eq!(expected == plain, loras.is_empty());
        assert_eq!(picture(&refined), expected);
    }
    // A file that neither takes changes nothing.
    refined.set_loras(&[lora("kohya")]).unwrap();
    let (before, strong) = (unets(&refined), picture(&refined));
    let other = Lora::new(goldens("edit-formats/lora_flat.safetensors"));
    let error = refined.set_loras(&[lora("loha"), other]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelInvalid, "{error}");
    assert!(error.to_string().contains("lora_flat.safetensors"), "{error}");
    assert!(before.iter().zip(unets(&refined)).all(|(a, b)| Arc::ptr_eq(a, &b)));
    assert_eq!(picture(&refined), strong);
}

#[test]
fn a_refiner_with_layers_of_other_shapes_takes_files_of_its_own_only() {
    let pipeline = pipeline_with(Some("generate-refiner/model"));
    let plain = picture(&pipeline);
    let [network, refiner] = unets(&pipeline);
    pipeline.set_loras(&[lora("kohya")]).unwrap();
    let changed = unets(&pipeline);
    assert!(!Arc::ptr_eq(&changed[0], &network) && Arc::ptr_eq(&changed[1], &refiner));
    let with_lora = picture(&pipeline);
    assert_ne!(with_lora, plain);

    // A file for the refiner, one layer of which the network has in another shape, and for a text encoder.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("refiner.safetensors");
    let base = Arc::clone(&pipeline.0.refiner.as_ref().unwrap().network.base);
    let shape = base.shape("conv_in.weight").unwrap();
    assert_ne!(Some(&shape), pipeline.0.networks.unet.base.shape("conv_in.weight").as_ref());
    let (rows, columns) = (shape[0], shape[1..].iter().product::<usize>());
    let random = |shape: &[usize]| Tensor::randn(0f32, 0.3, shape, &device()).unwrap();
    let (down, up) = (random(&[2, shape[1], shape[2], shape[3]]), random(&[rows, 2, 1, 1]));
    let (text_down, text_up) = (random(&[2, 24]), random(&[24, 2]));
    let write = |layer: &str| {
        let text = "lora_te1_text_model_encoder_layers_0_self_attn_q_proj";
        let tensors = [
            (format!("{layer}.lora_down.weight"), down.clone()),
            (format!("{layer}.lora_up.weight"), up.clone()),
            (format!("{text}.lora_down.weight"), text_down.clone()),
            (format!("{text}.lora_up.weight"), text_up.clone()),
        ];
        let tensors = std::collections::HashMap::from(tensors);
        candle_core::safetensors::save(&tensors, &file).unwrap();
    };
    write("lora_unet_conv_in");
    let own = Lora::new(&file).scale(0.5);
    pipeline.set_loras(std::slice::from_ref(&own)).unwrap();
    let source = Arc::clone(&*pipeline.0.refiner.as_ref().unwrap().network.source.read().unwrap());
    let load =
        |source: &Arc<dyn Source>| source.load("conv_in.weight", DType::F32, &device()).unwrap();
    let change = up.reshape((rows, 2)).unwrap();
    let change = change.matmul(&down.reshape((2, columns)).unwrap()).unwrap();
    let change = change.reshape(&*shape).unwrap();
    let expected = values(&(load(&base) + (change * 0.5).unwrap()).unwrap());
    let off = values(&load(&source))
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0f32, f32::max);
    assert!(off < 1e-6, "{off}");
    let query = "text_encoder/encoder.layers.0.self_attn.q_proj.weight";
    let small = &pipeline.0.networks.small.base;
    let name = small.names().into_iter().find(|name| name.ends_with(&query[13..])).unwrap();
    let before = values(&small.load(&name, DType::F32, &device()).unwrap());
    assert_ne!(weight(&pipeline.0.networks, &format!("text_encoder/{name}")), before);
    assert!(Arc::ptr_eq(
        &*pipeline.0.networks.unet.source.read().unwrap(),
        &pipeline.0.networks.unet.base
    ));
    let with_own = picture(&pipeline);
    assert_ne!(with_own, plain);
    // Each network has its own file.
    pipeline.set_loras(&[lora("kohya"), own]).unwrap();
    let both = picture(&pipeline);
    assert!(both != with_own && both != with_lora);
    pipeline.set_loras(&[]).unwrap();
    assert_eq!(picture(&pipeline), plain);
    write("lora_unet_no_layer");
    let error = pipeline.set_loras(&[Lora::new(&file)]).unwrap_err();
    assert!(error.to_string().contains("lora_unet_no_layer"), "{error}");
}
