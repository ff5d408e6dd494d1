//! The embedded model that generates draws what it is asked for: the pixels of every colour are found, and
//! their form is measured.
#![cfg(feature = "demo")]

use tagbrush::{
    Control, GenerateOptions, GeneratePipeline, GenerateRequest, Image, LoadOptions, Precision,
};

const SIDE: usize = 64;
/// Variants of every prompt, and how many of all pictures must be right: the model is right in more, but
/// which ones differs from machine to machine, where sums are rounded otherwise.
const VARIANTS: usize = 4;
const RIGHT: f64 = 0.85;

const WHITE: [f32; 3] = [252.0, 252.0, 252.0];
const BLACK: [f32; 3] = [18.0, 18.0, 22.0];
const RED: [f32; 3] = [216.0, 52.0, 56.0];
const ORANGE: [f32; 3] = [242.0, 140.0, 44.0];
const YELLOW: [f32; 3] = [250.0, 214.0, 72.0];
const GREEN: [f32; 3] = [72.0, 172.0, 96.0];
const BLUE: [f32; 3] = [58.0, 122.0, 222.0];
const PURPLE: [f32; 3] = [128.0, 78.0, 182.0];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Circle,
    Square,
    Triangle,
}
use Form::{Circle, Square, Triangle};

/// A prompt, the background, and the shapes that must be seen.
struct Case(&'static str, [f32; 3], &'static [(Form, [f32; 3])]);

const CASES: &[Case] = &[
    Case("a red circle on a white background", WHITE, &[(Circle, RED)]),
    Case("a blue square", WHITE, &[(Square, BLUE)]),
    Case("a yellow triangle on black", BLACK, &[(Triangle, YELLOW)]),
    Case("a green background with a purple square", GREEN, &[(Square, PURPLE)]),
    Case("蓝色背景上的白色圆形", BLUE, &[(Circle, WHITE)]),
    Case("红色的三角形，黄色背景", YELLOW, &[(Triangle, RED)]),
    Case("an orange circle, purple background", PURPLE, &[(Circle, ORANGE)]),
    Case("A black triangle on red.", RED, &[(Triangle, BLACK)]),
    Case("绿色方块", WHITE, &[(Square, GREEN)]),
    Case("黑色背景，橙色圆圈", BLACK, &[(Circle, ORANGE)]),
];

/// The distance of colours.
fn apart(a: [f32; 3], b: [f32; 3]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt()
}

/// What a shape with these pixels is: how much of the circle around it does it fill?
fn form(pixels: &[(usize, usize)]) -> Form {
    let count = pixels.len() as f32;
    let mean = |at: fn(&(usize, usize)) -> usize| {
        pixels.iter().map(|pixel| at(pixel) as f32).sum::<f32>() / count
    };
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let mut radii: Vec<f32> = pixels
        .iter()
        .map(|p| ((p.0 as f32 - x).powi(2) + (p.1 as f32 - y).powi(2)).sqrt() + 0.5)
        .collect();
    radii.sort_by(f32::total_cmp);
    // Without the very last ones, which may be specks.
    let radius = radii[radii.len() * 99 / 100];
    // 1, 0.64 and 0.4 of drawn ones.
    match count / (std::f32::consts::PI * radius * radius) {
        part if part > 0.82 => Circle,
        part if part > 0.55 => Square,
        _ => Triangle,
    }
}

/// What is not as it should be.
fn faults(image: &Image, Case(_, ground, shapes): &Case) -> Vec<String> {
    assert_eq!((image.width() as usize, image.height() as usize), (SIDE, SIDE));
    let colours: Vec<_> = [*ground].into_iter().chain(shapes.iter().map(|(_, c)| *c)).collect();
    let mut places = vec![Vec::new(); colours.len()];
    for (i, pixel) in image.pixels().chunks(3).enumerate() {
        let pixel = [pixel[0], pixel[1], pixel[2]].map(f32::from);
        let gaps = colours.iter().map(|colour| apart(pixel, *colour));
        let (nearest, gap) = gaps.enumerate().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
        if gap < 60.0 {
            places[nearest].push((i % SIDE, i / SIDE));
        }
    }
    let mut faults = Vec::new();
    let part = |count: usize| count as f32 / (SIDE * SIDE) as f32;
    if part(places[0].len()) < 0.4 {
        faults.push(format!("the background is {:.2} of the picture", part(places[0].len())));
    }
    for ((wanted, colour), pixels) in shapes.iter().zip(&places[1..]) {
        if !(0.03..0.4).contains(&part(pixels.len())) {
            faults.push(format!("{colour:?} is {:.2} of the picture", part(pixels.len())));
        } else if form(pixels) != *wanted {
            faults.push(format!("{colour:?} is a {:?}, not a {wanted:?}", form(pixels)));
        }
    }
    faults
}

#[test]
fn prompts_are_followed_in_both_languages_and_precisions() {
    let requests: Vec<_> =
        CASES.iter().map(|Case(prompt, ..)| GenerateRequest::new(*prompt)).collect();
    for precision in [Precision::F32, Precision::Bf16] {
        let options = LoadOptions::default().precision(precision);
        let pipeline = GeneratePipeline::load("demo", &options).unwrap();
        assert_eq!(pipeline.default_size(), (SIDE, SIDE));
        let options = GenerateOptions::default().n(VARIANTS).seed(0);
        let made = pipeline.generate_batch(&requests, &options, &Control::new()).unwrap();
        let mut failures = Vec::new();
        for (i, made) in made.iter().enumerate() {
            let case = &CASES[i / VARIANTS];
            let faults = faults(&made.as_ref().unwrap().image, case);
            if !faults.is_empty() {
                failures.push(format!("{} ({}): {}", case.0, i % VARIANTS, faults.join("; ")));
            }
        }
        println!("{precision}: {} of {} are wrong", failures.len(), made.len());
        let most = ((1.0 - RIGHT) * made.len() as f64) as usize;
        assert!(failures.len() <= most, "{precision}:\n{}", failures.join("\n"));
    }
}

#[test]
fn what_is_measured_can_fail() {
    // A picture of one prompt is wrong for every other one.
    let pipeline = GeneratePipeline::load("demo", &LoadOptions::default()).unwrap();
    let options = GenerateOptions::default().seed(0);
    let made = pipeline.generate(&GenerateRequest::new(CASES[0].0), &options).unwrap();
    for case in &CASES[1..] {
        assert!(!faults(&made[0].image, case).is_empty(), "{}", case.0);
    }
}
