//! Where a picture comes from: a file, encoded bytes, or a decoded picture.

use std::path::{Path, PathBuf};

use super::{DecodeOptions, Image};
use crate::error::Result;

/// One picture. Files are read, and bytes decoded, when their turn comes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input {
    /// A file.
    Path(PathBuf),
    /// An encoded picture.
    Bytes(Vec<u8>),
    /// A decoded picture.
    Image(Image),
}

impl Input {
    pub(crate) fn decode(self, options: &DecodeOptions) -> Result<Image> {
        match self {
            Input::Path(path) => Image::open_with(path, options),
            Input::Bytes(bytes) => Image::decode_with(&bytes, options),
            Input::Image(image) => Ok(image),
        }
    }
}

impl From<Image> for Input {
    fn from(image: Image) -> Self {
        Input::Image(image)
    }
}

impl From<&Image> for Input {
    fn from(image: &Image) -> Self {
        Input::Image(image.clone())
    }
}

impl From<Vec<u8>> for Input {
    fn from(bytes: Vec<u8>) -> Self {
        Input::Bytes(bytes)
    }
}

impl From<PathBuf> for Input {
    fn from(path: PathBuf) -> Self {
        Input::Path(path)
    }
}

impl From<&Path> for Input {
    fn from(path: &Path) -> Self {
        Input::Path(path.to_owned())
    }
}

impl From<&PathBuf> for Input {
    fn from(path: &PathBuf) -> Self {
        Input::Path(path.clone())
    }
}

impl From<&str> for Input {
    fn from(path: &str) -> Self {
        Input::Path(path.into())
    }
}
