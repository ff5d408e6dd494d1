//! Models in less memory than they take.

use super::super::small_model::{goldens, small_model};
use super::super::{GeneratePipeline, GenerateRequest, Generated, Upscale};
use super::*;
use crate::control::Control;
use crate::{ErrorKind, Image, LoadOptions, Lora, Outpaint, Precision};

/// With a refiner and an inpaint engine.
fn options() -> LoadOptions {
    let mut options = LoadOptions::default().precision(Precision::F32);
    options.refiner = Some(goldens("generate-refiner/model"));
    let [head, patch] =
        ["head.pth", "patch.fooocus.patch"].map(|name| goldens("generate-inpaint").join(name));
    options.inpaint_engine(head, patch)
}

fn load(
    folder: &tempfile::TempDir,
    options: LoadOptions,
    memory: Option<u64>,
) -> Result<GeneratePipeline> {
    let options = LoadOptions { max_memory: memory, ..options };
    GeneratePipeline::load(folder.path().to_str().unwrap(), &options)
}

/// The least that a model takes by what loading says of too little, in bytes.
fn least(folder: &tempfile::TempDir, options: LoadOptions) -> u64 {
    let error = load(folder, options, Some(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.to_string().contains("field=max_memory"), "{error}");
    let megabytes: u64 = error.message().split(' ').rev().nth(1).unwrap().parse().unwrap();
    megabytes * 1_000_000
}

fn start() -> Image {
    let pixels: Vec<u8> = (0..64 * 64 * 3).map(|i| (i % 251) as u8).collect();
    Image::from_rgb8(64, 64, pixels).unwrap()
}

/// A text, a picture to start from, one that is made larger with the network, one of which a part is made, and one that
/// is made larger without the network.
fn requests() -> Vec<GenerateRequest> {
    let request = |prompt: &str| GenerateRequest::new(prompt).negative_prompt("bad").seed(3);
    let upscale = |name: &str| name.parse::<Upscale>().unwrap();
    let outpaint = Outpaint { right: 32, ..Outpaint::default() };
    vec![
        request("a cat"),
        request("a dog").image(start()),
        request("a cat").image(start()).upscale(upscale("2")),
        request("a bird").image(start()).outpaint(outpaint),
        request("a fish").image(start()).upscale(upscale("fast 2")),
    ]
}

fn make(pipeline: &GeneratePipeline) -> Vec<Result<Generated>> {
    let options = GenerateOptions::default().size(64, 64).steps(4).n(2);
    pipeline.generate_batch(&requests(), &options, &Control::new()).unwrap()
}

/// What of all networks may be there while there is denoising.
fn room(pipeline: &GeneratePipeline) -> Room {
    let phase = Phase::Denoising { patched: true, refined: true };
    pipeline.0.memory.room(phase, 0, true).unwrap()
}

/// From too little memory to enough for all, in small steps: whatever is made is what it is with all memory, more memory
/// makes more, and what has no room fails alone.
#[test]
fn pictures_in_little_memory_are_what_they_are_in_much() {
    if !crate::kernels::are_exact() {
        return;
    }
    let folder = small_model();
    let all = load(&folder, options(), None).unwrap();
    let lora = [Lora::new(goldens("generate-lora/lora_kohya.safetensors"))];
    let plain = make(&all);
    all.set_loras(&lora).unwrap();
    let expected = make(&all);
    let pixels = |made: &Result<Generated>| made.as_ref().unwrap().image.clone();
    assert!(expected.iter().zip(&plain).filter(|(a, b)| pixels(a) == pixels(b)).count() == 2);
    let (mut counts, mut layers) = (Vec::new(), Vec::new());
    let from = least(&folder, options()) - 1_000_000;
    for memory in (from..from + 12_000_000).step_by(150_000) {
        let Ok(pipeline) = load(&folder, options(), Some(memory)) else {
            assert!(counts.is_empty(), "{memory} bytes");
            continue;
        };
        layers.push(room(&pipeline));
        pipeline.set_loras(&lora).unwrap();
        let made = make(&pipeline);
        for (i, (made, expected)) in made.iter().zip(&expected).enumerate() {
            match made {
                Ok(made) => assert!(made.image == pixels(expected), "{memory} bytes, output {i}"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::OutOfMemory, "{error}");
                    assert!(error.to_string().contains(&format!("request={}", i / 2)), "{error}");
                }
            }
        }
        counts.push(made.iter().filter(|made| made.is_ok()).count());
        if layers.last().is_some_and(Room::is_for_all) && counts.last() == Some(&10) {
            break;
        }
    }
    println!("{counts:?}");
    assert!(counts.is_sorted() && counts.last() == Some(&10), "{counts:?}");
    assert!(counts[0] < 10, "{counts:?}");
    let some_stay =
        |room: &Room| room.denoising.is_some_and(|keep| matches!(keep[0], Keep::First(1..8)));
    assert!(layers.iter().any(some_stay), "{layers:?}");
    assert!(layers.last().is_some_and(Room::is_for_all), "{layers:?}");
}

/// In little memory, only what a phase needs is there.
#[test]
fn networks_make_room_for_each_other() {
    let folder = small_model();
    let pipeline = load(&folder, options(), Some(least(&folder, options()) + 500_000)).unwrap();
    let model = &pipeline.0;
    let values = model.memory.room(Phase::Texts, 0, true).unwrap();
    assert!(values.texts.is_some() && values.denoising.is_none(), "{values:?}");
    model.make_room(Phase::Texts, 0).unwrap();
    let encoder = std::sync::Arc::downgrade(&model.networks.texts().unwrap().large);
    assert!(encoder.upgrade().is_some());
    model.make_room(Phase::Denoising { patched: false, refined: false }, 0).unwrap();
    assert!(encoder.upgrade().is_none());
    let unet = std::sync::Arc::downgrade(&model.networks.unet().unwrap());
    model.make_room(Phase::Denoising { patched: false, refined: false }, 0).unwrap();
    assert!(unet.upgrade().is_some());
    model.make_room(Phase::Pictures, 0).unwrap();
    assert!(unet.upgrade().is_none());
    // Without a bound all of them stay.
    let pipeline = load(&folder, options(), None).unwrap();
    let model = &pipeline.0;
    let unet = std::sync::Arc::downgrade(&model.networks.unet().unwrap());
    model.make_room(Phase::Texts, u64::MAX).unwrap();
    assert!(unet.upgrade().is_some());
}

/// Files are checked at once, also of networks that are read later.
#[test]
fn what_is_wrong_with_files_is_found_at_once() {
    let folder = small_model();
    let memory = Some(least(&folder, LoadOptions::default()));
    let load = || load(&folder, LoadOptions::default(), memory);
    let phase = Phase::Denoising { patched: false, refined: false };
    let room = load().unwrap().0.memory.room(phase, 0, false).unwrap();
    assert!(!room.is_for_all());
    let file = folder.path().join("unet/diffusion_pytorch_model.safetensors");
    let mut tensors = candle_core::safetensors::load(&file, &candle_core::Device::Cpu).unwrap();
    let name = "mid_block.attentions.0.transformer_blocks.1.ff.net.2.weight";
    let tensor = tensors.remove(name).unwrap();
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let error = load().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelInvalid);
    assert!(error.to_string().contains(name), "{error}");
    tensors.insert(name.to_owned(), tensor.clone());
    tensors.insert("other".to_owned(), tensor);
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let error = load().unwrap_err();
    assert!(error.to_string().contains("other"), "{error}");
}

/// Windows of requests give the same pictures, with the seeds of the call, as all at once.
#[test]
fn many_requests_are_made_in_windows() {
    let pipeline = load(&small_model(), options(), None).unwrap();
    let mut requests = vec![GenerateRequest::new("a cat"); 70];
    requests[33].seed = Some(5);
    requests[40].prompt = "<|endoftext|>".to_owned();
    let options = GenerateOptions::default().size(64, 64).steps(1).seed(9);
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let inner = std::sync::Arc::clone(&seen);
    let control = Control::new().on_progress(move |progress| inner.lock().unwrap().push(progress));
    let mut numbers = Vec::new();
    let mut pictures = Vec::new();
    let sink = |number: usize, made: Result<Generated>| {
        numbers.push(number);
        pictures.push(made);
    };
    pipeline.generate_each(&requests, &options, &control, sink).unwrap();
    assert_eq!(numbers, (0..70).collect::<Vec<_>>());
    for (i, made) in pictures.iter().enumerate() {
        match made {
            Ok(made) => assert_eq!((made.request, made.seed), (i, if i == 33 { 5 } else { 9 })),
            Err(error) => {
                assert_eq!(i, 40);
                assert!(error.to_string().contains("request=40"), "{error}");
            }
        }
    }
    let image = |i: usize| &pictures[i].as_ref().unwrap().image;
    if crate::kernels::are_exact() {
        assert!(image(0) == image(69));
    }
    assert!(image(0) != image(33));
    let seen = seen.lock().unwrap();
    assert_eq!(seen.last().map(|progress| (progress.done, progress.total)), Some((70, Some(70))));
}
