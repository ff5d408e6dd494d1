//! `tagbrush generate`: pictures out of prompts.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    Control, Device, Error, ErrorKind, FreeU, GenerateOptions, GeneratePipeline, GenerateRequest,
    LoadOptions, Lora, MetadataScheme, Outpaint, Performance, Precision, PrepareOptions, Prompter,
    RefinerSwap, Result, SamplerKind, Scheduler, SizeGuidance, Upscale,
};
use clap::Args;

use super::cancel_on_interrupt;
use super::outputs::{Outputs, make_folder};
use super::progress::{Meter, Unit};

/// Generate images from prompts
///
/// Many prompts go through the model together; each gives the same pictures as alone. Outputs are
/// numbered: first all variants of the first prompt. Parts of a prompt may have weights: (text:1.3).
/// A line is a text of its own; [[red, blue]] is another one for each variant, __name__ a line of name.txt in
/// --wildcards, <lora:name:0.8> a file of --lora-folder.
///
/// Exit status: 0 if all outputs were made, 2 if some failed, 1 if nothing could be done.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagbrush generate --prompt 'a red circle on a white background' --output out
                                                            with the demo model
  tagbrush generate --model juggernautXL.safetensors --prompt 'a lighthouse at dusk' -n 4 --output out
  tagbrush generate --model stable-diffusion-xl-base-1.0/ --prompt 'a cat' --prompt 'a dog' --output out
                                                            one output of each prompt
  tagbrush generate --model juggernautXL.safetensors --image sketch.png --denoise 0.6 --prompt 'a castle' --output out
                                                            starting from an image
  tagbrush generate --model juggernautXL.safetensors --upscaler fooocus_upscaler_s409985e5.bin --image photo.jpg --upscale 2 \
      --prompt 'a castle' --output out                      making an image larger")]
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
    /// What of --image is made anew: the white pixels of an image of its size. Outputs have its size
    #[arg(long, value_name = "IMAGE", requires = "image")]
    mask: Option<PathBuf>,
    /// Pixels to add at the sides of --image
    #[arg(long, value_name = "LEFT,TOP,RIGHT,BOTTOM", requires = "image")]
    outpaint: Option<Borders>,
    /// Make --image larger by a factor from 1 to 5, with details made anew; "fast 2" without. Outputs have the size that
    /// this gives
    #[arg(long, value_name = "FACTOR", requires = "image", conflicts_with_all = ["mask", "outpaint"])]
    upscale: Option<Upscale>,
    /// The folder for outputs: 0000.png, 0001.png, ...
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    model: Model,
    #[command(flatten)]
    prompts: Prompts,
    #[command(flatten)]
    how: How,
    /// The format of outputs: png, jpeg, webp
    #[arg(long, default_value = "png")]
    format: crate::ImageFormat,
    /// What outputs say of how they were made: fooocus, a1111, none. The first output with a model in one file
    /// waits for the file's hash
    #[arg(long, default_value = "none", value_name = "SCHEME")]
    metadata: Metadata,
    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Args)]
#[command(next_help_heading = "Model")]
struct Model {
    /// A folder as diffusers publishes SDXL, a checkpoint of SDXL in one safetensors file, or demo
    #[arg(long, short, default_value = "demo", value_name = "DIR|FILE|demo")]
    model: String,
    /// A second model that goes on where the first one stops: SDXL's refiner, or another SDXL
    #[arg(long, value_name = "DIR|FILE")]
    refiner: Option<PathBuf>,
    /// Another autoencoder in place of the model's own: a safetensors file
    #[arg(long, value_name = "FILE")]
    vae: Option<PathBuf>,
    /// A network that makes images larger (ESRGAN), for --upscale: safetensors, or a checkpoint of PyTorch
    #[arg(long, value_name = "FILE")]
    upscaler: Option<PathBuf>,
    /// The head of Fooocus' inpaint engine (fooocus_inpaint_head.pth), for --mask and --outpaint
    #[arg(long, value_name = "FILE", requires = "inpaint_patch")]
    inpaint_head: Option<PathBuf>,
    /// Its patch (inpaint_v26.fooocus.patch, or that of another version)
    #[arg(long, value_name = "FILE", requires = "inpaint_head")]
    inpaint_patch: Option<PathBuf>,
    /// A LoRA file to apply, and how strongly [default scale: 1]; may be given several times
    #[arg(long, value_name = "FILE[:SCALE]")]
    lora: Vec<Lora>,
    /// Where LoRA files are that --performance and prompts name; may be given several times
    #[arg(long, value_name = "DIR")]
    lora_folder: Vec<PathBuf>,
    /// Where to run: auto, cpu, cuda, cuda:N, metal
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Number format: auto, f32, bf16
    #[arg(long, default_value = "auto")]
    dtype: Precision,
    /// Memory to stay within, such as 6GB; what does not fit is read again in every step
    #[arg(long, value_name = "SIZE")]
    max_memory: Option<super::edit::Bytes>,
    /// Most outputs in one pass, or auto
    #[arg(long, default_value = "auto", value_name = "N|auto")]
    batch_size: super::tag::BatchSize,
    /// Threads for everything [default: one for each core]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

#[derive(Args)]
#[command(next_help_heading = "What prompts become")]
struct Prompts {
    /// A style around prompts, or "Random Style"; may be given several times
    #[arg(long, value_name = "NAME")]
    style: Vec<String>,
    /// A folder of styles, as sdxl_styles of Fooocus is one [default: a few of our own]
    #[arg(long, value_name = "DIR")]
    styles: Option<PathBuf>,
    /// The folder of wildcards
    #[arg(long, value_name = "DIR")]
    wildcards: Option<PathBuf>,
    /// Wildcards take the lines of their files in order, a line for a variant
    #[arg(long)]
    wildcards_in_order: bool,
    /// All variants have the same seed
    #[arg(long)]
    same_seed: bool,
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
    /// The size of outputs; sides are multiples of 8 [default: the model's, 1152x896 in published ones]
    #[arg(long, value_name = "WxH")]
    size: Option<Sides>,
    /// Steps and what else makes it fast: quality, speed, extreme-speed, lightning, hyper-sd. The last three
    /// need a LoRA file; options that are given too are as they are given
    #[arg(long, value_name = "NAME")]
    performance: Option<Performance>,
    /// Steps of denoising [default: 30, or those of --performance; with --upscale 18, or those that it has for that]
    #[arg(long, value_name = "K")]
    steps: Option<usize>,
    /// How far to go away from the negative prompt; 1 ignores it, which halves the time [default: 4]
    #[arg(long, value_name = "F")]
    guidance_scale: Option<f32>,
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
    /// How much of its grain an image keeps that the model would smooth, 0 to 30 [default: 2]
    #[arg(long, value_name = "F")]
    sharpness: Option<f32>,
    /// The part of the steps after which --refiner goes on [default: 0.5]
    #[arg(long, value_name = "F")]
    refiner_switch: Option<f64>,
    /// How images go to --refiner: joint, separate
    #[arg(long, default_value = "joint", value_name = "NAME")]
    refiner_swap: RefinerSwap,
    /// Weigh the network's parts on its way up (FreeU): b1,b2,s1,s2, of which Fooocus has 1.01,1.02,0.99,0.95
    #[arg(long, value_name = "B1,B2,S1,S2")]
    freeu: Option<Weights>,
    /// How much of --image is made anew, above 0 and up to 1
    #[arg(long, default_value = "0.5", value_name = "F")]
    denoise: f64,
    /// How much of an image is made anew that is made larger, above 0 and up to 1
    #[arg(long, default_value = "0.382", value_name = "F")]
    upscale_strength: f64,
    /// How much of what --mask shows is made anew, above 0 and up to 1, which forgets what was there
    #[arg(long, default_value = "1", value_name = "F")]
    inpaint_strength: f64,
    /// How much of --image the model sees at least beside that part, 0 to 1
    #[arg(long, default_value = "0.618", value_name = "F")]
    inpaint_field: f64,
    /// Pixels that --mask is made wider by, or narrower below 0
    #[arg(long, default_value = "0", value_name = "N", allow_negative_numbers = true)]
    mask_growth: i32,
    /// Tell the model the real size always, and not a larger one at first
    #[arg(long)]
    no_size_guidance: bool,
    /// Where guidance is stronger than this, it starts from here and grows to its scale [default: 7]
    #[arg(long, value_name = "F")]
    adaptive_guidance: Option<f32>,
}

/// A notation of metadata, or none.
#[derive(Clone, Copy)]
struct Metadata(Option<MetadataScheme>);

impl std::str::FromStr for Metadata {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name {
            "none" => Ok(Self(None)),
            name => Ok(Self(Some(name.parse()?))),
        }
    }
}

/// Width and height.
#[derive(Clone, Copy)]
struct Sides((usize, usize));

impl std::str::FromStr for Sides {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        crate::parse_aspect_ratio(text).map(Self)
    }
}

/// Pixels at the sides.
#[derive(Clone, Copy)]
struct Borders(Outpaint);

impl std::str::FromStr for Borders {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let sides: Option<Vec<usize>> = text.split(',').map(|s| s.trim().parse().ok()).collect();
        match sides.as_deref() {
            Some(&[left, top, right, bottom]) => Ok(Self(Outpaint { left, top, right, bottom })),
            _ => {
                let message = format!("`{text}` are no sides; expected LEFT,TOP,RIGHT,BOTTOM");
                Err(Error::new(ErrorKind::InvalidInput, message).with("field", "outpaint"))
            }
        }
    }
}

/// The four weights of FreeU.
#[derive(Clone, Copy)]
struct Weights(FreeU);

impl std::str::FromStr for Weights {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let weights: Option<Vec<f64>> = text.split(',').map(|w| w.trim().parse().ok()).collect();
        match weights.as_deref() {
            Some(&[b1, b2, s1, s2]) => Ok(Self(FreeU { b1, b2, s1, s2 })),
            _ => {
                let message = format!("`{text}` are no weights; expected B1,B2,S1,S2");
                Err(Error::new(ErrorKind::InvalidInput, message).with("field", "freeu"))
            }
        }
    }
}

impl GenerateCommand {
    pub(super) fn run(self) -> Result<u8> {
        if let Some(threads) = self.model.threads {
            crate::set_threads(threads)?;
        }
        let options = self.how.options(self.upscale.is_some());
        // Every mistake in the options is found before the model is loaded.
        options.check()?;
        let (groups, needed) = (self.groups()?, self.performance_lora());
        make_folder(&self.output)?;
        let pipeline = GeneratePipeline::load(&self.model.model, &self.model.options())?;
        if !self.quiet {
            let demo = match self.model.model.as_str() {
                "demo" => " - the demo model draws a shape only; choose a real one with --model",
                _ => "",
            };
            eprintln!("{} on {}{demo}", self.model.model, pipeline.placement());
        }
        let total = (self.prompt.len() * self.how.n * options.steps) as u64;
        let meter = Arc::new(Meter::new(Unit::Steps, Some(total), self.quiet));
        let (sink, before) = (Arc::clone(&meter), Arc::new(AtomicU64::new(0)));
        let earlier = Arc::clone(&before);
        let control = Control::new().on_progress(move |p| {
            sink.set(earlier.load(Ordering::Relaxed) + p.done as u64, Some(total));
        });
        cancel_on_interrupt(&control);
        let mut outputs = Outputs::new(&self.output, self.format, &meter);
        let needed = if pipeline.needs_performance_loras() { needed? } else { None };
        let mut first = 0;
        for (loras, requests) in &groups {
            let loras: Vec<Lora> = loras.iter().chain(&needed).cloned().collect();
            pipeline.set_loras(&loras)?;
            pipeline.generate_each(requests, &options, &control, |i, output| {
                outputs.take(first + i, |file| {
                    let output = output?;
                    output
                        .notes
                        .iter()
                        .for_each(|note| meter.note(&format!("{}: {note}", file.display())));
                    output.save(file, self.metadata.0)
                });
            })?;
            first += requests.len();
            before.fetch_add((requests.len() * options.steps) as u64, Ordering::Relaxed);
        }
        meter.finish();
        Ok(outputs.conclude(&control, |i| self.prompt[i / self.how.n].clone()))
    }

    /// The LoRA file that the performance needs, unless it was given.
    fn performance_lora(&self) -> Result<Option<Lora>> {
        let Some((performance, needed)) =
            self.how.performance.and_then(|performance| Some((performance, performance.lora()?)))
        else {
            return Ok(None);
        };
        let is_it = |lora: &Lora| lora.file.file_name() == needed.file.file_name();
        match self.model.lora.iter().any(is_it) {
            true => Ok(None),
            false => performance.lora_in(&self.model.lora_folder),
        }
    }

    /// Requests with the LoRA files that they need: prompts that need the same are generated together.
    fn groups(&self) -> Result<Vec<(Vec<Lora>, Vec<GenerateRequest>)>> {
        let prompter = self.prompter()?;
        let mut options = PrepareOptions::default()
            .n(self.how.n)
            .styles(&self.prompts.style)
            .same_seed(self.prompts.same_seed)
            .wildcards_in_order(self.prompts.wildcards_in_order);
        options.seed = self.how.seed;
        let mut groups: Vec<(Vec<Lora>, Vec<GenerateRequest>)> = Vec::new();
        for (i, prompt) in self.prompt.iter().enumerate() {
            let prepared = prompter.prepare(prompt, &self.negative_prompt, &options);
            let prepared = prepared.map_err(|error| error.with("prompt", i))?;
            let loras: Vec<Lora> = self.model.lora.iter().cloned().chain(prepared.loras).collect();
            let requests = prepared.requests.into_iter().map(|mut request| {
                request.image = self.image.as_ref().map(Into::into);
                request.mask = self.mask.as_ref().map(Into::into);
                request.upscale = self.upscale;
                request.outpaint(self.outpaint.map(|Borders(sides)| sides).unwrap_or_default())
            });
            match groups.last_mut() {
                Some((last, group)) if *last == loras => group.extend(requests),
                _ => groups.push((loras, requests.collect())),
            }
        }
        Ok(groups)
    }

    fn prompter(&self) -> Result<Prompter> {
        let mut prompter = Prompter::new();
        if let Some(folder) = &self.prompts.styles {
            prompter = prompter.styles(folder)?;
        }
        if let Some(folder) = &self.prompts.wildcards {
            prompter = prompter.wildcards(folder);
        }
        Ok(self.model.lora_folder.iter().fold(prompter, Prompter::loras))
    }
}

impl Model {
    fn options(&self) -> LoadOptions {
        let mut options = LoadOptions::default().device(self.device).precision(self.dtype);
        options.batch_size = self.batch_size.0;
        options.max_memory = self.max_memory.map(|bytes| bytes.0);
        options.refiner.clone_from(&self.refiner);
        options.vae.clone_from(&self.vae);
        options.upscaler.clone_from(&self.upscaler);
        options.inpaint_head.clone_from(&self.inpaint_head);
        options.inpaint_patch.clone_from(&self.inpaint_patch);
        options
    }
}

impl How {
    fn options(&self, is_upscale: bool) -> GenerateOptions {
        let mut options = GenerateOptions::default()
            .clip_skip(self.clip_skip)
            .denoise(self.denoise)
            .upscale_strength(self.upscale_strength)
            .inpaint(self.inpaint_strength, self.inpaint_field)
            .mask_growth(self.mask_growth);
        if let Some(performance) = self.performance {
            options = options.performance(performance);
        }
        if is_upscale {
            options.steps = self.performance.unwrap_or(Performance::Speed).upscale_steps();
        }
        fn set<T: Copy>(place: &mut T, given: Option<T>) {
            *place = given.unwrap_or(*place);
        }
        set(&mut options.steps, self.steps);
        set(&mut options.guidance_scale, self.guidance_scale);
        set(&mut options.sampler, self.sampler);
        set(&mut options.scheduler, self.scheduler);
        set(&mut options.sharpness, self.sharpness);
        set(&mut options.adaptive_guidance, self.adaptive_guidance);
        set(&mut options.refiner_switch, self.refiner_switch);
        options.refiner_swap = self.refiner_swap;
        options.freeu = self.freeu.map(|Weights(freeu)| freeu);
        options.size = self.size.map(|Sides(size)| size);
        if self.no_size_guidance {
            options.size_guidance = SizeGuidance::NONE;
        }
        options
    }
}
