//! The embedded edit model does what it is told, on pictures that it was not trained with: colours are
//! measured where the picture's author says what must be there.
#![cfg(feature = "demo")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use tagbrush::{Control, EditOptions, EditPipeline, EditRequest, Image, LoadOptions, Precision};

#[derive(Deserialize)]
struct Case {
    prompt: String,
    regions: Vec<Region>,
    /// How much colour may be left.
    largest_chroma: Option<f64>,
}

/// A rectangle as parts of width and height: left, top, right, bottom.
#[derive(Deserialize)]
struct Region {
    r#box: [f64; 4],
    colour: [f64; 3],
    tolerance: f64,
}

fn samples() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("demo/edit/samples")
}

/// Picture and instruction, and what must be true then.
fn cases() -> Vec<(EditRequest, String, Case)> {
    let text = std::fs::read_to_string(samples().join("expected.json")).unwrap();
    let all: BTreeMap<String, Vec<Case>> = serde_json::from_str(&text).unwrap();
    let cases = all.into_iter().flat_map(|(file, cases)| {
        cases.into_iter().map(move |case| {
            let request = EditRequest::new(samples().join(&file), &case.prompt);
            (request, format!("{file}: {}", case.prompt), case)
        })
    });
    cases.collect()
}

/// The mean colour of a rectangle.
fn mean(image: &Image, [left, top, right, bottom]: [f64; 4]) -> [f64; 3] {
    let (width, height) = (image.width() as usize, image.height() as usize);
    let range = |from: f64, to: f64, side: usize| {
        (from * side as f64) as usize..((to * side as f64).ceil() as usize).min(side)
    };
    let mut sum = [0.0; 3];
    let mut count = 0.0;
    for y in range(top, bottom, height) {
        for x in range(left, right, width) {
            let at = 3 * (y * width + x);
            for (sum, value) in sum.iter_mut().zip(&image.pixels()[at..at + 3]) {
                *sum += f64::from(*value);
            }
            count += 1.0;
        }
    }
    sum.map(|sum| sum / count)
}

/// What is not as it should be.
fn faults(image: &Image, case: &Case) -> Vec<String> {
    let mut faults = Vec::new();
    for region in &case.regions {
        let found = mean(image, region.r#box);
        let off = found.iter().zip(&region.colour).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        if off > region.tolerance {
            faults.push(format!("{:?} is {found:.0?}, not {:?}", region.r#box, region.colour));
        }
    }
    if let Some(most) = case.largest_chroma {
        let chroma =
            |pixel: &[u8]| f64::from(pixel.iter().max().unwrap() - pixel.iter().min().unwrap());
        let pixels = image.pixels().chunks(3);
        let mean = pixels.clone().map(chroma).sum::<f64>() / pixels.len() as f64;
        if mean > most {
            faults.push(format!("the mean chroma is {mean:.0}"));
        }
    }
    faults
}

#[test]
fn instructions_are_followed_in_both_languages_and_precisions() {
    let cases = cases();
    assert!(cases.len() >= 20);
    let requests: Vec<_> = cases.iter().map(|(request, ..)| request.clone()).collect();
    for precision in [Precision::F32, Precision::Bf16] {
        let options = LoadOptions::default().precision(precision);
        let pipeline = EditPipeline::load("demo", &options).unwrap();
        let options = EditOptions::default().seed(0);
        let made = pipeline.edit_batch(&requests, &options, &Control::new()).unwrap();
        let mut failures = Vec::new();
        for ((_, what, case), made) in cases.iter().zip(made) {
            let faults = faults(&made.unwrap().image, case);
            if !faults.is_empty() {
                failures.push(format!("{what}: {}", faults.join("; ")));
            }
        }
        assert!(failures.is_empty(), "{precision}:\n{}", failures.join("\n"));
    }
}

#[test]
fn what_is_measured_can_fail() {
    let cases = cases();
    // The pictures as they are fail, since nothing was changed in them.
    for (_, what, case) in &cases {
        let file = what.split(':').next().unwrap();
        let untouched = Image::open(samples().join(file)).unwrap();
        let rgb =
            Image::from_rgb8(untouched.width(), untouched.height(), untouched.pixels().to_vec());
        assert!(!faults(&rgb.unwrap(), case).is_empty(), "{what}");
    }
}
