//! Whole edits against the pictures that diffusers makes; `make_edit_pipeline.py` says how the files were
//! made. And what holds for every edit model: order, seeds, errors of one request, cancelling.

mod files;
mod memory;

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::device::Precision;
use crate::error::ErrorKind;
use crate::pixels::Input;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/edit-pipeline")
}

#[derive(Clone, Deserialize)]
struct Call {
    pipeline: String,
    images: Vec<[u32; 2]>,
    prompt: String,
    negative: Option<String>,
    steps: usize,
    cfg: f32,
    seed: u64,
    size: Option<[u32; 2]>,
    #[serde(default)]
    lightning: bool,
    #[serde(default)]
    bf16: bool,
    lora: Option<f64>,
}

fn calls() -> Vec<Call> {
    serde_json::from_str(&fs::read_to_string(goldens().join("golden.json")).unwrap()).unwrap()
}

impl Call {
    fn request(&self) -> EditRequest {
        let negative = self.negative.as_deref().map_or(NegativePrompt::Off, NegativePrompt::from);
        EditRequest::with_references(self.images.iter().map(|size| picture(*size)), &self.prompt)
            .negative_prompt(negative)
    }

    fn options(&self) -> EditOptions {
        let options = EditOptions::default()
            .num_inference_steps(self.steps)
            .true_cfg_scale(self.cfg)
            .seed(self.seed);
        let options = match self.size {
            Some([width, height]) => options.size(OutputSize::Exact(width, height)),
            None => options,
        };
        if self.lightning { options.preset(Preset::Lightning4) } else { options }
    }
}

fn lora() -> Lora {
    Lora::new(goldens().join("lora.safetensors"))
}

/// The picture that `picture` of the script draws.
fn picture([width, height]: [u32; 2]) -> Image {
    let pixels: Vec<u8> = (0..width * height * 3)
        .map(|i| {
            let (x, y, channel) = (i / 3 % width, i / 3 / width, i % 3);
            let noise = ((u64::from(i) * 2_654_435_761) as u32 >> 13) % 64;
            (x * 5 + y * 3 + channel * 80 + noise) as u8
        })
        .collect();
    Image::from_rgb8(width, height, pixels).unwrap()
}

/// A copy of the small model as another of the published pipelines.
struct Folder(TempDir);

impl Folder {
    fn of(pipeline: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        copy(&goldens(), folder.0.path());
        if pipeline != "edit" {
            folder.change("model_index.json", "_class_name", json!("QwenImageEditPlusPipeline"));
        }
        folder.change("transformer/config.json", "zero_cond_t", json!(pipeline == "zero"));
        folder
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn change(&self, file: &str, key: &str, value: Value) {
        let mut all: Value =
            serde_json::from_str(&fs::read_to_string(self.path(file)).unwrap()).unwrap();
        all[key] = value;
        fs::write(self.path(file), all.to_string()).unwrap();
    }

    fn load(&self, options: &LoadOptions) -> Result<EditPipeline> {
        EditPipeline::load(self.0.path().to_str().unwrap(), options)
    }

    fn pipeline(&self) -> EditPipeline {
        self.load(&f32()).unwrap()
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn f32() -> LoadOptions {
    LoadOptions::default().precision(Precision::F32)
}

/// The largest difference of two pictures, and the share of values that differ by more than one.
fn difference(found: &[u8], expected: &[u8]) -> (u8, f32) {
    assert_eq!(found.len(), expected.len());
    let off = || found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
    let beyond = off().filter(|off| *off > 1).count();
    (off().max().unwrap(), beyond as f32 / found.len() as f32)
}

#[test]
fn pictures_equal_those_of_diffusers() {
    let bytes = fs::read(goldens().join("golden.safetensors")).unwrap();
    let goldens = SafeTensors::deserialize(&bytes).unwrap();
    for name in ["edit", "plus", "zero"] {
        let folder = Folder::of(name);
        let pipeline = folder.pipeline();
        let is_of = |call: &Call| call.pipeline == name && !call.bf16;
        for (i, call) in calls().iter().enumerate().filter(|(_, call)| is_of(call)) {
            let lora = call.lora.map(|scale| lora().scale(scale));
            pipeline.set_loras(lora.as_slice()).unwrap();
            let made = pipeline.edit(&call.request(), &call.options()).unwrap().remove(0);
            let golden = goldens.tensor(&i.to_string()).unwrap();
            let size = [made.image.height() as usize, made.image.width() as usize, 3];
            assert_eq!(golden.shape(), size);
            let (largest, share) = difference(made.image.pixels(), golden.data());
            println!("{name} {i}: largest {largest}, {share} beyond 1");
            assert!(largest <= 2 && share <= 0.001, "{i}: {largest} {share}");
        }
    }
}

#[test]
fn a_bf16_picture_is_nearer_to_the_references_bf16_than_that_is_to_f32() {
    let bytes = fs::read(goldens().join("golden.safetensors")).unwrap();
    let goldens = SafeTensors::deserialize(&bytes).unwrap();
    let mean = |a: &[u8], b: &[u8]| {
        a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
    };
    let calls = calls();
    let i = calls.iter().position(|call| call.bf16).unwrap();
    let (low, high) = (goldens.tensor(&i.to_string()), goldens.tensor(&(i - 1).to_string()));
    let (low, high) = (low.unwrap().data().to_vec(), high.unwrap().data().to_vec());
    let folder = Folder::of("zero");
    // Stored in bf16, so that is what `auto` is.
    let pipeline = folder.load(&LoadOptions::default()).unwrap();
    assert_eq!(pipeline.placement().precision(), Precision::Bf16);
    let made = pipeline.edit(&calls[i].request(), &calls[i].options()).unwrap().remove(0);
    let (found, rounding) = (mean(made.image.pixels(), &low), mean(&high, &low));
    println!("bf16 is off by {found:.2} in the mean, the reference's own f32 by {rounding:.2}");
    assert!(found < 0.5 * rounding, "{found} {rounding}");
}

/// Requests of different sizes, numbers of references and prompts.
fn requests() -> Vec<EditRequest> {
    vec![
        EditRequest::new(picture([90, 130]), "Make the sky blue."),
        EditRequest::with_references([picture([200, 100]), picture([64, 64])], "换成")
            .negative_prompt("stars"),
        EditRequest::new(picture([90, 130]), "night").negative_prompt(NegativePrompt::Off),
    ]
}

fn options() -> EditOptions {
    EditOptions::default().num_inference_steps(3).seed(11)
}

fn values(edited: &Edited) -> &[f32] {
    edited.values.as_deref().unwrap()
}

#[test]
fn a_batch_gives_what_its_edits_give_alone_in_order() {
    let pipeline = Folder::of("zero").pipeline();
    let options = options().n(2).keep_values(true);
    let batch = pipeline.edit_batch(&requests(), &options, &Control::new()).unwrap();
    let batch: Vec<Edited> = batch.into_iter().collect::<Result<_>>().unwrap();
    let places: Vec<_> = batch.iter().map(|e| (e.request, e.variant, e.seed)).collect();
    assert_eq!(places, [(0, 0, 11), (0, 1, 12), (1, 0, 11), (1, 1, 12), (2, 0, 11), (2, 1, 12)]);
    let mut largest = 0f32;
    for edited in &batch {
        let alone = self::options().seed(edited.seed).keep_values(true);
        let alone = pipeline.edit(&requests()[edited.request], &alone).unwrap().remove(0);
        assert_eq!(alone.image.width(), edited.image.width());
        let off = values(&alone).iter().zip(values(edited)).map(|(a, b)| (a - b).abs());
        largest = off.fold(largest, f32::max);
    }
    println!("batch against singles: {largest:.1e}");
    let allowed = if crate::kernels::are_exact() { 1e-5 } else { 1e-4 };
    assert!(largest <= allowed, "{largest}");
    // A request may have a seed of its own.
    let mut seeded = requests();
    seeded[1].seed = Some(12);
    let seeded = pipeline.edit_batch(&seeded[..2], &self::options(), &Control::new()).unwrap();
    assert_eq!(seeded[0].as_ref().unwrap().image, batch[0].image);
    assert_eq!(seeded[1].as_ref().unwrap().image, batch[3].image);
    // Variants and prompts do matter.
    assert_ne!(batch[0].image, batch[1].image);
    assert_ne!(batch[0].image, batch[4].image);
}

#[test]
fn runs_of_any_size_give_the_same() {
    let folder = Folder::of("plus");
    let whole = folder.pipeline().edit_batch(&requests(), &options(), &Control::new()).unwrap();
    for load in [f32().batch_size(1), f32().batch_size(2)] {
        let pipeline = folder.load(&load).unwrap();
        let parts = pipeline.edit_batch(&requests(), &options(), &Control::new()).unwrap();
        for (whole, part) in whole.iter().zip(&parts) {
            assert_eq!(whole.as_ref().unwrap().image, part.as_ref().unwrap().image);
        }
    }
}

#[test]
fn a_request_that_fails_costs_no_other_one_its_output() {
    let pipeline = Folder::of("plus").pipeline();
    let mut requests = requests();
    requests.insert(1, EditRequest::new(Input::Bytes(b"no picture".to_vec()), "x"));
    requests.insert(2, EditRequest::new(picture([64, 64]), " "));
    requests.insert(3, EditRequest::new(picture([64, 64]), "a<|image_pad|>"));
    requests.insert(4, EditRequest::with_references(Vec::<Image>::new(), "x"));
    requests.push(EditRequest::new(picture([4, 4000]), "x"));
    let made = pipeline.edit_batch(&requests, &options(), &Control::new()).unwrap();
    let expected = pipeline.edit_batch(&self::requests(), &options(), &Control::new()).unwrap();
    for (i, expected) in [0, 5, 6].into_iter().zip(expected) {
        let made = made[i].as_ref().unwrap();
        assert_eq!((made.request, &made.image), (i, &expected.unwrap().image));
    }
    for (i, kind, word) in [
        (1, ErrorKind::ImageDecode, "image=0"),
        (2, ErrorKind::InvalidInput, "field=prompt"),
        (3, ErrorKind::InvalidInput, "<|image_pad|>"),
        (4, ErrorKind::InvalidInput, "field=images"),
        (7, ErrorKind::InvalidInput, "field=images"),
    ] {
        let error = made[i].as_ref().unwrap_err();
        assert_eq!(error.kind(), kind, "{i}: {error}");
        assert!(error.to_string().contains(word), "{i}: {error}");
        assert!(error.to_string().contains(&format!("request={i}")), "{i}: {error}");
    }
}

#[test]
fn wrong_options_are_refused_by_their_names() {
    let pipeline = Folder::of("edit").pipeline();
    let request = [EditRequest::new(picture([64, 64]), "x")];
    for (options, field) in [
        (options().n(0), "n"),
        (options().n(11), "n"),
        (options().num_inference_steps(0), "num_inference_steps"),
        (options().num_inference_steps(1001), "num_inference_steps"),
        (options().true_cfg_scale(f32::NAN), "true_cfg_scale"),
        (options().guidance_scale(-1.0), "guidance_scale"),
        (options().max_sequence_length(1025), "max_sequence_length"),
        (options().size(OutputSize::Exact(15, 64)), "size"),
        (options().size(OutputSize::Exact(64, 100_000)), "size"),
        (options().reference_area(0), "reference_area"),
        (options().reference_multiple(24), "reference_multiple"),
    ] {
        let error = pipeline.edit_batch(&request, &options, &Control::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&format!("field={field}")), "{error}");
        assert_eq!(pipeline.check(&request, &options).unwrap_err().to_string(), error.to_string());
    }
    pipeline.check(&request, &options()).unwrap();
    let blank = EditRequest::new(picture([64, 64]), " ");
    assert!(pipeline.check(&[blank], &options()).unwrap_err().to_string().contains("prompt"));
    // The first pipeline takes one picture.
    let two = EditRequest::with_references([picture([64, 64]), picture([64, 64])], "x");
    let error = pipeline.edit(&two, &options()).unwrap_err();
    assert!(error.to_string().contains("exactly one"), "{error}");
    assert!(options().guidance_scale(7.5).notes()[0].contains("guidance_scale"));
    assert!(pipeline.edit_batch(&[], &options(), &Control::new()).unwrap().is_empty());
}

#[test]
fn a_cancelled_run_stops_and_the_pipeline_goes_on() {
    let pipeline = Folder::of("plus").load(&f32().batch_size(1)).unwrap();
    let control = Control::new();
    let (inner, steps) = (control.clone(), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&steps);
    let control = control.on_progress(move |progress| {
        seen.lock().unwrap().push((progress.done, progress.total));
        assert!(progress.left.is_some());
        if progress.done == 4 {
            inner.cancel();
        }
    });
    let made = pipeline.edit_batch(&requests(), &options(), &control).unwrap();
    assert_eq!(*steps.lock().unwrap(), [1, 2, 3, 4].map(|done| (done, Some(9))));
    assert!(made[0].is_ok());
    for made in &made[1..] {
        assert_eq!(made.as_ref().unwrap_err().kind(), ErrorKind::Cancelled);
    }
    assert!(pipeline.edit(&requests()[0], &options()).is_ok());
}

#[test]
fn previews_come_for_every_step_and_become_the_output() {
    let pipeline = Folder::of("plus").pipeline();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let control = Control::new().on_preview(move |preview| sink.lock().unwrap().push(preview));
    let made = pipeline.edit_batch(&requests()[..2], &options().n(2), &control).unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 4 * 3);
    for (output, made) in made.iter().enumerate() {
        let image = &made.as_ref().unwrap().image;
        let of_output: Vec<_> = seen.iter().filter(|p| p.output == output).collect();
        let steps: Vec<_> = of_output.iter().map(|p| (p.step, p.steps)).collect();
        assert_eq!(steps, [(1, 3), (2, 3), (3, 3)]);
        for preview in of_output {
            assert_eq!((preview.width * 8, preview.height * 8), (image.width(), image.height()));
            Image::from_rgb8(preview.width, preview.height, &*preview.pixels).unwrap();
        }
    }
}

#[test]
fn values_that_are_no_numbers_are_an_error_of_their_output() {
    let folder = Folder::of("plus");
    folder.change("vae/config.json", "latents_std", json!([1e38, 1e38, 1e38, 1e38]));
    let made = folder.pipeline().edit(&requests()[0], &options());
    let error = made.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ModelInvalid, "{error}");
    assert!(error.to_string().contains("no numbers"), "{error}");
}
