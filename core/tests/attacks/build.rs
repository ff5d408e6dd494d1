//! Builders of picture files, byte by byte, so that every field can lie.

use std::path::{Path, PathBuf};

/// A file of the goldens.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

/// The bytes of a picture of the goldens.
pub fn picture(name: &str) -> Vec<u8> {
    std::fs::read(golden("pixels").join(name)).unwrap()
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 }
        })
    })
}

/// A PNG chunk with its checksum.
pub fn chunk(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u32).to_be_bytes().to_vec();
    out.extend(name);
    out.extend(body);
    let sum = crc(&out[4..]);
    out.extend(sum.to_be_bytes());
    out
}

/// An `IHDR` of 8 bits; `colour` is PNG's number of the colour type.
pub fn png_header(width: u32, height: u32, colour: u8) -> Vec<u8> {
    let mut body = width.to_be_bytes().to_vec();
    body.extend(height.to_be_bytes());
    body.extend([8, colour, 0, 0, 0]);
    chunk(b"IHDR", &body)
}

/// A PNG of these chunks, with the signature and the end added.
pub fn png(chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    out.extend(chunks.iter().flatten());
    out.extend(chunk(b"IEND", &[]));
    out
}

/// `data` as a zlib stream of stored blocks.
pub fn zlib(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let blocks: Vec<_> = data.chunks(0xFFFF).collect();
    for (i, block) in blocks.iter().enumerate() {
        let length = block.len() as u16;
        out.push(u8::from(i + 1 == blocks.len()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(*block);
    }
    let (mut a, mut b) = (1u32, 0u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend((b << 16 | a).to_be_bytes());
    out
}

/// `megabytes` of zeros as a zlib stream of a thousandth of their length.
pub fn zlib_bomb(megabytes: u32) -> Vec<u8> {
    let mut file = Vec::new();
    let (width, height) = ((1 << 20) - 1, megabytes);
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_filter(png::Filter::NoFilter);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&vec![0; (width * height) as usize]).unwrap();
    writer.finish().unwrap();
    let mut at = 8;
    let mut stream = Vec::new();
    while at < file.len() {
        let length = u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize;
        if &file[at + 4..at + 8] == b"IDAT" {
            stream.extend(&file[at + 8..at + 8 + length]);
        }
        at += 12 + length;
    }
    assert!(stream.len() < megabytes as usize * 4096);
    stream
}

/// An RGB PNG of one colour.
pub fn png_of(width: u32, height: u32, rgb: [u8; 3]) -> Vec<u8> {
    let mut line = vec![0];
    line.extend(rgb.repeat(width as usize));
    let data = zlib(&line.repeat(height as usize));
    png(&[png_header(width, height, 2), chunk(b"IDAT", &data)])
}

/// A GIF screen of two colours, black and white, before its frames.
pub fn gif_header(width: u16, height: u16) -> Vec<u8> {
    let mut out = b"GIF89a".to_vec();
    out.extend(width.to_le_bytes());
    out.extend(height.to_le_bytes());
    out.extend([0x80, 0, 0, 0, 0, 0, 255, 255, 255]);
    out
}

/// A GIF frame of one pixel, whatever size it claims; `index` is its colour.
pub fn gif_frame(left: u16, top: u16, width: u16, height: u16, index: u8) -> Vec<u8> {
    let mut out = vec![0x2C];
    out.extend([left, top, width, height].iter().flat_map(|v| v.to_le_bytes()));
    // Codes of three bits: clear, the index, end.
    let codes = 4 | u16::from(index) << 3 | 5 << 6;
    out.extend([0, 2, 2]);
    out.extend(codes.to_le_bytes());
    out.push(0);
    out
}

/// A BMP header of 40 bytes with these fields, before its palette and pixels.
pub fn bmp_header(width: i32, height: i32, bits: u16, compression: u32, colours: u32) -> Vec<u8> {
    let mut out = b"BM".to_vec();
    out.extend([0, 0, 54, 40].iter().flat_map(|v: &u32| v.to_le_bytes()));
    out.extend(width.to_le_bytes());
    out.extend(height.to_le_bytes());
    out.extend([1, bits].iter().flat_map(|v| v.to_le_bytes()));
    out.extend([compression, 0, 0, 0, colours, 0].iter().flat_map(|v| v.to_le_bytes()));
    out
}

/// A RIFF chunk, padded.
pub fn riff(name: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let mut out = name.to_vec();
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(body);
    out.resize(out.len().next_multiple_of(2), 0);
    out
}

/// A WebP file of these chunks.
pub fn webp(chunks: &[Vec<u8>]) -> Vec<u8> {
    let mut body = b"WEBP".to_vec();
    body.extend(chunks.iter().flatten());
    riff(b"RIFF", &body)
}

/// Where a JPEG's frame header starts: its marker's second byte.
pub fn frame_header(jpeg: &[u8]) -> usize {
    let mut at = 2;
    loop {
        assert_eq!(jpeg[at], 0xFF);
        if matches!(jpeg[at + 1], 0xC0..=0xC2) {
            return at + 1;
        }
        at += 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
    }
}

/// The JPEG with another size in its frame header.
pub fn jpeg_claiming(mut jpeg: Vec<u8>, width: u16, height: u16) -> Vec<u8> {
    let at = frame_header(&jpeg) + 4;
    jpeg[at..at + 2].copy_from_slice(&height.to_be_bytes());
    jpeg[at + 2..at + 4].copy_from_slice(&width.to_be_bytes());
    jpeg
}

/// The JPEG with a segment right after its start.
pub fn jpeg_with(jpeg: &[u8], marker: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xFF, 0xD8, 0xFF, marker];
    out.extend((body.len() as u16 + 2).to_be_bytes());
    out.extend(body);
    out.extend(&jpeg[2..]);
    out
}

/// A TIFF block that holds nothing but an orientation, as EXIF in all formats is.
pub fn orientation(value: u16) -> Vec<u8> {
    let mut out = b"MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01".to_vec();
    out.extend(value.to_be_bytes());
    out.extend([0; 6]);
    out
}
