//! Weights in prompts, in the notation that ComfyUI and Fooocus share.
//!
//! `(text)` counts 1.1 times as much as what is around it, `(text:1.3)` counts 1.3 whatever is around it,
//! both may be nested, and `\(` and `\)` are brackets of the text. Where a bracket is never closed, it and what
//! follows it are text.

/// What a pair of brackets without a number multiplies by.
const EMPHASIS: f32 = 1.1;
/// Deeper brackets are text.
const MAX_DEPTH: usize = 64;

/// A part of a text, and how much it counts.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Weighted {
    pub(crate) text: String,
    pub(crate) weight: f32,
}

/// Cuts a prompt into its parts. No part is empty.
pub(crate) fn weighted(prompt: &str) -> Vec<Weighted> {
    let mut parts = Vec::new();
    cut(prompt, 1.0, 0, &mut parts);
    parts
}

fn cut(text: &str, weight: f32, depth: usize, parts: &mut Vec<Weighted>) {
    let mut rest = text;
    while let Some((before, inner, after)) = bracket(rest).filter(|_| depth < MAX_DEPTH) {
        push(before, weight, parts);
        // The number is behind the last colon that is not in the brackets within.
        match inner.rsplit_once(':').map(|(text, number)| (text, number.trim().parse::<f32>())) {
            Some((text, Ok(number))) if number.is_finite() && !text.is_empty() => {
                cut(text, number, depth + 1, parts);
            }
            _ => cut(inner, weight * EMPHASIS, depth + 1, parts),
        }
        rest = after;
    }
    push(rest, weight, parts);
}

/// The first pair of brackets: what is before, in and behind it.
fn bracket(text: &str) -> Option<(&str, &str, &str)> {
    let (mut start, mut depth, mut is_escaped) = (0, 0, false);
    for (at, letter) in text.char_indices() {
        match letter {
            '(' if !is_escaped => {
                if depth == 0 {
                    start = at;
                }
                depth += 1;
            }
            ')' if !is_escaped && depth > 0 => {
                depth -= 1;
                if depth == 0 {
                    return Some((&text[..start], &text[start + 1..at], &text[at + 1..]));
                }
            }
            _ => {}
        }
        is_escaped = letter == '\\' && !is_escaped;
    }
    None
}

fn push(text: &str, weight: f32, parts: &mut Vec<Weighted>) {
    if !text.is_empty() {
        let text = text.replace("\\(", "(").replace("\\)", ")");
        parts.push(Weighted { text, weight });
    }
}

#[cfg(test)]
mod tests {
    use super::weighted;

    fn parts(prompt: &str) -> Vec<(String, f32)> {
        weighted(prompt).into_iter().map(|part| (part.text, part.weight)).collect()
    }

    fn check(prompt: &str, expected: &[(&str, f32)]) {
        let found = parts(prompt);
        let texts: Vec<&str> = found.iter().map(|(text, _)| text.as_str()).collect();
        assert_eq!(texts, expected.iter().map(|(text, _)| *text).collect::<Vec<_>>(), "{prompt:?}");
        for ((text, found), (_, expected)) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{prompt:?}: {text:?} counts {found}");
        }
    }

    #[test]
    fn brackets_multiply_and_numbers_replace() {
        check("", &[]);
        check("a cat", &[("a cat", 1.0)]);
        check("a (cat)", &[("a ", 1.0), ("cat", 1.1)]);
        check("((a)) b", &[("a", 1.21), (" b", 1.0)]);
        check("(a:1.3), (b:0.5)", &[("a", 1.3), (", ", 1.0), ("b", 0.5)]);
        check("(a (b) c:2)", &[("a ", 2.0), ("b", 2.2), (" c", 2.0)]);
        check("((a:1.5) b)", &[("a", 1.5), (" b", 1.1)]);
        check("(a:-1)", &[("a", -1.0)]);
        check("(time 12:30)", &[("time 12", 30.0)]);
    }

    #[test]
    fn what_is_no_weight_is_text() {
        check("(a:b)", &[("a:b", 1.1)]);
        check("(:1.2)", &[(":1.2", 1.1)]);
        check("(a:nan)", &[("a:nan", 1.1)]);
        check("()", &[]);
        check(r"\(a\) (b\):2)", &[("(a) ", 1.0), ("b)", 2.0)]);
        check("a) b", &[("a) b", 1.0)]);
        check("(a) (b (c)", &[("a", 1.1), (" (b (c)", 1.0)]);
        check("(open", &[("(open", 1.0)]);
    }

    #[test]
    fn brackets_without_end_are_quick() {
        let deep = "(".repeat(100_000) + "a" + &")".repeat(100_000);
        assert_eq!(weighted(&deep).len(), 1);
        assert_eq!(weighted(&"(".repeat(100_000)).len(), 1);
        assert_eq!(weighted(&"(a) ".repeat(25_000)).len(), 50_000);
    }
}
