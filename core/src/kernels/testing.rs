//! Test data for kernels: values from a fixed sequence, a comparison with a stated tolerance, and
//! every set of instructions in turn.

use std::cell::Cell;
use std::sync::OnceLock;

use candle_core::{DType, Tensor};

use super::check;
use super::cpu::Isa;
use super::host::Way;

thread_local! {
    static ISA: Cell<Option<Isa>> = const { Cell::new(None) };
    static WAY: Cell<Option<Way>> = const { Cell::new(None) };
}

/// The instructions that the test of this thread is about.
pub(super) fn isa() -> Option<Isa> {
    ISA.get()
}

/// The variable that says how the tests of networks and pipelines compute: `plain`, `emulated`, or on `cuda`.
const VARIABLE: &str = "TAGBRUSH_KERNELS";

/// The way that the test of this thread is about, else that of the variable.
pub(super) fn way() -> Way {
    static WAYS: OnceLock<Way> = OnceLock::new();
    WAY.get().unwrap_or_else(|| {
        *WAYS.get_or_init(|| match std::env::var(VARIABLE).as_deref() {
            // On another device: `device/testing.rs`.
            Err(_) | Ok("" | "cuda") => Way::Own,
            Ok("plain") => Way::Plain,
            Ok("emulated") => Way::Emulated,
            Ok(other) => panic!("{VARIABLE} is `{other}`; known: plain, emulated, cuda"),
        })
    })
}

/// What `run` gives with the kernels for CUDA, emulated.
pub(super) fn emulated<T>(run: &dyn Fn() -> T) -> T {
    WAY.set(Some(Way::Emulated));
    let found = run();
    WAY.set(None);
    found
}

/// Runs `test` with every set of instructions that this machine has, and with the kernels for CUDA,
/// emulated.
pub(super) fn everywhere(test: impl Fn(Isa)) {
    WAY.set(Some(Way::Own));
    for isa in Isa::ALL.into_iter().filter(|isa| *isa <= Isa::best()) {
        ISA.set(Some(isa));
        test(isa);
    }
    ISA.set(None);
    emulated(&|| test(Isa::Portable));
}

/// Whether this thread computes with the emulated kernels.
pub(super) fn is_emulated() -> bool {
    way() == Way::Emulated
}

/// What products of `f32` may differ by: `tolerance`, more where operands are split.
pub(super) fn allowed(isa: Isa, tolerance: f32) -> f32 {
    if isa == Isa::Amx { 10.0 * tolerance } else { tolerance }
}

/// The values after rounding them to bfloat16, and as `f32` again.
pub(super) fn rounded(x: &Tensor) -> Tensor {
    x.to_dtype(DType::BF16).unwrap().to_dtype(DType::F32).unwrap()
}

/// A tensor of reproducible values in about -1 to 1.
pub(super) fn values(shape: &[usize], seed: u64) -> Tensor {
    check::values(shape, seed).unwrap()
}

/// Fails unless both tensors have the same shape and differ by at most `tolerance` anywhere.
pub(super) fn assert_close(found: &Tensor, expected: &Tensor, tolerance: f32, what: &str) {
    assert_eq!(found.dims(), expected.dims(), "{what}: shape");
    if expected.elem_count() == 0 {
        return;
    }
    let difference = super::largest(&(found - expected).unwrap()).unwrap();
    assert!(difference <= tolerance, "{what}: differs by {difference}, allowed {tolerance}");
}
