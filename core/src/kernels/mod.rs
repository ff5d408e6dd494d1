//! One folder per operation on tensors: its contract, its definition, and its implementations.
//!
//! `mod.rs` of each folder is the contract (shapes, types, layout) and the choice of the
//! implementation; `reference.rs` defines the result with plain tensor operations; `cpu.rs` is the
//! implementation for the CPU, written once over the instruction sets and engines of `cpu/`;
//! `tests.rs` runs every implementation against the reference. The floors above never ask what
//! device they run on.
//!
//! Unsafe code is allowed here and nowhere above: for the instructions of a processor that was
//! asked for them, for packed memory that is addressed by its layout, and for results that several
//! threads write side by side. Every block says why it is sound.
#![allow(unsafe_code)]

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod cpu;
pub(crate) mod depthwise_conv;
pub(crate) mod group_norm;
mod host;
pub(crate) mod linear;
pub(crate) mod norm;

#[cfg(test)]
mod testing;
