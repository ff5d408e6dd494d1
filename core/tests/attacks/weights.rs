//! Checkpoints that lie, are damaged, or are something else.

use std::time::{Duration, Instant};

use half::{bf16, f16};
use safetensors::tensor::Dtype;
use tagbrush::{Control, Error, ErrorKind, Image, TagOptions};

use crate::folder::{Folder, Stored, scores};

/// The error of a folder whose checkpoint is these bytes.
fn refused(bytes: impl AsRef<[u8]>) -> Error {
    let error = Folder::new().write("model.safetensors", bytes).refused();
    assert_eq!(error.kind(), ErrorKind::ModelInvalid, "{error}");
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    error
}

/// A checkpoint of this header and that many bytes of data.
fn with_header(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

#[test]
fn the_folder_itself_loads() {
    let folder = Folder::new();
    let plain = scores(&folder.load().unwrap()).unwrap();
    folder.tensors(|_| {}).config(|_| {});
    assert_eq!(scores(&folder.load().unwrap()).unwrap(), plain);
}

/// Header lengths beyond the file, beyond memory, and of nothing.
#[test]
fn w01_header_lengths() {
    let body = Folder::new().read("model.safetensors").split_off(8);
    for length in [0, 1, 2, 100 << 20, (32 << 20) + 1, 1 << 62, u64::MAX - 7, u64::MAX] {
        refused([&length.to_le_bytes()[..], &body].concat());
    }
    for file in [&b""[..], b"\0", b"\x02\0\0\0\0\0\0", b"\x02\0\0\0\0\0\0\0{", &[0; 64]] {
        refused(file);
    }
    for header in ["null", "[]", "{", "\u{feff}{}", "{\"a\":1}", "{}}"] {
        refused(with_header(header, 0));
    }
}

#[test]
fn w01_truncated_checkpoint() {
    let whole = Folder::new().read("model.safetensors");
    for cut in [1, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        refused(&whole[..cut]);
    }
    refused([&whole[..], b"\0"].concat());
}

/// Far more tensors than any model has, within the allowed length of a header.
#[test]
fn w02_a_hundred_thousand_tensors() {
    let entry = r#":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
    let entries: Vec<_> = (0..100_001).map(|i| format!("\"t{i}\"{entry}")).collect();
    let start = Instant::now();
    let error = refused(with_header(&format!("{{{}}}", entries.join(",")), 0));
    assert!(error.to_string().contains("100000 tensors"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn w03_offsets_that_overlap_or_lie_outside() {
    let two = |a: &str, b: &str| {
        let entry = |offsets| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}"#);
        with_header(&format!(r#"{{"a":{},"b":{}}}"#, entry(a), entry(b)), 16)
    };
    for (a, b) in [
        ("[0,8]", "[4,12]"),
        ("[0,8]", "[0,8]"),
        ("[0,8]", "[16,24]"),
        ("[8,16]", "[16,24]"),
        ("[8,0]", "[8,16]"),
        ("[0,8]", "[8,18446744073709551615]"),
        ("[0,8]", "[8,18446744073709551616]"),
        ("[-8,0]", "[8,16]"),
        ("[0,8]", "[8]"),
    ] {
        refused(two(a, b));
    }
}

/// Shapes whose product wraps around to the right length.
#[test]
fn w04_shapes_that_overflow() {
    for shape in [
        "[9223372036854775808,2]",
        "[4294967296,4294967296]",
        "[18446744073709551615,18446744073709551615]",
        "[4611686018427387906,4]",
        "[-1]",
        "[1.5]",
    ] {
        let entry = format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":[0,8]}}}}"#);
        refused(with_header(&entry, 8));
    }
}

/// Number formats that are not read are named, not reinterpreted.
#[test]
fn w05_other_number_formats() {
    for (dtype, name, size) in
        [(Dtype::F64, "F64", 8), (Dtype::F8_E8M0, "F8_E8M0", 1), (Dtype::I32, "I32", 4)]
    {
        let folder = Folder::new();
        folder.tensors(|tensors| {
            let tensor = tensors.iter_mut().find(|t| t.name == "head.weight").unwrap();
            let count: usize = tensor.shape.iter().product();
            (tensor.dtype, tensor.bytes) = (dtype, vec![0; count * size]);
        });
        let error = folder.refused();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("head.weight"), "{text}");
    }
    refused(with_header(r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#, 8));
}

/// Half-precision checkpoints give exactly what their values in single precision give.
#[test]
fn w05_half_precision_is_read() {
    let halve = |folder: &Folder, dtype, half: fn(f32) -> [u8; 2]| {
        folder.tensors(|tensors| {
            for tensor in tensors {
                tensor.bytes = floats(tensor).flat_map(half).collect();
                tensor.dtype = dtype;
            }
        });
    };
    let widen = |folder: &Folder, back: fn([u8; 2]) -> f32| {
        folder.tensors(|tensors| {
            for tensor in tensors {
                let values = tensor.bytes.chunks_exact(2).map(|b| back([b[0], b[1]]));
                tensor.bytes = values.flat_map(f32::to_le_bytes).collect();
                tensor.dtype = Dtype::F32;
            }
        });
    };
    type Narrow = fn(f32) -> [u8; 2];
    type Widen = fn([u8; 2]) -> f32;
    let kinds: [(Dtype, Narrow, Widen); 2] = [
        (Dtype::F16, |x| f16::from_f32(x).to_le_bytes(), |b| f16::from_le_bytes(b).to_f32()),
        (Dtype::BF16, |x| bf16::from_f32(x).to_le_bytes(), |b| bf16::from_le_bytes(b).to_f32()),
    ];
    let full = scores(&Folder::new().load().unwrap()).unwrap();
    for (dtype, narrow, back) in kinds {
        let folder = Folder::new();
        halve(&folder, dtype, narrow);
        let found = scores(&folder.load().unwrap()).unwrap();
        widen(&folder, back);
        assert_eq!(found, scores(&folder.load().unwrap()).unwrap(), "{dtype:?}");
        assert_ne!(found, full, "{dtype:?} lost nothing");
    }
}

fn floats(tensor: &Stored) -> impl Iterator<Item = f32> {
    assert_eq!(tensor.dtype, Dtype::F32);
    tensor.bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

#[test]
fn w06_missing_and_extra_tensors_are_named() {
    let folder = Folder::new();
    folder.tensors(|tensors| tensors.retain(|t| t.name != "blocks.1.mlp.fc2.bias"));
    let error = folder.refused();
    assert_eq!(error.kind(), ErrorKind::ModelInvalid);
    assert!(error.to_string().contains("`blocks.1.mlp.fc2.bias` is missing"), "{error}");

    let folder = Folder::new();
    folder.tensors(|tensors| {
        let extra = tensors[0].clone();
        tensors.extend((0..12).map(|i| Stored { name: format!("extra.{i:02}"), ..extra.clone() }));
    });
    let error = folder.refused();
    assert_eq!(error.kind(), ErrorKind::ModelInvalid);
    let text = error.to_string();
    assert!(text.contains("12 tensors") && text.contains("extra.00"), "{text}");
    assert!(text.contains("extra.09") && !text.contains("extra.10"), "{text}");

    let folder = Folder::new();
    folder.tensors(|tensors| {
        let head = tensors.iter_mut().find(|t| t.name == "head.weight").unwrap();
        head.shape.reverse();
    });
    let error = folder.refused();
    assert!(error.to_string().contains("`head.weight` has shape [24, 15]"), "{error}");
}

/// Nothing but safetensors is opened: a renamed pickle could run code in other programs.
#[test]
fn w07_other_formats_under_the_name() {
    let pad = |start: &[u8]| [start, &[0; 200]].concat();
    for (bytes, what) in [
        (pad(b"PK\x03\x04\x14\0\0\0\x08\0archive/data.pkl"), "zip"),
        (pad(b"PK\x03\x04\0\0\0\0\0\0archive/data.pkl"), "zip"),
        (pad(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."), "pickle"),
        (pad(b"\x80\x04\x95\x1a\x02\0\0\0\0\0\0}\x94"), "pickle"),
        (pad(b"GGUF\x03\0\0\0"), "GGUF"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 99\n".to_vec(),
            "Git LFS pointer",
        ),
        (pad(b"\x89HDF\r\n\x1a\n"), "not a valid safetensors"),
        (pad(b"<!DOCTYPE html>"), "not a valid safetensors"),
    ] {
        let error = refused(&bytes);
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
    let folder = Folder::new();
    let pickle = pad(b"\x80\x02\x8a\x0a");
    let error = folder.remove("model.safetensors").write("pytorch_model.bin", pickle).refused();
    assert_eq!(error.kind(), ErrorKind::ModelNotFound);
    let text = error.to_string();
    assert!(text.contains("model.safetensors") && text.contains("pytorch_model.bin"), "{text}");
}

/// Weights that are no numbers give an error for every picture, not an empty list of tags.
#[test]
fn w09_weights_that_are_no_numbers() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for name in ["head.bias", "blocks.0.attn.qkv.weight", "patch_embed.proj.weight"] {
            let folder = Folder::new();
            folder.tensors(|tensors| {
                let tensor = tensors.iter_mut().find(|t| t.name == name).unwrap();
                tensor.bytes[..4].copy_from_slice(&value.to_le_bytes());
            });
            let tagger = folder.load().unwrap();
            let images = (1..4).map(|i| Image::from_rgb8(i, i, vec![90; (i * i * 3) as usize]));
            let images: Vec<_> = images.map(Result::unwrap).collect();
            let options = TagOptions::default();
            for result in tagger.tag_batch(&images, &options, &Control::new()).unwrap() {
                let error = result.expect_err(name);
                assert_eq!(error.kind(), ErrorKind::ModelInvalid);
                assert!(error.to_string().contains("no numbers"), "{error}");
            }
        }
    }
}
