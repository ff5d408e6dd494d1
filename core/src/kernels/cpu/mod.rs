//! What the CPU implementations share: instruction sets, vectors, packed products, and work split
//! between threads.

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod bf16;
mod engine;
mod group;
mod isa;
pub(crate) mod math;
mod pages;
mod rows;
mod simd;
mod task;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use engine::{AHEAD, Aligned, Engine, Line, MAX_COLS, MAX_DEPTH, MAX_ROWS, Product};
pub(crate) use group::Group;
pub use isa::cpu_kernels;
pub(crate) use isa::{Format, Isa, run, run_product};
pub(crate) use pages::{Pages, enlarge};
pub(crate) use rows::{NormArgs, Patches, Sink, Values, Window};
pub(crate) use simd::{Kernel, MAX_LANES, Simd};
pub(crate) use task::{part, with_lines};
