//! Cancelling long work and hearing how far it is.
//!
//! A [`Control`] goes into every call that may take long. Cloning shares the same flag and sink, so
//! one clone stays with whoever presses the button.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// How far a piece of work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Items finished so far, failed ones included. What is made out of noise counts its steps: two
    /// pictures of 50 steps are 100 items.
    pub done: usize,
    /// Items in all, when it is known.
    pub total: Option<usize>,
    /// How long the rest will take at the speed so far, where that can be told.
    pub left: Option<Duration>,
}

/// A coarse picture of what is being made, out of the steps so far.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Preview {
    /// The number of the output, as results count them.
    pub output: usize,
    /// Steps that it has made.
    pub step: usize,
    /// Steps that it will make.
    pub steps: usize,
    /// Pixels in a row, an eighth of the output's in published models.
    pub width: u32,
    /// Rows of pixels.
    pub height: u32,
    /// RGB, three bytes for a pixel: what [`Image::from_rgb8`](crate::Image::from_rgb8) takes.
    pub pixels: Arc<[u8]>,
}

impl Preview {
    /// Of a step of an output: its number, the steps that it has made and will make, and RGB pixels.
    pub fn new(
        output: usize,
        (step, steps): (usize, usize),
        (width, height): (u32, u32),
        pixels: impl Into<Arc<[u8]>>,
    ) -> Self {
        Self { output, step, steps, width, height, pixels: pixels.into() }
    }
}

type Sink<T> = Arc<dyn Fn(T) + Send + Sync>;

/// A cancel flag and sinks of progress, shared by clones.
#[derive(Clone, Default)]
pub struct Control {
    cancelled: Arc<AtomicBool>,
    /// Outputs that were cancelled alone.
    outputs: Arc<Mutex<HashSet<usize>>>,
    progress: Option<Sink<Progress>>,
    preview: Option<Sink<Preview>>,
}

impl Control {
    /// A control that was not cancelled and reports to nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same control with `sink` called after each finished item or step, from the calling
    /// thread.
    #[must_use]
    pub fn on_progress(mut self, sink: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(sink));
        self
    }

    /// The same control with `sink` given a preview after each step of each picture that is made out
    /// of noise, from the calling thread.
    #[must_use]
    pub fn on_preview(mut self, sink: impl Fn(Preview) + Send + Sync + 'static) -> Self {
        self.preview = Some(Arc::new(sink));
        self
    }

    /// Asks the work to stop at the next item or step.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Asks the work to stop at the next step for one output of what is made out of noise, by its number as results
    /// count them. The others go on, without the time that it would have taken.
    pub fn cancel_output(&self, output: usize) {
        self.outputs().insert(output);
    }

    /// Whether [`cancel_output`](Self::cancel_output) was called for this output.
    pub fn is_output_cancelled(&self, output: usize) -> bool {
        self.outputs().contains(&output)
    }

    fn outputs(&self) -> MutexGuard<'_, HashSet<usize>> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As [`check`](Self::check), for one output.
    pub(crate) fn check_output(&self, output: usize) -> Result<()> {
        match self.is_output_cancelled(output) {
            true => Err(Error::new(ErrorKind::Cancelled, "this output was cancelled")),
            false => self.check(),
        }
    }

    /// `Err` of kind [`ErrorKind::Cancelled`] once the work was cancelled.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "cancelled"));
        }
        Ok(())
    }

    pub(crate) fn report(&self, done: usize, total: Option<usize>) {
        self.report_with(done, total, None);
    }

    pub(crate) fn report_with(&self, done: usize, total: Option<usize>, left: Option<Duration>) {
        if let Some(sink) = &self.progress {
            sink(Progress { done, total, left });
        }
    }

    /// Whether somebody wants previews.
    pub(crate) fn has_preview(&self) -> bool {
        self.preview.is_some()
    }

    /// Gives a preview to whoever wants it; for programs that have something of their own in a pipeline's place.
    pub fn show(&self, preview: Preview) {
        if let Some(sink) = &self.preview {
            sink(preview);
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}
