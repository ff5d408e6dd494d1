//! How much of a model's networks stays in memory.
//!
//! Networks that make pictures are used one after the other: text encoder, denoising network, autoencoder.
//! Without a bound all of them stay. With one, and if they do not fit together, a network makes room
//! for the next, and blocks that do not fit are read from their files again whenever they run.

use crate::error::{Error, ErrorKind, Result};
use crate::weights::Source;

/// What a program takes besides weights and values: code, stacks, decoded pictures.
const OVERHEAD: u64 = 64 << 20;
/// Blocks in memory while blocks are read again: the one that runs, the next, of which some layers are
/// there twice for a moment, as they are stored and as they are used, and what the allocator has not
/// given back of others.
const READ: u64 = 4;

/// Bytes of a network's tensors, as they are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    /// Of one block.
    pub(crate) block: u64,
    pub(crate) blocks: usize,
    /// Of everything else that has to be there.
    pub(crate) rest: u64,
}

/// Whose a tensor is, and how many bytes it takes.
pub(crate) enum Share {
    None,
    Block(u64),
    Rest(u64),
}

impl Bytes {
    /// Of the tensors of `source` by their names and numbers of values, in `blocks` blocks.
    pub(crate) fn of(
        source: &dyn Source,
        blocks: usize,
        share: impl Fn(&str, &[usize]) -> Share,
    ) -> Self {
        let (mut in_blocks, mut rest) = (0u64, 0u64);
        for name in source.names() {
            match share(&name, &source.shape(&name).unwrap_or_default()) {
                Share::None => {}
                Share::Block(bytes) => in_blocks = in_blocks.saturating_add(bytes),
                Share::Rest(bytes) => rest = rest.saturating_add(bytes),
            }
        }
        Self { block: in_blocks.div_ceil(blocks.max(1) as u64), blocks, rest }
    }

    pub(crate) fn total(&self) -> u64 {
        self.rest.saturating_add(self.block.saturating_mul(self.blocks as u64))
    }
}

/// Fails unless `bytes` are allowed beside what a program takes anyway.
pub(crate) fn check(memory: u64, bytes: u64) -> Result<()> {
    let least = bytes.saturating_add(OVERHEAD);
    if least <= memory {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::OutOfMemory,
        format!(
            "{} MB of memory are allowed, but this model and these pictures take at least {} MB",
            memory / 1_000_000,
            least / 1_000_000 + 1
        ),
    )
    .with("field", "max_memory"))
}

/// The least bytes that some networks, which are there together, take beside `other` bytes: all of them, or one block
/// after the other.
pub(crate) fn least<const N: usize>(networks: [&Bytes; N], other: u64) -> u64 {
    let sum = |of: &dyn Fn(&Bytes) -> u64| {
        networks.iter().fold(other, |sum, network| sum.saturating_add(of(network)))
    };
    let largest = networks.iter().map(|network| network.block).max().unwrap_or_default();
    let in_turn = sum(&|network| network.rest).saturating_add(READ.saturating_mul(largest));
    in_turn.min(sum(&Bytes::total))
}

/// How many blocks of each of some networks, which are there together, stay in `memory` bytes beside
/// `other` bytes; those of the first network go first. An error if not even one block after the other
/// fits.
pub(crate) fn keep<const N: usize>(
    networks: [&Bytes; N],
    memory: u64,
    other: u64,
) -> Result<[usize; N]> {
    let all = networks.iter().fold(other, |sum, network| sum.saturating_add(network.total()));
    if check(memory, all).is_ok() {
        return Ok(networks.map(|network| network.blocks));
    }
    let least = least(networks, other);
    check(memory, least)?;
    let mut left = memory - OVERHEAD - least;
    Ok(networks.map(|network| {
        let kept = (left / network.block.max(1)).min(network.blocks as u64);
        left -= kept * network.block;
        kept as usize
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_stay_as_far_as_memory_goes() {
        let bytes = Bytes { block: 100 << 20, blocks: 10, rest: 50 << 20 };
        let kept = |memory, other| keep([&bytes], memory, other);
        assert_eq!(kept(2 << 30, 0).unwrap(), [10]);
        let fixed = OVERHEAD + (50 << 20);
        assert_eq!(kept(fixed + (1000 << 20), 0).unwrap(), [10]);
        assert_eq!(kept(fixed + (999 << 20), 0).unwrap(), [5]);
        assert_eq!(kept(fixed + (400 << 20), 0).unwrap(), [0]);
        let error = kept(fixed + (400 << 20), 1).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        assert!(error.to_string().contains("max_memory"), "{error}");
        assert!(kept(u64::MAX - 1, u64::MAX).is_err());
    }

    #[test]
    fn networks_share_what_there_is() {
        let large = Bytes { block: 100 << 20, blocks: 3, rest: 0 };
        let small = Bytes { block: 10 << 20, blocks: 20, rest: 0 };
        let kept =
            |megabytes: u64| keep([&large, &small], OVERHEAD + (megabytes << 20), 0).unwrap();
        assert_eq!(kept(500), [3, 20]);
        assert_eq!(kept(499), [0, 9]);
        assert_eq!(kept(400), [0, 0]);
        assert_eq!(kept(455), [0, 5]);
    }
}
