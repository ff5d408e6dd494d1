//! BMP with 16 bits a pixel: Pillow scales the 5 and 6 bits of a channel to 8 by `v * 255 / 31`
//! without rounding, the `image` crate with rounding.

use super::Image;
use crate::error::Result;

/// `image`, as decoded from `bytes`, with Pillow's scaling if the file has 16 bits a pixel.
pub(super) fn rescale_16_bit(bytes: &[u8], image: Image) -> Result<Image> {
    let Some(largest) = largest_values(bytes) else { return Ok(image) };
    if image.has_alpha() {
        return Ok(image);
    }
    let scale = |value: u8, largest: u32| {
        let original = (u32::from(value) * largest + 127) / 255;
        (original * 255 / largest) as u8
    };
    let rgb: Vec<u8> = image
        .pixels()
        .chunks_exact(3)
        .flat_map(|p| [0, 1, 2].map(|i| scale(p[i], largest[i])))
        .collect();
    Image::from_rgb8(image.width(), image.height(), rgb)
}

/// The largest values of red, green and blue in a file of 16 bits a pixel.
fn largest_values(bytes: &[u8]) -> Option<[u32; 3]> {
    const BIT_FIELDS: u32 = 3;
    let word =
        |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let bits = word(28)? & 0xFFFF;
    if bits != 16 {
        return None;
    }
    let masks = match word(30)? {
        BIT_FIELDS => [word(54)?, word(58)?, word(62)?],
        _ => [0x7C00, 0x03E0, 0x001F],
    };
    let largest = masks.map(|mask| mask >> mask.trailing_zeros().min(31));
    largest.iter().all(|largest| (1..=255).contains(largest)).then_some(largest)
}
