//! A stack of equal blocks, of which all stay in memory or only the first ones: what a network is made
//! of whose weights may be larger than the memory.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;

use candle_core::Result;

use crate::error;
use crate::weights::Scope;

/// Makes a block, given its number and its own scope.
type Load<B> = dyn Fn(usize, &Scope) -> error::Result<B> + Send + Sync;

/// Blocks in the order in which they run.
pub(crate) struct Blocks<B> {
    kept: Vec<B>,
    count: usize,
    scope: Scope,
    load: Arc<Load<B>>,
}

impl<B: Send> Blocks<B> {
    /// `count` blocks, the first `keep` of which stay in memory. The others are read again each time
    /// they run. That they are there and have the right shapes is found out now: from the file's
    /// header, since all blocks but the last are alike.
    pub(crate) fn load(
        scope: &Scope,
        count: usize,
        keep: usize,
        load: impl Fn(usize, &Scope) -> error::Result<B> + Send + Sync + 'static,
    ) -> error::Result<Self> {
        let block = |i: usize| load(i, &scope.at(i));
        let kept: Vec<B> = (0..count.min(keep)).map(block).collect::<error::Result<_>>()?;
        if kept.len() < count {
            if kept.is_empty() {
                block(0)?;
            }
            let tensors = scope.at(0).taken();
            for i in kept.len().max(1)..count - 1 {
                for (name, shape) in &tensors {
                    scope.at(i).expect(shape.as_slice(), name)?;
                }
            }
            block(count - 1)?;
        }
        Ok(Self { kept, count, scope: scope.clone(), load: Arc::new(load) })
    }

    /// Calls `run` with every block and its number. While one runs that does not stay, the next is
    /// read.
    pub(crate) fn for_each(&self, mut run: impl FnMut(usize, &B) -> Result<()>) -> Result<()> {
        for (i, block) in self.kept.iter().enumerate() {
            run(i, block)?;
        }
        let (count, scope, load) = (self.count, &self.scope, &*self.load);
        thread::scope(|threads| {
            let read = |i: usize| (i < count).then(|| threads.spawn(move || load(i, &scope.at(i))));
            let mut next = read(self.kept.len());
            for i in self.kept.len()..count {
                let Some(reading) = next.take() else { break };
                let block = reading.join().unwrap_or_else(|panic| resume_unwind(panic));
                next = read(i + 1);
                run(i, &block.map_err(candle_core::Error::wrap)?)?;
            }
            Ok(())
        })
    }
}
