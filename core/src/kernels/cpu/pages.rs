//! Memory for packed weights: whole pages of their own, large ones where the system has them.
//!
//! Weights stay for as long as the model, values between layers for a millisecond. In one heap the
//! first are in the way of the second: glibc's heaps of 64 MB fill up with weights, so that each layer
//! made a new heap and gave it back, and the system zeroed its pages every time (5 percent of the
//! time of a ViT-B, depending on which thread had loaded it). Pages also go back to the system the
//! moment weights are dropped, which streamed blocks count on.

use std::io;
use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

use super::engine::Line;

/// So many lines, zeros at first.
pub(crate) struct Pages {
    map: MmapMut,
    lines: usize,
}

impl Pages {
    /// # Errors
    /// If the system has no such memory.
    pub(crate) fn zeroed(lines: usize) -> io::Result<Self> {
        let map = MmapMut::map_anon((lines * size_of::<Line>()).max(1))?;
        // Fewer pages to look up while weights are read from end to end. Kernels without large pages
        // refuse, which costs nothing but that.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map, lines })
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
