//! An endless stream of items through two stages, with bounded memory and results in order.
//!
//! Items are prepared on the thread pool (decode, resize) while the calling thread runs earlier
//! ones through the network. At most two batches are in flight, whatever the stream's length. An
//! item that fails, or whose preparation panics, becomes one `Err` in its place.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use super::heap::keep_freed_memory;
use crate::control::Control;
use crate::error::{Error, ErrorKind, Result};

/// What happens to the items of a stream.
pub(crate) trait Stage: Send + Sync + 'static {
    type Input: Send + 'static;
    type Prepared: Send + 'static;
    type Output;

    /// Makes one item ready for the network. Runs on the pool.
    fn prepare(&self, input: Self::Input) -> Result<Self::Prepared>;

    /// Runs a batch, one output per item. Runs on the calling thread.
    fn forward(&self, batch: &[Self::Prepared]) -> Result<Vec<Result<Self::Output>>>;
}

/// Results of a [`Stage`] over an iterator of inputs, in order, one for each input.
pub(crate) struct Stream<S: Stage, I> {
    stage: Arc<S>,
    inputs: I,
    batch: usize,
    control: Control,
    total: Option<usize>,
    done: usize,
    pending: VecDeque<Receiver<Result<S::Prepared>>>,
    ready: VecDeque<Result<S::Output>>,
}

impl<S: Stage, I: Iterator<Item = S::Input>> Stream<S, I> {
    /// A stream that runs `batch` items at a time. `total` is what progress reports as the whole.
    pub(crate) fn new(
        stage: Arc<S>,
        inputs: I,
        batch: usize,
        control: Control,
        total: Option<usize>,
    ) -> Self {
        keep_freed_memory();
        let (pending, ready) = (VecDeque::new(), VecDeque::new());
        Self { stage, inputs, batch: batch.max(1), control, total, done: 0, pending, ready }
    }

    /// Starts preparing items until two batches are in flight.
    fn fill(&mut self) {
        while self.pending.len() < 2 * self.batch {
            let Some(input) = self.inputs.next() else { return };
            // Room for the one result, so that no pool thread ever waits for the consumer.
            let (sender, receiver) = sync_channel(1);
            self.pending.push_back(receiver);
            if self.control.is_cancelled() {
                continue; // The dropped sender answers for the item; see `receive`.
            }
            let stage = Arc::clone(&self.stage);
            let control = self.control.clone();
            rayon::spawn(move || {
                let prepared = control.check().and_then(|()| prepare(&*stage, input));
                // A closed channel means that the stream was dropped: nobody wants the result.
                let _ = sender.send(prepared);
            });
        }
    }

    fn receive(&self, receiver: &Receiver<Result<S::Prepared>>) -> Result<S::Prepared> {
        let prepared = receiver.recv().unwrap_or_else(|_| {
            self.control.check()?;
            Err(Error::new(ErrorKind::Internal, "an item was lost before it was prepared"))
        });
        self.control.check()?;
        prepared
    }

    /// Runs the oldest batch.
    fn run(&mut self) {
        let count = self.batch.min(self.pending.len());
        let receivers: Vec<_> = self.pending.drain(..count).collect();
        let prepared: Vec<_> = receivers.iter().map(|receiver| self.receive(receiver)).collect();
        let mut batch = Vec::with_capacity(count);
        let places: Vec<Result<()>> =
            prepared.into_iter().map(|item| item.map(|item| batch.push(item))).collect();
        let mut outputs = forward_halving(&*self.stage, &batch).into_iter();
        for place in places {
            let lost = || Err(Error::new(ErrorKind::Internal, "a batch gave too few results"));
            self.ready.push_back(place.and_then(|()| outputs.next().unwrap_or_else(lost)));
        }
    }
}

impl<S: Stage, I: Iterator<Item = S::Input>> Iterator for Stream<S, I> {
    type Item = Result<S::Output>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            self.fill();
            if self.pending.is_empty() {
                return None;
            }
            self.run();
        }
        let result = self.ready.pop_front();
        self.done += 1;
        self.control.report(self.done, self.total);
        result
    }
}

/// `prepare`, with a panic of a decoder turned into that item's error.
fn prepare<S: Stage>(stage: &S, input: S::Input) -> Result<S::Prepared> {
    catch_unwind(AssertUnwindSafe(|| stage.prepare(input))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(Error::new(ErrorKind::Internal, format!("preparing the image panicked: {text}")))
    })
}

/// Runs a batch; when memory runs out, its halves, down to single items.
fn forward_halving<S: Stage>(stage: &S, batch: &[S::Prepared]) -> Vec<Result<S::Output>> {
    if batch.is_empty() {
        return Vec::new();
    }
    match stage.forward(batch) {
        Ok(outputs) => outputs,
        Err(error) if error.kind() == ErrorKind::OutOfMemory && batch.len() > 1 => {
            let (first, second) = batch.split_at(batch.len() / 2);
            let mut outputs = forward_halving(stage, first);
            outputs.extend(forward_halving(stage, second));
            outputs
        }
        Err(error) => {
            // The same failure for each item; an error holds its cause and cannot be cloned.
            let again = || {
                let copy = Error::new(error.kind(), error.message().to_owned());
                error.context().iter().fold(copy, |copy, (key, value)| copy.with(key, value))
            };
            batch.iter().map(|_| Err(again())).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Doubles numbers. 13 is bad input, 66 makes the decoder panic, and a batch longer than
    /// `room` is out of memory.
    struct Doubler {
        room: usize,
        batches: Mutex<Vec<usize>>,
    }

    impl Stage for Doubler {
        type Input = u32;
        type Prepared = u32;
        type Output = u32;

        fn prepare(&self, input: u32) -> Result<u32> {
            assert_ne!(input, 66, "boom");
            if input == 13 { Err(Error::invalid_input("unlucky")) } else { Ok(input) }
        }

        fn forward(&self, batch: &[u32]) -> Result<Vec<Result<u32>>> {
            self.batches.lock().unwrap().push(batch.len());
            if batch.len() > self.room {
                return Err(Error::new(ErrorKind::OutOfMemory, "full"));
            }
            Ok(batch.iter().map(|x| Ok(2 * x)).collect())
        }
    }

    fn stream(
        room: usize,
        inputs: std::ops::Range<u32>,
        batch: usize,
        control: &Control,
    ) -> Stream<Doubler, std::ops::Range<u32>> {
        let stage = Arc::new(Doubler { room, batches: Mutex::default() });
        Stream::new(stage, inputs, batch, control.clone(), None)
    }

    #[test]
    fn results_are_in_order_and_failures_stay_in_their_place() {
        for batch in [1, 2, 3, 7, 64, 1000] {
            let results: Vec<_> = stream(1000, 0..100, batch, &Control::new()).collect();
            assert_eq!(results.len(), 100);
            for (i, result) in results.iter().enumerate() {
                match (i, result) {
                    (13, Err(error)) => assert_eq!(error.kind(), ErrorKind::InvalidInput),
                    (66, Err(error)) => assert!(error.to_string().contains("boom")),
                    (i, Ok(value)) => assert_eq!(*value as usize, 2 * i),
                    (i, Err(error)) => panic!("{i}: {error}"),
                }
            }
        }
    }

    #[test]
    fn a_full_memory_halves_the_batch() {
        let stream = stream(3, 0..10, 8, &Control::new());
        let stage = Arc::clone(&stream.stage);
        assert!(stream.map(Result::unwrap).eq((0..10).map(|x| 2 * x)));
        assert_eq!(*stage.batches.lock().unwrap(), [8, 4, 2, 2, 4, 2, 2, 2]);
        let none = super::tests::stream(0, 0..3, 2, &Control::new());
        assert!(none.map(|r| r.unwrap_err().kind()).all(|kind| kind == ErrorKind::OutOfMemory));
    }

    #[test]
    fn after_a_cancel_every_remaining_item_says_so() {
        let control = Control::new();
        let mut stream = stream(1000, 0..50, 4, &control);
        assert_eq!(stream.next().unwrap().unwrap(), 0);
        control.cancel();
        let rest: Vec<_> = stream.collect();
        assert_eq!(rest.len(), 49);
        // What had been computed before stays valid.
        assert!(rest[..3].iter().all(Result::is_ok));
        assert!(
            rest[3..]
                .iter()
                .all(|r| { r.as_ref().is_err_and(|error| error.kind() == ErrorKind::Cancelled) })
        );
    }

    #[test]
    fn progress_counts_every_item_and_memory_is_bounded() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let control = Control::new().on_progress(move |p| sink.lock().unwrap().push(p.done));
        let pulled = std::cell::Cell::new(0u32);
        let inputs = (0..40).inspect(|_| pulled.set(pulled.get() + 1));
        let stage = Arc::new(Doubler { room: 9, batches: Mutex::default() });
        let mut stream = Stream::new(stage, inputs, 5, control, Some(40));
        let mut done = 0;
        while stream.next().is_some() {
            done += 1;
            assert!(pulled.get() <= done + 10, "{} pulled after {done}", pulled.get());
        }
        assert!(seen.lock().unwrap().iter().copied().eq(1..=40));
    }
}
