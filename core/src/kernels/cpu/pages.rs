//! Memory in large pages.
//!
//! A processor remembers where some hundred pages of 4 KiB are; a layer of a network reads and writes
//! thousands of them, and where it has to look one up, in a virtual machine through two tables, it waits
//! for the memory several times. In pages of 2 MiB the same products took 0.6 of the time on one such
//! machine. Linux gives large pages to who asks, so packed weights, a thread's own memory and the results
//! of layers do.

use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use super::engine::Line;

/// So many lines, zeros at first, in a mapping of their own: packed weights.
///
/// Weights stay for as long as the model, values between layers for a millisecond. In one heap the
/// first are in the way of the second: glibc's heaps of 64 MB fill up with weights, so that each layer
/// made a new heap and gave it back, and the system zeroed its pages every time (5 percent of the
/// time of a ViT-B, depending on which thread had loaded it). Pages also go back to the system the
/// moment weights are dropped, which streamed blocks count on.
pub(crate) struct Pages {
    map: MmapMut,
    lines: usize,
}

impl Pages {
    /// # Errors
    /// If the system has no such memory.
    pub(crate) fn zeroed(lines: usize) -> io::Result<Self> {
        let map = MmapMut::map_anon((lines * size_of::<Line>()).max(1))?;
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map, lines })
    }

    /// To be called when all lines were written: joins what begins or ends inside a large page.
    pub(crate) fn settle(&self) {
        enlarge(self.map.as_ptr(), self.map.len());
    }
}

impl Deref for Pages {
    type Target = [Line];

    fn deref(&self) -> &[Line] {
        // SAFETY: pages start on lines, the map has room for these many, and a line is any 64 bytes.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().cast(), self.lines) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [Line] {
        // SAFETY: as above, and the map is ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.lines) }
    }
}

/// Asks for large pages where `bytes` bytes from `start` on lie, whether or not they were touched yet.
/// A hint: what is in the memory stays, and a system that cannot or should not do it does not.
#[cfg(target_os = "linux")]
pub(crate) fn enlarge<T>(start: *const T, bytes: usize) {
    linux::enlarge(start as usize, bytes);
}

/// Nothing, where nothing is known to be worth it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn enlarge<T>(_start: *const T, _bytes: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_for_large_pages_changes_no_value() {
        let values: Vec<u32> = (0..3 << 20).collect();
        for _ in 0..3 {
            enlarge(values.as_ptr(), size_of_val(&values[..]));
        }
        assert!(values.iter().enumerate().all(|(i, value)| i as u32 == *value));
        // Memory of nobody, and none at all.
        enlarge(std::ptr::without_provenance::<u8>(1 << 21), 1 << 22);
        enlarge(values.as_ptr(), 0);
    }

    #[test]
    fn weights_stay_when_they_are_settled() {
        let mut pages = Pages::zeroed(100_000).unwrap();
        pages.iter_mut().enumerate().for_each(|(i, line)| line.0[i % 64] = 1);
        pages.settle();
        assert!(pages.iter().enumerate().all(|(i, line)| line.0[i % 64] == 1));
        assert_eq!(Pages::zeroed(0).unwrap().len(), 0);
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// A large page.
    const SHIFT: u32 = 21;
    /// Less than this is not worth asking for.
    const LEAST: usize = 256 << 10;
    /// How often the same page is asked for: a part of it may belong to nobody yet.
    const TRIES: usize = 7;

    /// Pages that were asked for, with the number of tries in the lowest bits. Pages that share a place
    /// are asked for again, which costs a microsecond.
    static ASKED: [AtomicUsize; 4096] = [const { AtomicUsize::new(0) }; 4096];

    /// Whether the administrator lets programs have large pages.
    static ALLOWED: LazyLock<bool> = LazyLock::new(|| {
        let path = "/sys/kernel/mm/transparent_hugepage/enabled";
        std::fs::read_to_string(path).is_ok_and(|text| !text.contains("[never]"))
    });

    pub(super) fn enlarge(start: usize, bytes: usize) {
        if bytes < LEAST || !*ALLOWED {
            return;
        }
        for page in start >> SHIFT..=(start + bytes - 1) >> SHIFT {
            let place = &ASKED[page % ASKED.len()];
            let tries = match place.load(Relaxed) {
                known if known >> 3 == page => known & 7,
                _ => 0,
            };
            if tries < TRIES {
                let tries = if ask(page << SHIFT) { TRIES } else { tries + 1 };
                place.store(page << 3 | tries, Relaxed);
            }
        }
    }

    /// Whether the system made a large page there, or will as soon as it is touched.
    fn ask(page: usize) -> bool {
        let (address, length) = (page as *mut libc::c_void, 1 << SHIFT);
        // SAFETY: both calls are about how memory is kept; neither changes what is in it or who may use
        // it. Addresses that are not mapped are an error.
        unsafe {
            // For pages that nobody touched, then for those that somebody did (since Linux 6.1).
            libc::madvise(address, length, libc::MADV_HUGEPAGE) == 0
                && libc::madvise(address, length, libc::MADV_COLLAPSE) == 0
        }
    }
}
