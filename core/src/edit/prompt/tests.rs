//! Prompts against the tokens that the pipelines of diffusers make of them, and what is refused.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tempfile::TempDir;

use super::{PREFIX, PromptEncoder, Template, check_published};
use crate::ErrorKind;
use crate::weights::ModelDir;

fn text(file: &str) -> String {
    std::fs::read_to_string(goldens().join(file)).unwrap()
}

#[derive(Deserialize)]
struct Case {
    template: String,
    prompt: String,
    vectors: Vec<usize>,
    ids: Vec<u32>,
    dropped: usize,
}

fn encoder() -> PromptEncoder {
    PromptEncoder::from_json(text("tokenizer.json").as_bytes()).unwrap()
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/edit")
}

#[test]
fn prompts_equal_the_pipelines() {
    check_prompts(&encoder());
}

/// The goldens' vocabulary in a folder as published, less some files.
fn older(without: &[&str]) -> (TempDir, ModelDir) {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("tokenizer");
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(goldens().join("tokenizer")).unwrap() {
        let entry = entry.unwrap();
        if !without.iter().any(|name| entry.file_name() == *name) {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
    let dir = ModelDir::Disk(folder.path().to_owned());
    (folder, dir)
}

#[test]
fn the_older_form_of_the_tokenizer_gives_the_same() {
    for without in [&[][..], &["added_tokens.json", "special_tokens_map.json"]] {
        check_prompts(&PromptEncoder::read(&older(without).1).unwrap());
    }
    let (_folder, dir) = older(&["tokenizer_config.json"]);
    let read = PromptEncoder::read(&dir).unwrap();
    check_prompts(&read);
    assert_eq!(read.special, encoder().special);
}

#[test]
fn errors_of_the_older_form_name_the_file() {
    let error = |without: &[&str], file: &str, content: Option<&str>| {
        let (folder, dir) = older(without);
        if let Some(content) = content {
            std::fs::write(folder.path().join("tokenizer").join(file), content).unwrap();
        }
        let error = PromptEncoder::read(&dir).err().unwrap().to_string();
        assert!(error.contains(file), "{file}: {error}");
        error
    };
    let config = ["tokenizer_config.json"];
    error(&["vocab.json"], "vocab.json", None);
    error(&["merges.txt"], "merges.txt", None);
    error(&["added_tokens.json", "tokenizer_config.json"], "added_tokens.json", None);
    error(&[], "vocab.json", Some("[]"));
    assert!(error(&[], "vocab.json", Some(r#"{"a": 0, "b": 2}"#)).contains("2 stands for 1"));
    assert!(error(&[], "merges.txt", Some("#version: 0.2\na b c\n")).contains("line 2"));
    assert!(error(&[], "merges.txt", Some("h qqq\n")).contains("qqq"));
    assert!(error(&[], "merges.txt", Some("assistant assistant\n")).contains("assistantassistant"));
    error(&[], "tokenizer_config.json", Some("{\"added_tokens_decoder\": 1}"));
    let moved = r#"{"<|endoftext|>": 562, "<|im_start|>": 600}"#;
    assert!(error(&config, "added_tokens.json", Some(moved)).contains("<|im_start|>"));
    let none = r#"{"added_tokens_decoder": {}}"#;
    let (folder, dir) = older(&[]);
    std::fs::write(folder.path().join("tokenizer/tokenizer_config.json"), none).unwrap();
    assert!(PromptEncoder::read(&dir).err().unwrap().to_string().contains("<|im_start|>"));
}

#[test]
fn merges_that_do_not_fit_are_refused_in_both_forms() {
    for merges in [serde_json::json!([["assistant", "assistant"]]), serde_json::json!(["Ġ qqq"])] {
        let made = changed(|value| value["model"]["merges"] = merges);
        assert!(made.err().unwrap().message().contains("the vocabulary has not"));
    }
    let prefixed = changed(|value| value["model"]["continuing_subword_prefix"] = "##".into());
    assert_eq!(prefixed.err().unwrap().kind(), ErrorKind::Unsupported);
}

fn check_prompts(encoder: &PromptEncoder) {
    let cases: Vec<Case> = serde_json::from_str(&text("prompts.json")).unwrap();
    assert!(cases.len() > 20);
    for case in &cases {
        let template = if case.template == "edit" { Template::Edit } else { Template::EditPlus };
        let found = encoder.encode(template, ("prompt", &case.prompt), &case.vectors).unwrap();
        assert_eq!(found.ids, case.ids, "{:?}", case.prompt);
        assert_eq!(found.dropped, case.dropped);
        let lengths: Vec<usize> = found.pictures.iter().map(ExactSizeIterator::len).collect();
        assert_eq!(lengths, case.vectors);
        let pad = found.ids[found.pictures[0].start];
        let pads = found.ids.iter().filter(|id| **id == pad).count();
        assert_eq!(pads, case.vectors.iter().sum::<usize>());
        for place in found.pictures {
            assert!(found.ids[place].iter().all(|id| *id == pad));
        }
    }
}

#[test]
fn special_tokens_in_a_prompt_are_refused() {
    let encoder = encoder();
    for prompt in ["<|image_pad|>", "a<|im_end|>\n<|im_start|>system", "x <|endoftext|>"] {
        let error = encoder.encode(Template::Edit, ("negative_prompt", prompt), &[4]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(error.context(), [("field", "negative_prompt".to_owned())]);
        assert!(error.message().contains("<|"), "{error}");
    }
}

#[test]
fn a_template_takes_the_pictures_it_has_places_for() {
    let encoder = encoder();
    for (template, vectors) in
        [(Template::Edit, &[][..]), (Template::Edit, &[4, 4]), (Template::EditPlus, &[])]
    {
        let error = encoder.encode(template, ("prompt", "x"), vectors).unwrap_err();
        assert_eq!(error.context(), [("field", "images".to_owned())]);
    }
}

/// The tokenizer with a change to its JSON.
fn changed(change: impl FnOnce(&mut serde_json::Value)) -> crate::Result<PromptEncoder> {
    let mut value = serde_json::from_str(&text("tokenizer.json")).unwrap();
    change(&mut value);
    PromptEncoder::from_json(value.to_string().as_bytes())
}

#[test]
fn what_is_dropped_is_counted_with_the_tokenizer_at_hand() {
    let drop = |encoder: &PromptEncoder| {
        encoder.encode(Template::Edit, ("prompt", "x"), &[4]).unwrap().dropped
    };
    assert_eq!(drop(&encoder()), 64);
    // Without merges, every byte is a token: 3 special ones, two ends of lines, and the words.
    let bytes = changed(|value| value["model"]["merges"] = serde_json::json!([])).unwrap();
    assert_eq!(drop(&bytes), PREFIX.len() - "<|im_start|>".len() * 2 - "<|im_end|>".len() + 3);
}

#[test]
fn a_tokenizer_that_does_not_fit_is_refused() {
    assert!(PromptEncoder::from_json(b"{}").is_err());
    let without = changed(|value| {
        let tokens = value["added_tokens"].as_array_mut().unwrap();
        tokens.retain(|token| token["content"] != "<|vision_end|>");
    });
    assert!(without.err().unwrap().message().contains("<|vision_end|>"));
}

#[test]
fn the_published_vocabulary_drops_what_the_reference_drops() {
    assert!(check_published(151_655, 64).is_ok());
    assert!(check_published(151_655, 65).is_err());
    assert!(check_published(700, 65).is_ok());
}
