//! Rare kinds of pictures that must work, formats that must be named, and extreme shapes.

use libjpeg_turbo_rs::{Encoder, PixelFormat};
use tagbrush::{Control, DecodeOptions, ErrorKind, Image, Input, Tagger};

use crate::build::*;

fn demo() -> Tagger {
    Tagger::load("demo", &Default::default()).unwrap()
}

fn scores(tagger: &Tagger, image: &Image) -> Vec<f32> {
    tagger.scores([image], &Control::new()).remove(0).unwrap()
}

/// HDR and TIFF once ended in allocations of whatever their headers claimed.
#[test]
fn i10_disabled_formats() {
    let hdr = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1 +X 4294967295\n";
    let tiff = b"II*\0\x08\0\0\0\x01\0\0\x01\x04\0\x01\0\0\0\xFF\xFF\xFF\x7F\0\0\0\0";
    for bytes in [&hdr[..], tiff] {
        assert_eq!(Image::decode(bytes).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}

/// Kinds that other decoders refuse or get wrong. What they must look like is in the goldens.
#[test]
fn i11_rare_kinds_decode() {
    for name in [
        "jpeg-cmyk.jpg",
        "jpeg-ycck.jpg",
        "jpeg-progressive.jpg",
        "jpeg-restarts.jpg",
        "grey16.png",
        "grey-alpha16.png",
        "palette-trns.png",
        "grey1.png",
        "interlaced-rgb.png",
        "bmp16-565.bmp",
        "webp-lossless.webp",
    ] {
        let image = Image::decode(&picture(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let channels = if image.has_alpha() { 4 } else { 3 };
        assert_eq!(image.pixels().len(), (image.width() * image.height()) as usize * channels);
    }
}

/// Arithmetic coding changes how a JPEG is packed, not what it holds.
#[test]
fn i11_arithmetic_jpeg() {
    let pixels: Vec<u8> = (0..24 * 16 * 3).map(|i: u32| (i * i % 251) as u8).collect();
    let encode = |arithmetic, progressive| {
        let encoder = Encoder::new(&pixels, 24, 16, PixelFormat::Rgb).quality(90);
        encoder.arithmetic(arithmetic).progressive(progressive).encode().unwrap()
    };
    let plain = Image::decode(&encode(false, false)).unwrap();
    for progressive in [false, true] {
        let bytes = encode(true, progressive);
        assert_eq!(Image::decode(&bytes).unwrap(), plain, "progressive: {progressive}");
    }
}

#[test]
fn i11_jpeg_of_12_bits_is_refused() {
    let mut bytes = picture("jpeg-444.jpg");
    let at = frame_header(&bytes) + 3;
    bytes[at] = 12;
    let kind = Image::decode(&bytes).unwrap_err().kind();
    assert_eq!(kind, ErrorKind::Unsupported);
}

/// Where the pixel `(x, y)` of a picture `w` x `h` is taken from when it is turned.
fn source(orientation: u16, w: u32, h: u32, x: u32, y: u32) -> (u32, u32) {
    match orientation {
        2 => (w - 1 - x, y),
        3 => (w - 1 - x, h - 1 - y),
        4 => (x, h - 1 - y),
        5 => (y, x),
        6 => (y, h - 1 - x),
        7 => (w - 1 - y, h - 1 - x),
        8 => (w - 1 - y, x),
        _ => (x, y),
    }
}

fn turned(image: &Image, orientation: u16) -> Image {
    let (w, h) = (image.width(), image.height());
    let (width, height) = if (5..=8).contains(&orientation) { (h, w) } else { (w, h) };
    let bytes = if image.has_alpha() { 4 } else { 3 };
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let (x, y) = source(orientation, w, h, x, y);
            let at = (y * w + x) as usize * bytes;
            pixels.extend(&image.pixels()[at..at + bytes]);
        }
    }
    match image.has_alpha() {
        true => Image::from_rgba8(width, height, pixels).unwrap(),
        false => Image::from_rgb8(width, height, pixels).unwrap(),
    }
}

/// The reference taggers see pictures as stored, so that is the default; turning is an option.
#[test]
fn i12_orientations() {
    let jpeg = picture("jpeg-422-odd.jpg");
    let lossless = picture("webp-lossless.webp");
    let plain = [Image::decode(&jpeg).unwrap(), Image::decode(&lossless).unwrap()];
    let (width, height) = (plain[1].width() - 1, plain[1].height() - 1);
    assert_ne!(plain[0].width(), plain[0].height());
    let turn = DecodeOptions::default().apply_orientation(true);
    for value in 0..=9 {
        let exif = orientation(value);
        let mut extended = vec![0x08, 0, 0, 0];
        extended.extend(&width.to_le_bytes()[..3]);
        extended.extend(&height.to_le_bytes()[..3]);
        let chunks = [riff(b"VP8X", &extended), lossless[12..].to_vec(), riff(b"EXIF", &exif)];
        let png = png(&[
            png_header(2, 1, 2),
            chunk(b"eXIf", &exif),
            chunk(b"IDAT", &zlib(&[0, 1, 2, 3, 4, 5, 6])),
        ]);
        let two = Image::from_rgb8(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        let app1 = [b"Exif\0\0".to_vec(), exif].concat();
        for (bytes, plain) in
            [(jpeg_with(&jpeg, 0xE1, &app1), &plain[0]), (webp(&chunks), &plain[1]), (png, &two)]
        {
            assert_eq!(&Image::decode(&bytes).unwrap(), plain, "{value}");
            let found = Image::decode_with(&bytes, &turn).unwrap();
            assert!(found == turned(plain, value), "orientation {value} of {plain:?}: {found:?}");
        }
    }
}

/// A profile does not change the numbers: the reference reads them as they are.
#[test]
fn i13_colour_profiles_are_not_applied() {
    let jpeg = picture("jpeg-444.jpg");
    let profile = [&b"ICC_PROFILE\0\x01\x01"[..], &[0x5A; 500]].concat();
    let plain = Image::decode(&jpeg).unwrap();
    assert_eq!(Image::decode(&jpeg_with(&jpeg, 0xE2, &profile)).unwrap(), plain);
    let body = [b"P3\0\0".to_vec(), zlib(&[0x5A; 500])].concat();
    let pixels = chunk(b"IDAT", &zlib(&[0, 7, 8, 9]));
    let file = png(&[png_header(1, 1, 2), chunk(b"iCCP", &body), pixels]);
    assert_eq!(Image::decode(&file).unwrap().pixels(), [7, 8, 9]);
}

/// One pixel, and lines that a padded square would turn into gigabytes or minutes.
#[test]
fn i14_extreme_shapes_are_tagged() {
    let tagger = demo();
    for (width, height) in [(1, 1), (1, 20_000), (20_000, 1), (1, 65_535), (65_535, 1), (3, 40_000)]
    {
        let image = Image::decode(&png_of(width, height, [250, 40, 40])).unwrap();
        let start = std::time::Instant::now();
        let scores = scores(&tagger, &image);
        assert_eq!(scores.len(), tagger.labels().len());
        assert!(start.elapsed().as_secs() < 20, "{width} x {height}: {:?}", start.elapsed());
    }
}

/// Under full transparency there can be anything; it must not show.
#[test]
fn i15_transparency_is_laid_over_white() {
    let tagger = demo();
    let white = Image::from_rgb8(20, 20, vec![255; 1200]).unwrap();
    let hidden = Image::from_rgba8(20, 20, [200, 10, 90, 0].repeat(400)).unwrap();
    let shown = Image::from_rgba8(20, 20, [200, 10, 90, 255].repeat(400)).unwrap();
    assert_eq!(scores(&tagger, &hidden), scores(&tagger, &white));
    assert_ne!(scores(&tagger, &shown), scores(&tagger, &white));
}

/// Formats that people have are named, so that they know what to convert.
#[test]
fn i17_other_formats_are_named() {
    for (bytes, name) in [
        (&b"<svg xmlns='http://www.w3.org/2000/svg'/>"[..], "SVG"),
        (b"\n  <?xml version='1.0'?><svg/>", "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "HEIC"),
        (b"\0\0\0\x1Cftypavif\0\0\0\0", "AVIF"),
        (b"\xFF\x0A\xFA\x1F", "JPEG XL"),
        (b"\0\0\0\x0CJXL \r\n\x87\n", "JPEG XL"),
        (b"PK\x03\x04\x14\0", "ZIP"),
        (b"8BPS\0\x01", "PSD"),
    ] {
        let error = Image::decode(bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("supported are JPEG, PNG"), "{text}");
    }
}

/// Copies of one picture, as files and decoded, in batches of every size.
#[test]
fn i20_copies_of_one_picture_have_the_same_scores() {
    let tagger = demo();
    let bytes = picture("jpeg-420-odd.jpg");
    let expected = scores(&tagger, &Image::decode(&bytes).unwrap());
    for batch in [1, 2, 5, 16] {
        let tagger = tagger.with_batch_size(batch).unwrap();
        let copies = (0..11).map(|_| Input::Bytes(bytes.clone()));
        for found in tagger.scores(copies, &Control::new()) {
            assert_eq!(found.unwrap(), expected);
        }
    }
}
