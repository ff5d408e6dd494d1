//! Cancelling long work and hearing how far it is.
//!
//! A [`Control`] goes into every call that may take long. Cloning shares the same flag and sink, so
//! one clone stays with whoever presses the button.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// How far a piece of work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Items finished so far, failed ones included.
    pub done: usize,
    /// Items in all, when it is known.
    pub total: Option<usize>,
}

type Sink = Arc<dyn Fn(Progress) + Send + Sync>;

/// A cancel flag and a progress sink, shared by clones.
#[derive(Clone, Default)]
pub struct Control {
    cancelled: Arc<AtomicBool>,
    sink: Option<Sink>,
}

impl Control {
    /// A control that was not cancelled and reports to nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same control with `sink` called after each finished item, from the calling thread.
    #[must_use]
    pub fn on_progress(mut self, sink: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.sink = Some(Arc::new(sink));
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

    /// `Err` of kind [`ErrorKind::Cancelled`] once the work was cancelled.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, "cancelled"));
        }
        Ok(())
    }

    pub(crate) fn report(&self, done: usize, total: Option<usize>) {
        if let Some(sink) = &self.sink {
            sink(Progress { done, total });
        }
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("cancelled", &self.is_cancelled()).finish_non_exhaustive()
    }
}
