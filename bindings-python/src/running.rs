//! Long work: off the interpreter's lock, with callbacks, Ctrl-C and a check against forks.
//!
//! The work runs on a thread of its own while the calling thread waits for what it reports. So
//! callbacks run where people expect them (notebooks draw from there), and Ctrl-C is noticed at once and
//! not only when a step of minutes is over. The work stands still while a callback runs.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
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

/// Dropped once the callback has returned, which lets the work go on.
type Handled = SyncSender<()>;

enum Event<T> {
    Progress(Progress, Handled),
    Preview(tagbrush::Preview, Handled),
    Done(thread::Result<T>),
}

/// Runs `work`, which its control can cancel. Ctrl-C and exceptions of callbacks cancel it and are
/// raised once it has stopped; a second Ctrl-C does not wait for that.
pub(crate) fn run<T: Send + 'static>(
    py: Python<'_>,
    listeners: &Listeners,
    work: impl FnOnce(&Control) -> T + Send + 'static,
) -> PyResult<T> {
    check_fork(py)?;
    let (events, mut inbox) = sync_channel(0);
    let mut control = Control::new();
    if listeners.progress.is_some() {
        let events = events.clone();
        control =
            control.on_progress(move |p| tell(&events, |handled| Event::Progress(p, handled)));
    }
    if listeners.preview.is_some() {
        let events = events.clone();
        control = control.on_preview(move |p| tell(&events, |handled| Event::Preview(p, handled)));
    }
    start(py, events, control.clone(), work)?;
    let mut failed = None;
    loop {
        match next(py, &mut inbox) {
            Ok(Event::Done(result)) => {
                let result = result.unwrap_or_else(|panic| resume_unwind(panic));
                return failed.map_or(Ok(result), Err);
            }
            Ok(Event::Progress(progress, _handled)) if failed.is_none() => {
                heard(listeners.progress.as_ref(), &control, &mut failed, |callback| {
                    let left = progress.left.map(|left| left.as_secs_f64());
                    callback.bind(py).call1((progress.done, progress.total, left))
                });
            }
            Ok(Event::Preview(preview, _handled)) if failed.is_none() => {
                heard(listeners.preview.as_ref(), &control, &mut failed, |callback| {
                    callback.bind(py).call1((to_python(py, &preview)?,))
                });
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(lost(py)),
        }
        if let Err(signal) = py.check_signals() {
            control.cancel();
            if failed.is_some() {
                return Err(signal);
            }
            failed = Some(signal);
        }
    }
}

/// Runs `work` that cannot be cancelled. After Ctrl-C it is left to itself.
pub(crate) fn run_or_leave<T: Send + 'static>(
    py: Python<'_>,
    work: impl FnOnce() -> T + Send + 'static,
) -> PyResult<T> {
    check_fork(py)?;
    // Room for the answer, so that work that was left to itself can end.
    let (events, mut inbox) = sync_channel(1);
    start(py, events, Control::new(), |_| work())?;
    loop {
        match next(py, &mut inbox) {
            Ok(Event::Done(result)) => {
                return Ok(result.unwrap_or_else(|panic| resume_unwind(panic)));
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => py.check_signals()?,
            Err(RecvTimeoutError::Disconnected) => return Err(lost(py)),
        }
    }
}

fn start<T: Send + 'static>(
    py: Python<'_>,
    events: SyncSender<Event<T>>,
    control: Control,
    work: impl FnOnce(&Control) -> T + Send + 'static,
) -> PyResult<()> {
    let body = move || {
        // A panic is carried to the caller, where Python shows it.
        let result = catch_unwind(AssertUnwindSafe(|| work(&control)));
        // Nobody listens any more after a second Ctrl-C.
        let _ = events.send(Event::Done(result));
    };
    let spawned = thread::Builder::new().name("tagbrush".to_owned()).spawn(body);
    spawned.map(drop).map_err(|e| {
        let error = Error::new(ErrorKind::OutOfMemory, format!("cannot start a thread: {e}"));
        raised(py, &error.caused_by(e))
    })
}

fn next<T: Send>(
    py: Python<'_>,
    inbox: &mut Receiver<Event<T>>,
) -> Result<Event<T>, RecvTimeoutError> {
    py.detach(move || inbox.recv_timeout(POLL))
}

/// Hands an event to the calling thread and waits until it was handled.
fn tell<T>(events: &SyncSender<Event<T>>, event: impl FnOnce(Handled) -> Event<T>) {
    let (handled, wait) = sync_channel(0);
    if events.send(event(handled)).is_ok() {
        // The end of the channel is the answer.
        let _ = wait.recv();
    }
}

/// Calls a callback; `False` and exceptions cancel the work.
fn heard<'py>(
    callback: Option<&Py<PyAny>>,
    control: &Control,
    failed: &mut Option<PyErr>,
    call: impl FnOnce(&Py<PyAny>) -> PyResult<Bound<'py, PyAny>>,
) {
    match callback.map(call) {
        // A bool of Python or numpy; no other false value.
        Some(Ok(answer)) if answer.extract::<bool>().is_ok_and(|go_on| !go_on) => control.cancel(),
        Some(Err(error)) => {
            control.cancel();
            *failed = Some(error);
        }
        Some(Ok(_)) | None => {}
    }
}

fn to_python(py: Python<'_>, preview: &tagbrush::Preview) -> PyResult<Py<Preview>> {
    let (width, height) = (preview.width, preview.height);
    let image = tagbrush::Image::from_rgb8(width, height, preview.pixels.clone());
    let image = Py::new(py, Image(image.map_err(|e| raised(py, &e))?))?;
    Py::new(py, Preview { output: preview.output, step: preview.step, steps: preview.steps, image })
}

fn lost(py: Python<'_>) -> PyErr {
    raised(py, &Error::new(ErrorKind::Internal, "the work ended without an answer"))
}
