//! From prompts to what the denoising network reads of them.
//!
//! A text is cut into parts of equal weight ([`weights`]), these into chunks of as many tokens as the
//! text encoders have places for ([`chunks`]), and all texts of an image become one row of states
//! ([`encode`]).

pub(crate) mod chunks;
pub(crate) mod encode;
pub(crate) mod lines;
pub(crate) mod weights;
