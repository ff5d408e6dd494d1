//! The tokenizer of CLIP's text encoders, `CLIPTokenizer` of transformers.
//!
//! Single-file checkpoints have no tokenizer, and all published models have the same one. So its merges
//! are embedded (half a megabyte), and its words are counted from them: each byte, each byte that ends a
//! word, what each merge makes, and the two tokens around a text.

use std::collections::BTreeMap;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{Lowercase, NFC, NormalizerWrapper, Replace, Sequence};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as Pieces;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use super::bpe::{FILES, check_merges, failed, json, parse_merges};
use crate::error::{Error, Result};
use crate::weights::ModelDir;

/// The merges of all published models.
const MERGES: &str = include_str!("../../assets/clip/merges.txt");
/// What a text is cut into; spaces between are dropped.
const SPLIT: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
/// Ends a word.
const END_OF_WORD: &str = "</w>";
/// The tokens around a text; the second also stands for what the vocabulary has not.
const AROUND: [&str; 2] = ["<|startoftext|>", "<|endoftext|>"];

/// A tokenizer of CLIP.
pub(crate) struct ClipTokenizer {
    tokenizer: Tokenizer,
    /// Comes before a text.
    pub(crate) start: u32,
    /// Comes behind it.
    pub(crate) end: u32,
}

impl ClipTokenizer {
    /// That of the published models.
    pub(crate) fn published() -> Result<Self> {
        let merges = parse_merges(MERGES)?;
        Self::new(counted(&merges), merges)
    }

    /// From `vocab.json` and `merges.txt` in `folder` of `dir`. Errors name the file.
    pub(crate) fn read(dir: &ModelDir, folder: &str) -> Result<Self> {
        let [vocabulary, merges] = FILES.map(|file| format!("{folder}/{file}"));
        let words: BTreeMap<String, u32> = json(dir, &vocabulary)?;
        parse_merges(&dir.text(&merges)?)
            .and_then(|merges| Self::new(words, merges))
            .map_err(|error| error.with("file", dir.origin(&merges)))
    }

    fn new(words: BTreeMap<String, u32>, merges: Vec<(String, String)>) -> Result<Self> {
        check_merges(&words, merges.iter().map(|(left, right)| [left.as_str(), right]))?;
        let number = |name: &str| {
            let missing = || Error::model_invalid(format!("the vocabulary has no `{name}`"));
            words.get(name).copied().ok_or_else(missing)
        };
        let [start, end] = AROUND;
        let (start, end) = (number(start)?, number(end)?);
        let words: Vocab = words.into_iter().collect();
        let model = BPE::builder()
            .vocab_and_merges(words, merges)
            .unk_token(AROUND[1].to_owned())
            .end_of_word_suffix(END_OF_WORD.to_owned())
            .build()
            .map_err(failed)?;
        let spaces = Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ").map_err(failed)?;
        let pattern = SplitPattern::Regex(SPLIT.to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Removed, true).map_err(failed)?;
        let pieces = [
            PreTokenizerWrapper::Split(split),
            PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false)),
        ];
        let steps = [
            NormalizerWrapper::NFC(NFC),
            NormalizerWrapper::Replace(spaces),
            NormalizerWrapper::Lowercase(Lowercase),
        ];
        let mut tokenizer = Tokenizer::new(model);
        tokenizer
            .with_normalizer(Some(Sequence::new(steps.into())))
            .map_err(failed)?
            .with_pre_tokenizer(Some(Pieces::new(pieces.into())));
        Ok(Self { tokenizer, start, end })
    }

    /// The tokens of a text, without those around it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if the text has one of the tokens around texts in
    /// it, which would end it.
    pub(crate) fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let lower = text.to_lowercase();
        if let Some(token) = AROUND.into_iter().find(|token| lower.contains(token)) {
            return Err(Error::invalid_input(format!(
                "the text contains the special token `{token}`"
            )));
        }
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(|e| Error::model_invalid(format!("the tokenizer fails: {e}")).caused_by(e))?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// The words that belong to merges, in the order in which CLIP numbers them: bytes as the characters
/// that stand for them (those that can be seen first), the same at the end of a word, merges, and the
/// tokens around a text.
fn counted(merges: &[(String, String)]) -> BTreeMap<String, u32> {
    let is_seen = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let seen = (0..=255).filter(is_seen).map(char::from);
    let others = (0..=255).filter(|byte| !is_seen(byte)).zip(256..).map(|(_, code)| code);
    let bytes: Vec<String> =
        seen.chain(others.filter_map(char::from_u32)).map(String::from).collect();
    let ends = bytes.iter().map(|byte| format!("{byte}{END_OF_WORD}"));
    let made = merges.iter().map(|(left, right)| format!("{left}{right}"));
    let around = AROUND.map(String::from);
    bytes.iter().cloned().chain(ends).chain(made).chain(around).zip(0..).collect()
}

#[cfg(test)]
mod tests;
