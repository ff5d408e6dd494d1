//! How much of the networks stays in memory.
//!
//! The networks of an edit are used one after the other: text encoder, transformer, autoencoder.
//! Without a bound all of them stay. With one, a network makes room for the next, and blocks that do
//! not fit are read from their files again whenever they run.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::DType;

use crate::error::{Error, ErrorKind, Result};
use crate::weights::Source;

/// What a program takes besides weights and values: code, stacks, decoded pictures.
const OVERHEAD: u64 = 64 << 20;
/// Blocks in memory while blocks are read again: the one that runs, and the next. Each is there twice
/// for a moment, as it is stored and as it is used.
const READ: u64 = 3;

/// A network that may be in memory or not.
pub(super) struct Slot<T>(Mutex<Option<Arc<T>>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Slot<T> {
    /// The network, loaded if it is not there.
    pub(super) fn get(&self, load: impl FnOnce() -> Result<T>) -> Result<Arc<T>> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(network) = &*slot {
            return Ok(Arc::clone(network));
        }
        let network = Arc::new(load()?);
        *slot = Some(Arc::clone(&network));
        Ok(network)
    }

    /// Lets go of the network.
    pub(super) fn release(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Bytes of a network's tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bytes {
    /// Of one block.
    pub(super) block: u64,
    pub(super) blocks: usize,
    /// Of everything else that has to be there.
    pub(super) rest: u64,
}

impl Bytes {
    /// Of the tensors of `source` as `dtype`. `block` tells the number of the block that a tensor is
    /// in, `counted` whether a tensor is kept at all.
    pub(super) fn of(
        source: &dyn Source,
        dtype: DType,
        blocks: usize,
        block: impl Fn(&str) -> bool,
        counted: impl Fn(&str) -> bool,
    ) -> Self {
        let (mut in_blocks, mut rest) = (0u64, 0u64);
        for name in source.names().iter().filter(|name| counted(name)) {
            let count = source.shape(name).unwrap_or_default().iter().product::<usize>() as u64;
            let bytes = count * dtype.size_in_bytes() as u64;
            *if block(name) { &mut in_blocks } else { &mut rest } += bytes;
        }
        Self { block: in_blocks.div_ceil(blocks.max(1) as u64), blocks, rest }
    }

    pub(super) fn total(&self) -> u64 {
        self.rest + self.block * self.blocks as u64
    }

    /// With no block that stays.
    pub(super) fn least(&self) -> u64 {
        self.rest + READ * self.block
    }

    /// How many blocks stay in `memory` bytes beside `other` bytes, or an error if not even one block
    /// after the other fits.
    pub(super) fn keep(&self, memory: Option<u64>, other: u64) -> Result<usize> {
        let Some(memory) = memory else { return Ok(self.blocks) };
        let beside = OVERHEAD + other;
        if beside + self.total() <= memory {
            return Ok(self.blocks);
        }
        let least = beside + self.least();
        if memory < least {
            return Err(Error::new(
                ErrorKind::OutOfMemory,
                format!(
                    "{} MB of memory are allowed, but this model and these pictures take at least \
                     {} MB",
                    memory >> 20,
                    (least >> 20) + 1
                ),
            )
            .with("field", "max_memory"));
        }
        Ok((((memory - least) / self.block.max(1)) as usize).min(self.blocks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stay_as_far_as_memory_goes() {
        let bytes = Bytes { block: 100 << 20, blocks: 10, rest: 50 << 20 };
        assert_eq!(bytes.keep(None, u64::MAX).unwrap(), 10);
        assert_eq!(bytes.keep(Some(2 << 30), 0).unwrap(), 10);
        let fixed = OVERHEAD + (50 << 20);
        assert_eq!(bytes.keep(Some(fixed + (1000 << 20)), 0).unwrap(), 10);
        assert_eq!(bytes.keep(Some(fixed + (999 << 20)), 0).unwrap(), 6);
        assert_eq!(bytes.keep(Some(fixed + (300 << 20)), 0).unwrap(), 0);
        let error = bytes.keep(Some(fixed + (300 << 20)), 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        assert!(error.to_string().contains("max_memory"), "{error}");
    }
}
