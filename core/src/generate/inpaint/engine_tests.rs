//! Fooocus' inpaint engine over the small model of the goldens, against its formulas in torch and diffusers.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Tensor};
use serde::Deserialize;

use crate::device::testing::device;
use crate::generate::small_model::{goldens, small_model};
use crate::generate::{GenerateOptions, GeneratePipeline, GenerateRequest, SizeGuidance};
use crate::weights::{Patch, Patched, SafeTensorsFile, Source};
use crate::{ErrorKind, Image, LoadOptions, Lora, Precision, SamplerKind, Scheduler};

/// Of all values, the goldens have one of so many.
const EVERY: usize = 7;

#[derive(Deserialize)]
struct Picture {
    prompt: String,
    negative: String,
    steps: usize,
    cfg: f32,
    seed: u64,
    strength: f64,
}

fn engine() -> (PathBuf, PathBuf) {
    (goldens("generate-inpaint/head.pth"), goldens("generate-inpaint/patch.fooocus.patch"))
}

fn pipeline(folder: &Path, has_engine: bool) -> GeneratePipeline {
    let mut options = LoadOptions::default().precision(Precision::F32);
    if has_engine {
        let (head, patch) = engine();
        options = options.inpaint_engine(head, patch);
    }
    GeneratePipeline::load(folder.to_str().unwrap(), &options).unwrap()
}

fn options(picture: &Picture) -> GenerateOptions {
    GenerateOptions {
        size: Some((64, 64)),
        steps: picture.steps,
        guidance_scale: picture.cfg,
        sampler: SamplerKind::Euler,
        scheduler: Scheduler::Normal,
        size_guidance: SizeGuidance::NONE,
        adaptive_guidance: 100.0,
        sharpness: 0.0,
        inpaint_strength: picture.strength,
        inpaint_field: 1.0,
        ..Default::default()
    }
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn golden() -> std::collections::HashMap<String, Tensor> {
    candle_core::safetensors::load(goldens("generate-inpaint/golden.safetensors"), &device())
        .unwrap()
}

fn pictures() -> Vec<Picture> {
    let text = std::fs::read(goldens("generate-inpaint/golden.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn image(golden: &std::collections::HashMap<String, Tensor>, i: usize) -> (Image, Image) {
    let bytes = |name: &str| -> Vec<u8> {
        golden[&format!("{name}.{i}")].flatten_all().unwrap().to_vec1().unwrap()
    };
    let mask: Vec<u8> = bytes("mask").iter().flat_map(|value| [*value; 3]).collect();
    let image = |pixels: Vec<u8>| Image::from_rgb8(64, 64, pixels).unwrap();
    (image(bytes("picture")), image(mask))
}

#[test]
fn patched_weights_equal_the_formula() {
    let base = goldens("generate-pipeline/model/unet/diffusion_pytorch_model.safetensors");
    let base: Arc<dyn Source> = Arc::new(SafeTensorsFile::open(&base).unwrap());
    let patch = Arc::new(Patch::open(&engine().1, &*base).unwrap());
    let patched = Patched::new(Arc::clone(&base), patch);
    let expected =
        candle_core::safetensors::load(goldens("generate-inpaint/weights.safetensors"), &device())
            .unwrap();
    assert_eq!(patched.names(), base.names());
    let (mut most, mut kept) = (0f32, 0);
    for name in base.names() {
        let load =
            |source: &dyn Source| values(&source.load(&name, DType::F32, &device()).unwrap());
        let found = load(&patched);
        let Some(expected) = expected.get(&name) else {
            assert_eq!(found, load(&*base), "{name}");
            kept += 1;
            continue;
        };
        let expected = values(expected);
        let found: Vec<f32> = found.into_iter().step_by(EVERY).collect();
        assert_eq!(found.len(), expected.len(), "{name}");
        let off = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
        most = most.max(off.fold(0f32, f32::max));
    }
    println!("{} weights, {kept} kept, at most {most:.1e}", expected.len());
    assert!(most < 1e-6 && kept > 10 && expected.len() > 50, "{most} {kept}");
}

#[test]
fn parts_of_pictures_equal_the_reference() {
    let (golden, folder) = (golden(), small_model());
    let pipeline = pipeline(folder.path(), true);
    assert!(pipeline.has_inpaint_engine());
    let plain = self::pipeline(folder.path(), false);
    for (i, picture) in pictures().iter().enumerate() {
        let (image, mask) = image(&golden, i);
        let request = GenerateRequest::new(&picture.prompt)
            .negative_prompt(&picture.negative)
            .seed(picture.seed)
            .image(image)
            .mask(mask.clone());
        let found = pipeline.generate(&request, &options(picture)).unwrap().remove(0).image;
        let expected = values(&golden[&format!("made.{i}")]);
        // Beside the mask is the picture itself.
        let inside = mask.pixels().iter().map(|value| *value == 255);
        let pairs = found.pixels().iter().zip(&expected).zip(inside);
        let off: Vec<f32> = pairs
            .filter(|(_, inside)| *inside)
            .map(|((a, b), _)| (f32::from(*a) / 255.0 - b).abs())
            .collect();
        let worst = off.iter().fold(0f32, |a, b| a.max(*b));
        println!("picture {i}: worst {worst} of {}", off.len());
        assert!(off.len() > 1000 && worst < 1.5 / 255.0, "picture {i} is off by {worst}");
        let other = plain.generate(&request, &options(picture)).unwrap().remove(0).image;
        assert!(other != found, "the engine makes a difference");
    }
}

#[test]
fn features_are_those_of_the_reference() {
    let golden = golden();
    let folder = small_model();
    let pipeline = pipeline(folder.path(), true);
    let head = pipeline.0.networks.inpaint_head().unwrap();
    for i in 0..pictures().len() {
        let (image, mask) = image(&golden, i);
        let mask: Vec<bool> = mask.pixels().iter().map(|value| *value == 255).collect();
        let pixels = image.pixels().iter().zip(&mask);
        let masked = pixels.map(|(v, hole)| if *hole { 0.0 } else { f32::from(*v) / 127.5 - 1.0 });
        let masked = Tensor::from_vec(masked.collect::<Vec<f32>>(), (1, 64, 64, 3), &device());
        let latents = pipeline.0.vae.encode(&masked.unwrap()).unwrap().squeeze(0).unwrap();
        let pooled: Vec<f32> = (0..64)
            .map(|cell| {
                let (top, left) = (cell / 8 * 8, cell % 8 * 8);
                let white = |y: usize, x: usize| mask[((top + y) * 64 + left + x) * 3];
                f32::from(u8::from((0..8).any(|y| (0..8).any(|x| white(y, x)))))
            })
            .collect();
        let pooled = Tensor::from_vec(pooled, (8, 8, 1), &device()).unwrap();
        let found = head.forward(&pooled, &latents).unwrap();
        let expected = &golden[&format!("features.{i}")];
        assert_eq!(found.dims(), expected.dims());
        let pairs = values(&found).into_iter().zip(values(expected));
        let worst = pairs.fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        println!("features {i}: {worst:.1e}");
        assert!(worst < if crate::cpu_kernels().unwrap().contains("split") { 2e-3 } else { 2e-5 });
        let flat = Tensor::zeros((8, 7, 1), DType::F32, &device()).unwrap();
        assert!(head.forward(&flat, &latents).is_err());
    }
}

#[test]
fn the_engine_is_for_parts_only_and_goes_without_a_trace() {
    let (golden, folder) = (golden(), small_model());
    let pipeline = pipeline(folder.path(), false);
    let picture = &pictures()[0];
    let (image, mask) = image(&golden, 0);
    let plain = GenerateRequest::new("a cat").seed(3);
    let part = plain.clone().image(image).mask(mask);
    let options = options(picture);
    let make = |requests: &[GenerateRequest]| -> Vec<Image> {
        let control = crate::Control::new();
        let made = pipeline.generate_batch(requests, &options, &control).unwrap();
        made.into_iter().map(|made| made.unwrap().image).collect()
    };
    let [without, text] = &make(&[part.clone(), plain.clone()])[..] else { panic!() };
    let (head, patch) = engine();
    pipeline.set_inpaint_engine(Some((&head, &patch))).unwrap();
    // In one run with a picture that needs none.
    let with = make(&[plain.clone(), part.clone(), plain]);
    assert!(with[0] == *text && with[2] == *text && with[1] != *without);
    assert!(with[1] == make(std::slice::from_ref(&part))[0]);
    // It is made anew when LoRA files change the network under it.
    let lora = Lora::new(goldens("generate-lora/lora_kohya.safetensors"));
    pipeline.set_loras(&[lora]).unwrap();
    assert!(make(std::slice::from_ref(&part))[0] != with[1]);
    pipeline.set_loras(&[]).unwrap();
    assert!(make(std::slice::from_ref(&part))[0] == with[1]);
    pipeline.set_inpaint_engine(None).unwrap();
    assert!(make(&[part])[0] == *without && !pipeline.has_inpaint_engine());
}

#[test]
fn files_that_are_none_are_refused_by_name() {
    let folder = small_model();
    let pipeline = pipeline(folder.path(), true);
    let (head, patch) = engine();
    let none = Path::new("none.pth");
    let upscaler = goldens("generate-upscale/fooocus.bin");
    for (files, kind, word) in [
        ((none, &*patch), ErrorKind::ModelNotFound, "inpaint_head=none.pth"),
        ((&*head, none), ErrorKind::ModelNotFound, "inpaint_patch=none.pth"),
        ((&*patch, &*patch), ErrorKind::ModelInvalid, "tensor `head` is missing"),
        ((&*head, &*head), ErrorKind::ModelInvalid, "no part of a patch"),
        ((&*head, &*upscaler), ErrorKind::ModelInvalid, "no part of a patch"),
    ] {
        let error = pipeline.set_inpaint_engine(Some(files)).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
        assert!(pipeline.has_inpaint_engine(), "that before stays");
    }
    let half = LoadOptions { inpaint_head: Some(head), ..LoadOptions::default() };
    let error = GeneratePipeline::load(folder.path().to_str().unwrap(), &half).unwrap_err();
    assert!(error.to_string().contains("field=inpaint_patch"), "{error}");
    // A patch of another network names layers that this one has not.
    let base: Arc<dyn Source> = Arc::new(
        SafeTensorsFile::open(&goldens(
            "generate-networks/vae/diffusion_pytorch_model.safetensors",
        ))
        .unwrap(),
    );
    let error = Patch::open(&patch, &*base).err().unwrap().to_string();
    assert!(error.contains("the network has no") && error.contains("fooocus.patch"), "{error}");
}
