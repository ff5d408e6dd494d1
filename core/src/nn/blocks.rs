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

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device, Tensor};

    use super::*;
    use crate::weights::Weights;

    fn weights(blocks: impl Iterator<Item = usize>) -> Weights {
        let tensors = blocks.map(|i| {
            let value = Tensor::new(&[i as f32, 1.0], &Device::Cpu).unwrap();
            (format!("blocks.{i}.weight"), value)
        });
        Weights::made(tensors.collect(), "made".to_owned(), &Device::Cpu, DType::F32)
    }

    fn load(weights: &Weights, keep: usize) -> error::Result<Blocks<Tensor>> {
        Blocks::load(&weights.root().at("blocks"), 5, keep, |_, scope| scope.get(2, "weight"))
    }

    #[test]
    fn blocks_run_in_order_whether_they_stay_or_not() {
        for keep in [0, 1, 3, 5, usize::MAX] {
            let weights = weights(0..5);
            let blocks = load(&weights, keep).unwrap();
            weights.check_all_taken(|_| false).unwrap();
            for _ in 0..2 {
                let mut seen = Vec::new();
                let run = blocks.for_each(|i, block| {
                    seen.push((i, block.to_vec1::<f32>()?[0] as usize));
                    Ok(())
                });
                run.unwrap();
                assert_eq!(seen, [0, 1, 2, 3, 4].map(|i| (i, i)));
            }
            let mut count = 0;
            let stopped = blocks.for_each(|i, _| {
                count += 1;
                if i == 3 { candle_core::bail!("stop") } else { Ok(()) }
            });
            assert!(stopped.is_err() && count == 4);
        }
    }

    #[test]
    fn what_is_missing_is_found_before_anything_runs() {
        for missing in 0..5 {
            let weights = weights((0..5).filter(|i| *i != missing));
            for keep in [0, 2, 5] {
                let error = load(&weights, keep).err().unwrap();
                assert!(error.to_string().contains(&format!("blocks.{missing}.weight")), "{error}");
            }
        }
    }
}
