//! What the kernels for CUDA share, on both sides: how Rust launches them, and the headers of their
//! sources.
//!
//! A kernel takes one structure, which `<op>/cuda.rs` and `<op>/cuda.cu` both declare. The sources are
//! one unit, `kernels.cu`; the build script has nvcc compile it to PTX, which the driver translates for
//! the device at hand, so that one build serves all generations from the one it was made for.
//!
//! In tests, `core/tests/emulated` has a C++ compiler translate the same sources and runs them on the
//! processor: everything but the speed and the driver is as on a device.

mod hopper;
mod launch;
#[cfg(feature = "cuda")]
mod product;
#[cfg(feature = "cuda")]
mod stream;

pub(crate) use hopper::Units;
pub(super) use hopper::has_warpgroups;
pub(super) use launch::{Address, Grid, address, address_of, empty, launch, takes};
#[cfg(feature = "cuda")]
pub(super) use product::Product;

/// How names of kernels begin that only Hopper has.
pub(super) const HOPPER: &str = "hopper_";

/// Threads of a block, unless a kernel's shape says something else. Kernels are compiled for no more.
pub(super) const THREADS: usize = 256;
