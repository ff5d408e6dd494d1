//! `edit_iter`: the outputs of a batch of edits one by one, each as soon as it and all before it are made.

use std::sync::Mutex;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tagbrush::{Control, EditOptions, EditPipeline, Edited, Result};

use crate::edit::Requests;
use crate::running::{Listeners, Pace, Work, check_fork};

/// Outputs in order: tuples as of `edit_batch`, or exception objects.
#[pyclass(frozen)]
pub(crate) struct EditStream {
    state: Mutex<State>,
    control: Control,
}

struct State {
    work: Work<Result<Edited>>,
    requests: Requests,
    /// The number of the next output.
    next: usize,
}

impl EditStream {
    /// Starts the work. It goes on while nobody waits for an output.
    pub(crate) fn start(
        py: Python<'_>,
        pipeline: EditPipeline,
        requests: Requests,
        options: EditOptions,
        listeners: Listeners,
    ) -> PyResult<Self> {
        let asked = requests.asked.clone();
        let work = Work::start(py, listeners, Pace::Ahead, move |control, answer| {
            let made = pipeline.edit_each(&asked, &options, control, |_, output| answer(output));
            if let Err(error) = made {
                answer(Err(error));
            }
        })?;
        let control = work.control().clone();
        Ok(Self { state: Mutex::new(State { work, requests, next: 0 }), control })
    }
}

#[pymethods]
impl EditStream {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        check_fork(py)?;
        // Waiting for another thread here, with the interpreter's lock, could wait for ever.
        let Ok(mut state) = self.state.try_lock() else {
            return Err(PyRuntimeError::new_err(
                "edit_iter is in use already, by another thread or itself",
            ));
        };
        let State { work, requests, next } = &mut *state;
        if *next == requests.outputs() {
            return Ok(None);
        }
        let output = work.next(py)?;
        let number = *next;
        *next += 1;
        requests.output(py, number, output).map(Some)
    }

    /// Stops the work; what was not given is dropped.
    fn close(&self) {
        self.control.cancel();
    }
}

impl Drop for EditStream {
    fn drop(&mut self) {
        self.control.cancel();
    }
}
