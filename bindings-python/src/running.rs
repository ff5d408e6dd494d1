//! Long work: off the interpreter's lock, with callbacks, Ctrl-C and a check against forks.
//!
//! The work runs on a thread of its own while the calling thread waits for what it reports. So
//! callbacks run where people expect them (notebooks draw from there), and Ctrl-C is noticed at once and
//! not only when a step of minutes is over.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::Duration;

use pyo3::prelude::*;
use tagbrush::{Control, Error, ErrorKind, Progress};

use crate::errors::raised;
use crate::image::Image;

/// How often the calling thread looks for Ctrl-C.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// The process that started the core's threads; 0 while there are none.
static HOME: AtomicU32 = AtomicU32::new(0);

/// Refuses work in a process that was forked after the core had started its threads: they do not exist
/// here, and waiting for them would never end.
pub(crate) fn check_fork(py: Python<'_>) -> PyResult<()> {
    let here = process::id();
    match HOME.compare_exchange(0, here, Ordering::Relaxed, Ordering::Relaxed) {
        Err(home) if home != here => Err(raised(
            py,
            &Error::new(
                ErrorKind::Unsupported,
                "this process was forked after tagbrush had started its threads; start processes with \
                 multiprocessing.get_context(\"spawn\"), or load models only after the fork",
            ),
        )),
        _ => Ok(()),
    }
}

/// A picture in the making, as given to `preview` callbacks.
#[pyclass(frozen, module = "tagbrush")]
pub(crate) struct Preview {
    #[pyo3(get)]
    output: usize,
    #[pyo3(get)]
    step: usize,
    #[pyo3(get)]
    steps: usize,
    #[pyo3(get)]
    image: Py<Image>,
}

#[pymethods]
impl Preview {
    fn __repr__(&self) -> String {
        format!("Preview(output={}, step={}, steps={})", self.output, self.step, self.steps)
    }
}

/// What Python wants to hear of while work runs. A callback that gives `False` cancels it.
#[derive(Default)]
pub(crate) struct Listeners {
    pub(crate) progress: Option<Py<PyAny>>,
    pub(crate) preview: Option<Py<PyAny>>,
}

/// Whether work waits for its callbacks.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Pace {
    /// It stands still while one runs.
    InStep,
    /// It goes on: nobody may be waiting for it just now, and callbacks are called later.
    Ahead,
}

/// Dropped once the callback has returned, which lets the work go on.
type Handled = SyncSender<()>;

enum Event<T> {
    Progress(Progress, Option<Handled>),
    Preview(tagbrush::Preview, Option<Handled>),
    Answer(thread::Result<T>),
}

/// Work on a thread of its own, for the thread that waits for its answers.
pub(crate) struct Work<T> {
    inbox: Receiver<Event<T>>,
    listeners: Listeners,
    control: Control,
}

impl<T: Send + 'static> Work<T> {
    /// Starts `work`, which its control can cancel and which gives its answers to the function.
    pub(crate) fn start(
        py: Python<'_>,
        listeners: Listeners,
        pace: Pace,
        work: impl FnOnce(&Control, &mut dyn FnMut(T)) + Send + 'static,
    ) -> PyResult<Self> {
        check_fork(py)?;
        let (events, inbox) = channel();
        // Ours has no sinks: the channel ends with the work.
        let control = Control::new();
        let mut told = control.clone();
        if listeners.progress.is_some() {
            let events = events.clone();
            told = told.on_progress(move |p| tell(&events, pace, |h| Event::Progress(p, h)));
        }
        if listeners.preview.is_some() {
            let events = events.clone();
            told = told.on_preview(move |p| tell(&events, pace, |h| Event::Preview(p, h)));
        }
        let body = move || {
            // Nobody may listen any more; then answers are dropped.
            let mut answer = |answer| drop(events.send(Event::Answer(Ok(answer))));
            // A panic is carried to the caller, where Python shows it.
            let ended = catch_unwind(AssertUnwindSafe(|| work(&told, &mut answer)));
            if let Err(panic) = ended {
                let _ = events.send(Event::Answer(Err(panic)));
            }
        };
        let spawned = thread::Builder::new().name("tagbrush".to_owned()).spawn(body);
        spawned.map_err(|e| {
            let error = Error::new(ErrorKind::OutOfMemory, format!("cannot start a thread: {e}"));
            raised(py, &error.caused_by(e))
        })?;
        Ok(Self { inbox, listeners, control })
    }

    /// Waits for the next answer; callbacks run meanwhile.
    ///
    /// Ctrl-C and exceptions of callbacks cancel the work and are raised at once. What it still
    /// answers may be waited for; callbacks are not called any more.
    pub(crate) fn next(&mut self, py: Python<'_>) -> PyResult<T> {
        loop {
            let inbox = &mut self.inbox;
            let heard = match py.detach(move || inbox.recv_timeout(POLL)) {
                Ok(Event::Answer(answer)) => {
                    return Ok(answer.unwrap_or_else(|panic| resume_unwind(panic)));
                }
                Ok(Event::Progress(progress, _handled)) => {
                    self.heard(self.listeners.progress.as_ref(), |callback| {
                        let left = progress.left.map(|left| left.as_secs_f64());
                        callback.bind(py).call1((progress.done, progress.total, left))
                    })
                }
                Ok(Event::Preview(preview, _handled)) => self
                    .heard(self.listeners.preview.as_ref(), |callback| {
                        callback.bind(py).call1((to_python(py, &preview)?,))
                    }),
                Err(RecvTimeoutError::Timeout) => Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(lost(py)),
            };
            if let Err(error) = heard.and_then(|()| py.check_signals()) {
                self.control.cancel();
                self.listeners = Listeners::default();
                return Err(error);
            }
        }
    }

    /// What cancels the work.
    pub(crate) fn control(&self) -> &Control {
        &self.control
    }

    /// Calls a callback; `False` cancels the work.
    fn heard<'py>(
        &self,
        callback: Option<&Py<PyAny>>,
        call: impl FnOnce(&Py<PyAny>) -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        if let Some(answer) = callback.map(call).transpose()?
            // A bool of Python or numpy; no other false value.
            && answer.extract::<bool>().is_ok_and(|go_on| !go_on)
        {
            self.control.cancel();
        }
        Ok(())
    }
}

/// Runs `work`, which its control can cancel. Ctrl-C and exceptions of callbacks cancel it and are
/// raised once it has stopped; a second Ctrl-C does not wait for that.
pub(crate) fn run<T: Send + 'static>(
    py: Python<'_>,
    listeners: Listeners,
    work: impl FnOnce(&Control) -> T + Send + 'static,
) -> PyResult<T> {
    let mut work =
        Work::start(py, listeners, Pace::InStep, |control, answer| answer(work(control)))?;
    work.next(py).or_else(|failed| work.next(py).and(Err(failed)))
}

/// Runs `work` that cannot be cancelled. After Ctrl-C it is left to itself.
pub(crate) fn run_or_leave<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    Work::start(py, Listeners::default(), Pace::InStep, |_, answer| answer(work()))?.next(py)
}

/// Hands an event to the thread that waits, and waits itself until it was handled or not.
fn tell<T>(events: &Sender<Event<T>>, pace: Pace, event: impl FnOnce(Option<Handled>) -> Event<T>) {
    if pace == Pace::Ahead {
        return drop(events.send(event(None)));
    }
    let (handled, wait) = sync_channel(0);
    if events.send(event(Some(handled))).is_ok() {
        // The end of the channel is the answer.
        let _ = wait.recv();
    }
}

fn to_python(py: Python<'_>, preview: &tagbrush::Preview) -> PyResult<Py<Preview>> {
    let (width, height) = (preview.width, preview.height);
    let image = tagbrush::Image::from_rgb8(width, height, &*preview.pixels);
    let image = Py::new(py, Image(image.map_err(|e| raised(py, &e))?))?;
    Py::new(py, Preview { output: preview.output, step: preview.step, steps: preview.steps, image })
}

fn lost(py: Python<'_>) -> PyErr {
    raised(py, &Error::new(ErrorKind::Internal, "the work ended without an answer"))
}
