//! Limits that are checked before work is done or memory is taken.

/// What one input may cost at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Width times height of one image; 128 megapixels unless set.
    pub max_pixels: u64,
    /// Width or height of one image in pixels; 65,535 unless set.
    pub max_side: u32,
    /// Length of one encoded image in bytes; 256 MiB unless set.
    pub max_encoded_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_pixels: 128_000_000, max_side: 65_535, max_encoded_bytes: 256 << 20 }
    }
}

impl Limits {
    /// The same limits with another number of pixels.
    #[must_use]
    pub fn max_pixels(mut self, pixels: u64) -> Self {
        self.max_pixels = pixels;
        self
    }

    /// The same limits with another longest side.
    #[must_use]
    pub fn max_side(mut self, side: u32) -> Self {
        self.max_side = side;
        self
    }

    /// The same limits with another encoded length.
    #[must_use]
    pub fn max_encoded_bytes(mut self, bytes: u64) -> Self {
        self.max_encoded_bytes = bytes;
        self
    }
}
