//! `[[a, b, c]]` in prompts: each picture has another one of them.

/// More combinations than this are not told apart.
const MAX_COMBINATIONS: usize = 1 << 40;

/// The prompt of picture `i`: the first array changes with every picture, the next one when all of the first
/// were there, and after the last combination the first one comes again.
pub(super) fn picked(prompt: &str, i: usize) -> String {
    let mut out = String::with_capacity(prompt.len());
    let (mut rest, mut i) = (prompt, i % MAX_COMBINATIONS);
    while let Some((before, inner, after)) = array(rest) {
        let elements: Vec<&str> = inner.split(',').map(str::trim).collect();
        out.push_str(before);
        out.push_str(elements[i % elements.len()]);
        i /= elements.len();
        rest = after;
    }
    out.push_str(rest);
    out
}

/// What is before, in and behind the first array.
fn array(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("[[")?;
    let (inner, after) = rest.split_once("]]")?;
    Some((before, inner, after))
}

#[cfg(test)]
mod tests {
    use super::picked;

    #[test]
    fn the_first_array_is_the_fastest() {
        let prompt = "a [[red, blue]] [[cat,dog, owl]]!";
        let all: Vec<_> = (0..7).map(|i| picked(prompt, i)).collect();
        assert_eq!(all[0], "a red cat!");
        assert_eq!(all[1], "a blue cat!");
        assert_eq!(all[2], "a red dog!");
        assert_eq!(all[5], "a blue owl!");
        assert_eq!(all[6], all[0]);
    }

    #[test]
    fn what_is_no_array_is_text() {
        for text in ["", "a", "[[a", "a]]", "[a, b]", "]] [["] {
            assert_eq!(picked(text, 3), text);
        }
        assert_eq!(picked("[[]]", 1), "");
        assert_eq!(picked("[[a]] [[", 1), "a [[");
    }
}
