//! A stack of equal blocks, of which all stay in memory or only the first ones: what a network is made
//! of whose weights may be larger than the memory.

use std::panic::resume_unwind;
use std::sync::{Arc, OnceLock};
use std::thread;

use candle_core::Result;

use crate::error;
use crate::weights::Scope;

/// Makes a block, given its number and its own scope.
type Load<B> = dyn Fn(usize, &Scope) -> error::Result<B> + Send + Sync;

/// How many blocks stay in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// All of them, read at once.
    All,
    /// The first ones, each from the first time on that it runs; the others are read again each time
    /// they run.
    First(usize),
}

/// Blocks in the order in which they run.
pub(crate) struct Blocks<B> {
    /// Those that stay, once they were read.
    kept: Vec<OnceLock<B>>,
    count: usize,
    scope: Scope,
    load: Arc<Load<B>>,
}

impl<B: Send + Sync> Blocks<B> {
    /// `count` blocks. Those that are read later are not looked at now: a trial does that, which finds
    /// out from the file's header whether all blocks are there and have the right shapes. All but the
    /// last are alike.
    pub(crate) fn load(
        scope: &Scope,
        count: usize,
        keep: Keep,
        load: impl Fn(usize, &Scope) -> error::Result<B> + Send + Sync + 'static,
    ) -> error::Result<Self> {
        let block = |i: usize| load(i, &scope.at(i));
        let mut kept: Vec<OnceLock<B>> = Vec::new();
        match keep {
            _ if scope.is_trial() => {
                for i in [0, count.saturating_sub(1)].into_iter().take(count) {
                    block(i)?;
                }
                let tensors = scope.at(0).taken();
                for i in 1..count.saturating_sub(1) {
                    for (name, shape) in &tensors {
                        scope.at(i).expect(shape.as_slice(), name)?;
                    }
                }
            }
            Keep::All => {
                kept = (0..count)
                    .map(|i| block(i).map(OnceLock::from))
                    .collect::<error::Result<_>>()?;
            }
            Keep::First(keep) => kept.resize_with(count.min(keep), OnceLock::new),
        }
        Ok(Self { kept, count, scope: scope.clone(), load: Arc::new(load) })
    }

    /// Whether all blocks stay in memory and are there.
    pub(crate) fn are_in_memory(&self) -> bool {
        self.kept.len() == self.count && self.kept.iter().all(|block| block.get().is_some())
    }

    /// Calls `run` with every block and its number. While one runs, the next one that is not in memory
    /// is read.
    pub(crate) fn for_each(&self, mut run: impl FnMut(usize, &B) -> Result<()>) -> Result<()> {
        let (scope, load) = (&self.scope, &*self.load);
        let kept = |i: usize| self.kept.get(i).and_then(OnceLock::get);
        thread::scope(|threads| {
            // Reading starts at the first block from `i` on that has to be read.
            let read = |i: usize| {
                let i = (i..self.count).find(|i| kept(*i).is_none())?;
                Some(threads.spawn(move || load(i, &scope.at(i))))
            };
            let mut next = read(0);
            for i in 0..self.count {
                if let Some(block) = kept(i) {
                    run(i, block)?;
                    continue;
                }
                let Some(reading) = next.take() else { break };
                let block = reading.join().unwrap_or_else(|panic| resume_unwind(panic));
                let block = block.map_err(candle_core::Error::wrap)?;
                match self.kept.get(i) {
                    None => {
                        next = read(i + 1);
                        run(i, &block)?;
                    }
                    Some(stays) => {
                        let block = stays.get_or_init(|| block);
                        next = read(i + 1);
                        run(i, block)?;
                    }
                }
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

    fn load(weights: &Weights, keep: Keep) -> error::Result<Blocks<Tensor>> {
        Blocks::load(&weights.root().at("blocks"), 5, keep, |_, scope| scope.get(2, "weight"))
    }

    #[test]
    fn blocks_run_in_order_whether_they_stay_or_not() {
        for keep in [0, 1, 3, 5, usize::MAX].map(Keep::First).into_iter().chain([Keep::All]) {
            let weights = weights(0..5);
            let blocks = load(&weights, keep).unwrap();
            assert_eq!(blocks.are_in_memory(), keep == Keep::All);
            for _ in 0..2 {
                let mut seen = Vec::new();
                let run = blocks.for_each(|i, block| {
                    seen.push((i, block.to_vec1::<f32>()?[0] as usize));
                    Ok(())
                });
                run.unwrap();
                assert_eq!(seen, [0, 1, 2, 3, 4].map(|i| (i, i)));
            }
            let stay = !matches!(keep, Keep::First(0..5));
            assert_eq!(blocks.are_in_memory(), stay, "{keep:?}");
            let mut count = 0;
            let stopped = blocks.for_each(|i, _| {
                count += 1;
                if i == 3 { candle_core::bail!("stop") } else { Ok(()) }
            });
            assert!(stopped.is_err() && count == 4);
        }
    }

    #[test]
    fn what_is_missing_is_found_by_a_trial() {
        for missing in 0..5 {
            let weights = weights((0..5).filter(|i| *i != missing));
            for weights in [weights.clone().trial(), weights] {
                let error = load(&weights, Keep::All).err().unwrap();
                assert!(error.to_string().contains(&format!("blocks.{missing}.weight")), "{error}");
            }
        }
        let whole = weights(0..5);
        load(&whole.clone().trial(), Keep::All).unwrap();
        whole.check_all_taken(|_| false).unwrap();
    }

    #[test]
    fn a_run_that_stops_early_keeps_what_it_read() {
        let blocks = load(&weights(0..5), Keep::First(3)).unwrap();
        let stop = |at: usize| {
            blocks.for_each(|i, _| if i == at { candle_core::bail!("stop") } else { Ok(()) })
        };
        assert!(stop(1).is_err());
        assert!(stop(5).is_ok());
        assert!(blocks.kept.iter().all(|block| block.get().is_some()));
    }
}
