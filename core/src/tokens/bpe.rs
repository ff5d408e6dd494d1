//! The files of a byte-pair tokenizer, checked: the tokenizer library panics on some that do not fit.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::weights::ModelDir;

/// The files of the older form.
pub(crate) const FILES: [&str; 2] = ["vocab.json", "merges.txt"];
/// The first line of merges, where it is not one of them.
const VERSION: &str = "#version";

pub(super) fn json<T: DeserializeOwned>(dir: &ModelDir, file: &str) -> Result<T> {
    serde_json::from_str(&dir.text(file)?).map_err(|e| {
        Error::model_invalid(format!("not a file of a tokenizer: {e}"))
            .with("file", dir.origin(file))
    })
}

pub(super) fn failed(error: tokenizers::Error) -> Error {
    Error::model_invalid(format!("cannot make a tokenizer: {error}")).caused_by(error)
}

/// Fails unless words have the numbers from 0 on: added tokens get the next ones.
pub(super) fn check_numbers(words: &BTreeMap<String, u32>) -> Result<()> {
    let mut numbers: Vec<u32> = words.values().copied().collect();
    numbers.sort_unstable();
    match numbers.iter().zip(0..).find(|(found, expected)| **found != *expected) {
        None => Ok(()),
        Some((found, expected)) => Err(Error::model_invalid(format!(
            "the words are not numbered from 0 on: {found} stands for {expected}"
        ))),
    }
}

/// Fails unless both parts of every merge and what it makes are words. The tokenizer library would
/// panic on a merge that makes more than its longest word.
pub(super) fn check_merges<'a>(
    words: &BTreeMap<String, u32>,
    merges: impl Iterator<Item = [&'a str; 2]>,
) -> Result<()> {
    let mut made = String::new();
    for [left, right] in merges {
        made.clear();
        made.push_str(left);
        made.push_str(right);
        if let Some(missing) = [left, right, &made].into_iter().find(|w| !words.contains_key(*w)) {
            return Err(Error::model_invalid(format!(
                "the merge of `{left}` and `{right}` needs the word `{missing}`, which the \
                 vocabulary has not"
            )));
        }
    }
    Ok(())
}

/// Fails unless `bytes` are a `tokenizer.json` with the model that all of these tokenizers have, whose
/// merges fit its words. That the rest of the file is right is left to the tokenizer library.
pub(crate) fn check_json(bytes: &[u8]) -> Result<()> {
    #[derive(Deserialize)]
    struct File {
        model: Model,
    }
    #[derive(Deserialize)]
    struct Model {
        vocab: BTreeMap<String, u32>,
        merges: Vec<Merge>,
        #[serde(default)]
        continuing_subword_prefix: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Merge {
        Pair([String; 2]),
        Line(String),
    }
    let File { model } = serde_json::from_slice(bytes)
        .map_err(|e| Error::model_invalid(format!("not a byte pair tokenizer: {e}")))?;
    if model.continuing_subword_prefix.is_some_and(|prefix| !prefix.is_empty()) {
        return Err(Error::unsupported("a tokenizer with `continuing_subword_prefix`"));
    }
    let merges = model.merges.iter().filter_map(|merge| match merge {
        Merge::Pair([left, right]) => Some([left.as_str(), right]),
        // A line that is no pair is an error of the library's.
        Merge::Line(line) => line.split_once(' ').map(|(left, right)| [left, right]),
    });
    check_merges(&model.vocab, merges.filter(|[left, _]| !left.starts_with(VERSION)))
}

/// Pairs of parts, one on each line.
pub(super) fn parse_merges(text: &str) -> Result<Vec<(String, String)>> {
    let lines = text.lines().enumerate();
    let lines = lines.skip_while(|(i, line)| *i == 0 && line.starts_with(VERSION));
    lines
        .filter(|(_, line)| !line.is_empty())
        .map(|(i, line)| match line.split_once(' ') {
            Some((left, right))
                if !left.is_empty() && !right.is_empty() && !right.contains(' ') =>
            {
                Ok((left.to_owned(), right.to_owned()))
            }
            _ => Err(Error::model_invalid(format!("line {} is no pair of parts", i + 1))),
        })
        .collect()
}
