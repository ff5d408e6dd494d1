//! What files say is what was asked for, and is where others look for it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::*;
use crate::generate::{Performance, Prompter};
use crate::{Control, ErrorKind, GeneratePipeline, Image, LoadOptions, PrepareOptions};

fn goldens(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

fn pipeline(refiner: Option<PathBuf>) -> GeneratePipeline {
    let options = LoadOptions { refiner, ..LoadOptions::default() };
    let model = goldens("generate-pipeline/model");
    GeneratePipeline::load(model.to_str().unwrap(), &options).unwrap()
}

fn options() -> GenerateOptions {
    GenerateOptions::default().size(64, 128).steps(1)
}

fn made(
    pipeline: &GeneratePipeline,
    request: &GenerateRequest,
    options: &GenerateOptions,
) -> Generated {
    let requests = std::slice::from_ref(request);
    let mut made = pipeline.generate_batch(requests, options, &Control::new()).unwrap();
    made.remove(0).unwrap()
}

/// One that was prepared from a text with styles.
fn prepared() -> GenerateRequest {
    let options = PrepareOptions::default().styles(["Fooocus Sharp"]).seed(7);
    let prepared = Prompter::new().prepare("a 红 cat\na dog", "bad, worse", &options);
    prepared.unwrap().requests.remove(0)
}

fn json_of(made: &Generated) -> Value {
    let text = made.metadata(MetadataScheme::Fooocus).unwrap();
    assert!(text.is_ascii());
    serde_json::from_str(&text).unwrap()
}

/// Texts of the first directory of EXIF, by their numbers.
fn exif(tiff: &[u8]) -> Vec<(u16, String)> {
    let short = |at: usize| u16::from_be_bytes([tiff[at], tiff[at + 1]]);
    let long = |at: usize| u32::from_be_bytes(tiff[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!(&tiff[..8], b"MM\0*\0\0\0\x08");
    let texts = (0..usize::from(short(8))).map(|i| {
        let at = 10 + 12 * i;
        let (length, place) = (long(at + 4), long(at + 8));
        assert_eq!((short(at + 2), tiff[place + length - 1]), (2, 0));
        (short(at), String::from_utf8(tiff[place..place + length - 1].to_vec()).unwrap())
    });
    texts.collect()
}

#[test]
fn json_says_what_was_asked_for() {
    let pipeline = pipeline(None);
    let lora = goldens("generate-lora/lora_kohya.safetensors");
    pipeline.set_loras(&[Lora::new(&lora).scale(0.5)]).unwrap();
    let found =
        json_of(&made(&pipeline, &prepared(), &options().performance(Performance::Speed).steps(1)));
    let keys: Vec<&String> = found.as_object().unwrap().keys().collect();
    assert!(keys.is_sorted());
    for (key, expected) in [
        ("prompt", json!("a 红 cat\na dog")),
        ("negative_prompt", json!("bad, worse")),
        ("styles", json!("['Fooocus Sharp']")),
        ("steps", json!(1)),
        ("guidance_scale", json!(4.0)),
        ("sharpness", json!(2.0)),
        ("adm_guidance", json!("(1.5, 0.8, 0.3)")),
        ("resolution", json!("(64, 128)")),
        ("seed", json!("7")),
        ("sampler", json!("dpmpp_2m_sde_gpu")),
        ("scheduler", json!("karras")),
        ("performance", json!("Speed")),
        ("base_model", json!("model")),
        ("refiner_model", json!("None")),
        ("refiner_switch", json!(0.5)),
        ("clip_skip", json!(2)),
        ("vae", json!("Default (model)")),
        ("metadata_scheme", json!("fooocus")),
        ("lora_combined_1", json!("lora_kohya : 0.5")),
        ("version", json!(format!("tagbrush v{}", env!("CARGO_PKG_VERSION")))),
    ] {
        assert_eq!(found[key], expected, "{key}");
    }
    assert!(found["full_prompt"].as_array().unwrap().len() >= 2, "{found}");
    let hash = &crate::weights::sha256(&lora).unwrap()[..10];
    assert_eq!(found["loras"], json!([["lora_kohya", 0.5, hash]]));
    for key in ["base_model_hash", "adaptive_cfg", "freeu", "refiner_swap_method"] {
        assert!(found.get(key).is_none(), "{key}");
    }
}

#[test]
fn lines_are_those_of_the_web_ui() {
    let refiner = goldens("generate-refiner/model");
    let pipeline = pipeline(Some(refiner));
    let mut request = GenerateRequest::new("a (cat:1.2)\nsunny").negative_prompt("bad").seed(3);
    let options = options().freeu(crate::FreeU { b1: 1.01, b2: 1.02, s1: 0.99, s2: 0.95 });
    let found = made(&pipeline, &request, &options).metadata(MetadataScheme::A1111).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        found,
        format!(
            "a (cat:1.2), sunny\nNegative prompt: bad\nSteps: 1, Sampler: DPM++ 2M SDE Karras, Seed: 3, Size: 64x128, \
             CFG scale: 4.0, Sharpness: 2.0, ADM Guidance: \"(1.5, 0.8, 0.3)\", Model: model, Scheduler: karras, \
             VAE: Default (model), Raw prompt: \"a (cat:1.2)\\nsunny\", Raw negative prompt: bad, Refiner: model, \
             Clip skip: 2, FreeU: \"(1.01, 1.02, 0.99, 0.95)\", Version: tagbrush v{version}"
        )
    );
    request.negative_prompt = String::new();
    let found = made(&pipeline, &request, &options).metadata(MetadataScheme::A1111).unwrap();
    assert!(found.starts_with("a (cat:1.2), sunny\nSteps: 1, "), "{found}");
}

#[test]
fn every_kind_of_file_has_the_text() {
    let made = made(&pipeline(None), &prepared(), &options());
    for scheme in [MetadataScheme::Fooocus, MetadataScheme::A1111] {
        let text = made.metadata(scheme).unwrap();
        let bytes = made.encode(ImageFormat::Png, Some(scheme)).unwrap();
        let decoder = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let info = decoder.info();
        let mut texts: Vec<(String, String)> = Vec::new();
        for chunk in &info.uncompressed_latin1_text {
            texts.push((chunk.keyword.clone(), chunk.text.clone()));
        }
        for chunk in &info.utf8_text {
            texts.push((chunk.keyword.clone(), chunk.get_text().unwrap()));
        }
        texts.sort();
        let expected = [("fooocus_scheme", scheme.name()), ("parameters", &text)];
        assert_eq!(texts, expected.map(|(key, text)| (key.to_owned(), text.to_owned())));
        assert_eq!(Image::decode(&bytes).unwrap(), made.image);

        let software = format!("tagbrush v{}", env!("CARGO_PKG_VERSION"));
        let expected = [(0x0131, software), (0x927C, scheme.name().to_owned()), (0x9286, text)];
        let bytes = made.encode(ImageFormat::JPEG, Some(scheme)).unwrap();
        let start = bytes.windows(6).position(|mark| mark == b"Exif\0\0").unwrap();
        let length = usize::from(u16::from_be_bytes([bytes[start - 2], bytes[start - 1]]));
        assert_eq!(exif(&bytes[start + 6..][..length - 8]), expected);
        assert_eq!(Image::decode(&bytes).unwrap().height(), 128);
        let bytes = made.encode(ImageFormat::WebP, Some(scheme)).unwrap();
        let start = bytes.windows(4).position(|mark| mark == b"EXIF").unwrap();
        let length = u32::from_le_bytes(bytes[start + 4..start + 8].try_into().unwrap()) as usize;
        assert_eq!(exif(&bytes[start + 8..][..length]), expected);
        assert_eq!(Image::decode(&bytes).unwrap(), made.image);
    }
    for format in [ImageFormat::Png, ImageFormat::JPEG, ImageFormat::WebP] {
        assert_eq!(made.encode(format, None).unwrap(), made.image.encode(format).unwrap());
    }
}

#[test]
fn what_a_jpeg_cannot_hold_is_refused() {
    let request = GenerateRequest::new("a\n".repeat(16_000));
    let pipeline = pipeline(None);
    let made = made(&pipeline, &GenerateRequest::new("a"), &options());
    let long = Recipe::new(&request, &made.recipe.as_ref().unwrap().setting);
    let made = Generated { recipe: Some(Arc::new(long)), ..made };
    let error = made.encode(ImageFormat::JPEG, Some(MetadataScheme::Fooocus)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("field=metadata"), "{error}");
    assert!(made.encode(ImageFormat::Png, Some(MetadataScheme::Fooocus)).is_ok());
}

#[test]
fn a_hash_is_read_once_for_each_state_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.v2.safetensors");
    std::fs::write(&file, "abc").unwrap();
    let source = ModelSource::of(&file);
    assert_eq!(source.name, "model.v2");
    assert_eq!(source.hash().unwrap().as_deref(), Some("ba7816bf8f"));
    std::fs::write(&file, "other").unwrap();
    assert_eq!(source.hash().unwrap().as_deref(), Some("d9298a10d1"));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(source.hash().unwrap_err().kind(), ErrorKind::Io);
    let source = ModelSource::of(folder.path());
    assert_eq!(source.hash().unwrap(), None);
}

#[test]
fn schemes_have_names() {
    for scheme in [MetadataScheme::Fooocus, MetadataScheme::A1111] {
        assert_eq!(scheme.to_string().parse::<MetadataScheme>().unwrap(), scheme);
    }
    let error = "a111".parse::<MetadataScheme>().unwrap_err().to_string();
    assert!(error.contains("field=metadata"), "{error}");
}
