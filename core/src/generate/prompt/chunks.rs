//! Tokens in chunks of as many as a text encoder has places for.
//!
//! As ComfyUI and Fooocus cut them: a word of fewer than [`LONG_WORD`] tokens is not torn apart; if the
//! chunk has no room for all of it, the rest of the chunk stays empty. Longer ones fill it.

use super::weights::weighted;
use crate::error::Result;
use crate::tokens::clip::ClipTokenizer;

/// Words of so many tokens may be torn apart.
const LONG_WORD: usize = 8;
/// Most chunks of a text; what is behind them is refused.
pub(crate) const MAX_CHUNKS: usize = 64;

/// Tokens between start and end, each with its weight.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Chunk {
    tokens: Vec<(u32, f32)>,
}

impl Chunk {
    /// The numbers of `length` tokens: the start, the text, the end, and `padding` behind it.
    pub(crate) fn ids(&self, tokenizer: &ClipTokenizer, padding: u32, length: usize) -> Vec<u32> {
        let text = self.tokens.iter().map(|(id, _)| *id);
        let mut ids: Vec<u32> =
            [tokenizer.start].into_iter().chain(text).chain([tokenizer.end]).collect();
        ids.resize(length, padding);
        ids
    }

    /// The weights of `length` tokens: 1 for what is not text.
    pub(crate) fn weights(&self, length: usize) -> Vec<f32> {
        let mut weights: Vec<f32> =
            [1.0].into_iter().chain(self.tokens.iter().map(|(_, weight)| *weight)).collect();
        weights.resize(length, 1.0);
        weights
    }

    /// Whether some token counts more or less than others.
    pub(crate) fn is_weighted(&self) -> bool {
        self.tokens.iter().any(|(_, weight)| *weight != 1.0)
    }
}

/// Cuts a text into chunks for encoders with places for `length` tokens; an empty one is one chunk.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) if there are more than [`MAX_CHUNKS`], or the text
/// has tokens in it that stand around texts.
pub(crate) fn chunks(tokenizer: &ClipTokenizer, text: &str, length: usize) -> Result<Vec<Chunk>> {
    let room = length - 2;
    let mut chunks = vec![Chunk::default()];
    for part in weighted(text) {
        for word in part.text.split([' ', '\n']).filter(|word| !word.is_empty()) {
            let ids = tokenizer.encode(word)?;
            let mut ids = &ids[..];
            while !ids.is_empty() {
                let count = chunks.len();
                let last = &mut chunks[count - 1].tokens;
                let left = room - last.len();
                let taken = match ids.len() {
                    many if many <= left => many,
                    many if many >= LONG_WORD.min(room) => left,
                    _ => 0,
                };
                last.extend(ids[..taken].iter().map(|id| (*id, part.weight)));
                ids = &ids[taken..];
                if !ids.is_empty() {
                    if count == MAX_CHUNKS {
                        let message =
                            format!("the text has more than {} tokens", MAX_CHUNKS * room);
                        return Err(crate::Error::invalid_input(message));
                    }
                    chunks.push(Chunk::default());
                }
            }
        }
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens in each chunk, and their weights.
    fn cut(text: &str, length: usize) -> Vec<(usize, Vec<f32>)> {
        let tokenizer = ClipTokenizer::published().unwrap();
        let chunks = chunks(&tokenizer, text, length).unwrap();
        chunks
            .iter()
            .map(|chunk| {
                let ids = chunk.ids(&tokenizer, 0, length);
                assert_eq!((ids.len(), chunk.weights(length).len()), (length, length));
                assert_eq!((ids[0], ids[chunk.tokens.len() + 1]), (49_406, 49_407));
                assert!(ids[chunk.tokens.len() + 2..].iter().all(|id| *id == 0));
                (chunk.tokens.len(), chunk.tokens.iter().map(|(_, weight)| *weight).collect())
            })
            .collect()
    }

    #[test]
    fn short_texts_are_one_chunk() {
        assert_eq!(cut("", 77), [(0, vec![])]);
        assert_eq!(cut("a (cat:1.5) and\na dog", 77), [(5, vec![1.0, 1.5, 1.0, 1.0, 1.0])]);
        assert!(!Chunk::default().is_weighted());
    }

    #[test]
    fn short_words_stay_whole_and_long_ones_fill_the_chunk() {
        let counts = |text: &str| cut(text, 12).into_iter().map(|(n, _)| n).collect::<Vec<_>>();
        assert_eq!(counts("a b c d e f g h i j"), [10]);
        assert_eq!(counts("a b c d e f g h i j k"), [10, 1]);
        // A comma is a word of its own to the tokenizer, and part of one of two tokens here.
        assert_eq!(counts("a b c d e f g h i j,"), [9, 2]);
        assert_eq!(counts("a b c 1234567890123456789"), [10, 10, 2]);
        assert_eq!(counts("a b c d e f 1234567"), [6, 7]);
    }

    #[test]
    fn endless_texts_are_refused() {
        let tokenizer = ClipTokenizer::published().unwrap();
        let text = "a ".repeat(MAX_CHUNKS * 75);
        assert_eq!(chunks(&tokenizer, &text, 77).unwrap().len(), MAX_CHUNKS);
        assert!(chunks(&tokenizer, &(text + "b"), 77).is_err());
    }
}
