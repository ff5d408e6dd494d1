//! The kernels of tagbrush for CUDA, compiled for the processor and run there: see `emulate.cpp`.

use std::ffi::{CString, c_char, c_void};

/// Three sizes, as CUDA's `dim3`.
#[repr(C)]
struct Sizes([u32; 3]);

// As `emulate.cpp` defines it.
unsafe extern "C" {
    fn tagbrush_emulate(
        name: *const c_char,
        blocks: Sizes,
        threads: Sizes,
        shared: u32,
        arguments: *const c_void,
    ) -> bool;
}

/// Runs the kernel `name` over a grid to its end, with `shared` bytes of memory for each block; false if
/// there is no such kernel.
///
/// # Safety
/// `arguments` is the structure that the kernel takes, and its addresses those of values of its shapes.
pub unsafe fn launch(
    name: &str,
    blocks: [u32; 3],
    threads: [u32; 3],
    shared: u32,
    arguments: *const c_void,
) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: the caller's promise; the name ends in a zero.
    unsafe { tagbrush_emulate(name.as_ptr(), Sizes(blocks), Sizes(threads), shared, arguments) }
}
