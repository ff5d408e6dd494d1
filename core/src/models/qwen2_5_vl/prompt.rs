//! Prompts as the language model gets them: tokens, pictures among them, and their positions.

use std::ops::Range;

use candle_core::Tensor;

use super::config::TextConfig;
use crate::error::{Error, Result};

/// A picture in a prompt.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    /// The tokens that stand for its vectors.
    pub(crate) tokens: Range<usize>,
    /// Its rows and columns of patches.
    pub(crate) grid: (usize, usize),
    /// What the vision part made of it, one for each token.
    pub(crate) vectors: Tensor,
}

/// A prompt as tokens.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    pub(crate) ids: Vec<u32>,
    /// In the order of their tokens.
    pub(crate) pictures: Vec<Picture>,
    /// How many states in front are dropped.
    pub(crate) dropped: usize,
}

impl Prompt {
    /// Fails if tokens, pictures and vectors do not fit each other or the model.
    pub(super) fn check(&self, config: &TextConfig) -> Result<()> {
        let wrong = |message: String| Err(Error::invalid_input(message));
        let count = self.ids.len();
        if self.dropped >= count {
            return wrong(format!("{} of {count} states are dropped", self.dropped));
        }
        if let Some(id) = self.ids.iter().find(|id| **id as usize >= config.vocab_size) {
            return wrong(format!("token {id} of a vocabulary of {}", config.vocab_size));
        }
        let mut stands_for_picture = vec![false; count];
        let mut end = 0;
        for (index, picture) in self.pictures.iter().enumerate() {
            let Picture { tokens, grid, vectors } = picture;
            let (rows, columns) = picture.squares(config);
            let fits = (end..=count).contains(&tokens.start)
                && tokens.end <= count
                && !tokens.is_empty()
                && rows.checked_mul(columns) == Some(tokens.len())
                && vectors.dims() == [tokens.len(), config.hidden_size];
            if !fits {
                return wrong(format!(
                    "picture {index} of {grid:?} patches has vectors {:?} for tokens {tokens:?} of \
                     {count}",
                    vectors.dims()
                ));
            }
            stands_for_picture[tokens.clone()].fill(true);
            end = tokens.end;
        }
        let mut kinds =
            self.ids.iter().map(|id| *id == config.image_token_id).zip(stands_for_picture);
        if let Some(token) = kinds.position(|(is, should)| is != should) {
            return wrong(format!(
                "token {token} is {}, while {} stands for pictures, and only there",
                self.ids[token], config.image_token_id
            ));
        }
        Ok(())
    }

    /// Frame, row and column of every token.
    ///
    /// Text goes on in steps of one on all axes. A picture is one frame, and its squares lie in rows and
    /// columns from the place where it starts; what follows goes on behind its longer side.
    pub(super) fn positions(&self, config: &TextConfig) -> Vec<[u32; 3]> {
        let mut positions: Vec<[u32; 3]> = Vec::with_capacity(self.ids.len());
        let mut next = 0;
        for picture in &self.pictures {
            let text = picture.tokens.start.saturating_sub(positions.len()) as u32;
            positions.extend((next..next + text).map(|at| [at; 3]));
            next += text;
            let (rows, columns) = picture.squares(config);
            let (rows, columns) = (rows as u32, columns as u32);
            positions.extend(
                (0..rows).flat_map(|row| {
                    (0..columns).map(move |column| [next, next + row, next + column])
                }),
            );
            next += rows.max(columns);
        }
        let text = self.ids.len().saturating_sub(positions.len()) as u32;
        positions.extend((next..next + text).map(|at| [at; 3]));
        positions
    }
}

impl Picture {
    /// Rows and columns of vectors.
    fn squares(&self, config: &TextConfig) -> (usize, usize) {
        (self.grid.0 / config.spatial_merge_size, self.grid.1 / config.spatial_merge_size)
    }
}
