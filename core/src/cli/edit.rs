//! `tagbrush edit`: pictures changed by instruction.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::{
    Control, Device, EditOptions, EditPipeline, EditRequest, Error, ErrorKind, LoadOptions, Lora,
    NegativePrompt, OutputSize, Precision, Preset, Result, ScanOptions, find_pictures,
};
use clap::{Args, ValueEnum};

use super::cancel_on_interrupt;
use super::outputs::{Outputs, make_folder};
use super::progress::{Meter, Unit};

/// Change images by instruction
///
/// Many images go through the model together; each gives the same picture as alone. Outputs are
/// numbered: first all variants of the first image. An image that fails costs no other one its
/// output.
///
/// Exit status: 0 if all outputs were made, 2 if some failed, 1 if nothing could be done.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagbrush edit photo.jpg --prompt 'make the sky blue' --model Qwen/Qwen-Image-Edit-2511 --output out
  tagbrush edit a.png b.png c.png --prompt 'at night' -n 2 --seed 1 --output out
                                                            six outputs, two of each image
  tagbrush edit a.png b.png --prompt 'add a hat' --prompt 'add a dog' --output out
                                                            an instruction for each image
  tagbrush edit person.png coat.png --mode reference --prompt 'she wears the coat' --output out
                                                            one output from two references")]
pub(super) struct EditCommand {
    /// Images and folders
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// The instruction; several times: one for each image
    #[arg(long, short, required = true, value_name = "TEXT")]
    prompt: Vec<String>,
    /// What to move away from; none switches guidance off
    #[arg(long, value_name = "TEXT|none")]
    negative_prompt: Option<String>,
    /// Whether every image is an edit of its own, or all are references of one
    #[arg(long, default_value = "batch")]
    mode: Mode,
    /// The folder for outputs: 0000.png, 0001.png, ...
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    model: Model,
    #[command(flatten)]
    how: How,
    /// Go into folders below
    #[arg(long, short)]
    recursive: bool,
    /// The format of outputs: png, jpeg, webp
    #[arg(long, default_value = "png")]
    format: crate::ImageFormat,
    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    Batch,
    Reference,
}

#[derive(Args)]
#[command(next_help_heading = "Model")]
struct Model {
    /// A model folder, the id or name of a published model (see `tagbrush models`), or demo
    #[arg(long, short, default_value = "demo", value_name = "DIR|ID|demo")]
    model: String,
    /// Where to run: auto, cpu, cuda, cuda:N, metal
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Number format: auto, f32, bf16
    #[arg(long, default_value = "auto")]
    dtype: Precision,
    /// Memory to stay within, such as 24GB; what does not fit is read again in every step
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<Bytes>,
    /// Most outputs in one pass, or auto
    #[arg(long, default_value = "auto", value_name = "N|auto")]
    batch_size: super::tag::BatchSize,
    /// Another file for the transformer: safetensors (diffusers, ComfyUI) or GGUF
    #[arg(long, value_name = "FILE")]
    transformer: Option<PathBuf>,
    /// Another file for the text encoder
    #[arg(long, value_name = "FILE")]
    text_encoder: Option<PathBuf>,
    /// Another file for the autoencoder
    #[arg(long, value_name = "FILE")]
    vae: Option<PathBuf>,
    /// A LoRA file to apply, and how strongly [default scale: 1]; may be given several times
    #[arg(long, value_name = "FILE[:SCALE]")]
    lora: Vec<Lora>,
    /// Threads for everything [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Never use the network; the model must be here already
    #[arg(long)]
    offline: bool,
    /// The folder for downloaded models
    #[arg(long, value_name = "DIR", env = "TAGBRUSH_CACHE")]
    cache_dir: Option<PathBuf>,
}

#[derive(Args)]
#[command(next_help_heading = "How outputs are made")]
struct How {
    /// Variants of every image, 1 to 10
    #[arg(long, short, default_value = "1", value_name = "N")]
    n: usize,
    /// The seed of the first variant; the next ones count up from it [default: drawn]
    #[arg(long)]
    seed: Option<u64>,
    /// Steps of denoising [default: the model's, 50 in published ones]
    #[arg(long, visible_alias = "num-inference-steps", value_name = "K")]
    steps: Option<usize>,
    /// Scale of guidance; 1 switches it off [default: the model's, 4 in published ones]
    #[arg(long, value_name = "F")]
    true_cfg_scale: Option<f32>,
    /// The size of outputs: WIDTHxHEIGHT, or auto
    #[arg(long, default_value = "auto", value_name = "WxH|auto")]
    size: OutputSize,
    /// A step-distilled way to use the model: lightning-4, lightning-8
    #[arg(long)]
    preset: Option<Preset>,
    /// Pixels of a reference image for the model [default: the model's, 1048576 in published ones]
    #[arg(long, value_name = "PIXELS")]
    reference_area: Option<usize>,
    /// What sides of references are multiples of [default: the model's, 32 in published ones]
    #[arg(long, value_name = "PIXELS")]
    reference_multiple: Option<usize>,
    /// Accepted, and of no effect on these models
    #[arg(long, value_name = "F")]
    guidance_scale: Option<f32>,
    /// Accepted, and of no effect on these models
    #[arg(long, value_name = "N")]
    max_sequence_length: Option<usize>,
}

/// A number of bytes, as people write it.
#[derive(Clone, Copy)]
pub(super) struct Bytes(pub(super) u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match text[digits.len()..].to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "k" | "kb" => 1e3,
            "m" | "mb" => 1e6,
            "g" | "gb" => 1e9,
            "kib" => f64::from(1 << 10),
            "mib" => f64::from(1 << 20),
            "gib" => f64::from(1 << 30),
            _ => return Err("expected a size such as 24GB, 800MB or 16GiB".to_owned()),
        };
        let number = digits.trim().parse().ok().filter(|number: &f64| *number >= 0.0);
        let number = number.ok_or("expected a size such as 24GB, 800MB or 16GiB")?;
        Ok(Self((number * factor) as u64))
    }
}

impl EditCommand {
    pub(super) fn run(self) -> Result<u8> {
        if let Some(threads) = self.model.threads {
            crate::set_threads(threads)?;
        }
        // Every mistake in the options is found before the model is loaded.
        let requests = self.requests()?;
        let options = self.how.options();
        make_folder(&self.output)?;
        let pipeline = EditPipeline::load(&self.model.model, &self.model.options())?;
        if !self.model.lora.is_empty() {
            pipeline.set_loras(&self.model.lora)?;
        }
        if !self.quiet {
            self.announce(&pipeline, &options);
        }
        let steps = self.how.steps.unwrap_or_else(|| pipeline.default_steps());
        let total = (requests.len() * options.n * steps) as u64;
        let meter = Arc::new(Meter::new(Unit::Steps, Some(total), self.quiet));
        let sink = Arc::clone(&meter);
        let control = Control::new()
            .on_progress(move |p| sink.set(p.done as u64, p.total.map(|total| total as u64)));
        cancel_on_interrupt(&control);
        let mut outputs = Outputs::new(&self.output, self.format, &meter);
        pipeline.edit_each(&requests, &options, &control, |i, output| {
            outputs.take(i, |file| output?.image.save(file));
        })?;
        meter.finish();
        Ok(outputs.conclude(&control, |i| match requests[i / self.how.n].images.first() {
            Some(crate::Input::Path(path)) => path.display().to_string(),
            _ => String::new(),
        }))
    }

    /// One request for each image, or one for all.
    fn requests(&self) -> Result<Vec<EditRequest>> {
        let images = self.images()?;
        let invalid = |field: &'static str, message: String| {
            Error::new(ErrorKind::InvalidInput, message).with("field", field)
        };
        if images.is_empty() {
            return Err(invalid("images", "there are no images in these folders".to_owned()));
        }
        let requests = match (self.mode, &self.prompt[..]) {
            (Mode::Reference, [prompt]) => {
                vec![EditRequest::with_references(images, prompt)]
            }
            (Mode::Reference, prompts) => {
                let message = format!("{} prompts for one edit of all images", prompts.len());
                return Err(invalid("prompt", message));
            }
            (Mode::Batch, [prompt]) => EditRequest::for_each(images, prompt),
            (Mode::Batch, prompts) if prompts.len() == images.len() => {
                images.into_iter().zip(prompts).map(|(i, p)| EditRequest::new(i, p)).collect()
            }
            (Mode::Batch, prompts) => {
                let (prompts, images) = (prompts.len(), images.len());
                let message =
                    format!("{prompts} prompts for {images} images; give one, or one for each");
                return Err(invalid("prompt", message));
            }
        };
        let negative = match self.negative_prompt.as_deref() {
            None => NegativePrompt::Blank,
            Some("none") => NegativePrompt::Off,
            Some(text) => NegativePrompt::from(text),
        };
        Ok(requests.into_iter().map(|request| request.negative_prompt(negative.clone())).collect())
    }

    /// The images in the order that they are given. One may be given twice, for two instructions.
    fn images(&self) -> Result<Vec<PathBuf>> {
        let scan = ScanOptions::default().recursive(self.recursive);
        let mut images = Vec::new();
        for path in &self.images {
            if path.is_dir() {
                let found = find_pictures(std::slice::from_ref(path), &scan)?;
                images.extend(found.into_iter().map(|found| found.path));
            } else {
                images.push(path.clone());
            }
        }
        Ok(images)
    }

    fn announce(&self, pipeline: &EditPipeline, options: &EditOptions) {
        let demo = match self.model.model.as_str() {
            "demo" => " - the demo model edits drawn shapes only; choose a real one with --model",
            _ => "",
        };
        eprintln!("{} on {}{demo}", self.model.model, pipeline.placement());
        options.notes().iter().for_each(|note| eprintln!("note: {note}"));
    }
}

impl Model {
    fn options(&self) -> LoadOptions {
        let mut options =
            LoadOptions::default().device(self.device).precision(self.dtype).offline(self.offline);
        options.batch_size = self.batch_size.0;
        options.cache_dir = self.cache_dir.clone();
        options.max_memory = self.max_memory.map(|Bytes(bytes)| bytes);
        options.transformer = self.transformer.clone();
        options.text_encoder = self.text_encoder.clone();
        options.vae = self.vae.clone();
        options
    }
}

impl How {
    fn options(&self) -> EditOptions {
        let mut options = EditOptions::default().n(self.n).size(self.size);
        options.seed = self.seed;
        options.num_inference_steps = self.steps;
        options.true_cfg_scale = self.true_cfg_scale;
        options.preset = self.preset;
        options.reference_area = self.reference_area;
        options.reference_multiple = self.reference_multiple;
        options.guidance_scale = self.guidance_scale;
        if let Some(length) = self.max_sequence_length {
            options.max_sequence_length = length;
        }
        options
    }
}
