//! Keeps glibc from giving the memory of every picture back to the system.
//!
//! Decoding makes a few blocks of some megabytes for each picture. glibc maps blocks beyond a
//! threshold of 128 KiB anew and unmaps them when they are freed, so that every page of every picture
//! is first zeroed by the system: for JPEG files of 2 megapixels that takes as long as decoding them.
//! The threshold follows the largest mapped block that was ever freed, up to 32 MiB (mallopt(3),
//! `M_MMAP_THRESHOLD`), so whether a process paid was a matter of what it had happened to free
//! before: the same calls took 5 percent longer from Python than from Rust.

use std::hint::black_box;
use std::sync::Once;

/// The largest block that moves the threshold, less what the allocator keeps for itself.
const LARGEST: usize = (32 << 20) - (64 << 10);

/// Raises the threshold, once in a process, by freeing such a block. It is never written to, so it
/// costs no memory; with other allocators nothing happens.
pub(super) fn keep_freed_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(LARGEST))));
}
