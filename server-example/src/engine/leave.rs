//! How requests leave a run: alone, so that the others do not wait for what nobody wants, or with the
//! whole run when they were the last.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tagbrush::Control;

use super::lock;

/// Whether a request is still wanted.
#[derive(Default)]
pub(super) struct Leave {
    is_gone: AtomicBool,
    /// The run that it is part of, and which of its outputs are the request's.
    place: Mutex<Option<(Arc<RunState>, Range<usize>)>>,
}

impl Leave {
    pub(super) fn leave(&self) {
        self.is_gone.store(true, Ordering::SeqCst);
        if let Some((run, outputs)) = &*lock(&self.place) {
            run.leave(outputs.clone());
        }
    }

    pub(super) fn skip(&self) {
        if let Some((run, outputs)) = &*lock(&self.place) {
            run.skip(outputs.clone());
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::SeqCst)
    }
}

/// The requests of a run, and what stops it.
pub(super) struct RunState {
    members: Vec<Arc<Leave>>,
    control: Control,
    /// Of each output.
    outputs: Mutex<Vec<Way>>,
}

/// How far an output is.
#[derive(Clone, Copy, Default, PartialEq)]
enum Way {
    #[default]
    Waits,
    IsMade,
    IsGiven,
}

impl RunState {
    /// Requests with the numbers of their outputs become a run.
    pub(super) fn begin(members: Vec<(Arc<Leave>, Range<usize>)>, control: Control) -> Arc<Self> {
        let count = members.last().map_or(0, |(_, outputs)| outputs.end);
        let outputs = Mutex::new(vec![Way::default(); count]);
        let leaves = members.iter().map(|(leave, _)| Arc::clone(leave)).collect();
        let run = Arc::new(Self { members: leaves, control, outputs });
        for (leave, outputs) in members {
            *lock(&leave.place) = Some((Arc::clone(&run), outputs));
            if leave.is_gone() {
                // It may have left before the run was known to it.
                leave.leave();
            }
        }
        run
    }

    /// The run knows its requests, and they know it.
    pub(super) fn end(&self) {
        self.members.iter().for_each(|member| *lock(&member.place) = None);
    }

    pub(super) fn made_a_step(&self, output: usize) {
        if let Some(way) = lock(&self.outputs).get_mut(output) {
            *way = Way::IsMade;
        }
    }

    pub(super) fn gave(&self, output: usize) {
        if let Some(way) = lock(&self.outputs).get_mut(output) {
            *way = Way::IsGiven;
        }
    }

    fn leave(&self, outputs: Range<usize>) {
        match self.members.iter().all(|member| member.is_gone()) {
            true => self.control.cancel(),
            false => outputs.for_each(|output| self.control.cancel_output(output)),
        }
    }

    /// Those that are being made; the next one, before the first step of any.
    fn skip(&self, range: Range<usize>) {
        let ways = lock(&self.outputs);
        let of = |way: Way| {
            let ways = &ways;
            range.clone().filter(move |output| ways.get(*output) == Some(&way))
        };
        let skipped: Vec<_> = match of(Way::IsMade).next() {
            Some(_) => of(Way::IsMade).collect(),
            None => of(Way::Waits).take(1).collect(),
        };
        skipped.into_iter().for_each(|output| self.control.cancel_output(output));
    }
}
