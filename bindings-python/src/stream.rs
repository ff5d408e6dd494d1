//! `tag_iter`: an endless stream of pictures through a tagger, pulled by Python.
//!
//! The core's iterator runs on a thread of its own and is fed through a channel. Python's iterable is
//! only touched in `__next__`, on the thread that calls it, so that its exceptions come out there and no
//! other thread ever waits for the interpreter.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyIterator;
use tagbrush::{Control, Error, ErrorKind, Input, Result, TagOptions, Tags};

use crate::errors::{OrRaise, raised};
use crate::image_in::{input, refuse_single};
use crate::running::{POLL, check_fork};
use crate::tagger::tags_or_exception;

/// Answers in order: tags, or exception objects.
#[pyclass(frozen)]
pub(crate) struct TagStream {
    state: Mutex<State>,
    control: Control,
    /// How many pictures the core wants before it must answer: two batches, as it pulls them itself.
    ahead: usize,
}

struct State {
    /// `None` once it has ended.
    source: Option<Py<PyIterator>>,
    /// `None` once all pictures were given.
    inputs: Option<Sender<Input>>,
    answers: Receiver<Result<Tags>>,
    /// What was pulled and not answered yet.
    places: VecDeque<Place>,
    /// How many of the places the core has.
    given: usize,
    /// What ended the source, to raise after the last answer.
    failure: Option<PyErr>,
}

enum Place {
    Given,
    Failed(PyErr),
}

impl TagStream {
    pub(crate) fn start(
        py: Python<'_>,
        tagger: &tagbrush::Tagger,
        images: &Bound<'_, PyAny>,
        options: TagOptions,
    ) -> PyResult<Self> {
        refuse_single(images)?;
        let source = images.try_iter()?.unbind();
        let (inputs, pulled) = channel();
        let (answer, answers) = channel();
        let (checked, is_checked) = channel();
        let control = Control::new();
        let ahead = 2 * tagger.batch_size();
        let (tagger, handle) = (tagger.clone(), control.clone());
        let body = move || {
            let results = match tagger.tag_iter(pulled, &options, &handle) {
                Ok(results) => results,
                Err(error) => return drop(checked.send(Err(error))),
            };
            if checked.send(Ok(())).is_err() {
                return;
            }
            for result in results {
                if answer.send(result).is_err() {
                    return; // The stream was dropped.
                }
            }
        };
        let spawned = thread::Builder::new().name("tagbrush".to_owned()).spawn(body);
        spawned.map_err(|e| raised(py, &lost().caused_by(e)))?;
        py.detach(move || is_checked.recv()).unwrap_or_else(|_| Err(lost())).or_raise(py)?;
        let state = State {
            source: Some(source),
            inputs: Some(inputs),
            answers,
            places: VecDeque::new(),
            given: 0,
            failure: None,
        };
        Ok(Self { state: Mutex::new(state), control, ahead })
    }

    /// Pulls pictures until the core has enough to answer the oldest place.
    fn fill(&self, py: Python<'_>, state: &mut State) {
        while state.given < self.ahead && !matches!(state.places.front(), Some(Place::Failed(_))) {
            let Some(source) = &state.source else { return };
            let pulled = source.bind(py).clone().next();
            let end = match pulled.map(|object| object.and_then(|object| input(&object))) {
                Some(Ok(Ok(input))) => {
                    let sent =
                        state.inputs.as_ref().is_some_and(|inputs| inputs.send(input).is_ok());
                    if sent {
                        state.places.push_back(Place::Given);
                        state.given += 1;
                        continue;
                    }
                    Some(raised(py, &lost()))
                }
                Some(Ok(Err(failed))) => {
                    state.places.push_back(Place::Failed(failed));
                    continue;
                }
                Some(Err(error)) => Some(error),
                None => None,
            };
            (state.source, state.inputs, state.failure) = (None, None, end);
        }
    }

    fn receive(&self, py: Python<'_>, state: &mut State) -> PyResult<Result<Tags>> {
        let answers = &mut state.answers;
        loop {
            let answers = &mut *answers;
            match py.detach(move || answers.recv_timeout(POLL)) {
                Ok(answer) => return Ok(answer),
                Err(RecvTimeoutError::Disconnected) => return Ok(Err(lost())),
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(signal) = py.check_signals() {
                        self.control.cancel();
                        return Err(signal);
                    }
                }
            }
        }
    }
}

#[pymethods]
impl TagStream {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        check_fork(py)?;
        // Waiting for another thread here, with the interpreter's lock, could wait for ever.
        let Ok(mut state) = self.state.try_lock() else {
            return Err(PyRuntimeError::new_err(
                "tag_iter is in use already, by another thread or itself",
            ));
        };
        let state = &mut *state;
        self.fill(py, state);
        match state.places.pop_front() {
            Some(Place::Given) => {
                state.given -= 1;
                let answer = self.receive(py, state)?;
                tags_or_exception(py, answer).map(Some)
            }
            Some(Place::Failed(error)) => Ok(Some(error.into_value(py).into_bound(py).into_any())),
            None => state.failure.take().map_or(Ok(None), Err),
        }
    }

    /// Stops the work; what was not answered is dropped.
    fn close(&self) {
        self.control.cancel();
    }
}

impl Drop for TagStream {
    fn drop(&mut self) {
        self.control.cancel();
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Internal, "the stream ended without an answer")
}
