//! Against transformers' `CLIPTokenizer`.

use serde::Deserialize;

use super::*;
use crate::error::ErrorKind;

#[derive(Deserialize)]
struct Case {
    text: String,
    ids: Vec<u32>,
}

#[test]
fn texts_have_the_tokens_of_the_reference() {
    let cases: Vec<Case> =
        serde_json::from_str(include_str!("../../../tests/goldens/generate-prompts/golden.json"))
            .unwrap();
    let tokenizer = ClipTokenizer::published().unwrap();
    assert_eq!((tokenizer.start, tokenizer.end), (49_406, 49_407));
    for Case { text, ids } in cases {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{text:?}");
    }
}

#[test]
fn the_tokens_around_a_text_are_refused_within() {
    let tokenizer = ClipTokenizer::published().unwrap();
    for text in ["a <|endoftext|> b", "<|STARTOFTEXT|>"] {
        assert_eq!(tokenizer.encode(text).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn a_folder_has_its_own_words() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("tokenizer");
    std::fs::create_dir(&to).unwrap();
    let write = |file: &str, text: &str| std::fs::write(to.join(file), text).unwrap();
    write("merges.txt", "#version: 0.2\nc a\nca t</w>\n");
    let words = r#"{"c": 0, "a": 1, "t</w>": 2, "ca": 3, "cat</w>": 4, "<|startoftext|>": 5, "<|endoftext|>": 6}"#;
    write("vocab.json", words);
    let dir = ModelDir::Disk(folder.path().to_owned());
    let tokenizer = ClipTokenizer::read(&dir, "tokenizer").unwrap();
    assert_eq!((tokenizer.start, tokenizer.end), (5, 6));
    // What is no word is the token that ends a text.
    assert_eq!(tokenizer.encode("Cat cat dog").unwrap(), [4, 4, 6, 6, 6]);
    write("vocab.json", &words.replace("\"ca\"", "\"ac\""));
    let error = ClipTokenizer::read(&dir, "tokenizer").err().unwrap();
    assert!(error.message().contains("the vocabulary has not"), "{error}");
}
