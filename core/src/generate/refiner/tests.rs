//! Two networks one after the other, against diffusers' networks and a loop of Euler's steps.

use std::path::PathBuf;

use serde::Deserialize;

use super::*;
use crate::device::testing::device;
use crate::generate::small_model::goldens;
use crate::generate::{
    GenerateOptions, GeneratePipeline, GenerateRequest, Performance, SizeGuidance,
};
use crate::{FreeU, LoadOptions, Precision, SamplerKind, Scheduler};

#[derive(Deserialize)]
struct Picture {
    prompt: String,
    negative: String,
    steps: usize,
    cfg: f32,
    seed: u64,
    size: (usize, usize),
    switch: usize,
}

fn pipeline(refiner: Option<PathBuf>) -> Result<GeneratePipeline> {
    let options = LoadOptions { refiner, ..LoadOptions::default().precision(Precision::F32) };
    GeneratePipeline::load(goldens("generate-pipeline/model").to_str().unwrap(), &options)
}

fn plain() -> GenerateOptions {
    GenerateOptions {
        size: Some((64, 64)),
        steps: 4,
        sampler: SamplerKind::DpmPp2m,
        size_guidance: SizeGuidance::NONE,
        keep_values: true,
        ..Default::default()
    }
}

fn values(pipeline: &GeneratePipeline, options: &GenerateOptions) -> Vec<f32> {
    let request = GenerateRequest::new("a cat").negative_prompt("bad").seed(3);
    pipeline.generate(&request, options).unwrap()[0].values.as_ref().unwrap().to_vec()
}

#[test]
fn pictures_of_two_networks_equal_the_reference() {
    let pipeline = pipeline(Some(goldens("generate-refiner/model"))).unwrap();
    let text = std::fs::read(goldens("generate-refiner/golden.json")).unwrap();
    let pictures: Vec<Picture> = serde_json::from_slice(&text).unwrap();
    let golden = goldens("generate-refiner/golden.safetensors");
    let golden = candle_core::safetensors::load(golden, &device()).unwrap();
    let mut wrong = Vec::new();
    for (i, picture) in pictures.iter().enumerate() {
        let request = GenerateRequest::new(&picture.prompt).negative_prompt(&picture.negative);
        for swap in [RefinerSwap::Joint, RefinerSwap::Separate] {
            let options = GenerateOptions {
                size: Some(picture.size),
                steps: picture.steps,
                guidance_scale: picture.cfg,
                sampler: SamplerKind::Euler,
                scheduler: Scheduler::Normal,
                adaptive_guidance: 100.0,
                sharpness: 0.0,
                ..plain()
            }
            .refiner(picture.switch as f64 / picture.steps as f64, swap);
            let request = request.clone().seed(picture.seed);
            let found = pipeline.generate(&request, &options).unwrap().remove(0).values.unwrap();
            let expected = &golden[&format!("picture.{i}")];
            let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(found.len(), expected.len());
            let off: Vec<f32> = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).collect();
            let beyond = off.iter().filter(|off| **off > 1.0 / 255.0).count();
            let worst = off.iter().fold(0f32, |a, b| a.max(*b));
            let share = beyond as f64 / found.len() as f64;
            let steps = picture.steps;
            let told =
                format!("picture {i}, {steps} steps, {swap}: worst {worst}, beyond 1/255: {share}");
            println!("{told}");
            if share >= 0.001 {
                wrong.push(told);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A refiner with the same weights changes nothing, whichever steps it makes; two runs forget what was before.
#[test]
fn the_same_network_as_a_refiner_changes_nothing() {
    let alone = pipeline(None).unwrap();
    let refined = pipeline(Some(goldens("generate-pipeline/model"))).unwrap();
    let expected = values(&alone, &plain());
    for switch in [0.0, 0.5, 0.8, 1.0] {
        let options = plain().refiner(switch, RefinerSwap::Joint);
        assert_eq!(values(&refined, &options), expected, "{switch}");
    }
    let separate = plain().refiner(0.5, RefinerSwap::Separate);
    assert_ne!(values(&refined, &separate), expected);
    // Without a refiner the options are of no effect.
    assert_eq!(values(&alone, &separate), expected);
    let other = pipeline(Some(goldens("generate-refiner/model"))).unwrap();
    let joint = values(&other, &plain());
    assert_ne!(joint, expected);
    assert_eq!(values(&other, &plain().refiner(1.0, RefinerSwap::Joint)), expected);
}

#[test]
fn samples_are_refined_together_as_alone() {
    if !crate::kernels::are_exact() {
        return;
    }
    let pipeline = pipeline(Some(goldens("generate-refiner/model"))).unwrap();
    let options = plain().sampler(SamplerKind::DpmAdaptive).n(2).seed(3);
    let request = GenerateRequest::new("a cat").negative_prompt("bad");
    let both = pipeline.generate(&request, &options).unwrap();
    let second = pipeline.generate(&request.seed(4), &options.n(1)).unwrap();
    assert!(both[1].image == second[0].image);
}

#[test]
fn what_is_no_refiner_for_the_model_is_refused_by_name() {
    for (path, kind) in [
        ("none", ErrorKind::ModelNotFound),
        ("generate-lora/lora_kohya.safetensors", ErrorKind::ModelInvalid),
        ("generate-unet", ErrorKind::ModelNotFound),
    ] {
        let error = pipeline(Some(goldens(path))).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("refiner="), "{error}");
    }
    let error = "vae".parse::<RefinerSwap>().unwrap_err();
    assert!(error.to_string().contains("interposer"), "{error}");
    assert_eq!("both".parse::<RefinerSwap>().unwrap_err().kind(), ErrorKind::InvalidInput);
    for swap in [RefinerSwap::Joint, RefinerSwap::Separate] {
        assert_eq!(swap.to_string().parse::<RefinerSwap>().unwrap(), swap);
    }
}

#[test]
fn performances_need_their_loras_and_weights_change_pictures() {
    let pipeline = pipeline(None).unwrap();
    let expected = values(&pipeline, &plain());
    let weighed = plain().freeu(FreeU { b1: 1.5, b2: 1.5, s1: 0.5, s2: 0.5 });
    assert_ne!(values(&pipeline, &weighed), expected);
    let fast = plain().performance(Performance::Lightning);
    let error = pipeline.generate(&GenerateRequest::new("a"), &fast).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound);
    assert!(error.to_string().contains("sdxl_lightning_4step_lora.safetensors"), "{error}");
    // Under its name, any file that fits is taken for it.
    let folder = std::env::temp_dir().join(format!("tagbrush-fast-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("sdxl_lightning_4step_lora.safetensors");
    std::fs::copy(goldens("generate-lora/lora_kohya.safetensors"), file).unwrap();
    let lora = Performance::Lightning.lora_in(std::slice::from_ref(&folder)).unwrap();
    pipeline.set_loras(lora.as_slice()).unwrap();
    assert!(pipeline.generate(&GenerateRequest::new("a"), &fast).is_ok());
    std::fs::remove_dir_all(folder).unwrap();
}
