//! `tagbrush generate`: pictures out of prompts.

use std::path::PathBuf;
use std::sync::Arc;

use crate::{
    Control, Device, Error, ErrorKind, GenerateOptions, GeneratePipeline, GenerateRequest,
    LoadOptions, Precision, Result, SamplerKind, Scheduler, SizeGuidance,
};
use clap::Args;

use super::cancel_on_interrupt;
use super::outputs::{Outputs, make_folder};
use super::progress::{Meter, Unit};

/// Generate images from prompts
///
/// Many prompts go through the model together; each gives the same pictures as alone. Outputs are
/// numbered: first all variants of the first prompt. Parts of a prompt may have weights: (text:1.3).
///
/// Exit status: 0 if all outputs were made, 2 if some failed, 1 if nothing could be done.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagbrush generate --model juggernautXL.safetensors --prompt 'a lighthouse at dusk' -n 4 --output out
  tagbrush generate --model stable-diffusion-xl-base-1.0/ --prompt 'a cat' --prompt 'a dog' --output out
                                                            one output of each prompt
  tagbrush generate --model juggernautXL.safetensors --image sketch.png --denoise 0.6 --prompt 'a castle' --output out
                                                            starting from an image")]
pub(super) struct GenerateCommand {
    /// What is to be seen; may be given several times
    #[arg(long, short, required = true, value_name = "TEXT")]
    prompt: Vec<String>,
    /// What is not to be seen
    #[arg(long, default_value = "", value_name = "TEXT", hide_default_value = true)]
    negative_prompt: String,
    /// An image to start from, for all prompts
    #[arg(long, value_name = "IMAGE")]
    image: Option<PathBuf>,
    /// The folder for outputs: 0000.png, 0001.png, ...
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    model: Model,
    #[command(flatten)]
    how: How,
    /// The format of outputs: png, jpeg, webp
    #[arg(long, default_value = "png")]
    format: crate::ImageFormat,
    prompts: Prompts,
    #[command(flatten)]
    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Model")]
struct Model {
    /// A folder as diffusers publishes SDXL, or a checkpoint of SDXL in one safetensors file
    #[arg(long, short, value_name = "DIR|FILE")]
    model: String,
    /// Where to run: auto, cpu, cuda, cuda:N, metal
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Number format: auto, f32, bf16
    #[arg(long, default_value = "auto")]
    dtype: Precision,
    /// Most outputs in one pass, or auto
    #[arg(long, default_value = "auto", value_name = "N|auto")]
    batch_size: super::tag::BatchSize,
    /// Threads for everything [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Args)]
#[command(next_help_heading = "How outputs are made")]
struct How {
    /// Variants of every prompt
    #[arg(long, short, default_value = "1", value_name = "N")]
    n: usize,
    /// The seed of the first variant; the next ones count up from it [default: drawn]
    #[arg(long)]
    seed: Option<u64>,
    /// The size of outputs; sides are multiples of 8
    #[arg(long, default_value = "1152x896", value_name = "WxH")]
    size: Sides,
    /// Steps of denoising
    #[arg(long, default_value = "30", value_name = "K")]
    steps: usize,
    /// How far to go away from the negative prompt; 1 ignores it, which halves the time
    #[arg(long, default_value = "4", value_name = "F")]
    guidance_scale: f32,
    /// How steps are made: euler, euler_ancestral, dpmpp_2m, dpmpp_2m_sde_gpu, uni_pc, lcm, ...
    /// [default: dpmpp_2m_sde_gpu]
    #[arg(long, value_name = "NAME")]
    sampler: Option<SamplerKind>,
    /// Which noise levels steps go through: normal, karras, exponential, sgm_uniform, ... [default: karras]
    #[arg(long, value_name = "NAME")]
    scheduler: Option<Scheduler>,
    /// The layer of the text encoders to use, counted from the last, which is 1
    #[arg(long, default_value = "2", value_name = "N")]
    clip_skip: usize,
    /// How much of its grain an image keeps that the model would smooth, 0 to 30
    #[arg(long, default_value = "2", value_name = "F")]
    sharpness: f32,
    /// How much of --image is made anew, above 0 and up to 1
    #[arg(long, default_value = "0.5", value_name = "F")]
    denoise: f64,
    /// Tell the model the real size always, and not a larger one at first
    #[arg(long)]
    no_size_guidance: bool,
    /// Where guidance is stronger than this, it starts from here and grows to its scale [default: 7]
    #[arg(long, value_name = "F")]
    adaptive_guidance: Option<f32>,
}

/// Width and height.
#[derive(Clone, Copy)]
struct Sides(usize, usize);

impl std::str::FromStr for Sides {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let sides = text.split_once(['x', 'X', '*']);
        let sides = sides.and_then(|(w, h)| Some((w.trim().parse().ok()?, h.trim().parse().ok()?)));
        let unknown = || {
            let message = format!("`{text}` is no size; expected WIDTHxHEIGHT");
            Error::new(ErrorKind::InvalidInput, message).with("field", "size")
        };
        sides.map(|(width, height)| Self(width, height)).ok_or_else(unknown)
    }
}

impl GenerateCommand {
    pub(super) fn run(self) -> Result<u8> {
        if let Some(threads) = self.model.threads {
            crate::set_threads(threads)?;
        }
        let options = self.how.options();
        // Every mistake in the options is found before the model is loaded.
        options.check()?;
        let requests: Vec<_> = self.prompt.iter().map(|prompt| self.request(prompt)).collect();
        make_folder(&self.output)?;
        let pipeline = GeneratePipeline::load(&self.model.model, &self.model.options())?;
        if !self.quiet {
            eprintln!("{} on {}", self.model.model, pipeline.placement());
        }
        let total = (self.prompt.len() * self.how.n * options.steps) as u64;
        let meter = Arc::new(Meter::new(Unit::Steps, Some(total), self.quiet));
        let sink = Arc::clone(&meter);
        let control = Control::new()
            .on_progress(move |p| sink.set(p.done as u64, p.total.map(|total| total as u64)));
        cancel_on_interrupt(&control);
        let mut outputs = Outputs::new(&self.output, self.format, &meter);
        pipeline.generate_each(&requests, &options, &control, |i, output| {
            outputs.take(i, output.map(|generated| generated.image));
        })?;
        meter.finish();
        Ok(outputs.conclude(&control, |i| self.prompt[i / self.how.n].clone()))
    }

    fn request(&self, prompt: &str) -> GenerateRequest {
        let request = GenerateRequest::new(prompt).negative_prompt(&self.negative_prompt);
        match &self.image {
            Some(image) => request.image(image),
            None => request,
        }
    }
}

impl Model {
    fn options(&self) -> LoadOptions {
        let mut options = LoadOptions::default().device(self.device).precision(self.dtype);
        options.batch_size = self.batch_size.0;
        options
    }
}

impl How {
    fn options(&self) -> GenerateOptions {
        let Sides(width, height) = self.size;
        let mut options = GenerateOptions::default()
            .size(width, height)
            .clip_skip(self.clip_skip)
            .denoise(self.denoise)
            .sharpness(self.sharpness)
            .adaptive_guidance(self.adaptive_guidance);
        options.seed = self.seed;
        if self.no_size_guidance {
            options.size_guidance = SizeGuidance::NONE;
        }
        options
    }
}
