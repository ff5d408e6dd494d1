//! GIF: the first frame, as Pillow shows it.

use gif::{ColorOutput, DecodeOptions as GifOptions, DecodingError, MemoryLimit};

use super::Image;
use super::decode::{DecodeOptions, check_size};
use crate::error::{Error, Result};

pub(super) fn decode(bytes: &[u8], options: &DecodeOptions) -> Result<Image> {
    let mut settings = GifOptions::new();
    settings.set_color_output(ColorOutput::Indexed);
    settings.set_memory_limit(
        std::num::NonZeroU64::new(options.limits.max_pixels)
            .map_or(MemoryLimit::Unlimited, MemoryLimit::Bytes),
    );
    let mut decoder = settings.read_info(bytes).map_err(damaged)?;
    let (width, height) = (u32::from(decoder.width()), u32::from(decoder.height()));
    check_size(width, height, &options.limits)?;
    let global: Option<Vec<u8>> = decoder.global_palette().map(<[u8]>::to_vec);
    let frame = decoder
        .read_next_frame()
        .map_err(damaged)?
        .ok_or_else(|| Error::decode("the GIF has no frame"))?;
    let palette = frame.palette.as_ref().or(global.as_ref());
    let mut table: Vec<[u8; 4]> = match palette {
        Some(palette) => palette.chunks_exact(3).map(|c| [c[0], c[1], c[2], 255]).collect(),
        None => (0..=255).map(|level| [level, level, level, 255]).collect(),
    };
    table.resize(256, [0, 0, 0, 255]);
    // What the frame leaves open shows the transparent entry, or the first one.
    let open = frame.transparent.unwrap_or(0);
    if let Some(entry) = frame.transparent.and_then(|index| table.get_mut(usize::from(index))) {
        entry[3] = 0;
    }
    let mut indices = vec![open; width as usize * height as usize];
    let (left, top) = (usize::from(frame.left), usize::from(frame.top));
    let visible = usize::from(frame.width).min((width as usize).saturating_sub(left));
    let rows = frame.buffer.chunks_exact(usize::from(frame.width).max(1));
    let lines = if visible == 0 { 0 } else { (height as usize).saturating_sub(top) };
    for (y, row) in rows.enumerate().take(lines) {
        let start = (top + y) * width as usize + left;
        indices[start..start + visible].copy_from_slice(&row[..visible]);
    }
    let rgba: Vec<u8> = indices.iter().flat_map(|index| table[usize::from(*index)]).collect();
    Ok(Image::from_rgba8(width, height, rgba)?.without_opaque_alpha())
}

fn damaged(error: DecodingError) -> Error {
    Error::decode(format!("cannot decode the GIF: {error}")).caused_by(error)
}
