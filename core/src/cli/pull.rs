//! `tagbrush pull`: download a model before it is needed.

use std::path::PathBuf;
use std::sync::Arc;

use crate::{Control, ErrorKind, PullOptions, Result};
use clap::Args;

use super::progress::{Meter, Unit};
use super::{INTERRUPTED, SUCCESS, cancel_on_interrupt};

/// Download a model, so that it can be used offline
///
/// A download that was cut continues where it stopped, and every file is checked.
#[derive(Args)]
#[command(after_help = "\
Examples:
  tagbrush pull wd-vit-tagger-v3
  tagbrush pull qwen-image-edit-2511
  tagbrush pull SmilingWolf/wd-swinv2-tagger-v3 --cache-dir models")]
pub(super) struct PullCommand {
    /// The model's id on the hub (owner/name, @revision optional) or one of its known names
    model: String,
    /// The folder for downloaded models
    #[arg(long, value_name = "DIR", env = "TAGBRUSH_CACHE")]
    cache_dir: Option<PathBuf>,
    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
}

impl PullCommand {
    pub(super) fn run(self) -> Result<u8> {
        let meter = Arc::new(Meter::new(Unit::Bytes, None, self.quiet));
        let sink = Arc::clone(&meter);
        let control = Control::new()
            .on_progress(move |p| sink.set(p.done as u64, p.total.map(|total| total as u64)));
        cancel_on_interrupt(&control);
        let options = PullOptions { cache_dir: self.cache_dir, ..PullOptions::default() };
        let result = crate::pull(&self.model, &options, &control);
        meter.finish();
        match result {
            Ok(folder) => {
                println!("{}", folder.display());
                Ok(SUCCESS)
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => Ok(INTERRUPTED),
            Err(error) => Err(error),
        }
    }
}
