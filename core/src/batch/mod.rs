//! Machinery for batches, generic over what is in them: how many fit, in which order, how one
//! failure stays one failure.

mod heap;
mod passes;
mod plan;
mod stream;

pub(crate) use passes::Passes;
pub(crate) use plan::{batch_size, in_groups};
pub(crate) use stream::{Stage, Stream};
