//! Files as PyTorch writes them are read in `models/rrdb`'s tests, against spandrel; here are those that lie.

use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::ErrorKind;

/// A file of an archive: name, content, method and what the directory says of its length.
struct File {
    name: &'static str,
    content: Vec<u8>,
    method: u16,
    flags: u16,
    length: u32,
    crc: u32,
}

fn file(name: &'static str, content: impl Into<Vec<u8>>) -> File {
    let content = content.into();
    let (length, crc) = (content.len() as u32, crc32fast::hash(&content));
    File { name, content, method: 0, flags: 0, length, crc }
}

/// An archive, with the offset of each file moved by `moved`.
fn zip(files: &[File], moved: impl Fn(usize, u32) -> u32) -> Vec<u8> {
    let (mut data, mut directory) = (Vec::new(), Vec::new());
    for (i, file) in files.iter().enumerate() {
        let offset = moved(i, data.len() as u32);
        let head = |out: &mut Vec<u8>| {
            for half in [20, file.flags, file.method, 0, 0] {
                out.extend(half.to_le_bytes());
            }
            for word in [file.crc, file.content.len() as u32, file.length] {
                out.extend(word.to_le_bytes());
            }
            out.extend((file.name.len() as u16).to_le_bytes());
            out.extend(0u16.to_le_bytes());
        };
        data.extend(b"PK\x03\x04");
        head(&mut data);
        data.extend(file.name.as_bytes());
        data.extend(&file.content);
        directory.extend(b"PK\x01\x02\x14\0");
        head(&mut directory);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(file.name.as_bytes());
    }
    let start = data.len() as u32;
    data.extend(&directory);
    data.extend(b"PK\x05\x06\0\0\0\0");
    for _ in 0..2 {
        data.extend((files.len() as u16).to_le_bytes());
    }
    data.extend((directory.len() as u32).to_le_bytes());
    data.extend(start.to_le_bytes());
    data.extend([0, 0]);
    data
}

/// `{name: tensor}` of floats in a storage of `count`.
fn pickle(count: i32, offset: i32, shape: &[i32], strides: &[i32]) -> Vec<u8> {
    let int = |out: &mut Vec<u8>, number: i32| {
        out.push(b'J');
        out.extend(number.to_le_bytes());
    };
    let text = |out: &mut Vec<u8>, text: &str| {
        out.push(b'X');
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    };
    let mut out = b"\x80\x02}".to_vec();
    text(&mut out, "weight");
    out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
    text(&mut out, "storage");
    out.extend(b"ctorch\nFloatStorage\n");
    text(&mut out, "0");
    text(&mut out, "cpu");
    int(&mut out, count);
    out.extend(b"tQ");
    int(&mut out, offset);
    for sizes in [shape, strides] {
        out.push(b'(');
        sizes.iter().for_each(|size| int(&mut out, *size));
        out.push(b't');
    }
    out.extend(b"\x89ccollections\nOrderedDict\n)RtRs.");
    out
}

fn open(bytes: Vec<u8>) -> Result<PickleFile> {
    PickleFile::from_bytes(bytes, "attack.pth")
}

fn plain(pickle: Vec<u8>) -> Vec<u8> {
    let data: Vec<u8> = [1f32, 2.0, 3.0, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    zip(&[file("a/data.pkl", pickle), file("a/data/0", data)], |_, offset| offset)
}

fn refused(bytes: Vec<u8>, word: &str) {
    let start = Instant::now();
    let error = open(bytes).and_then(|file| {
        file.names().iter().try_for_each(|name| file.load(name, DType::F32, &Device::Cpu).map(drop))
    });
    let error = error.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::ModelInvalid | ErrorKind::Unsupported), "{error}");
    assert!(error.to_string().contains(word), "{error}: no `{word}`");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_plain_file_loads() {
    let file = open(plain(pickle(4, 1, &[1, 3], &[3, 1]))).unwrap();
    assert_eq!(file.names(), ["weight"]);
    assert_eq!(file.shape("weight"), Some(vec![1, 3]));
    assert_eq!(file.stored("weight"), Some(DType::F32));
    let values = file.load("weight", DType::F32, &Device::Cpu).unwrap();
    assert_eq!(values.to_vec2::<f32>().unwrap(), [[2.0, 3.0, 4.0]]);
    assert!(file.number("weight").is_err() && file.number("other").unwrap().is_none());
}

/// Names that call something are refused, whatever they are in, and nothing is run.
#[test]
fn p01_calls() {
    let mark = std::env::temp_dir().join(format!("tagbrush-pickle-{}", std::process::id()));
    let command = format!("touch {}", mark.display());
    let mut call = b"\x80\x02cos\nsystem\n(X".to_vec();
    call.extend((command.len() as u32).to_le_bytes());
    call.extend(command.as_bytes());
    call.extend(b"tR.");
    refused(plain(call), "os.system");
    assert!(!Path::new(&mark).exists());
    for (code, word) in [
        (&b"\x8c\x02os\x8c\x06system\x93."[..], "os.system"),
        (b"cbuiltins\neval\n.", "builtins.eval"),
        (b"ctorch.jit\nload\n.", "torch.jit.load"),
        // Instructions that make objects of classes.
        (b"(ios\nsystem\n.", "0x69"),
        (b"ccollections\nOrderedDict\n)\x81.", "0x81"),
        // A storage and a tuple are no functions.
        (b"ctorch\nFloatStorage\n)R.", "no function"),
        (b"))R.", "no function"),
    ] {
        refused(plain([b"\x80\x02", code].concat()), word);
    }
}

#[test]
fn p02_instructions_without_what_they_need() {
    for code in
        ["t.", "R.", "s.", "u.", "a.", "e.", "q\u{0}.", "h\u{0}.", ".", "(K\u{1}a.", "X", "K"]
    {
        refused(plain([b"\x80\x02", code.as_bytes()].concat()), "the pickle");
    }
    refused(plain(b"\x80\x02X\xff\xff\xff\xff".to_vec()), "cut short");
    refused(plain(b"\x80\x02X\x01\0\0\0\xff.".to_vec()), "text");
    refused(plain(b"}NK\x01s.".to_vec()), "key");
}

/// A value that holds itself, and one that is everything many times over.
#[test]
fn p03_values_in_values() {
    refused(plain(b"}q\0X\x01\0\0\0ah\0s.".to_vec()), "more in it");
    refused(plain(b"]q\0h\0a.".to_vec()), "more in it");
    let mut laughs = b"(K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01K\x01tq\0".to_vec();
    for i in 0..200u8 {
        laughs.push(b'(');
        (0..100).for_each(|_| laughs.extend([b'h', i]));
        laughs.extend([b't', b'q', i + 1]);
    }
    laughs.push(b'.');
    refused(plain(laughs), "more in it");
    // Three million numbers.
    refused(plain([&b"("[..], &[b'N'; 3 << 20], b"t."].concat()), "two million");
}

#[test]
fn p04_tensors_that_are_not_there() {
    for (count, offset, shape, strides, word) in [
        (4, 0, &[5][..], &[1][..], "larger than its storage"),
        (4, 2, &[3], &[1], "larger than its storage"),
        (5, 0, &[5], &[1], "not as long"),
        (3, 0, &[3], &[1], "not as long"),
        (i32::MAX, 0, &[i32::MAX], &[1], "not as long"),
        (-1, 0, &[1], &[1], "storage"),
        (4, -1, &[1], &[1], "offset"),
        (4, 0, &[-1], &[1], "shape"),
        (4, 0, &[i32::MAX, i32::MAX, i32::MAX], &[1, 1, 1], "shape"),
        (4, 0, &[2, 2], &[1, 2], "order"),
        (4, 0, &[2, 2], &[0, 0], "order"),
        (4, 0, &[2, 2], &[2], "strides"),
        (4, 0, &[1; 9], &[1; 9], "shape"),
    ] {
        refused(plain(pickle(count, offset, shape, strides)), word);
    }
    // A storage that is no file of the archive.
    let alone = zip(&[file("a/data.pkl", pickle(4, 0, &[4], &[1]))], |_, offset| offset);
    refused(alone, "not as long");
}

#[test]
fn p05_archives_that_lie() {
    let data = || file("a/data/0", [0u8; 16]);
    let pickle = || file("a/data.pkl", pickle(4, 0, &[4], &[1]));
    let same = |_: usize, offset: u32| offset;
    assert!(open(zip(&[pickle(), data()], same)).is_ok());
    for (files, word) in [
        (vec![data()], "data.pkl"),
        (vec![pickle(), file("b/data.pkl", *b"N."), data()], "several"),
        (vec![pickle(), data(), data()], "twice"),
        (vec![pickle(), File { flags: 1, ..data() }], "encrypted"),
        (vec![pickle(), File { method: 12, ..data() }], "not read"),
        (vec![pickle(), File { length: 15, ..data() }], "cannot be"),
        (vec![pickle(), File { crc: 7, ..data() }], "checksum"),
        // A kilobyte that claims to be four gigabytes, and data that is no deflated one.
        (vec![pickle(), File { method: 8, length: u32::MAX - 1, ..data() }], "cannot be"),
        (vec![pickle(), File { method: 8, ..data() }], "inflate"),
        (vec![pickle(), data(), file("a/constants.pkl", *b"N.")], "TorchScript"),
        (vec![pickle(), data(), file("a/byteorder", *b"big")], "order"),
    ] {
        refused(zip(&files, same), word);
    }
    // Both files at one place, and one outside.
    refused(zip(&[data(), file("a/data/1", [0u8; 16]), pickle()], |_, o| o.min(1)), "header");
    refused(zip(&[pickle(), data()], |i, offset| if i == 1 { 0 } else { offset }), "");
    refused(zip(&[pickle(), data()], |_, _| u32::MAX - 1), "outside");
    // Two entries whose headers are apart and whose data is not.
    let long = File { length: 60, content: vec![0; 60], ..file("a/data/0", *b"") };
    let overlapping = zip(&[long, file("a/x", [0u8; 30]), pickle()], same);
    assert!(open(overlapping).is_err());
}

#[test]
fn p06_deflated_data_is_as_long_as_it_says() {
    use std::io::Write;
    let deflated = |content: &[u8]| {
        let mut writer =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        writer.write_all(content).unwrap();
        writer.finish().unwrap()
    };
    let content: Vec<u8> = (0..16).collect();
    let with = |length: u32, content: &[u8]| {
        let file = File {
            method: 8,
            length,
            content: deflated(content),
            crc: crc32fast::hash(content),
            ..file("a/data/0", *b"")
        };
        let pickle = pickle(length as i32 / 4, 0, &[length as i32 / 4], &[1]);
        zip(&[self::file("a/data.pkl", pickle), file], |_, offset| offset)
    };
    let file = open(with(16, &content)).unwrap();
    assert_eq!(file.load("weight", DType::F32, &Device::Cpu).unwrap().dims(), [4]);
    refused(with(12, &content), "inflate");
    refused(with(20, &content), "inflate");
    // Zeros, which shrink the most.
    refused(with(16, &[0; 1 << 20]), "inflate");
}

/// Of real files every beginning is refused, and no changed byte does harm.
#[test]
fn p07_real_files_cut_and_changed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/generate-upscale");
    for name in ["fooocus.bin", "deflated.pth", "trunk.pth"] {
        let whole = std::fs::read(folder.join(name)).unwrap();
        open(whole.clone()).unwrap();
        for cut in (0..whole.len()).step_by(997) {
            assert!(open(whole[..cut].to_vec()).is_err(), "{name} cut at {cut}");
        }
        for place in (0..whole.len()).step_by(601) {
            let mut changed = whole.clone();
            changed[place] ^= 0x41;
            let Ok(file) = open(changed) else { continue };
            for name in file.names() {
                let _ = file.load(&name, DType::F32, &Device::Cpu);
            }
        }
    }
    for start in [&b"PK\x03\x04"[..], b"", b"\x80\x02", MAGIC, b"PK\x05\x06"] {
        assert!(open(start.to_vec()).is_err());
    }
}
