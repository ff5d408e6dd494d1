//! Making pictures larger, as Fooocus does: a network for it (ESRGAN) makes them four times as large, they are
//! resampled to the size that is asked for, and unless it shall be fast, a part of them is made anew at that size.

mod autoencoder;
mod network;
#[cfg(test)]
mod tests;
mod tiles;

use std::fmt;
use std::str::FromStr;

pub(super) use self::network::Upscaler;
use super::aspect::class;
use crate::error::{Error, Result};
use crate::pixels::{Filter, Image, Step, apply_steps};

/// Factors that there are.
const FACTORS: [f64; 2] = [1.0, 5.0];
/// Above this, as a part of the class that the model is good at, the network's result is the answer.
const LARGEST: f64 = 2800.0 / 1024.0;
/// What sides are multiples of where a picture is too small.
const MULTIPLE: f64 = 64.0;
/// How often a size is brought nearer to a class; it is there after a few times, or never.
const ROUNDS: usize = 256;
/// How many times a picture is larger after a network, where there is none.
const USUAL_SCALE: usize = 4;
/// The published network.
pub(super) const PUBLISHED: &str = "fooocus_upscaler_s409985e5.bin";

/// Making a picture larger.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Upscale {
    /// How many times the sides become larger, 1 to 5.
    pub factor: f64,
    /// Whether the network's result is the answer, without anything made anew.
    pub is_fast: bool,
}

impl Upscale {
    /// By this factor, with details made anew.
    pub fn by(factor: f64) -> Self {
        Self { factor, is_fast: false }
    }

    /// By this factor, without.
    pub fn fast(factor: f64) -> Self {
        Self { factor, is_fast: true }
    }

    /// Width and height that a picture of these gets, for a model whose pictures have the size `of_model` unless
    /// another one is asked for, and whether they are larger than what the model is good at, so that nothing is made
    /// anew. Pictures that would be smaller than what it is good at are made as large as that.
    pub fn size(
        self,
        (width, height): (usize, usize),
        of_model: (usize, usize),
    ) -> ((usize, usize), bool) {
        self.size_from((width, height), of_model, USUAL_SCALE)
    }

    /// As [`size`](Self::size), where a network makes pictures `scale` times as large.
    fn size_from(
        self,
        (width, height): (usize, usize),
        of_model: (usize, usize),
        scale: usize,
    ) -> ((usize, usize), bool) {
        let least = class(of_model);
        let side = |side: usize| side as f64 * self.factor;
        let wanted = ((side(width) * side(height)).sqrt() / MULTIPLE).ceil() * MULTIPLE;
        match wanted < least as f64 {
            true => (in_class((width * scale, height * scale), least), false),
            false => {
                let cut = |length: usize| (side(length) as usize).max(1);
                ((cut(width), cut(height)), wanted > least as f64 * LARGEST)
            }
        }
    }

    pub(super) fn check(self) -> Result<()> {
        let [from, to] = FACTORS;
        match (from..=to).contains(&self.factor) {
            true => Ok(()),
            false => {
                let message = format!("the factor is {}, expected {from} to {to}", self.factor);
                Err(Error::invalid_input(message).with("field", "upscale"))
            }
        }
    }
}

/// Width and height of about these proportions, multiples of 64, in a class.
fn in_class((mut width, mut height): (usize, usize), wanted: usize) -> (usize, usize) {
    for _ in 0..ROUNDS {
        let found = class((width, height));
        if found == wanted {
            break;
        }
        let times = wanted as f64 / found as f64;
        let side = |side: usize| {
            ((side as f64 * times / MULTIPLE).round_ties_even().max(1.0) * MULTIPLE) as usize
        };
        (width, height) = (side(width), side(height));
    }
    (width, height)
}

/// RGB pixels of one size brought to another one.
pub(super) fn resampled(
    pixels: &[u8],
    from: (usize, usize),
    to: (usize, usize),
) -> Result<Vec<u8>> {
    apply_steps(pixels, from, &[Step::Stretch { size: to, filter: Filter::Lanczos }])
}

/// The middle of RGB pixels whose sides are multiples.
pub(super) fn whole_multiples(
    pixels: Vec<u8>,
    (width, height): (usize, usize),
    multiple: usize,
) -> (Vec<u8>, (usize, usize)) {
    let side = |side: usize| side / multiple * multiple;
    let size = (side(width), side(height));
    if size == (width, height) {
        return (pixels, size);
    }
    let (left, top) = ((width - size.0) / 2, (height - size.1) / 2);
    let rows = pixels.chunks_exact(width * 3).skip(top).take(size.1);
    let cut = rows.flat_map(|row| &row[left * 3..(left + size.0) * 3]).copied().collect();
    (cut, size)
}

/// RGB pixels of a picture that was made larger, their width and height, and what is to be said about them.
pub(super) struct Larger {
    pub(super) pixels: Vec<u8>,
    pub(super) size: (usize, usize),
    /// Whether they are the answer.
    pub(super) is_final: bool,
    pub(super) notes: Vec<String>,
}

/// A picture made larger, by the network if there is one.
pub(super) fn larger(
    image: &Image,
    upscale: Upscale,
    of_model: (usize, usize),
    network: Option<&Upscaler>,
    goes_on: &dyn Fn() -> Result<()>,
) -> Result<Larger> {
    upscale.check()?;
    let from = (image.width() as usize, image.height() as usize);
    let scale = network.map_or(USUAL_SCALE, Upscaler::scale);
    let (size, is_too_large) = upscale.size_from(from, of_model, scale);
    let mut notes = Vec::new();
    let pixels = image.to_rgb8_over([255; 3]);
    let pixels = match network {
        Some(network) => {
            let (pixels, made) = network.larger(&pixels, from, goes_on)?;
            resampled(&pixels, made, size)?
        }
        None => {
            notes.push(format!(
                "the picture was made larger by resampling (Lanczos) alone: no upscaler was loaded, such as {PUBLISHED}"
            ));
            resampled(&pixels, from, size)?
        }
    };
    if is_too_large && !upscale.is_fast {
        notes.push(format!(
            "nothing was made anew: {} x {} pixels are more than the model is good at",
            size.0, size.1
        ));
    }
    Ok(Larger { pixels, size, is_final: upscale.is_fast || is_too_large, notes })
}

impl FromStr for Upscale {
    type Err = Error;

    /// The names of Fooocus, `Upscale (1.5x)` and `Upscale (Fast 2x)` with any factor, and a factor alone.
    fn from_str(text: &str) -> Result<Self> {
        let inner = text.strip_prefix("Upscale (").and_then(|text| text.strip_suffix(')'));
        let inner = inner.unwrap_or(text).trim();
        let lower = inner.to_ascii_lowercase();
        let fast = lower.strip_prefix("fast").map(|rest| rest.trim_start_matches([' ', '-', '_']));
        let number = fast.unwrap_or(&lower);
        let factor = number.strip_suffix('x').unwrap_or(number).trim().parse().ok();
        let Some(factor) = factor else {
            let message = format!(
                "unknown way to make larger `{text:.80}`; known: a factor from 1 to 5, fast 2x, Upscale (1.5x), \
                 Upscale (2x), Upscale (Fast 2x)"
            );
            return Err(Error::invalid_input(message).with("field", "upscale"));
        };
        let upscale = Self { factor, is_fast: fast.is_some() };
        upscale.check().map(|()| upscale)
    }
}

impl fmt::Display for Upscale {
    /// As Fooocus names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fast = if self.is_fast { "Fast " } else { "" };
        write!(f, "Upscale ({fast}{}x)", self.factor)
    }
}
