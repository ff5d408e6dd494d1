//! How far long work is: a bar on a terminal, a plain line now and then in a pipe.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two plain lines.
const INTERVAL: Duration = Duration::from_secs(10);

/// What is counted.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Unit {
    Images,
    Steps,
    Bytes,
}

/// A bar, or lines, or nothing.
pub(super) struct Meter {
    bar: ProgressBar,
    unit: Unit,
    /// When the last plain line was printed; `None` where a bar is shown, or nothing.
    last: Option<Mutex<Instant>>,
    start: Instant,
}

impl Meter {
    pub(super) fn new(unit: Unit, total: Option<u64>, quiet: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let bar = if quiet || !is_terminal {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(total.unwrap_or(0))
        };
        bar.set_length(total.unwrap_or(0));
        let template = match unit {
            Unit::Images => "{bar:32} {pos}/{len} images  {per_sec}  {eta} left",
            Unit::Steps => "{bar:32} {pos}/{len} steps  {eta} left",
            Unit::Bytes => "{bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            let images = |state: &indicatif::ProgressState, w: &mut dyn std::fmt::Write| {
                // A failed write only leaves the bar as it was.
                let _ = write!(w, "{:.1} images/s", state.per_sec());
            };
            bar.set_style(match unit {
                Unit::Images => style.with_key("per_sec", images),
                Unit::Steps | Unit::Bytes => style,
            });
        }
        let last = (!quiet && !is_terminal).then(|| Mutex::new(Instant::now()));
        Self { bar, unit, last, start: Instant::now() }
    }

    /// `done` of the whole are done.
    pub(super) fn set(&self, done: u64, total: Option<u64>) {
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
        let Some(Ok(mut last)) = self.last.as_ref().map(Mutex::lock) else { return };
        if last.elapsed() >= INTERVAL {
            *last = Instant::now();
            let total = self.bar.length().unwrap_or(0);
            let rate = done as f64 / self.start.elapsed().as_secs_f64();
            let left = total.saturating_sub(done) as f64 / rate.max(1e-9);
            match self.unit {
                Unit::Images => {
                    eprintln!("{done}/{total} images, {rate:.1} images/s, {left:.0} s left");
                }
                Unit::Steps => eprintln!("{done}/{total} steps, {left:.0} s left"),
                Unit::Bytes => {
                    let mega = |bytes: f64| bytes / 1e6;
                    eprintln!(
                        "{:.0}/{:.0} MB, {:.1} MB/s, {left:.0} s left",
                        mega(done as f64),
                        mega(total as f64),
                        mega(rate)
                    );
                }
            }
        }
    }

    /// Prints a line to standard output without disturbing the bar. `false` once nobody reads it.
    pub(super) fn print(&self, line: &str) -> bool {
        use std::io::Write;
        self.bar.suspend(|| writeln!(std::io::stdout().lock(), "{line}").is_ok())
    }

    /// Prints a line to standard error without disturbing the bar.
    pub(super) fn note(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Seconds since the start.
    pub(super) fn seconds(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}
