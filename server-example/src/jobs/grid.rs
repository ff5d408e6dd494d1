//! All pictures of a job in one, side by side.

use tagbrush::{Error, ErrorKind, Image, Result};

/// The longest side of a grid: that of the largest WebP.
pub(crate) const MAX_SIDE: usize = 16_383;

/// Columns and rows of a grid of so many pictures: as near to a square as it gets, and rather wide than high.
pub(crate) fn layout(pictures: usize) -> (usize, usize) {
    let columns = (1..=pictures).find(|side| side * side >= pictures).unwrap_or(1);
    (columns, pictures.div_ceil(columns))
}

/// Pictures of one size, row by row; places without one are black.
pub(super) fn of(pictures: &[Image]) -> Result<Image> {
    let internal = |message| Error::new(ErrorKind::Internal, message);
    let first = pictures.first().ok_or_else(|| internal("a grid of no pictures"))?;
    let (width, height) = (first.width() as usize, first.height() as usize);
    let is_equal = |other: &Image| {
        (other.width(), other.height(), other.has_alpha())
            == (first.width(), first.height(), first.has_alpha())
    };
    if !pictures.iter().all(is_equal) {
        return Err(internal("a grid of pictures that are not of one size"));
    }
    let (columns, rows) = layout(pictures.len());
    let black: &[u8] = if first.has_alpha() { &[0, 0, 0, 255] } else { &[0, 0, 0] };
    let row = width * black.len();
    let mut pixels = black.repeat(columns * width * rows * height);
    for (i, picture) in pictures.iter().enumerate() {
        let (left, top) = (i % columns * row, i / columns * height);
        for (y, from) in picture.pixels().chunks_exact(row).enumerate() {
            let at = (top + y) * columns * row + left;
            pixels[at..at + row].copy_from_slice(from);
        }
    }
    let (width, height) = ((columns * width) as u32, (rows * height) as u32);
    match first.has_alpha() {
        true => Image::from_rgba8(width, height, pixels),
        false => Image::from_rgb8(width, height, pixels),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_near_squares() {
        let layouts: Vec<_> = (1..=13).map(layout).collect();
        let expected = [
            (1, 1),
            (2, 1),
            (2, 2),
            (2, 2),
            (3, 2),
            (3, 2),
            (3, 3),
            (3, 3),
            (3, 3),
            (4, 3),
            (4, 3),
            (4, 3),
            (4, 4),
        ];
        assert_eq!(layouts, expected);
        assert!((1..200).all(|n| {
            let (columns, rows) = layout(n);
            columns * rows >= n && columns * (rows - 1) < n && columns - rows <= 1
        }));
    }

    #[test]
    fn pictures_stand_row_by_row_on_black() {
        let picture = |i: u8| {
            let pixels = (0..2 * 3).flat_map(|at| [i, at, 9]).collect::<Vec<u8>>();
            Image::from_rgb8(2, 3, pixels).unwrap()
        };
        let grid = of(&[picture(1), picture(2), picture(3)]).unwrap();
        assert_eq!((grid.width(), grid.height()), (4, 6));
        let pixel = |x: usize, y: usize| &grid.pixels()[(y * 4 + x) * 3..][..3];
        for y in 0..6 {
            for x in 0..4 {
                let number = (y / 3) * 2 + x / 2;
                let inside = (y % 3 * 2 + x % 2) as u8;
                let expected = if number < 3 { [number as u8 + 1, inside, 9] } else { [0; 3] };
                assert_eq!(pixel(x, y), expected, "{x}, {y}");
            }
        }
        let clear = Image::from_rgba8(1, 1, vec![1, 2, 3, 4]).unwrap();
        let grid = of(&[clear.clone(), clear.clone(), clear.clone()]).unwrap();
        assert_eq!(grid.pixels()[12..], [0, 0, 0, 255]);
        let other = Image::from_rgba8(2, 1, vec![0; 8]).unwrap();
        assert_eq!(of(&[clear, other]).unwrap_err().kind(), ErrorKind::Internal);
        assert!(of(&[]).is_err());
    }
}
