//! Runs an edit model for the scripts in this folder: loaded once, with pictures out of a formula.
//!
//! Arguments: a model folder, a precision, and the memory that is allowed in bytes (0: no bound).
//! The first line of the output is `ready SECONDS PEAK`. Each line of the input is a command:
//!
//! - `edit COUNT WIDTHxHEIGHT AREA STEPS SCALE [FILE]`: edits COUNT pictures of that size at once to
//!   outputs of the same size, with references of AREA pixels and guidance of SCALE. Seeds start at
//!   11. Answers `SECONDS FIRST LAST PEAK`: for everything, until the first step of the first output
//!   and until the last of the last one, and the largest resident memory since the command came. With
//!   FILE, values of all outputs are written, as little-endian `f32` from 0 to 1.
//! - `rest`: the resident memory now.
//!
//! Memory is in bytes, 0 where the system does not tell.

use std::error::Error;
use std::io::{BufRead, Write};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tagbrush::{
    Control, EditOptions, EditPipeline, EditRequest, Image, LoadOptions, OutputSize, Precision,
};

const PROMPT: &str = "Make the sky blue.";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, precision, memory] = &arguments[..] else {
        return Err("usage: edit_worker MODEL PRECISION MEMORY".into());
    };
    let mut options = LoadOptions::default().precision(precision.parse::<Precision>()?);
    options.max_memory = Some(memory.parse()?).filter(|bytes| *bytes > 0);
    let start = Instant::now();
    let pipeline = EditPipeline::load(model, &options)?;
    println!("ready {} {}", start.elapsed().as_secs_f64(), resident("VmHWM:"));
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["edit", count, size, area, steps, scale, ref file @ ..] => {
                let (width, height) = size.split_once('x').ok_or("no size")?;
                let (width, height) = (width.parse()?, height.parse()?);
                let options = EditOptions::default()
                    .seed(11)
                    .size(OutputSize::Exact(width, height))
                    .reference_area(area.parse()?)
                    .num_inference_steps(steps.parse()?)
                    .true_cfg_scale(scale.parse()?)
                    .keep_values(true);
                let requests = (0..count.parse()?)
                    .map(|number| Ok(EditRequest::new(picture(width, height, number)?, PROMPT)))
                    .collect::<Result<Vec<_>, tagbrush::Error>>()?;
                println!("{}", edit(&pipeline, &requests, &options, file.first().copied())?);
            }
            ["rest"] => println!("{}", resident("VmRSS:")),
            _ => return Err(format!("unknown command `{line}`").into()),
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}

fn edit(
    pipeline: &EditPipeline,
    requests: &[EditRequest],
    options: &EditOptions,
    file: Option<&str>,
) -> Result<String, Box<dyn Error>> {
    // Starts the high-water mark anew, where the system lets us.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let start = Instant::now();
    let steps = Arc::new(Mutex::new((None, 0.0)));
    let seen = Arc::clone(&steps);
    let control = Control::new().on_progress(move |_| {
        if let Ok(mut steps) = seen.lock() {
            let now = start.elapsed().as_secs_f64();
            *steps = (steps.0.or(Some(now)), now);
        }
    });
    let mut bytes = Vec::new();
    for made in pipeline.edit_batch(requests, options, &control)? {
        let values = made?.values.ok_or("no values")?;
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    let seconds = start.elapsed().as_secs_f64();
    let peak = resident("VmHWM:");
    if let Some(file) = file {
        std::fs::write(file, bytes)?;
    }
    let (first, last) = steps.lock().map_or((None, 0.0), |steps| *steps);
    Ok(format!("{seconds} {} {last} {peak}", first.unwrap_or_default()))
}

/// The picture that `picture` in `core/tests/goldens/make_edit.py` draws, moved by `number` rows.
fn picture(width: u32, height: u32, number: u32) -> Result<Image, tagbrush::Error> {
    let pixels: Vec<u8> = (0..width * height * 3)
        .map(|i| {
            let (x, y, channel) = (i / 3 % width, i / 3 / width + number, i % 3);
            let noise = ((u64::from(i) * 2_654_435_761) as u32 >> 13) % 64;
            (x * 5 + y * 3 + channel * 80 + noise) as u8
        })
        .collect();
    Image::from_rgb8(width, height, pixels)
}

/// What the system says about this process.
fn resident(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
