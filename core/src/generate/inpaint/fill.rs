//! What is put into the hole of a picture before anything is made there: the colours around it, flowing inwards.

use super::mask::Mask;

/// Widths of blurs and how often each is repeated; the picture beside the hole is put back each time.
const BLURS: [(usize, usize); 8] =
    [(512, 2), (256, 2), (128, 4), (64, 4), (33, 8), (15, 8), (5, 16), (3, 16)];

/// RGB pixels whose hole is filled.
pub(super) fn filled(pixels: &[u8], mask: &Mask) -> Vec<u8> {
    let kept = |i: usize| mask.values[i / 3] == 0;
    let mut values: Vec<f32> = pixels.iter().map(|value| f32::from(*value)).collect();
    for (width, times) in BLURS {
        for _ in 0..times {
            blur_rows(&mut values, mask.width, mask.height, width / 2);
            blur_columns(&mut values, mask.width, mask.height, width / 2);
            for (i, (value, pixel)) in values.iter_mut().zip(pixels).enumerate() {
                if kept(i) {
                    *value = f32::from(*pixel);
                }
            }
        }
    }
    values.iter().map(|value| value.round().clamp(0.0, 255.0) as u8).collect()
}

/// The mean of each value and `radius` values on both sides in its row; the border is repeated.
fn blur_rows(values: &mut [f32], width: usize, height: usize, radius: usize) {
    let mut line = vec![0.0; width];
    for y in 0..height {
        for channel in 0..3 {
            let place = |x: usize| (y * width + x) * 3 + channel;
            (0..width).for_each(|x| line[x] = values[place(x)]);
            blurred(&line, radius, |x, mean| values[place(x)] = mean);
        }
    }
}

fn blur_columns(values: &mut [f32], width: usize, height: usize, radius: usize) {
    let mut line = vec![0.0; height];
    for x in 0..width {
        for channel in 0..3 {
            let place = |y: usize| (y * width + x) * 3 + channel;
            (0..height).for_each(|y| line[y] = values[place(y)]);
            blurred(&line, radius, |y, mean| values[place(y)] = mean);
        }
    }
}

/// Gives the means of a line by a sum that slides along it.
fn blurred(line: &[f32], radius: usize, mut give: impl FnMut(usize, f32)) {
    let last = line.len() as isize - 1;
    let at = |i: isize| f64::from(line[i.clamp(0, last) as usize]);
    let radius = radius as isize;
    let mut sum: f64 = (-radius..=radius).map(at).sum();
    let count = (2 * radius + 1) as f64;
    for i in 0..=last {
        give(i as usize, (sum / count) as f32);
        sum += at(i + radius + 1) - at(i - radius);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_take_the_colours_around_them() {
        let (width, height) = (24, 8);
        // Red on the left, blue on the right, and a black hole between them.
        let mut mask = Mask::none(width, height);
        let mut pixels = Vec::new();
        for i in 0..width * height {
            let x = i % width;
            if (8..16).contains(&x) {
                mask.values[i] = 255;
            }
            pixels.extend(match x {
                0..8 => [200, 0, 0],
                8..16 => [0, 0, 0],
                _ => [0, 0, 200],
            });
        }
        let filled = filled(&pixels, &mask);
        for (i, pixel) in filled.as_chunks::<3>().0.iter().enumerate() {
            match i % width {
                x @ (0..8 | 16..) => assert_eq!(pixel[..], pixels[i * 3..i * 3 + 3], "{x}"),
                8 => assert!(pixel[0] > 150 && pixel[2] < 60, "{pixel:?}"),
                15 => assert!(pixel[2] > 150 && pixel[0] < 60, "{pixel:?}"),
                _ => assert!(u32::from(pixel[0]) + u32::from(pixel[2]) > 150, "{pixel:?}"),
            }
        }
    }

    #[test]
    fn means_slide_along_lines() {
        let mut found = Vec::new();
        blurred(&[0.0, 3.0, 6.0], 1, |_, mean| found.push(mean));
        assert_eq!(found, [1.0, 3.0, 5.0]);
        found.clear();
        blurred(&[5.0], 100, |_, mean| found.push(mean));
        assert_eq!(found, [5.0]);
    }
}
