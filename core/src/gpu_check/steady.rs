//! What a service needs: memory that does not grow, batches that are halved when it is full, and work that
//! goes on after an error.

use candle_core::{DType, Tensor};
use serde_json::json;

use super::Report;
use super::taggers::picture;
use crate::control::Control;
use crate::device::{Placement, classify};
use crate::edit::{EditOptions, EditPipeline, EditRequest, OutputSize};
use crate::error::{Error, Result};
use crate::options::LoadOptions;
use crate::pixels::Input;
use crate::tagger::Tagger;

/// How much is done: enough to tell, or little where a processor has to do it.
struct Extent {
    runs: usize,
    /// Sides of pictures that take turns.
    sides: usize,
    pictures: usize,
    /// Bytes that a batch of all pictures does not fit into.
    left: u64,
}

pub(super) fn run(report: &mut Report, placement: &Placement, quick: bool) -> Result<()> {
    let Extent { runs, sides, pictures, left } = match quick {
        false => Extent { runs: 200, sides: 12, pictures: 4096, left: 64 << 20 },
        true => Extent { runs: 6, sides: 3, pictures: 64, left: 4 << 20 },
    };
    let at = || LoadOptions::default().device(placement.device());
    let edits = EditPipeline::load("demo", &at())?;
    let mut in_use = Vec::new();
    for i in 0..runs {
        // Sizes out of a sequence; the first half meets all that the second half has.
        let side = |i: usize| 32 + 16 * (i % sides) as u32;
        let (width, height) = (side(7 * i), side(5 * i));
        let request = EditRequest::new(picture(width, height, i as u32)?, "make it blue");
        let options =
            EditOptions::default().num_inference_steps(2).size(OutputSize::Exact(width, height));
        edits.edit_batch(&vec![request; 1 + i % 3], &options, &Control::new())?;
        in_use.push(placement.memory().map_or(0, |memory| memory.used));
    }
    let grown = in_use[runs - 1].saturating_sub(in_use[runs / 2]);
    let outcome = report.compare("growth of memory in edits, MB", grown as f32 / 1e6, 1.0);

    // A tagger whose batch does not fit beside a tensor that takes nearly everything.
    let tagger = Tagger::load("demo", &at())?.with_batch_size(pictures)?;
    let one = tagger.scores([picture(64, 64, 1)?], &Control::new()).remove(0)?;
    let free = placement.memory().map_or(0, |memory| memory.free);
    let ballast = usize::try_from(free.saturating_sub(left)).unwrap_or(0);
    let ballast = Tensor::zeros(ballast, DType::U8, placement.candle())
        .map_err(|e| classify(e, "cannot fill the memory"))?;
    let pictures = vec![Input::from(picture(64, 64, 1)?); pictures];
    let answers = tagger.scores(pictures, &Control::new());
    drop(ballast);
    let good = answers.iter().filter(|answer| answer.is_ok()).count();
    let after = tagger.scores([picture(64, 64, 1)?], &Control::new()).remove(0)?;
    let off = super::difference(&after, &one);
    let outcomes = json!({
        "growth": outcome,
        "pictures tagged in a full memory": format!("{good} of {}", answers.len()),
        "after it": report.compare("tags after a full memory", off, 1e-3),
    });
    if good < answers.len() {
        let error = answers.into_iter().find_map(Result::err);
        let first = error.as_ref().map(Error::to_string);
        report.compare("tags in a full memory", f32::NAN, 0.0);
        report.add("first error", json!(first));
    }
    report.add("steadiness", outcomes);
    Ok(())
}
