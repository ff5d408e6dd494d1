//! The sizes of pictures that SDXL was trained with, as Fooocus lists them.

use crate::error::{Error, Result};

/// Width and height of each, from tall to wide. About a megapixel each.
pub const ASPECT_RATIOS: &[(usize, usize)] = &[
    (704, 1408),
    (704, 1344),
    (768, 1344),
    (768, 1280),
    (832, 1216),
    (832, 1152),
    (896, 1152),
    (896, 1088),
    (960, 1088),
    (960, 1024),
    (1024, 1024),
    (1024, 960),
    (1088, 960),
    (1088, 896),
    (1152, 896),
    (1152, 832),
    (1216, 832),
    (1280, 768),
    (1344, 768),
    (1344, 704),
    (1408, 704),
    (1472, 704),
    (1536, 640),
    (1600, 640),
    (1664, 576),
    (1728, 576),
];

/// Width and height, from `1152*896`, `1152×896` or `1152x896`. Sizes that are not in the list are sizes too.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if it is none.
pub fn parse_aspect_ratio(text: &str) -> Result<(usize, usize)> {
    let sides = text.split_once(['*', '×', 'x', 'X']);
    let side = |text: &str| text.trim().parse().ok().filter(|side| *side > 0);
    sides.and_then(|(width, height)| side(width).zip(side(height))).ok_or_else(|| {
        let message = format!("`{text}` is no size; expected WIDTH*HEIGHT");
        Error::invalid_input(message).with("field", "size")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_notation() {
        for text in ["1152*896", "1152×896", "1152x896", " 1152 X 896 "] {
            assert_eq!(parse_aspect_ratio(text).unwrap(), (1152, 896));
        }
        for text in ["", "1152", "*", "0*5", "-1*5", "a*b", "1*2*3"] {
            let error = parse_aspect_ratio(text).unwrap_err().to_string();
            assert!(error.contains("field=size"), "{error}");
        }
    }

    #[test]
    fn every_size_of_the_list_can_be_generated() {
        assert_eq!(ASPECT_RATIOS.len(), 26);
        assert!(ASPECT_RATIOS.contains(&super::super::recipe::SIZE));
        for (width, height) in ASPECT_RATIOS {
            assert!(width % 64 == 0 && height % 64 == 0);
        }
    }
}
