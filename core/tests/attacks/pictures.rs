//! Pictures that lie about their size, hold bombs, or are not what their name says.

use std::time::{Duration, Instant};

use tagbrush::{DecodeOptions, ErrorKind, Image, Limits};

use crate::build::*;
use crate::memory::peak;

const MEGABYTE: usize = 1 << 20;
/// Far above what anything here takes; only a hang is slower.
const HANG: Duration = Duration::from_secs(20);

fn kind(bytes: &[u8]) -> Option<ErrorKind> {
    Image::decode(bytes).err().map(|error| error.kind())
}

/// Fails unless the bytes are refused as too large without the memory being asked for.
fn refused_as_too_large(bytes: &[u8]) {
    let (found, held) = peak(|| kind(bytes));
    assert_eq!(found, Some(ErrorKind::ImageTooLarge));
    assert!(held < MEGABYTE, "{held} bytes held");
}

/// Downloads that broke off at the first byte.
#[test]
fn i01_empty_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("empty.png");
    std::fs::write(&path, b"").unwrap();
    let error = Image::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ImageDecode);
    assert!(error.to_string().contains("empty.png"), "{error}");
    assert_eq!(kind(b""), Some(ErrorKind::ImageDecode));
}

/// An error page saved under a picture's name, and beginnings of every signature.
#[test]
fn i02_text_named_as_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.png");
    std::fs::write(&path, "404 not found").unwrap();
    assert_eq!(Image::open(&path).unwrap_err().kind(), ErrorKind::ImageDecode);
    for signature in [
        &b"\x89PNG\r\n\x1a\n"[..],
        b"\xFF\xD8\xFF\xE0\0\x10JFIF\0",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"GIF89a",
        b"BM\0\0\0\0\0\0\0\0\x36\0\0\0",
    ] {
        for end in 0..=signature.len() {
            assert_eq!(
                kind(&signature[..end]),
                Some(ErrorKind::ImageDecode),
                "{signature:?} {end}"
            );
        }
    }
}

/// Half of a photograph is grey in most decoders, and the tags are those of half a photograph.
#[test]
fn i03_truncated_jpeg() {
    let tolerant = DecodeOptions::default().tolerate_truncated(true);
    for name in ["jpeg-444.jpg", "jpeg-progressive.jpg"] {
        let whole = picture(name);
        let full = Image::decode(&whole).unwrap();
        for percent in [10, 50, 99] {
            let cut = &whole[..whole.len() * percent / 100];
            assert_eq!(kind(cut), Some(ErrorKind::ImageDecode), "{name} {percent}");
            match Image::decode_with(cut, &tolerant) {
                Ok(image) => assert_eq!(image.pixels().len(), full.pixels().len()),
                // The cut is before the scan: nothing to tolerate.
                Err(error) => assert_eq!(percent, 10, "{name}: {error:#}"),
            }
        }
    }
}

/// 20 kB that claim 2.5 gigapixels: with real data behind them, and with none.
#[test]
fn i04_png_bomb() {
    let data = zlib_bomb(16);
    assert!(data.len() < 40_000);
    for colour in [0, 2, 6] {
        let header = png_header(50_000, 50_000, colour);
        refused_as_too_large(&png(&[header, chunk(b"IDAT", &data)]));
    }
    refused_as_too_large(&png(&[png_header(i32::MAX as u32, i32::MAX as u32, 6)]));
    // Within the limits the data decide.
    let short = png(&[png_header(4000, 4000, 2), chunk(b"IDAT", &zlib(&[0; 12_001]))]);
    assert_eq!(kind(&short), Some(ErrorKind::ImageDecode));
    let strict = DecodeOptions::default().limits(Limits::default().max_pixels(99));
    let error = Image::decode_with(&png_of(10, 10, [1, 2, 3]), &strict).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ImageTooLarge);
}

/// The JPEG that once took upload services down: two bytes make it 4.3 gigapixels.
#[test]
fn i05_jpeg_bomb() {
    for name in ["jpeg-420.jpg", "jpeg-progressive.jpg", "jpeg-cmyk.jpg"] {
        refused_as_too_large(&jpeg_claiming(picture(name), 65_500, 65_500));
    }
    assert_eq!(kind(&jpeg_claiming(picture("jpeg-420.jpg"), 0, 64)), Some(ErrorKind::ImageDecode));
}

/// Components sampled in ratios that a decoder was not written for made it panic.
#[test]
fn i05_jpeg_of_odd_sampling() {
    let whole = picture("jpeg-cmyk.jpg");
    let first = frame_header(&whole) + 10;
    for component in 0..4 {
        for sampling in 0..=0xFF {
            let mut bytes = whole.clone();
            bytes[first + 3 * component] = sampling;
            let found = kind(&bytes);
            let expected = [None, Some(ErrorKind::ImageDecode), Some(ErrorKind::Unsupported)];
            assert!(expected.contains(&found), "{component} {sampling:#x}: {found:?}");
        }
    }
}

/// Hundreds of scans over a large picture, 20 bytes each: every one costs a pass over it.
#[test]
fn i05_jpeg_of_many_scans() {
    let small = picture("jpeg-progressive.jpg");
    let scan = small.windows(2).position(|pair| pair == [0xFF, 0xDA]).unwrap();
    let length = usize::from(u16::from_be_bytes([small[scan + 2], small[scan + 3]]));
    let header = &small[scan..scan + 2 + length];
    let mut bytes = jpeg_claiming(small[..scan].to_vec(), 6000, 6000);
    for _ in 0..480 {
        bytes.extend(header);
        bytes.extend([0; 8]);
    }
    bytes.extend([0xFF, 0xD9]);
    let start = Instant::now();
    let _ = Image::decode(&bytes);
    assert!(start.elapsed() < HANG, "{:?}", start.elapsed());
}

/// Text and colour profiles that unpack to 100 MB.
#[test]
fn i06_compressed_text_and_profiles() {
    let bomb = zlib_bomb(100);
    let bodies = [
        (b"zTXt", [b"Comment\0\0", &bomb[..]].concat()),
        (b"iTXt", [b"Comment\0\x01\0\0\0", &bomb[..]].concat()),
        (b"iCCP", [b"profile\0\0", &bomb[..]].concat()),
    ];
    for (name, body) in bodies {
        let line = chunk(b"IDAT", &zlib(&[0, 9, 9, 9]));
        let file = png(&[png_header(1, 1, 2), chunk(name, &body), line]);
        let (image, held) = peak(|| Image::decode(&file));
        assert!(held < 4 * MEGABYTE, "{held} bytes held");
        assert_eq!(image.unwrap().pixels(), [9, 9, 9]);
    }
}

/// Frames after the first are not looked at, however many or broken they are.
#[test]
fn i07_gif_of_many_frames() {
    let mut bytes = gif_header(1, 1);
    bytes.extend(gif_frame(0, 0, 1, 1, 1));
    for _ in 0..10_000 {
        bytes.extend(gif_frame(0, 0, 1, 1, 0));
    }
    bytes.extend([0x2C, 0xFF, 0xFF]);
    let (image, held) = peak(|| Image::decode(&bytes).unwrap());
    assert_eq!(image.pixels(), [255; 3]);
    assert!(held < MEGABYTE, "{held} bytes held");
}

/// A frame that lies outside of its screen, or is larger than it, or claims 4 gigapixels.
#[test]
fn i07_gif_frames_that_do_not_fit() {
    let file = |left, top, width, height| {
        let mut bytes = gif_header(2, 2);
        bytes.extend(gif_frame(left, top, width, height, 1));
        bytes.push(0x3B);
        bytes
    };
    for (left, top) in [(100, 0), (0, 100), (2, 2), (65_535, 65_535)] {
        assert_eq!(Image::decode(&file(left, top, 1, 1)).unwrap().pixels(), [0; 12]);
    }
    assert!(Image::decode(&file(0, 0, 3, 3)).is_err());
    let (result, held) = peak(|| kind(&file(0, 0, 65_535, 65_535)));
    assert!(result.is_some());
    assert!(held < MEGABYTE, "{held} bytes held");
    let mut empty = gif_header(2, 2);
    empty.push(0x3B);
    assert_eq!(kind(&empty), Some(ErrorKind::ImageDecode));
}

/// Of animations the first frame counts.
#[test]
fn i08_animated_png_and_webp() {
    let frame = |number: u32, width: u32| {
        let mut body: Vec<u8> =
            [number, width, 1, 0, 0].iter().flat_map(|v| v.to_be_bytes()).collect();
        body.extend([0, 1, 0, 10, 0, 0]);
        chunk(b"fcTL", &body)
    };
    let file = |second: u32| {
        let blue = [&2u32.to_be_bytes()[..], &zlib(&[0, 0, 0, 255])].concat();
        png(&[
            png_header(1, 1, 2),
            chunk(b"acTL", &[0, 0, 0, 2, 0, 0, 0, 0]),
            frame(0, 1),
            chunk(b"IDAT", &zlib(&[0, 255, 0, 0])),
            frame(1, second),
            chunk(b"fdAT", &blue),
        ])
    };
    assert_eq!(Image::decode(&file(1)).unwrap().pixels(), [255, 0, 0]);
    // A second frame beyond the picture must not be drawn anywhere.
    if let Ok(image) = Image::decode(&file(u32::MAX)) {
        assert_eq!(image.pixels(), [255, 0, 0]);
    }
    for name in ["webp-animated.webp", "webp-animated-lossy.webp"] {
        Image::decode(&picture(name)).unwrap();
    }
}

/// Heights, palettes and run lengths that decoders once believed.
#[test]
fn i09_bmp_headers_that_lie() {
    refused_as_too_large(&bmp_header(60_000, 60_000, 24, 0, 0));
    for height in [6_946_848, -6_946_848] {
        let (found, held) = peak(|| kind(&bmp_header(32, height, 24, 0, 0)));
        assert!(matches!(found, Some(ErrorKind::ImageDecode | ErrorKind::ImageTooLarge)));
        assert!(held < MEGABYTE, "{held} bytes held");
    }
    for (width, height) in [(0, 0), (-5, 5), (i32::MIN, 1), (1, i32::MIN), (i32::MAX, i32::MAX)] {
        assert!(kind(&bmp_header(width, height, 24, 0, 0)).is_some(), "{width} x {height}");
    }
    for bits in [0, 1, 2, 3, 4, 8, 16, 24, 32, 64, 65_535] {
        for compression in [0, 1, 2, 3, 4, 5, 6, 13, u32::MAX] {
            for colours in [0, 1, 257, 65_536, u32::MAX] {
                let header = bmp_header(8, 8, bits, compression, colours);
                let (result, held) = peak(|| kind(&header));
                assert!(result.is_some(), "{bits} {compression} {colours}");
                assert!(held < MEGABYTE, "{bits} {compression} {colours}: {held} bytes held");
            }
        }
    }
}

/// A file is named by its content: what only looks like a picture at one end is not one.
#[test]
fn i18_polyglots() {
    let zip = [b"PK\x03\x04\x14\0\0\0".to_vec(), vec![0; 40]].concat();
    let png = png_of(2, 2, [10, 20, 30]);
    let jpeg = picture("jpeg-444.jpg");
    let plain = Image::decode(&png).unwrap();
    assert_eq!(Image::decode(&[&png[..], &zip].concat()).unwrap(), plain);
    assert_eq!(kind(&[&zip[..], &png].concat()), Some(ErrorKind::Unsupported));
    let image = Image::decode(&[&jpeg[..], &png].concat()).unwrap();
    assert_eq!(image, Image::decode(&jpeg).unwrap());
    // The other file inside of a segment: a comment that holds a whole PNG, or a JPEG's end.
    let inside = jpeg_with(&jpeg, 0xFE, &[&png[..], &[0xFF, 0xD9]].concat());
    assert_eq!(Image::decode(&inside).unwrap(), image);
}
