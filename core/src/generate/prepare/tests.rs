//! Prompts as Fooocus prepares them.

use super::*;
use crate::error::ErrorKind;

/// Folders with a few files.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("tagbrush-{name}-{}", std::process::id()));
        for below in ["wildcards", "styles", "loras"] {
            std::fs::create_dir_all(folder.join(below)).unwrap();
        }
        std::fs::write(folder.join("wildcards/color.txt"), "red\ngreen\nblue\n").unwrap();
        let styles = r#"[{"name": "film", "prompt": "film of {prompt}.", "negative_prompt": "drawing"},
            {"name": "dark", "prompt": "dark\nnight", "negative_prompt": "day\nsun"},
            {"name": "clean", "negative_prompt": "noise"}]"#;
        std::fs::write(folder.join("styles/a.json"), styles).unwrap();
        std::fs::write(folder.join("loras/Film.safetensors"), "").unwrap();
        Self(folder)
    }

    fn prompter(&self) -> Prompter {
        let prompter = Prompter::new().wildcards(self.0.join("wildcards"));
        prompter.styles(self.0.join("styles")).unwrap().loras(self.0.join("loras"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn one(prompter: &Prompter, prompt: &str, negative: &str, styles: &[&str]) -> (String, String) {
    let options = PrepareOptions::default().seed(1).styles(styles.iter().copied());
    let request = prompter.prepare(prompt, negative, &options).unwrap().requests.remove(0);
    assert!(request.as_is);
    (request.prompt, request.negative_prompt)
}

#[test]
fn styles_are_around_the_first_line() {
    let folder = Folder::new("around");
    let prompter = folder.prompter();
    assert_eq!(prompter.style_names(), ["Random Style", "Film", "Dark", "Clean"]);
    let texts = |styles: &[&str]| one(&prompter, "a  cat,\n\n in a hat. ", "bad\nworse", styles);
    let pair = |with: &str, against: &str| (with.to_owned(), against.to_owned());
    assert_eq!(texts(&[]), pair("a cat\nin a hat", "bad\nworse"));
    assert_eq!(texts(&["Film"]), pair("film of a cat.\nin a hat", "drawing\nbad\nworse"));
    assert_eq!(texts(&["Clean"]), pair("a cat\nin a hat", "noise\nbad\nworse"));
    assert_eq!(
        texts(&["Dark", "Clean"]),
        pair("a cat\ndark\nnight\nin a hat", "day\nsun\nnoise\nbad\nworse")
    );
    assert_eq!(
        texts(&["Dark", "Film"]),
        pair("dark\nnight\nfilm of a cat.\nin a hat", "day\nsun\ndrawing\nbad\nworse")
    );
    assert_eq!(one(&prompter, "", "", &[]), pair("", ""));
    assert_eq!(one(&prompter, "", "", &["Film"]), pair("film of .", "drawing"));
}

#[test]
fn seeds_decide_what_is_drawn() {
    let folder = Folder::new("seeds");
    let prompter = folder.prompter();
    let prompts = |options: &PrepareOptions| -> Vec<(String, u64)> {
        let prepared = prompter.prepare("__color__ [[a, b]]", "__color__", options).unwrap();
        let each = prepared.requests.into_iter();
        each.map(|request| (request.prompt, request.seed.unwrap())).collect()
    };
    let options = PrepareOptions::default().n(3).seed(SEEDS - 1);
    let found = prompts(&options);
    let seeds: Vec<u64> = found.iter().map(|(_, seed)| *seed).collect();
    assert_eq!(seeds, [SEEDS - 1, 0, 1]);
    assert_eq!(prompts(&options), found);
    // `random.Random(1).choice` of three is the first one, and of the arrays it is the third picture.
    assert_eq!(found[2].0, "red a");
    let same = prompts(&options.clone().same_seed(true));
    assert!(same.iter().all(|(_, seed)| *seed == SEEDS - 1));
    assert_eq!([&same[0].0, &same[1].0].map(|text| &text[text.len() - 1..]), ["a", "b"]);
    let ordered = prompts(&options.wildcards_in_order(true));
    let ordered: Vec<&str> = ordered.iter().map(|(text, _)| &**text).collect();
    assert_eq!(ordered, ["red a", "green b", "blue a"]);
    // The style is drawn behind both wildcards: Python's third choice of three with this seed.
    let options = PrepareOptions::default().seed(1).styles(["Random Style"]);
    let prepared = prompter.prepare("__color__", "__color__", &options).unwrap();
    assert_eq!(prepared.requests[0].negative_prompt, "drawing\nblue");
    assert_eq!(prepared.requests[0].prompt, "film of red.");
}

#[test]
fn loras_come_out_as_files() {
    let folder = Folder::new("named");
    let prompter = folder.prompter();
    let options = PrepareOptions::default().seed(1);
    let prepared = prompter.prepare("a cat, <lora:Film:0.4>", "", &options).unwrap();
    assert_eq!(prepared.requests[0].prompt, "a cat");
    assert_eq!(prepared.loras, [Lora::new(folder.0.join("loras/Film.safetensors")).scale(0.4)]);
    // Only the first line names files.
    let prepared = prompter.prepare("a cat\n<lora:Film:1>", "", &options).unwrap();
    assert_eq!(prepared.requests[0].prompt, "a cat\n<lora:Film:1>");
    assert!(prepared.loras.is_empty());
}

#[test]
fn what_means_nothing_is_refused_by_name() {
    let folder = Folder::new("refused");
    let prompter = folder.prompter();
    let options = PrepareOptions::default;
    for (prompt, options, kind, sign) in [
        ("a", options().n(0), ErrorKind::InvalidInput, "field=n"),
        ("a", options().n(1025), ErrorKind::InvalidInput, "field=n"),
        ("a", options().seed(SEEDS), ErrorKind::InvalidInput, "field=seed"),
        ("a", options().styles(["Moon"]), ErrorKind::InvalidInput, "Moon"),
        ("a", options().styles(["Fooocus V2"]), ErrorKind::Unsupported, "fooocus_expansion"),
        ("<lora:none:1>", options(), ErrorKind::ModelNotFound, "none.safetensors"),
    ] {
        let error = prompter.prepare(prompt, "", &options).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(sign), "{error}");
    }
}
