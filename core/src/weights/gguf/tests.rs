use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::error::ErrorKind;
use crate::weights::SafeTensorsFile;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/edit-formats")
}

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.to_dtype(DType::F32).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn load(file: &dyn Source, name: &str, dtype: DType) -> Tensor {
    file.load(name, dtype, &Device::Cpu).unwrap()
}

#[test]
fn every_type_has_the_numbers_that_the_python_package_reads() {
    let path = folder().join("types.gguf");
    let golden = SafeTensorsFile::open(&folder().join("types.safetensors")).unwrap();
    let mapped = GgufFile::open(&path).unwrap();
    assert_eq!(mapped.text("general.architecture"), Some("qwen_image"));
    assert_eq!(mapped.text("general.name"), Some("types"));
    assert_eq!(mapped.names(), golden.names());
    assert_eq!(mapped.names().len(), 15);
    // In memory, at addresses that no block may lie at.
    let bytes = std::fs::read(&path).unwrap();
    let shifted: Vec<_> = (0..3)
        .map(|shift| {
            let leaked: &'static [u8] = [vec![0; shift], bytes.clone()].concat().leak();
            GgufFile::from_bytes(&leaked[shift..], "types").unwrap()
        })
        .collect();
    for name in golden.names() {
        assert_eq!(mapped.shape(&name), golden.shape(&name), "{name}");
        let expected = load(&golden, &name, DType::F32);
        for file in std::iter::once(&mapped).chain(&shifted) {
            for _ in 0..2 {
                // The second time, what was released is read again.
                let found = load(file, &name, DType::F32);
                assert_eq!(found.dims(), expected.dims(), "{name}");
                let pairs = values(&found).into_iter().zip(values(&expected));
                let most =
                    pairs.map(|(a, b)| (a - b).abs() / b.abs().max(1e-3)).fold(0.0, f32::max);
                assert!(most <= 1e-6, "{name} differs by {most}");
            }
            let half = load(file, &name, DType::BF16);
            assert_eq!(values(&half), values(&expected.to_dtype(DType::BF16).unwrap()), "{name}");
        }
    }
}

/// The parts of long tensors, which are decoded apart, are those of the whole.
#[test]
fn long_tensors_are_decoded_in_parts() {
    let block: Vec<u8> =
        (0..34u8).map(|i| if i < 2 { [0x00, 0x3c][i as usize] } else { i }).collect();
    let blocks = 2 * BLOCKS + 3;
    let data = block.repeat(blocks);
    let found = dequantise(GgmlDType::Q8_0, &data, blocks * 32).unwrap();
    let expected: Vec<f32> = (2..34u8).map(f32::from).collect();
    assert!(found.chunks(32).all(|values| values == expected));
}

/// A file as hostile as its fields.
struct Forged {
    version: u32,
    tensors: u64,
    keys: Vec<u8>,
    key_count: u64,
    infos: Vec<u8>,
    data: usize,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn info(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = text(name);
    bytes.extend((dims.len() as u32).to_le_bytes());
    bytes.extend(dims.iter().flat_map(|size| size.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(name), &kind.to_le_bytes()[..], value].concat()
}

impl Forged {
    /// Two tensors of eight numbers in f32.
    fn new() -> Self {
        Self::of(&[info("a", &[4, 2], 0, 0), info("b", &[8], 0, 32)])
    }

    fn of(infos: &[Vec<u8>]) -> Self {
        Self {
            version: 3,
            tensors: infos.len() as u64,
            keys: key("general.architecture", 8, &text("qwen_image")),
            key_count: 1,
            infos: infos.concat(),
            data: 64,
        }
    }

    fn with_keys(keys: &[Vec<u8>]) -> Self {
        Self { keys: keys.concat(), key_count: keys.len() as u64, ..Self::new() }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(self.tensors.to_le_bytes());
        bytes.extend(self.key_count.to_le_bytes());
        bytes.extend(&self.keys);
        bytes.extend(&self.infos);
        bytes.resize(bytes.len().next_multiple_of(32) + self.data, 0);
        bytes
    }

    fn open(&self) -> Result<GgufFile> {
        GgufFile::from_bytes(self.bytes(), "forged.gguf")
    }

    #[track_caller]
    fn refused(&self, words: &str) {
        let error = self.open().err().expect("it opened");
        assert!(error.to_string().contains(words), "{error}, expected `{words}`");
        let kinds = [ErrorKind::ModelInvalid, ErrorKind::Unsupported];
        assert!(kinds.contains(&error.kind()), "{error:?}");
    }
}

#[test]
fn dimensions_are_turned_around() {
    let file = Forged::new().open().unwrap();
    assert_eq!(file.shape("a"), Some(vec![2, 4]));
    assert_eq!(file.shape("b"), Some(vec![8]));
    assert_eq!(load(&file, "b", DType::F32).dims(), [8]);
    let file = Forged { version: 2, ..Forged::new() }.open().unwrap();
    assert_eq!(file.names(), ["a", "b"]);
    // A tensor without numbers, as markers are.
    let file = Forged::of(&[info("mark", &[0], 0, 0), info("a", &[8], 0, 0)]).open().unwrap();
    assert_eq!(load(&file, "mark", DType::F32).elem_count(), 0);
}

#[test]
fn a_file_that_is_cut_anywhere_is_refused() {
    let bytes = Forged::new().bytes();
    for length in 0..bytes.len() {
        assert!(GgufFile::from_bytes(bytes[..length].to_vec(), "cut").is_err(), "{length}");
    }
}

/// Whatever byte is wrong, nothing panics, neither then nor when the tensors are loaded.
#[test]
fn a_file_with_any_wrong_byte_does_no_harm() {
    let bytes = std::fs::read(folder().join("types.gguf")).unwrap();
    for at in 0..1400 {
        for value in [0, 1, 0x7f, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            let Ok(file) = GgufFile::from_bytes(bytes, "wrong") else { continue };
            for name in file.names().iter().step_by(5) {
                let _ = file.load(name, DType::F32, &Device::Cpu);
            }
        }
    }
}

#[test]
fn counts_and_lengths_beyond_the_file_are_refused_before_memory_is_taken() {
    for count in [100_001, 1 << 40, u64::MAX] {
        Forged { tensors: count, ..Forged::new() }.refused("tensors");
        Forged { key_count: count, ..Forged::new() }.refused("keys");
    }
    Forged { tensors: 100_000, ..Forged::new() }.refused("GGUF");
    Forged { key_count: 9, ..Forged::new() }.refused("GGUF");
    for length in [1000, 1 << 40, u64::MAX] {
        let length = length.to_le_bytes();
        Forged::with_keys(&[key("a", 8, &length)]).refused("beyond");
        Forged::with_keys(&[key("a", 9, &[&[8, 0, 0, 0], &length[..]].concat())]).refused("beyond");
        Forged::with_keys(&[[&length[..], b"key"].concat()]).refused("GGUF");
        let list = [&[10, 0, 0, 0], &length[..]].concat();
        assert!(Forged::with_keys(&[key("a", 9, &list)]).open().is_err());
    }
    Forged::with_keys(&[key("a", 9, &[9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])]).refused("type 9");
    Forged::with_keys(&[key("a", 13, &[0; 8])]).refused("type 13");
    Forged::with_keys(&[key("a", 8, &text("b")), key("a", 8, &text("c"))]).refused("twice");
    Forged::of(&[info(&"n".repeat(1025), &[8], 0, 0)]).refused("1025");
}

#[test]
fn shapes_that_overflow_are_refused() {
    for dims in [
        &[1 << 32, 1 << 32][..],
        &[u64::MAX, 2],
        &[1 << 62, 4],
        &[1 << 21; 4],
        &[0, 1 << 40, 1 << 40],
    ] {
        Forged::of(&[info("a", dims, 0, 0)]).refused("a");
        Forged::of(&[info("a", dims, 12, 0)]).refused("a");
    }
    Forged::of(&[info("a", &[1; 5], 0, 0)]).refused("5 dimensions");
    Forged::of(&[info("a", &[16, 2], 8, 0)]).refused("blocks of 32");
    Forged::of(&[info("a", &[], 8, 0)]).refused("blocks of 32");
}

#[test]
fn data_that_overlaps_or_lies_outside_is_refused() {
    let two = |b: u64| Forged::of(&[info("a", &[16], 0, 0), info("b", &[8], 0, b)]);
    two(32).refused("overlaps");
    two(0).refused("overlaps");
    two(64).refused("beyond the end");
    two(8).refused("starts at 8");
    two(u64::MAX - 31).refused("b");
    two(1 << 40).refused("beyond the end");
    Forged::of(&[info("a", &[8], 0, 0), info("a", &[8], 0, 32)]).refused("twice");
    for alignment in [0u32, 3, 33, 1 << 21] {
        let alignment = key("general.alignment", 4, &alignment.to_le_bytes());
        Forged::with_keys(&[alignment]).refused("alignment");
    }
    Forged::with_keys(&[key("general.alignment", 8, &text("32"))]).refused("alignment");
}

#[test]
fn other_versions_and_types_are_named() {
    Forged { version: 1, ..Forged::new() }.refused("version 1");
    Forged { version: 4, ..Forged::new() }.refused("version 4");
    Forged { version: 3u32.swap_bytes(), ..Forged::new() }.refused("big-endian");
    for (kind, name) in [(16, "IQ2_XXS"), (23, "IQ4_XS"), (28, "F64"), (39, "MXFP4"), (4, "type 4")]
    {
        let forged = Forged::of(&[info("layer.weight", &[256], kind, 0)]);
        forged.refused(name);
        forged.refused("layer.weight");
    }
}
