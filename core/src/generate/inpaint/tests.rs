//! Areas of pictures: what is cut out, and what is put back.

use super::*;
use crate::error::ErrorKind;

/// Of SDXL.
const CLASS: usize = 1024;

/// A picture whose pixels say where they are.
fn picture(width: u32, height: u32) -> Image {
    let pixels: Vec<u8> = (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| [(x % 251) as u8, (y % 251) as u8, 90]))
        .collect();
    Image::from_rgb8(width, height, pixels).unwrap()
}

/// White between these columns and rows.
fn mask(width: u32, height: u32, columns: [u32; 2], rows: [u32; 2]) -> Image {
    let is_white =
        |x: u32, y: u32| (columns[0]..columns[1]).contains(&x) && (rows[0]..rows[1]).contains(&y);
    let pixels: Vec<u8> = (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| [if is_white(x, y) { 255 } else { 0 }; 3]))
        .collect();
    Image::from_rgb8(width, height, pixels).unwrap()
}

fn options(field: f64) -> GenerateOptions {
    GenerateOptions { inpaint_field: field, ..Default::default() }
}

#[test]
fn areas_are_around_masks_and_as_large_as_they_are_asked_for() {
    let (image, mask) = (picture(400, 200), mask(400, 200, [100, 140], [50, 60]));
    let place = |field| {
        let area =
            Area::new(&image, Some(&mask), Outpaint::default(), &options(field), CLASS).unwrap();
        (area.place, area.size)
    };
    // Half of the longer side is 20, and 1.15 times that 23.
    assert_eq!(place(0.0), ([32, 78, 97, 143], (1024, 1024)));
    assert_eq!(place(1.0), ([0, 200, 0, 400], (1472, 704)));
    let small = Area::new(&image, Some(&mask), Outpaint::default(), &options(0.0), 64).unwrap();
    assert_eq!(small.size, (64, 64), "of a model that is good at that");
    let ([top, bottom, left, right], _) = place(0.5);
    assert_eq!((bottom - top, right - left), (100, 200));
    assert!(top <= 50 && bottom >= 60 && left <= 100 && right >= 140);
    // A corner has room on two sides only.
    for (columns, rows) in [([0, 8], [0, 8]), ([392, 400], [192, 200]), ([0, 400], [0, 200])] {
        let [top, bottom, left, right] =
            around([rows[0], rows[1], columns[0], columns[1]], (200, 400), 0.618);
        assert!(top <= rows[0] && bottom >= rows[1] && left <= columns[0] && right >= columns[1]);
        assert!(bottom <= 200 && right <= 400);
        assert!(bottom - top >= 124 && right - left >= 248, "{top} {bottom} {left} {right}");
    }
}

#[test]
fn what_is_not_masked_stays_to_the_bit() {
    let (image, mask) = (picture(300, 300), mask(300, 300, [100, 200], [100, 200]));
    let area = Area::new(&image, Some(&mask), Outpaint::default(), &options(0.0), CLASS).unwrap();
    let (width, height) = area.size();
    let made =
        Image::from_rgb8(width as u32, height as u32, vec![255; width * height * 3]).unwrap();
    let whole = area.paste(&made).unwrap();
    assert_eq!((whole.width(), whole.height()), (300, 300));
    let at = |image: &Image, x: usize, y: usize| image.pixels()[(y * 300 + x) * 3..][..3].to_vec();
    for (x, y) in [(0, 0), (299, 299), (60, 150), (150, 240)] {
        assert_eq!(at(&whole, x, y), at(&image, x, y), "{x}, {y}");
    }
    assert_eq!(at(&whole, 150, 150), [255; 3]);
    // At the edge both are there.
    let edge = at(&whole, 97, 150)[0];
    assert!(edge > at(&image, 97, 150)[0] && edge < 255, "{edge}");
}

#[test]
fn pictures_grow_at_their_sides() {
    let image = picture(200, 100);
    let outpaint = Outpaint { left: 60, top: 0, right: 0, bottom: 30 };
    let area = Area::new(&image, None, outpaint, &options(0.0), CLASS).unwrap();
    assert_eq!((area.mask.width, area.mask.height), (260, 130));
    assert_eq!(area.place, [0, 130, 0, 260]);
    let at = |x: usize, y: usize| (area.mask.values[y * 260 + x], area.pixels[(y * 260 + x) * 3]);
    assert_eq!(at(0, 0), (255, 0));
    assert_eq!(at(60, 99), (0, 0));
    assert_eq!(at(100, 50), (0, 40));
    assert_eq!(at(259, 129), (255, 199));
    let Seen { pixels, masked, mask } = area.start(1.0, (8, CLASS), &|_, _| Ok(None)).unwrap();
    let (width, height) = area.size();
    assert_eq!((pixels.len(), mask.len()), (width * height * 3, width * height / 64));
    assert_eq!((mask[0], mask[mask.len() - 1]), (1.0, 1.0));
    assert_eq!((masked.len(), masked[0]), (pixels.len(), 0.0));
    let inside = (width * height / 2 + width / 2) * 3;
    assert_eq!(masked[inside], f32::from(pixels[inside]) / 127.5 - 1.0);
    // An area that is small goes through what makes it larger.
    let larger = |_: &[u8], (width, height): (usize, usize)| {
        Ok(Some((vec![7; width * height * 12], (width * 2, height * 2))))
    };
    let seen = area.start(0.5, (8, CLASS), &larger).unwrap();
    assert!(seen.pixels.iter().all(|value| *value == 7));
    assert!(area.start(0.5, (8, 64), &larger).unwrap().pixels.iter().any(|value| *value != 7));
    assert_eq!(mask[width / 8 / 2 + width / 8], 0.0);
}

#[test]
fn what_makes_no_area_is_refused_by_name() {
    let image = picture(64, 64);
    let none = Outpaint::default();
    for (mask, outpaint, field) in [
        (Some(mask(64, 64, [0, 0], [0, 0])), none, "field=mask"),
        (Some(mask(64, 63, [0, 9], [0, 9])), none, "field=mask"),
        (None, none, "field=mask"),
        (None, Outpaint { left: 1 << 20, ..none }, "field=outpaint"),
        (None, Outpaint { left: usize::MAX, ..none }, "field=outpaint"),
    ] {
        let error = Area::new(&image, mask.as_ref(), outpaint, &options(0.5), CLASS).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(field), "{error}");
    }
}

fn pipeline() -> crate::GeneratePipeline {
    let model = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/goldens/generate-pipeline/model");
    let options = crate::LoadOptions::default().precision(crate::Precision::F32);
    crate::GeneratePipeline::load(model.to_str().unwrap(), &options).unwrap()
}

#[test]
fn parts_are_made_among_other_pictures() {
    let pipeline = pipeline();
    let options = GenerateOptions::default().size(64, 64).steps(1).guidance_scale(1.0);
    let (image, hole) = (picture(96, 96), mask(96, 96, [30, 60], [30, 60]));
    let plain = crate::GenerateRequest::new("a cat").seed(3);
    let part = plain.clone().image(image.clone()).mask(hole);
    let requests = [plain.clone(), part.clone(), plain.clone()];
    let made = pipeline.generate_batch(&requests, &options, &crate::Control::new()).unwrap();
    let images: Vec<_> = made.into_iter().map(|made| made.unwrap().image).collect();
    let alone = |request: &crate::GenerateRequest| {
        pipeline.generate(request, &options).unwrap().remove(0).image
    };
    assert!(images[0] == images[2] && images[0] == alone(&plain));
    assert!(images[1] == alone(&part));
    assert_eq!((images[1].width(), images[1].height()), (96, 96));
    let changed = |x: usize, y: usize| {
        let place = (y * 96 + x) * 3;
        images[1].pixels()[place..place + 3] != image.pixels()[place..place + 3]
    };
    // Soft edges reach 32 pixels.
    let inside = (30..60).flat_map(|y| (30..60).map(move |x| (x, y)));
    assert!(inside.filter(|(x, y)| changed(*x, *y)).count() > 800);
    assert!(!(0..96).any(|x| changed(x, 95) || changed(95, x)));
    // A request without a picture has no part, and fails alone.
    let wrong = crate::GenerateRequest { image: None, ..part };
    let made =
        pipeline.generate_batch(&[wrong, plain.clone()], &options, &crate::Control::new()).unwrap();
    assert!(made[0].as_ref().unwrap_err().to_string().contains("field=mask"));
    assert!(made[1].as_ref().unwrap().image == images[0]);
}

/// Where all is made anew, nothing is left of masks: it is what starting from the picture gives.
#[test]
fn a_mask_of_everything_is_no_mask() {
    let pipeline = pipeline();
    let image = picture(1024, 1024);
    let options = GenerateOptions::default()
        .size(1024, 1024)
        .steps(2)
        .guidance_scale(1.0)
        .denoise(0.7)
        .inpaint(0.7, 1.0);
    let from = crate::GenerateRequest::new("a cat").seed(3).image(image);
    let part = from.clone().mask(mask(1024, 1024, [0, 1024], [0, 1024]));
    let made = |request| pipeline.generate(&request, &options).unwrap().remove(0).image;
    assert!(made(from) == made(part));
}
