//! One folder per operation on tensors: its contract, its definition, and its implementations.
//!
//! `mod.rs` of each folder is the contract (shapes, types, layout) and the choice of the
//! implementation; `reference.rs` defines the result with plain tensor operations; `cpu.rs` is the
//! fast path for `f32` on the CPU; `tests.rs` runs every implementation against the reference. The
//! floors above never ask what device they run on.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod depthwise_conv;
mod host;
pub(crate) mod linear;
pub(crate) mod norm;

#[cfg(test)]
mod testing;
