//! Tag names as people write them: spaces or underscores, any case, smileys.

use std::collections::HashSet;

/// The form in which two spellings of a tag are equal.
pub(super) fn normalised(name: &str) -> String {
    name.trim().replace(' ', "_").to_lowercase()
}

/// A set of tags that is asked with any spelling.
#[derive(Clone, Debug, Default)]
pub(super) struct TagMatcher(HashSet<String>);

impl TagMatcher {
    pub(super) fn new<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Self {
        Self(names.into_iter().map(|name| normalised(name.as_ref())).collect())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        !self.0.is_empty() && self.0.contains(&normalised(name))
    }
}

/// Smileys whose underscores are part of the drawing although letters stand beside them.
const KAOMOJI: &[&str] = &["o_o", "u_u", "x_x", "0_0", "3_3", "6_9", "(o)_(o)", "<o>_<o>"];

/// Whether a name is a smiley: one of the known ones, or one whose parts between underscores have
/// no two letters in a row and of which at least one has no letter or digit at all (`@_@`, `>_<`,
/// `^_^`, `|_|`, `+_+`).
fn is_kaomoji(name: &str) -> bool {
    if KAOMOJI.contains(&name) {
        return true;
    }
    let has_word = name.split('_').any(|part| {
        let letters = part.chars().map(char::is_alphabetic);
        letters.clone().zip(letters.skip(1)).any(|pair| pair == (true, true))
    });
    let has_face =
        name.split('_').any(|part| !part.is_empty() && !part.chars().any(char::is_alphanumeric));
    !has_word && has_face
}

/// The name with spaces for underscores, unless it is a smiley.
pub(super) fn with_spaces(name: &str) -> String {
    if is_kaomoji(name) { name.to_owned() } else { name.replace('_', " ") }
}

/// The name with a backslash before parentheses and backslashes, as prompts of Stable Diffusion
/// front ends want it.
pub(super) fn escaped(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    for c in name.chars() {
        if matches!(c, '(' | ')' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Whether every word of `less` stands in `more`, in a row: `long_hair` in `very_long_hair`, but
/// not `ass` in `glasses`.
pub(super) fn says_less(less: &str, more: &str) -> bool {
    if less.len() >= more.len() || is_kaomoji(less) || is_kaomoji(more) {
        return false;
    }
    let less: Vec<&str> = words(less).collect();
    let more: Vec<&str> = words(more).collect();
    !less.is_empty() && more.windows(less.len()).any(|window| window == less)
}

fn words(name: &str) -> impl Iterator<Item = &str> {
    name.split(['_', ' ', '(', ')']).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smileys_keep_their_underscores() {
        // The list that the reference implementations share.
        for face in [
            "0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3",
            "6_9", ">_o", "@_@", "^_^", "o_o", "u_u", "x_x", "|_|", "||_||",
        ] {
            assert_eq!(with_spaces(face), face);
        }
        for (name, spaced) in [
            ("long_hair", "long hair"),
            ("1girl", "1girl"),
            ("star_(symbol)", "star (symbol)"),
            ("k-on!", "k-on!"),
            ("a_b", "a b"),
            ("mario_(series)", "mario (series)"),
            ("x-ray_glasses", "x-ray glasses"),
            ("d.va_(overwatch)", "d.va (overwatch)"),
        ] {
            assert_eq!(with_spaces(name), spaced, "{name}");
        }
    }

    #[test]
    fn parentheses_and_backslashes_are_escaped() {
        assert_eq!(escaped("star (symbol)"), "star \\(symbol\\)");
        assert_eq!(escaped("\\m/"), "\\\\m/");
    }

    #[test]
    fn matching_ignores_spelling() {
        let matcher = TagMatcher::new(["Long Hair", " solo "]);
        for name in ["long_hair", "LONG HAIR", "Long_hair", "solo"] {
            assert!(matcher.has(name), "{name}");
        }
        assert!(!matcher.has("long"));
    }

    #[test]
    fn redundancy_goes_by_whole_words() {
        assert!(says_less("long_hair", "very_long_hair"));
        assert!(says_less("hair", "long_hair"));
        assert!(says_less("shirt", "white_shirt"));
        for (less, more) in [
            ("ass", "glasses"),
            ("hat", "what"),
            ("long_hair", "hair_long"),
            ("a", "a"),
            (">_<", ">_< a"),
        ] {
            assert!(!says_less(less, more), "{less} {more}");
        }
    }
}
