//! The texts of a prompt: each of its lines is one, as in Fooocus.

/// What is taken off both ends of a line.
const ENDS: [char; 5] = [',', '.', ' ', '\r', '\n'];

/// The lines of a prompt that say something, with single spaces.
pub(crate) fn said(prompt: &str) -> Vec<String> {
    let lines = prompt.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        words.join(" ").trim_matches(ENDS).to_owned()
    });
    lines.filter(|line| !line.is_empty()).collect()
}

/// The texts of a prompt, of which there is at least one: lines that say something, or with `as_is` lines that are
/// not empty, as they are.
pub(crate) fn texts(prompt: &str, as_is: bool) -> Vec<String> {
    let texts: Vec<String> = match as_is {
        true => prompt.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect(),
        false => said(prompt),
    };
    if texts.is_empty() { vec![String::new()] } else { texts }
}

#[cfg(test)]
mod tests {
    use super::texts;

    #[test]
    fn lines_that_say_something_are_texts() {
        assert_eq!(texts("", false), [""]);
        assert_eq!(texts(" ,. \n\r\n", false), [""]);
        assert_eq!(texts("a  cat,\r\n\n , a dog.", false), ["a cat", "a dog"]);
        assert_eq!(texts("", true), [""]);
        assert_eq!(texts("a  cat,\n\n a dog.", true), ["a  cat,", " a dog."]);
    }
}
