//! LoRA files, as users name them.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

/// A LoRA file and how strongly it is applied.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Lora {
    /// The safetensors file.
    pub file: PathBuf,
    /// How strongly: 1 is as it was trained, 0 not at all, negative values turn it around.
    pub scale: f64,
}

impl Lora {
    /// A file, applied as it was trained.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into(), scale: 1.0 }
    }

    /// The same file, applied with this factor.
    #[must_use]
    pub fn scale(mut self, scale: f64) -> Self {
        self.scale = scale;
        self
    }
}

impl FromStr for Lora {
    type Err = Infallible;

    /// `FILE` or `FILE:SCALE`.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        let scaled = text.rsplit_once(':').and_then(|(file, scale)| {
            Some(Self::new(file).scale(scale.parse().ok().filter(|scale: &f64| scale.is_finite())?))
        });
        Ok(scaled.unwrap_or_else(|| Self::new(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_stands_behind_the_last_colon() {
        for (text, file, scale) in [
            ("a.safetensors", "a.safetensors", 1.0),
            ("a.safetensors:0.5", "a.safetensors", 0.5),
            ("a.safetensors:-1", "a.safetensors", -1.0),
            ("C:\\a.safetensors", "C:\\a.safetensors", 1.0),
            ("C:\\a.safetensors:2e-1", "C:\\a.safetensors", 0.2),
            ("a:nan", "a:nan", 1.0),
        ] {
            assert_eq!(text.parse::<Lora>().unwrap(), Lora::new(file).scale(scale));
        }
    }
}
