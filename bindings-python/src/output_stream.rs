//! `edit_iter` and `generate_iter`: the outputs of a batch one by one, each as soon as it and all before it
//! are made.

use std::sync::Mutex;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use tagbrush::{Control, Result};

use crate::outputs::{Made, Places};
use crate::running::{Listeners, Pace, Work, check_fork};

/// Outputs in order: tuples as of a batch, or exception objects.
#[pyclass(frozen)]
pub(crate) struct OutputStream {
    state: Mutex<State>,
    control: Control,
}

struct State {
    work: Work<Result<Made>>,
    places: Places,
    /// The number of the next output.
    next: usize,
}

impl OutputStream {
    /// Starts the work, which gives its outputs to the function. It goes on while nobody waits for one.
    pub(crate) fn start(
        py: Python<'_>,
        places: Places,
        listeners: Listeners,
        work: impl FnOnce(&Control, &mut dyn FnMut(Result<Made>)) -> Result<()> + Send + 'static,
    ) -> PyResult<Self> {
        let work = Work::start(py, listeners, Pace::Ahead, |control, answer| {
            if let Err(error) = work(control, answer) {
                answer(Err(error));
            }
        })?;
        let control = work.control().clone();
        Ok(Self { state: Mutex::new(State { work, places, next: 0 }), control })
    }
}

#[pymethods]
impl OutputStream {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        check_fork(py)?;
        // Waiting for another thread here, with the interpreter's lock, could wait for ever.
        let Ok(mut state) = self.state.try_lock() else {
            return Err(PyRuntimeError::new_err(
                "the iterator is in use already, by another thread or itself",
            ));
        };
        let State { work, places, next } = &mut *state;
        if *next == places.outputs() {
            return Ok(None);
        }
        let output = work.next(py)?;
        let number = *next;
        *next += 1;
        places.output(py, number, output).map(Some)
    }

    /// Stops the work; what was not given is dropped.
    fn close(&self) {
        self.control.cancel();
    }
}

impl Drop for OutputStream {
    fn drop(&mut self) {
        self.control.cancel();
    }
}
