//! `__name__` in prompts: a line of the user's file `name.txt`.

use std::path::{Path, PathBuf};

use super::random::PythonRandom;
use crate::error::{Error, ErrorKind, Result};
use crate::generate::find;

/// A line of a file may have wildcards itself; so many times all of them are replaced.
const PASSES: usize = 64;
/// Longest text that they may make, in bytes.
const MAX_TEXT: usize = 32 << 10;
/// Longest file of words.
const MAX_FILE: u64 = 64 << 20;

/// Replaces the wildcards of texts.
pub(super) struct Wildcards<'a> {
    /// Where the files are, or in folders below it.
    pub(super) folder: Option<&'a Path>,
    /// The number of the picture, if it picks the line, and not the random numbers.
    pub(super) in_order: Option<usize>,
}

impl Wildcards<'_> {
    /// The text with a line in place of each wildcard, or its name where there is no such file.
    pub(super) fn replaced(&self, text: &str, random: &mut PythonRandom) -> Result<String> {
        let mut text = text.to_owned();
        for _ in 0..PASSES {
            let names = names(&text);
            if names.is_empty() {
                break;
            }
            for name in names {
                let lines = self.lines(&name)?;
                let word = match self.in_order {
                    Some(i) if !lines.is_empty() => lines.get(i % lines.len()),
                    _ => random.choice(&lines),
                };
                let word = word.map_or(&*name, String::as_str);
                text = text.replacen(&format!("__{name}__"), word, 1);
                if text.len() > MAX_TEXT {
                    let message = format!("wildcards make a text of more than {MAX_TEXT} bytes");
                    return Err(Error::invalid_input(message).with("wildcard", name));
                }
            }
        }
        Ok(text)
    }

    /// The lines of a wildcard's file that say something; none if there is no file.
    fn lines(&self, name: &str) -> Result<Vec<String>> {
        let Some(folder) = self.folder else { return Ok(Vec::new()) };
        let Some(file) = find::below(folder, Path::new(&format!("{name}.txt"))) else {
            return Ok(Vec::new());
        };
        let lines = read(&file)?;
        let lines = lines.lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(lines.map(str::to_owned).collect())
    }
}

fn read(file: &PathBuf) -> Result<String> {
    let failed = |e: std::io::Error| {
        Error::new(ErrorKind::Io, format!("cannot read a wildcard: {e}"))
            .with("file", file.display())
    };
    let length = std::fs::metadata(file).map_err(failed)?.len();
    if length > MAX_FILE {
        let message = format!("the wildcard has {length} bytes; at most {MAX_FILE}");
        return Err(Error::invalid_input(message).with("file", file.display()));
    }
    std::fs::read_to_string(file).map_err(failed)
}

/// The names of wildcards in a text, in order.
fn names(text: &str) -> Vec<String> {
    let (mut names, mut rest) = (Vec::new(), text);
    while let Some(start) = rest.find("__") {
        let inner = &rest[start + 2..];
        let is_letter = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
        let run = &inner[..inner.find(|c| !is_letter(c)).unwrap_or(inner.len())];
        // The longest name, as there may be underscores in it.
        match run.rfind("__").filter(|end| *end > 0) {
            Some(end) => {
                names.push(run[..end].to_owned());
                rest = &inner[end + 2..];
            }
            // Underscores are letters of one byte.
            None => rest = &rest[start + 1..],
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_between_double_underscores() {
        for (text, expected) in [
            ("a __color__ __big-cat__", &["color", "big-cat"][..]),
            ("__a_b__", &["a_b"]),
            ("__a__b__", &["a__b"]),
            ("____", &[]),
            ("__a", &[]),
            ("__a b__", &[]),
            ("_a_ __", &[]),
            ("____a__", &["__a"]),
            ("__ä__", &["ä"]),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
    }

    #[test]
    fn lines_take_the_place_of_names() {
        let folder = std::env::temp_dir().join(format!("tagbrush-words-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("more")).unwrap();
        std::fs::write(folder.join("color.txt"), "red\n\n  blue \r\ngreen\n").unwrap();
        std::fs::write(folder.join("more/animal.txt"), "__color__ cat").unwrap();
        std::fs::write(folder.join("self.txt"), "__self__").unwrap();
        std::fs::write(folder.join("bomb.txt"), "__bomb__ __bomb__ and more words here").unwrap();
        std::fs::write(folder.join("bad.txt"), b"\xff\xfe").unwrap();
        std::fs::write(folder.join("empty.txt"), "\n").unwrap();
        let replaced = |text: &str, in_order, seed| {
            let wildcards = Wildcards { folder: Some(&folder), in_order };
            wildcards.replaced(text, &mut PythonRandom::new(seed))
        };
        for (i, color) in ["red", "blue", "green", "red"].into_iter().enumerate() {
            assert_eq!(replaced("a __animal__", Some(i), 0).unwrap(), format!("a {color} cat"));
        }
        // Python's `random.Random(1).choice(["red", "blue", "green"])`, twice.
        assert_eq!(replaced("__color__ __color__", None, 1).unwrap(), "red green");
        assert_eq!(replaced("a __none__ __empty__", None, 1).unwrap(), "a none empty");
        assert_eq!(replaced("__self__", None, 1).unwrap(), "__self__");
        for (text, sign) in [("__bomb__", "wildcard=bomb"), ("__bad__", "bad.txt")] {
            let error = replaced(text, None, 1).unwrap_err().to_string();
            assert!(error.contains(sign), "{error}");
        }
        let without = Wildcards { folder: None, in_order: None };
        assert_eq!(without.replaced("__a__", &mut PythonRandom::new(1)).unwrap(), "a");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
