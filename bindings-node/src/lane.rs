//! Threads for long work that are not those of Node: its pool of four also serves files and DNS, which
//! an edit of minutes must not hold up.
//!
//! A lane is a queue with a bound on how many of its jobs run at once. Each model has its own, so a
//! long edit holds up nothing but edits with the same model. Threads start when there is work and end
//! when there is none: an idle process has none.

use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread;

use tagbrush::{Error, ErrorKind, Result};

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    threads: usize,
}

/// Jobs that are started in order, at most so many at once.
#[derive(Clone)]
pub(crate) struct Lane {
    most: usize,
    state: Arc<Mutex<State>>,
}

impl Lane {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, state: Arc::default() }
    }

    /// For loading and downloading, each of which waits for something else.
    pub(crate) fn models() -> &'static Self {
        static LANE: LazyLock<Lane> = LazyLock::new(|| Lane::new(16));
        &LANE
    }

    /// For decoding and encoding single pictures.
    pub(crate) fn pictures() -> &'static Self {
        static LANE: LazyLock<Lane> =
            LazyLock::new(|| Lane::new(thread::available_parallelism().map_or(2, usize::from)));
        &LANE
    }

    /// Runs a job when its turn comes. A job must not panic.
    pub(crate) fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.push_back(Box::new(job));
        if state.threads == self.most {
            return Ok(());
        }
        let shared = Arc::clone(&self.state);
        let spawned =
            thread::Builder::new().name("tagbrush".to_owned()).spawn(move || work(&shared));
        match spawned {
            Ok(_) => state.threads += 1,
            // Those that run already will come to it.
            Err(_) if state.threads > 0 => {}
            Err(e) => {
                state.waiting.pop_back();
                let message = format!("cannot start a thread: {e}");
                return Err(Error::new(ErrorKind::OutOfMemory, message).caused_by(e));
            }
        }
        Ok(())
    }
}

/// Works until nothing is waiting.
fn work(shared: &Mutex<State>) {
    loop {
        let job = {
            let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
            match state.waiting.pop_front() {
                Some(job) => job,
                None => {
                    state.threads -= 1;
                    return;
                }
            }
        };
        job();
    }
}
