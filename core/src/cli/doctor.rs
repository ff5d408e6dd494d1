//! `tagbrush doctor`: what this build and machine can do, for bug reports.

use crate::{
    Control, Device, EditOptions, EditPipeline, EditRequest, GenerateOptions, GeneratePipeline,
    GenerateRequest, Image, LoadOptions, Placement, Precision, Result, Tagger, cache_dir,
    cpu_kernels,
};

use super::{FAILURE, SUCCESS};

pub(super) fn run() -> Result<u8> {
    println!("tagbrush {} ({})", env!("CARGO_PKG_VERSION"), build());
    println!("system    {} {}", std::env::consts::OS, std::env::consts::ARCH);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("threads   {cores} (RAYON_NUM_THREADS sets another number)");
    match cpu_kernels() {
        Ok(kernels) => println!("kernels   {kernels}"),
        Err(error) => println!("kernels   {error}"),
    }
    for device in [Device::Auto, Device::Cpu, Device::Cuda(0), Device::Metal(0)] {
        match Placement::resolve(device, Precision::Auto) {
            Ok(placement) => println!("device    {device}: {placement}"),
            Err(error) => println!("device    {device}: not available: {error}"),
        }
    }
    match cache_dir() {
        Ok(dir) => println!("models    {}", dir.display()),
        Err(error) => println!("models    {error}"),
    }
    let mut code = SUCCESS;
    for (task, result) in
        [("tag", try_tagger()), ("edit", try_editor()), ("generate", try_generator())]
    {
        match result {
            Ok(line) => println!("demo      {task} {line}"),
            Err(error) => {
                println!("demo      {task} failed: {error:#}");
                code = FAILURE;
            }
        }
    }
    Ok(code)
}

/// Loads the demo tagger and runs it, which is what proves that the build works.
fn try_tagger() -> Result<String> {
    let start = std::time::Instant::now();
    let tagger = Tagger::load("demo", &LoadOptions::default())?;
    let image = Image::from_rgb8(64, 64, vec![128; 64 * 64 * 3])?;
    for scores in tagger.scores([image], &Control::new()) {
        scores?;
    }
    let (height, width) = tagger.input_size();
    Ok(format!(
        "works: {} labels, {height} x {width} pixels, {} ms",
        tagger.labels().len(),
        start.elapsed().as_millis()
    ))
}

/// The same with the demo edit model.
fn try_editor() -> Result<String> {
    let start = std::time::Instant::now();
    let pipeline = EditPipeline::load("demo", &LoadOptions::default())?;
    let image = Image::from_rgb8(64, 64, vec![128; 64 * 64 * 3])?;
    let request = EditRequest::new(image, "make the background blue");
    let edited = pipeline.edit(&request, &EditOptions::default())?;
    Ok(format!(
        "works: {} picture on {}, {} ms",
        edited.len(),
        pipeline.placement(),
        start.elapsed().as_millis()
    ))
}

/// The same with the demo model that generates.
fn try_generator() -> Result<String> {
    let start = std::time::Instant::now();
    let pipeline = GeneratePipeline::load("demo", &LoadOptions::default())?;
    let request = GenerateRequest::new("a red circle on a white background");
    let generated = pipeline.generate(&request, &GenerateOptions::default())?;
    Ok(format!(
        "works: {} picture on {}, {} ms",
        generated.len(),
        pipeline.placement(),
        start.elapsed().as_millis()
    ))
}

fn build() -> String {
    let features = crate::device_features()
        .into_iter()
        .chain([("demo", cfg!(feature = "demo")), ("hub", cfg!(feature = "hub"))]);
    let features: Vec<_> = features.filter(|(_, on)| *on).map(|(name, _)| name).collect();
    let profile = if cfg!(debug_assertions) { "DEBUG BUILD, slow" } else { "release" };
    format!("{profile}; features: {}", features.join(", "))
}
