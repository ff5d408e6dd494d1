//! The texts of a prompt: each of its lines is one, as in Fooocus.

/// What is taken off both ends of a line.
const ENDS: [char; 5] = [',', '.', ' ', '\r', '\n'];

/// The lines of a prompt that say something, with single spaces; one empty text if there are none.
pub(crate) fn texts(prompt: &str) -> Vec<String> {
    let lines = prompt.lines().map(|line| {
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        words.join(" ").trim_matches(ENDS).to_owned()
    });
    let texts: Vec<String> = lines.filter(|line| !line.is_empty()).collect();
    if texts.is_empty() { vec![String::new()] } else { texts }
}

#[cfg(test)]
mod tests {
    use super::texts;

    #[test]
    fn lines_that_say_something_are_texts() {
        assert_eq!(texts(""), [""]);
        assert_eq!(texts(" ,. \n\r\n"), [""]);
        assert_eq!(texts("a  cat,\r\n\n , a dog."), ["a cat", "a dog"]);
    }
}
