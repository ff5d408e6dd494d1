//! `tagbrush tag`: tags for files and folders.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use crate::{
    CaptionOptions, Category, Control, DEFAULT_THRESHOLD, DecodeOptions, Device, Error, ErrorKind,
    Existing, FileTags, FolderOptions, FolderRun, Format, Limits, LoadOptions, Order,
    OutputOptions, Precision, RatingPlace, Result, ScanOptions, Summary, TagOptions, Tagger,
};
use clap::{Args, ValueEnum};

use super::progress::{Meter, Unit};
use super::{INTERRUPTED, SOME_FAILED, SUCCESS, cancel_on_interrupt};

/// Tag images and folders of images
///
/// Prints the tags, or writes them beside the images or into a folder. An image that fails costs no
/// other one its tags: failures are listed at the end.
///
/// Exit status: 0 if all images were tagged, 2 if some failed, 1 if nothing could be done.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagbrush tag picture.jpg                                  print the tags, with the demo model
  tagbrush tag photos -r --model wd-vit-tagger-v3 --format sidecar
                                                            a caption .txt beside every image
  tagbrush tag photos -r --model ./my-model --format jsonl --output out --skip-existing
                                                            all scores in one file; goes on where
                                                            a run before was stopped
  tagbrush tag photos --format sidecar --prepend my_style --exclude 'long hair' \\
      --escape --always-first 1girl,solo                    captions for training")]
pub(super) struct TagCommand {
    /// Images and folders
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// A model folder, the id or name of a published model (see `tagbrush models`), or demo
    #[arg(long, short, default_value = "demo", value_name = "DIR|ID|demo", help_heading = "Model")]
    model: String,
    /// Where to run: auto, cpu, cuda, cuda:N, metal
    #[arg(long, default_value = "auto", help_heading = "Model")]
    device: Device,
    /// Number format: auto, f32, bf16, f16
    #[arg(long, default_value = "auto", help_heading = "Model")]
    dtype: Precision,
    /// Images in one batch, or auto
    #[arg(long, default_value = "auto", value_name = "N|auto", help_heading = "Model")]
    batch_size: BatchSize,
    /// Threads for everything [default: one for each core]
    #[arg(long, value_name = "N", help_heading = "Model")]
    threads: Option<usize>,
    /// Never use the network; the model must be here already
    #[arg(long, help_heading = "Model")]
    offline: bool,
    /// The folder for downloaded models
    #[arg(long, value_name = "DIR", env = "TAGBRUSH_CACHE", help_heading = "Model")]
    cache_dir: Option<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    caption: Caption,
    #[command(flatten)]
    output: Output,
}

/// A number, or the choice of the library.
#[derive(Clone, Copy)]
pub(super) struct BatchSize(pub(super) Option<usize>);

impl FromStr for BatchSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.parse()) {
            ("auto", _) => Ok(Self(None)),
            (_, Ok(size @ 1..)) => Ok(Self(Some(size))),
            _ => Err("expected auto or a whole number from 1".to_owned()),
        }
    }
}

/// A number, or what the model's author recommends.
#[derive(Clone, Copy)]
enum Threshold {
    Recommended,
    Value(f32),
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "recommended" => Ok(Self::Recommended),
            text => probability(text).map(Self::Value),
        }
    }
}

fn probability(text: &str) -> Result<f32, String> {
    let value = text.parse().ok().filter(|value: &f32| value.is_finite() && *value >= 0.0);
    value.ok_or_else(|| "expected a number of 0 or more".to_owned())
}

/// `NAME=NUMBER`; the name itself may have a `=` (`=_=`).
fn named_probability(text: &str) -> Result<(String, f32), String> {
    let (name, value) = text.rsplit_once('=').ok_or("expected NAME=NUMBER")?;
    Ok((name.to_owned(), probability(value)?))
}

/// `FROM=TO`.
fn replacement(text: &str) -> Result<(String, String), String> {
    let (from, to) = text.rsplit_once('=').ok_or("expected FROM=TO")?;
    Ok((from.to_owned(), to.to_owned()))
}

#[derive(Args)]
#[command(next_help_heading = "Which tags")]
struct Selection {
    /// Keep tags more probable than this; recommended takes the model's own value
    #[arg(long, short, value_name = "T|recommended")]
    threshold: Option<Threshold>,
    /// The threshold for characters [default: the general one]
    #[arg(long, value_name = "C", value_parser = probability)]
    character_threshold: Option<f32>,
    /// The threshold for a category (general, artist, copyright, character, meta, or a number)
    #[arg(long, value_name = "CATEGORY=T", value_parser = named_probability)]
    category_threshold: Vec<(String, f32)>,
    /// The threshold for one tag
    #[arg(long, value_name = "TAG=T", value_parser = named_probability)]
    tag_threshold: Vec<(String, f32)>,
    /// Use the thresholds for tags and categories that the model's files recommend
    #[arg(long)]
    best_thresholds: bool,
    /// Find the threshold in each image's scores, by their largest gap
    #[arg(long)]
    mcut: bool,
    /// Keep at most K characters and K other tags
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Tags never to give; spaces, underscores and case do not matter
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    exclude: Vec<String>,
    /// Drop tags that say less than another one (long_hair beside very_long_hair)
    #[arg(long)]
    drop_redundant: bool,
    /// Pairs of tags, the first implying the second, as CSV; turns --drop-redundant on
    #[arg(long, value_name = "FILE")]
    implications: Option<PathBuf>,
    /// The order of tags: labels (the model's), score, name
    #[arg(long, default_value = "labels")]
    sort: Order,
}

#[derive(Args)]
#[command(next_help_heading = "Captions (text, csv and sidecar)")]
struct Caption {
    /// Keep underscores in tags
    #[arg(long)]
    keep_underscores: bool,
    /// Put a backslash before parentheses, for prompts
    #[arg(long)]
    escape: bool,
    /// Write (tag:0.997)
    #[arg(long)]
    weights: bool,
    /// Where the rating stands: none, first, last
    #[arg(long, default_value = "none", value_name = "PLACE")]
    rating: RatingPlace,
    /// Put characters behind the other tags
    #[arg(long)]
    characters_last: bool,
    /// Tags that stand first when they are there
    #[arg(long, value_name = "TAGS", value_delimiter = ',')]
    always_first: Vec<String>,
    /// Write a tag as something else; nothing behind the = leaves it out
    #[arg(long, value_name = "TAG=TEXT", value_parser = replacement)]
    replace: Vec<(String, String)>,
    /// Texts before all tags
    #[arg(long, value_name = "TEXTS", value_delimiter = ',')]
    prepend: Vec<String>,
    /// Texts behind all tags
    #[arg(long, value_name = "TEXTS", value_delimiter = ',')]
    append: Vec<String>,
    /// What stands between two tags
    #[arg(long, default_value = ", ")]
    separator: String,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum OutputFormat {
    /// A line for people
    Text,
    /// A line of JSON with all scores
    Jsonl,
    /// A row of CSV
    Csv,
    /// A .txt with the caption beside every image
    Sidecar,
    /// A .json with all scores beside every image
    Json,
}

#[derive(Args)]
#[command(next_help_heading = "Input and output")]
struct Output {
    /// In which form tags are given
    #[arg(long, short, default_value = "text")]
    format: OutputFormat,
    /// Write into this folder: tags.jsonl, tags.csv, or files that mirror the tree
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Go into folders below
    #[arg(long, short)]
    recursive: bool,
    /// What to do with tags that are there already: overwrite, skip, append
    #[arg(long, default_value = "overwrite", value_name = "WHAT")]
    existing: Existing,
    /// Leave images alone that have tags already: how a stopped run goes on
    #[arg(long, conflicts_with = "existing")]
    skip_existing: bool,
    /// Name files beside images a.png.txt rather than a.txt
    #[arg(long)]
    full_names: bool,
    /// Tag JPEGs whose end is missing, as far as they go
    #[arg(long)]
    tolerate_truncated: bool,
    /// Turn images as their EXIF orientation says (the reference does not)
    #[arg(long)]
    apply_orientation: bool,
    /// Refuse images of more pixels
    #[arg(long, value_name = "N")]
    max_pixels: Option<u64>,
    /// Print nothing but the tags
    #[arg(long, short)]
    quiet: bool,
}

impl TagCommand {
    pub(super) fn run(self) -> Result<u8> {
        if let Some(threads) = self.threads {
            crate::set_threads(threads)?;
        }
        let quiet = self.output.quiet;
        // Every mistake in the options is found before the model is loaded.
        let folder_options = FolderOptions::new(
            ScanOptions::default().recursive(self.output.recursive),
            self.output.options()?,
        );
        let run = FolderRun::new(&self.paths, folder_options)?;
        if run.pictures().is_empty() && run.skipped() == 0 {
            return Err(nothing_found(&self.paths, self.output.recursive));
        }
        let tagger = Tagger::load(&self.model, &self.load_options())?;
        if !quiet {
            announce(&tagger, run.skipped());
        }
        let options = self.selection.options(&tagger)?;
        let caption = self.caption.options();
        let total = run.pictures().len() as u64;
        let meter = Arc::new(Meter::new(Unit::Images, Some(total), quiet || total < 2));
        let sink = Arc::clone(&meter);
        let control = Control::new().on_progress(move |p| sink.set(p.done as u64, None));
        cancel_on_interrupt(&control);
        let printer = Printer::new(&self.output, &caption, &meter, &control);
        printer.header();
        let summary =
            run.run(&tagger, &options, &caption, &control, |record| printer.print(record))?;
        meter.finish();
        Ok(conclude(&summary, &meter, quiet))
    }

    fn load_options(&self) -> LoadOptions {
        let mut limits = Limits::default();
        if let Some(pixels) = self.output.max_pixels {
            limits = limits.max_pixels(pixels);
        }
        let decode = DecodeOptions::default()
            .limits(limits)
            .tolerate_truncated(self.output.tolerate_truncated)
            .apply_orientation(self.output.apply_orientation);
        let mut options = LoadOptions::default()
            .device(self.device)
            .precision(self.dtype)
            .offline(self.offline)
            .decode(decode);
        options.batch_size = self.batch_size.0;
        options.cache_dir = self.cache_dir.clone();
        options
    }
}

impl Selection {
    fn options(&self, tagger: &Tagger) -> Result<TagOptions> {
        let threshold = match self.threshold {
            None => DEFAULT_THRESHOLD,
            Some(Threshold::Value(value)) => value,
            Some(Threshold::Recommended) => tagger.recommended_threshold().ok_or_else(|| {
                Error::new(ErrorKind::InvalidInput, "no threshold is recommended for this model")
                    .with("field", "threshold")
            })?,
        };
        let mut options = TagOptions::default()
            .threshold(threshold)
            .best_thresholds(self.best_thresholds)
            .mcut(self.mcut)
            .exclude(self.exclude.iter().map(|tag| tag.trim()))
            .drop_redundant(self.drop_redundant || self.implications.is_some())
            .order(self.sort);
        options.top_k = self.top_k;
        for (category, threshold) in &self.category_threshold {
            options = options.category_threshold(category.parse::<Category>()?, *threshold);
        }
        if let Some(threshold) = self.character_threshold {
            options = options.character_threshold(threshold);
        }
        for (tag, threshold) in &self.tag_threshold {
            options = options.tag_threshold(tag, *threshold);
        }
        if let Some(path) = &self.implications {
            options = options.implications(read_pairs(path)?);
        }
        Ok(options)
    }
}

/// The first two columns of a CSV file without header.
fn read_pairs(path: &std::path::Path) -> Result<Vec<(String, String)>> {
    let failed = |e: String| {
        Error::new(ErrorKind::InvalidInput, format!("cannot read the implications: {e}"))
            .with("file", path.display())
    };
    let text = std::fs::read_to_string(path).map_err(|e| failed(e.to_string()))?;
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
        .map(|line| {
            let pair = line.split_once(',').map(|(a, b)| (a.trim(), b.trim()));
            let pair = pair.filter(|(a, b)| !a.is_empty() && !b.is_empty() && !b.contains(','));
            pair.map(|(a, b)| (a.to_owned(), b.to_owned()))
                .ok_or_else(|| failed(format!("`{line}` is no pair of tags")))
        })
        .collect()
}

impl Caption {
    fn options(&self) -> CaptionOptions {
        let trimmed =
            |texts: &[String]| texts.iter().map(|text| text.trim().to_owned()).collect::<Vec<_>>();
        CaptionOptions {
            separator: self.separator.clone(),
            keep_underscores: self.keep_underscores,
            escape: self.escape,
            weights: self.weights,
            rating: self.rating,
            characters_last: self.characters_last,
            always_first: trimmed(&self.always_first),
            replace: self.replace.clone(),
            prepend: trimmed(&self.prepend),
            append: trimmed(&self.append),
        }
    }
}

impl Output {
    fn options(&self) -> Result<OutputOptions> {
        let existing = if self.skip_existing { Existing::Skip } else { self.existing };
        let format = match (self.format, &self.output) {
            (OutputFormat::Text, Some(_)) => {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    "text is printed; choose --format sidecar, json, jsonl or csv for --output",
                )
                .with("field", "output"));
            }
            (OutputFormat::Sidecar, _) => Format::Sidecar,
            (OutputFormat::Json, _) => Format::Json,
            (OutputFormat::Jsonl, Some(_)) => Format::Jsonl,
            (OutputFormat::Csv, Some(_)) => Format::Csv,
            (OutputFormat::Text | OutputFormat::Jsonl | OutputFormat::Csv, None) => Format::None,
        };
        if format == Format::None && existing != Existing::Overwrite {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "what is printed cannot be skipped or appended to; add --output DIR",
            )
            .with("field", "existing"));
        }
        let mut options = OutputOptions::new(format).existing(existing).full_names(self.full_names);
        options.folder = self.output.clone();
        Ok(options)
    }
}

/// Prints answers as they come.
struct Printer<'a> {
    format: Option<OutputFormat>,
    caption: &'a CaptionOptions,
    meter: &'a Meter,
    control: &'a Control,
}

impl<'a> Printer<'a> {
    fn new(
        output: &Output,
        caption: &'a CaptionOptions,
        meter: &'a Meter,
        control: &'a Control,
    ) -> Self {
        let printed = match output.format {
            OutputFormat::Text => true,
            OutputFormat::Jsonl | OutputFormat::Csv => output.output.is_none(),
            OutputFormat::Sidecar | OutputFormat::Json => false,
        };
        Self { format: printed.then_some(output.format), caption, meter, control }
    }

    fn header(&self) {
        if self.format == Some(OutputFormat::Csv) {
            self.line(FileTags::CSV_HEADER);
        }
    }

    fn print(&self, record: &FileTags<'_>) {
        match (self.format, record.tags) {
            (None, _) => {}
            (Some(OutputFormat::Jsonl), _) => self.line(&record.to_json()),
            (Some(OutputFormat::Csv), _) => self.line(&record.to_csv(self.caption)),
            (Some(_), Ok(tags)) => {
                let rating = tags.rating().map_or("", |tag| &tag.name);
                let path = record.path.display();
                self.line(&format!("{path}: [{rating}] {}", tags.caption(self.caption)));
            }
            // Failures are listed at the end.
            (Some(_), Err(_)) => {}
        }
    }

    fn line(&self, line: &str) {
        if !self.meter.print(line) {
            // Nobody reads any more (`| head`): the rest is not wanted.
            self.control.cancel();
        }
    }
}

fn announce(tagger: &Tagger, skipped: usize) {
    let demo = match tagger.name() {
        "demo" => " - the demo model knows drawn shapes only; choose a real one with --model",
        _ => "",
    };
    eprintln!(
        "{} on {}, {} labels{demo}",
        tagger.name(),
        tagger.placement(),
        tagger.labels().len()
    );
    if skipped > 0 {
        eprintln!("{skipped} images have tags already");
    }
}

/// Prints what happened and gives the exit status.
fn conclude(summary: &Summary, meter: &Meter, quiet: bool) -> u8 {
    if !summary.failures.is_empty() {
        eprintln!("{} images failed:", summary.failures.len());
        for (path, error) in &summary.failures {
            eprintln!("  {}: [{}] {}", path.display(), error.code(), error.message());
        }
    }
    let done = summary.tagged + summary.failures.len();
    if !quiet && (done > 1 || std::io::stderr().is_terminal()) {
        let seconds = meter.seconds();
        let rate = done as f64 / seconds.max(1e-9);
        eprintln!("{} images tagged in {seconds:.1} s, {rate:.1} images/s", summary.tagged);
    }
    match summary {
        _ if summary.cancelled => INTERRUPTED,
        _ if summary.failures.is_empty() => SUCCESS,
        _ if summary.tagged + summary.skipped == 0 => super::FAILURE,
        _ => SOME_FAILED,
    }
}

fn nothing_found(paths: &[PathBuf], recursive: bool) -> Error {
    let hint = if recursive { "" } else { "; folders below are read with --recursive" };
    let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    let message = format!("there are no images in {}{hint}", paths.join(", "));
    Error::new(ErrorKind::InvalidInput, message)
}
