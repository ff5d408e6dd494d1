//! Formats of edit models other than folders of safetensors, against what torch and diffusers make of
//! the same files.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};

use super::checkpoint::Source;
use super::open::{FileFormat, open};
use super::renamed::{Name, Renamed};
use super::safetensors::SafeTensorsFile;
use super::scaled::Scaled;
use super::{
    Adapted, Lora, ModelDir, Network, Opened, Weights, open_text_encoder, open_transformer,
    open_vae, wan,
};
use crate::error::{ErrorKind, Result};

pub(super) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/edit-formats")
}

fn golden(name: &str) -> SafeTensorsFile {
    SafeTensorsFile::open(&folder().join(name)).unwrap()
}

pub(super) fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

/// A tensor of a made-up file: its name, number format, shape and bytes.
pub(super) type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

pub(super) fn floats(name: &str, shape: &[usize], value: f32) -> Stored {
    let bytes = value.to_le_bytes().repeat(shape.iter().product());
    (name.to_owned(), Dtype::F32, shape.to_vec(), bytes)
}

/// A file of these tensors and notes.
pub(super) fn bytes(tensors: &[Stored], notes: &[(&str, &str)]) -> Vec<u8> {
    if tensors.is_empty() {
        return [&2u64.to_le_bytes()[..], b"{}"].concat();
    }
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    let notes: HashMap<_, _> =
        notes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    safetensors::serialize(views, Some(notes)).unwrap()
}

pub(super) fn file(tensors: &[Stored], notes: &[(&str, &str)]) -> SafeTensorsFile {
    SafeTensorsFile::from_bytes(bytes(tensors, notes), "made up").unwrap()
}

/// Asserts that two sources have the same tensors, to the bit.
pub(super) fn assert_same(found: &dyn Source, expected: &dyn Source) {
    assert_eq!(found.names(), expected.names());
    for name in expected.names() {
        assert_eq!(found.shape(&name), expected.shape(&name), "{name}");
        let load = |source: &dyn Source| source.load(&name, DType::BF16, &Device::Cpu).unwrap();
        assert_eq!(values(&load(found)), values(&load(expected)), "{name}");
    }
}

#[test]
fn every_byte_has_the_value_that_torch_gives_it() {
    let (file, expected) = (golden("fp8.safetensors"), golden("fp8_values.safetensors"));
    for name in ["e4m3", "e5m2"] {
        for dtype in [DType::F32, DType::F16, DType::BF16, DType::F64] {
            let load =
                |file: &SafeTensorsFile| values(&file.load(name, dtype, &Device::Cpu).unwrap());
            let bits = |values: Vec<f32>| -> Vec<_> {
                let bits = |value: f32| if value.is_nan() { u32::MAX } else { value.to_bits() };
                values.into_iter().map(bits).collect()
            };
            assert_eq!(bits(load(&file)), bits(load(&expected)), "{name} as {dtype:?}");
        }
    }
}

#[test]
fn the_spellings_of_scaled_weights_give_what_torch_multiplies() {
    for name in ["plain", "legacy", "noted"] {
        let opened = open(&folder().join(format!("{name}.safetensors"))).unwrap();
        assert_eq!((opened.format, opened.zero_cond_t), (FileFormat::SafeTensors, false));
        assert_same(&*opened.source, &golden(&format!("{name}_values.safetensors")));
    }
    let opened = open_transformer(&folder().join("mixed.safetensors")).unwrap();
    assert!(opened.zero_cond_t);
    assert_eq!(opened.blocks(), 2);
    assert_same(&*opened.source, &golden("mixed_values.safetensors"));
    // Nothing is left over.
    let weights = Weights::new(opened.source, &Device::Cpu, DType::BF16);
    let blocks = weights.root().at("transformer_blocks");
    blocks.get((6, 8), "0.a.weight").unwrap();
    blocks.get(6, "0.a.bias").unwrap();
    blocks.get((6, 8), "1.c.weight").unwrap();
    weights.check_all_taken(|_| false).unwrap();
}

/// A LoRA changes what a scale has made of a weight, under the name that the network asks for.
#[test]
fn a_lora_lies_over_scaled_weights() {
    let base = open_transformer(&folder().join("mixed.safetensors")).unwrap().source;
    let layer = "diffusion_model.transformer_blocks.0.a";
    let tensors = [
        floats(&format!("{layer}.lora_down.weight"), &[2, 8], 0.5),
        floats(&format!("{layer}.lora_up.weight"), &[6, 2], 1.0),
        floats(&format!("{layer}.alpha"), &[], 1.0),
    ];
    let networks = [(&Network::TRANSFORMER, base.clone())];
    let lora = Arc::new(Lora::new(Arc::new(file(&tensors, &[])), &networks).unwrap().remove(0));
    let adapted = Adapted::new(base.clone(), vec![(lora, -3.0)]).unwrap();
    let load = |source: &dyn Source| {
        values(&source.load("transformer_blocks.0.a.weight", DType::F32, &Device::Cpu).unwrap())
    };
    // Each number of the product is 2 * 0.5, and alpha over the rank is 0.5.
    let expected: Vec<_> = load(&*base).iter().map(|value| value - 1.5).collect();
    assert_eq!(load(&adapted), expected);
}

fn fp8(name: &str) -> Stored {
    (name.to_owned(), Dtype::F8_E4M3, vec![2, 2], vec![0x38; 4])
}

fn description(name: &str, text: &str) -> Stored {
    (name.to_owned(), Dtype::U8, vec![text.len()], text.as_bytes().to_vec())
}

fn scaled(tensors: &[Stored], notes: &[(&str, &str)]) -> Result<Scaled> {
    Scaled::new(file(tensors, notes))
}

/// The values that one weight gets; it is stored as ones.
#[test]
fn a_scale_is_applied_to_weights_of_any_format() {
    for weight in [fp8("a.weight"), floats("a.weight", &[2, 2], 1.0)] {
        let scaled = scaled(&[weight, floats("a.scale_weight", &[1], 0.3)], &[]).unwrap();
        let tensor = scaled.load("a.weight", DType::F32, &Device::Cpu).unwrap();
        assert_eq!(values(&tensor), [0.3; 4]);
        assert_eq!(scaled.shape("a.scale_weight"), None);
    }
}

#[test]
fn scales_that_are_not_understood_are_refused_by_name() {
    let e4m3 = r#"{"format":"float8_e4m3fn"}"#;
    let marker = ("scaled_fp8".to_owned(), Dtype::F8_E4M3, vec![0], Vec::new());
    let int8 = ("a.weight".to_owned(), Dtype::I8, vec![2, 2], vec![1; 4]);
    for (tensors, words) in [
        (vec![floats("a.scale_weight", &[1], 1.0)], "a.weight"),
        (vec![floats("a.input_scale", &[1], 1.0)], "a.weight"),
        (vec![description("a.comfy_quant", e4m3)], "a.weight"),
        (vec![fp8("a.weight"), floats("a.weight_scale", &[2], 1.0)], "shape [2]"),
        (vec![fp8("a.weight"), floats("a.weight_scale", &[2, 1], 1.0)], "a.weight_scale"),
        (vec![fp8("a.weight"), floats("a.weight_scale", &[], f32::NAN)], "NaN"),
        (vec![fp8("a.weight"), description("a.weight_scale", "1")], "U8"),
        (
            vec![
                fp8("a.weight"),
                floats("a.weight_scale", &[], 1.0),
                floats("a.scale_weight", &[], 1.0),
            ],
            "two scales",
        ),
        (vec![fp8("a.weight"), marker.clone()], "a.weight"),
        (vec![fp8("a.weight"), description("a.comfy_quant", e4m3)], "no scale"),
        (vec![fp8("a.weight"), description("a.comfy_quant", "{")], "a.comfy_quant"),
        (vec![fp8("a.weight"), description("a.comfy_quant", &" ".repeat(5000))], "a.comfy_quant"),
        (vec![fp8("a.weight"), floats("a.comfy_quant", &[1], 1.0)], "a.comfy_quant"),
        (vec![fp8("a.weight"), description("a.comfy_quant", r#"{"format":"nvfp4"}"#)], "nvfp4"),
        (vec![floats("a.weight", &[2], 1.0), description("a.comfy_quant", e4m3)], "F32"),
    ] {
        let error = scaled(&tensors, &[]).err().expect(words);
        assert!(error.to_string().contains(words), "{error}, expected {words}");
        assert!(error.to_string().contains("made up"), "{error}");
    }
    for note in ["{", r#"{"layers":{"b":{"format":"float8_e4m3fn"}}}"#] {
        assert!(scaled(&[fp8("a.weight")], &[("_quantization_metadata", note)]).is_err());
    }
    // A scale of another kind is not hidden, so the network that is built reports it.
    let left = scaled(&[fp8("a.weight"), floats("a.weight_scale_2", &[], 1.0)], &[]).unwrap();
    assert_eq!(left.names(), ["a.weight", "a.weight_scale_2"]);
    // Formats that nobody reads are named when they are asked for.
    let whole = scaled(&[int8], &[]).unwrap();
    let error = whole.load("a.weight", DType::F32, &Device::Cpu).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("I8"), "{error}");
}

#[test]
fn no_two_tensors_get_one_name() {
    let base = Arc::new(file(&[floats("x.a", &[1], 1.0), floats("a", &[1], 2.0)], &[]));
    let strip = |name: &str| match name.strip_prefix("x.") {
        Some(name) => Name::Now(name.to_owned()),
        None => Name::Kept,
    };
    let error = Renamed::new(base.clone(), strip).err().unwrap();
    assert!(error.to_string().contains("`x.a`"), "{error}");
    let hidden = |name: &str| if name == "a" { Name::Hidden } else { strip(name) };
    let renamed = Renamed::new(base, hidden).unwrap();
    assert_eq!(renamed.names(), ["a"]);
    assert_eq!(values(&renamed.load("a", DType::F32, &Device::Cpu).unwrap()), [1.0]);
    assert!(renamed.load("x.a", DType::F32, &Device::Cpu).is_err());
}

#[test]
fn names_of_wan_become_what_diffusers_makes_of_them() {
    let text = std::fs::read_to_string(folder().join("vae_names.json")).unwrap();
    let names: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
    assert_eq!(names.len(), 194);
    for (wan, diffusers) in &names {
        assert_eq!(wan::to_diffusers(wan).as_ref(), Some(diffusers), "{wan}");
        assert_eq!(wan::to_diffusers(diffusers).filter(|name| name == diffusers), None);
    }
    for name in ["", "conv1", "encoder.weight", "encoder.middle.3.residual.0.gamma", "a.b.c.d"] {
        assert_eq!(wan::to_diffusers(name), None, "{name}");
    }
    for name in ["encoder.downsamples.x.shortcut.bias", "decoder.upsamples.-1.shortcut.bias"] {
        assert_eq!(wan::to_diffusers(name), None, "{name}");
    }
}

fn write(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

#[test]
fn files_are_told_by_what_is_in_them() {
    let opened = open(&folder().join("types.gguf")).unwrap();
    assert_eq!(opened.format, FileFormat::Gguf);
    assert_eq!(opened.architecture.as_deref(), Some("qwen_image"));
    let path = folder().join("types.gguf");
    for (error, words) in [
        (open_transformer(&path).err().unwrap(), "transformer_blocks"),
        (open_vae(&path).err().unwrap(), "autoencoder"),
        (open_text_encoder(&path).err().unwrap(), "text encoder"),
    ] {
        assert!(error.to_string().contains(words), "{error}");
    }
    let mut other = std::fs::read(&path).unwrap();
    let at = other.windows(10).position(|bytes| bytes == b"qwen_image").unwrap();
    other[at..at + 10].copy_from_slice(b"lumina2___");
    let error = open_transformer(write(&other).path()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("lumina2"), "{error}");

    for (start, words) in [
        (&b"PK\x03\x04\x14\0\0\0\x08\0archive/data.pkl"[..], "zip"),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
        (b"GGU", "shorter"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        (b"", "empty"),
    ] {
        let error = open(write(start).path()).err().unwrap();
        assert!(error.to_string().contains(words), "{error}");
    }
    let nothing: Result<Opened> = open(&folder().join("nothing.safetensors"));
    let error = nothing.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound);

    let wan: Vec<_> = ["decoder.upsamples.3.resample.1.weight", "conv1.bias"]
        .map(|name| floats(name, &[1], 1.0))
        .into();
    let opened = open_vae(write(&bytes(&wan, &[])).path()).unwrap();
    let names = ["decoder.up_blocks.0.upsamplers.0.resample.1.weight", "quant_conv.bias"];
    assert_eq!(opened.source.names(), names);
    assert!(open_vae(&folder().join("plain.safetensors")).is_err());
    let text = open_text_encoder(&folder().join("legacy.safetensors")).unwrap();
    assert_eq!(text.source.names(), ["a.bias", "a.weight", "b.weight", "c.weight"]);
}

#[test]
fn a_checkpoint_in_several_files_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, data: &[u8]| std::fs::write(folder.path().join(name), data).unwrap();
    let dir = ModelDir::Disk(folder.path().to_owned());
    write("m-1.safetensors", &bytes(&[floats("a", &[2], 1.0), floats("b", &[1], 2.0)], &[]));
    write("m-2.safetensors", &bytes(&[floats("c", &[3], 3.0)], &[]));
    let index = "m.safetensors.index.json";
    write(index, br#"{"weight_map":{"a":"m-1.safetensors","c":"m-2.safetensors"}}"#);
    let source = dir.checkpoint("m").unwrap();
    assert_eq!(source.names(), ["a", "c"]);
    assert_eq!(source.shape("c"), Some(vec![3]));
    assert!(source.origin("c").ends_with("m-2.safetensors"));
    assert_eq!(values(&source.load("c", DType::F32, &Device::Cpu).unwrap()), [3.0; 3]);
    for (text, words) in [
        (r#"{"weight_map":{"c":"m-1.safetensors"}}"#, "no such tensor"),
        (r#"{"weight_map":{"c":"m-3.safetensors"}}"#, "m-3.safetensors"),
        (r#"{"weight_map":{"c":"../m-2.safetensors"}}"#, "no file name"),
        (r#"{"weight_map":{"c":"/m-2.safetensors"}}"#, "no file name"),
        (r#"{"weight_map":{"c":".."}}"#, "no file name"),
        (r#"{"weight_map":{"c":""}}"#, "no file name"),
        (r#"{"weight_map":["c"]}"#, "not an index"),
        ("{", "not an index"),
    ] {
        write(index, text.as_bytes());
        let error = dir.checkpoint("m").err().expect(words);
        assert!(error.to_string().contains(words), "{error}, expected {words}");
    }
    std::fs::remove_file(folder.path().join(index)).unwrap();
    write("m.bin", b"");
    let error = dir.checkpoint("m").err().unwrap();
    assert!(error.to_string().contains("pickle"), "{error}");
    write("m.safetensors", &bytes(&[floats("c", &[3], 3.0)], &[]));
    assert_eq!(dir.checkpoint("m").unwrap().names(), ["c"]);
}
