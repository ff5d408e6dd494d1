//! `<lora:name:0.8>` in prompts: LoRA files by their names.

use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::generate::find;
use crate::options::Lora;

/// What stands before a name.
const START: &str = "<lora:";
/// What these files end in.
const ENDING: &str = "safetensors";

/// The prompt without its LoRAs, and these by their names, each of which counts once.
pub(super) fn taken_out(prompt: &str) -> (String, Vec<(String, f64)>) {
    let (mut left, mut rest, mut found) = (String::new(), prompt, Vec::<(String, f64)>::new());
    while let Some((before, after)) = rest.split_once(START) {
        left.push_str(before);
        let lora = after.split_once('>').and_then(|(inner, after)| {
            let (name, scale) = inner.rsplit_once(':')?;
            Some((name, decimal(scale)?, after)).filter(|_| !name.is_empty())
        });
        match lora {
            Some((name, scale, after)) => {
                if found.iter().all(|(known, _)| known != name) {
                    found.push((name.to_owned(), scale));
                }
                rest = after;
            }
            None => {
                left.push_str(START);
                rest = after;
            }
        }
    }
    if found.is_empty() {
        return (prompt.to_owned(), found);
    }
    left.push_str(rest);
    let parts: Vec<&str> = left.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    (parts.join(", "), found)
}

/// Digits with maybe a sign and a point.
fn decimal(text: &str) -> Option<f64> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_decimal = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    text.parse().ok().filter(|_| is_decimal)
}

/// The files of these names in folders, or below them.
pub(super) fn files(loras: &[(String, f64)], folders: &[PathBuf]) -> Result<Vec<Lora>> {
    let file = |(name, scale): &(String, f64)| {
        let file = folders.iter().find_map(|folder| find::of_stem(folder, name, ENDING));
        let file = file.ok_or_else(|| {
            let message = format!(
                "the prompt asks for the LoRA `{name}`, and there is no file `{name}.{ENDING}` in the \
                 folders of LoRA files"
            );
            Error::new(ErrorKind::ModelNotFound, message).with("field", "prompt")
        })?;
        Ok(Lora::new(file).scale(*scale))
    };
    loras.iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loras_leave_the_prompt() {
        let all = |prompt: &str| {
            let (left, found) = taken_out(prompt);
            let found: Vec<_> = found.iter().map(|(n, s)| format!("{n} {s}")).collect();
            (left, found.join("; "))
        };
        for (prompt, left, found) in [
            ("a cat, <lora:film:0.5>, dusk", "a cat, dusk", "film 0.5"),
            ("a<lora:x:1><lora:y.2:-.5> b", "a b", "x 1; y.2 -0.5"),
            ("<lora:x:1> <lora:x:2>", "", "x 1"),
            ("<lora:a:b:1>", "", "a:b 1"),
        ] {
            assert_eq!(all(prompt), (left.to_owned(), found.to_owned()), "{prompt}");
        }
        for plain in ["a,  b", "<lora:a>", "<lora::1>", "<lora:a:inf>", "<lora:a:1e3>", "<lora:a:1"]
        {
            assert_eq!(all(plain), (plain.to_owned(), String::new()));
        }
        assert_eq!(all("<lora:b <lora:a:1>, c").1, "b <lora:a 1");
    }

    #[test]
    fn files_are_found_by_their_stems() {
        let folder = std::env::temp_dir().join(format!("tagbrush-inline-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("styles")).unwrap();
        let file = folder.join("styles/Film v1.5.safetensors");
        std::fs::write(&file, "").unwrap();
        let found = |name: &str| files(&[(name.to_owned(), 0.5)], std::slice::from_ref(&folder));
        assert_eq!(found("Film v1.5").unwrap(), [Lora::new(&file).scale(0.5)]);
        for name in ["film", "../styles/Film v1.5", "styles/Film v1.5", ""] {
            let error = found(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ModelNotFound);
            assert!(error.to_string().contains(name), "{error}");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
