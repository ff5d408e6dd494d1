//! Other pictures like one that there is, as Fooocus names the ways to them.

use std::fmt;
use std::str::FromStr;

use super::aspect::class;
use crate::error::{Error, Result};

/// Sides are multiples of this.
const MULTIPLE: f64 = 64.0;

/// How far a picture may be from the one that it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Vary {
    /// Another one of the same.
    Subtle,
    /// Little more than the composition stays.
    Strong,
}

impl Vary {
    /// Both of them.
    pub const ALL: &[Self] = &[Self::Subtle, Self::Strong];

    /// Its name in Fooocus.
    pub fn name(self) -> &'static str {
        match self {
            Self::Subtle => "Vary (Subtle)",
            Self::Strong => "Vary (Strong)",
        }
    }

    /// What [`GenerateOptions::denoise`](super::GenerateOptions::denoise) is for it.
    pub fn strength(self) -> f64 {
        match self {
            Self::Subtle => 0.5,
            Self::Strong => 0.85,
        }
    }

    /// Width and height to make of a picture of these, for a model whose pictures have the size `of_model` unless
    /// another one is asked for: the picture's own proportions, with no fewer pixels than the model is good at and at
    /// most four times as many.
    pub fn size(self, (width, height): (usize, usize), of_model: (usize, usize)) -> (usize, usize) {
        let root = ((width.max(1) as f64) * (height.max(1) as f64)).sqrt();
        let least = class(of_model) as f64;
        let wanted = (root / MULTIPLE).ceil() * MULTIPLE;
        let scale = match wanted.clamp(least, 2.0 * least) {
            clamped if clamped == wanted => 1.0,
            clamped => clamped / root,
        };
        let side =
            |side: usize| ((side as f64 * scale / MULTIPLE).round().max(1.0) * MULTIPLE) as usize;
        (side(width), side(height))
    }
}

impl FromStr for Vary {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().find(|known| known.name() == text).copied().ok_or_else(|| {
            let message =
                format!("unknown way to vary `{text}`; known: Vary (Subtle), Vary (Strong)");
            Error::invalid_input(message).with("field", "vary")
        })
    }
}

impl fmt::Display for Vary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_keep_their_proportions_within_what_a_model_is_good_at() {
        let size = |picture| Vary::Subtle.size(picture, (1152, 896));
        assert_eq!(size((1152, 896)), (1152, 896));
        assert_eq!(size((1500, 1500)), (1472, 1472));
        assert_eq!(size((512, 512)), (1024, 1024));
        assert_eq!(size((200, 100)), (1472, 704));
        assert_eq!(size((8000, 4000)), (2880, 1472));
        assert_eq!(Vary::Strong.size((64, 64), (64, 64)), (64, 64));
        assert_eq!(Vary::Strong.size((1000, 10), (64, 64)), (1024, 64));
    }

    #[test]
    fn names_are_those_of_fooocus() {
        for vary in Vary::ALL {
            assert_eq!(vary.name().parse::<Vary>().unwrap(), *vary);
        }
        assert!("Vary".parse::<Vary>().unwrap_err().to_string().contains("field=vary"));
    }
}
