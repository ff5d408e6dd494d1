//! Runs a tagger for the scripts in this folder: without decoding and without a start for each
//! measurement.
//!
//! Arguments: a model, a precision, and for the first two commands a file of raw RGB pictures of the model's
//! input size.
//! Each line of the input is a command, each line of the output its answer:
//!
//! - `time COUNT BATCH`: seconds for the scores of the first COUNT pictures (from the start again
//!   when there are fewer), in batches of BATCH;
//! - `scores FILE`: writes the scores of all pictures as little-endian `f32`;
//! - `tag LIST BATCH THRESHOLD`: seconds from files to tags, of the files that LIST names line by line;
//! - `tags LIST THRESHOLD FILE`: writes those tags, each as a line of JSON;
//! - `memory`: the largest resident memory so far in bytes, where the system tells.

use std::error::Error;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Instant;

use tagbrush::{Control, Image, LoadOptions, Precision, TagOptions, Tagger};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, precision, pictures @ ..] = &arguments[..] else {
        return Err("usage: worker MODEL PRECISION [PICTURES]".into());
    };
    let precision: Precision = precision.parse()?;
    let tagger = Tagger::load(model, &LoadOptions::default().precision(precision))?;
    let (height, width) = tagger.input_size();
    let pixels = pictures.first().map(std::fs::read).transpose()?.unwrap_or_default();
    let images = pixels
        .chunks_exact(height * width * 3)
        .map(|rgb| Image::from_rgb8(width as u32, height as u32, rgb.to_vec()))
        .collect::<Result<Vec<_>, _>>()?;
    println!("ready {}", tagger.placement());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["time", count, batch] => {
                let (count, batch) = (count.parse::<usize>()?, batch.parse::<usize>()?);
                let images: Vec<_> = images.iter().cycle().take(count).cloned().collect();
                let tagger = tagger.with_batch_size(batch)?;
                let start = Instant::now();
                for scores in tagger.scores(images, &Control::new()) {
                    scores?;
                }
                println!("{}", start.elapsed().as_secs_f64());
            }
            ["scores", file] => {
                let mut bytes = Vec::new();
                for scores in tagger.scores(images.clone(), &Control::new()) {
                    bytes.extend(scores?.iter().flat_map(|score| score.to_le_bytes()));
                }
                std::fs::write(file, bytes)?;
                println!("written");
            }
            ["tag", list, batch, threshold] => {
                let (paths, tagger) = (files(list)?, tagger.with_batch_size(batch.parse()?)?);
                let options = TagOptions::default().threshold(threshold.parse()?);
                let start = Instant::now();
                let tags = tagger.tag_batch(&paths, &options, &Control::new())?;
                let seconds = start.elapsed().as_secs_f64();
                tags.into_iter().collect::<Result<Vec<_>, _>>()?;
                println!("{seconds}");
            }
            ["tags", list, threshold, file] => {
                let options = TagOptions::default().threshold(threshold.parse()?);
                let mut lines = String::new();
                for tags in tagger.tag_batch(&files(list)?, &options, &Control::new())? {
                    lines += &serde_json::to_string(&tags?)?;
                    lines += "\n";
                }
                std::fs::write(file, lines)?;
                println!("written");
            }
            ["memory"] => println!("{}", memory()),
            _ => return Err(format!("unknown command `{line}`").into()),
        }
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// The files that a list names.
fn files(list: &str) -> std::io::Result<Vec<PathBuf>> {
    Ok(std::fs::read_to_string(list)?.lines().map(PathBuf::from).collect())
}

/// The high-water mark of resident memory, 0 where the system does not tell.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
