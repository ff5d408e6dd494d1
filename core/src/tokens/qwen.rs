//! The tokenizer in the older form in which some models are published: a vocabulary, the merges, and
//! beside them the tokens that were added later. What goes before and behind them is the same in all
//! of these models and in no file: `Qwen2Tokenizer` of transformers has it built in, and so have we.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, SplitDelimiterBehavior, Tokenizer};

use super::bpe::{FILES, check_merges, check_numbers, failed, json, parse_merges};
use crate::error::{Error, Result};
use crate::weights::ModelDir;

/// Pieces of a text, none of which a token goes beyond.
const SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// An added token, as `tokenizer_config.json` describes it.
#[derive(Deserialize)]
struct Added {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

/// Reads the tokenizer whose files are in `folder` of `dir`. Errors name the file.
pub(crate) fn read(dir: &ModelDir, folder: &str) -> Result<Tokenizer> {
    let [vocabulary, merges] = FILES.map(|file| format!("{folder}/{file}"));
    let words: BTreeMap<String, u32> = json(dir, &vocabulary)?;
    check_numbers(&words).map_err(|e| e.with("file", dir.origin(&vocabulary)))?;
    let text = dir.text(&merges)?;
    let fit = |pairs: Vec<(String, String)>| {
        check_merges(&words, pairs.iter().map(|(left, right)| [left.as_str(), right]))?;
        let words: Vocab = words.iter().map(|(word, number)| (word.clone(), *number)).collect();
        BPE::builder().vocab_and_merges(words, pairs).build().map_err(failed)
    };
    let model =
        parse_merges(&text).and_then(fit).map_err(|e| e.with("file", dir.origin(&merges)))?;
    let mut tokenizer = Tokenizer::new(model);
    let pattern = SplitPattern::Regex(SPLIT.to_owned());
    let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map_err(failed)?;
    let bytes = ByteLevel::new(false, false, false);
    let pieces = [PreTokenizerWrapper::Split(split), PreTokenizerWrapper::ByteLevel(bytes)];
    tokenizer
        .with_normalizer(Some(NFC))
        .map_err(failed)?
        .with_pre_tokenizer(Some(Sequence::new(pieces.into())))
        .with_decoder(Some(bytes));
    let (file, added) = added(dir, folder)?;
    add(&mut tokenizer, added).map_err(|e| e.with("file", dir.origin(&file)))?;
    Ok(tokenizer)
}

/// The added tokens by their number, and the file that they are from: `tokenizer_config.json` says
/// all of each; without it `added_tokens.json` has them, and `special_tokens_map.json` those of them
/// that are special.
fn added(dir: &ModelDir, folder: &str) -> Result<(String, BTreeMap<u32, Added>)> {
    #[derive(Deserialize)]
    struct Config {
        added_tokens_decoder: Option<BTreeMap<u32, Added>>,
    }
    let [config, plain, special] =
        ["tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"]
            .map(|file| format!("{folder}/{file}"));
    if dir.has(&config) {
        let Config { added_tokens_decoder } = json(dir, &config)?;
        if let Some(added) = added_tokens_decoder {
            return Ok((config, added));
        }
    }
    let numbers: BTreeMap<String, u32> = json(dir, &plain)?;
    let mut names = BTreeSet::new();
    if dir.has(&special) {
        texts(&json(dir, &special)?, &mut names);
    }
    let added = numbers.into_iter().map(|(content, number)| {
        let special = names.contains(&content);
        let (single_word, lstrip, rstrip, normalized) = (false, false, false, false);
        (number, Added { content, single_word, lstrip, rstrip, normalized, special })
    });
    Ok((plain, added.collect()))
}

/// The tokens that a `special_tokens_map.json` names: as texts, or as objects that have one.
fn texts(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            found.insert(text.clone());
        }
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(fields) => match fields.get("content") {
            Some(content) => texts(content, found),
            None => fields.values().for_each(|value| texts(value, found)),
        },
        _ => {}
    }
}

/// Adds tokens in the order of their numbers, which is how they get them.
fn add(tokenizer: &mut Tokenizer, added: BTreeMap<u32, Added>) -> Result<()> {
    let tokens: Vec<AddedToken> = added
        .values()
        .map(|added| {
            AddedToken::from(added.content.clone(), added.special)
                .single_word(added.single_word)
                .lstrip(added.lstrip)
                .rstrip(added.rstrip)
                .normalized(added.normalized)
        })
        .collect();
    tokenizer.add_tokens(tokens).map_err(failed)?;
    for (number, Added { content, .. }) in &added {
        if tokenizer.token_to_id(content) != Some(*number) {
            return Err(Error::model_invalid(format!(
                "the token `{content}` has the number {number}, which is not the next one behind \
                 the vocabulary"
            )));
        }
    }
    Ok(())
}
