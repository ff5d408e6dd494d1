//! Against the whole way of Fooocus, made of spandrel, Pillow and diffusers.

use std::path::Path;

use candle_core::Tensor;
use serde::Deserialize;

use super::*;
use crate::device::testing::device;
use crate::generate::small_model::{goldens, small_model};
use crate::generate::{GenerateOptions, GeneratePipeline, GenerateRequest, SizeGuidance};
use crate::{Control, ErrorKind, LoadOptions, MetadataScheme, Precision, SamplerKind, Scheduler};

fn pipeline(folder: &Path, upscaler: Option<&str>) -> GeneratePipeline {
    let mut options = LoadOptions::default().precision(Precision::F32);
    options.upscaler = upscaler.map(|file| goldens("generate-upscale").join(file));
    GeneratePipeline::load(folder.to_str().unwrap(), &options).unwrap()
}

fn picture(width: u32, height: u32) -> Image {
    let pixels: Vec<u8> = (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| [(x * 9 % 251) as u8, (y * 7 % 251) as u8, 90]))
        .collect();
    Image::from_rgb8(width, height, pixels).unwrap()
}

#[derive(Deserialize)]
struct Flow {
    prompt: String,
    negative: String,
    steps: usize,
    cfg: f32,
    seed: u64,
    factor: f64,
    strength: f64,
}

#[test]
fn the_whole_way_equals_the_reference() {
    let flow: Flow =
        serde_json::from_slice(&std::fs::read(goldens("generate-upscale/flow.json")).unwrap())
            .unwrap();
    let golden =
        candle_core::safetensors::load(goldens("generate-upscale/flow.safetensors"), &device())
            .unwrap();
    let bytes = |name: &str| -> (Vec<u8>, (usize, usize)) {
        let tensor: &Tensor = &golden[name];
        let (height, width, _) = tensor.dims3().unwrap();
        (tensor.flatten_all().unwrap().to_vec1().unwrap(), (width, height))
    };
    let (start, (width, height)) = bytes("start");
    let image = Image::from_rgb8(width as u32, height as u32, start).unwrap();
    let folder = small_model();
    let pipeline = pipeline(folder.path(), Some("fooocus.bin"));

    // Up to what is encoded.
    let network = pipeline.0.upscaler.as_ref();
    let made = larger(&image, Upscale::by(flow.factor), (64, 64), network, &|| Ok(())).unwrap();
    assert!(!made.is_final && made.notes.is_empty());
    let (pixels, size) = whole_multiples(made.pixels, made.size, 8);
    let (expected, of_reference) = bytes("resampled");
    assert_eq!(size, of_reference);
    let off = pixels.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b));
    let (worst, beyond) = (off.clone().max().unwrap(), off.filter(|off| *off > 0).count());
    println!("resampled: worst {worst}, {beyond} of {} differ", pixels.len());
    assert!(worst <= 2 && beyond * 100 < pixels.len(), "{worst}, {beyond}");

    // In tiles to latents and back, each from what the reference has there.
    let values: Vec<f32> = expected.iter().map(|v| f32::from(*v) / 127.5 - 1.0).collect();
    let values = Tensor::from_vec(values, (1, size.1, size.0, 3), &device()).unwrap();
    let (model, control) = (&pipeline.0, Control::new());
    let difference = |found: &Tensor, name: &str, map: fn(f32) -> f32| {
        assert_eq!(found.dims(), golden[name].dims(), "{name}");
        let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let pairs = values(found).into_iter().map(map).zip(values(&golden[name]));
        let worst = pairs.fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        println!("{name}: {worst:.1e}");
        assert!(worst < if crate::cpu_kernels().unwrap().contains("split") { 2e-3 } else { 2e-5 });
    };
    difference(&model.encode_tiled(&values, 8, &control).unwrap(), "latents", |x| x);
    let decoded = model.decode_tiled(&golden["made"].unsqueeze(0).unwrap(), 8, &control).unwrap();
    difference(&decoded, "picture", |x| (x / 2.0 + 0.5).clamp(0.0, 1.0));

    let options = GenerateOptions {
        steps: flow.steps,
        guidance_scale: flow.cfg,
        sampler: SamplerKind::Euler,
        scheduler: Scheduler::Normal,
        size_guidance: SizeGuidance::NONE,
        adaptive_guidance: 100.0,
        sharpness: 0.0,
        upscale_strength: flow.strength,
        keep_values: true,
        ..Default::default()
    };
    let request = GenerateRequest::new(&flow.prompt)
        .negative_prompt(&flow.negative)
        .seed(flow.seed)
        .image(image)
        .upscale(Upscale::by(flow.factor));
    let found = pipeline.generate(&request, &options).unwrap().remove(0);
    assert_eq!((found.image.width() as usize, found.image.height() as usize), size);
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    let expected = golden["picture"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let values = found.values.clone().unwrap();
    assert_eq!(values.len(), expected.len());
    let off: Vec<f32> = values.iter().zip(&expected).map(|(a, b)| (a - b).abs()).collect();
    let worst = off.iter().fold(0f32, |a, b| a.max(*b));
    let beyond = off.iter().filter(|off| **off > 1.0 / 255.0).count() as f64 / off.len() as f64;
    println!("picture: worst {worst}, beyond 1/255: {beyond}");
    assert!(beyond < 0.001, "{beyond} of the values are off, the worst by {worst}");
    assert!(found.metadata(MetadataScheme::A1111).unwrap().contains("a hill"));
}

#[test]
fn fast_ones_and_large_ones_are_what_the_network_makes() {
    let folder = small_model();
    let pipeline = pipeline(folder.path(), Some("fooocus.bin"));
    let options = GenerateOptions { n: 2, steps: 1, keep_values: true, ..Default::default() };
    let request = GenerateRequest::new("a").image(picture(50, 40)).seed(1);
    let fast = pipeline.generate(&request.clone().upscale(Upscale::fast(2.0)), &options).unwrap();
    assert_eq!(fast.len(), 2);
    assert_eq!((fast[0].image.width(), fast[0].image.height()), (100, 80));
    assert!(fast[0].image == fast[1].image && fast[0].notes.is_empty());
    // Prompts are of no meaning for it: this one could not be encoded.
    let unread = GenerateRequest { prompt: "<|endoftext|>".to_owned(), ..request.clone() };
    assert!(pipeline.generate(&unread.clone(), &options).is_err());
    let same = pipeline.generate(&unread.upscale(Upscale::fast(2.0)), &options).unwrap();
    assert!(same[0].image == fast[0].image);
    assert_eq!(fast[1].seed, 2);
    assert_eq!(fast[0].values.as_ref().unwrap().len(), 100 * 80 * 3);
    // Nothing was generated, so files say nothing of it.
    assert_eq!(fast[0].metadata(MetadataScheme::Fooocus).unwrap(), "");
    assert_eq!(
        fast[0].encode(crate::ImageFormat::Png, Some(MetadataScheme::Fooocus)).unwrap(),
        fast[0].image.encode(crate::ImageFormat::Png).unwrap()
    );
    // 64 of 1024 is what 175 is of 2800.
    let large = request.clone().image(picture(90, 90)).upscale(Upscale::by(2.0));
    let large = pipeline.generate(&large, &options).unwrap().remove(0);
    assert_eq!((large.image.width(), large.image.height()), (180, 180));
    assert!(large.notes[0].contains("180 x 180"), "{:?}", large.notes);
    // Among others, each is what it is alone, and progress comes to its end.
    let (sink, seen) = std::sync::mpsc::channel();
    let control = Control::new().on_progress(move |p| {
        let _ = sink.send((p.done, p.total));
    });
    let plain = GenerateRequest::new("a").seed(1);
    let requests = [plain.clone(), request.upscale(Upscale::fast(2.0)), plain];
    let options = GenerateOptions { n: 1, ..options }.size(64, 64);
    let made = pipeline.generate_batch(&requests, &options, &control).unwrap();
    let made: Vec<_> = made.into_iter().map(|made| made.unwrap().image).collect();
    assert!(made[0] == made[2] && made[1] == fast[0].image);
    assert_eq!(seen.try_iter().last(), Some((3, Some(3))));
}

#[test]
fn without_a_network_the_answer_says_so() {
    let folder = small_model();
    let pipeline = pipeline(folder.path(), None);
    assert!(!pipeline.has_upscaler());
    let options = GenerateOptions { steps: 2, guidance_scale: 1.0, ..Default::default() };
    let image = picture(50, 40);
    let request = GenerateRequest::new("a").image(&image).seed(1);
    for upscale in [Upscale::fast(2.0), Upscale::by(1.5)] {
        let made = pipeline.generate(&request.clone().upscale(upscale), &options).unwrap();
        assert!(made[0].notes[0].contains("resampling"), "{:?}", made[0].notes);
        assert!(made[0].notes[0].contains(PUBLISHED), "{:?}", made[0].notes);
    }
    let fast = pipeline.generate(&request.upscale(Upscale::fast(2.0)), &options).unwrap().remove(0);
    let expected = resampled(image.pixels(), (50, 40), (100, 80)).unwrap();
    assert!(fast.image.pixels() == expected);
}

#[test]
fn cancelled_work_ends_before_the_next_tile() {
    let folder = small_model();
    let pipeline = pipeline(folder.path(), Some("fooocus.bin"));
    let control = Control::new();
    control.cancel();
    let request = GenerateRequest::new("a").image(picture(50, 40)).upscale(Upscale::by(2.0));
    let made = pipeline.generate_batch(&[request], &GenerateOptions::default(), &control).unwrap();
    assert_eq!(made[0].as_ref().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[test]
fn sizes_are_those_of_fooocus() {
    let size = |factor, picture| Upscale::by(factor).size(picture, (1152, 896));
    assert_eq!(size(1.5, (1152, 896)), ((1728, 1344), false));
    assert_eq!(size(2.0, (1001, 777)), ((2002, 1554), false));
    assert_eq!(size(1.0, (1000, 1000)), ((1000, 1000), false));
    assert_eq!(size(2.0, (1401, 1400)), ((2802, 2800), true));
    assert_eq!(size(2.0, (1400, 1400)), ((2800, 2800), true), "a class of 2816");
    assert_eq!(size(2.0, (1376, 1376)), ((2752, 2752), false));
    // Too small: as large as the model is good at.
    let ((width, height), is_too_large) = size(2.0, (200, 100));
    assert!(!is_too_large && class((width, height)) == 1024, "{width} x {height}");
    assert_eq!((width % 64, height % 64), (0, 0));
    assert_eq!(size(1.5, (1, 1)), ((1024, 1024), false));
}

#[test]
fn names_are_read_and_factors_checked() {
    for (text, expected) in [
        ("Upscale (1.5x)", Upscale::by(1.5)),
        ("Upscale (2x)", Upscale::by(2.0)),
        ("Upscale (Fast 2x)", Upscale::fast(2.0)),
        ("Upscale (3.25x)", Upscale::by(3.25)),
        ("2", Upscale::by(2.0)),
        ("fast-2x", Upscale::fast(2.0)),
        ("fast 1.5", Upscale::fast(1.5)),
    ] {
        assert_eq!(text.parse::<Upscale>().unwrap(), expected, "{text}");
        assert_eq!(expected.to_string().parse::<Upscale>().unwrap(), expected);
    }
    assert_eq!(Upscale::fast(2.0).to_string(), "Upscale (Fast 2x)");
    for text in ["", "Upscale", "Upscale (Custom)", "0.5", "6x", "nan", "inf", "-2", "fast"] {
        let error = text.parse::<Upscale>().unwrap_err().to_string();
        assert!(error.contains("field=upscale"), "{text}: {error}");
    }
}

#[test]
fn what_cannot_be_made_larger_is_refused_by_name() {
    let folder = small_model();
    let pipeline = pipeline(folder.path(), Some("numbered_x8.safetensors"));
    let options = GenerateOptions { steps: 1, guidance_scale: 1.0, ..Default::default() };
    let request = GenerateRequest::new("a").upscale(Upscale::by(2.0));
    let wide = Image::from_rgb8(2048, 1025, vec![0; 2048 * 1025 * 3]).unwrap();
    for (request, kind, word) in [
        (request.clone(), ErrorKind::InvalidInput, "field=upscale"),
        (
            request.clone().image(picture(8, 8)).mask(picture(8, 8)),
            ErrorKind::InvalidInput,
            "field=upscale",
        ),
        (
            request.clone().image(picture(8, 8)).upscale(Upscale::by(9.0)),
            ErrorKind::InvalidInput,
            "field=upscale",
        ),
        (request.clone().image(wide), ErrorKind::ImageTooLarge, "field=image"),
    ] {
        let error = pipeline.generate(&request, &options).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    let error = GenerateOptions::default().upscale_strength(0.0).check().unwrap_err();
    assert!(error.to_string().contains("upscale_strength"), "{error}");
    let missing = LoadOptions::default().upscaler("none.pth");
    let error = GeneratePipeline::load(folder.path().to_str().unwrap(), &missing).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound);
    assert!(error.to_string().contains("upscaler=none.pth"), "{error}");
}
